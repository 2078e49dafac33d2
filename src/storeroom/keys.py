"""From the key that a caller types to the storage key, and back.

A storage key is the storage's name of an entry: ``KEY_PREFIX:VERSION:key`` by default, or the result of a KEY_FUNCTION.
A KeySpace is the set of all storage keys that one cache can make: ``clear()`` removes these and ``keys()`` lists them,
so that several caches can share one storage.
"""

from _blake2 import blake2b  # the C module alone: ``hashlib`` would load OpenSSL
from _contextvars import ContextVar
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final, TypeAlias

from storeroom.exceptions import ConfigurationError

__all__ = [
    "CLEARED",
    "FENCE_PREFIX",
    "LOCK_PREFIX",
    "TAG_PREFIX",
    "KeyFunction",
    "KeySpace",
    "check_version",
    "default_key_func",
    "escaped",
    "get_key_func",
    "shorten",
]

KeyFunction: TypeAlias = Callable[[Any, str, Any], str]

LOCK_PREFIX: Final = "\x00lock\x00"
"""The prefix of the storage keys of locks. No program's key becomes such a one, see escaped(), so keys() and clear()
pass them by; a storage that bounds itself keeps them out of its bounds."""

FENCE_PREFIX: Final = "\x00fence\x00"
"""The prefix of the storage keys of counters of fencing tokens."""

TAG_PREFIX: Final = "\x00tag\x00"
"""The prefix of the storage keys of tags' versions. A storage that bounds itself bounds them apart, so that they evict
no entry; clear() removes them."""

# No program uses these on purpose, so that the text around them is the key function's.
_KEYS: Final = ("kq7z3xw9", "jv2m8tpc", "hd5n4srb", "wg6f1yul", "xe9k3zoq", "ya4j7vmi")
_VERSION: Final = 918273645
_OTHER_VERSION: Final = 736450918

_ODD_KEYS: Final = ("", f"{_KEYS[0]} A:%/\n\x7f\x00\u00e9\u9375", _KEYS[0] * 1000)
"""Keys that many functions hash or mend: empty, not plain text, and long."""

