"""Mistakes and risks in a configuration, and the way to mend them.

``run()`` looks at a CACHES dict without opening a cache or writing anything. ``probe()`` asks the servers in it, and
changes nothing there; ``run()`` then looks at the answers too. ``storeroom check`` prints the findings, and a framework
can report them in its own way::

    findings = checks.run(CACHES, probes=checks.probe(CACHES))

An error is a configuration that cannot work or is dangerous; a warning, one that works, but hardly as it is meant. Each
rule has an id that silences it, and a section in docs/common-mistakes.md. A ``subject`` is an alias as far as it can be
read, and a ``context`` the machine around it; each other module holds the rules of one topic.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from storeroom.checks import directories, entries, locations, servers, sharing, subject, trust
from storeroom.checks.context import Context
from storeroom.checks.finding import Finding, Rule
from storeroom.checks.live import PATIENCE, probe
from storeroom.storage.probes import Probe

__all__ = ["PATIENCE", "RULES", "Context", "Finding", "probe", "run"]

_CHECKS: Final = (entries.check_entries, directories.check_directory, *locations.CHECKS, *sharing.CHECKS, *trust.CHECKS)

_PARTS: Final = (subject, locations, entries, directories, sharing, trust, servers)

RULES: Final[Mapping[str, Rule]] = {
    rule.id: rule for rule in sorted((rule for part in _PARTS for rule in part.RULES), key=lambda rule: rule.id)
}
"""Every rule by its id, errors first."""


def run(
    caches: Mapping[str, Any],
    *,
    context: Context | None = None,
    silenced: Collection[str] = (),
    probes: Mapping[str, Probe] | None = None,
) -> list[Finding]:
    """Check a whole configuration.

    Args:
        caches: alias to its dict, as in ``CACHES``.
        context: its surroundings; by default those that this machine tells.
        silenced: ids that are not reported.
        probes: alias to the answers of its servers, as probe() returns them; without, nothing is said of servers.

    Returns:
        The findings, errors first, then by alias in the order of `caches`.
    """
    context = Context.here() if context is None else context
    found = [finding for finding in _findings(caches, context, probes or {}) if finding.id not in silenced]
    # Sorting is stable: among errors, and among warnings, the order of the aliases stays.
    return sorted(found, key=lambda finding: finding.level)


def full_id(word: str) -> str | None:
    """Return the id that a person means by "W001" or "storeroom.W001"; None if there is none.

    >>> full_id("w001")
    'storeroom.W001'
    """
    identifier = "storeroom." + word.strip().rpartition(".")[2].upper()
    return identifier if identifier in RULES else None


def _findings(caches: Mapping[str, Any], context: Context, probes: Mapping[str, Probe]) -> Iterator[Finding]:
    read = [subject.read_subject(name, written, context) for name, written in caches.items()]
    told: set[tuple[str, str]] = set()
    for alias, hindrances in read:
        found = [*hindrances, *(finding for check in _CHECKS for finding in check(alias))]
        found += sharing.check_not_shared(alias, caches)
        found += trust.check_ways(alias, probes.get(alias.name))
        # A finding about a server that several aliases share is told once.
        of_servers = list(servers.check_probe(alias, probes.get(alias.name, Probe())))
        found += [finding for finding in of_servers if (finding.id, finding.what) not in told]
        told |= {(finding.id, finding.what) for finding in of_servers}
        yield from sorted(found, key=lambda finding: finding.id)
    each_is_right = not any(finding.level == "error" for _, hindrances in read for finding in hindrances)
    yield from subject.check_together(caches, context, each_is_right=each_is_right)
    yield from sharing.check_pairs([alias for alias, _ in read])
