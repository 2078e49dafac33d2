"""The front door: ``caches["alias"]``, the proxy ``cache``, and ``configure()``."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from storeroom.exceptions import InvalidCacheBackendError

if TYPE_CHECKING:
    from storeroom.base import BaseCache
    from storeroom.registry.configuration import Configuration
    from storeroom.registry.source import Source

C = TypeVar("C")

__all__ = ["CacheHandler", "cache", "caches", "configure"]


class _DjangoConfiguration:
    """A running Django's caches: its settings at this moment, and its own handles.

    Django keeps a handle per thread and async context, and forgets them when a test overrides the settings, so none
    is kept here.
    """

    handles: Mapping[str, "BaseCache"] = MappingProxyType({})

    @property
    def source(self) -> "Source":
        source: Source = import_module("storeroom.registry.sources").find_source()
        return source

    def handle(self, alias: str) -> "BaseCache":
        handler = import_module("django.core.cache").caches
        if alias not in handler.settings:
            raise InvalidCacheBackendError(self.source.lacking(alias))
        handle: BaseCache = handler[alias]
        return handle

    def opened(self) -> "list[BaseCache]":
        handles: list[BaseCache] = import_module("django.core.cache").caches.all(initialized_only=True)
        return handles


class CacheHandler:
    """The caches by alias. Their configuration is found on first use, unless configure() gives it before."""

    __slots__ = ("__dict__", "__weakref__", "_chosen")  # one that the compiled call of @cached's functions reads

    def __init__(self) -> None:
        # At most one entry: setdefault() lets the first of several threads win without a lock,
        # which could not be held while the modules of backends are imported.
        self._chosen: dict[str, Configuration] = {}

    @property
    def configuration(self) -> "Configuration":
        """The configuration in force; found now if there is none yet."""
        chosen = self._chosen.get("")
        return self._chosen.setdefault("", _find()) if chosen is None else chosen

    def configure(self, caches: Mapping[str, Mapping[str, Any]]) -> None:
        """Set the caches of this program, instead of those it had.

        Everything is checked now; storages are opened on first use. Handles of the configuration before, where somebody
        holds one, go on working.

        Args:
            caches: Django's CACHES: alias to its dict, with BACKEND, LOCATION, TIMEOUT, KEY_PREFIX, VERSION,
                KEY_FUNCTION and OPTIONS. BACKEND may be a class itself.

        Raises:
            ConfigurationError: something is wrong; the configuration before stays in force.
        """
        from storeroom.registry import configuration, source  # noqa: PLC0415 -- loaded by programs that use a cache

        self.swap(configuration.OwnConfiguration(source.Source(source.CONFIGURE, "", caches)))

    def swap(self, configuration: "Configuration | None") -> "Configuration | None":
        """Put a configuration in force, or None for the next use to look for one; return the one before."""
        before = self._chosen.get("")
        if configuration is None:
            self._chosen.clear()
        else:
            self._chosen[""] = configuration
        return before

    @property
    def source(self) -> "Source":
        """The source of the configuration."""
        return self.configuration.source

    @property
    def settings(self) -> Mapping[str, Any]:
        """The CACHES dict in force."""
        return self.source.caches

    def __getitem__(self, alias: str) -> "BaseCache":
        """Return the cache of this alias: the same handle each time, for all threads.

        In a running Django it is the handle that ``django.core.cache.caches`` gives.

        Raises:
            InvalidCacheBackendError: there is no such alias.
            ConfigurationError: on first use, a configuration that was found is wrong.
        """
        try:
            return self._chosen[""].handles[alias]
        except KeyError:
            return self.configuration.handle(alias)

    def typed(self, alias: str, kind: type[C]) -> C:
        """Return the cache of this alias as one of a class, whose own methods type checkers then know.

        Args:
            alias: its name.
            kind: the class, such as ``storeroom.RedisCache``, or one that it is derived from.

        Raises:
            TypeError: the alias's BACKEND is another class.
            InvalidCacheBackendError: there is no such alias.
        """
        cache = self[alias]
        if not isinstance(cache, kind):
            path = f"{type(cache).__module__}.{type(cache).__qualname__}"
            raise TypeError(
                f"CACHES[{alias!r}]['BACKEND'] is {path!r}, which is no {kind.__qualname__}. Name the class that is "
                "configured in caches.typed(), or a common base of all that may be, such as storeroom.base.BaseCache."
            )
        return cache

    def __contains__(self, alias: object) -> bool:
        return alias in self.settings

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def all(self, initialized_only: bool = False) -> "list[BaseCache]":
        """Return the caches of all aliases; with `initialized_only` those alone that were used already."""
        return self.configuration.opened() if initialized_only else [self[alias] for alias in self]

    def close_all(self) -> None:
        """End a unit of work, as Django does after each request: close() of every cache used so far."""
        chosen = self._chosen.get("")
        for handle in chosen.opened() if chosen is not None else ():
            handle.close()

    def __repr__(self) -> str:
        chosen = self._chosen.get("")  # a repr looks for no configuration
        return f"<storeroom.caches: {'not used yet' if chosen is None else chosen.source}>"


def _find() -> "Configuration":
    from storeroom.registry import configuration, sources  # noqa: PLC0415 -- loaded by programs that use a cache

    source = sources.find_source()
    if source.name == configuration.DJANGO:
        return _DjangoConfiguration()
    return configuration.OwnConfiguration(source)


class _DefaultCache:
    """Stands for ``caches["default"]``, whichever cache that is at the moment of use.

    A call through it costs some tenths of a microsecond more than one of ``caches["default"]``, which a busy loop may
    fetch beforehand. Special names are not looked up there: a tool that inspects a module does not cause a
    configuration to be chosen.
    """

    __slots__ = ()
    __module__ = "storeroom.registry"  # pickles name it

    def __getattribute__(self, name: str) -> Any:
        # Python 3.11 takes twice as long to come to __getattr__().
        if not name.startswith("__"):
            return getattr(caches["default"], name)
        if name == "__class__":  # asked for by isinstance(): it passes for a BaseCache, as the type checker is told
            return import_module("storeroom.base").BaseCache
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(caches["default"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(caches["default"], name)

    def __contains__(self, key: object) -> bool:
        return key in caches["default"]

    def __eq__(self, other: object) -> bool:
        return self is other or caches["default"] == other

    def __hash__(self) -> int:
        return hash(caches["default"])

    def __reduce__(self) -> str:
        """Pickle as the name that it is: another process has its own default cache."""
        return "cache"

    def __repr__(self) -> str:
        return repr(caches).replace("caches", "cache", 1)


caches: Final = CacheHandler()
configure: Final = caches.configure

if TYPE_CHECKING:
    cache: BaseCache
else:
    cache = _DefaultCache()
