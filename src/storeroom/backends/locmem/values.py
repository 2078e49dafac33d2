"""Values as local memory keeps them: immutable ones as they are, the others as pickles."""

from _pickle import loads  # the C module alone
from typing import Any, Final

from storeroom import timeouts
from storeroom.eviction import ENCODED, Pinned
from storeroom.storage.copies import IMMUTABLE, pickled
from storeroom.storage.envelope import Envelope
from storeroom.timeouts import NEVER

__all__ = ["WITH_CONDITIONS", "encode", "frozen", "is_fresh", "thawed"]


class Enveloped(bytes):
    """The pickle of an envelope, which is told from those of other values by its type."""

    fresh_until = NEVER
    """That of the envelope, if it is kept for longer than that."""


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
            encoded = kind(encode(value))
        elif value.leased_until:
            encoded = Leased()
            encoded.kept = value
        else:
            return ENCODED, value
        if value.kept_until > value.fresh_until:
            encoded.fresh_until = value.fresh_until
        return ENCODED, encoded
    if not copies or type(value) in IMMUTABLE:
        return value, None
    return ENCODED, encode(value)


def is_fresh(encoded: Any) -> bool:
    """Tell whether an envelope, in one of these forms, has a value whose own time is not over."""
    fresh_until: float = encoded.fresh_until
    return fresh_until > timeouts.now()


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
        SerializationError: it has none, or none that can be read.
    """
    return pickled(value, ", or set OPTIONS['copy'] to False to keep the object itself")
