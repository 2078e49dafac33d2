"""The connections of one process to one server, for synchronous callers.

A stack: the connection that was used last is used next, so that few stay busy and the rest
may idle out. redis-py makes and logs in the connections, and reads the replies; what its
pool and client do around each command is done here in less.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.redis.errors import UnreachableError
from storeroom.backends.redis.requests import Command, Use

__all__ = ["Pool", "pack", "require_primary"]


class Connection(Protocol):
    """What is used of redis-py's connections."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def send_packed_command(self, command: Sequence[bytes | memoryview], check_health: bool) -> None: ...
    def read_response(self, disable_decoding: bool) -> Any: ...


_pack: Final[Callable[[Any], bytes]] = hiredis.pack_command
_ROLE: Final = _pack(("ROLE",))

_PIECE: Final = 2**16
"""Bytes: a line that takes longer than socket_timeout for so few is as good as down."""


def pack(commands: Sequence[Command]) -> bytes:
    """Return the bytes of commands that are sent together."""
    if len(commands) == 1:
        return _pack(commands[0])
    return b"".join(map(_pack, commands))


def require_primary(role: Any) -> None:
    """Refuse a connection to a server that has become a replica.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/, step 3.
    """
    if role[0] != b"master":
        raise UnreachableError("it has become a replica")


def _pieces(packed: bytes) -> Sequence[bytes | memoryview]:
    """Return what is sent by one call each, as a socket's timeout is for the whole of a call."""
    if len(packed) <= _PIECE:
        return (packed,)
    view = memoryview(packed)
    return [view[start : start + _PIECE] for start in range(0, len(packed), _PIECE)]


class Talk:
    """Commands on their way, and the connection on which their replies come.

    Attributes:
        is_reused: whether the connection was open before, so that the server may have closed it since.
    """

    __slots__ = ("connection", "count", "is_reused", "packed")

    def __init__(
        self, connection: Connection, packed: Sequence[bytes | memoryview], count: int, *, is_reused: bool
    ) -> None:
        self.connection = connection
        self.packed = packed
        self.count = count
        self.is_reused = is_reused


class Pool:
    """A bounded stack of connections.

    Args:
        make: returns a connection that is not open yet.
        limit: how many there may be.
        patience: seconds to wait for one when all are busy.
        must_be_primary: see Server.
    """

    def __init__(
        self, make: Callable[[], Connection], limit: int, patience: float, *, must_be_primary: bool = False
    ) -> None:
        self._make = make
        self._limit = limit
        self._patience = patience
        self._must_be_primary = must_be_primary
        # None stands for a connection that may still be made; those that are open lie on top.
        self._free: list[Connection | None] = [None] * limit
        self._waiting = self._leaving = 0
        self._returned = threading.Condition()

    def exchange(self, commands: Sequence[Command], use: Use) -> list[Any]:
        """Send commands; return their replies, errors of the server among them.

        Raises:
            UnreachableError: nothing was sent.
            redis.exceptions.ConnectionError: the connection broke.
            redis.exceptions.TimeoutError: the server did not answer in time.
        """
        return self.receive(self.send(commands, use), use)

    def send(self, commands: Sequence[Command], use: Use) -> Talk:
        """Send commands. The caller must receive() the replies, or abandon()."""
        packed = _pieces(pack(commands))
        connection, is_reused = self._take()
        talk = Talk(connection, packed, len(commands), is_reused=is_reused)
        try:
            if not talk.is_reused:
                self._open(talk.connection)
            elif use is Use.ONCE and not _is_clean(talk.connection):
                # What is sent only once must not find out by itself.
                self._reopen(talk)
            self._send(talk, use)
        except BaseException:
            self.abandon(talk)
            raise
        return talk

    def receive(self, talk: Talk, use: Use) -> list[Any]:
        """Return the replies, and the connection to the pool."""
        try:
            try:
                replies = _read(talk)
            except RedisConnectionError:
                if not talk.is_reused or use is Use.ONCE:
                    raise
                self._reopen(talk)
                talk.connection.send_packed_command(talk.packed, check_health=False)
                replies = _read(talk)
        except BaseException:
            self.abandon(talk)
            raise
        self._give_back(talk.connection)
        return replies

    def abandon(self, talk: Talk) -> None:
        """Close a connection on which a reply may still come."""
        talk.connection.disconnect()
        self._free.insert(0, None)
        self._wake()

    def close(self) -> None:
        """Close the connections that nobody uses now, and as many as are in use when they come back."""
        with self._returned:
            self._leaving = self._limit - len(self._free)
        self._close_idle(self._limit)

    def _close_idle(self, most: int) -> None:
        for _ in range(most):
            try:
                connection = self._free.pop()
            except IndexError:
                return
            if connection is not None:
                connection.disconnect()
            self._free.insert(0, None)

    # Opening --------------------------------------------------------------------------------

    def _open(self, connection: Connection) -> None:
        try:
            connection.connect()
            if self._must_be_primary:
                connection.send_packed_command([_ROLE], check_health=False)
                require_primary(connection.read_response(disable_decoding=True))
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            raise UnreachableError(str(error)) from error

    def _reopen(self, talk: Talk) -> None:
        """Replace a connection that the server has closed. As it was not alone, neither are the other idle ones."""
        self._close_idle(self._limit)
        talk.connection.disconnect()
        talk.is_reused = False
        self._open(talk.connection)

    def _send(self, talk: Talk, use: Use) -> None:
        try:
            talk.connection.send_packed_command(talk.packed, check_health=False)
        except RedisConnectionError:
            if not talk.is_reused or use is Use.ONCE:
                raise
            self._reopen(talk)
            talk.connection.send_packed_command(talk.packed, check_health=False)

    # The stack ------------------------------------------------------------------------------

    def _take(self) -> tuple[Connection, bool]:
        """Return a connection, and whether it has been open before."""
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._wait()
        if connection is not None:
            return connection, True
        try:
            return self._make(), False
        except BaseException:
            self._free.insert(0, None)
            raise

    def _give_back(self, connection: Connection) -> None:
        self._free.append(connection)
        if self._leaving:
            self._let_one_go()
        if self._waiting:
            self._wake()

    def _let_one_go(self) -> None:
        with self._returned:
            if not self._leaving:
                return
            self._leaving -= 1
        self._close_idle(1)

    def _wake(self) -> None:
        with self._returned:
            self._returned.notify()

    def _wait(self) -> Connection | None:
        deadline = time.monotonic() + self._patience
        with self._returned:
            self._waiting += 1
            try:
                while True:
                    try:
                        return self._free.pop()
                    except IndexError:
                        left = deadline - time.monotonic()
                    if left <= 0 or not self._returned.wait(left):
                        raise UnreachableError(
                            f"all {self._limit} connections of this process have been busy for {self._patience:g} s; "
                            "raise OPTIONS['max_connections']"
                        )
            finally:
                self._waiting -= 1


def _is_clean(connection: Connection) -> bool:
    """Tell whether an idle connection is still open, and nothing waits on it to be read."""
    try:
        return not connection.can_read(0)
    except RedisConnectionError:
        return False


def _read(talk: Talk) -> list[Any]:
    """Read as many replies as there are commands; an error of the server is one."""
    read = talk.connection.read_response
    replies: list[Any] = []
    for _ in range(talk.count):
        try:
            replies.append(read(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies
