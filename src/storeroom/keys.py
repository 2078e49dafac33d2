"""From the key that a caller types to the storage key, and back.

A storage key is the storage's name of an entry: ``KEY_PREFIX:VERSION:key`` by default, or the result of a KEY_FUNCTION.
A KeySpace is the set of all storage keys that one cache can make: ``clear()`` removes these and ``keys()`` lists them,
so that several caches can share one storage.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, TypeAlias

from storeroom.exceptions import ConfigurationError

__all__ = [
    "LOCK_PREFIX",
    "TAG_PREFIX",
    "KeyFunction",
    "KeySpace",
    "check_version",
    "default_key_func",
    "get_key_func",
    "shorten",
]

KeyFunction: TypeAlias = Callable[[Any, str, Any], str]

LOCK_PREFIX: Final = "\x00lock\x00"
"""The prefix of the storage keys of locks. No key function makes such keys, so keys() and clear() pass them by; a
storage that bounds itself keeps them out of its bounds."""

TAG_PREFIX: Final = "\x00tag\x00"
"""The prefix of the storage keys of tags' versions. A storage that bounds itself bounds them apart, so that they evict
no entry; clear() removes them."""

# No program makes such keys on purpose, so that the text around these is the key function's.
_KEY_SENTINEL: Final = "\x00key\x00"
_VERSION_SENTINEL: Final = "\x00version\x00"

_EXPECTED: Final = "expected a callable f(key, key_prefix, version)"


def default_key_func(key: Any, key_prefix: str, version: Any) -> str:
    """Join prefix, version and key with colons, exactly as Django does.

    >>> default_key_func("user:7", "shop", 2)
    'shop:2:user:7'
    """
    return f"{key_prefix}:{version}:{key}"


def get_key_func(key_func: str | KeyFunction | None) -> KeyFunction:
    """Return the function that KEY_FUNCTION names: a callable, a dotted path, or None for the default.

    Raises:
        ConfigurationError: the dotted path does not lead to a callable.
    """
    if key_func is None:
        return default_key_func
    if callable(key_func):
        return key_func
    if not isinstance(key_func, str):
        raise ConfigurationError(f"KEY_FUNCTION is a {type(key_func).__name__}; {_EXPECTED}, or its dotted path.")
    return _imported(key_func)


def _imported(key_func: str) -> KeyFunction:
    module_name, _, name = key_func.rpartition(".")
    try:
        function: KeyFunction = getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"KEY_FUNCTION is {key_func!r}, which cannot be imported ({error}); {_EXPECTED} or its dotted path, such "
            'as "app.caching.make_key".'
        ) from error
    if not callable(function):
        raise ConfigurationError(f"KEY_FUNCTION is {key_func!r}, which is a {type(function).__name__}; {_EXPECTED}.")
    return function


def check_version(version: object) -> None:
    """Raise TypeError unless this is a whole number, or its digits: clear() would not know the keys of another version.

    >>> check_version("v2")
    Traceback (most recent call last):
    TypeError: version is 'v2'; expected a whole number. Put words into the key, or into KEY_PREFIX.
    """
    if isinstance(version, bool) or not str(version).removeprefix("-").isdecimal():
        raise TypeError(f"version is {version!r}; expected a whole number. Put words into the key, or into KEY_PREFIX.")


def shorten(storage_key: str, limit: int) -> str:
    """Return a key of at most `limit` characters for the long storage key: its beginning, and 128 bits of BLAKE2b.

    >>> len(shorten("x" * 1000, 100))
    100
    """
    digest = hashlib.blake2b(storage_key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{storage_key[: limit - len(digest) - 1]}#{digest}"


class KeySpace:
    """The storage keys that one key function makes with one prefix.

    The function is called once, with sentinels, to see the text that it puts before, between and after version and key.
    Where the sentinels do not come back (it hashes, say), `is_reversible` is False.
    """

    __slots__ = ("_between", "_end", "_start", "is_reversible")

    def __init__(self, key_func: KeyFunction, key_prefix: str) -> None:
        """Learn the shape of the storage keys that `key_func` makes with `key_prefix`."""
        try:
            shape = key_func(_KEY_SENTINEL, key_prefix, _VERSION_SENTINEL)
        except Exception:  # noqa: BLE001 -- a user's function may refuse sentinels in any way; it cannot be reversed then
            shape = ""
        self._start, has_version, rest = shape.partition(_VERSION_SENTINEL)
        self._between, has_key, self._end = rest.partition(_KEY_SENTINEL)
        # With nothing in between, version 1 of key "23" and version 12 of key "3" are the same.
        self.is_reversible = bool(has_version and has_key and self._between)

    def head(self, version: object) -> str:
        """Return the prefix of every storage key of this version ("" if that is unknown)."""
        return f"{self._start}{version}{self._between}" if self.is_reversible else ""

    def start(self) -> str:
        """Return the prefix of every storage key of any version ("" if that is unknown)."""
        return self._start if self.is_reversible else ""

    def caller_key(self, storage_key: str, version: object) -> str | None:
        """Return the key that a caller typed, or None if the storage key is not of this version."""
        head = self.head(version)
        if not self.is_reversible or not storage_key.startswith(head) or not storage_key.endswith(self._end):
            return None
        return storage_key[len(head) : len(storage_key) - len(self._end)]

    def family(self, storage_key: str) -> str | None:
        """Return a beginning of this key that only keys have which are this cache's own if it is; None if unknown."""
        if not self.is_reversible:
            return ""
        if self._end:
            return None
        version = storage_key[len(self._start) :].partition(self._between)[0]
        return f"{self._start}{version}{self._between}"

    def owns(self, storage_key: str) -> bool:
        """Tell whether this cache made the storage key, in whatever version.

        A version is a whole number here, so that prefix "a" does not own the keys of prefix "a:b". Without a reversible
        function, every key but a lock's is taken for its own. The versions of a cache's tags are its own, too.
        """
        storage_key = storage_key.removeprefix(TAG_PREFIX)
        if not self.is_reversible:
            return not storage_key.startswith(LOCK_PREFIX)
        if not storage_key.startswith(self._start) or not storage_key.endswith(self._end):
            return False
        version, separator, _ = storage_key[len(self._start) :].partition(self._between)
        return bool(separator) and version.removeprefix("-").isdecimal()
