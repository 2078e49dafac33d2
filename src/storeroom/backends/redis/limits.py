"""The longest value that a Redis server takes: its setting proto-max-bulk-len, 512 MB unless somebody has changed it.

The server meets a longer one with the end of the connection, which looks like an outage, and takes other callers'
requests along. So it is asked for its limit before the first long value is sent.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from storeroom.backends.redis.requests import Command, Exchange, Request, Use, one
from storeroom.exceptions import ValueTooLargeError

__all__ = ["Limit"]

_SHORT: Final = 2**20
"""The smallest proto-max-bulk-len there can be: shorter values need no question."""

_TOO_LONG: Final = "invalid bulk length"
"""The server's answer, where it can be read before the connection ends."""

_FRESH_SECONDS: Final = 60.0
"""Age at which the limit is asked for again: somebody may have raised it."""


class Limit:
    """The limit of one cache's server, as far as it is known."""

    def __init__(self) -> None:
        self._told: int | None = None
        self._fresh_until = 0.0

    def send(self, commands: Sequence[Command], use: Use, *, may_lack: bool = False) -> Exchange[list[Any]]:
        """Send commands; return their replies: see Request.

        Raises:
            ValueTooLargeError: one has an argument that is too long for the server; perhaps nothing was sent.
        """
        if max([len(word) for command in commands for word in command if type(word) is bytes]) <= _SHORT:
            return (yield Request(commands, use, may_lack=may_lack))
        longest = max(commands, key=_length)
        if time.monotonic() >= self._fresh_until:
            yield from self._ask()
        if self._told is not None and _length(longest) > self._told:
            raise _too_large(longest, f"takes {self._told} bytes at most (proto-max-bulk-len)")
        # The connection may have broken by itself; but a command that counts is not sent twice.
        for _ in range(2 if use is Use.WRITE else 1):
            try:
                replies = yield Request(commands, use, may_lack=may_lack)
            except RedisConnectionError:
                if self._told is not None:
                    raise
                yield one(Use.READ, "PING")  # raises where it is the server that is gone
            else:
                if not any(_TOO_LONG in str(reply) for reply in replies if isinstance(reply, ResponseError)):
                    return replies
        raise _too_large(longest, "closes its connection, and does not tell its proto-max-bulk-len (CONFIG GET)")

    def _ask(self) -> Exchange[None]:
        (reply,) = yield one(Use.FRESH, "CONFIG", "GET", "proto-max-bulk-len")
        match reply:
            case [_, bytes(limit)]:
                self._told = int(limit)
            case _:  # it may not be asked, as often where somebody else runs it
                self._told = None
        self._fresh_until = time.monotonic() + _FRESH_SECONDS


def _length(command: Command) -> int:
    return max(len(argument) for argument in command if isinstance(argument, bytes))


def _too_large(command: Command, limit: str) -> ValueTooLargeError:
    key = command[3 if str(command[0]).startswith("EVAL") else 1]
    name = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
    return ValueTooLargeError(
        f"The value of key {name!r} takes {_length(command)} bytes; the Redis server {limit}. Compress it "
        "(OPTIONS['compressor']), split it, or raise that setting."
    )
