"""@cached: a function whose results are kept in a cache, by its arguments; see ``docs/cached.md``.

The options are checked when the function is defined. Nothing is looked up or opened before the first call, so that
configure() may come later.
"""

import hashlib
import inspect
import textwrap
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, Unpack, overload

from storeroom import timeouts
from storeroom.config.freshness import Freshness, FreshnessOptions
from storeroom.exceptions import ConfigurationError
from storeroom.functions.cached_function import CachedCoroutineFunction, CachedFunction, Options
from storeroom.functions.keys import name_of
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout
from storeroom.wording import nearest

if TYPE_CHECKING:
    from storeroom.base import BaseCache

__all__ = ["cached", "fingerprint"]

_OPTIONS: Final = (
    "key", "timeout", "tags", "alias", "cache", "version", "ignore", "invalidate_on_change", "clearable",
)  # fmt: skip

Change: TypeAlias = bool | str | Callable[..., Any] | list[Any] | tuple[Any, ...]
"""Code that keys depend on: True for the function itself; other functions or classes; a text; or several of these."""

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator(Protocol):
    """``cached(timeout="5m")``, which awaits the function."""

    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...
@overload
def cached(
    *,
    key: str | Callable[..., object] | None = None,
    timeout: Timeout | Callable[[Any], Timeout] = DEFAULT_TIMEOUT,
    tags: Collection[str] | Callable[..., Iterable[object]] = (),
    alias: str = "default",
    cache: "BaseCache | None" = None,
    version: int | None = None,
    ignore: Collection[str] = (),
    invalidate_on_change: Change | None = None,
    clearable: bool = False,
    **freshness: Unpack[FreshnessOptions],
) -> _Decorator: ...
def cached(
    function: Any = None,
    /,
    *,
    key: str | Callable[..., object] | None = None,
    timeout: Timeout | Callable[[Any], Timeout] = DEFAULT_TIMEOUT,
    tags: Collection[str] | Callable[..., Iterable[object]] = (),
    alias: str = "default",
    cache: "BaseCache | None" = None,
    version: int | None = None,
    ignore: Collection[str] = (),
    invalidate_on_change: Change | None = None,
    clearable: bool = False,
    **freshness: Any,
) -> Any:
    """Keep a function's results in a cache: ``@cached``, or ``@cached(timeout="5m")`` with options.

    Calls with the same arguments, in whatever way these are written, get the result that is stored; among all
    threads, tasks and processes that share the cache one computes what is missing. None is a result. An exception
    is raised and not stored. The decorated function has ``key()``, ``invalidate()`` and ``refresh()``, each with the
    parameters of the function, ``clear()``, ``keys()`` and ``cache_info()`` for all its results, and ``uncached``; all
    but ``key()`` are awaited if it is a coroutine function.

    Args:
        function: a function, method or coroutine function.
        key: a template such as ``"user:{id}"`` that names every parameter, or a function of the same arguments that
            returns the key. By default the name of the function and all arguments with their types.
        timeout: of the results, or a function of a result that returns its own; zero for one that is not stored.
        tags: a list of templates, or a function of the same arguments that returns tags: see invalidate_tags().
        alias: of the cache in CACHES; looked up by each call.
        cache: a cache itself, in place of an alias.
        version: of the keys.
        ignore: names of parameters on which the result does not depend.
        invalidate_on_change: code that the keys depend on beside the arguments: True for the function's own source,
            another function or class for that one's, a text such as "v2", or a list of these.
        clearable: give all results a tag of the function's own, by which ``clear()`` forgets them on every storage. As
            with any tag, a hit then reads its version, too.
        **freshness: bounds of a result's age: see FreshnessOptions.

    Raises:
        ConfigurationError: an option does not fit the function.
        TypeError: there is no such option, or this cannot be cached.
    """
    _check_options(timeout, freshness)
    _check_cache(alias, cache)

    def decorate(decorated: Any) -> Any:
        plain, binds = _taken_apart(decorated)
        suffix = "" if invalidate_on_change in (None, False) else f"#{fingerprint(invalidate_on_change, plain)}"
        options = Options(
            key, timeout, tags, alias, version, _names(plain, ignore), suffix, freshness, binds, cache, clearable
        )  # fmt: skip
        kind: Any = CachedCoroutineFunction if _is_awaited(plain) else CachedFunction
        made = kind(plain, options)
        return made.__get__(decorated.__self__) if inspect.ismethod(decorated) else made

    return decorate if function is None else decorate(function)


