"""What is wrong or risky in a configuration, and how to mend it.

``run()`` looks at a CACHES dict without opening a cache or writing anything:
``storeroom check`` prints its findings, and a framework can report them in its own
way. An error is a configuration that cannot work or is dangerous; a warning, one
that works, but hardly as it is meant. Each rule has an id that silences it, and a
section in docs/common-mistakes.md.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from storeroom.checks import directories, entries, locations, sharing, subject
from storeroom.checks.context import Context
from storeroom.checks.finding import Finding, Level, Rule
from storeroom.checks.subject import Subject

__all__ = ["RULES", "Context", "Finding", "Level", "Rule", "Subject", "full_id", "run"]

_CHECKS: Final = (*locations.CHECKS, *entries.CHECKS, *directories.CHECKS, *sharing.CHECKS)

RULES: Final[Mapping[str, Rule]] = {
    rule.id: rule
    for rule in sorted(
        (*subject.RULES, *locations.RULES, *entries.RULES, *directories.RULES, *sharing.RULES),
        key=lambda rule: rule.id,
    )
}
"""Every rule by its id, errors first."""


def run(caches: Mapping[str, Any], *, context: Context | None = None, silenced: Collection[str] = ()) -> list[Finding]:
    """Check a whole configuration.

    Args:
        caches: alias to its dict, as in ``CACHES``.
        context: what surrounds it; by default what this machine tells.
        silenced: ids that are not reported.

    Returns:
        The findings, errors first, then by alias in the order of `caches`.
    """
    context = Context.here() if context is None else context
    found = [finding for finding in _findings(caches, context) if finding.id not in silenced]
    # Sorting is stable: among errors, and among warnings, the order of the aliases stays.
    return sorted(found, key=lambda finding: finding.level)


def full_id(word: str) -> str | None:
    """Return the id that a person means by "W001" or "storeroom.W001"; None if there is none.

    >>> full_id("w001")
    'storeroom.W001'
    """
    identifier = "storeroom." + word.strip().rpartition(".")[2].upper()
    return identifier if identifier in RULES else None


def _findings(caches: Mapping[str, Any], context: Context) -> Iterator[Finding]:
    subjects: dict[str, Subject] = {}
    each_is_right = True
    for name, written in caches.items():
        subjects[name], hindrances = subject.read_subject(name, written, context)
        each_is_right = each_is_right and not any(finding.level == "error" for finding in hindrances)
        found = [*hindrances, *(finding for check in _CHECKS for finding in check(subjects[name]))]
        yield from sorted(found, key=lambda finding: finding.id)
    yield from subject.check_together(caches, context, each_is_right=each_is_right)
    yield from sharing.check_pairs(subjects)
