"""Pickles of plain data: a subset of pickle that is safe to read from anybody.

Pickle is a program that the reader runs. Here it can do three things only: build Python's own literals, look up a
constructor of safe_types.py, and call it. Two fences hold it there:

1. Before a byte is executed, the stream must consist of the few opcodes that SafePickle itself produces. ``BUILD`` is
   not among them, so nothing is given attributes; nor is ``LONG_BINPUT``, five bytes of which make the reader allocate
   gigabytes; nor any opcode of persistent ids, extension codes or old protocols.
2. The only names found are those of the constructors; no module is imported by name, except for the classes that the
   configuration lists in ``allowed_types``.

Whoever writes to the store can still forge plain values, and cost memory or time (``docs/decisions/0010`` has figures).
A secret closes that too.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

import copyreg
import enum
import pickle
import pkgutil
import re
from collections.abc import Iterable
from functools import cached_property
from io import BytesIO
from types import FunctionType
from typing import Any, ClassVar, Final

from storeroom.exceptions import ConfigurationError, SerializationError
from storeroom.serializers import safe_types
from storeroom.serializers.frames import PICKLE_PROTOCOL, type_name
from storeroom.serializers.safe_types import CONSTRUCTORS, REDUCERS, Reduction

__all__ = ["SafePickle", "restore"]

_LONGEST_SHORT: Final = 64
"""Texts up to here are skipped within the expression, longer ones by the loop around it."""

_SHORT: Final = b"|".join(b"\\x%02x.{%d}" % (length, length) for length in range(_LONGEST_SHORT))

# Greedy and bounded: unbounded, the matcher would remember every step of a long stream;
# possessive, it would be wrong before Python 3.11.5 (cpython issue 106052).
_skip_opcodes: Final = re.compile(
    rb"(?:"
    rb"\x8c(?:" + _SHORT + rb")\x94"  # SHORT_BINUNICODE MEMOIZE: first, being most of most values
    # NONE NEWTRUE NEWFALSE, EMPTY_LIST APPEND APPENDS, EMPTY_TUPLE TUPLE TUPLE1-3, EMPTY_DICT SETITEM SETITEMS,
    # EMPTY_SET ADDITEMS FROZENSET, MARK POP POP_MARK, MEMOIZE, STACK_GLOBAL REDUCE
    rb"|[N\x88\x89\]ae)t\x85-\x87}su\x8f\x90\x91(01\x94\x93R]+"
    rb"|[Kh]."  # BININT1 BINGET
    rb"|M.."  # BININT2
    rb"|[Jj].{4}"  # BININT LONG_BINGET
    rb"|[G\x95].{8}"  # BINFLOAT FRAME
    rb"|[\x8cC\x8a](?:" + _SHORT + rb")"  # SHORT_BINUNICODE SHORT_BINBYTES LONG1
    rb"){0,1000}",
    re.DOTALL,
).match

_LENGTH_BYTES: Final = {
    0x8C: 1,  # SHORT_BINUNICODE
    0x43: 1,  # SHORT_BINBYTES
    0x8A: 1,  # LONG1
    0x58: 4,  # BINUNICODE
    0x42: 4,  # BINBYTES
    0x8B: 4,  # LONG4
    0x8D: 8,  # BINUNICODE8
    0x8E: 8,  # BINBYTES8
    0x96: 8,  # BYTEARRAY8
}
"""The number of bytes behind an opcode that tell the length of its argument, which follows them."""

_HEADER: Final = bytes((0x80, PICKLE_PROTOCOL))
_STOP: Final = b"."


def check_opcodes(stream: bytes) -> None:
    """Raise UnpicklingError for a stream that has any other opcode, is truncated, or goes on after its end."""
    if not stream.startswith(_HEADER):
        raise pickle.UnpicklingError(f"not a pickle of protocol {PICKLE_PROTOCOL}")
    position, last = len(_HEADER), len(stream) - 1
    while position < last:
        skipped = _skip_opcodes(stream, position)
        end = skipped.end() if skipped else position
        if end == position:
            size = _LENGTH_BYTES.get(stream[position])
            if size is None:
                raise pickle.UnpicklingError(f"opcode 0x{stream[position]:02x} is not allowed, or cut short")
            start = position + 1 + size
            end = start + int.from_bytes(stream[position + 1 : start], "little")
        position = end
    if position != last or not stream.endswith(_STOP):
        raise pickle.UnpicklingError("truncated")


def restore(*_: Any) -> Any:
    """Stand, in a pickle, for making an instance of an allowed class; see `_make`."""
    raise pickle.UnpicklingError("only an unpickler that knows allowed_types can make it")


def _make(cls: type, args: tuple[Any, ...], keywords: dict[str, Any] | None, state: Any) -> Any:
    """Make an instance of an allowed class: by calling it, or its ``__new__`` if there are `keywords`.

    The state is for ``__setstate__``, or attributes as a dict, or a pair of those in the instance's dict and in slots.
    """
    instance = cls(*args) if keywords is None else cls.__new__(cls, *args, **keywords)
    if state is None:
        return instance
    if isinstance(instance, enum.Enum):  # the whole process shares it
        raise pickle.UnpicklingError("an enum member has no state")
    if hasattr(instance, "__setstate__"):
        instance.__setstate__(state)
        return instance
    in_dict, in_slots = state if isinstance(state, tuple) else (state, None)
    vars(instance).update(in_dict or {})
    for name, value in (in_slots or {}).items():
        setattr(instance, name, value)
    return instance


# The functions by which object.__reduce_ex__() makes an instance; typeshed does not know them.
_NEW: Final = vars(copyreg)["__newobj__"]
_NEW_WITH_KEYWORDS: Final = vars(copyreg)["__newobj_ex__"]


def _reduce_allowed(value: Any, path: str) -> Reduction:
    """Write an instance of an allowed class as a call of `restore`."""
    if isinstance(value, enum.Enum):  # the versions of Python differ in how they write one
        return restore, (path, (value.value,), None, None)
    reduced = value.__reduce_ex__(PICKLE_PROTOCOL)
    parts = reduced if isinstance(reduced, tuple) else (None, ())
    cls, args, state, list_items, dict_items, setter = (*parts, None, None, None, None)[:6]
    keywords: dict[str, Any] | None = None
    if cls is _NEW:
        (cls, *args), keywords = args, {}
    elif cls is _NEW_WITH_KEYWORDS:
        cls, args, keywords = args
    if cls is not type(value) or setter is not None:
        raise SerializationError(
            f"A value of type {path!r} cannot be stored here, although it is in allowed_types: it pickles itself "
            "by other means than its own class. Set OPTIONS['secret'], or store plain data made from it."
        )
    return restore, (path, tuple(args), keywords, state), None, list_items, dict_items


_NAMED: Final = frozenset({restore, *CONSTRUCTORS.values()})
"""The functions that a stored value refers to by name."""


class _Pickler(pickle.Pickler):
    """Asked only about values that are no literals: plain ones are pickled at the speed of C."""

    owner: ClassVar["SafePickle"]

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        reduce = REDUCERS.get(cls)
        if reduce is not None:
            return reduce(obj)
        if cls is FunctionType and obj in _NAMED:
            return NotImplemented  # the default: by name
        path = self.owner.path_by_class.get(cls)
        if path is not None:
            return _reduce_allowed(obj, path)
        pickle.dumps(obj, PICKLE_PROTOCOL)  # raises, if no secret would help
        name = type_name(cls)
        raise SerializationError(
            f"A value of type {name!r} cannot be stored here: without a secret, a store that others can write to holds "
            "plain data only (Python's literals and containers, dates, Decimal, UUID, paths, addresses). "
            "Set OPTIONS['secret'], and any type is stored, signed; "
            f"or add {name!r} to OPTIONS['allowed_types'], if it is a class of data; or store plain data made from it."
        )


class _Unpickler(pickle.Unpickler):
    """Finds the constructors, and nothing else."""

    owner: ClassVar["SafePickle"]

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == safe_types.__name__ and global_name in CONSTRUCTORS:
            return CONSTRUCTORS[global_name]
        if (module_name, global_name) == (__name__, restore.__name__):
            return lambda path, *arguments: _make(self.owner.class_by_path[path], *arguments)
        raise pickle.UnpicklingError("a name that is not allowed")


def _class_at(path: str) -> type:
    try:
        cls = pkgutil.resolve_name(path)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"allowed_types contains {path!r}, which cannot be imported ({error}); "
            "expected the dotted path of a class, such as 'app.models.Basket'."
        ) from error
    if not isinstance(cls, type):
        raise ConfigurationError(f"allowed_types contains {path!r}, a {type(cls).__name__}; expected a class.")
    return cls


class SafePickle:
    """Writes and reads pickles of plain data.

    Args:
        allowed_types: dotted paths of further classes. Every writer to the store can make instances of them with any
            arguments and any state.
    """

    def __init__(self, allowed_types: Iterable[str] = ()) -> None:
        self._paths = frozenset(allowed_types)
        self._pickler = type("_Pickler", (_Pickler,), {"owner": self})
        self._unpickler = type("_Unpickler", (_Unpickler,), {"owner": self})

    @cached_property
    def class_by_path(self) -> dict[str, type]:
        """The allowed classes, imported late: a module may use the cache that its own class is allowed in."""
        return {path: _class_at(path) for path in self._paths}

    @cached_property
    def path_by_class(self) -> dict[type, str]:
        """The same, the other way round."""
        return {cls: path for path, cls in self.class_by_path.items()}

    def dumps(self, value: object) -> bytes:
        """Return the bytes; raise SerializationError if `loads` would refuse a part, or anything that a part raises."""
        stream = BytesIO()
        self._pickler(stream, PICKLE_PROTOCOL).dump(value)
        return stream.getvalue()

    def loads(self, stream: bytes) -> object:
        """Return the value; raise anything when `dumps` has not made the bytes."""
        check_opcodes(stream)
        value: object = self._unpickler(BytesIO(stream)).load()
        return value
