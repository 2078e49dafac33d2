"""Which of redis-py's errors mean what: an outage, a mistake, or a missing entry."""

from typing import Any, Final

from redis.exceptions import ClusterDownError, ReadOnlyError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.exceptions import StorageError

__all__ = ["OUTAGES", "UnreachableError", "checked", "is_wrong_type"]

OUTAGES: Final = (
    RedisConnectionError,  # also: loading its data, refusing the password, too many clients
    RedisTimeoutError,
    ReadOnlyError,
    ClusterDownError,  # also: a replica without its primary
    TryAgainError,
)
"""What says that a server cannot be reached, or cannot work now. Anything else it refuses is a mistake."""


class UnreachableError(RedisConnectionError):
    """No connection could be made, so that nothing has been sent."""


def checked(reply: Any) -> Any:
    """Return a reply that is no error.

    Raises:
        StorageError: the server refused the command.
    """
    if isinstance(reply, OUTAGES):
        raise reply
    if isinstance(reply, Exception):
        raise StorageError(f"The Redis server refused a command: {reply}.") from reply
    return reply


def is_wrong_type(reply: Any) -> bool:
    """Tell whether there is a list or a hash where a string was asked for: nobody's entry."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
