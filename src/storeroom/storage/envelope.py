"""The envelope: a value together with the conditions under which it counts.

Most values are stored bare, and their storage alone says when they expire. One that has tags, or may be served stale,
is stored in an Envelope, as one value. Storages keep it until `fresh_until` plus `grace`; after `fresh_until` it counts
as absent, but for callers that ask for stale values.

An envelope is also a *lease*, while somebody computes a new value: to delete or overwrite the entry meanwhile removes
the lease, and the value computed from older data is not stored.

An envelope is live by its tags' versions, too, which are entries of their own. A storage cannot tell, and so its hooks
answer LOOK (``hooks``), and the framework looks (``conditions``).
"""

import os
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from storeroom import timeouts
from storeroom.timeouts import AT_ONCE, NEVER

__all__ = [
    "FIRST_BYTE", "KIND_BYTES", "LEASED_BYTES", "MAY_BEGIN", "SIGNED", "TAG", "TERMS", "UNREAD", "Envelope",
    "is_leased", "is_over", "is_packed", "is_unread", "new_stamp", "pack", "placeholder", "stamp_of", "terms_of",
    "unpack",
]  # fmt: skip

TERMS: Final = struct.Struct(">QddddH")
TAG: Final = struct.Struct(">QH")
FIRST_BYTE: Final = b"\x1a"
"""The first byte of an envelope's frame."""
SIGNED: Final = b"\x01"
_FRAME_OF_SIGNED: Final = 17  # where the frame within a signed one begins: see serializers.frames
KIND_BYTES: Final = _FRAME_OF_SIGNED + 1
"""Bytes of a frame that is_packed() has to see."""
LEASED_BYTES: Final = KIND_BYTES + TERMS.size
"""Bytes of a frame that is_leased() and is_over() have to see."""

UNREAD: Final = object()
"""The value of an envelope whose terms alone were read. To store it is to change these, and leave the value."""


def new_stamp() -> int:
    """Return 64 random bits."""
    return int.from_bytes(os.urandom(8), "big")


class Envelope:
    """A value and its conditions, not to be changed. Two are equal by their stamp: as one writing of an entry.

    Attributes:
        fresh_until: epoch seconds; from then on the value is stale.
        grace: seconds that it is kept for beyond that.
        cost: seconds that it took to compute; 0 if unknown.
        tags: storage key of a tag's version, and the version that held when this was written.
        leased_until: epoch seconds until which its writer computes a new value; 0 if nobody does.
        stamp: tells this writing from all others.
    """

    __slots__ = ("cost", "fresh_until", "grace", "leased_until", "stamp", "tags", "value")

    def __init__(
        self, value: Any, fresh_until: float, grace: float = 0.0, cost: float = 0.0,
        tags: tuple[tuple[str, int], ...] = (), leased_until: float = 0.0, stamp: int | None = None,
    ) -> None:  # fmt: skip
        self.value, self.fresh_until, self.grace, self.cost, self.tags = value, fresh_until, grace, cost, tags
        self.leased_until, self.stamp = leased_until, new_stamp() if stamp is None else stamp

    @property
    def kept_until(self) -> float:
        """Epoch seconds from which on the storage may forget it."""
        return max(self.fresh_until + self.grace, self.leased_until)

    @property
    def has_value(self) -> bool:
        """Whether there is a value at all, fresh or stale."""
        return self.fresh_until != AT_ONCE

    @property
    def has_conditions(self) -> bool:
        """Whether the value would lose anything if it were stored bare: but for a lease, it would not."""
        return bool(self.tags or self.grace or self.cost)

    @property
    def is_fresh(self) -> bool:
        """Whether its own time is not over; its tags are another matter."""
        return self.fresh_until > timeouts.now()

    def until(self, fresh_until: float) -> "Envelope":
        """Return a new writing of the same value, with another time."""
        return Envelope(self.value, fresh_until, self.grace, self.cost, self.tags)

    def leased(self, until: float) -> "Envelope":
        """Return a new writing of the same value: the lease of the caller that computes its successor."""
        return Envelope(self.value, self.fresh_until, self.grace, self.cost, self.tags, until)

    def renewed(self, until: float) -> "Envelope":
        """Return the same lease with another end. Its stamp stays: its owner finds it, whichever is there by now."""
        return Envelope(self.value, self.fresh_until, self.grace, self.cost, self.tags, until, self.stamp)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Envelope) and other.stamp == self.stamp

    def __hash__(self) -> int:
        return hash(self.stamp)

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.value, self.fresh_until, self.grace, self.cost, self.tags, self.leased_until, self.stamp
        return Envelope, given

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sys.getsizeof(self.value)

    def __repr__(self) -> str:
        return f"<Envelope {self.stamp:016x}, fresh until {self.fresh_until}, {len(self.tags)} tags>"