def _check_options(timeout: Any, freshness: dict[str, Any]) -> None:
    known = list(FreshnessOptions.__annotations__)
    for name in freshness:
        if name not in known:
            names = [*_OPTIONS, *known]
            raise TypeError(
                f"@cached has no option {name!r}; its options are {', '.join(names)}.{nearest(name, names)}"
            )
    try:
        Freshness().but(freshness)
    except ValueError as error:
        raise ConfigurationError(f"@cached: {error}") from error
    if not callable(timeout) and timeout is not DEFAULT_TIMEOUT and type(timeout) is not object:
        timeouts.parse_timeout(timeout)


def _check_cache(alias: str, cache: object) -> None:
    if cache is None:
        return
    if alias != "default":
        raise TypeError(f"@cached was given both the alias {alias!r} and a cache; expected one of them.")
    if not hasattr(cache, "get_or_set") or isinstance(cache, type):
        raise TypeError(f"@cached was given {cache!r} as cache; expected a cache, such as storeroom.FileCache('dir').")


def _taken_apart(decorated: Any) -> tuple[Any, Literal["instance", "class", "nothing"]]:
    """Return the function in a decorated object, and the first argument that it is bound to when found in a class."""
    is_wrapped = isinstance(decorated, classmethod | staticmethod) or inspect.ismethod(decorated)
    plain = decorated.__func__ if is_wrapped else decorated
    reason = _unfit(decorated, plain)
    if reason:
        raise TypeError(reason)
    if isinstance(decorated, classmethod):
        return plain, "class"
    return plain, "nothing" if isinstance(decorated, staticmethod) else "instance"


def _unfit(decorated: Any, plain: Any) -> str:
    """Return the reason why an object, or the function in it, cannot be cached; or ""."""
    if isinstance(decorated, property):
        return "@cached was given a property; put @property above @cached."
    if not callable(decorated) and not isinstance(decorated, classmethod):
        example = '@cached(key="user:{id}", timeout="5m")'
        return f"@cached decorates a function, and was given {decorated!r}; options have names, as in {example}."
    if isinstance(decorated, type):
        return f"@cached was given the class {decorated.__qualname__}; decorate a function that makes one."
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        return (
            f"{name_of(plain)}() is a generator: what it yields can be read only once, and so cannot be cached. "
            "Let it return a list."
        )
    return ""


def _is_awaited(function: Any) -> bool:
    """Tell whether a function, or the method that calls an object, is a coroutine function."""
    called = type(function).__call__ if callable(function) else None
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _names(function: Any, ignore: Collection[str]) -> tuple[str, ...]:
    if isinstance(ignore, str):
        raise ConfigurationError(f"{name_of(function)}: ignore is {ignore!r}; expected a list: [{ignore!r}].")
    return tuple(ignore)


def fingerprint(change: Change, function: Callable[..., Any]) -> str:
    """Return a short text that changes with the code of a function, or with that which it is said to depend on.

    Put into keys, it keeps results of old code from new code, and the other way round, while both run during a deploy.
    It is made of the source, as each version of Python has another bytecode; indentation and empty lines do not count.
    A text stands for itself.

    Raises:
        ConfigurationError: there is no source, or nothing to make a fingerprint of.
    """
    if not change:
        raise _meaningless(change)
    if isinstance(change, str):
        return change
    parts = change if isinstance(change, list | tuple) else [change]
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part if isinstance(part, str) else _source(function if part is True else part)
        # The length keeps two parts from reading like two others.
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _source(code: Any) -> str:
    if not callable(code):
        raise _meaningless(code)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError) as error:
        raise ConfigurationError(
            f"invalidate_on_change needs the source of {code!r}, which is not there ({error}). "
            'Pass a text instead that you change with the code, such as "v2".'
        ) from error
    return "\n".join(line.rstrip() for line in textwrap.dedent(source).splitlines() if line.strip())


def _meaningless(change: object) -> ConfigurationError:
    return ConfigurationError(
        f"invalidate_on_change is {change!r}; expected True for the decorated function itself, a function or class, "
        'a text such as "v2", or a list of these.'
    )
