"""The compiled reads of entries that have tags, and of tiers, do as those in Python."""

import gc
import inspect
import random
import sys
from typing import Any

import pytest

from storeroom import timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.locmem.values import Enveloped
from storeroom.backends.tiered import TieredCache
from storeroom.keys import TAG_PREFIX
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own
from tests.handles import InPython, without_contexts
from tests.unit.test_hot_path import Key, compiled, done, left_by


class TiersInPython(TieredCache):
    """Tiers without their compiled method."""

    get = inspect.unwrap(vars(TieredCache)["get"])


def tiers(kind: type[TieredCache] = TieredCache, bound: int = 100) -> TieredCache:
    """Return memory before a storage that has its name by the class."""
    memory, storage = {"BACKEND": LocMemCache, "OPTIONS": {"max_entries": 5}}, {"BACKEND": LocMemCache}
    return kind("", {"OPTIONS": {"tiers": [memory, {**storage, "LOCATION": kind.__name__}], "max_staleness": bound}})


def failing() -> Any:
    raise LookupError("a computation")


#: The first three of each are ordinary ones, of which half of the calls are made.
KEYS = ["a", "b", "c", "d", "é", 7, Key("a")]
VALUES = ["text", 1, None, [1, 2], {"a": 1}, (1, "b"), lambda: "computed", failing]
TAGS = [["t"], ["t", "u"], [], ["t", "u", "é"], [str(number) for number in range(9)], [7]]
OPTIONS = [
    {},
    {},
    {},
    {"early": 0},
    {"early": 1},
    {"stale_if_error": 5},
    {"early": -1},
    {"version": None},
    {"version": 2},
    {"wrong": 1},
]


def drawn(chance: random.Random) -> tuple[str, list[Any], dict[str, Any]]:
    """Return a call of any of the operations that read and change entries with tags, and the tags."""
    few = 3 if chance.random() < 0.5 else None
    key, value, tags = (chance.choice(each[:few]) for each in (KEYS, VALUES, TAGS))
    timeout = chance.choice([300, 2, None, 1000, "5m", 0])
    names = {"tags": tags} | chance.choice(OPTIONS[:few])
    calls: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("get", [key], {}),
        ("get", [key, "default"], {}),
        ("aget", [key, "default"], {}),
        ("get_or_set", [key, value, timeout], names),
        ("get_or_set", [key, value, timeout, None], names),
        ("get_or_set", [key, value], {"timeout": timeout, **names}),
        ("aget_or_set", [key, value], {"timeout": timeout, **names}),
        ("set", [key, 1 if callable(value) else value, timeout], {"tags": tags}),
        ("set", [key, "bare", timeout], {}),
        ("invalidate_tags", tags[:1], {}),
        ("delete", [key], {}),
        ("touch", [key, 2], {}),
        ("clear", [], {}),
    ]
    return chance.choices(calls, [3, 3, 3, 3, 1, 3, 3, 4, 1, 1, 1, 1, 0.1])[0]


def odd(cache: Any, which: float) -> None:
    """Change what is kept of an entry, or of the first tag, as other code does, or none."""
    now, versions = timeouts.now(), cache._tags.entries
    tag = next(iter(versions), None)
    if which < 0.02 and tag is not None:
        cache._delete_many([tag])
    elif which < 0.04 and tag is not None:
        cache._set(tag, ["no version", "0" * 16 + " ", "é" * 20, 7][int(which * 1e6) % 4], now + 300)
    elif which < 0.06 and tag is not None:
        versions[tag].expires_at = now + 1.0
    elif which < 0.08:
        cache._set(":1:a", Envelope("leased", now + 50, leased_until=now + 9), now + 50)
    elif which < 0.1:
        for version in (-1, 2**64, True, 0):
            cache._set(":1:b", Envelope("odd", now + 50, tags=((f"{TAG_PREFIX}:0:t", version),)), now + 50)
    elif which < 0.12:
        cache._set(":1:c", Envelope([1], now + 1, grace=50.0, cost=1e-9), now + 51)
    elif which < 0.14 and (entry := cache._bounded.entries.get(":1:a")) is not None and entry.encoded is not None:
        entry.encoded = Enveloped(b"no pickle")


ALIASES: list[dict[str, Any]] = [
    {},
    {"OPTIONS": {"copy": False}},
    {"OPTIONS": {"max_tags": 2, "max_entries": 3}},
    {"OPTIONS": {"early": 1e-9, "stale_if_error": 50}},
    {"KEY_PREFIX": "p", "OPTIONS": {"max_bytes": 3_000}},
]


