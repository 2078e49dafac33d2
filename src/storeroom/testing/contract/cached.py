"""@cached: arguments and results of functions as keys and values of the storage."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from storeroom.functions.decorator import cached
from storeroom.registry import caches
from storeroom.registry.source import Source
from storeroom.testing import concurrency
from storeroom.testing.capabilities import needs
from storeroom.testing.concurrency import Gate, in_background
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["CachedContract"]


class OneCache:
    """A configuration whose alias "default" is a cache that is there already."""

    def __init__(self, cache: Any) -> None:
        self.source = Source("the contract suite", "", {"default": {}})
        self.handles: Mapping[str, Any] = {"default": cache}

    def handle(self, alias: str) -> Any:
        """Return the cache, if that is asked for."""
        return self.handles[alias]

    def opened(self) -> list[Any]:
        """Return the cache."""
        return list(self.handles.values())


class Decorated:
    """A cached function whose operations are awaited, whether or not it is one of coroutines."""

    def __init__(self, function: Any, *, is_async: bool) -> None:
        self.function, self._is_async = function, is_async

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self._awaited(self.function, *args, **kwargs)

    async def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """See CachedFunction."""
        return await self._awaited(self.function.invalidate, *args, **kwargs)

    async def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """See CachedFunction."""
        return await self._awaited(self.function.refresh, *args, **kwargs)

    async def clear(self) -> None:
        """See CachedFunction."""
        await self._awaited(self.function.clear)

    async def cache_info(self) -> Any:
        """See CachedFunction."""
        return await self._awaited(self.function.cache_info)

    async def _awaited(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        result = operation(*args, **kwargs)
        return await result if self._is_async else result


Decorate = Callable[..., Callable[[Callable[..., Any]], Decorated]]

ALIKE = [1, "1", True, 1.0, None, "None", b"1", ("a", "b"), "a,b", "('a', 'b')", ["a", "b"], {"a": "b"}, "", (), (1,)]
"""Arguments that look alike to something that writes keys carelessly."""


@needs("store")
class CachedContract(Suite):
    """Functions whose results are kept in the storage."""

    @pytest.fixture
    def decorate(self, cache: Driver) -> Iterator[Decorate]:
        """Decorate a function, or a coroutine function made of it: ``decorate(timeout=5)(function)``."""
        before = caches.swap(OneCache(cache.cache))

        def decorate(**options: Any) -> Callable[[Callable[..., Any]], Decorated]:
            def decorated(function: Callable[..., Any]) -> Decorated:
                async def awaited(*args: Any, **kwargs: Any) -> Any:
                    return function(*args, **kwargs)

                functools.update_wrapper(awaited, function)
                kept: Any = cached(**options)(awaited if cache.is_async else function)
                return Decorated(kept, is_async=cache.is_async)

            return decorated

        yield decorate
        caches.swap(before)

    async def test_a_result_is_kept(self, decorate: Decorate) -> None:
        """Calls with equal arguments, however they are passed, compute once; others have results of their own."""
        calls: list[Any] = []

        @decorate(key="load:{number}:{language}")
        def load(number: int, language: str = "en") -> list[Any]:
            calls.append(number)
            return [number, language]

        for _ in range(2):
            assert await load(1) == [1, "en"]
            assert await load(1, "en") == [1, "en"]
            assert await load(language="en", number=1) == [1, "en"]
        assert calls == [1]
        assert await load(2) == [2, "en"]
        assert await load(1, "fr") == [1, "fr"]
        assert calls == [1, 2, 1]

    async def test_every_argument_has_an_entry_of_its_own(self, decorate: Decorate) -> None:
        """Arguments that look alike, or are very long, have entries of their own."""
        arguments = [*ALIKE, "x" * 100_000, "x" * 99_999, "\x00\n 名前 \ud800", "'", "\\", "\\'"]

        @decorate(key="{argument!r}")
        def index(argument: object) -> int:
            return next(number for number, known in enumerate(arguments) if known is argument)

        for _ in range(2):
            assert [await index(argument) for argument in arguments] == list(range(len(arguments)))

    async def test_all_results_of_a_function_are_forgotten(self, decorate: Decorate) -> None:
        """With clearable=True clear() forgets them, and no others, on every storage; the calls are counted."""

        def load(number: int) -> int:
            return number

        one = decorate(key="one:{number}", clearable=True)(load)
        other = decorate(key="other:{number}", clearable=True)(load)
        for number in (1, 2, 1):
            assert await one(number) == await other(number) == number
        await one.clear()
        assert await one(1) == await other(1) == 1
        info, untouched = await one.cache_info(), await other.cache_info()
        assert (info.hits, info.misses, info.computed) == (1, 3, 3)
        assert (untouched.hits, untouched.misses, untouched.computed) == (2, 2, 2)
        assert untouched.entries in {2, None}

    async def test_a_result_of_none_is_kept(self, decorate: Decorate) -> None:
        """A result of None is stored and returned like any other."""
        calls = []

        @decorate(key="find:{name}")
        def find(name: str) -> None:
            calls.append(name)

        assert await find("Ada") is None
        assert await find("Ada") is None
        assert calls == ["Ada"]

    async def test_an_error_is_raised_and_not_kept(self, decorate: Decorate) -> None:
        """An error is raised, and the next call computes again."""
        outcomes: list[Any] = [LookupError("no such user"), "found"]

        @decorate(key="find")
        def find() -> Any:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        with pytest.raises(LookupError, match="no such user"):
            await find()
        assert await find() == "found"
        assert await find() == "found"

    async def test_the_timeout_may_depend_on_the_result(self, decorate: Decorate, cache: Driver) -> None:
        """The timeout may be a function of the result; a result with a timeout of zero is not stored."""
        numbers = iter(range(10))

        @decorate(key="next", timeout=lambda number: self.moment if number else 0)
        def following() -> int:
            return next(numbers)

        assert await following() == 0
        assert await following() == 1
        assert await following() == 1
        assert is_left(await cache.ttl("next"), self.moment)
        await self.pass_time(self.moment * 1.1)
        assert await following() == 2

    async def test_invalidate_forgets_one_result(self, decorate: Decorate) -> None:
        """invalidate() removes the result of its arguments alone, and returns whether there was one."""
        numbers = iter(range(10))

        @decorate(key="count:{name}", version=3)
        def count(name: str) -> str:
            return f"{name} {next(numbers)}"

        assert [await count("a"), await count("b")] == ["a 0", "b 1"]
        assert await count.invalidate("a") is True
        assert await count.invalidate(name="a") is False
        assert [await count("a"), await count("b")] == ["a 2", "b 1"]

    async def test_tags_forget_many_results(self, decorate: Decorate, cache: Driver) -> None:
        """Invalidating a tag removes the results that carry it, of all functions."""

        @decorate(key="name:{user}", tags=["user:{user}"])
        def name(user: int) -> str:
            return f"name of {user}: {next(numbers)}"

        @decorate(key="orders:{user}:{page}", tags=lambda user, page: [f"user:{user}", f"page:{page}"])
        def orders(user: int, page: int) -> str:
            return f"page {page} of {user}: {next(numbers)}"

        numbers = iter(range(10))
        before = [await name(1), await orders(1, 1), await orders(1, 2), await name(2)]
        assert [await name(1), await orders(1, 1), await orders(1, 2), await name(2)] == before
        await cache.invalidate_tags("user:1")
        assert await name(2) == before[3]
        after = ["name of 1: 4", "page 1 of 1: 5", "page 2 of 1: 6"]
        assert [await name(1), await orders(1, 1), await orders(1, 2)] == after
        await cache.invalidate_tags("page:2")
        assert [await name(1), await orders(1, 1), await orders(1, 2)] == [*after[:2], "page 2 of 1: 7"]

    async def test_refresh_computes_anew(self, decorate: Decorate, cache: Driver) -> None:
        """refresh() computes whatever is stored, stores the result and returns it."""
        numbers = iter(range(10))

        @decorate(key="count:{name}", tags=["counts"], stale_if_error="1h")
        def count(name: str) -> str:
            return f"{name} {next(numbers)}"

        assert await count("a") == "a 0"
        assert await count.refresh("a") == "a 1"
        assert await count("a") == "a 1"
        assert await count.refresh(name="b") == "b 2"
        assert await cache.get("count:b") == "b 2"
        await cache.invalidate_tags("counts")
        assert await count("b") == "b 3"

    async def test_a_stale_result_is_served_if_asked_for(self, decorate: Decorate) -> None:
        """A function with stale_if_error serves its expired result where the computation fails."""
        outcomes: list[Any] = [1, LookupError("the source is down")]

        @decorate(key="rate", timeout=self.moment, stale_if_error="1h")
        def rate() -> Any:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        assert await rate() == 1
        await self.pass_time(self.moment * 1.1)
        assert await rate() == 1
        assert outcomes == []

    @needs("refusal")
    async def test_a_result_that_cannot_be_stored_is_returned(self, decorate: Decorate) -> None:
        """A result that the storage refuses is returned, and computed by every call."""

        @decorate(key="counter")
        def counter() -> Any:
            return (number for number in range(3))

        assert [*(await counter()), *(await counter())] == [0, 1, 2, 0, 1, 2]

    def test_threads_compute_a_result_once(self, open_cache: Callable[..., Any]) -> None:
        """Threads that call a function at the same time share one computation."""
        gate = Gate("computed")
        before = caches.swap(OneCache(open_cache()))
        try:

            @cached(key="page")
            def page() -> Any:
                return gate()

            results = [in_background(page) for _ in range(8)]
            assert gate.begun.wait(concurrency.PATIENCE)
            gate.may_end.set()
            assert [result.result(concurrency.PATIENCE) for result in results] == ["computed"] * 8
            assert gate.calls == 1
        finally:
            caches.swap(before)
