"""The functions that @cached makes: called as before, with methods for the stored results."""

import inspect
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial, update_wrapper
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from storeroom.computing.counted import CountedFunction
from storeroom.exceptions import ComputationCycleError, ConfigurationError
from storeroom.functions import keys as call_keys
from storeroom.functions.results import Results, WithResults
from storeroom.registry import caches

if TYPE_CHECKING:
    from storeroom.base import BaseCache

__all__ = ["BoundFunction", "CachedCoroutineFunction", "CachedFunction", "Options"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of @cached, after checking: see cached()."""

    key: str | Callable[..., object] | None
    timeout: Any
    tags: Collection[str] | Callable[..., Iterable[object]]
    alias: str
    version: int | None
    ignore: tuple[str, ...]
    suffix: str  # the end of every key
    freshness: Mapping[str, Any]
    # The first argument when the function is found through an instance: that, its class, or nothing.
    binds: Literal["instance", "class", "nothing"]
    cache: "BaseCache | None" = None  # in place of an alias
    clearable: bool = False


class _Cached(WithResults[R_co], Generic[P, R_co]):
    """The common part of cached functions, whether they are called or awaited."""

    # These are read by the compiled call: see hot_path in storeroom.backends.locmem.
    __slots__ = (
        "_alias", "_caches", "_called", "_called_by", "_counted", "_key_of", "_kind", "_noted", "_noted_head",
    )  # fmt: skip

    __qualname__: str

    def __init__(self, function: Callable[P, Any], options: Options) -> None:
        """Take the function over; raise ConfigurationError if the options do not fit it."""
        # The attributes of an object, or of a partial(), are its own business.
        update_wrapper(self, function, updated=("__dict__",) if inspect.isfunction(function) else ())
        self._function = function
        made_by = (function, options.key, options.ignore, options.suffix, options.binds)
        self._key_of = call_keys.key_maker(*made_by)
        self._alias, self._timeout, self._version = options.alias, options.timeout, options.version
        self._caches: Any = caches if options.cache is None else {options.alias: options.cache}
        self._kind: type | None = None
        self._binds = options.binds
        self._tags_of = call_keys.tags_maker(function, options.tags) if options.tags else None
        tag = call_keys.own_tag(function, options.key, options.suffix) if options.clearable else ""
        self._own_tags = [tag] if tag else []
        self._fixed = {
            "timeout": options.timeout, "version": options.version, "tags": self._own_tags, **options.freshness,
        }  # fmt: skip
        self._is_plain = not (options.tags or options.freshness or tag)
        # Storage keys of calls, for the compiled call alone: in a cache whose storage keys have the noted head.
        is_fixed = self._is_plain and options.version is None and call_keys.is_fixed(function, options.key, self._binds)
        self._noted: dict[object, str] | None = {} if is_fixed else None
        self._noted_head: str | None = None
        self._counted = CountedFunction(function)
        shape_of = partial(call_keys.shape_of, *made_by)
        self._results = Results(lambda: self._cache, options.version, self._counted, shape_of, tag)
        # Through an outer @classmethod, Python 3.13 and newer hand the class to calls alone.
        is_in_class = "." in getattr(function, "__qualname__", "").rpartition("<locals>.")[2]
        self._takes_class = is_in_class and next(iter(call_keys.signature_of(function).parameters), None) == "cls"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Return the stored result for these arguments, or call the function and store its result."""
        raise NotImplementedError

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call: the one under which ``cache.get()`` finds its result."""
        if self._takes_class and not (args and isinstance(args[0], type)):
            raise TypeError(
                f"{call_keys.name_of(self._function)}: its class is missing. Put @cached above @classmethod, "
                "or pass the class as the first argument."
            )
        return self._key_of(*args, **kwargs)

    def _arguments(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Return the named arguments with which the cache computes."""
        if self._tags_of is None:
            return self._fixed
        return {**self._fixed, "tags": [*self._tags_of(*args, **kwargs), *self._own_tags]}

    @property
    def _cache(self) -> "BaseCache":
        cache: BaseCache = self._caches[self._alias]
        self._require_ours(cache)
        return cache

    def _require_ours(self, cache: object) -> None:
        """Refuse another framework's class, which does not compute once; note the class of a cache of Storeroom's."""
        from storeroom.base import BaseCache  # noqa: PLC0415 -- loaded by programs that use a cache

        if isinstance(cache, BaseCache):
            if cache.hastens is not None:
                own = import_module("storeroom.registry.configuration").OwnConfiguration
                cache.hastens(CachedFunction, CachedCoroutineFunction, CountedFunction, type(caches), own)
            self._kind = type(cache)
            return
        from storeroom.registry.backend_paths import DJANGO_PATHS, PATHS  # noqa: PLC0415 -- only a mistake needs them

        path = f"{type(cache).__module__}.{type(cache).__qualname__}"
        ours = DJANGO_PATHS.get(path)
        remedy = f"set BACKEND to {ours!r}" if ours else f"set BACKEND to one of Storeroom's, such as {PATHS[0]!r}"
        raise ConfigurationError(
            f"{call_keys.name_of(self._function)}() is @cached in CACHES[{self._alias!r}], whose BACKEND is {path!r}; "
            "expected a cache of Storeroom's, which computes once, and knows tags and stale values. "
            f"In CACHES {remedy}, or name another alias: @cached(alias=...)."
        )

    def _note(self, error: ComputationCycleError, key: str) -> None:
        """Let an error name the function that ran into it: the innermost."""
        if not hasattr(error, "__notes__"):
            error.add_note(f"It was {call_keys.name_of(self._function)}(), for the key {key!r}.")

    def __reduce__(self) -> str:
        """Pickle as the name that it is, as functions do."""
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {call_keys.name_of(self._function)}>"

    def _of_all(self, method: str) -> Any:
        return self._results.of(method)

    def _bound(self, instance: object, owner: type | None) -> Any:
        if self._binds == "nothing":
            return self
        if self._binds == "class":
            return BoundFunction(self, type(instance) if owner is None else owner)
        return self if instance is None else BoundFunction(self, instance)


class CachedFunction(_Cached[P, R_co], Generic[P, R_co]):
    """A function whose results are kept in a cache.

    To type checkers a coroutine function is one that returns coroutines: two classes, told apart by the result, would
    take the type variable of a generic function for a coroutine.
    """

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """See _Cached."""
        key = self._key_of(*args, **kwargs)
        cache = self._caches[self._alias]
        if cache.__class__ is not self._kind:
            self._require_ours(cache)
        result: R_co
        try:
            counted = self._counted
            if self._is_plain:
                result = cache.get_or_set(key, lambda: counted(*args, **kwargs), self._timeout, self._version)
            else:
                compute = partial(counted, *args, **kwargs)
                result = cache.get_or_set(key, compute, **self._arguments(args, kwargs))
        except ComputationCycleError as error:
            self._note(error, key)
            raise
        counted.answers += 1
        return result

    @overload
    def invalidate(
        self: "CachedFunction[P, Coroutine[Any, Any, Any]]", *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Forget the result for these arguments. Return whether there was one."""
        return self._forget(args, kwargs)

    def _forget(self, args: Any, kwargs: Any) -> Any:
        return self._cache.delete(self.key(*args, **kwargs), self._version)

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function in any case, and store its result; others are served the old one meanwhile."""
        key = self.key(*args, **kwargs)
        compute = partial(self._counted, *args, **kwargs)
        try:
            result: R_co = self._cache.refresh(key, compute, **self._arguments(args, kwargs))
        except ComputationCycleError as error:
            self._note(error, key)
            raise
        return result

    @property
    def uncached(self) -> Callable[P, R_co]:
        """The function itself, without the cache."""
        return self._function

    @overload
    def __get__(self, instance: None, owner: type, /) -> "BoundFunction[..., R_co]": ...
    @overload
    def __get__(
        self: "CachedFunction[Concatenate[Any, Q], R_co]", instance: object, owner: type | None = None, /
    ) -> "BoundFunction[Q, R_co]": ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Return the function bound to an instance, or to a class if it is a classmethod."""
        return self._bound(instance, owner)


class CachedCoroutineFunction(CachedFunction[P, Coroutine[Any, Any, R]]):
    """A coroutine function whose results are kept in a cache."""

    def __init__(self, function: Callable[P, Coroutine[Any, Any, R]], options: Options) -> None:
        """See _Cached."""
        super().__init__(function, options)
        self._results.driver = "arun"
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """See _Cached."""
        key = self._key_of(*args, **kwargs)
        cache = self._caches[self._alias]
        if cache.__class__ is not self._kind:
            self._require_ours(cache)
        result: R
        try:
            counted = self._counted
            if self._is_plain:
                result = await cache.aget_or_set(key, lambda: counted(*args, **kwargs), self._timeout, self._version)
            else:
                compute = partial(counted, *args, **kwargs)
                result = await cache.aget_or_set(key, compute, **self._arguments(args, kwargs))
        except ComputationCycleError as error:
            self._note(error, key)
            raise
        counted.answers += 1
        return result

    if sys.version_info < (3, 12):  # inspect takes an object with these for a function, and asks whether it is awaited
        __code__, __defaults__, __kwdefaults__ = __call__.__code__, None, None

    async def _forget(self, args: Any, kwargs: Any) -> bool:
        return await self._cache.adelete(self.key(*args, **kwargs), self._version)

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await the function in any case, and store its result; others are served the old one meanwhile."""
        key = self.key(*args, **kwargs)
        compute = partial(self._counted, *args, **kwargs)
        try:
            result: R = await self._cache.arefresh(key, compute, **self._arguments(args, kwargs))
        except ComputationCycleError as error:
            self._note(error, key)
            raise
        return result


class _Signature:
    """The signature of a bound function: the function's own, without the argument that is given. The class has none."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        if instance is None:
            raise AttributeError("__signature__")
        whole = inspect.signature(instance.func)
        return whole.replace(parameters=[*whole.parameters.values()][1:])


class BoundFunction(partial[Any], WithResults[R_co], Generic[Q, R_co]):
    """A cached function together with the instance, or the class, that is its first argument.

    A partial() calls its function without a frame of Python, and inspect understands it.
    """

    if TYPE_CHECKING:

        def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
            """Call the function."""

    def key(self, *args: Q.args, **kwargs: Q.kwargs) -> str:
        """Return the key of a call: the one under which ``cache.get()`` finds its result."""
        return str(self._cached.key(*self.args, *args, **kwargs))

    @overload
    def invalidate(
        self: "BoundFunction[Q, Coroutine[Any, Any, Any]]", *args: Q.args, **kwargs: Q.kwargs
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def invalidate(self, *args: Q.args, **kwargs: Q.kwargs) -> bool: ...
    def invalidate(self, *args: Q.args, **kwargs: Q.kwargs) -> Any:
        """Forget the result for these arguments. Return whether there was one."""
        return self._cached.invalidate(*self.args, *args, **kwargs)

    def refresh(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Call the method in any case, and store its result; others are served the old one meanwhile."""
        result: R_co = self._cached.refresh(*self.args, *args, **kwargs)
        return result

    @property
    def uncached(self) -> Callable[Q, R_co]:
        """The method itself, bound to the instance."""
        return MethodType(self._cached.uncached, self.args[0])

    @property
    def _cached(self) -> Any:
        return self.func

    def _of_all(self, method: str) -> Any:
        return getattr(self._cached, method)()

    def __getattr__(self, name: str) -> Any:
        if name in {"__name__", "__qualname__"}:
            return getattr(self.func, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    __signature__ = _Signature()

    def __get__(self, instance: object, owner: type | None = None, /) -> "BoundFunction[Q, R_co]":
        """Return it as it is: the first argument is given. To inspect and help() it is a routine by this."""
        return self

    def __eq__(self, other: object) -> bool:
        """Tell whether it is the same function of the same instance, as methods do: each access makes another."""
        return isinstance(other, BoundFunction) and self.func is other.func and self.args[0] is other.args[0]

    def __hash__(self) -> int:
        return hash((self.func, id(self.args[0])))

    def __reduce__(self) -> Any:
        """Pickle as the instance and the method's name."""
        return getattr, (self.args[0], self.func.__name__)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__qualname__} of {self.args[0]!r}>"


class _Documentation:
    """The docstring of a bound function, which is the function's own; of the class it is the class's."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __get__(self, instance: Any, owner: type) -> str | None:
        return self._text if instance is None else instance.func.__doc__


type.__setattr__(BoundFunction, "__doc__", _Documentation(BoundFunction.__doc__))
