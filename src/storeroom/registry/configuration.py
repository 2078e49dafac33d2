"""A configuration: a checked CACHES dict, and a handle for each alias in use.

It is replaced as a whole, never changed: a thread that reads while another calls configure() sees the old one or the
new one.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError
from storeroom.registry.aliases import read_caches
from storeroom.registry.source import CONFIGURE, DJANGO, EMBEDDED_DEFAULT, Source

__all__ = ["DJANGO", "Configuration", "OwnConfiguration"]

if TYPE_CHECKING:
    from typing import Protocol

    class Configuration(Protocol):
        """The owner of the handles: a configuration of Storeroom's own, or Django."""

        @property
        def source(self) -> Source:
            """The CACHES dict, and where it was found."""

        @property
        def handles(self) -> Mapping[str, BaseCache]:
            """Alias to handle, for those that handle() need not be asked for."""

        def handle(self, alias: str) -> BaseCache:
            """Return the alias's handle; raise InvalidCacheBackendError if there is no such alias."""

        def opened(self) -> list[BaseCache]:
            """Return the handles built so far."""


class OwnConfiguration:
    """A checked CACHES dict: one handle per alias for the whole process, built on first use."""

    __slots__ = ("_aliases", "handles", "source")

    def __init__(self, source: Source) -> None:
        """Check the whole of the source, opening nothing; raise ConfigurationError if something in it is wrong."""
        self.source = source
        try:
            self._aliases = read_caches(source.caches, source.directory)
        except ConfigurationError as error:
            if source.name == CONFIGURE:
                raise
            raise type(error)(f"{error} (The configuration is that of {source}.)") from error
        self.handles: dict[str, BaseCache] = {}

    def handle(self, alias: str) -> BaseCache:
        """See Configuration."""
        if alias not in self._aliases:
            raise InvalidCacheBackendError(self.source.lacking(alias))
        # No lock: a class's __init__ runs foreign code, which may come back here. Of several
        # handles built at once all threads get the one that is kept; the engine is the same.
        handle = self.handles.get(alias)
        if handle is None:
            handle = self.handles.setdefault(alias, self._aliases[alias].build())
            if self.source.name == EMBEDDED_DEFAULT and handle.is_shared:
                import_module("storeroom.registry.embedded").note_program(self.source.origin)
        return handle

    def opened(self) -> list[BaseCache]:
        """See Configuration."""
        return list(self.handles.values())
