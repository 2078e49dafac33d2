"""Pickles as django-redis writes them, of plain data: written, and read without running code.

Storeroom's own pickles of plain data name constructors of Storeroom, which django-redis does not have. These name the
standard library's classes, and are weighed as the others before a value is made of them (``serializers.weighing``).
"""

import datetime as dt
import pickle
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar, Final

from storeroom.exceptions import SerializationError
from storeroom.serializers.frames import is_markup, type_name
from storeroom.serializers.pickles import SafePickle
from storeroom.serializers.safe_types import CONSTRUCTORS

__all__ = ["PlainPickle"]

_CLASSES: Final[Mapping[tuple[str, str], Any]] = {
    **{("datetime", cls.__name__): cls for cls in (dt.date, dt.time, dt.datetime, dt.timedelta, dt.timezone)},
    ("decimal", "Decimal"): CONSTRUCTORS["new_decimal"],
    ("collections", "OrderedDict"): CONSTRUCTORS["new_ordered_dict"],
    ("builtins", "str"): CONSTRUCTORS["new_text"],
}
"""The names in a pickle, and what is called for them."""

_HEADS: Final = b"\x80\x02", b"\x80\x03", b"\x80\x04"
_HEAD: Final = b"\x80\x05"


class _Pickler(pickle.Pickler):
    """Asked about values that are no literals."""

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        named = obj if cls is type else cls
        if obj is str or (named is not str and (named.__module__, named.__qualname__) in _CLASSES):
            return NotImplemented
        if is_markup(cls):
            return str, (str.__str__(obj),)
        raise SerializationError(f"A value of type {type_name(cls)!r} is no plain data.")


class _Unpickler(pickle.Unpickler):
    """Finds these names alone."""

    owner: ClassVar[Any]

    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _CLASSES[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError("a name that is not allowed") from None


class PlainPickle(SafePickle):
    """Writes and reads plain pickles of the protocol that is asked for; None for Python's own."""

    def __init__(self, protocol: int | None) -> None:
        super().__init__()
        self._protocol = protocol
        self._unpickler = type("_Unpickler", (_Unpickler,), {"owner": self})

    def dumps(self, value: object) -> bytes:
        """Return the bytes; raise SerializationError if a part of it is no plain data."""
        stream = BytesIO()
        _Pickler(stream, self._protocol).dump(value)
        return stream.getvalue()

    def loads(self, stream: bytes, stored_bytes: int = 0) -> object:
        """Return the value; raise anything for other bytes, or too much of a value."""
        # All that one of protocol 4 may hold means the same in one of protocol 5, which is the one that is weighed.
        return super().loads(_HEAD + stream[2:] if stream.startswith(_HEADS) else stream, stored_bytes)
