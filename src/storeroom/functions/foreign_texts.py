"""The texts of values of other packages: NumPy, pandas, attrs, pydantic, msgspec, freezegun. None of them is imported.

Large arrays are written as a digest of their bytes, so that a key stays short while it tells all arrays apart.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Final

from storeroom.functions.standard_texts import Text

__all__ = ["foreign_text", "stands_for"]

_DIGEST_BYTES: Final = 20

_LONG: Final = "gG"
"""NumPy's letters of floats, and complex numbers, longer than Python's."""

_PLAIN: Final = (bool, int, float, complex, str, bytes)


def foreign_text(value: Any, name: str, text_of: Text) -> str | None:
    """Return the text of a value, or None if it is of none of these packages.

    Args:
        value: it.
        name: its class's, with the module.
        text_of: writes the parts.
    """
    fields = _compared_fields(value)
    if fields is not None:
        held = [f"{field}={text_of(getattr(value, field))}" for field in fields]
        return f"{name}({', '.join([*held, *_more(value, text_of)])})"
    write = _WRITERS.get(type(value).__module__.partition(".")[0])
    return None if write is None else write(value, text_of)


def stands_for(value: Any) -> Any:
    """Return the value of the standard library that one of NumPy or freezegun stands for; others as they are."""
    package = type(value).__module__.partition(".")[0]
    if package == "freezegun":
        return _unfrozen(value)
    plain = value.item() if package == "numpy" and _is_scalar(type(value)) else value
    return plain if type(plain) in _PLAIN else value


def _compared_fields(value: Any) -> list[str] | None:
    """Return the names of the fields that instances of a class are compared by, or None if they are compared otherwise.

    A subclass of an attrs class need not be one itself, and may have grown.
    """
    kind = type(value)
    if "__attrs_attrs__" in vars(kind) and "__eq__" in vars(kind):
        return [field.name for field in kind.__attrs_attrs__ if field.eq]
    if hasattr(kind, "__struct_config__") and kind.__struct_config__.eq:  # msgspec
        return list(kind.__struct_fields__)
    if "__pydantic_fields__" in vars(kind):
        return list(kind.__pydantic_fields__)
    return None


def _more(value: Any, text_of: Text) -> list[str]:
    """Write what a pydantic model holds beside its fields."""
    held = (getattr(value, name, None) for name in ("__pydantic_extra__", "__pydantic_private__"))
    return [f"**{text_of(more)}" for more in held if more]


def _numpy(value: Any, text_of: Text) -> str | None:
    kind = type(value)
    if kind.__name__ in ("ndarray", "memmap"):
        return f"numpy.{_array(value, text_of)}"
    if hasattr(kind, "descr") and hasattr(kind, "newbyteorder"):  # a dtype: each has a class of its own
        return f"numpy.dtype({text_of(_layout(value))})"
    if not _is_scalar(kind):
        return None
    if value.dtype.kind in "mM":
        return f"numpy.{kind.__name__}({text_of(str(value))}, {text_of(value.dtype)})"
    plain = str(value) if value.dtype.char in _LONG else value.item()
    if type(plain) in _PLAIN:
        name = kind.__name__ if value.dtype.kind in "SU" else value.dtype.name
        return f"numpy.{name}({text_of(plain)})"
    return f"numpy.{kind.__name__}{_array(value, text_of)}"


def _is_scalar(kind: type) -> bool:
    return any(base.__name__ == "generic" for base in kind.__mro__)


def _layout(dtype: Any) -> Any:
    """Return the parts of a dtype: of a structure its size, and its fields in their order, each with its offset."""
    if dtype.subdtype is not None:
        return *dtype.subdtype, dtype.shape
    if not dtype.names:
        return dtype.str
    return dtype.itemsize, [(name, *dtype.fields[name][:2]) for name in dtype.names]


def _array(value: Any, text_of: Text) -> str:
    """Write a NumPy array: its type, its shape and its items, or a digest of them.

    Bytes that fill a structure or a long float up are nobody's, and hold anything.
    """
    dtype = value.dtype
    if dtype.names:
        items = text_of([value[name] for name in dtype.names])
    elif dtype.hasobject:
        items = text_of(value.tolist())
    else:
        is_long = dtype.char in _LONG
        data = "\0".join(map(str, value.ravel().tolist())).encode() if is_long else value.tobytes()
        items = blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()
    return f"array({text_of(dtype)}, {text_of(value.shape)}, {items})"


def _pandas(value: Any, text_of: Text) -> str | None:
    name = type(value).__name__
    write = _PANDAS.get(name)
    return None if write is None else f"pandas.{name}({', '.join(map(text_of, write(value)))})"


def _timestamp(value: Any) -> Iterator[Any]:
    yield value.isoformat()  # down to nanoseconds
    yield None if value.tzinfo is None else str(value.tzinfo)
    yield value.fold


def _column(value: Any) -> Any:
    """Return the parts of a column: a NumPy array, or the type and the items of one of pandas' own arrays."""
    if hasattr(value.dtype, "newbyteorder"):
        return value.to_numpy()
    if hasattr(value.dtype, "categories"):
        return "category", value.dtype.ordered, value.dtype.categories, value.array.codes
    return str(value.dtype), value.tolist()


def _frame(value: Any) -> Iterator[Any]:
    yield value.columns
    yield value.index
    yield [_column(value.iloc[:, position]) for position in range(value.shape[1])]
    yield value.attrs


def _index(value: Any) -> Iterator[Any]:
    yield list(value.names)
    yield list(map(value.get_level_values, range(value.nlevels))) if value.nlevels > 1 else _column(value)


_PANDAS: Final[dict[str, Callable[[Any], Any]]] = {
    "NAType": lambda _: (),
    "NaTType": lambda _: (),
    "Timestamp": _timestamp,
    "Timedelta": lambda value: (value.isoformat(),),
    "Period": lambda value: (str(value), value.freqstr),
    "Interval": lambda value: (value.left, value.right, value.closed),
    "Series": lambda value: (value.name, value.index, _column(value), value.attrs),
    "DataFrame": _frame,
    "RangeIndex": lambda value: (value.name, value.start, value.stop, value.step),
    **dict.fromkeys(
        ("Index", "DatetimeIndex", "TimedeltaIndex", "PeriodIndex", "IntervalIndex", "CategoricalIndex", "MultiIndex"),
        _index,
    ),
}


def _freezegun(value: Any, text_of: Text) -> str | None:
    """Write a date of a frozen clock as the date that it stands for."""
    date = _unfrozen(value)
    return None if date is value else text_of(date)


def _unfrozen(value: Any) -> Any:
    date = next((base for base in type(value).__mro__ if base.__module__ == "datetime"), None)
    if date is None:
        return value
    parts = ("year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo")
    given = [getattr(value, part) for part in parts if hasattr(value, part)]
    return date(*given, fold=value.fold) if hasattr(value, "fold") else date(*given)


_WRITERS: Final[dict[str, Callable[[Any, Text], str | None]]] = {
    "freezegun": _freezegun,
    "numpy": _numpy,
    "pandas": _pandas,
}
