"""The front door: ``caches["alias"]``, the proxy ``cache``, and ``configure()``.

A *configuration* is a checked CACHES with the handles built so far. It is replaced as
a whole, never changed: a thread that reads while another calls ``configure()`` sees
the old one or the new one.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError

if TYPE_CHECKING:
    from storeroom.base import BaseCache
    from storeroom.registry.aliases import Alias
    from storeroom.registry.sources import Source

__all__ = ["CacheHandler", "Configuration", "OwnConfiguration", "backend_class", "cache", "caches", "configure"]


class Configuration(Protocol):
    """What answers for the aliases: Storeroom's own handles, or Django's."""

    @property
    def source(self) -> "Source":
        """Where the CACHES dict was found, and the dict itself."""

    @property
    def handles(self) -> "Mapping[str, BaseCache]":
        """Alias to handle, for those that handle() need not be asked for."""

    def handle(self, alias: str) -> "BaseCache":
        """Return the alias's handle; raise InvalidCacheBackendError if there is no such alias."""

    def opened(self) -> "list[BaseCache]":
        """Return the handles built so far."""


class OwnConfiguration:
    """A checked CACHES dict: one handle per alias for the whole process, built on first use."""

    __slots__ = ("_aliases", "handles", "source")

    def __init__(self, source: "Source") -> None:
        """Check the whole of the source; nothing is opened.

        Raises:
            ConfigurationError: something in it is wrong.
        """
        from storeroom.registry.aliases import read_caches  # noqa: PLC0415 -- the caches' own modules, loaded on first use

        self.source = source
        try:
            self._aliases: dict[str, Alias] = read_caches(source.caches, source.directory)
        except ConfigurationError as error:
            if source.name == _CONFIGURE:
                raise
            raise type(error)(f"{error} (The configuration is that of {source}.)") from error
        self.handles: dict[str, BaseCache] = {}

    def handle(self, alias: str) -> "BaseCache":
        """See Configuration.handle()."""
        if alias not in self._aliases:
            raise _unknown_alias(alias, self.source)
        # No lock: a class's __init__ runs foreign code, which may come back here. Of several
        # handles built at once all threads get the one that is kept; the engine is the same.
        handle = self.handles.get(alias)
        return self.handles.setdefault(alias, self._aliases[alias].build()) if handle is None else handle

    def opened(self) -> "list[BaseCache]":
        """See Configuration.opened()."""
        return list(self.handles.values())


class _DjangoConfiguration:
    """A running Django's caches: whatever its settings say at this moment, and its own handles.

    Django keeps a handle per thread and async context, and forgets them when a test
    overrides the settings; so none is kept here.
    """

    handles: Mapping[str, "BaseCache"] = MappingProxyType({})

    @property
    def source(self) -> "Source":
        from storeroom.registry.sources import find_source  # noqa: PLC0415 -- loaded when it was found

        return find_source()

    def handle(self, alias: str) -> "BaseCache":
        handler = _django_handler()
        if alias not in handler.settings:
            raise _unknown_alias(alias, self.source)
        handle: BaseCache = handler[alias]
        return handle

    def opened(self) -> "list[BaseCache]":
        handles: list[BaseCache] = _django_handler().all(initialized_only=True)
        return handles


def _django_handler() -> Any:
    """Return ``django.core.cache.caches``; only where Django runs."""
    from importlib import import_module  # noqa: PLC0415 -- most programs don't run Django

    return import_module("django.core.cache").caches


_CONFIGURE: Final = "storeroom.configure()"


def _unknown_alias(alias: str, source: "Source") -> InvalidCacheBackendError:
    from storeroom.wording import nearest  # noqa: PLC0415 -- loaded when the aliases were read

    return InvalidCacheBackendError(
        f"There is no cache {alias!r} in CACHES; the aliases are {', '.join(map(repr, source.caches))}."
        f"{nearest(str(alias), source.caches)} (The configuration is that of {source}.)"
    )


