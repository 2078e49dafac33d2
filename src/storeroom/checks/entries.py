"""The lifetime and the number of entries: TIMEOUT, MAX_ENTRIES, max_bytes, CULL_FREQUENCY."""

from collections.abc import Iterator
from typing import Final

from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import ENOUGH_ENTRIES, Subject
from storeroom.config import DEFAULT_MAX_ENTRIES, Settings

__all__ = ["check_entries"]

ZERO_TIMEOUT: Final = Rule(
    "storeroom.W004",
    "A TIMEOUT of 0 stores nothing",
    "0 means that an entry expires at once, not that it never does: every read is a miss and every value "
    "is computed again.",
)
NO_BOUND: Final = Rule(
    "storeroom.W005",
    "Entries stay for very long and nothing bounds them",
    "Expiry frees room too late or never, and eviction is switched off: the cache grows until memory or disk is full.",
)
FEW_ENTRIES: Final = Rule(
    "storeroom.W006",
    f"MAX_ENTRIES of a file cache is left at {DEFAULT_MAX_ENTRIES}",
    f"{DEFAULT_MAX_ENTRIES} is Django's default, meant for the memory of one process. A disk holds far more; "
    "with so few entries useful ones are evicted all the time.",
)
CULL_ALL: Final = Rule(
    "storeroom.W007",
    "CULL_FREQUENCY 0 empties the cache when it is full",
    "One entry too many removes all the others at once, and everything is computed again at the same time.",
)

LONG_SECONDS: Final = 30 * 86_400
"""A longer timeout counts as "for good": Memcached too takes 30 days for the longest relative time."""

_BOUNDED_OTHERWISE: Final = ("dummy", "redis", "memcached")
"""By their server's memory, for all its users; and one that stores nothing."""

_ENOUGH: Final = {"OPTIONS": {"MAX_ENTRIES": ENOUGH_ENTRIES}}


def check_entries(alias: Subject) -> Iterator[Finding]:
    """Find settings that keep entries for too short or too long a time, or too few or too many of them."""
    if alias.settings is not None:
        for check in (_check_zero_timeout, _check_no_bound, _check_few_entries, _check_cull_all):
            yield from check(alias, alias.settings)


def _check_zero_timeout(alias: Subject, settings: Settings) -> Iterator[Finding]:
    """Find the TIMEOUT of 0 that some tutorials take for "forever"."""
    if settings.timeout is not None and settings.timeout <= 0 and alias.family != "dummy":
        what = f"TIMEOUT is {alias.written.get('TIMEOUT', alias.written.get('timeout'))!r}."
        remedy = "For entries that never expire write None; to switch a cache off, use the dummy backend."
        yield ZERO_TIMEOUT.broken(alias.name, what, remedy, {"TIMEOUT": None})


def _check_no_bound(alias: Subject, settings: Settings) -> Iterator[Finding]:
    options = settings.options
    if "max_entries" not in options or alias.family in _BOUNDED_OTHERWISE:
        return
    if options["max_entries"] is not None or options.get("max_bytes") is not None:
        return
    if settings.timeout is None or settings.timeout > LONG_SECONDS:
        stay = "never expire" if settings.timeout is None else f"expire after {settings.timeout / 86_400:.0f} days"
        what = f"Entries {stay}, and neither MAX_ENTRIES nor max_bytes bounds the cache."
        remedy = "Bound it by number, or by max_bytes; the least useful entries then make room:"
        yield NO_BOUND.broken(alias.name, what, remedy, _ENOUGH)


def _check_few_entries(alias: Subject, settings: Settings) -> Iterator[Finding]:
    is_default = "max_entries" not in settings.given and settings.options.get("max_entries") == DEFAULT_MAX_ENTRIES
    if alias.family == "filebased" and is_default:
        remedy = "Say how much there is room for:"
        yield FEW_ENTRIES.broken(alias.name, "OPTIONS has no MAX_ENTRIES.", remedy, _ENOUGH)


def _check_cull_all(alias: Subject, settings: Settings) -> Iterator[Finding]:
    if settings.options.get("cull_frequency") == 0 and alias.family != "dummy":
        remedy = "Leave it out, and what is needed is evicted; or evict a part of the cache:"
        yield CULL_ALL.broken(alias.name, "CULL_FREQUENCY is 0.", remedy, {"OPTIONS": {"CULL_FREQUENCY": 3}})
