"""Values as local memory keeps them: immutable ones as they are, the others as pickles."""

from pickle import HIGHEST_PROTOCOL, dumps
from typing import Any, Final

from storeroom.eviction import ENCODED, Pinned
from storeroom.exceptions import SerializationError
from storeroom.storage.copies import IMMUTABLE
from storeroom.storage.envelope import Envelope

__all__ = ["WITH_CONDITIONS", "Enveloped", "encode", "frozen"]


class Enveloped(bytes):
    """The bytes of an envelope, which are told from those of other values by their type."""

    kept: Envelope | None = None
    """The envelope itself, where it is kept as it is; there are no bytes then."""


class Leased(Enveloped, Pinned):
    """Those of one that says that a value is being computed: eviction would let another compute it, too."""


WITH_CONDITIONS: Final = frozenset({Enveloped, Leased})


def frozen(value: Any, *, copies: bool) -> tuple[Any, bytes | None]:
    """Return a value and its bytes as an entry keeps them; ENCODED in place of a value that has bytes.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if type(value) is Envelope:
        # The hot path has to look at it, whatever it holds.
        kind = Leased if value.leased_until else Enveloped
        if copies and type(value.value) not in IMMUTABLE:
            return ENCODED, kind(encode(value))
        encoded = kind()
        encoded.kept = value
        return ENCODED, encoded
    if not copies or type(value) in IMMUTABLE:
        return value, None
    return ENCODED, encode(value)


def encode(value: Any) -> bytes:
    """Return the pickle of a value.

    Raises:
        SerializationError: it has none.
    """
    try:
        return dumps(value, HIGHEST_PROTOCOL)
    except Exception as error:
        # Whatever a class's own __reduce__ raises, the caller's mistake is the same.
        raise SerializationError(
            f"A value of type {type(value).__module__}.{type(value).__qualname__} cannot be pickled ({error}); "
            "cache the data in it rather than the object, or set OPTIONS['copy'] to False to keep the object itself."
        ) from error
