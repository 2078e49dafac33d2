"""Pickles of plain data: a subset of pickle that is safe to read from anybody.

Pickle is a program that the reader runs. Here it can do three things only: build Python's own literals, look up a
constructor of safe_types.py, and call it. Two fences hold it there:

1. Before a byte is executed, the stream must consist of the few opcodes that SafePickle itself produces. ``BUILD`` is
   not among them, so nothing is given attributes; nor is ``LONG_BINPUT``, five bytes of which make the reader allocate
   gigabytes; nor any opcode of persistent ids, extension codes or old protocols. And the value that they make must not
   be too large (``weighing``), too slow to hash (``watching``), or too deep.
2. The only names found are those of the constructors; no module is imported by name, except for the classes that the
   configuration lists in ``allowed_types``.

Whoever writes to the store can still forge plain values, and cost some memory and time (``docs/decisions/0010`` has
figures). A secret closes that too.
"""

import copyreg
import enum
import pickle
import pkgutil
from collections import Counter
from collections.abc import Hashable, Iterable
from contextlib import suppress
from functools import cached_property, partial
from io import BytesIO
from types import FunctionType
from typing import Any, ClassVar, Final

from storeroom.exceptions import ConfigurationError, SerializationError
from storeroom.serializers import safe_types
from storeroom.serializers.bounds import MAX_DEPTH, Limits, TooMuchError, require_readable, require_shallow
from storeroom.serializers.frames import PICKLE_PROTOCOL, is_markup, type_name
from storeroom.serializers.opcodes import HARMLESS_BYTES, allowed_begin, check_opcodes, framed, unframed
from storeroom.serializers.safe_types import CONSTRUCTORS, PARSERS, READERS, REDUCERS, Reduction, new_text, remembering
from storeroom.serializers.watching import TABLES, Watch, asking
from storeroom.serializers.weighing import HARMLESS, Care, Weighed, weigh
from storeroom.storage.interruptions import raise_if_foreign
from storeroom.storage.trials import Trial, note_unreadable

__all__ = ["SafePickle", "check_opcodes", "restore"]


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
    used: set[str]
    """Paths of the allowed classes in the value."""

    def reducer_override(self, obj: Any) -> Any:
        cls = type(obj)
        reduce = REDUCERS.get(cls)
        if reduce is not None:
            return reduce(obj)
        if cls is FunctionType and obj in _NAMED:
            return NotImplemented  # the default: by name
        if is_markup(cls):
            return new_text, (str.__str__(obj),)
        path = self.owner.path_by_class.get(cls)
        if path is not None:
            self.used.add(path)
            return _reduce_allowed(obj, path)
        pickle.dumps(obj, PICKLE_PROTOCOL)  # raises, if no secret would help
        name = type_name(cls)
        raise SerializationError(
            f"A value of type {name!r} cannot be stored here: without a secret, a store that others can write to holds "
            "plain data only (Python's literals and containers, dates, Decimal, UUID, paths, addresses). "
            "Set OPTIONS['secret'], and any type is stored, signed; "
            f"or add {name!r} to OPTIONS['allowed_types'], if it is a class of data; or store plain data made from it."
        )


_MODULE: Final = safe_types.__name__
_PARSERS: Final = frozenset(parser.__name__ for parser in PARSERS)


class _Unpickler(pickle.Unpickler):
    """Finds the constructors, and nothing else."""

    owner: ClassVar["SafePickle"]

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == _MODULE and global_name in CONSTRUCTORS:
            return self._remembering(global_name) if global_name in _PARSERS else CONSTRUCTORS[global_name]
        if (module_name, global_name) == (__name__, restore.__name__):
            return self._make
        raise pickle.UnpicklingError("a name that is not allowed")

    def _remembering(self, name: str) -> Any:
        parsers = vars(self)  # one for the whole value, as a stream can name it again and again
        return parsers.get(name) or parsers.setdefault(name, remembering(CONSTRUCTORS[name]))

    def _make(self, path: str, *arguments: Any) -> Any:
        try:
            return _make(self.owner.class_by_path[path], *arguments)
        except Exception as error:
            raise_if_foreign(error, _make, self.owner.class_by_path[path], *arguments)
            note_unreadable([path], error)
            raise


