"""The keys of all servers, in small steps."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from storeroom.backends.redis.location import Server
from storeroom.backends.redis.requests import OUTAGES, PRIMARIES, Exchange, Request, Use, checked

__all__ = ["each_batch"]

Work = Callable[[Sequence[bytes]], Exchange[int]]

_SCAN_COUNT: Final = 1000
"""Keys that one SCAN looks at: a millisecond of the server's time at most."""

_ROUNDS: Final = 5
"""Times that servers are asked at most for the keys that have moved between them meanwhile."""


def each_batch(pattern: bytes, work: Work, step: int | None) -> Exchange[int]:
    """Do some work on each batch of keys that match; return the sum of its results.

    Servers that have another part of the keys at the end than at the beginning are asked again.

    Raises:
        redis.exceptions.RedisError: a server could not be asked; the others were.
    """
    total, done, failure = 0, set[Any](), None
    for _ in range(_ROUNDS):
        left = [part for part in (yield PRIMARIES) if part not in done]
        for server, _slots in left:
            try:
                total += yield from _each_at(server, pattern, work, step)
            except OUTAGES as error:
                failure = failure or error
        done.update(left)
        if not left:
            break
    if failure is not None:
        raise failure
    return total


def _each_at(server: Server, pattern: bytes, work: Work, step: int | None) -> Exchange[int]:
    total, cursor = 0, b""
    while cursor != b"0":
        command = ("SCAN", cursor or b"0", "MATCH", pattern, "COUNT", step or _SCAN_COUNT)
        (reply,) = yield Request((command,), Use.FRESH, at=server)
        cursor, keys = checked(reply)
        total += yield from work(keys)
    return total
