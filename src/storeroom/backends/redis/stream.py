"""The connection of one event loop to one server, for asynchronous callers.

All tasks share it. Their commands of one turn of the loop go out in one write, so that two thousand tasks cost one
connection and few system calls. The replies to a task that was cancelled are passed over.
"""

import asyncio
import math
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.redis.location import Server
from storeroom.backends.redis.pool import pack, require_primary
from storeroom.backends.redis.requests import Command, ForeignError, UnreachableError, Use
from storeroom.backends.redis.watching import DECIDE, dialogue

__all__ = ["Login", "Stream"]

_NOTHING: Final = object()

_LATE: Final = 0.05
"""Part of a timeout by which the loop is late where it did not run, but for a busy machine's turns."""

_MOMENT: Final = 0.01
"""Seconds, in which a loop looks once at its sockets before the timers that are due then."""


@dataclass(frozen=True, slots=True)
class Login:
    """The terms on which connections are made.

    Attributes:
        timeout: seconds to wait for a reply.
        credentials: returns user name and password anew for each connection; None for those of the server.
    """

    connect_timeout: float
    timeout: float
    client_name: str | None
    credentials: Callable[[], Sequence[str]] | None
    tls: Callable[[], ssl.SSLContext]


class Stream:
    """The exchanges of one loop's tasks: opens a connection on first use, and another when it has broken."""

    def __init__(self, server: Server, login: Login) -> None:
        self._server = server
        self._login = login
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._retired: list[_Wire] = []
        self._opening: asyncio.Task[_Wire] | None = None
        self._guardian: AsyncGenerator[None, None] | None = None
        self._apart: Stream | None = None  # for commands that are watched, one task's after the other's
        self._turn = asyncio.Lock()

    async def exchange(self, commands: Sequence[Command], use: Use) -> list[Any]:
        """Send commands; return their replies: see Pool.exchange()."""
        if commands[-1][0] == DECIDE:
            return await self._converse(commands)
        wire = self._wire
        if wire is not None and not wire.is_closed:
            try:
                return await wire.ask(commands)
            except RedisConnectionError as error:
                # It had idled out, or the server was restarted, since it was used last.
                if isinstance(error, ForeignError) or (use is Use.ONCE and not isinstance(error, UnreachableError)):
                    raise
        return await (await self.open()).ask(commands)

    async def _converse(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that are watched; return their replies."""
        if self._apart is None:
            self._apart = Stream(self._server, self._login)
        async with self._turn:
            talk = dialogue(commands)
            first = (("UNWATCH",), *next(talk))  # a task that was cancelled may have left something
            try:
                wire = await self._apart.open()
                _, *replies = await wire.ask(first)
            except RedisConnectionError:  # it had idled out
                wire = await self._apart.open()
                _, *replies = await wire.ask(first)
            try:
                while True:
                    replies = await wire.ask(talk.send(replies))
            except StopIteration as stop:
                told: list[Any] = stop.value
                return told

    async def open(self) -> "_Wire":
        """Return an open connection; tasks that come at the same time wait for the same attempt."""
        if self._wire is not None and not self._wire.is_closed:
            return self._wire
        if self._opening is None:
            self._opening = self._loop.create_task(self._connect())
            self._opening.add_done_callback(self._opened)
        # A waiter that is cancelled must not take the others' connection away.
        return await asyncio.shield(self._opening)

    def _opened(self, task: "asyncio.Task[_Wire]") -> None:
        self._opening = None
        if not task.cancelled() and task.exception() is None:
            self._wire = task.result()

    async def _connect(self) -> "_Wire":
        if self._guardian is None:
            self._guardian = self._guard()
            await anext(self._guardian)
        begun = self._loop.time()
        try:
            return await self._attempt()
        except UnreachableError:
            if self._loop.time() - begun < (1 + _LATE) * self._login.connect_timeout:
                raise
        # A loop that did not run meanwhile may have missed the server's answer.
        return await self._attempt()

    async def _attempt(self) -> "_Wire":
        wire = _Wire(self._server.name, self._login.timeout)
        try:
            async with asyncio.timeout(self._login.connect_timeout):
                await self._create_transport(wire)
                await self._log_in(wire)
        except BaseException as error:
            wire.close()
            if isinstance(error, TimeoutError):
                raise UnreachableError(f"no connection within {self._login.connect_timeout:g} s") from None
            if isinstance(error, OSError | RedisError) and not isinstance(error, ForeignError):
                raise UnreachableError(str(error)) from error
            raise
        return wire

    async def _create_transport(self, wire: "_Wire") -> None:
        server, loop = self._server, self._loop
        if server.path:
            await loop.create_unix_connection(lambda: wire, server.path)
        else:
            context = self._login.tls() if server.tls else None
            await loop.create_connection(lambda: wire, server.host, server.port, ssl=context)

    async def _log_in(self, wire: "_Wire") -> None:
        """Log in and choose the database, in one round trip."""
        server, login = self._server, self._login
        commands: list[Command] = []
        credentials: Sequence[str] = [word for word in (server.username, server.password) if word]
        if login.credentials is not None:
            credentials = await asyncio.to_thread(login.credentials)
        if credentials:
            commands.append(("AUTH", *credentials))
        if login.client_name:
            commands.append(("CLIENT", "SETNAME", login.client_name))
        if server.db:
            commands.append(("SELECT", server.db))
        if server.must_be_primary:
            commands.append(("ROLE",))
        replies = await wire.ask(commands) if commands else []
        role = replies.pop() if server.must_be_primary else None
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        if role is not None and not isinstance(role, NoPermissionError):
            require_primary(role)

    async def _guard(self) -> AsyncGenerator[None, None]:
        """Close the connection with its loop: asyncio.run() ends asynchronous generators before it closes the loop."""
        try:
            yield
        finally:
            self.close()

    def retire(self) -> None:
        """Let the next exchange open another connection; those under way end on this one, which closes then."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.retire()
            self._retired = [it for it in (*self._retired, wire) if not it.is_closed]

    def close(self) -> None:
        """Close the connection. Exchanges under way fail, and the next use opens another."""
        self._guardian = None
        for wire in (self._wire, *self._retired):
            if wire is not None:
                wire.close()
        self._wire, self._retired = None, []


class _Wire(asyncio.Protocol):
    """One connection; `is_closed` as soon as the server closes it."""

    def __init__(self, name: str, timeout: float) -> None:
        self.is_closed = self._is_retired = False
        self._name = name
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=DefaultParser.parse_error, notEnoughData=_NOTHING)
        self._transport: Any = None
        self._pending: deque[_Pending] = deque()
        self._outgoing: list[bytes] = []
        self._writable = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None
        self._moved_at = self._looked_at = 0.0
        self._unsent = 0

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; return their replies."""
        while not self._writable.is_set():
            await self._writable.wait()
        if self.is_closed:
            raise UnreachableError(f"{self._name} closed the connection before anything was sent")
        waiter: asyncio.Future[list[Any]] = self._loop.create_future()
        self._pending.append(_Pending(waiter, len(commands)))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(pack(commands))
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._timeout, self._look)
        return await waiter

    def _flush(self) -> None:
        # A loop that was busy since ask() has kept the server waiting, not the other way round.
        deadline = self._loop.time() + self._timeout
        for asked in self._pending:
            if asked.deadline == math.inf:
                asked.deadline = deadline
        data = b"".join(self._outgoing)
        self._outgoing.clear()
        if self._transport is not None and data:
            self._transport.write(data)
            self._unsent = self._transport.get_write_buffer_size()

    def _look(self) -> None:
        """Fail everything if the first exchange has waited too long, and no data has moved meanwhile on a slow line."""
        self._watchdog = None
        if not self._pending:
            return
        now, unsent = self._loop.time(), self._unsent
        self._unsent = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if self._unsent < unsent:
            self._moved_at = now
        left = min(max(self._pending[0].deadline, self._moved_at + self._timeout) - now, self._timeout)
        if left <= 0 and self._looked_at <= self._moved_at:
            # The loop may have stood still since it looked at its sockets, and the answer lie there: it looks again.
            self._looked_at = now
            self._watchdog = self._loop.call_later(_MOMENT, self._look)
        elif left <= 0:
            self._fail(RedisTimeoutError(f"no answer from {self._name} within {self._timeout:g} s"))
        else:
            self._watchdog = self._loop.call_later(left, self._look)

    def retire(self) -> None:
        """Close it as soon as no exchange is under way."""
        self._is_retired = True
        if not self._pending:
            self.close()

    def close(self) -> None:
        """Close it; exchanges under way fail."""
        self._fail(RedisConnectionError(f"the connection to {self._name} was closed"))

    def _fail(self, error: Exception) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._outgoing.clear()
        self._writable.set()  # a task that waits to write finds that it is closed
        if self._watchdog is not None:
            self._watchdog.cancel()
        for asked in self._pending:
            if not asked.waiter.done():
                asked.waiter.set_exception(error)
        self._pending.clear()
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._moved_at = self._loop.time()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._receive(reply)
        except (hiredis.ProtocolError, IndexError) as error:
            self._fail(ForeignError(f"{self._name} does not speak Redis's protocol: {error}"))

    def _receive(self, reply: Any) -> None:
        asked = self._pending[0]
        asked.replies.append(reply)
        if len(asked.replies) == asked.count:
            self._pending.popleft()
            if not asked.waiter.done():
                asked.waiter.set_result(asked.replies)
            if self._is_retired and not self._pending:
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(RedisConnectionError(f"{self._name} closed the connection" + (f": {exc}" if exc else "")))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


@dataclass(slots=True, eq=False)
class _Pending:
    """Commands that were sent together, and the task that waits for their replies."""

    waiter: asyncio.Future[list[Any]]
    count: int
    deadline: float = math.inf
    replies: list[Any] = field(default_factory=list)