@pytest.mark.parametrize("params", ALIASES, ids=range(len(ALIASES)))
def test_entries_with_tags_are_read_as_in_python(params, monkeypatch):
    """Results, errors, entries and tags with their ranks, counts and drawn numbers are the same after each call."""
    chance = random.Random(ALIASES.index(params))
    monkeypatch.setattr("storeroom.storage.tags.new_stamp", lambda: random.getrandbits(64))
    with engines_of_its_own(), FakeClock() as clock:
        one, other = (kind(kind.__name__, params) for kind in (LocMemCache, InPython))
        for _ in range(600):
            name, positional, named = drawn(chance)
            seed, which = chance.random(), chance.random()
            states = []
            for cache in (other, one):
                random.seed(seed)
                odd(cache, which)
                answer = done(cache, name, positional, named)
                versions = [(key, it.value, it.expires_at, it.freq) for key, it in cache._tags.entries.items()]
                states.append((answer, left_by(cache), versions, random.getstate()))
            assert states[1] == states[0], (name, positional, named)
            clock.advance(chance.choice([0, 0, 0.5, 1, 0, 0.5, 200 if chance.random() < 0.1 else 0]))


def test_tiers_are_read_as_in_python():
    """Results, errors, near entries with their ranks, and all counts are the same after each call of any kind."""
    chance = random.Random(0)
    with engines_of_its_own(), FakeClock() as clock:
        caches = [tiers(kind) for kind in (TiersInPython, TieredCache)]
        for _ in range(2000):
            name, positional, named = drawn(chance)
            if chance.random() < 0.85:
                name, named = "get", {}
                positional = [*positional[:1], *[None, *TAGS][: chance.choice([0, 0, 1, 2])]] or ["a"]
            elif chance.random() < 0.7:
                named.pop("tags", None)
            is_odd = chance.random()
            states = []
            for cache in caches:
                near = cache._near
                if is_odd < 0.02 and (kept := near.entries.get(":1:a")) is not None and kept.encoded is not None:
                    kept.encoded = b"no pickle"
                elif is_odd < 0.025:
                    near.begin_tracking(timeouts.uptime() - 99)  # believed for another second
                elif is_odd < 0.05:
                    near.end_tracking()
                answer = done(cache, name, positional, named)
                kept = [(key, it.value, it.freq, it.expires_at) for key, it in near.entries.items()]
                records = (near.counters, near.totals, near.far)
                counts = [each.raw() | {"compute_seconds": 0, "families": {}} for each in records]
                states.append((answer, kept, counts, near.direct_hits))
            assert states[1] == states[0], (name, positional, named)
            clock.advance(chance.choice([0, 0, 0.5, 40 if chance.random() < 0.1 else 0]))
        assert caches[1]._near.direct_hits > 100


def calls_of(call: Any) -> int:
    """Return the number of frames of Python that a call enters beside its own."""
    entered: list[Any] = []
    gc.disable()  # which may run finalizers
    sys.setprofile(lambda frame, event, _: entered.append(frame.f_code) if event == "call" else None)
    try:
        call()
    finally:
        sys.setprofile(None)
        gc.enable()
    return len(entered) - 1


@compiled
@pytest.mark.parametrize("tags", [[], ["t"], ["t", "u", "v"]], ids=len)
def test_an_ordinary_hit_enters_no_frame_of_python(tags):
    """That holds of entries with tags too, and of what the nearest tier has, by the system's own clocks."""
    with engines_of_its_own(), without_contexts():
        cache, tiered = LocMemCache("hot", {}), tiers()
        cache.set("key", "value", tags=tags)
        cache.set("bare", "value")
        tiered.set_many({"key": "value", "pickled": [1]})
        tiered.get_many(["key", "pickled"])
        assert calls_of(lambda: cache.get("key")) == 0
        assert calls_of(lambda: cache.get("key", "default")) == 0
        assert calls_of(lambda: cache.get_or_set("key", "new", 300, tags=tags)) == 0
        assert calls_of(lambda: cache.get_or_set("key", "new", timeout=300, version=None)) == 0
        assert calls_of(lambda: cache.get_or_set("bare", "new", early=0)) == 0
        assert calls_of(lambda: tiered.get("key")) == calls_of(lambda: tiered.get("pickled", 1)) == 0
        tiered._lay(None)
        assert calls_of(lambda: tiered.get("key")) > 0


