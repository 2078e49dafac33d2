"""Values as local memory keeps them: immutable ones as they are, the others as pickles."""

from pickle import HIGHEST_PROTOCOL, dumps, loads
from typing import Any, Final

from storeroom.eviction import ENCODED, Pinned
from storeroom.exceptions import SerializationError
from storeroom.storage.copies import IMMUTABLE
from storeroom.storage.envelope import Envelope

__all__ = ["WITH_CONDITIONS", "encode", "frozen", "thawed"]


class Enveloped(bytes):
    """The pickle of an envelope, which is told from those of other values by its type."""

    __slots__ = ()


class Leased(Enveloped, Pinned):
    """One that says that a value is being computed: eviction would let another compute it, too."""

    kept: Envelope | None = None
    """The envelope itself, where it is kept as it is; there are no bytes then."""


WITH_CONDITIONS: Final = frozenset({Enveloped, Leased, Envelope})


def frozen(value: Any, *, copies: bool) -> tuple[Any, Any]:
    """Return a value and its bytes as an entry keeps them; ENCODED in place of a value that has bytes.

    The hot path has to look at an envelope, whatever it holds: one that is kept as it is stands in the bytes' place.

    Raises:
        SerializationError: it cannot be pickled.
    """
    if type(value) is Envelope:
        if copies and type(value.value) not in IMMUTABLE:
            kind = Leased if value.leased_until else Enveloped
            return ENCODED, kind(encode(value))
        if not value.leased_until:
            return ENCODED, value
        leased = Leased()
        leased.kept = value
        return ENCODED, leased
    if not copies or type(value) in IMMUTABLE:
        return value, None
    return ENCODED, encode(value)


def thawed(encoded: Any) -> Any:
    """Return the object that frozen() has made bytes of, or the envelope in their place."""
    if type(encoded) is Envelope:
        return encoded
    if type(encoded) is Leased and encoded.kept is not None:
        return encoded.kept
    return loads(encoded)


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
