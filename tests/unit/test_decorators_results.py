"""@cached: all results of a function together, forgotten, listed and counted; and a cache in place of an alias."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import storeroom
from storeroom import NotSupportedError, cached, caches
from storeroom.backends.locmem import LocMemCache
from storeroom.testing import FakeClock

BACKEND = "storeroom.backends.locmem.LocMemCache"


@pytest.fixture(autouse=True)
def configured(request: pytest.FixtureRequest) -> Iterator[None]:
    before = caches.swap(None)
    storeroom.configure(
        {
            "default": {"BACKEND": BACKEND, "LOCATION": request.node.nodeid},
            "hashed": {"BACKEND": BACKEND, "LOCATION": f"{request.node.nodeid} hashed", "KEY_FUNCTION": hashed},
        }
    )
    yield
    caches.swap(before)


def hashed(key: object, prefix: str, version: int) -> str:
    return hashlib.sha256(f"{prefix}{version}{key}".encode()).hexdigest()


def load(number: int, language: str = "en") -> list[Any]:
    return [number, language]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"key": "load:{number}:{language}"},
    {"key": "load:{number}:{language}", "invalidate_on_change": "v2"},
    {"clearable": True},
    {"clearable": True, "alias": "hashed"},
    {"clearable": True, "tags": ["numbers"], "key": lambda number, language="en": f"{number}{language}"},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_clear_forgets_all_results_of_the_function_alone(options: dict[str, Any]) -> None:
    """Results for all arguments go, and nothing else: neither other functions' nor other entries."""
    one, other = cached(**options)(load), cached(key="other:{number}:{language}")(load)
    storeroom.cache.set("load", "a value")
    first = [one(1), one(2, "fr:x"), other(1)]
    one.clear()
    assert (one.cache_info().entries or 0) == 0
    cache = caches[options.get("alias", "default")]
    assert [cache.get(one.key(1)), cache.get(one.key(2, "fr:x")), other.invalidate(1)] == [None, None, True]
    assert storeroom.cache.get("load") == "a value"
    assert [one(1), one(2, "fr:x"), other(1)] == first


@pytest.mark.parametrize(
    "options", [{}, {"key": "l:{number}/{language}"}, {"key": "l:{number}", "ignore": ["language"]}]
)
def test_keys_are_those_of_the_stored_results(options: dict[str, Any]) -> None:
    """keys() returns the keys under which the results are, escapes and all."""
    function = cached(**options)(load)
    storeroom.cache.set("load", "a value")
    calls: list[tuple[Any, ...]] = [(1, "a/b"), (-2, "ü%"), (3,)]
    for call in calls:
        function(*call)
    assert sorted(function.keys()) == sorted(function.key(*call) for call in calls)
    assert function.cache_info().entries == len(calls)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": lambda number, language="en": f"{number}"}, r"load\(\): its keys are made by a function"),
        ({"alias": "hashed"}, "need to turn storage keys back into keys"),
    ],
)
def test_results_that_cannot_be_listed_are_told(options: dict[str, Any], told: str) -> None:
    """Where keys cannot be told from others, or not be listed, clear() and keys() raise, and the counts are without."""
    function = cached(**options)(load)
    function(1)
    for method in (function.keys, function.clear):
        with pytest.raises(NotSupportedError, match=told) as caught:
            method()
    assert "clearable=True" in f"{caught.value}{getattr(caught.value, '__notes__', '')}"
    assert (function.cache_info().misses, function.cache_info().entries) == (1, None)


class Account:
    def __init__(self, number: int) -> None:
        self.number = number

    @cached(key="account:{self.number}:{day}")
    def balance(self, day: str = "today") -> int:
        return self.number


class Savings(Account):
    pass


def test_a_method_s_results_are_those_of_all_instances() -> None:
    """Through an instance or the class, of subclasses, too."""
    Account(1).balance()
    Savings(2).balance("a:b")
    assert len(Account.balance.keys()) == len(Account(3).balance.keys()) == 2
    Account(3).balance.clear()
    assert Account.balance.keys() == []
    assert Account(3).balance.cache_info() == Account.balance.cache_info()


def test_the_counts_tell_of_each_call() -> None:
    """Hits, misses, computations and their seconds, failures; refresh() is no call that looks."""
    asked: list[int] = []

    def slow(number: int) -> int:
        asked.append(number)
        time.sleep(0.002)
        if number < 0:
            raise ValueError(number)
        return number

    function = cached(key="slow:{number}")(slow)
    for number in (1, 1, 1, 2):
        function(number)
    with pytest.raises(ValueError, match="-1"):
        function(-1)
    function.refresh(1)
    info = function.cache_info()
    assert (info.hits, info.misses, info.computed, info.failed, info.entries) == (2, 3, 3, 1, 2)
    assert info.hit_ratio == 2 / 5
    assert info.saved_seconds == pytest.approx(2 * info.compute_seconds / 3)
    assert info.saved_seconds >= 2 * 0.002


def test_the_counts_tell_of_waits() -> None:
    """A caller that waits for another's computation has missed, and is no hit."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        go_on.wait(10)
        return 1

    function = cached(key="slow")(slow)
    callers = [threading.Thread(target=function) for _ in range(3)]
    callers[0].start()
    begun.wait(10)
    for caller in callers[1:]:
        caller.start()
    while function.cache_info().waited < 2:
        time.sleep(0.001)
    go_on.set()
    for caller in callers:
        caller.join()
    info = function.cache_info()
    assert (info.hits, info.misses, info.waited, info.computed) == (0, 3, 2, 1)


def test_stale_results_are_forgotten_too() -> None:
    """A result past its timeout, which would be served while a new one is computed, is gone after clear()."""
    results = iter(range(9))
    function = cached(key="stale", timeout=1, stale_while_revalidate=60)(lambda: next(results))
    with FakeClock() as clock:
        assert function() == 0
        clock.advance(2)
        function.clear()
        assert function() == 1


@pytest.mark.parametrize("clearable", [False, True])
def test_a_computation_under_way_is_not_stored_after_clear(clearable: bool) -> None:
    """Its caller gets the result, which may be older than the reason for clear(), and nobody else does."""
    results = iter(range(9))

    def slow() -> int:
        result = next(results)
        if result == 0:
            function.clear()
        return result

    function = cached(key="slow", clearable=clearable)(slow)
    assert [function(), function(), function()] == [0, 1, 1]


def test_a_coroutine_function_s_methods_are_awaited() -> None:
    """clear(), keys() and cache_info() of a coroutine function are coroutines."""

    @cached(key="a:{number}")
    async def aload(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def main() -> None:
        await asyncio.gather(*(aload(1) for _ in range(4)), aload(2))
        info = await aload.cache_info()
        assert (info.hits, info.misses, info.waited, info.computed, info.entries) == (0, 5, 3, 2, 2)
        assert sorted(await aload.keys()) == ["a:1", "a:2"]
        await aload.clear()
        assert await aload.keys() == []

    asyncio.run(main())


def test_a_cache_takes_the_place_of_an_alias() -> None:
    """cache= names the cache itself; an alias beside it, or something else, is refused."""
    cache = LocMemCache("a cache of its own", {})
    function = cached(key="n:{number}", cache=cache, ignore=["language"])(load)
    assert function(1) == cache.get("n:1") == [1, "en"]
    assert storeroom.cache.get("n:1") is None
    with pytest.raises(TypeError, match="both the alias 'hashed' and a cache"):
        cached(cache=cache, alias="hashed")
    with pytest.raises(TypeError, match="was given 'default' as cache"):
        cached(cache="default")  # type: ignore[call-overload]
