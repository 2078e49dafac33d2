"""The compiled insert does as the one in Python, which takes over where a new key is not ordinary.

Where none is built, the tests compare the method in Python with itself.
"""

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from storeroom.eviction import ENCODED, BoundedMap, Pinned, bounded_map
from tests.handles import MapInPython


class Number:
    """A value that is not harmless, told from others by its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.number == other.number

    __hash__ = None  # type: ignore[assignment]


ENTRY = ("key", "value", "encoded", "expires_at", "size", "freq", "queue")
POLICY = ("_small", "_proven", "_filling", "_passing")
SHARE = (
    *("_least", "_step", "capacity", "lost", "main_used", "rate", "refilled", "run", "silence", "small_used", "soon"),
    *("target", "window"),
)
INDEX = ("due", "_last", "_room", "_pushed", "_heaps", "_queues")
MAP = ("evictions", "expirations", "bytes_used", "_is_torn", "_doomed", "_visible")
GHOSTS = ("_evicted", "_known", "_room", "recent", "previous")


def read(owner: Any, names: tuple[str, ...]) -> list[Any]:
    """Return attributes: numbers with their types, floats to the last bit."""
    return [repr(value) if type(value) in {int, float} else value for value in (getattr(owner, name) for name in names)]


def numbers_of(bounded: BoundedMap) -> Any:
    """Return the keys of a map in their order, its counts, the share's numbers, and those of the index."""
    policy = bounded._policy
    counts = read(bounded, MAP), read(policy, POLICY), read(policy.share, SHARE), read(bounded.index, INDEX[:4])
    return list(bounded.entries), counts, len(bounded.dropped)


def contents_of(bounded: BoundedMap) -> Any:
    """Return all else: the entries, in the order of the queues and of the index, and the ghosts."""
    queues = [[(entry.key, entry.queue) for entry in queue] for queue in bounded._policy.queues]
    index = [[(when, entry.key, repr(entry.indexed)) for when, entry in zip(*it, strict=True)] for it in bounded.index._queues]
    heaps = [[(when, number, entry.key) for when, number, entry in heap] for heap in bounded.index._heaps]
    entries = [(*read(entry, ENTRY), repr(entry.indexed)) for entry in bounded.entries.values()]
    return entries, queues, index, heaps, read(bounded._policy.ghosts, GHOSTS), list(bounded.dropped)


def popular(chance: random.Random, size: int) -> int:
    return int(size * chance.paretovariate(0.9) / 4)


#: A pattern -> the key of a step.
PATTERNS: dict[str, Any] = {
    "new keys": lambda chance, step, size: step,
    "a loop": lambda chance, step, size: step % (size + size // 4 + 1),
    "popular keys": lambda chance, step, size: popular(chance, size),
    "any keys": lambda chance, step, size: chance.randrange(3 * size),
    "popularity that changes": lambda chance, step, size: int(size * (step // (5 * size) + abs(chance.gauss(0, 0.7)))),
    "sessions": lambda chance, step, size: step - int(chance.expovariate(4 / size)),
}


def values(chance: random.Random) -> Iterator[tuple[Any, ...]]:
    """Yield values with their bytes, lifetimes, and sizes, of which most are ordinary."""
    kinds = [("text", None)] * 30 + [(ENCODED, b"bytes")] * 10 + [(ENCODED, Pinned(b"bytes"))]
    for number in range(10**9):
        value, encoded = chance.choice([*kinds, (Number(number), None)])
        lifetime = chance.choice([300.0] * 20 + [math.inf] * 4 + [float(chance.randrange(1, 500))])
        yield value, encoded, lifetime, chance.choice([0] * 9 + [7])


@pytest.mark.parametrize("size", [1, 3, 40, 300])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_does_as_the_insert_in_python(pattern, size, monkeypatch):
    """After each step of a long history, the entries, their order, the ghosts, the share and all counts are the same."""
    answers = []
    if (insert := bounded_map.ordinary_insert) is not None:
        monkeypatch.setattr(bounded_map, "ordinary_insert", lambda *terms: answers.append(insert(*terms)) or answers[-1])
    chance = random.Random(f"{pattern} {size}")
    maps, drawn, now = (BoundedMap(size), MapInPython(size)), values(chance), 1_000.0
    for step in range(4_000):
        now += 600 / size * chance.random()
        key, other = f"key {PATTERNS[pattern](chance, step, size)}", chance.random()
        value, encoded, lifetime, length = next(drawn)
        for bounded in maps:
            entry = bounded.entries.get(key)
            if entry is None:
                if other < 0.3:
                    bounded.miss(key)
                bounded.insert(key, value, encoded, now + lifetime, length, now)
            elif entry.expires_at <= now or other < 0.05:
                bounded.replace(entry, value, encoded, now + lifetime, length, now)
            else:
                entry.freq = min(entry.freq + 1, 2)
            if other > 0.98:
                bounded.delete(f"key {PATTERNS[pattern](random.Random(step), step, size)}")
            if other > 0.999:
                bounded.max_entries = size + step % 2
            if other > 0.997:
                bounded.let_go()
        assert numbers_of(maps[0]) == numbers_of(maps[1]), step
        if step % max(1, size // 10) == 0:
            assert contents_of(maps[0]) == contents_of(maps[1]), step
    maps[0].check_invariants()
    assert size < 40 or sum(answers) >= len(answers) / 10  # of which the map in Python has half
