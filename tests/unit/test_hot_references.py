"""The compiled methods of local memory lose no object and no reference, whichever way a call takes through them."""

import weakref
from datetime import timedelta
from typing import Any

import pytest

from storeroom import cached, timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.tiered import TieredCache
from storeroom.keys import TAG_PREFIX
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.testing.isolation import engines_of_its_own
from tests.compiled import ENOUGH, left_behind
from tests.handles import InPython
from tests.unit.test_hot_path import ashown, done, shown


@pytest.fixture
def cache():
    """A cache that no other test knows."""
    with engines_of_its_own():
        yield LocMemCache("hot", {})


class Plain:
    """A value that is pickled."""


FUNCTIONS: Any = weakref.WeakKeyDictionary()

TIERS: Any = weakref.WeakKeyDictionary()


def tiered_before(cache: Any) -> TieredCache:
    """Return tiers whose storage is the cache's."""
    if cache not in TIERS:
        tiers = [{"BACKEND": LocMemCache}, {"BACKEND": LocMemCache, "LOCATION": "hot"}]
        TIERS[cache] = TieredCache("", {"OPTIONS": {"tiers": tiers, "max_staleness": 100}})
        TIERS[cache].get_many(["bare", "pickled", "t+p", "tagged"])
    return TIERS[cache]


def break_near(tiered: Any) -> None:
    """Let the pickle that is near be none."""
    tiered._near.entries[":1:pickled"].encoded = b"no pickle"


def small(cache: Any) -> Any:
    """Return a small cache that is used beside this one."""
    return FUNCTIONS.setdefault(cache, LocMemCache("small", {"OPTIONS": {"max_entries": 10}}))


