"""The way of each command to its server, and to another one when the first turns out wrong.

A topology gives the route of a request, and carries nothing itself, so that one text serves synchronous and
asynchronous callers.
"""

import contextvars
import itertools
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.requests import OUTAGES, PRIMARIES, Command, Request, UnreachableError, Use

__all__ = ["Batch", "Outcome", "Route", "Single", "topology_of"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands for one server."""

    server: Server
    commands: Sequence[Command]
    use: Use


Outcome: TypeAlias = list[Any] | Exception
"""The replies to a batch, or the reason why there are none."""

Route: TypeAlias = Generator[list[Batch], list[Outcome], list[Any]]
"""Yields batches that may go at the same time, is sent their outcomes, and returns the request's replies."""


def _replies(outcome: Outcome) -> list[Any]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _has_failed(outcome: Outcome) -> bool:
    """Tell whether the server could not be reached, or could not work."""
    return isinstance(outcome, Exception) or any(isinstance(reply, OUTAGES) for reply in outcome)


class Single:
    """One server.

    Attributes:
        only: the server of every request; None where each needs a route.
    """

    def __init__(self, target: Target) -> None:
        self._first = target.servers[0]
        self.only: Server | None = self._first

    def route(self, request: Request) -> Route:
        """Return the route of a request."""
        if request is PRIMARIES:
            return [self._first]
        (outcome,) = yield [Batch(request.at or self._first, request.commands, request.use)]
        return _replies(outcome)

    def sources(self) -> Route:
        """Return the servers at which changes of the entries show, looked up now."""
        return self.route(PRIMARIES)


class Replicated(Single):
    """A server that is written to, and others that are read from.

    A thread or task that has written reads from the first server for a while, as the others may lag behind.
    """

    REST: Final = 5.0
    """Seconds for which a replica that failed is left alone."""

    def __init__(self, target: Target, read_own_writes: float) -> None:
        super().__init__(target)
        self.only = None
        self._replicas = target.servers[1:]
        self._turn = itertools.count()
        self._rests_until: dict[Server, float] = {}
        self._window = read_own_writes
        # Each thread has a context of its own, and so has each task.
        self._reads_first_until = contextvars.ContextVar("storeroom-redis-reads-first-until", default=0.0)

    def route(self, request: Request) -> Route:
        """See Single."""
        replica = self._replica() if request.use is Use.READ and request.at is None else None
        if replica is None:
            if request.use in {Use.WRITE, Use.ONCE}:
                self._reads_first_until.set(time.monotonic() + self._window)
            return (yield from super().route(request))
        (outcome,) = yield [Batch(replica, request.commands, request.use)]
        if _has_failed(outcome):
            self._rests_until[replica] = time.monotonic() + self.REST
            return (yield from super().route(request))
        return _replies(outcome)

    def sources(self) -> Route:
        """See Single: a change may show at a replica later than at the first server."""
        return [self._first, *self._replicas]
        yield  # a generator, as where the servers have to be asked

    def _replica(self) -> Server | None:
        """Return the replica whose turn it is, or None if the first server is to be read from."""
        now = time.monotonic()
        if now < self._reads_first_until.get():
            return None
        awake = [replica for replica in self._replicas if self._rests_until.get(replica, 0.0) <= now]
        return awake[next(self._turn) % len(awake)] if awake else None


class Sentinel(Single):
    """The primary that some Sentinels name; after a failover, the new one.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.only = None
        self._service = target.service
        self._sentinels = list(target.sentinels)
        self._primary: Server | None = None

    def route(self, request: Request) -> Route:
        """See Single."""
        primary = self._primary or (yield from self._discover())
        if request is PRIMARIES:
            return [primary]
        (outcome,) = yield [Batch(primary, request.commands, request.use)]
        if not _has_failed(outcome):
            return _replies(outcome)
        self._primary = None
        primary = yield from self._discover()
        if request.use is Use.ONCE and not _is_unsent(outcome):
            return _replies(outcome)
        (outcome,) = yield [Batch(primary, request.commands, request.use)]
        if _has_failed(outcome):
            self._primary = None  # the Sentinels have not agreed on another yet
        return _replies(outcome)

    def sources(self) -> Route:
        """See Single."""
        return [(yield from self._discover())]

    def _discover(self) -> Generator[list[Batch], list[Outcome], Server]:
        """Ask the Sentinels one after the other; the first that knows is asked first the next time."""
        command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        failures = []
        for sentinel in tuple(self._sentinels):
            (outcome,) = yield [Batch(sentinel, (command,), Use.READ)]
            address = outcome[0] if isinstance(outcome, list) else outcome
            if isinstance(address, list):
                host, port = address
                self._primary = replace(self._first, host=host.decode(), port=int(port))
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                return self._primary
            failures.append(f"{sentinel.name}: {address or 'knows no such primary'}")
        raise UnreachableError(f"no Sentinel names the primary {self._service!r} ({'; '.join(failures)})")


def _is_unsent(outcome: Outcome) -> bool:
    """Tell whether nothing can have been done: there was no connection, or each command was refused."""
    if isinstance(outcome, Exception):
        return isinstance(outcome, UnreachableError)
    return all(isinstance(reply, ReadOnlyError) for reply in outcome)


class Cluster(Single):
    """Servers that share the keys by slots; each server's commands go in one batch, all batches together.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    """

    ATTEMPTS: Final = 4
    """Times that a command is sent before its last answer is taken: moved, asked, refreshed, once more."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.only = None
        self._seeds = target.servers
        self._owners: list[Server] = []
        self._primaries: list[Server] = []

    def route(self, request: Request) -> Route:
        """See Single."""
        if not self._owners:
            yield from self._discover()
        if request is PRIMARIES:
            return list(self._primaries)
        if request.at is not None:
            return (yield from super().route(request))
        replies: list[Any] = [None] * len(request.commands)
        left = dict(enumerate(request.commands))
        for _ in range(self.ATTEMPTS):
            left = yield from self._send(left, request.use, replies)
            if not left:
                break
        for reply in replies:
            if isinstance(reply, OUTAGES):
                raise reply
        return replies

    def sources(self) -> Route:
        """See Single."""
        yield from self._discover()
        return list(self._primaries)

    def _send(
        self, left: dict[int, Command], use: Use, replies: list[Any]
    ) -> Generator[list[Batch], list[Outcome], dict[int, Command]]:
        """Send commands to the owners of their slots; return those that have to be sent again."""
        by_owner: dict[Server, list[int]] = {}
        for number, command in left.items():
            by_owner.setdefault(self._owner(command), []).append(number)
        outcomes = yield [Batch(owner, [left[number] for number in own], use) for owner, own in by_owner.items()]
        again: dict[int, Command] = {}
        failed: set[Server] = set()
        for (owner, own), outcome in zip(by_owner.items(), outcomes, strict=True):
            for position, number in enumerate(own):
                reply = outcome[position] if isinstance(outcome, list) else outcome
                if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                    reply = yield from self._ask(reply, left[number], use)
                replies[number] = reply
                if isinstance(reply, MovedError) and self._owners:
                    self._owners[reply.slot_id] = self._named(reply)
                elif isinstance(reply, OUTAGES):
                    failed.add(owner)
                if _may_be_repeated(reply, use):
                    again[number] = left[number]
        if failed:
            yield from self._discover(failed)
        return again

    def _owner(self, command: Command) -> Server:
        key: Any = command[3 if str(command[0]).startswith("EVAL") else 1]
        owners = self._owners
        return owners[key_slot(key)] if owners else self._first  # another thread has lost them; any server tells

    def _ask(self, reply: AskError, command: Command, use: Use) -> Generator[list[Batch], list[Outcome], Any]:
        """Send a command whose slot is on the way to another server after its key."""
        (outcome,) = yield [Batch(self._named(reply), (("ASKING",), command), use)]
        return outcome[1] if isinstance(outcome, list) else outcome

    def _named(self, reply: AskError) -> Server:
        return replace(self._first, host=reply.host or self._first.host, port=reply.port)

    def _discover(self, failed: Collection[Server] = ()) -> Generator[list[Batch], list[Outcome], None]:
        """Ask any server for the owners of the slots; those that have failed are asked last."""
        failures = []
        for server in sorted(dict.fromkeys((*self._primaries, *self._seeds)), key=lambda server: server in failed):
            (outcome,) = yield [Batch(server, (("CLUSTER", "SLOTS"),), Use.READ)]
            ranges = outcome[0] if isinstance(outcome, list) else outcome
            if isinstance(ranges, list) and ranges:
                self._learn(ranges, server)
                return
            failures.append(f"{server.name}: {ranges or 'it has no slots'}")
        self._owners = []
        raise UnreachableError(f"no server of the cluster tells the owners of its slots ({'; '.join(failures)})")

    def _learn(self, ranges: Sequence[Any], told_by: Server) -> None:
        owners = [self._first] * 16_384
        primaries: dict[Server, None] = {}
        for begin, end, (host, port, *_), *_replicas in ranges:
            server = replace(self._first, host=host.decode() if host else told_by.host, port=port)
            primaries[server] = None
            owners[begin : end + 1] = [server] * (end + 1 - begin)
        self._owners, self._primaries = owners, list(primaries)


def _may_be_repeated(reply: Any, use: Use) -> bool:
    """Tell whether a command was not carried out, or may be repeated, and has a better chance the next time."""
    if isinstance(reply, MovedError | UnreachableError | ReadOnlyError | TryAgainError | ClusterDownError):
        return True
    return isinstance(reply, RedisConnectionError) and use is not Use.ONCE


def topology_of(target: Target, read_own_writes: float) -> Single:
    """Return the topology of a target."""
    if target.kind == "server" and len(target.servers) > 1:
        return Replicated(target, read_own_writes)
    return {"server": Single, "sentinel": Sentinel, "cluster": Cluster}[target.kind](target)