#: The text of a tag's entry, and the version that an envelope remembers, -> whether that is the one.
VERSIONS: list[tuple[object, object, bool]] = [
    (f"{0:016x} 1.0", 0, True),
    (f"{2**64 - 1:016x} inf", 2**64 - 1, True),
    (f"{2**63 + 10:016x} inf", 2**63 + 10, True),
    (f"{1:016x} 1.0", True, True),
    (f"{2**64:016x} 1.0", 2**64, True),
    (f"{-1:016x} 1.0", -1, True),
    (f"{0:016x} é", 0, True),
    (f"{1:016x} 1.0", 0, False),
    (f"{2**63:016x} 1.0", 0, False),
    (f"{10:016X} 1.0", 10, False),
    (f"{0:016x}", 0, False),
    (f"{0:016x}x1.0", 0, False),
    (f"{0:015x} 1.0", 0, False),
    (Key(f"{0:016x} 1.0"), 0, False),
    (f"{0:016x} 1.0".encode(), 0, False),
]


@pytest.mark.parametrize(("found", "version", "is_written"), VERSIONS, ids=range(len(VERSIONS)))
@pytest.mark.parametrize("kind", [LocMemCache, InPython])
def test_a_version_is_told_by_its_text(kind, found, version, is_written):
    """All 64 bits and the blank behind them count; the tag before it is told of one hit, whatever its own."""
    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        cache.set("key", "value", tags=["first", "second"])
        (first, stamp), (second, _) = cache._bounded.entries[":1:key"].encoded.tags
        cache._bounded.entries[":1:key"].encoded.tags = ((first, stamp), (second, version))
        cache._tags.entries[second].value = found
        assert cache.get("key") == ("value" if is_written else None)
        assert (cache._tags.entries[first].freq, cache._tags.entries[second].freq) == (1, int(is_written))
        assert cache.get_or_set("key", "new") == ("value" if is_written else "new")


@pytest.mark.parametrize("kind", [LocMemCache, InPython])
def test_a_lease_is_looked_after(kind, monkeypatch):
    """Somebody who reads an entry whose value is computed anew sees whether its flight is in vain."""
    looks: list[str] = []
    monkeypatch.setattr("storeroom.engines.flights.Flights.look_after", lambda _, key: looks.append(key))
    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        cache.set("key", "value", tags=["t"])
        cache._bounded.entries[":1:key"].encoded.leased_until = timeouts.now() + 50
        assert (cache.get_or_set("key", "new"), looks) == ("value", [":1:key"])


@pytest.mark.parametrize("kind", [TieredCache, TiersInPython])
def test_the_nearest_tier_is_believed_for_as_long_as_it_may_be(kind):
    """After that the storage is asked."""
    with engines_of_its_own(), FakeClock() as clock:
        cache = tiers(kind, 10)
        cache.set("key", 1)
        assert cache.get("key") == 1
        cache._storage.set("key", 2)
        clock.advance(9)
        assert [cache.get("key"), cache._near.direct_hits] == [1, 1]
        clock.advance(1)
        assert [cache.get("key"), cache._near.direct_hits] == [2, 1]


@pytest.mark.parametrize("kind", [LocMemCache, InPython])
def test_more_tags_than_a_dict_holds_are_read(kind):
    """Versions in shards are found, and a changed one is a miss."""
    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        cache.set("key", "value", tags=["t", "u"])
        cache._tags._in_shards()
        assert (cache.get("key"), cache.get_or_set("key", "new", tags=["t"])) == ("value", "value")
        assert [it.freq for it in map(cache._tags.entries.get, cache._tags.entries)] == [2, 2]
        cache.invalidate_tags("u")
        assert cache.get("key") is None
        assert cache.get_or_set("key", "new", tags=["t"]) == "new"


def test_a_value_may_be_whatever_marks_one_that_is_absent():
    """It is no miss where the object itself is kept."""
    with engines_of_its_own():
        for kind in (LocMemCache, InPython):
            cache = kind(kind.__name__, {"OPTIONS": {"copy": False}})
            cache.set("key", MISSING)
            cache.set("tagged", MISSING, tags=["t"])
            assert [cache.get("key", 1), cache.get("tagged", 1), cache.stats().hits] == [MISSING, 1, 1]
