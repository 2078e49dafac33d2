"""Bounds on values that anybody may have written, on their depth and on their size.

A few thousand bytes can stand for a value that fills the memory, or that nests so deep that Python's code ends the
process when it is hashed. So bytes that are neither private nor signed are looked at before a value is made of them.
"""

import gc
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from storeroom.exceptions import SerializationError

__all__ = [
    "ALWAYS_EXPANDED", "ALWAYS_HELD", "DEFAULT_MAX_EXPANSION", "MAX_DEPTH", "TOO_DEEP", "Limits", "TooMuchError",
    "require_readable", "require_shallow",
]  # fmt: skip

MAX_DEPTH: Final = 500
"""Containers within containers. Hashing a tuple takes some 150 bytes of stack a level, and small threads have 128 KiB;
Python's own recursion limit is 1000, and MessagePack's 1024."""

DEFAULT_MAX_EXPANSION: Final = 100
"""Rows of a table as a pickle take ten times their bytes in memory, and compress to a tenth of them."""

ALWAYS_HELD: Final = 16 * 2**20
"""Bytes that a value may take in memory whatever its length: no process is short of them."""

ALWAYS_EXPANDED: Final = 3 * 2**20
"""Bytes that a compressed value may expand to whatever its length."""


TOO_DEEP: Final = f"nests more than {MAX_DEPTH} containers within each other"
"""The text of an error."""


class TooMuchError(ValueError):
    """A value nests too deep, or would become too large. The text goes on after "The value"."""


class Limits(NamedTuple):
    """The bounds that follow from OPTIONS["max_expansion"].

    Attributes:
        max_expansion: times its stored length that a value may take in memory.
    """

    max_expansion: int = DEFAULT_MAX_EXPANSION

    def held(self, stored_bytes: int) -> int:
        """Return how many bytes a value of this stored length may take in memory."""
        return max(ALWAYS_HELD, self.max_expansion * stored_bytes)

    def expanded(self, stored_bytes: int) -> int:
        """Return how many bytes a compressed value of this stored length may expand to."""
        return max(ALWAYS_EXPANDED, self.max_expansion * stored_bytes)

    def require_room(self, held_bytes: int, stored_bytes: int) -> None:
        """Raise TooMuchError if a value takes more memory than its stored length gives it a right to."""
        if held_bytes > self.held(stored_bytes):
            raise TooMuchError(
                f"takes some {held_bytes >> 20} MiB of memory, which is more than {self.max_expansion} times the "
                f"{stored_bytes} bytes that are stored, OPTIONS['max_expansion']"
            )


def require_readable(value: object, data: bytes, check: Callable[[bytes, int], int]) -> None:
    """Raise SerializationError for a value that no reader would make, as it is too much for its bytes.

    Args:
        value: the value.
        data: the bytes that were made of it.
        check: raises TooMuchError for bytes; returns the number of containers that it leaves to require_shallow().
    """
    try:
        if unchecked := check(data, len(data)):
            require_shallow(value, unchecked)
    except TooMuchError as error:
        raise SerializationError(
            f"The value {error}. Without a secret, a store that others can write to does not hold it, as its "
            "readers could not tell it from an attack. Set OPTIONS['secret'], or store several smaller values."
        ) from error


_CONTAINERS: Final = frozenset({dict, list, tuple})
_LOOKS: Final = 4  # at each container, on average


def require_shallow(value: object, count: int, *, is_tree: bool = False, kinds: frozenset[type] = _CONTAINERS) -> None:
    """Raise TooMuchError for a value that nests too deep.

    Args:
        value: a container within several others is looked at once for each level.
        count: the number of its containers, about.
        is_tree: whether each container is within one other at most. Then those of a level need not be told apart.
        kinds: the types of its containers.
    """
    looks = _LOOKS * count
    level: list[Any] = [value] if type(value) in kinds else []
    for depth in range(MAX_DEPTH):
        looks -= len(level)
        # The rows of a table are nearly all there are, so that the rest cannot nest deep enough.
        if not level or (depth == 1 and count - len(level) < MAX_DEPTH - 2):
            return
        if looks < 0:
            raise TooMuchError("shares its containers between too many levels")
        level = [one for one in gc.get_referents(*level) if type(one) in kinds]
        if not is_tree:
            level = list(dict(zip(map(id, level), level, strict=True)).values())
    if level:
        raise TooMuchError(TOO_DEEP)
