"""Changes of keys, as Redis and Valkey tell of them by themselves, for near tiers.

A connection that asked for it (``CLIENT TRACKING ON BCAST``) is told of every key with certain prefixes that changes.
One thread of the process listens, on one connection to each server. Where a server or a proxy does not speak RESP3, a
second connection subscribes to the channel for the messages.

Messages come in the order of the changes, and so does the answer to a PING: by then every change up to the PING is
known, and near tiers believe their entries for so long (see ``near.table``).

Source: https://redis.io/docs/latest/develop/reference/client-side-caching/
"""

import selectors
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import RedisError

from storeroom import timeouts
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.names import Former
from storeroom.backends.redis.operations import key_bytes
from storeroom.backends.redis.wire import CHANNEL, Changed, Wire, changed_by, is_primary, primaries
from storeroom.exceptions import StoreroomError
from storeroom.near.listening import BrokenError, ListeningThread, RefusedError
from storeroom.storage.channel import Listener

__all__ = ["Tracker"]

PINGS_PER_BOUND: Final = 4
"""Renewals of a near tier's bound before it is over: one lost turn of a busy machine does no harm."""

PING_SECONDS: Final = (0.01, 1.0)
"""The shortest and the longest time between two pings."""


RETRY_SECONDS: Final = (1.0, 30.0)
"""The shortest and the longest time between two attempts to hear of a server that was out of reach."""


class Source(Protocol):
    """The engine, as the tracker sees it."""

    target: Target
    timeout: float
    is_cluster: bool

    def sources(self) -> list[Server]:
        """Return the servers at which changes show, as of now."""

    def goes_on_without(self, server: Server) -> bool:
        """Tell whether changes at the other servers are worth hearing of without that one's."""

    def note_unheard(self, servers: Collection[Server]) -> None:
        """Note the servers whose changes are not heard of."""

    def is_well(self, server: Server) -> bool:
        """Tell whether a server is not taken to be down."""

    def owner(self, storage_key: str) -> Server:
        """Return the server that a key is written to."""

    def connection(self, server: Server) -> Any:
        """Return one of redis-py's connections, not open yet."""

    def leave(self, server: Server) -> None:
        """Use no connection to a server any more that is open now."""


