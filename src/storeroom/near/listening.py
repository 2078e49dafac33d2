"""A thread that listens for changes: the base of all storages' channels.

It is a daemon, and serves callers of all threads and event loops of its process.
"""

import logging
import selectors
import socket
import threading
from contextlib import ExitStack
from typing import Final

from storeroom.engines import threads
from storeroom.locks import reentrant
from storeroom.storage.channel import Listener

__all__ = ["BrokenError", "ListeningThread", "RefusedError"]

_log = logging.getLogger("storeroom.near")

PAUSE_SECONDS: Final = (0.05, 1.0)
"""Between attempts to connect: doubling from the first to the last."""

REFUSED_SECONDS: Final = 30.0
"""Before a server that does not know how to tell of changes, or does not want to, is asked again."""


class BrokenError(Exception):
    """Changes can no longer be heard of."""


class RefusedError(BrokenError):
    """The server will not tell of changes."""


class ListeningThread:
    """Base of channels.

    Args:
        name: of the storage, for the log; without password.
        timeout: seconds that the storage may take to answer.
        outages: errors of its driver when it is out of reach.
    """

    def __init__(self, name: str, timeout: float, outages: tuple[type[Exception], ...]) -> None:
        """Begin without a thread; the first near tier starts one."""
        self._name, self._timeout = name, timeout
        self._outages: tuple[type[Exception], ...] = (OSError, BrokenError, *outages)
        self._lock = reentrant()
        self._listeners: tuple[Listener, ...] = ()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._has_warned = False
        self._sleeper, self._alarm = socket.socketpair()

    def _open(self, stack: ExitStack) -> None:
        """Connect, and let listeners know that changes are heard of now."""
        raise NotImplementedError

    def _listen(self) -> None:
        """Tell listeners of changes, until there is a reason to connect anew."""
        raise NotImplementedError

    def _end(self) -> None:
        """Let listeners know that changes are no longer heard of, if they were."""
        raise NotImplementedError

    def _add(self, listener: Listener) -> None:
        """Note a listener, under the lock, and see to it that the thread runs."""
        if listener not in self._listeners:
            self._listeners = (*self._listeners, listener)
        if self._thread is None and not self._is_closed:
            try:
                self._thread = threads.start("storeroom-near", self._run)
            except RuntimeError as error:  # the system allows no further one; the next near tier tries again
                self._warn(error)

    @property
    def _bound(self) -> float:
        """The shortest of the listeners' bounds."""
        return min(listener.max_staleness for listener in self._listeners)

    def _run(self) -> None:
        first, longest = PAUSE_SECONDS
        pause = first
        while not self._is_closed:
            try:
                with ExitStack() as stack:
                    self._open(stack)
                    self._note_success()
                    pause = first
                    self._listen()
            except self._outages as error:
                self._warn(error)
                self._end()
                self._sleep(REFUSED_SECONDS if isinstance(error, RefusedError) else pause)
                pause = min(2 * pause, longest)
            else:
                self._end()

    def _sleep(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sleeper, selectors.EVENT_READ)
            if not self._is_closed and selector.select(seconds):
                self._hush()

    def _wake(self) -> None:
        self._alarm.send(b"\x00")

    def _hush(self) -> None:
        self._sleeper.recv(64)

    def _note_success(self) -> None:
        if self._has_warned:
            self._has_warned = False
            _log.warning("Changes in %s are heard of again.", self._name)

    def _warn(self, error: Exception) -> None:
        if not self._has_warned and not self._is_closed:
            self._has_warned = True
            _log.warning(
                "Changes in %s are not heard of (%s: %s). Until they are, near tiers keep entries for max_staleness "
                "at most: %g s.",
                self._name,
                type(error).__name__,
                error,
                max(listener.max_staleness for listener in self._listeners),
            )

    def close(self) -> None:
        """End the thread; near tiers are bounded by time then."""
        with self._lock:
            self._is_closed = True
            self._wake()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2 * self._timeout)
        self._sleeper.close()
        self._alarm.close()

    def abandon(self) -> None:
        """Let go, in a forked child, of the parent's sockets."""
        self._sleeper.close()
        self._alarm.close()
