"""One server of this process: its connections, its circuit breaker, and the generations that were read from it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from storeroom.backends.memcached.clients import Client
from storeroom.backends.memcached.ring import Ring
from storeroom.backends.memcached.server_keys import generation_key
from storeroom.backends.network import NetworkEngine
from storeroom.engines import Engine

__all__ = ["FRESH_SECONDS", "Generation", "Group", "Server"]

FRESH_SECONDS: Final = 1.0
"""For how long a generation is used before it is asked for again: a clear() is seen everywhere within it."""

WORKERS: Final = 32
"""Threads for asynchronous callers. Each waits for the network nearly all the time; more would fight for the
interpreter without a further round trip being done."""


class Generation:
    """What this process knows of one prefix's generation on one server.

    Attributes:
        key: of the entry that holds it.
        state: the generation, and the moment of `time.monotonic()` until which it is used; replaced as a whole.
    """

    __slots__ = ("key", "state")

    def __init__(self, key_prefix: str) -> None:
        self.key = generation_key(key_prefix)
        self.state = ("", 0.0)


class Server(NetworkEngine):
    """The connections to one server: a stack, so that few stay busy and the rest may idle out.

    Args:
        name: of the server, for logs and errors.
        make: returns a client that is not connected yet.
        limit: how many connections there may be.
        patience: seconds to wait for one when all are busy.
    """

    def __init__(self, name: str, make: Callable[[], Client], limit: int, patience: float) -> None:
        super().__init__(name)
        self.make, self._limit, self._patience = make, limit, patience
        self._generations: dict[str, Generation] = {}
        self._reset()

    def _reset(self) -> None:
        # A slot is either an open connection or the right to make one, so that the bound costs nothing.
        self._idle: list[Client] = []
        self._vacant: list[None] = [None] * self._limit
        self._waiting = self._leaving = 0
        self._returned = threading.Condition()

    def generation(self, key_prefix: str) -> Generation:
        """Return what all handles of this prefix share."""
        return self._generations.setdefault(key_prefix, Generation(key_prefix))

    # Asking ---------------------------------------------------------------------------------

    def ask(self, operation: str, *args: Any) -> Any:
        """Call a method of a client; once more if the server had closed the idle connection meanwhile.

        Not for what must not be done twice: that is `ask_once`.
        """
        try:
            client, is_new = self._idle.pop(), False
        except IndexError:
            client, is_new = self._take()
        try:
            answer = getattr(client, operation)(*args)
        except BaseException as error:
            self._discard(client)
            if is_new or not isinstance(error, ConnectionError):
                raise
        else:
            self._give_back(client)
            return answer
        return self._ask_anew(operation, *args)

    def ask_once(self, operation: str, *args: Any, probes: bool = False) -> Any:
        """Call a method of a client, and never a second time once the request may have arrived.

        Args:
            operation: the method.
            args: what it is called with.
            probes: find out first whether an idle connection is still open. Not needed after another request.
        """
        client, is_new = self._take()
        try:
            if probes and not is_new:
                try:
                    client.probe()
                except ConnectionError:
                    self._discard(client)
                    self._close_idle()
                    client, _ = self._take()
            answer = getattr(client, operation)(*args)
        except BaseException:
            self._discard(client)
            raise
        self._give_back(client)
        return answer

    def _ask_anew(self, operation: str, *args: Any) -> Any:
        # As one idle connection was closed, the others are too.
        self._close_idle()
        return self.ask_once(operation, *args)

    # The stack ------------------------------------------------------------------------------

    def _take(self) -> tuple[Client, bool]:
        """Return a client, and whether it is new."""
        deadline = 0.0
        while True:
            try:
                return self._idle.pop(), False
            except IndexError:
                pass
            try:
                self._vacant.pop()
            except IndexError:
                deadline = deadline or time.monotonic() + self._patience
                self._wait(deadline)
            else:
                return self._make_client(), True

    def _make_client(self) -> Client:
        try:
            return self.make()
        except BaseException:
            self._vacant.append(None)
            raise

    def _give_back(self, client: Client) -> None:
        self._idle.append(client)
        if self._leaving:
            self._let_one_go()
        if self._waiting:
            self._wake()

    def _let_one_go(self) -> None:
        with self._returned:
            if not self._leaving:
                return
            self._leaving -= 1
        self._close_idle_one()

    def _discard(self, client: Client) -> None:
        client.close()
        self._vacant.append(None)
        self._wake()

    def _wake(self) -> None:
        with self._returned:
            self._returned.notify()

    def _wait(self, deadline: float) -> None:
        with self._returned:
            self._waiting += 1
            try:
                while not (self._idle or self._vacant):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise TimeoutError(
                            f"all {self._limit} connections of this process have been busy for {self._patience:g} s; "
                            "raise OPTIONS['max_connections']"
                        )
                    self._returned.wait(left)
            finally:
                self._waiting -= 1

    # Life -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections that nobody uses now, and as many as are in use when they come back."""
        with self._returned:
            self._leaving = self._limit - len(self._vacant) - len(self._idle)
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._close_idle_one()

    def _close_idle_one(self) -> None:
        try:
            client = self._idle.pop()
        except IndexError:
            return
        self._discard(client)

    def before_fork(self) -> None:
        """Close what idles: a child that dropped its copies would say good-bye on the parent's connections."""
        self._close_idle()

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections."""
        super().after_fork_in_child()
        self._reset()


class Group(Engine):
    """The servers of one LOCATION, and the threads that ask them for asynchronous callers."""

    def __init__(self, names: tuple[str, ...], servers: tuple[Server, ...]) -> None:
        super().__init__()
        self.servers = servers
        ring = Ring(names)
        self.place, self.places = ring.place, ring.places
        self._executor: ThreadPoolExecutor | None = None

    def executor(self) -> ThreadPoolExecutor:
        """Return the worker threads, which are started as they are needed."""
        with self.lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="storeroom-memcached")
            return self._executor

    def close(self) -> None:
        """End the threads that wait for work."""
        with self.lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)

    def after_fork_in_child(self) -> None:
        """Forget the threads, which stayed in the parent."""
        super().after_fork_in_child()
        self._executor = None
