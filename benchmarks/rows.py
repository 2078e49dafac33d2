"""The rows of the comparison: which contenders do what, and what Storeroom is to reach there."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final

from benchmarks.goals import Faster, Goal, Steady
from benchmarks.libraries import (
    DISKCACHE,
    DISKCACHE_TRANSACTION,
    DJANGO_FILE,
    DJANGO_MEMORY,
    FILE,
    LMDB,
    MEMORY,
    STOREROOM_FILE,
    STOREROOM_MEMORY,
    Library,
)
from benchmarks.timing import Contender, stored_keys

__all__ = ["GROWTH", "GROWTH_SIZES", "ROWS", "USUAL_SIZE", "Row", "growth_name"]

NESTED: Final = {
    "id": 7,
    "name": "Ada",
    "tags": ["analyst", "poet"],
    "address": {"street": "St James's Square", "number": 12, "city": "London"},
    "scores": [1.5, 2.5, 3.5],
}
"""A value that is neither a string nor a number: what a view or a query makes."""

LARGE: Final = [NESTED | {"id": number, "tags": [f"tag {number}"]} for number in range(1_000)]
"""A value beside which the cost of the cache is small: pickle's own is most of it, in each library."""


@dataclass(frozen=True, slots=True)
class Row:
    """Contenders that do the same, Storeroom first.

    Attributes:
        name: what they do.
        contenders: who does it.
        goals: what Storeroom is to reach; none where the row only informs.
    """

    name: str
    contenders: Sequence[Contender]
    goals: Sequence[Goal] = ()


def _able(libraries: Sequence[Library], operation: str, **situation: object) -> list[Contender]:
    """Return a contender for each library that knows the operation."""
    able = (library for library in libraries if operation in library.statements)
    return [Contender(library, operation, **situation) for library in able]  # type: ignore[arg-type]


# Four times as many keys as there is room for, so that every set of the cycle brings a new one.
_FULL: Final = {"entries": 1_000, "bound": 1_000, "keys": stored_keys(5_000)[1_000:]}

GROWTH_SIZES: Final = (100, 1_000, 10_000, 100_000)
"""Entries in the file cache, to see what size costs."""

DJANGO_LIMIT: Final = 10_000
"""Entries at which Django's file cache, which lists its directory for each set, leaves the growth rows."""

USUAL_SIZE: Final = 1_000
"""Entries at which all file caches are compared."""


