"""The bytes of one entry in a server: its expiry, to the microsecond, and its frame.

Memcached's clock has whole seconds, and it is the server's. So each value carries its own expires_at, 8 bytes before
the frame, for its readers; the server is told a later second, to give the memory back.
"""

import math
import time
from struct import Struct
from typing import Final

from storeroom import timeouts
from storeroom.timeouts import AT_ONCE, NEVER

__all__ = ["FOR_EVER", "GONE", "HEADER", "exptime", "packed"]

HEADER: Final = Struct(">d")
"""expires_at: epoch seconds, infinity for never."""

GONE: Final = HEADER.pack(AT_ONCE)
"""An expired entry, which replaces one that is removed only if nobody has changed it meanwhile."""

_RELATIVE_MAX: Final = 60 * 60 * 24 * 30
"""An exptime above this is taken for epoch seconds.

Source: https://github.com/memcached/memcached/blob/master/doc/protocol.txt, "Expiration times".
"""

_LATEST: Final = 2**31 - 1
"""An exptime is a signed number of 32 bits in the server's parser."""

FOR_EVER: Final = 0
"""The exptime of an item that never expires."""


def packed(expires_at: float, frame: bytes) -> bytes:
    """Return the bytes to store."""
    return HEADER.pack(expires_at) + frame


def exptime(expires_at: float) -> int:
    """Return the second, in Memcached's terms, at which the server may drop the entry: never too early.

    The server counts whole seconds, and the one that has begun counts too: hence one more.
    """
    if expires_at == NEVER:
        return FOR_EVER
    seconds = math.ceil(expires_at - timeouts.now()) + 1
    if seconds > _RELATIVE_MAX:
        seconds += int(time.time())
        return seconds if seconds <= _LATEST else FOR_EVER
    return seconds if seconds > 0 else 1
