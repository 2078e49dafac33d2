r"""The shape of a function's keys, by which they are found among all keys of a cache.

>>> shape = Shape.of_parts(["shop.load(id=", Field("id", "id"), ")"])
>>> shape.beginning, shape.matches("shop.load(id=7)"), shape.matches("shop.load(id=7)#v2")
('shop.load(id=', True, False)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from storeroom.functions.templates import Field

__all__ = ["Shape"]

ENDINGS = "(?:#[^#]+){0,2}"
"""The ends that keys of methods may have: see ``classes``."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The beginning that all keys of a function have, and the pattern of the whole."""

    beginning: str
    pattern: re.Pattern[str]

    @classmethod
    def of_parts(cls, parts: Sequence[str | Field], *, separators: str = "", has_endings: bool = False) -> "Shape":
        """Return the shape of keys that are made of literal parts and fields.

        Args:
            parts: in order.
            separators: characters that no value has, as they are escaped there; "" for none.
            has_endings: whether the name of a class may stand behind.
        """
        value = f"[^{re.escape(separators)}]*" if separators else ".*"
        written = "".join(re.escape(part) if isinstance(part, str) else value for part in parts)
        literals = [part if isinstance(part, str) else None for part in (*parts, None)]
        beginning = "".join(part for part in literals[: literals.index(None)] if part is not None)
        return cls(beginning, re.compile(written + (ENDINGS if has_endings else ""), re.DOTALL))

    def matches(self, key: str) -> bool:
        """Tell whether a key is one of the function's."""
        return self.pattern.fullmatch(key) is not None
