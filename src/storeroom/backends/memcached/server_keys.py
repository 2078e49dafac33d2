"""From a storage key to the key that a server sees.

A server takes up to 250 bytes without white space and control characters; any other storage key is hashed. Before it
stands the generation, a random word that changes with each clear(): the entries of an earlier one are never asked for
again, and the server drops them when it needs the room.

Source: generations, there "namespaces", are from https://github.com/memcached/memcached/wiki/ProgrammingTricks.
"""

import hashlib
import re
import secrets
from collections.abc import Collection
from typing import Final

from storeroom import storage
from storeroom.keys import LOCK_PREFIX

__all__ = ["generation_key", "is_token", "new_token", "server_key", "server_keys"]

_TOKEN_BYTES: Final = 9
"""72 random bits: among a million clear() of one cache, two are alike once in ten billion such caches."""

_LONGEST: Final = 200
"""Characters of a key that stands for itself, behind a token."""

_ODD: Final = re.compile(r'[^!-"$-~]')

_READABLE: Final = 100
"""Characters of a hashed key that stay readable, for a look at the server."""

is_token: Final = re.compile(rb"[A-Za-z0-9_-]{12}").fullmatch
"""Tell whether bytes can be a generation."""


def new_token() -> str:
    """Return a generation that has never been."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def generation_key(key_prefix: str) -> bytes:
    """Return the server's key of the generation entry of a prefix. No other key begins so."""
    is_plain = len(key_prefix) <= _LONGEST and _is_plain(key_prefix)
    return f"#generation:{key_prefix if is_plain else _hashed(key_prefix)}".encode()


def server_key(token: str, storage_key: str) -> bytes:
    """Return the server's key of an entry in a generation.

    Two storage keys never share one: only the key of a hashed one holds a "#". A lock belongs
    to no generation, as clear() passes it by.
    """
    text = storage_key  # of a plain one: see _is_plain(), which every operation would call
    if text.isascii() and text.isprintable() and " " not in text and "#" not in text and len(text) <= _LONGEST:
        return f"{token}{storage_key}".encode()
    if storage_key.startswith(LOCK_PREFIX):
        return f"#lock:{_hashed(storage_key.removeprefix(LOCK_PREFIX))}".encode()
    return f"{token}{_hashed(storage_key)}".encode()


def server_keys(token: str, storage_keys: Collection[str]) -> list[bytes]:
    """Return the server's keys of entries in a generation."""
    names = storage.batches.encoded(token, storage_keys, _LONGEST, False)
    return [server_key(token, storage_key) for storage_key in storage_keys] if names is None else names


def _is_plain(text: str) -> bool:
    """Tell whether a text is printable ASCII without spaces and "#", which tells a hash."""
    return text.isascii() and text.isprintable() and " " not in text and "#" not in text


def _hashed(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{_ODD.sub('_', key[:_READABLE])}#{digest}"
