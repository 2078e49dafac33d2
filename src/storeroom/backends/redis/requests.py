"""What is asked of the servers: commands, and what may be done with them when something goes wrong.

An operation of the cache is a generator that yields requests and is sent the replies
(see operations.py). So each is written once, and run by a synchronous and an
asynchronous engine.
"""

import enum
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from storeroom.backends.redis.location import Server

__all__ = ["PRIMARIES", "Command", "Request", "Steps", "Use", "one"]

T = TypeVar("T")

Command: TypeAlias = tuple[bytes | str | int | float, ...]
"""Name and arguments; the first argument is the key, but for scripts, which have it third."""


class Use(enum.Enum):
    """What a request does."""

    READ = "read"
    """Changes nothing: may go to a replica, and be sent again."""

    FRESH = "fresh"
    """Changes nothing, but a replica that lags behind will not do."""

    WRITE = "write"
    """Changes something, and does no more if it is sent again."""

    ONCE = "once"
    """Would count, move or answer differently the second time: never sent again once it may have arrived."""


@dataclass(frozen=True, slots=True)
class Request:
    """Commands that are sent together, in one round trip.

    Attributes:
        commands: of which each has one reply; an error of the server is a reply too.
        use: see Use.
        at: the server to ask, if it is a certain one.
    """

    commands: Sequence[Command]
    use: Use
    at: Server | None = None


PRIMARIES: Final = Request((), Use.FRESH)
"""Asks for the servers that hold the entries, in place of replies."""

Steps: TypeAlias = Generator[Request, list[Any], T]
"""An operation: yields requests, is sent the replies of each, and returns its result."""


def one(use: Use, *command: bytes | str | float) -> Request:
    """Return the request of a single command."""
    return Request((command,), use)
