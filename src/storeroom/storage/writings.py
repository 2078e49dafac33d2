"""One writing of an entry, told by its bytes, where no value may be made of them.

To make a value can run a program's own code, which may use the same cache: never under a lock, nor within a
transaction. There the bytes are compared. Where these are others, they are taken along, and the value is made outside:
if it is the one expected after all, its bytes are known from then on, and the entry is looked at again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from storeroom.exceptions import SerializationError
from storeroom.storage.copies import alike
from storeroom.storage.envelope import Envelope, stamp_of
from storeroom.storage.hooks import ABSENT, MISSING, Swap

__all__ = ["Writing", "swap_all"]


class Writing:
    """The writing of an entry that a change expects.

    Args:
        expected: the value; ABSENT for no entry, MISSING for bytes that cannot be read.
        dumps: makes the bytes of a value, under a storage key.
        storage_key: of the entry.
    """

    __slots__ = ("_expected", "_frames", "_stamp")

    def __init__(self, expected: Any, dumps: Callable[[Any, str], bytes], storage_key: str) -> None:
        self._expected, self._frames = expected, set[bytes]()
        self._stamp = expected.stamp if type(expected) is Envelope else None
        if self._stamp is None and expected is not MISSING and expected is not ABSENT:
            with suppress(SerializationError):  # it can be read, and not be written: then it is compared when read
                self._frames.add(dumps(expected, storage_key))

    def is_in(self, frame: bytes | None) -> bool | None:
        """Tell whether these are its bytes, or the first ones of an envelope's; None if only their value can tell.

        No bytes stand for no entry.
        """
        if frame is None or self._expected is ABSENT:
            return frame is None and self._expected is ABSENT
        if self._stamp is not None:
            return stamp_of(frame) == self._stamp
        return frame in self._frames or None

    def knows(self, frame: bytes, value: Any) -> bool:
        """Tell whether a value that was made of bytes is the one expected, whose bytes these are, then."""
        if is_alike := alike(value, self._expected):
            self._frames.add(frame)
        return is_alike


def swap_all(
    swaps: Mapping[str, Swap], attempt: Callable[[Mapping[str, Writing], dict[str, bytes]], dict[str, bool]],
    dumps: Callable[[Any, str], bytes], loads: Callable[[str, bytes], Any],
) -> dict[str, bool]:  # fmt: skip
    """Make swaps, each by itself; return of each storage key whether it was made.

    Args:
        swaps: by storage key.
        attempt: makes those of some keys, atomically, where the writing is the one that it is given; returns of each
            whether it was made, and notes in its second argument bytes that only their value can tell.
        dumps: makes bytes of a value, under a storage key.
        loads: makes a value of bytes, under a storage key, or MISSING.
    """
    made: dict[str, bool] = {}
    writings = {key: Writing(swap.expected, dumps, key) for key, swap in swaps.items()}
    while writings:
        doubtful: dict[str, bytes] = {}
        made |= attempt(writings, doubtful)
        writings = {
            key: writings[key] for key, frame in doubtful.items() if writings[key].knows(frame, loads(key, frame))
        }
    return made