_OPAQUE: Final = ("", "", "", False)

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
    digest = blake2b(storage_key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{storage_key[: limit - len(digest) - 1]}#{digest}"


def escaped(storage_key: str) -> str:
    r"""Return the storage key as storages get it: no text of a program's is the name of a lock, a tag or a count.

    Internal names begin with one NUL and a letter. A storage key that begins with NULs gets one more of them.

    >>> escaped("shop:1:user"), escaped("\x00lock\x00door")
    ('shop:1:user', '\x00\x00lock\x00door')
    """
    return f"\x00{storage_key}" if storage_key[:1] == "\x00" else storage_key


def _is_internal(storage_key: str) -> bool:
    return storage_key[:1] == "\x00" and storage_key[1:2] != "\x00"


class KeySpace:
    """The storage keys that one key function makes with one prefix, at this moment.

    The function is tried out with some keys and versions, to see the text that it puts before, between and after
    version and key. Three kinds of functions come of it. One that is *reversible* lets keys pass as they are, behind
    the version or without one. Of one
    that is not, and puts the same text with the version before every key, the cache's storage keys are known, and the
    keys are not. All that another makes, such as a hash of everything, or of long keys, `is_opaque`.

    Attributes:
        is_reversible: whether storage keys can be turned back into keys.
        make: makes the storage key of a key and a version; None where the function refuses the key.
        is_opaque: whether nobody can tell this cache's storage keys from those of others.
        sample: the storage key of a key that no program uses: another one at another moment tells that the function
            depends on more than its arguments.
    """

    __slots__ = ("_between", "_end", "_start", "is_opaque", "is_reversible", "make", "sample")

    def __init__(self, key_func: KeyFunction, key_prefix: str) -> None:
        """Learn the shape of the storage keys that `key_func` makes with `key_prefix` now."""
        self.make = partial(_made, key_func, key_prefix)
        start, between, end, self.is_reversible = self._shape(key_func, key_prefix)
        self.is_opaque = not (between or self.is_reversible)
        self._start, self._between, self._end = escaped(start), between, end

    def _shape(self, key_func: KeyFunction, key_prefix: str) -> tuple[str, str, str, bool]:
        """Return the texts before the version, between it and the key, and behind; and whether keys pass unchanged."""
        self.sample = ""
        if key_func is default_key_func:
            return f"{key_prefix}:", ":", "", True
        tried = {key: self.make(key, _VERSION) for key in (*_KEYS, *_ODD_KEYS)}
        plain, made = _KEYS[0], {key: storage_key for key, storage_key in tried.items() if storage_key is not None}
        # A key that the function refuses is never stored; these it has to take.
        if not made.keys() >= set(_KEYS):
            return _OPAQUE
        self.sample = made[plain]
        if (shape := self._shape_without_version(made)) is not None:
            return shape
        start, _, rest = made[plain].partition(str(_VERSION))
        other = self.make(plain, _OTHER_VERSION)
        head, other_head = f"{start}{_VERSION}", f"{start}{_OTHER_VERSION}"
        if other is None or not all(storage_key.startswith(head) for storage_key in made.values()):
            return _OPAQUE
        between, has_key, end = rest.partition(plain)
        is_reversible = bool(has_key) and other == f"{other_head}{rest}"
        if not is_reversible or any(made[key] != f"{head}{between}{key}{end}" for key in made):
            between, end, is_reversible = _common([text[len(head) :] for text in made.values()]), "", False
        # With nothing in between, or a digit, version 1 of key "23" and version 12 of key "3" are the same.
        if not between or between[0].isdecimal() or not other.startswith(f"{other_head}{between}"):
            return _OPAQUE
        return start, between, end, is_reversible

    def _shape_without_version(self, made: dict[str, str]) -> tuple[str, str, str, bool] | None:
        """Return the shape of a function that leaves the version out: all versions have the same storage keys."""
        start, has_key, end = self.sample.partition(_KEYS[0])
        is_plain = all(storage_key == f"{start}{key}{end}" for key, storage_key in made.items())
        if not has_key or not is_plain or self.make(_KEYS[0], _OTHER_VERSION) != self.sample:
            return None
        return start, "", end, True

    def lists(self, version: object) -> bool:
        """Tell whether the storage keys of a version can be turned back: not if it is written in another way."""
        if not self.is_reversible or not self.sample:
            return self.is_reversible
        return self.make(_KEYS[0], version) == self.sample.replace(str(_VERSION), str(version), 1)

    def head(self, version: object) -> str:
        """Return the prefix of every storage key of this version ("" if that is unknown)."""
        return f"{self._start}{version}{self._between}" if self._between else self._start

    def beginning(self, prefix: str, version: object) -> str:
        """Return the prefix of the storage keys of all keys of this version that begin with a prefix."""
        head = self.head(version)
        return f"{head}{prefix}" if head else escaped(prefix)

    def start(self) -> str:
        """Return the prefix of every storage key of any version ("" if that is unknown)."""
        return self._start

    def caller_key(self, storage_key: str, version: object) -> str | None:
        """Return the key that a caller typed, or None if the storage key is not of this version."""
        head = self.head(version)
        if not self.is_reversible or not storage_key.startswith(head) or not storage_key.endswith(self._end):
            return None
        if not head and storage_key[:1] == "\x00":
            return None if _is_internal(storage_key) else storage_key[1 : len(storage_key) - len(self._end)]
        return storage_key[len(head) : len(storage_key) - len(self._end)]

    def version_of(self, storage_key: str) -> int | None:
        """Return the version of a storage key of this cache's; None if the shape of the keys does not tell."""
        version = storage_key[len(self._start) :].partition(self._between)[0] if self._between else ""
        is_ours = storage_key.startswith(self._start) and version.removeprefix("-").isdecimal()
        return int(version) if is_ours else None

    def family(self, storage_key: str) -> str | None:
        """Return a beginning of this key that only keys have which are this cache's own if it is; None if unknown."""
        if self.is_opaque:
            return ""
        if self._end or not self._between:
            return None
        version = storage_key[len(self._start) :].partition(self._between)[0]
        return f"{self._start}{version}{self._between}"

    def owns(self, storage_key: str) -> bool:
        """Tell whether this cache made the storage key, in whatever version.

        A version is a whole number here, so that prefix "a" does not own the keys of prefix "a:b". Of an opaque
        function, every key but an internal one is taken for its own. The versions of a cache's tags are its own, too.
        """
        storage_key = storage_key.removeprefix(TAG_PREFIX)
        if self.is_opaque:
            return not _is_internal(storage_key)
        if not storage_key.startswith(self._start) or not storage_key.endswith(self._end):
            return False
        if not self._between:
            return bool(self._start) or not _is_internal(storage_key)
        version, separator, _ = storage_key[len(self._start) :].partition(self._between)
        return bool(separator) and version.removeprefix("-").isdecimal()


CLEARED: Final = ContextVar["KeySpace | None"]("CLEARED", default=None)
"""The key space that a clear() in progress removes: that of the moment when it was called."""


def _made(key_func: KeyFunction, key_prefix: str, key: str, version: object) -> str | None:
    """Return the storage key, or None if the function has none for this key."""
    try:
        storage_key = key_func(key, key_prefix, version)
    except Exception:  # noqa: BLE001 -- a program's own function may refuse a key in any way
        return None
    return storage_key if isinstance(storage_key, str) else None


def _common(texts: list[str]) -> str:
    """Return the beginning that all texts share, up to its last separator: what follows may be a hash's."""
    first, last = min(texts), max(texts)
    end = next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    while end and first[end - 1].isalnum():
        end -= 1
    return first[:end]