class CacheHandler:
    """The caches by alias. Their configuration is found on first use, unless configure() gives it before."""

    def __init__(self) -> None:
        """Begin without a configuration."""
        # At most one entry: setdefault() is how the first of several threads wins without a lock,
        # which could not be held while the modules of backends are imported.
        self._chosen: dict[str, Configuration] = {}

    @property
    def configuration(self) -> Configuration:
        """The configuration in force; found now if there is none yet."""
        chosen = self._chosen.get("")
        return self._chosen.setdefault("", _find()) if chosen is None else chosen

    def configure(self, caches: Mapping[str, Mapping[str, Any]]) -> None:
        """See storeroom.configure()."""
        from storeroom.registry.sources import Source  # noqa: PLC0415 -- loaded by programs that use a cache

        self.swap(OwnConfiguration(Source(_CONFIGURE, "", caches)))

    def swap(self, configuration: Configuration | None) -> Configuration | None:
        """Put a configuration in force, and return the one before: for tests, which put that back.

        None stands for none: the next use looks for one.
        """
        before = self._chosen.get("")
        if configuration is None:
            self._chosen.clear()
        else:
            self._chosen[""] = configuration
        return before

    @property
    def source(self) -> "Source":
        """Where the configuration comes from."""
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

    def __contains__(self, alias: object) -> bool:
        return alias in self.settings

    def __iter__(self) -> Iterator[str]:
        """Iterate over the aliases."""
        return iter(self.settings)

    def __len__(self) -> int:
        return len(self.settings)

    def all(self, initialized_only: bool = False) -> "list[BaseCache]":
        """Return the caches of all aliases, or only those that were used already."""
        return self.configuration.opened() if initialized_only else [self[alias] for alias in self]

    def close_all(self) -> None:
        """End a unit of work, as Django does after each request: close() of every cache used so far."""
        chosen = self._chosen.get("")
        for handle in chosen.opened() if chosen is not None else ():
            handle.close()

    def __repr__(self) -> str:
        return f"<storeroom.caches: {self._described()}>"

    def _described(self) -> str:
        """Say where the configuration comes from, without looking for one."""
        chosen = self._chosen.get("")
        return "not used yet" if chosen is None else str(chosen.source)


def _find() -> Configuration:
    from storeroom.registry import sources  # noqa: PLC0415 -- loaded by programs that use a cache

    source = sources.find_source()
    return _DjangoConfiguration() if source.name == sources.DJANGO else OwnConfiguration(source)


class _DefaultCache:
    """Stands for ``caches["default"]``, whatever that is at the moment of use.

    A call through it costs some tenths of a microsecond more than one of
    ``caches["default"]``, which a busy loop may fetch beforehand.

    Special names are not looked up there: a tool that inspects a module does not cause
    a configuration to be chosen.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        # Python 3.11 takes twice as long to come to __getattr__().
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        return getattr(caches["default"], name)

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

    @property  # type: ignore[misc]  # what isinstance() asks
    def __class__(self) -> type:
        """Pass for a BaseCache, as the type checker is told."""
        from storeroom.base import BaseCache  # noqa: PLC0415 -- only where it is asked for

        return BaseCache

    def __reduce__(self) -> str:
        """Pickle as the name that it is: another process has its own default cache."""
        return "cache"

    def __repr__(self) -> str:
        return f"<storeroom.cache: {caches._described()}>"  # noqa: SLF001 -- its own handler


caches: Final = CacheHandler()
_handler: Final = caches  # for configure(), whose parameter has the name that Django's setting has

if TYPE_CHECKING:
    cache: BaseCache
else:
    cache = _DefaultCache()


def configure(caches: Mapping[str, Mapping[str, Any]]) -> None:
    """Set the caches of this program, in place of whatever they were.

    Everything is checked now; storages are opened on first use. Handles of the
    configuration before, where somebody holds one, go on working.

    Args:
        caches: Django's CACHES: alias to its dict, with BACKEND, LOCATION, TIMEOUT,
            KEY_PREFIX, VERSION, KEY_FUNCTION and OPTIONS. BACKEND may be a class itself.

    Raises:
        ConfigurationError: something is wrong; the configuration before stays in force.
    """
    _handler.configure(caches)


def backend_class(alias: str, written: Mapping[str, Any]) -> type[Any]:
    """Return the class that the alias's BACKEND names: see aliases.backend_class()."""
    from storeroom.registry import aliases  # noqa: PLC0415 -- loaded by programs that use a cache

    return aliases.backend_class(alias, written)
