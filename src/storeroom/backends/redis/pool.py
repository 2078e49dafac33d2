"""Exchanges of synchronous callers with one server.

redis-py makes and logs in the connections, and reads the replies. Its pool and its client do more for each command.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import methodcaller
from typing import Any, Final, Protocol

import hiredis
from redis.exceptions import BusyLoadingError, InvalidResponse, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.connections import Connections
from storeroom.backends.redis.requests import Command, ForeignError, UnreachableError, Use
from storeroom.backends.redis.watching import DECIDE, dialogue

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
_PING: Final = _pack(("PING",))

_NUMBERS: Final = frozenset({int, float})

_PIECE: Final = 2**16
"""Bytes: a line that takes longer than socket_timeout for so few is as good as down."""


def pack(commands: Sequence[Command]) -> bytes:
    """Return the bytes of commands that are sent together."""
    return b"".join([_pack(it if _NUMBERS.isdisjoint(map(type, it)) else _words(it)) for it in commands])


def _words(command: Command) -> Command:
    # hiredis (3.5) lets Python write numbers, where a signal's handler may raise, and takes no notice: a crash.
    return tuple([repr(word) if type(word) in _NUMBERS else word for word in command])


def require_primary(role: Any) -> None:
    """Refuse a connection to a server that has become a replica.

    Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/, step 3.
    """
    if isinstance(role, Exception):
        raise role
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

    def __init__(
        self, name: str, make: Callable[[], Connection], limit: int, patience: float, *, must_be_primary: bool
    ) -> None:
        self._make, self._must_be_primary = make, must_be_primary
        self._connections = Connections(name, self._connected, methodcaller("disconnect"), limit, patience, _is_crowded)
        self.take = self._connections.take
        self.close = self._connections.close
        self.waits = self._connections.waits

    def exchange(self, commands: Sequence[Command], use: Use) -> list[Any]:
        """Send commands; return their replies, errors of the server among them.

        Raises:
            PoolTimeoutError: no connection came free in time.
            UnreachableError: nothing was sent.
            redis.exceptions.ConnectionError: the connection broke.
            redis.exceptions.TimeoutError: the server did not answer in time.
        """
        if commands[-1][0] == DECIDE:
            return self._converse(commands)
        # Before a connection is taken: others may need it, and an exception that comes between loses it for a while.
        packed, count = pack(commands), len(commands)
        return self.receive(self.send(self.take(), packed, count, use), use)

    def _converse(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands that are watched; return their replies."""
        talk, connection = dialogue(commands), None
        try:
            step = next(talk)
            while True:
                packed = pack(step)
                if connection is None:
                    connection = self.send(self.take(), packed, len(step), Use.ONCE)
                else:
                    connection = replace(connection, count=len(step))
                    connection.connection.send_packed_command(_pieces(packed), check_health=False)
                step = talk.send(_read(connection))
        except StopIteration as stop:
            if connection is not None:
                self._connections.give_back(connection.connection)
            replies: list[Any] = stop.value
            return replies
        except BaseException:
            self.release(connection)
            raise

    def send(self, taken: tuple[Connection, bool], packed: bytes, count: int, use: Use) -> Talk:
        """Send commands on a connection of take(). The caller must receive() the replies, or release() the talk."""
        connection, is_reused = taken
        talk = Talk(connection, _pieces(packed), count, is_reused)
        try:
            if is_reused and use is Use.ONCE and not _is_clean(connection):
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

    def release(self, held: Any) -> None:
        """Give back the connection of take() or send(), if `held` is one of their results."""
        if isinstance(held, Talk):
            self._connections.discard(held.connection)  # a reply may still come on it
        elif isinstance(held, tuple):
            self._connections.give_back(held[0])

    def _connected(self) -> Connection:
        connection = self._make()
        try:
            self._open(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _open(self, connection: Connection) -> None:
        try:
            connection.connect()
            # A server that has too many clients accepts, and says so in place of the first reply.
            connection.send_packed_command([_ROLE if self._must_be_primary else _PING], check_health=False)
            reply = connection.read_response(disable_decoding=True)
            if self._must_be_primary:
                require_primary(reply)
        except NoPermissionError:
            pass  # to ask that, which will do as a reply
        except InvalidResponse as error:
            raise ForeignError(f"no reply of Redis ({error})") from error
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


def _is_crowded(error: Exception) -> bool:
    """Tell whether a connection was refused as one too many (maxclients)."""
    return isinstance(error, UnreachableError) and "max number of clients" in str(error)


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
        except (ResponseError, BusyLoadingError) as error:
            replies.append(error.with_traceback(None))  # which would keep the connection alive, in a circle
        except InvalidResponse as error:
            raise ForeignError(f"no reply of Redis ({error})") from error
    return replies
