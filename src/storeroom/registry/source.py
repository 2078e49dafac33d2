"""A CACHES dict, not yet checked, and where it was found."""

from collections.abc import Mapping
from typing import Any, Final

from storeroom.late import field, record
from storeroom.wording import nearest

__all__ = ["CONFIGURE", "DJANGO", "EMBEDDED_DEFAULT", "Source"]

# Names of sources.
CONFIGURE: Final = "storeroom.configure()"
DJANGO: Final = "Django's settings.CACHES"
EMBEDDED_DEFAULT: Final = "the embedded default"


@record(frozen=True, slots=True)
class Source:
    """A CACHES dict, not yet checked, and where it was found."""

    name: str  # the kind of source, for people to read
    origin: str  # a path, the names of variables, a module; "" where the name says it all
    caches: Mapping[str, Any] = field(repr=False)  # alias to its dict, as written
    directory: str | None = None  # the base of a relative LOCATION that is a path; None for the current directory

    def __str__(self) -> str:
        return f"{self.name} ({self.origin})" if self.origin else self.name

    def lacking(self, alias: object) -> str:
        """Return the message that CACHES has no such alias."""
        return (
            f"There is no cache {alias!r} in CACHES; the aliases are {', '.join(map(repr, self.caches))}."
            f"{nearest(str(alias), self.caches)} (The configuration is that of {self}.)"
        )