class _Watched(pickle.Unpickler):
    """Asks a watch before it puts keys into a table, and before it calls what reads all of its arguments."""

    watch: Watch

    def persistent_load(self, pid: Any) -> Any:
        return self.watch.answer(pid)

    def find_class(self, module_name: str, global_name: str) -> Any:
        found = super().find_class(module_name, global_name)
        return partial(self.watch.call, found) if found in READERS else found


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
        limits: bounds on what is read; those of the default options if None.
    """

    def __init__(self, allowed_types: Iterable[str] = (), limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._paths = frozenset(allowed_types)
        self._pickler = type("_Pickler", (_Pickler,), {"owner": self})
        self._trial = Trial(self.loads)
        self._unpickler = type("_Unpickler", (_Unpickler,), {"owner": self})

    @cached_property
    def class_by_path(self) -> dict[str, type]:
        """The allowed classes, imported late: a module may use the cache that its own class is allowed in."""
        return {path: _class_at(path) for path in self._paths}

    @cached_property
    def path_by_class(self) -> dict[type, str]:
        """The same, the other way round."""
        return {cls: path for path, cls in self.class_by_path.items()}

    @cached_property
    def _watched(self) -> Any:
        return type("_Watched", (_Watched, self._unpickler), {})

    def dumps(self, value: object) -> bytes:
        """Return the bytes; raise SerializationError if `loads` would refuse a part, or anything that a part raises."""
        stream = BytesIO()
        pickler = self._pickler(stream, PICKLE_PROTOCOL)
        pickler.used = set()
        pickler.dump(value)
        if pickler.used:
            self._trial.check(stream.getvalue(), pickler.used)
        if stream.tell() > 2 * MAX_DEPTH:  # fewer bytes hold nothing that is too deep
            require_readable(value, stream.getvalue(), self._try)
        return stream.getvalue()

    def _try(self, stream: bytes, stored_bytes: int) -> int:
        """Do as `check` does, and make the value if only that shows whether it takes too long."""
        weighed = self._weigh(stream, stored_bytes)
        if weighed.care is Care.WATCH:
            self._made(stream, weighed)
            return 0
        if weighed.care is Care.FIRST_OBJECTS:
            self._require_unlike(stream)
        return weighed.containers

    def check(self, stream: bytes, stored_bytes: int) -> None:
        """Raise anything for bytes that `loads` refuses before it makes a value."""
        self._weigh(stream, stored_bytes)

    def _weigh(self, stream: bytes, stored_bytes: int) -> Weighed:
        return weigh(stream, self._limits.held(stored_bytes))

    def loads(self, stream: bytes, stored_bytes: int = 0) -> object:
        """Return the value; raise anything when `dumps` has not made the bytes.

        Args:
            stream: the bytes.
            stored_bytes: the length of the compressed bytes that the stream comes of, if it does.
        """
        begin = allowed_begin(stream) if len(stream) <= HARMLESS_BYTES else None
        if begin is not None and stream[begin.end() :] == b".":
            return self._unpickler(BytesIO(stream)).load()
        weighed = self._weigh(stream, stored_bytes or len(stream))
        return self._unpickler(BytesIO(stream)).load() if weighed is HARMLESS else self._made(stream, weighed)

    def _made(self, stream: bytes, weighed: Weighed) -> object:
        """Make the value with the care that it takes."""
        if weighed.care is Care.WATCH:
            kinds = TABLES.union(self.class_by_path.values())
            asks, has_long_numbers = asking(stream)
            unpickler = self._watched(BytesIO(asks))
            unpickler.watch = Watch(len(stream), kinds, has_long_numbers=has_long_numbers)
            value: object = unpickler.load()
            if weighed.containers:
                require_shallow(value, weighed.containers, kinds=kinds)
            return value
        if weighed.care is Care.FIRST_OBJECTS:
            self._require_unlike(stream)
        value = self._unpickler(BytesIO(stream)).load()
        if weighed.containers:
            require_shallow(value, weighed.containers)
        return value

    def _require_unlike(self, stream: bytes) -> None:
        """Raise TooMuchError if many of the objects to which the first references lead have one hash."""
        known: dict[int, Any] = {}
        body = unframed(stream)
        length = _FIRST_BYTES
        while len(known) < _SHORT_REFERENCES and length < 4 * len(stream):
            unpickler = self._unpickler(BytesIO(framed(body[:length])))
            with suppress(Exception):  # it is cut short
                unpickler.load()
            known = unpickler.memo.copy()
            length *= 2
        first = [known[number] for number in range(min(len(known), _SHORT_REFERENCES))]
        hashes = Counter(map(hash, {each for each in first if isinstance(each, Hashable)}))
        if max(hashes.values(), default=0) > _MOST_ALIKE:
            raise TooMuchError("has many numbers, or tuples of numbers, of the same hash")


_FIRST_BYTES: Final = 3000
_SHORT_REFERENCES: Final = 256
_MOST_ALIKE: Final = 8
