"""The handles that Django makes, one per alias and thread or context: told to those who watch their calls.

A debug toolbar and a tracer replace methods of a handle by functions of their own. Django's handler has one method for
that, ``create_connection()``, which they wrap; so does this module, once for all who follow.
"""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Final, TypeAlias

from django.core.cache import CacheHandler, caches

from storeroom.base import BaseCache

__all__ = ["Call", "calls_its_twin", "follow", "replace", "settled"]

Follower: TypeAlias = Callable[[Any, str], None]
"""Called with a handle of Storeroom's and its alias."""

_followers: Final[list[Follower]] = []


def follow(follower: Follower) -> None:
    """Tell of each handle that Django makes from now on, and of those of this thread that it has made."""
    if follower in _followers:
        return
    if not _followers:
        _wrap()
    _followers.append(follower)
    for alias in caches:
        if hasattr(caches._connections, alias) and isinstance(caches[alias], BaseCache):
            follower(caches[alias], alias)


def _wrap() -> None:
    create = CacheHandler.create_connection

    @wraps(create)
    def create_connection(handler: CacheHandler, alias: str) -> Any:
        cache = create(handler, alias)
        if isinstance(cache, BaseCache):
            for follower in _followers:
                follower(cache, alias)
        return cache

    CacheHandler.create_connection = create_connection


def replace(cache: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put another function in the place of a handle's method; `make` returns it, of the method as it is."""
    method = getattr(cache, name)
    setattr(cache, name, wraps(method)(make(method)))


def calls_its_twin(cache: Any, name: str) -> bool:
    """Tell whether an asynchronous method calls the synchronous one, whose watchers then see it: see InlineCache."""
    return name in {"aget", "aset"} and cache.async_inline and cache._overlay is None


def settled(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments that can be looked at and passed on: lists in place of iterators."""
    return tuple(map(_settled, args)), {name: _settled(value) for name, value in kwargs.items()}


def _settled(value: Any) -> Any:
    return list(value) if isinstance(value, Iterator) else value


class Call:
    """A call of a handle's method, by the names of its arguments.

    Attributes:
        given: the arguments that were given, by name.
    """

    def __init__(self, cache: Any, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Bind the arguments; a default that get_or_set() may compute is noted when it is called.

        Raises:
            TypeError: the method takes no such arguments.
        """
        self._counters = cache._counters
        self._hits = self._found()
        args, kwargs = settled(args, kwargs)
        self._bound = inspect.signature(method).bind(*args, **kwargs)
        self._is_computed = False
        self.given = self._bound.arguments
        self._noted = "get_or_set" in method.__name__ and callable(self.given.get("default"))
        if self._noted:
            self.given["default"] = self._noting(self.given["default"])

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments to call the method with, by position."""
        return self._bound.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Those by name."""
        return self._bound.kwargs

    @property
    def keys(self) -> list[Any]:
        """The keys that it was called for."""
        for name in ("keys", "data"):
            if name in self.given:
                return list(self.given[name])
        return [self.given["key"]] if "key" in self.given else []

    @property
    def is_computed(self) -> bool:
        """Whether get_or_set() has taken the default: a value that is none to call is known by the counts alone."""
        return self._is_computed if self._noted else self._found() == self._hits

    def _found(self) -> int:
        return int(self._counters.reads()[0])

    def _noting(self, default: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._is_computed = True
            return default(*args, **kwargs)

        return wraps(default)(noted)
