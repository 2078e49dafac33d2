"""The servers of a cache, by their answers to probe(): whether they are there, and fit for a cache."""

import shlex
from collections.abc import Iterator
from typing import Final

from storeroom.checks import subject
from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError
from storeroom.storage.probes import Probe, ServerProbe

__all__ = ["CLOCK_SECONDS", "SLOW_SECONDS", "check_probe", "told_seconds"]

UNREACHABLE: Final = Rule(
    "storeroom.E007",
    "A server is out of reach",
    "While it is, every read of what it keeps is a miss and nothing is stored; or every operation raises, if "
    "OPTIONS['on_error'] says so.",
)
REFUSES: Final = Rule(
    "storeroom.E008", "A server answers, and says no", "The program can store nothing there, and read nothing."
)
TOO_OLD: Final = Rule(
    "storeroom.E009",
    "A server is too old",
    "It does not know all the commands that the cache sends: some operations fail.",
)
NO_TABLE: Final = Rule(
    "storeroom.E010",
    "The cache's table is not there, and is not made",
    "Every operation fails until somebody makes it.",
)
FOREIGN_TABLE: Final = Rule(
    "storeroom.E011",
    "The table holds something else",
    "It has other columns than a cache's. Storeroom leaves it alone, and every operation fails.",
)
FEW_RIGHTS: Final = Rule(
    "storeroom.E012",
    "The user may not do all that the cache does",
    "The operations that need the missing rights raise an error, each when it is first called.",
)
REPLICA_LOST: Final = Rule(
    "storeroom.W022",
    "A replica or a Sentinel is out of reach",
    "The cache works without it, more slowly; when the next server is lost, it may not.",
)
NO_MEMORY_BOUND: Final = Rule(
    "storeroom.W023",
    "Nothing bounds the server's memory",
    "It grows until the machine has none left, and then the system ends it, or whatever else runs there.",
)
NO_EVICTION: Final = Rule(
    "storeroom.W024",
    "A server that is full evicts nothing",
    "When its memory is used up it refuses to store anything, until enough has expired.",
)
SLOW: Final = Rule(
    "storeroom.W025",
    "A server is slow to answer",
    "Within a data centre a round trip takes less than a millisecond. One that takes longer than most queries of a "
    "database saves little.",
)
CLOCKS: Final = Rule(
    "storeroom.W026",
    "The clocks of this host and of a server differ",
    "When an entry expires is written by the clock of one host and read by that of another: entries expire too early "
    "or too late by the difference.",
)
OLD_TABLE: Final = Rule(
    "storeroom.W027",
    "The table was made by Django or by another version",
    "It is made anew on first use, and all that is in it is lost, for programs that still use it too.",
)

SLOW_SECONDS: Final = 0.010
"""Ten times a round trip within a data centre, and as long as the queries whose results are cached."""

CLOCK_SECONDS: Final = 2.0
"""Clocks that are set by NTP differ by milliseconds; a Memcached server tells whole seconds, some of them late."""

_MAKE_TABLE: Final = "storeroom createcachetable"
_OTHER_TABLE: Final = {"LOCATION": "storeroom_cache"}


def check_probe(alias: Subject, probe: Probe) -> Iterator[Finding]:
    """Find the mistakes of the servers of a cache, and of its table."""
    if probe.error is not None:
        yield _unbuilt(probe.error).broken(alias.name, str(probe.error), "")
    for server in probe.servers:
        if server.failure:
            yield _lost(alias, server)
        for check in _CHECKS:
            yield from check(alias, server)
    yield from _check_table(alias, probe)


def _unbuilt(error: Exception) -> Rule:
    """Return the rule that is broken where no handle could be made, so that no server was asked."""
    if isinstance(error, InvalidCacheBackendError):
        return subject.NO_BACKEND
    return subject.REFUSED if isinstance(error, ConfigurationError) else REFUSES


def _lost(alias: Subject, server: ServerProbe) -> Finding:
    what = f"Server {server.name}: {server.failure.rstrip('.')}; that took {told_seconds(server.seconds)}."
    if server.is_refusal:
        remedy = "Mend the login, the database's name or number, or the server that LOCATION names."
        return REFUSES.broken(alias.name, what, remedy)
    if server.role in {"replica", "Sentinel"}:
        return REPLICA_LOST.broken(alias.name, what, "Start it, let it reach its primary, or leave it out of LOCATION.")
    return UNREACHABLE.broken(alias.name, what, "Start it; let this host reach it; or name another in LOCATION.")


