"""From a storage key to the key that a server sees.

A server takes up to 250 bytes without white space and control characters; any other storage key is hashed. Before it
stands the generation, a random word that changes with each clear(): the entries of an earlier one are never asked for
again, and the server drops them when it needs the room.

Source: generations, there "namespaces", are from https://github.com/memcached/memcached/wiki/ProgrammingTricks.
"""

import hashlib
import re
import secrets
from typing import Final

from storeroom.keys import LOCK_PREFIX

__all__ = ["generation_key", "is_token", "new_token", "server_key"]

_TOKEN_BYTES: Final = 9
"""72 random bits: among a million clear() of one cache, two are alike once in ten billion such caches."""

_PLAIN: Final = re.compile(r'[!-"$-~]{0,200}').fullmatch
"""A key that stands for itself: printable ASCII but "#", which tells a hash, and short enough behind a token."""

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
    return f"#generation:{key_prefix if _PLAIN(key_prefix) else _hashed(key_prefix)}".encode()


def server_key(token: str, storage_key: str) -> bytes:
    """Return the server's key of an entry in a generation.

    Two storage keys never share one: only the key of a hashed one holds a "#". A lock belongs
    to no generation, as clear() passes it by.
    """
    if _PLAIN(storage_key):
        return f"{token}{storage_key}".encode()
    if storage_key.startswith(LOCK_PREFIX):
        return f"#lock:{_hashed(storage_key.removeprefix(LOCK_PREFIX))}".encode()
    return f"{token}{_hashed(storage_key)}".encode()


def _hashed(key: str) -> str:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{_ODD.sub('_', key[:_READABLE])}#{digest}"
