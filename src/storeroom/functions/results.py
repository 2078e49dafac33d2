"""All results of a cached function together: forgotten, listed, counted."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from storeroom.computing.counted import CountedFunction
from storeroom.exceptions import NotSupportedError
from storeroom.functions.shapes import Shape

if TYPE_CHECKING:
    from storeroom.base import BaseCache
    from storeroom.storage.steps import Steps

__all__ = ["CacheInfo", "Results", "WithResults"]

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """The counts of one cached function in this process, and the number of its results in the cache.

    Attributes:
        hits: calls that found a result.
        misses: calls that found none.
        entries: results in the cache now, whoever has stored them; None where the storage cannot list its keys.
        computed: results that the function has computed, for refresh() and in the background, too.
        failed: its calls that ended with an error.
        waited: calls that waited for the computation of another caller.
        compute_seconds: seconds that the computed results took.
    """

    hits: int
    misses: int
    entries: int | None
    computed: int
    failed: int
    waited: int
    compute_seconds: float

    @property
    def hit_ratio(self) -> float:
        """Hits per call, from 0.0 to 1.0; 0.0 before the first call."""
        calls = self.hits + self.misses
        return self.hits / calls if calls else 0.0

    @property
    def saved_seconds(self) -> float:
        """Seconds that the hits have saved: their number, times the mean time of a computation."""
        return self.hits * self.compute_seconds / self.computed if self.computed else 0.0


class Results:
    """The results of one function.

    Args:
        cache_of: returns the cache of this moment.
        version: of the keys.
        counted: the function, with the counts of its calls.
        shape_of: returns the shape of its keys, which is asked for once.
        tag: of all its results; "" where they have none.
    """

    def __init__(
        self, cache_of: "Callable[[], BaseCache]", version: int | None, counted: CountedFunction,
        shape_of: Callable[[], Shape], tag: str,
    ) -> None:  # fmt: skip
        self._cache_of, self._version, self._counted, self._shape_of, self._tag = (
            cache_of, version, counted, shape_of, tag,
        )  # fmt: skip
        self.driver = "run"

    @cached_property
    def _shape(self) -> Shape:
        return self._shape_of()

    def of(self, method: str) -> Any:
        """Carry out the steps of one of the methods below; those of a coroutine function once they are awaited."""
        return getattr(import_module("storeroom.storage.steps"), self.driver)(getattr(self, method)())

    def clear(self) -> "Steps[None]":
        """Forget all."""
        if self._tag:
            yield self._cache_of(), "invalidate_tags", (self._tag,)
        else:
            forget = import_module("storeroom.base.forgetting").forgetting
            try:
                yield from forget(self._cache_of(), self._shape.beginning, self._shape.matches, self._version)
            except NotSupportedError as error:
                error.add_note("With @cached(clearable=True) clear() works on every storage.")
                raise

    def keys(self) -> "Steps[list[str]]":
        """Return the keys."""
        found = yield self._cache_of(), "keys", (self._shape.beginning, self._version)
        return list(filter(self._shape.matches, found))

    def cache_info(self) -> "Steps[CacheInfo]":
        """Return the counts."""
        try:
            entries: int | None = len((yield from self.keys()))
        except NotSupportedError:
            entries = None
        each = self._counted
        hits = max(0, each.answers - each.answered_misses)
        return CacheInfo(hits, each.misses, entries, each.computed, each.failed, each.waited, each.compute_seconds)


class WithResults(Generic[R_co]):
    """The methods of a cached function that are about all of its results."""

    def _of_all(self, method: str) -> Any:
        """Return the result of a method of Results."""
        raise NotImplementedError

    @overload
    def clear(self: "WithResults[Coroutine[Any, Any, Any]]") -> Coroutine[Any, Any, None]: ...
    @overload
    def clear(self) -> None: ...
    def clear(self) -> Any:
        """Forget all results of this function: for all arguments, and of a method for all instances.

        A computation under way is not stored after it. With the option ``clearable`` it is one write. Without, all
        entries with keys of the function are looked for and deleted, in a time in proportion to those of the cache.

        Raises:
            NotSupportedError: without that option, the storage cannot list its keys, or they are made by a function.
        """
        return self._of_all("clear")

    @overload
    def keys(self: "WithResults[Coroutine[Any, Any, Any]]") -> Coroutine[Any, Any, list[str]]: ...
    @overload
    def keys(self) -> list[str]: ...
    def keys(self) -> Any:
        """Return the keys of the results that are stored, in no order; of a method for all instances.

        A template's keys are all that it can make: ``user:{id}`` makes ``user:7:orders``, too, for the id "7:orders".

        Raises:
            NotSupportedError: the storage cannot list its keys, or they are made by a function.
        """
        return self._of_all("keys")

    @overload
    def cache_info(self: "WithResults[Coroutine[Any, Any, Any]]") -> Coroutine[Any, Any, CacheInfo]: ...
    @overload
    def cache_info(self) -> CacheInfo: ...
    def cache_info(self) -> Any:
        """Return the counts of this function's calls in this process, and the number of its results: see CacheInfo.

        Results are counted by listing the keys, which takes a time in proportion to the entries of the cache.
        """
        return self._of_all("cache_info")
