"""Requests to the servers, and the meaning of their replies.

An operation of the cache is a generator of requests, so that it is written once for both kinds of callers.
"""

import enum
import ssl
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.redis.location import Server
from storeroom.backends.refusals import LOGIN_REMEDY, TLS_REMEDY
from storeroom.exceptions import StorageError

__all__ = [
    "OUTAGES", "PRIMARIES", "RIGHTS", "SUSPECTS", "Batch", "Command", "Exchange", "ForeignError", "Outcome", "Request",
    "UnreachableError", "Use", "any_turned_away", "checked", "is_broken", "is_forbidden", "is_of_cluster", "is_outage",
    "is_turned_away", "is_wrong_type", "key_of", "keys_of", "one", "remedy", "undone",
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
        may_lack: whether the replies of servers out of reach are their errors, as long as others have answered.
    """

    commands: Sequence[Command]
    use: Use
    at: Server | None = None
    may_lack: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands for one server."""

    server: Server
    commands: Sequence[Command]
    use: Use


Outcome: TypeAlias = list[Any] | Exception
"""The replies to a batch, or the reason why there are none."""

PRIMARIES: Final = Request((), Use.FRESH)
"""Asks for the servers that hold the entries now, instead of replies: of each, its part of them that others lack."""

Exchange: TypeAlias = Generator[Request, list[Any], T]
"""An operation: yields requests, is sent the replies of each, and returns its result."""


def key_of(command: Command) -> Any:
    """Return the first key of a command."""
    return command[3 if str(command[0]).startswith("EVAL") else 1]


def keys_of(command: Command) -> Sequence[Any]:
    """Return all keys of a command."""
    name = str(command[0])
    if name.startswith("EVAL"):
        return command[3 : 3 + int(command[2])]
    return command[1:] if name in {"MGET", "UNLINK"} else command[1:2]


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


def is_outage(reply: Any) -> bool:
    """Tell whether a reply, or an error, is one of these; most are none, and told at once."""
    return isinstance(reply, Exception) and isinstance(reply, OUTAGES)


_TURNED_AWAY: Final = (ReadOnlyError, BusyLoadingError, MasterDownError)
SUSPECTS: Final = frozenset({ResponseError, *_TURNED_AWAY})
"""The types of replies that any_turned_away() looks at: whoever has none of them need not ask it."""

_READING: Final = frozenset({"GET", "GETRANGE", "MGET", "PTTL"})
"""Commands beside those that count or change something."""


def is_turned_away(reply: Any) -> bool:
    """Tell whether a server did nothing, as it is a replica now, has lost its primary, or loads its data.

    Its name may lead to another server by now. A script of Redis 6 tells the reason within a text of its own.
    """
    if isinstance(reply, _TURNED_AWAY):
        return True
    return isinstance(reply, ResponseError) and " -READONLY " in str(reply)


def any_turned_away(replies: Iterable[Any]) -> bool:
    """Tell whether is_turned_away() holds for any of these: never, if none is of the SUSPECTS."""
    return not SUSPECTS.isdisjoint(map(type, replies)) and any(map(is_turned_away, replies))


def undone(commands: Sequence[Command], use: Use, outcome: "Outcome") -> list[int]:
    """Return the numbers of the commands to send once more after a failure: none that may have been carried out twice.

    With those of the kind "once" that did nothing go the reads that belong to them.
    """
    numbers = range(len(commands))
    if use is not Use.ONCE or isinstance(outcome, UnreachableError):
        return list(numbers)
    if isinstance(outcome, Exception):
        return []
    left = [number for number in numbers if is_turned_away(outcome[number]) or commands[number][0] in _READING]
    return left if any_turned_away(outcome) else []


class UnreachableError(RedisConnectionError):
    """No connection could be made, so that nothing has been sent."""


class ForeignError(RedisConnectionError):
    """The server does not speak Redis's protocol."""


_FORBIDDEN: Final = ("ACL failure in script", "can't run this command", "no permissions")
"""Words by which a server refuses a command that a script calls, of version 7 and of version 6, or EXEC."""

RIGHTS: Final = "Let its user run the command on the cache's keys: see ACL SETUSER."
"""The remedy for a right that is missing."""

_NAMES_REMEDY: Final = (
    f"{TLS_REMEDY} The certificate there is not for the address that was connected to. Servers of a cluster name each "
    "other by addresses: let them announce names (cluster-announce-hostname, cluster-preferred-endpoint-type "
    "hostname), map the addresses to names by OPTIONS['address_remap'], or set OPTIONS['ssl_check_hostname'] to False."
)
_REMEDIES: Final = {
    "DB index": "The server has no database of that number: choose a smaller one, or raise its setting databases.",
    "cluster support disabled": "The server is in no cluster: write redis:// in LOCATION.",
    "knows no such primary": "Check the primary's name in LOCATION.",
    "GET-MASTER-ADDR-BY-NAME": "The server is no Sentinel: write redis:// in LOCATION, or a Sentinel's port.",
    **dict.fromkeys(("IP address mismatch", "Hostname mismatch"), _NAMES_REMEDY),
    "[SSL: ": TLS_REMEDY,  # redis-py tells no cause
    **dict.fromkeys(_FORBIDDEN, RIGHTS),
}
"""Words of an error -> its remedy."""

_REMEDIES_OF_KINDS: Final[Mapping[type[BaseException], str]] = {
    **dict.fromkeys((AuthenticationError, AuthenticationWrongNumberOfArgsError), LOGIN_REMEDY),
    NoPermissionError: RIGHTS,
    ssl.SSLError: TLS_REMEDY,
    ForeignError: "The server there is no Redis: check the port in LOCATION.",
}
"""Class of an error -> its remedy."""


def classes_of(error: BaseException | None) -> tuple[type[Exception], ...]:
    """Return the classes that programs written for redis-py catch an outage's error by."""
    while error is not None:
        if isinstance(error, RedisTimeoutError):
            return RedisTimeoutError, TimeoutError
        error = error.__cause__
    return (RedisConnectionError,)


def is_broken(error: Exception) -> bool:
    """Tell of an outage's error whether a connection broke; the subclasses say that there was none, or it is no use."""
    return type(error) is RedisConnectionError


def remedy(error: BaseException | None) -> str:
    """Return the remedy against an error, or its cause, by which a server refuses a cache; "" for others."""
    while error is not None:
        text = str(error)
        if found := next((found for words, found in _REMEDIES.items() if words in text), ""):
            return found
        if found := next((found for kind, found in _REMEDIES_OF_KINDS.items() if isinstance(error, kind)), ""):
            return found
        error = error.__cause__
    return ""


def is_forbidden(reply: Any) -> bool:
    """Tell whether the server refuses a command, or a key, to its user."""
    if isinstance(reply, NoPermissionError):
        return True
    return isinstance(reply, ResponseError) and any(words in str(reply) for words in _FORBIDDEN)


def is_of_cluster(error: BaseException | None) -> bool:
    """Tell whether a server refuses what a single one takes, as it has a part of a cluster's slots alone."""
    words = "not allowed in cluster mode"  # to choose a database
    while error is not None:
        if isinstance(error, AskError | ClusterCrossSlotError) or words in str(error):
            return True
        error = error.__cause__
    return False


def checked(reply: Any) -> Any:
    """Return a reply that is no error; raise an outage as it is, another refusal as a StorageError."""
    if isinstance(reply, OUTAGES):
        raise reply
    if isinstance(reply, Exception):
        text = f"MOVED {reply}" if isinstance(reply, MovedError) else str(reply).rstrip(".")
        refusal = f"The Redis server refused a command: {text}. {remedy(reply)}"
        raise StorageError(refusal.strip()) from reply
    return reply


def is_wrong_type(reply: Any) -> bool:
    """Tell whether there is a list or a hash instead of a string: no cache's entry."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")
