"""One server of this process: its connections, its circuit breaker, and the generations that were read from it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import methodcaller
from typing import Any, Final

from storeroom.backends.connections import Connections, Right
from storeroom.backends.memcached.clients import Client, NoRoomError
from storeroom.backends.memcached.ring import Ring
from storeroom.backends.memcached.server_keys import generation_key, is_token, new_token
from storeroom.backends.recovery import Dropped
from storeroom.backends.served import NetworkEngine
from storeroom.engines import Counters, Engine
from storeroom.engines.counts import total

__all__ = ["FRESH_SECONDS", "Generation", "Group", "Server"]

FRESH_SECONDS: Final = 1.0
"""Age of a generation at which it is asked for again: a clear() is seen everywhere within it."""

_LOOKS: Final = 5
"""Attempts to find a generation, or to begin one: others may empty the server between two looks."""

WORKERS: Final = 32
"""Threads for asynchronous callers: more would fight for the interpreter without doing more round trips."""


@dataclass(slots=True, eq=False)
class Generation:
    """One prefix's generation on one server, as known to this process."""

    key: bytes
    """Of the entry that holds it."""
    dropped: Dropped = field(default_factory=Dropped)
    """Storage keys of this prefix whose writes were dropped: other prefixes' entries have other keys on the server."""
    state: tuple[str, float] = ("", 0.0)
    """The generation, and the moment of `time.monotonic()` until which it is used; replaced as a whole."""


class Server(NetworkEngine):
    """The connections to one server.

    Args:
        name: of the server, for logs and errors.
        make: returns a client that is not connected yet.
        limit: the most connections there may be.
        patience: seconds to wait for one when all are busy.
    """

    def __init__(self, name: str, make: Callable[[], Client], limit: int, patience: float) -> None:
        super().__init__(name)
        self.make = make
        self._bounds = limit, patience
        self._generations: dict[str, Generation] = {}
        self._connections = self._new_connections()

    def _new_connections(self) -> Connections[Client]:
        return Connections(self.breaker.name, self.make, methodcaller("close"), *self._bounds)

    def _waits(self) -> dict[str, float]:
        return self._connections.waits

    def generation(self, key_prefix: str) -> Generation:
        """Return the generation that all handles of this prefix share."""
        return self._generations.setdefault(key_prefix, Generation(generation_key(key_prefix)))

    def renewed(self, generation: Generation, counters: Counters) -> str:
        """Ask for a generation, and begin one if there is none: the entries of the lost one are lost with it."""
        before, fresh_until = generation.state, time.monotonic() + FRESH_SECONDS
        found = self._found_or_begun(generation.key)
        if found is None:
            counters.errors += 1
            found = new_token().encode()
        elif not is_token(found):  # foreign bytes
            found = new_token().encode()
            self.ask("set", generation.key, found, 0)
        with self.lock:
            # A clear() of this process meanwhile knows better.
            if generation.state is before:
                generation.state = (found.decode(), fresh_until)
            return generation.state[0]

    def _found_or_begun(self, key: bytes) -> bytes | None:
        found: bytes | None = self.ask("get", key)
        for _ in range(_LOOKS):
            if found is not None:
                break
            try:
                self.ask_once("add", key, new_token().encode(), 0, probes=True)
            except NoRoomError:  # nor is there room for any entry, then
                break
            found = self.ask("get", key)
        return found

    def ask(self, operation: str, *args: Any) -> Any:
        """Call a method of a client; once more if the server had closed the idle connection meanwhile.

        Not for requests that must not be repeated: see ask_once().
        """
        pool = self._connections
        try:  # as take(), and give_back() below, without the calls (benchmarks: "memcached get")
            client: Any = pool._slots.pop()
        except IndexError:
            client, is_reused = pool.take()
        else:  # under the same name, lest a right live on that has become a connection
            client, is_reused = pool._opened() if isinstance(client, Right) else (client, True)
        try:
            answer = getattr(client, operation)(*args)
        except BaseException as error:
            pool.discard(client)
            if not is_reused or not isinstance(error, ConnectionError):
                raise
        else:
            if pool._leaving or pool._refused:
                pool.give_back(client)
            else:
                pool._slots.append(client)
                if pool._queue and pool._woken is None:
                    with pool._mutex:
                        pool._wake_first()
            return answer
        pool.close_idle()  # the server has closed them, too
        return self.ask_once(operation, *args)

    def ask_once(self, operation: str, *args: Any, probes: bool = False) -> Any:
        """Call a method of a client, and never a second time once the request may have arrived.

        With `probes`, an idle connection is looked at first: is it still open? Not needed after another request.
        """
        client = self._take_open() if probes else self._connections.take()[0]
        try:
            answer = getattr(client, operation)(*args)
        except BaseException:
            self._connections.discard(client)
            raise
        self._connections.give_back(client)
        return answer

    def _take_open(self) -> Client:
        """Return a client whose connection the server has not closed."""
        client, is_reused = self._connections.take()
        try:
            if is_reused:
                client.probe()
        except BaseException as error:
            self._connections.discard(client)
            if not isinstance(error, ConnectionError):
                raise
        else:
            return client
        self._connections.close_idle()
        return self._connections.take()[0]

    def close(self) -> None:
        """Close the connections: see Connections."""
        self._connections.close()

    renew = close

    def before_fork(self) -> None:
        """Close idle connections: a child that dropped its copies would say good-bye on the parent's."""
        self._connections.close_idle()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections."""
        super().after_fork_in_child()
        self._connections = self._new_connections()
        for generation in self._generations.values():
            generation.dropped.after_fork_in_child()


# Its threads start as they are needed.
_new_executor: Final = partial(ThreadPoolExecutor, WORKERS, thread_name_prefix="storeroom-memcached")


class Group(Engine):
    """The servers of one LOCATION, and the threads that ask them for asynchronous callers."""

    can_be_forgotten = True

    def __init__(self, names: tuple[str, ...], servers: tuple[Server, ...]) -> None:
        super().__init__()
        self.servers = self.parts = servers
        ring = Ring(names)
        self.owner, self.owners = ring.owner, ring.owners
        self.executor = _new_executor()
        self.samples: dict[str, set[str]] = {}  # of storage keys that programs' own functions make, by prefix

    @property
    def servers_down(self) -> int:
        """See Engine."""
        return sum(server.servers_down for server in self.servers)

    def counted(self) -> dict[str, Any]:
        """See Engine; the servers count for themselves how they are."""
        return reduce(total, (server.counted() for server in self.servers), super().counted())

    def close(self) -> None:
        """End the threads that wait for work."""
        with self.lock:
            ended, self.executor = self.executor, _new_executor()
        ended.shutdown(wait=False)

    def after_fork_in_child(self) -> None:
        """Forget the threads, which stayed in the parent."""
        super().after_fork_in_child()
        self.executor = _new_executor()
