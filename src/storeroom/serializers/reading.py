"""The form of stored bytes, for people: by which serializer, compressor and secret they were made.

Nothing of the value is told, and nothing of a secret but its position among those that are configured.
"""

from pickle import UnpicklingError
from typing import Any, Final, NamedTuple

from storeroom.serializers import frames
from storeroom.serializers.codec import SignedCodec
from storeroom.serializers.compressors import FORMATS
from storeroom.storage.envelope import KIND_BYTES, terms_of
from storeroom.storage.interruptions import value_or
from storeroom.storage.trials import names_in

__all__ = ["Form", "form_of", "reason_of"]

UNSIGNED: Final = "not signed"
CURRENT: Final = "signed with the current secret"
FOREIGN: Final = "signed with another secret, or for another key or context, or altered since"
UNVERIFIED: Final = "signed, and no secret is set here"

_OWN: Final = "a serializer of a program's own"

_SERIALIZERS: Final = {
    **dict.fromkeys((frames.TEXT, frames.SURROGATES), "none: text"),
    frames.BYTES: "none: bytes",
    **dict.fromkeys((frames.NONE, frames.TRUE, frames.FALSE), "none: a constant"),
    frames.FLOAT: "none: a number",
    frames.BIG_INTEGER: "none: a number",
    frames.PICKLE: "pickle",
    frames.BUFFERS: "pickle",
    frames.SAFE_PICKLE: "pickle of plain data",
    frames.JSON: "json",
    frames.MSGPACK: "msgpack",
    frames.CUSTOM_SERIALIZER: _OWN,
}

_COMPRESSORS: Final = {
    **{form.prefix: name for name, form in FORMATS.items()},
    frames.CUSTOM_COMPRESSOR: "a compressor of a program's own",
}

_PICKLES: Final = (frames.PICKLE, frames.BUFFERS, frames.SAFE_PICKLE, b"\x80")
_MOVED: Final = (AttributeError, ImportError)


class Form(NamedTuple):
    """The form of an entry's bytes, in words."""

    serializer: str
    compressor: str
    signature: str
    names: frozenset[str] = frozenset()  # classes and functions that a pickle needs


def form_of(codec: Any, frame: bytes, storage_key: str) -> Form:
    """Return the form of stored bytes, whether or not the codec can read them."""
    signature = UNSIGNED
    if frame[:1] == frames.SIGNED:
        signature = _signature_of(codec, frame, storage_key)
        frame = frame[KIND_BYTES - 1 :]
    if (terms := terms_of(memoryview(frame))) is not None:
        frame = frame[terms[1] :]
    compressor, first = "none", frame[:1]
    if first in _COMPRESSORS:
        compressor, frame = _COMPRESSORS[first], value_or(b"", _beginning_of, frame)
        first = frame[:1]
    names = frozenset(names_in(frame)) if first in _PICKLES else frozenset()
    return Form(_serializer_of(first), compressor, signature, names)


def _signature_of(codec: Any, frame: bytes, storage_key: str) -> str:
    if not isinstance(codec, SignedCodec):
        return UNVERIFIED
    number, count = codec.secret_of(frame, storage_key)
    if number is None:
        return FOREIGN
    return f"signed with a former secret, number {number + 1} of {count}" if number else CURRENT


def _beginning_of(frame: bytes) -> bytes:
    """Return the beginning of a compressed frame: enough to tell its serializer, and its classes as a rule."""
    form: Any = next(known for known in FORMATS.values() if frame.startswith(known.prefix))
    beginning: bytes = form.decompressor_of(form.library()).decompress(frame[len(form.prefix) :], 2**16)
    return beginning


def _serializer_of(first: bytes) -> str:
    if not first:
        return "unknown"
    if first in b"-0123456789":
        return "none: a number"
    return _SERIALIZERS.get(first, f"unknown: its bytes begin with 0x{first.hex()}")


def reason_of(error: Exception, form: Form, codec: Any) -> str:
    """Return why bytes of a form cannot be read, as a part of a sentence."""
    if form.signature in (FOREIGN, UNVERIFIED):
        return f"it is {form.signature}"
    if isinstance(codec, SignedCodec) and form.signature == UNSIGNED:
        return "it is not signed, and a secret is set here"
    cause = next((each for each in (error, error.__cause__) if isinstance(each, _MOVED)), None)
    if cause is not None:
        named = ", ".join(sorted(form.names)) or "a class"
        return f"{named} has moved or changed since it was stored ({type(cause).__name__})"
    return _doubt(error, form)


def _doubt(error: Exception, form: Form) -> str:
    """Do as reason_of() where neither signatures nor classes are to blame."""
    if isinstance(error.__cause__, UnpicklingError) and form.names:
        return f"OPTIONS['allowed_types'] does not list all that it needs: {', '.join(sorted(form.names))}"
    if form.serializer == _OWN:
        return f"{_OWN} has written it, which is another one here"
    if form.serializer.startswith("unknown"):
        return f"another program or serializer has written it (its serializer is {form.serializer})"
    if error.__cause__ is not None or not str(error):
        return f"its bytes are damaged, or of another serializer ({type(error.__cause__ or error).__name__})"
    text = str(error).removeprefix("Stored bytes cannot be read").strip(":. ")
    return f"{text[:1].lower()}{text[1:]} (serializer: {form.serializer})"
