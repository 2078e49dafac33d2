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
from functools import partial
from typing import Any, Final

from storeroom.checks import directories, entries, locations, servers, sharing, subject, trust
from storeroom.checks.context import Context
from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject
from storeroom.config import Settings
from storeroom.exceptions import StoreroomError
from storeroom.storage.probes import Endpoint, Probe, ServerProbe, together

__all__ = ["PATIENCE", "RULES", "Context", "Finding", "probe", "run"]

_CHECKS: Final = (entries.check_entries, directories.check_directory, *locations.CHECKS, *sharing.CHECKS, *trust.CHECKS)

_PARTS: Final = (subject, locations, entries, directories, sharing, trust, servers)

_ALL: Final = {rule for part in _PARTS for rule in vars(part).values() if isinstance(rule, Rule)}

RULES: Final[Mapping[str, Rule]] = {rule.id: rule for rule in sorted(_ALL, key=lambda rule: rule.id)}
"""Every rule that one of the parts defines, by its id; errors first."""

PATIENCE: Final = 3.0
"""Seconds; a cache waits for one, and PostgreSQL's library for two at least."""


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


def probe(caches: Mapping[str, Any], *, context: Context | None = None, seconds: float = PATIENCE) -> dict[str, Probe]:
    """Ask the servers that a configuration names. Nothing is written to them, and nothing changed.

    Args:
        caches: alias to its dict, as in ``CACHES``.
        context: its surroundings; by default those that this machine tells.
        seconds: the longest to wait for each server; all are asked at the same time.

    Returns:
        dict from alias to the answers of its servers; aliases without a server are absent, and so are those in which
        something is wrong.
    """
    context = Context.here() if context is None else context
    subjects = [subject.read_subject(name, written, context)[0] for name, written in caches.items()]
    asked = [each for each in subjects if each.alias is not None and hasattr(each.alias.backend, "probe")]
    patience = 2 * seconds + 1  # some servers are named by others, which are asked first
    answers = together([partial(_ask, alias, seconds) for alias in asked], patience)
    silence = partial(ServerProbe, failure=f"no answer within {patience:g} s", seconds=patience)
    return {
        alias.name: answer or Probe((silence(Endpoint(alias.shown_location)),))
        for alias, answer in zip(asked, answers, strict=True)
    }


def _ask(asked: Subject, seconds: float) -> Probe:
    alias = asked.alias
    if alias is None or alias.settings is None:
        return Probe()
    try:
        handle: Any = alias.build()
        if _is_the_sites(asked, alias.settings, handle):
            return Probe(unasked="it is in a database of the site, which is known where Django runs")
        answer: Probe = handle.probe(seconds)
    except (StoreroomError, OSError) as error:
        return Probe(error=error)
    return answer


def _is_the_sites(asked: Subject, settings: Settings, handle: Any) -> bool:
    """Tell whether the table is in the database of a Django project that does not run here."""
    if asked.family != "db" or not asked.context.in_django or handle.database_alias is not None:
        return False
    return settings.options["url"] is None and not any("://" in location for location in asked.locations)
