"""One alias of CACHES, read and checked, of which handles are built."""

from collections.abc import Mapping
from typing import Any

from storeroom import config, wording
from storeroom.base import BaseCache
from storeroom.config.naming import building
from storeroom.late import field, record

__all__ = ["Alias", "copied"]


def copied(params: Mapping[str, Any]) -> dict[str, Any]:
    """Copy an alias's dict and its OPTIONS: some backend classes take things out of them."""
    copy = dict(params)
    if isinstance(copy.get("OPTIONS"), Mapping):
        copy["OPTIONS"] = dict(copy["OPTIONS"])
    return copy


@record(frozen=True, slots=True)
class Alias:
    """One alias of CACHES, read and checked."""

    name: str
    backend: type[Any]
    location: Any  # as the class gets it; "" where none was given
    params: Mapping[str, Any] = field(repr=False)  # the alias's dict without BACKEND and LOCATION, as it was written
    settings: config.Settings | None  # the same, read; None for a class that is not a BaseCache, which reads its own

    def __repr__(self) -> str:
        location = wording.masked(self.location)
        return f"Alias({self.name!r}, {self.backend.__qualname__}, location={location!r}, settings={self.settings!r})"

    def build(self) -> BaseCache:
        """Return a new handle, built as ``backend(location, params)``."""
        with building(self.name):
            handle: BaseCache = self.backend(self.location, copied(self.params))
        return handle