def _text(size: int) -> str:
    return "0123456789" * (size // 10)


def _array(size: int) -> "array[float]":
    return array("d", [1.5]) * (size // 8)


_LARGE_VALUES: Final[Sequence[tuple[str, Callable[[int], Any], int]]] = (
    ("100 kB of bytes", Random(1).randbytes, 10**5),
    ("1 MB of bytes", Random(1).randbytes, 10**6),
    ("10 MB of bytes", Random(1).randbytes, 10**7),
    ("100 MB of bytes", Random(1).randbytes, 10**8),
    ("10 MB of text", _text, 10**7),
    ("an array of 10 MB", _array, 10**7),
)
"""Name, and how a value of so many bytes is made."""


def _large(operation: str, name: str, make: Callable[[int], Any], size: int) -> Row:
    """Return the row of one large value, which is set again and again, or read."""
    situation = {"value": partial(make, size), "entries": max(1, min(10, 10**7 // size))}
    contenders = _able([STOREROOM_FILE, DISKCACHE], operation, **situation)
    return Row(f"file {operation} of {name}", contenders, [Faster(1, "diskcache")])


_GROWTH_GOALS: Final = {
    ("get", USUAL_SIZE): (Faster(8, "Django"), Faster(5, "diskcache")),
    ("set", USUAL_SIZE): (Faster(150, "Django"), Faster(8, "diskcache")),
}


def growth_name(operation: str, entries: int) -> str:
    """Return the name of a growth row."""
    return f"file {operation} at {entries:,} entries"


def _growth(operation: str, entries: int) -> Row:
    """Return the row of a get or a set in a file cache of that size."""
    some = (STOREROOM_FILE, DISKCACHE) if entries > DJANGO_LIMIT else (STOREROOM_FILE, DJANGO_FILE, DISKCACHE)
    libraries = FILE if entries == USUAL_SIZE else some
    contenders = _able(libraries, operation, entries=entries)
    return Row(growth_name(operation, entries), contenders, _GROWTH_GOALS.get((operation, entries), ()))


ROWS: Final = (
    Row("locmem get", _able(MEMORY, "get"), [Faster(12, "Django"), Steady(1.5, "cachebox")]),
    Row("locmem set", _able(MEMORY, "set"), [Faster(5, "Django")]),
    Row(
        "locmem set with a timeout",
        _able(MEMORY, "set for a time"),
        [Faster(5, "Django"), Steady(2, "cachebox")],
    ),
    Row(
        "locmem set with a timeout in words",
        [
            Contender(replace(STOREROOM_MEMORY, statements={"set": "cache.set(key, value, '5m')"}), "set"),
            Contender(STOREROOM_MEMORY, "set for a time", label="Storeroom's with a number"),
        ],
        [Steady(1.3, "Storeroom's with a number")],
    ),
    Row(
        "locmem get of a nested dict",
        _able([STOREROOM_MEMORY, DJANGO_MEMORY], "get", value=NESTED),
        [Faster(2.5, "Django")],
    ),
    Row("locmem get of a thousand dicts", _able([STOREROOM_MEMORY, DJANGO_MEMORY], "get", value=LARGE, entries=20)),
    Row("locmem aget", _able(MEMORY, "aget"), [Faster(150, "Django")]),
    Row(
        "locmem get_or_set, warm",
        [
            Contender(STOREROOM_MEMORY, "get_or_set"),
            Contender(STOREROOM_MEMORY, "get", label="Storeroom's get"),
            Contender(DJANGO_MEMORY, "get_or_set"),
        ],
        [Steady(1.05, "Storeroom's get")],
    ),
    Row(
        "locmem get_or_set of a nested dict, warm",
        [
            Contender(STOREROOM_MEMORY, "get_or_set", value=NESTED),
            Contender(STOREROOM_MEMORY, "get", label="Storeroom's get", value=NESTED),
            Contender(DJANGO_MEMORY, "get_or_set", value=NESTED),
        ],
        [Steady(1.05, "Storeroom's get")],
    ),
    Row("locmem get_many of 100", _able(MEMORY, "get_many")),
    Row("locmem set_many of 100", _able(MEMORY, "set_many")),
    Row("locmem delete and add", _able(MEMORY, "add, delete")),
    Row("locmem incr", _able(MEMORY, "incr", value=1)),
    Row("locmem set of a new key when full", _able(MEMORY[:-1], "set", **_FULL), [Steady(3, "cachebox")]),
    _growth("get", USUAL_SIZE),
    _growth("set", USUAL_SIZE),
    Row("file get of a nested dict", _able([STOREROOM_FILE, DJANGO_FILE, DISKCACHE], "get", value=NESTED)),
    Row(
        "file get of a thousand dicts",
        _able([STOREROOM_FILE, DJANGO_FILE, DISKCACHE], "get", value=LARGE, entries=20),
    ),
    Row(
        "file set at 50,000 entries",
        [
            Contender(STOREROOM_FILE, "set", entries=50_000),
            Contender(STOREROOM_FILE, "set", entries=100, label="Storeroom at 100 entries"),
            Contender(DISKCACHE, "set", entries=50_000),
            Contender(LMDB, "set", entries=50_000),
            Contender(LMDB, "set", entries=100, label="LMDB at 100 entries"),
        ],
        [Steady(1.3, "Storeroom at 100 entries", engine=("LMDB", "LMDB at 100 entries"))],
    ),
    *(_large(operation, *value) for value in _LARGE_VALUES for operation in ("get", "set")),
    Row("file get_many of 100", _able(FILE, "get_many"), [Steady(2.5, "LMDB")]),
    Row(
        "file set_many of 100",
        _able([*FILE[:-1], DISKCACHE_TRANSACTION, FILE[-1]], "set_many"),
        [Faster(25, "diskcache"), Steady(2.5, "LMDB")],
    ),
    Row(
        "file get_or_set, warm",
        [
            Contender(STOREROOM_FILE, "get_or_set"),
            Contender(STOREROOM_FILE, "get", label="Storeroom's get"),
            Contender(DJANGO_FILE, "get_or_set"),
        ],
        [Steady(1.05, "Storeroom's get")],
    ),
    Row("file delete and add", _able(FILE, "add, delete")),
    Row("file incr", _able(FILE, "incr", value=1)),
    Row("file aget", _able([STOREROOM_FILE, DJANGO_FILE], "aget")),
    Row(
        "file set of a new key when full",
        [
            *_able([STOREROOM_FILE, DJANGO_FILE], "set", **_FULL),
            Contender(STOREROOM_FILE, "set", bound=1_000, label="Storeroom's overwrite"),
        ],
        [Steady(1.5, "Storeroom's overwrite")],
    ),
)

GROWTH: Final = tuple(
    _growth(operation, entries)
    for operation in ("get", "set")
    for entries in GROWTH_SIZES
    if entries != USUAL_SIZE  # which is among ROWS
)
