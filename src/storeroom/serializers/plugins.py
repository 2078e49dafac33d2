"""Serializers and compressors that a program brings itself, as an object, a class or a dotted path.

Their frames carry a fingerprint: the bytes of another one might else be read as a different value, without error.
"""

from _blake2 import blake2b  # the C module alone
from importlib import import_module
from types import ModuleType
from typing import Any, Final, Protocol

from storeroom.exceptions import ConfigurationError
from storeroom.serializers.frames import type_name
from storeroom.wording import nearest

__all__ = ["Compressor", "Serializer", "fingerprint", "load"]

_FINGERPRINT_SIZE: Final = 4
"""Bytes: enough to tell apart the few that one store ever sees."""


class Serializer(Protocol):
    """An object for ``OPTIONS["serializer"]``, in place of a name; a module such as ``dill`` fits too."""

    def dumps(self, value: Any, /) -> bytes:
        """Return the value's bytes; raise anything if it has none."""

    def loads(self, data: bytes, /) -> Any:
        """Return the value; raise anything if the data is damaged."""


class Compressor(Protocol):
    """An object for ``OPTIONS["compressor"]``, in place of a name."""

    def compress(self, data: bytes, /) -> bytes:
        """Return the data, smaller if it can be."""

    def decompress(self, data: bytes, /) -> bytes:
        """Return the data as it was; raise anything if it is damaged."""


def load(option: str, given: Any, names: tuple[str, ...], methods: tuple[str, str]) -> Any:
    """Return the object that an option gives by itself, its class or its dotted path, or raise ConfigurationError."""
    expectation = (
        f"expected {', '.join(map(repr, names))}, or an object, class or dotted path "
        f"with the methods {methods[0]}() and {methods[1]}()."
    )
    shown = repr(given) if isinstance(given, str) else f"of type {type_name(type(given))!r}"
    try:
        found = _imported(given) if isinstance(given, str) else given
        found = found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError) as error:
        hint = nearest(given, names) if isinstance(given, str) else ""
        raise ConfigurationError(f"{option} is {shown}: {error}; {expectation}{hint}") from error
    if not all(callable(getattr(found, method, None)) for method in methods):
        raise ConfigurationError(f"{option} is {shown}; {expectation}")
    return found


def fingerprint(implementation: Any) -> bytes:
    """Return the fingerprint in the frames of a serializer or compressor: a hash of its dotted path."""
    is_module = isinstance(implementation, ModuleType)
    path = implementation.__name__ if is_module else type_name(type(implementation))
    return blake2b(path.encode(), digest_size=_FINGERPRINT_SIZE).digest()


def _imported(path: str) -> Any:
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ImportError("neither a known name nor a dotted path")
    return getattr(import_module(module_name), name)