def placeholder(until: float, holder: str | None = None) -> Envelope:
    """Return an envelope without a value: the lease of the caller that computes the first one.

    In the value's position is the name of the process that holds it, for people to read.
    """
    return Envelope(holder, AT_ONCE, leased_until=until)


def is_unread(value: Any) -> bool:
    """Tell whether this is an envelope whose terms alone were read."""
    return type(value) is Envelope and value.value is UNREAD


MAY_BEGIN: Final = frozenset({FIRST_BYTE[0], SIGNED[0]})
"""First bytes of frames that is_packed() may be true of."""


def is_packed(data: bytes) -> bool:
    """Tell whether stored bytes are those of an envelope, signed or not; without verifying them."""
    start = _FRAME_OF_SIGNED if data[:1] == SIGNED else 0
    return data[start : start + 1] == FIRST_BYTE


def is_leased(data: bytes, now: float) -> bool:
    """Tell whether stored bytes are those of an envelope whose successor is computed; without verifying them."""
    return len(head := _head(data)) > 0 and head[4] > now


def is_over(data: bytes, now: float) -> bool:
    """Tell whether stored bytes are those of an envelope that counts as absent: stale, or a lease without a value."""
    return len(head := _head(data)) > 0 and not head[1] > now


def stamp_of(data: bytes) -> int | None:
    """Return the stamp of an envelope, by its first LEASED_BYTES, without verifying them; None for other bytes."""
    head = _head(data)
    return head[0] if head else None


def _head(data: bytes) -> tuple[Any, ...]:
    """Return the numbers at the beginning of an envelope; none if these bytes are no envelope's."""
    start = _FRAME_OF_SIGNED if data[:1] == SIGNED else 0
    if data[start : start + 1] != FIRST_BYTE or len(data) < start + 1 + TERMS.size:
        return ()
    return TERMS.unpack_from(data, start + 1)


def pack(envelope: Envelope, frame: bytes) -> bytes:
    """Return the frame of an envelope, around the frame of its value."""
    times = envelope.fresh_until, envelope.grace, envelope.cost, envelope.leased_until
    head = TERMS.pack(envelope.stamp, *times, len(envelope.tags))
    parts = [FIRST_BYTE, head]
    for key, version in envelope.tags:
        name = key.encode("utf-8", "surrogatepass")
        parts += (TAG.pack(version, len(name)), name)
    return b"".join((*parts, frame))


def unpack(frame: bytes, loads: Callable[[bytes], Any]) -> Envelope:
    """Return the envelope of a frame, within which `loads` reads; raise ValueError or struct.error if it is damaged."""
    envelope, start = _unpack_terms(frame)
    inner = frame[start:]
    if inner[:1] == frame[:1]:
        raise ValueError("an envelope within an envelope")
    envelope.value = loads(inner)
    return envelope


def terms_of(frame: bytes | memoryview) -> tuple[Envelope, int] | None:
    """Return an envelope without its value, and where that begins in the frame, of which a beginning will do.

    None if the frame is no envelope's, or signed, which is to be verified as a whole, or ends before the value begins.
    """
    try:
        return _unpack_terms(frame) if frame[:1] == FIRST_BYTE else None
    except (ValueError, struct.error):
        return None


def _unpack_terms(frame: bytes | memoryview) -> tuple[Envelope, int]:
    stamp, fresh_until, grace, cost, leased_until, count = TERMS.unpack_from(frame, 1)
    if not (grace >= 0 and cost >= 0 and fresh_until <= NEVER and leased_until >= 0):  # NaN compares as false
        raise ValueError("an envelope whose times mean nothing")
    position = 1 + TERMS.size
    tags = []
    for _ in range(count):
        version, length = TAG.unpack_from(frame, position)
        position += TAG.size + length
        tags.append((str(frame[position - length : position], "utf-8", "surrogatepass"), version))
    if position > len(frame):
        raise ValueError("an envelope that ends within its tags")
    return Envelope(UNREAD, fresh_until, grace, cost, tuple(tags), leased_until, stamp), position
