"""The way of each command to its server, and to another one when the first turns out wrong.

A topology gives the route of a request, and carries nothing itself, so that one text serves synchronous and
asynchronous callers.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from storeroom.backends.redis.health import Carried, Health
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.requests import (
    OUTAGES,
    PRIMARIES,
    Batch,
    Command,
    Outcome,
    Request,
    UnreachableError,
    Use,
    any_turned_away,
    is_broken,
    is_outage,
    key_of,
    undone,
)

__all__ = ["Cluster", "Route", "Single", "has_failed", "replies_of"]

_ROLE: Final = ("ROLE",)

Route: TypeAlias = Generator[list[Batch], list[Outcome], list[Any]]
"""Yields batches that may go at the same time, is sent their outcomes, and returns the request's replies."""


def replies_of(outcome: Outcome) -> list[Any]:
    """Return the replies to a batch, or raise the reason why there are none."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def has_failed(outcome: Outcome) -> bool:
    """Tell whether the server could not be reached, or could not work."""
    return isinstance(outcome, Exception) or any(map(is_outage, outcome))


class Single:
    """One server.

    Its name may lead to another one after a failover, as endpoints of managed services do. The old one goes on as a
    replica: it turns writes away, and answers reads. So it is asked for its role, beside a read, now and then.

    Attributes:
        only: the server of every request, but for a read from `look_at` on; None where each needs a route.
        look_at: monotonic time from which a read needs a route.
        health: of each server, where one may be down and the others go on; else None.
        leave: lets go of all connections to a server; the next ones look its name up anew.
    """

    ROLE_SECONDS: Final = 5.0
    """Between two questions for the role, and for as long nobody notices, while nothing is written, that it changed."""

    SELDOM_SECONDS: Final = 60.0
    """The same where the answer was of no use: LOCATION names a replica, or a proxy that does not know the question."""

    health: Health | None = None

    def __init__(self, target: Target) -> None:
        self._first = target.servers[0]
        self.only: Server | None = self._first
        self.look_at = time.monotonic() + self.ROLE_SECONDS
        self._was_replica = False
        self.leave: Callable[[Server], object] = id

    def route(self, request: Request) -> Route:
        """Return the route of a request: with `only`, of a read that asks for the role, too."""
        if request is PRIMARIES:
            return [(self._first, None)]
        now = time.monotonic()
        self.look_at = now + (self.SELDOM_SECONDS if self._was_replica else self.ROLE_SECONDS)  # for all callers
        (outcome,) = yield [Batch(self._first, (*request.commands, _ROLE), request.use)]
        if isinstance(outcome, Exception) and is_broken(outcome):
            self.look_at = now + self.SELDOM_SECONDS  # the question is to blame, perhaps
            (outcome,) = yield [Batch(self._first, request.commands, request.use)]
            return replies_of(outcome)
        *replies, role = replies_of(outcome)
        self._was_replica = isinstance(role, list) and role[0] == b"slave"
        if self._was_replica or any_turned_away(replies):
            return (yield from self.again(request, replies))
        self.look_at = now + self.ROLE_SECONDS
        return replies

    def again(self, request: Request, replies: list[Any]) -> Route:
        """Send commands once more that a server has turned away, on new connections; return all replies."""
        batch = Batch(request.at or self._first, request.commands, request.use)
        return replies_of((yield from self._again(batch, replies)))

    def _again(
        self, batch: Batch, outcome: Outcome, to: Server | None = None
    ) -> Generator[list[Batch], list[Outcome], Outcome]:
        """Leave a server. Send what it has not carried out to the one that its name leads to now, or to another."""
        self.leave(batch.server)
        left = undone(batch.commands, batch.use, outcome)
        if not left:
            return outcome
        (told,) = yield from self._carry([Batch(to or batch.server, [batch.commands[it] for it in left], batch.use)])
        if isinstance(told, Exception) or isinstance(outcome, Exception):
            return told
        for number, reply in zip(left, told, strict=True):
            outcome[number] = reply
        return outcome

    def _carry(self, batches: list[Batch]) -> Carried:
        return (yield batches) if self.health is None else (yield from self.health.carried(batches))

    def after_fork_in_child(self) -> None:
        """Forget the health of servers: the connections are new."""
        if self.health is not None:
            self.health.reset()

    def owners(self, storage_keys: Iterable[bytes]) -> list[Server]:
        """Return the servers that keys are written to, as far as they are known."""
        return [self._first for _ in storage_keys]

    def goes_on_without(self, server: Server) -> bool:
        """Tell whether changes at the other servers are worth hearing of without that one's."""
        return False

    def note_unheard(self, servers: Collection[Server]) -> None:
        """Note the servers whose changes are not heard of."""

    def note_removal(self) -> None:
        """See NetworkEngine; where every read asks a primary, nothing is behind."""

    def sources(self) -> Route:
        """Return the servers at which changes of the entries show, looked up now."""
        return [self._first]
        yield  # a generator, as where the servers have to be asked


