"""A thread that listens to the Sentinels of one engine, and asks them again and again.

A Sentinel tells of a failover at once (``+switch-master``), and the one that leads it a moment earlier
(``+promoted-slave``). On any such message all of them are asked for their vote; so they are once a second, as a message
may be lost with its connection. Connections are made by threads of their own, so that a Sentinel that does not answer
keeps nobody waiting who listens to the others.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#pubsub-messages
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import hiredis
from redis.exceptions import RedisError

from storeroom.backends.redis.location import Server
from storeroom.backends.redis.pool import pack
from storeroom.backends.redis.sentinel import Vote, questions, vote_of
from storeroom.backends.redis.wire import Wire
from storeroom.near.listening import BrokenError

__all__ = ["SentinelWatch"]

ASK_SECONDS: Final = 1.0
"""Between two questions to a Sentinel that tells of nothing."""

CHANNELS: Final = (b"+switch-master", b"+promoted-slave")

PAUSE_SECONDS: Final = (0.25, 5.0)
"""Between two attempts to connect: doubling from the first to the last."""

_OUTAGES: Final = (OSError, RedisError, BrokenError, hiredis.HiredisError)


class _Ear:
    """One Sentinel, as the thread knows it.

    Attributes:
        wire: the connection; None while there is none.
        is_connecting: whether a thread makes one.
        due: monotonic time of the next attempt.
        pause: seconds from a failure to it.
        asked_at: monotonic time of the question that is unanswered, or None.
        replies: to it, so far.
    """

    def __init__(self, sentinel: Server) -> None:
        self.sentinel = sentinel
        self.wire: Wire | None = None
        self.is_connecting = False
        self.due, self.pause = 0.0, PAUSE_SECONDS[0]
        self.asked_at: float | None = None
        self.replies: list[Any] = []


class SentinelWatch:
    """The thread: a daemon, which serves callers of all threads and event loops of its process.

    Args:
        sentinels: whom to listen to.
        service: the name of their primary.
        connect: returns a connection of redis-py to one of them, not open yet.
        settle: takes the votes of those that answer, whenever there is a new one.
        patience: seconds in which a question is answered.
    """

    def __init__(
        self,
        sentinels: Sequence[Server],
        service: str,
        connect: Callable[[Server], Any],
        settle: Callable[[Mapping[Server, Vote]], None],
        patience: float,
    ) -> None:
        """Begin to listen, unless the system allows no further thread."""
        self._service, self._connect, self._settle = service, connect, settle
        self._patience = max(patience, ASK_SECONDS)
        self._ears = [_Ear(sentinel) for sentinel in sentinels]
        self._votes: dict[Server, Vote] = {}
        self._arrived: deque[tuple[_Ear, Wire | None]] = deque()
        self._is_closed = False
        self._sleeper, self._alarm = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="storeroom-sentinel", daemon=True)
        with suppress(RuntimeError):
            self._thread.start()

    def close(self) -> None:
        """End the thread, and its connections."""
        self._is_closed = True
        self._wake()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._patience)

    def abandon(self) -> None:
        """Let go, in a forked child, of the parent's sockets."""
        self._is_closed = True
        for ear in self._ears:
            if ear.wire is not None:
                ear.wire.connection.disconnect()  # says nothing to the server, but in the process that connected
        self._sleeper.close()
        self._alarm.close()

    def _wake(self) -> None:
        with suppress(OSError):  # it has ended
            self._alarm.send(b"\x00")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sleeper, selectors.EVENT_READ)
            ask_at = 0.0
            while not self._is_closed:
                now = time.monotonic()
                self._connect_where_due(now)
                if now >= ask_at:
                    ask_at = now + ASK_SECONDS
                    self._ask_all(selector, now)
                for key, _ in selector.select(max(0.0, ask_at - now)):
                    if key.data is None:
                        self._sleeper.recv(64)
                        self._welcome(selector)
                    elif self._hear(selector, *key.data):
                        ask_at = 0.0
        self._discard_arrived()
        for ear in self._ears:
            if ear.wire is not None:
                ear.wire.connection.disconnect()
        self._sleeper.close()
        self._alarm.close()

    # Connections ------------------------------------------------------------------------------

    def _connect_where_due(self, now: float) -> None:
        for ear in self._ears:
            if ear.wire is None and not ear.is_connecting and now >= ear.due:
                ear.is_connecting = True
                thread = threading.Thread(
                    target=self._reach, args=(ear,), name="storeroom-sentinel-connect", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # as above
                    self._postpone(ear)

    def _reach(self, ear: _Ear) -> None:
        """Connect to a Sentinel, in a thread of its own."""
        reached = None
        try:
            with suppress(*_OUTAGES):
                connection = self._connect(ear.sentinel)
                connection.connect()
                wire = Wire(connection, ear.sentinel)
                if not isinstance(wire.ask("HELLO", "3"), Exception):  # else it is only asked, as messages need RESP3
                    wire.socket.sendall(pack([("SUBSCRIBE", *CHANNELS)]))
                reached = wire
        finally:
            self._arrived.append((ear, reached))
            self._wake()
            if self._is_closed:
                self._discard_arrived()

    def _discard_arrived(self) -> None:
        while self._arrived:
            with suppress(IndexError):  # the other thread was faster
                _, wire = self._arrived.popleft()
                if wire is not None:
                    wire.connection.disconnect()

    def _welcome(self, selector: selectors.BaseSelector) -> None:
        """Listen on new connections."""
        while self._arrived:
            ear, wire = self._arrived.popleft()
            ear.is_connecting = False
            if wire is None:
                self._postpone(ear)
                continue
            ear.wire = wire
            selector.register(wire.socket, selectors.EVENT_READ, (ear, wire))
            self._ask(selector, ear, wire, time.monotonic())

    def _postpone(self, ear: _Ear) -> None:
        ear.is_connecting = False
        ear.due = time.monotonic() + ear.pause
        ear.pause = min(2 * ear.pause, PAUSE_SECONDS[1])

    def _lose(self, selector: selectors.BaseSelector, ear: _Ear) -> None:
        if ear.wire is not None:
            selector.unregister(ear.wire.socket)
            ear.wire.connection.disconnect()
        ear.wire = ear.asked_at = None
        self._votes.pop(ear.sentinel, None)
        self._postpone(ear)

    # Questions and answers --------------------------------------------------------------------

    def _ask_all(self, selector: selectors.BaseSelector, now: float) -> None:
        for ear in self._ears:
            if ear.wire is not None and ear.asked_at is None:
                self._ask(selector, ear, ear.wire, now)
            elif ear.asked_at is not None and ear.asked_at < now - self._patience:
                self._lose(selector, ear)

    def _ask(self, selector: selectors.BaseSelector, ear: _Ear, wire: Wire, now: float) -> None:
        ear.asked_at, ear.replies = now, []
        try:
            wire.socket.sendall(pack(questions(self._service)))
        except OSError:
            self._lose(selector, ear)

    def _hear(self, selector: selectors.BaseSelector, ear: _Ear, wire: Wire) -> bool:
        """Take the words of a Sentinel; tell whether there is a reason to ask all of them."""
        is_news = False
        try:
            for reply in wire.read():
                match reply:
                    case [b"message", *_]:
                        is_news = True
                    case [b"subscribe", *_]:
                        pass
                    case _:
                        self._note(ear, reply)
        except _OUTAGES:
            self._lose(selector, ear)
        return is_news

    def _note(self, ear: _Ear, reply: Any) -> None:
        ear.replies.append(reply)
        if len(ear.replies) < len(questions("")) or ear.asked_at is None:
            return
        vote, ear.asked_at, ear.pause = vote_of(ear.replies, ear.asked_at), None, PAUSE_SECONDS[0]
        if vote is None:
            self._votes.pop(ear.sentinel, None)
        else:
            self._votes[ear.sentinel] = vote
        self._settle(dict(self._votes))
