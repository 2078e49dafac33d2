"""The compiled insert does as the one in Python, which takes over where a new key is not ordinary.

Where none is built, the tests compare the method in Python with itself.
"""

import gc
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.eviction import ENCODED, BoundedMap, Pinned, bounded_map
from storeroom.testing.isolation import engines_of_its_own
from tests.compiled import where_built
from tests.handles import MapInPython
from tests.unit.bounded_map.looks import contents_of, numbers_of
from tests.unit.bounded_map.maps import put

built = where_built(bounded_map.ordinary_insert is not None)


class Number:
    """A value that is not harmless, told from others by its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.number == other.number

    def __hash__(self) -> int:
        return self.number


#: A pattern -> the key of a step.
PATTERNS: dict[str, Any] = {
    "new keys": lambda chance, step, size: step,
    "a loop": lambda chance, step, size: step % (size + size // 4 + 1),
    "popular keys": lambda chance, step, size: int(size * chance.paretovariate(0.9) / 4),
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


#: Numbers of the share between 0 and 1.
LESSONS = ("small_used", "main_used", "refilled", "lost")


class Traffic:
    """Two maps that are used alike: one with the compiled insert, and one without."""

    def __init__(self, pattern: str, size: int) -> None:
        self.chance = random.Random(f"{pattern} {size}")
        self.maps = BoundedMap(size), MapInPython(size)
        self.key_of, self.size, self.values, self.now = PATTERNS[pattern], size, values(self.chance), 1_000.0

    def step(self, number: int) -> None:
        """Ask for a key, and store it if it is not there; delete another one now and then, or move the bound."""
        self.now += 600 / self.size * self.chance.random()
        key, value, draw = f"key {self.key_of(self.chance, number, self.size)}", next(self.values), self.chance.random()
        other = f"key {self.key_of(random.Random(number), number, self.size)}"
        lessons = [self.chance.random() for _ in LESSONS] if self.chance.random() < 0.03 else []
        for bounded in self.maps:
            share = bounded._policy.share
            for name, lesson in zip(LESSONS, lessons, strict=False):  # as other traffic would have taught
                setattr(share, name, lesson)
            if lessons:
                share.silence, share.soon = 2 * share.capacity * lessons[0], share.capacity * lessons[2]
                share.aim(share.capacity * lessons[1])
            self.ask(bounded, key, value, draw)
            if draw > 0.98:
                bounded.delete(other)
            if draw > 0.997:
                bounded.let_go()
            if draw > 0.999:
                bounded.max_entries = self.size + number % 2

    def ask(self, bounded: BoundedMap, key: str, value: tuple[Any, ...], draw: float) -> None:
        *kept, lifetime, size = value
        entry = bounded.entries.get(key)
        if entry is None:
            if draw < 0.3:
                bounded.miss(key)
            bounded.insert(key, *kept, self.now + lifetime, size, self.now)
        elif entry.expires_at <= self.now or draw < 0.05:
            bounded.replace(entry, *kept, self.now + lifetime, size, self.now)
        else:
            entry.freq = min(entry.freq + 1, 2)


@pytest.mark.parametrize("size", [1, 3, 40, 300])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_does_as_the_insert_in_python(pattern, size, monkeypatch):
    """After each step of a long history the entries, their order, the ghosts, the share and all counts are the same."""
    answers: list[bool] = []

    def counted(*terms: Any) -> bool:
        answers.append(insert(*terms))
        return answers[-1]

    if (insert := bounded_map.ordinary_insert) is not None:
        monkeypatch.setattr(bounded_map, "ordinary_insert", counted)
    traffic = Traffic(pattern, size)
    compiled, in_python = traffic.maps
    for number in range(2_000):
        traffic.step(number)
        assert numbers_of(compiled) == numbers_of(in_python), number
        if number % max(1, size // 10) == 0:
            assert contents_of(compiled) == contents_of(in_python), number
    compiled.check_invariants()
    assert size < 40 or sum(answers) >= len(answers) / 10  # of which the map in Python has half


@built
@pytest.mark.parametrize("capacity", [3, 200])
def test_a_map_that_memory_was_short_for_is_mended(capacity):
    """Whatever could not be made in an insert, the key is there or not, and the next change mends the map."""
    nomemory = pytest.importorskip("_testcapi")
    bounded = BoundedMap(capacity)
    for number in range(3 * capacity):
        put(bounded, f"key {number}", number, expires_at=9e9 - number % 2, size=0)
    failed = 0
    for at in range(40 * 25):
        key, terms = f"new {at}", (at, None, 9e9 + at, 0, 0.0)
        nomemory.set_nomemory(at % 40, at % 40 + 1)
        try:
            bounded.insert(key, *terms)
        except MemoryError:
            failed += 1
        finally:
            nomemory.remove_mem_hooks()
        kept = bounded.entries.get(key)
        assert kept is None or (kept.key, kept.value, kept.expires_at) == (key, at, 9e9 + at)
        bounded.check_invariants()
        assert len(bounded) <= capacity
    assert failed > 25


@built
def test_a_finalizer_that_runs_in_the_midst_does_not_change_the_map():
    """The collector may run where an entry is made: who uses the cache then is told that a change is under way."""
    with engines_of_its_own():
        cache = LocMemCache("finalizers", {"OPTIONS": {"max_entries": 20}})
        threshold = gc.get_threshold()
        try:
            gc.set_threshold(1)
            for number in range(300):
                cycle: Any = Using(cache, number)
                cycle.itself = cycle
                del cycle
                cache.set(f"key {number}", number)
                assert cache.get(f"key {number}") in {number, None}  # others may have been written since
                cache._check_invariants()
        finally:
            gc.set_threshold(*threshold)
        assert cache.count() == 20


class Using:
    """Uses a cache when it is freed."""

    def __init__(self, cache: LocMemCache, number: int) -> None:
        self.cache, self.number = cache, number

    def __del__(self) -> None:
        self.cache.set(f"own {self.number}", self.number)