class Tracker(ListeningThread):
    """The channel of one engine, its source: see ``storage.channel``."""

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(name, source.timeout, (RedisError, StoreroomError, hiredis.HiredisError))
        self._source = source
        self._beginnings: tuple[str, ...] = ()
        self._is_renewed = False
        self._heard_until: float | None = None
        self._wires: list[Wire] = []
        self._lost: list[Server] = []
        self._is_heard: Callable[[str], bool] | None = None
        self._retry_at, self._pause = 0.0, RETRY_SECONDS[0]

    def watch(self, listener: Listener, beginnings: Sequence[str]) -> None:
        """See Channel."""
        with self._lock:
            # Before the tier believes that changes are heard of, so that it misses none.
            self._add(listener)
            covering = _covering((*self._beginnings, *beginnings))
            if covering != self._beginnings:
                self._beginnings = covering
                self._is_renewed = True
                self._wake()
            elif self._heard_until is not None and not listener.is_tracked:
                listener.begin_tracking(self._heard_until, self._is_heard)

    def renew(self) -> None:
        """Connect anew: the servers, or those that their names lead to, are others now."""
        with self._lock:
            if self._thread is not None and not self._is_closed:
                self._is_renewed = True
                self._wake()

    def abandon(self) -> None:
        """See ListeningThread."""
        super().abandon()
        for wire in self._wires:
            wire.connection.disconnect()  # says nothing to the server, but in the process that connected

    def _open(self, stack: ExitStack) -> None:
        """Connect to every server, and let it tell of changes."""
        with self._lock:
            self._is_renewed = False
            beginnings = self._beginnings
        stack.callback(self._wires.clear)
        servers = self._source.sources()
        self._lost = self._tracked(servers, beginnings, stack)
        self._source.note_unheard(self._lost)
        self._is_heard = self._is_heard_of(servers) if self._lost and self._source.is_cluster else None
        if self._source.is_cluster:
            asked = next(wire for wire in self._wires if wire.question[0] == "CLUSTER")
            named = self._source.target.named
            known = {(server.host, server.port) for server in servers}
            asked.is_well = lambda answer: primaries(answer, asked.server, named) == known
        with self._lock:
            self._heard_until = min(wire.heard_until for wire in self._wires)
            for listener in self._listeners:
                listener.begin_tracking(self._heard_until, self._is_heard)

    def _tracked(self, servers: Sequence[Server], beginnings: Sequence[str], stack: ExitStack) -> list[Server]:
        """Let servers tell of changes; return those that are out of reach, while others go on without them."""
        lost = []
        for server in servers:
            wires = len(self._wires)
            try:
                self._track(server, beginnings, stack)
            except RefusedError:
                raise
            except self._outages:
                del self._wires[wires:]
                lost.append(server)
                if len(lost) == len(servers) or not self._source.goes_on_without(server):
                    raise
        self._retry_at, self._pause = time.monotonic() + RETRY_SECONDS[0], RETRY_SECONDS[0]
        return lost

    def _is_heard_of(self, servers: Iterable[Server]) -> Callable[[str], bool]:
        heard = frozenset(servers).difference(self._lost)
        return lambda storage_key: self._source.owner(storage_key) in heard

    def _is_any_back(self) -> bool:
        """Tell whether a lost server can be connected to again; it is tried ever more rarely."""
        now = time.monotonic()
        if now < self._retry_at:
            return False
        self._retry_at = now + self._pause
        for server in self._lost:
            if self._source.is_well(server):
                with ExitStack() as stack:
                    try:
                        self._connect(server, stack).ask("PING")
                    except self._outages:
                        self._pause = min(2 * self._pause, RETRY_SECONDS[1])
                    else:
                        return True
        return False

    def _end(self) -> None:
        self._source.note_unheard(())
        with self._lock:
            if self._heard_until is not None:
                self._heard_until = None
                for listener in self._listeners:
                    listener.end_tracking()

    def _connect(self, server: Server, stack: ExitStack) -> Wire:
        connection = self._source.connection(server)
        stack.callback(connection.disconnect)
        connection.connect()
        return Wire(connection, server, heard_until=timeouts.uptime())

    def _track(self, server: Server, beginnings: Sequence[str], stack: ExitStack) -> None:
        """Add the wires of one server."""
        wire = self._connect(server, stack)
        if server.must_be_primary or (not self._source.is_cluster and is_primary(wire.ask("ROLE"))):
            wire.question, wire.is_well = ("ROLE",), is_primary  # a name leads to another, when it is none any more
        elif not self._wires and self._source.is_cluster:
            wire.question = ("CLUSTER", "SLOTS")
        redirection: tuple[str | int, ...] = ()
        if isinstance(wire.ask("HELLO", "3"), Exception):
            receiver = self._connect(server, stack)
            redirection = "REDIRECT", receiver.ask("CLIENT", "ID")
            receiver.ask("SUBSCRIBE", CHANNEL)
            self._wires.append(receiver)
        prefixes = [word for beginning in beginnings if beginning for word in ("PREFIX", key_bytes(Former(beginning)))]
        wire.heard_until = timeouts.uptime()
        answer = wire.ask("CLIENT", "TRACKING", "ON", *redirection, "BCAST", *prefixes)
        if isinstance(answer, Exception):
            raise RefusedError(f"{server.name} refused CLIENT TRACKING: {answer}")
        self._wires.append(wire)

    def _listen(self) -> None:
        """Pass on changes, until somebody closes this, or a wire breaks."""
        shortest, longest = PING_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._sleeper, selectors.EVENT_READ)
            for wire in self._wires:
                selector.register(wire.socket, selectors.EVENT_READ, wire)
            due = 0.0
            while True:
                now = time.monotonic()
                if now >= due:
                    due = now + min(max(self._bound / PINGS_PER_BOUND, shortest), longest)
                    self._ping(now - max(self._bound, self._timeout))
                    if self._lost and self._is_any_back():
                        return
                for key, _ in selector.select(due - now):
                    if key.data is None:
                        self._hush()
                    else:
                        self._hear(key.data)
                if self._is_closed or self._is_renewed:
                    return
                self._vouch()

    def _ping(self, too_long_ago: float) -> None:
        for wire in self._wires:
            if wire.asked is None:
                wire.ping()
            elif wire.asked[1] < too_long_ago:
                raise BrokenError(f"{wire.server.name} has been silent for too long")

    def _hear(self, wire: Wire) -> None:
        for reply in wire.read():
            changed = changed_by(reply)
            if changed is None:
                if not wire.is_well(reply):
                    self._source.leave(wire.server)
                    raise BrokenError(f"{wire.server.name} has changed its part")
                if wire.asked is not None:
                    wire.heard_until, wire.asked = wire.asked[0], None
            else:
                self._pass_on(changed)

    def _pass_on(self, changed: Changed) -> None:
        for listener in self._listeners:
            if changed.keys is None:
                listener.drop_all()
            else:
                listener.drop(changed.keys)

    def _vouch(self) -> None:
        heard_until = min(wire.heard_until for wire in self._wires)
        if heard_until != self._heard_until:
            with self._lock:
                self._heard_until = heard_until
                for listener in self._listeners:
                    listener.vouch(heard_until)


def _covering(beginnings: Iterable[str]) -> tuple[str, ...]:
    """Return the fewest beginnings that cover these: the server refuses any that overlap."""
    covering: list[str] = []
    for beginning in sorted(set(beginnings)):
        if not covering or not beginning.startswith(covering[-1]):
            covering.append(beginning)
    return tuple(covering)
