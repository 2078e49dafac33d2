"""Exchanges of synchronous callers with one server.

redis-py makes and logs in the connections, and reads the replies. Its pool and its client do more for each command.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.network import Connections
from storeroom.backends.redis.requests import Command, UnreachableError, Use

__all__ = ["Pool", "pack", "require_primary"]


class Connection(Protocol):
    """The methods in use of redis-py's connections."""

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
    return _pack(commands[0]) if len(commands) == 1 else b"".join(map(_pack, commands))


def require_primary(role: Any) -> None:
    """Refuse a connection to a server that has become a replica.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/, step 3.
    """
    if role[0] != b"master":
        raise UnreachableError("it has become a replica")


def _pieces(packed: bytes) -> Sequence[bytes | memoryview]:
    """Split a long message, as a socket's timeout is for the whole of a call."""
    if len(packed) <= _PIECE:
        return (packed,)
    view = memoryview(packed)
    return [view[start : start + _PIECE] for start in range(0, len(packed), _PIECE)]


@dataclass(slots=True, eq=False)
class Talk:
    """Commands on their way, and the connection of their replies: if it `is_reused`, the server may have closed it."""

    connection: Connection
    packed: Sequence[bytes | memoryview]
    count: int
    is_reused: bool


class Pool:
    """The connections of one process to one server: see Connections, and Server on `must_be_primary`."""

    def __init__(self, make: Callable[[], Connection], limit: int, patience: float, *, must_be_primary: bool) -> None:
        self._must_be_primary = must_be_primary
        self._connections = Connections(make, methodcaller("disconnect"), limit, patience, UnreachableError)
        self.close = self._connections.close

    def exchange(self, commands: Sequence[Command], use: Use) -> list[Any]:
        """Send commands; return their replies, errors of the server among them.

        Raises:
            UnreachableError: nothing was sent.
            redis.exceptions.ConnectionError: the connection broke.
            redis.exceptions.TimeoutError: the server did not answer in time.
        """
        return self.receive(self.send(commands, use), use)

    def send(self, commands: Sequence[Command], use: Use) -> Talk:
        """Send commands. The caller must receive() the replies."""
        packed = _pieces(pack(commands))
        connection, is_reused = self._connections.take()
        talk = Talk(connection, packed, len(commands), is_reused)
        try:
            if not is_reused:
                self._open(connection)
            elif use is Use.ONCE and not _is_clean(connection):
                # A request that is sent only once must not be the one to find out.
                self._reopen(talk)
            self._send(talk, use)
        except BaseException:
            self._connections.discard(connection)
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
                self._resend(talk)
                replies = _read(talk)
        except BaseException:
            self._connections.discard(talk.connection)  # a reply may still come on it
            raise
        self._connections.give_back(talk.connection)
        return replies

    def _open(self, connection: Connection) -> None:
        try:
            connection.connect()
            if self._must_be_primary:
                connection.send_packed_command([_ROLE], check_health=False)
                require_primary(connection.read_response(disable_decoding=True))
        except (RedisConnectionError, RedisTimeoutError, ResponseError) as error:
            raise UnreachableError(str(error)) from error

    def _reopen(self, talk: Talk) -> None:
        """Replace a connection that the server has closed, and with it the other idle ones."""
        self._connections.close_idle()
        talk.connection.disconnect()
        talk.is_reused = False
        self._open(talk.connection)

    def _send(self, talk: Talk, use: Use) -> None:
        try:
            talk.connection.send_packed_command(talk.packed, check_health=False)
        except RedisConnectionError:
            if not talk.is_reused or use is Use.ONCE:
                raise
            self._resend(talk)

    def _resend(self, talk: Talk) -> None:
        self._reopen(talk)
        talk.connection.send_packed_command(talk.packed, check_health=False)


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