class Cluster(Single):
    """Servers that share the keys by slots; each server's commands go in one batch, all batches together.

    The map of the slots is learnt anew when a reply or a failure shows that it is old, before all entries are listed or
    cleared, and once a minute.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    """

    ATTEMPTS: Final = 4
    """Times that a command is sent before its last answer is taken: moved, asked, refreshed, once more."""

    FRESH_SECONDS: Final = 60.0
    """Age at which the map is learnt anew in any case: servers may have joined."""

    PAUSE_SECONDS: Final = 0.25
    """Between two looks that failures cause: all that fail at once need one, and another server is soon found."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.only = None
        self.health: Health = Health()
        self._target, self._seeds = target, target.servers
        self._owners: list[Server] = []
        self._parts: dict[Server, tuple[tuple[int, int], ...]] = {}
        self._replicas: list[Server] = []
        self._looked_at = self._look_at = self._fail_at = 0.0

    def route(self, request: Request) -> Route:
        """See Single."""
        if request is PRIMARIES or not self._owners or time.monotonic() >= self._look_at:
            yield from self._look(must_learn=request is PRIMARIES)
        if request is PRIMARIES:
            return list(self._parts.items())
        if request.at is not None:
            (outcome,) = yield from self.health.carried([Batch(request.at, request.commands, request.use)])
            return replies_of(outcome)
        replies: list[Any] = [None] * len(request.commands)
        left = dict(enumerate(request.commands))
        for _ in range(self.ATTEMPTS):
            left = yield from self._send(left, request.use, replies)
            if not left:
                break
        failures = [reply for reply in replies if is_outage(reply)]
        if failures and not (request.may_lack and len(failures) < len(replies)):
            raise failures[0]
        return replies

    def owners(self, storage_keys: Iterable[bytes]) -> list[Server]:
        """See Single."""
        owners = self._owners
        return [owners[key_slot(key)] if owners else self._first for key in storage_keys]

    def goes_on_without(self, server: Server) -> bool:
        """See Single: the others' keys are as good as ever."""
        return True

    def sources(self) -> Route:
        """See Single."""
        yield from self._look(must_learn=True)
        return list(self._parts)

    def _send(
        self, left: dict[int, Command], use: Use, replies: list[Any]
    ) -> Generator[list[Batch], list[Outcome], dict[int, Command]]:
        """Send commands to the owners of their slots; return those that have to be sent again."""
        by_owner: dict[Server, list[int]] = {}
        for number, command in left.items():
            by_owner.setdefault(self.owners([key_of(command)])[0], []).append(number)
        outcomes = yield from self.health.carried(
            [Batch(owner, [left[number] for number in own], use) for owner, own in by_owner.items()]
        )
        again: dict[int, Command] = {}
        failed: dict[int, Server] = {}
        for (owner, own), outcome in zip(by_owner.items(), outcomes, strict=True):
            for position, number in enumerate(own):
                reply = outcome[position] if isinstance(outcome, list) else outcome
                if not isinstance(reply, Exception):
                    replies[number] = reply
                    continue
                if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                    reply = yield from self._ask(reply, left[number], use)
                replies[number] = reply
                if isinstance(reply, MovedError):
                    self._move(reply)
                elif isinstance(reply, OUTAGES):
                    failed[number] = owner
                if _may_be_repeated(reply, use):
                    again[number] = left[number]
        if failed and time.monotonic() >= self._fail_at:
            self._fail_at = time.monotonic() + self.PAUSE_SECONDS
            yield from self._look(failed.values())
        return again | {number: left[number] for number in self._movable(failed, left, replies)}

    def _movable(
        self, failed: Mapping[int, Server], left: Mapping[int, Command], replies: Sequence[Any]
    ) -> Iterator[int]:
        """Yield the commands that were not carried out by a server which is no longer the owner of their slots."""
        for number, owner in failed.items():
            is_undone = isinstance(replies[number], UnreachableError | ReadOnlyError | ClusterDownError)
            if is_undone and self.owners([key_of(left[number])]) != [owner]:
                yield number

    def _ask(self, reply: AskError, command: Command, use: Use) -> Generator[list[Batch], list[Outcome], Any]:
        """Send a command whose slot is on the way to another server after its key."""
        (outcome,) = yield from self.health.carried([Batch(self._named(reply), (("ASKING",), command), use)])
        return outcome[1] if isinstance(outcome, list) else outcome

    def _named(self, reply: AskError) -> Server:
        return self._target.named(reply.host or self._first.host, reply.port)

    def _move(self, reply: MovedError) -> None:
        """Note the owner of one slot, and that others may have moved, too."""
        owner = self._named(reply)
        if owner not in self._parts:
            self.health.breaker(owner).trust()
        if self._owners:
            self._owners[reply.slot_id] = owner
        self._look_at = min(self._look_at, self._looked_at + self.PAUSE_SECONDS)

    def _look(
        self, failed: Collection[Server] = (), *, must_learn: bool = False
    ) -> Generator[list[Batch], list[Outcome], None]:
        """Ask any server for the owners of the slots; those that have failed, or are taken to be down, are asked last.

        Raises:
            UnreachableError: none tells, and it `must_learn` them, or nothing is known from before.
        """
        self._looked_at = time.monotonic()
        self._look_at = self._looked_at + self.PAUSE_SECONDS  # others go on by what is known
        failures = []
        servers = dict.fromkeys((*self._parts, *self._replicas, *self._seeds))
        for server in sorted(servers, key=lambda server: server in failed or self.health.breaker(server).is_open):
            (outcome,) = yield from self.health.carried([Batch(server, (("CLUSTER", "SLOTS"),), Use.READ)])
            ranges = outcome[0] if isinstance(outcome, list) else outcome
            if isinstance(ranges, list) and ranges:
                self._learn(ranges, server)
                self._look_at = self._looked_at + self.FRESH_SECONDS
                return
            failures.append(f"{server.name}: {ranges or 'it has no slots'}")
        if must_learn or not self._owners:
            raise UnreachableError(f"no server of the cluster tells the owners of its slots ({'; '.join(failures)})")

    def _learn(self, ranges: Sequence[Any], told_by: Server) -> None:
        owners = [self._first] * 16_384
        parts: dict[Server, tuple[tuple[int, int], ...]] = {}
        replicas: dict[Server, None] = {}
        for begin, end, *servers in ranges:
            primary, *others = (
                self._target.named(host.decode(), port) if host else replace(told_by, port=port)
                for host, port, *_ in servers
            )
            parts[primary] = *parts.get(primary, ()), (begin, end)
            replicas |= dict.fromkeys(others)
            owners[begin : end + 1] = [primary] * (end + 1 - begin)
        for promoted in parts.keys() - self._parts.keys():
            self.health.breaker(promoted).trust()
        self._owners, self._parts, self._replicas = owners, parts, list(replicas)


def _may_be_repeated(reply: Any, use: Use) -> bool:
    """Tell whether a command was not carried out, or may be repeated, and has a better chance at once."""
    if isinstance(reply, MovedError | TryAgainError):
        return True
    is_broken = isinstance(reply, RedisConnectionError) and not isinstance(reply, UnreachableError)
    return is_broken and use is not Use.ONCE