def told_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> told_seconds(0.00042), told_seconds(0.0213), told_seconds(3)
    ('0.42 ms', '21.3 ms', '3.0 s')
    """
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.2f} ms" if milliseconds < 1 else f"{milliseconds:.1f} ms"


def _check_version(alias: Subject, server: ServerProbe) -> Iterator[Finding]:
    if server.is_too_old:
        what = f"Server {server.name} is {server.product} {server.version}; {server.oldest} or newer is needed."
        yield TOO_OLD.broken(alias.name, what, "Install a newer version on the server.")


def _check_memory(alias: Subject, server: ServerProbe) -> Iterator[Finding]:
    memory = server.memory
    if memory is None:
        return
    never_expires = alias.settings is not None and alias.settings.timeout is None
    if memory.max_bytes is None:
        remedy = "Bound it in the server's configuration, and let it evict what is used least; until it starts anew:"
        command = f"{_redis_cli(server)} CONFIG SET maxmemory 1gb maxmemory-policy allkeys-lfu"
        what = f"Server {server.name} has no maxmemory."
        yield NO_MEMORY_BOUND.broken(alias.name, what, remedy, command=command)
    elif memory.evicts == "nothing" or (memory.evicts == "expiring" and never_expires):
        keeps = "entries without a timeout, as TIMEOUT None makes them" if memory.evicts == "expiring" else "everything"
        what = f"Server {server.name} keeps {keeps} when its {memory.max_bytes:,} bytes are used up ({memory.policy})."
        remedy, command = "Start it without -M.", ""
        if alias.family == "redis":
            remedy = "Let it evict what is used least, in its configuration; until it starts anew:"
            command = f"{_redis_cli(server)} CONFIG SET maxmemory-policy allkeys-lfu"
        yield NO_EVICTION.broken(alias.name, what, remedy, command=command)


def _redis_cli(server: ServerProbe) -> str:
    address = server.endpoint.address
    where = f"-s {shlex.quote(address.removeprefix('unix://'))}" if address.startswith("unix:") else f"-u {address}"
    return f"redis-cli {where}"


def _check_rights(alias: Subject, server: ServerProbe) -> Iterator[Finding]:
    if server.lacks:
        what = f"At server {server.name} the user of LOCATION has not the rights {' '.join(server.lacks)}."
        command = f"{_redis_cli(server)} {shlex.join(server.rights)}"
        yield FEW_RIGHTS.broken(alias.name, what, "Give them, as an administrator; all that it needs:", command=command)


def _check_latency(alias: Subject, server: ServerProbe) -> Iterator[Finding]:
    latency = server.latency
    if latency is not None and latency > SLOW_SECONDS:
        trips, median, bound = len(server.round_trips), told_seconds(latency), told_seconds(SLOW_SECONDS)
        what = f"The median of {trips} round trips to {server.name} took {median}; more than {bound} is slow."
        remedy = "Use a server that is nearer or less busy; or keep the cache on this machine, in files."
        yield SLOW.broken(alias.name, what, remedy)


def _check_clock(alias: Subject, server: ServerProbe) -> Iterator[Finding]:
    ahead = server.clock_ahead
    if ahead is not None and abs(ahead) > CLOCK_SECONDS:
        what = f"The clock of {server.name} is {abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this host's."
        yield CLOCKS.broken(alias.name, what, "Set the clocks of all hosts by NTP.")


_CHECKS: Final = (_check_version, _check_rights, _check_memory, _check_latency, _check_clock)


def _check_table(alias: Subject, probe: Probe) -> Iterator[Finding]:
    table = probe.table
    if table is None or table.state == "ready":
        return
    where = f"The table {table.name!r} of {table.database}"
    columns = f"{where} has the columns {', '.join(table.columns)}."
    missing = f"{where} {'is not there' if table.state == 'absent' else 'is of another shape'}"
    if table.state == "foreign":
        remedy = "Name another table, which is made on first use:"
        yield FOREIGN_TABLE.broken(alias.name, columns, remedy, _OTHER_TABLE)
    elif alias.settings is not None and not alias.settings.options.get("create_table", True):
        what = f"{missing}, and OPTIONS['create_table'] is False."
        yield NO_TABLE.broken(alias.name, what, "Make it:", command=_MAKE_TABLE)
    elif table.may_create is False:
        remedy = "Let a user who may make tables run this once, or grant CREATE to this one:"
        yield NO_TABLE.broken(alias.name, f"{missing}, and this user may not make it.", remedy, command=_MAKE_TABLE)
    elif table.state == "old":
        remedy = "Where programs still use it, name another table for this one:"
        yield OLD_TABLE.broken(alias.name, columns, remedy, _OTHER_TABLE)