#: A way through the methods -> a call that takes it.
WAYS = {
    "a text": lambda cache, key, value: cache.get(key),
    "a new key": lambda cache, key, value: cache.get(f"{key}"),
    "a default": lambda cache, key, value: cache.get(key, default=value),
    "by Python": lambda cache, key, value: cache.get(key, version=1),
    "a pickle": lambda cache, key, value: cache.get("pickled"),
    "a pickle of get_or_set()": lambda cache, key, value: cache.get_or_set("pickled", value, timeout=5),
    "a miss": lambda cache, key, value: cache.get("absent", value),
    "a wrong argument": lambda cache, key, value: done(cache, "get", [key], {"wrong": value}),
    "an unreadable pickle": lambda cache, key, value: cache.get("broken", value),
    "get_or_set()": lambda cache, key, value: cache.get_or_set(key, value, timeout=5),
    "set()": lambda cache, key, value: cache.set(key, value, 300),
    "set() with a default": lambda cache, key, value: cache.set(key, value),
    "set() by name": lambda cache, key, value: cache.set(key, value, timeout=300),
    "set() in words": lambda cache, key, value: cache.set(key, value, "5m"),
    "set() by Python": lambda cache, key, value: cache.set(key, value, timedelta(minutes=5)),
    "set() over a pickle": lambda cache, key, value: [cache.set(key, [value]), cache.set(key, value)],
    "new keys when full": lambda cache, key, value: [small(cache).set(f"{key}{each}", value) for each in range(15)],
    "new keys out of order": lambda cache, key, value: [
        small(cache).set(f"{key}{each}", value, 300 - each) for each in range(15)
    ],
    "new keys with pickles": lambda cache, key, value: [
        small(cache).set(f"{key}{each}", [value]) for each in range(15)
    ],
    "another handle": lambda cache, key, value: LocMemCache.get(InPython("hot", {}), key),
    "no handle": lambda cache, key, value: done(LocMemCache, "get", [value, key], {}),
    "a call of a cached function": lambda cache, key, value: [
        FUNCTIONS.setdefault(cache, cached(cache=cache)(shown))(key, value),
        FUNCTIONS[cache](key, True),
    ],
    "a call by one argument": lambda cache, key, value: FUNCTIONS.setdefault(cache, cached(cache=cache)(shown))(key),
    "a call that misses": lambda cache, key, value: [
        it := FUNCTIONS.setdefault(cache, cached(cache=cache, timeout=0)(shown)),
        it(key),
        it(key, value),
    ],
    "a call of another version": lambda cache, key, value: [
        it := FUNCTIONS.setdefault(cache, cached(cache=cache)(shown)),
        *(setattr(cache, "version", each) or it(key, value) for each in (2, 1)),
    ],
    "a call of a new function": lambda cache, key, value: [it := cached(cache=cache)(shown), it(key), it(key), it(key)],
    "a call of a cached coroutine function": lambda cache, key, value: [
        it := FUNCTIONS.setdefault(cache, cached(cache=cache)(ashown)),
        *(done(it, "__call__", args, {}) for args in ((key, value), (key,), (key, True))),
        it(key, value).close(),
        [waiting := it(key), waiting.cr_frame.f_code, waiting.close()],
    ],
    "a call that is wrong": lambda cache, key, value: [
        it := FUNCTIONS.setdefault(cache, cached(cache=cache)(ashown)),
        done(it, "__call__", (key, value, key), {}),
    ],
    "aget()": lambda cache, key, value: done(cache, "aget", [key, value], {}),
    "aget() of nothing": lambda cache, key, value: done(cache, "aget", ["absent", value], {}),
    "aget_or_set()": lambda cache, key, value: done(cache, "aget_or_set", [key, value], {"timeout": 5}),
    "an aget() not awaited": lambda cache, key, value: cache.aget(key, value).close(),
    "the frame of an aget()": lambda cache, key, value: [it := cache.aget(key), it.cr_frame.f_code, it.close()],
    "tags": lambda cache, key, value: [cache.get("tagged"), cache.get_or_set("tagged", value, 5, tags=[value])],
    "tags of a pickle": lambda cache, key, value: [cache.get("t+p"), cache.get_or_set("t+p", 1, tags=[key])],
    "tags that are over": lambda cache, key, value: cache.get("untagged", value),
    "tags by Python": lambda cache, key, value: cache.get_or_set("tagged", value, timeout=5, early=1),
    "tags that do not fit": lambda cache, key, value: [cache.get("odd"), cache.get_or_set("odd", value, timeout=0)],
    "tags, awaited": lambda cache, key, value: done(cache, "aget_or_set", ["tagged", value], {"tags": [key]}),
    "tiers": lambda cache, key, value: [tiered_before(cache).get("bare"), tiered_before(cache).get("pickled", value)],
    "tiers with tags": lambda cache, key, value: [tiered_before(cache).get("t+p"), tiered_before(cache).get("tagged")],
    "tiers without": lambda cache, key, value: [
        tiered_before(cache).get("absent", value),
        done(TieredCache, "get", [key], {}),
    ],
    "tiers that break": lambda cache, key, value: [
        break_near(tiered_before(cache)),
        tiered_before(cache).get("pickled"),
    ],
    "together": lambda cache, key, value: cache._get_together((f":1:{key}", ":1:envelope")),
    "together as before": lambda cache, key, value: [
        found := cache._get_together((f":1:{key}", ":1:envelope")),
        cache._get_together((f":1:{key}", ":1:envelope"), found),
        cache._get_together((f":1:{key}",), (value[::-1],)),
    ],
    "together by Python": lambda cache, key, value: cache._get_together((f":1:{key}", ":1:pickled", key), (value,) * 3),
    "together and wrong": lambda cache, key, value: [
        done(cache, "_get_together", wrong, {}) for wrong in ([], [key], [(key, [])], [(key,), value], [(), ()])
    ],
    "a bound method": lambda cache, key, value: (cache.get.__name__, cache.set.__doc__, repr(cache.get_or_set)),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_loses_an_object_or_a_reference(cache, way):
    """After hundreds of calls there are as many objects, and as many references to those passed, as before."""
    key, value = (f"{name}{len(name)}" for name in ("key", "value"))
    cache.set("pickled", ["value"])
    cache.set("broken", [1])
    cache.set("bare", 1)
    for name, kept in (("tagged", value), ("t+p", [value]), ("untagged", value), ("odd", value)):
        cache.set(name, kept, tags=[key, name])
    cache.invalidate_tags("untagged")
    cache._tags.entries[f"{TAG_PREFIX}:0:odd"].value = "no version"
    cache._set(":1:envelope", Envelope(b"value", timeouts.now() + 300), timeouts.now() + 300)
    cache._bounded.entries[":1:broken"].encoded = b"no pickle"
    cache.set(key, value)
    held = [
        cache._bounded.entries[f":1:{key}"],
        key,
        value,
        None,
        MISSING,
        timeouts.DEFAULT_TIMEOUT,
        cache,
        cache._counters,
        cache._bounded,
        vars(timeouts),
        cache._tags,
        cache._freshness,
        *(cache._bounded.entries[":1:tagged"].encoded.tags),
        *cache._tags.entries.values(),
    ]

    assert left_behind(lambda: WAYS[way](cache, key, value), held) < ENOUGH
