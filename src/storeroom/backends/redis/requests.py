"""Requests to the servers, and the meaning of their replies.

An operation of the cache is a generator of requests, so that it is written once for both kinds of callers.
"""

import enum
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from redis.exceptions import ClusterDownError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.redis.location import Server
from storeroom.exceptions import StorageError

__all__ = [
    "OUTAGES", "PRIMARIES", "Command", "Exchange", "Request", "UnreachableError", "Use", "checked", "is_wrong_type",
    "one",
]  # fmt: skip

T = TypeVar("T")

Command: TypeAlias = tuple[bytes | str | int | float, ...]
"""Name and arguments; the first argument is the key, but for scripts, which have it third."""


class Use(enum.Enum):
    """The effect of a request.

    Attributes:
        READ: changes nothing: may go to a replica, and be sent again.
        FRESH: changes nothing, but a replica that lags behind will not do.
        WRITE: changes something, and does no more if it is sent again.
        ONCE: would count, move or answer differently the second time: never sent again once it may have arrived.
    """

    READ = "read"
    FRESH = "fresh"
    WRITE = "write"
    ONCE = "once"


@dataclass(frozen=True, slots=True)
class Request:
    """Commands that are sent together, in one round trip.

    Attributes:
        commands: each has one reply; an error of the server is a reply too.
        at: the server to ask, if it is a certain one.
    """

    commands: Sequence[Command]
    use: Use
    at: Server | None = None


PRIMARIES: Final = Request((), Use.FRESH)
"""Asks for the servers that hold the entries, instead of replies."""

Exchange: TypeAlias = Generator[Request, list[Any], T]
"""An operation: yields requests, is sent the replies of each, and returns its result."""


def one(use: Use, *command: bytes | str | float) -> Request:
    """Return the request of a single command."""
    return Request((command,), use)


OUTAGES: Final = (
    RedisConnectionError,  # also: loading its data, refusing the password, too many clients
    RedisTimeoutError,
    ReadOnlyError,
    ClusterDownError,  # also: a replica without its primary
    TryAgainError,
)
"""A server cannot be reached, or cannot work now. Any other refusal is a mistake of the program."""


class UnreachableError(RedisConnectionError):
    """No connection could be made, so that nothing has been sent."""


def checked(reply: Any) -> Any:
    """Return a reply that is no error; raise an outage as it is, another refusal as a StorageError."""
    if isinstance(reply, OUTAGES):
        raise reply
    if isinstance(reply, Exception):
        raise StorageError(f"The Redis server refused a command: {reply}.") from reply
    return reply


def is_wrong_type(reply: Any) -> bool:
    """Tell whether there is a list or a hash instead of a string: no cache's entry."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
