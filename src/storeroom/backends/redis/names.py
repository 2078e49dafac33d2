"""The names of entries on the server.

A storage key is its name. An internal one, of a lock or of a tag's version, begins with its kind; on the server the
kind stands at the end, so that every name begins with the cache's prefix, and a user with the rights for ``app:*`` has
those for all of them. A program's key that ends like an internal name gets a NUL more.
"""

import re
from typing import Final

__all__ = ["Former", "is_former", "key_text", "literal", "on_server"]

_INTERNAL: Final = re.compile("\x00([a-z]+)\x00(.*)", re.DOTALL)
_ENDED: Final = re.compile("(.*)\x00([a-z]+)\x00(\x00*)", re.DOTALL)

_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\"})


class Former(str):
    """A storage key whose name on the server is the key itself, as it was before the kind stood at the end."""

    __slots__ = ()


def is_former(name: bytes) -> bool:
    """Tell whether a name is that of an internal key, in its former form."""
    return name[:1] == b"\x00" and name[1:2] != b"\x00"


def on_server(storage_key: str) -> str:
    """Return the name of a key that holds a NUL, as text."""
    if type(storage_key) is Former:
        return storage_key
    if (internal := _INTERNAL.fullmatch(storage_key)) is not None:
        return f"{internal[2]}\x00{internal[1]}\x00"
    return f"{storage_key}\x00" if _ENDED.fullmatch(storage_key) else storage_key


def key_text(name: bytes) -> str | None:
    """Return the storage key, or None for bytes that no cache of Storeroom's can have made."""
    try:
        text = name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    if b"\x00" in name and (ended := _ENDED.fullmatch(text)) is not None:
        return text[:-1] if ended[3] else f"\x00{ended[2]}\x00{ended[1]}"
    return text


def literal(text: str) -> str:
    """Return the pattern that matches this text alone."""
    return text.translate(_GLOB)
