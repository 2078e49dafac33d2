"""The text of a value: one per value, the same everywhere, or an error."""

import re
import subprocess
import sys
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import freezegun
import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeroom.exceptions import UnkeyableArgumentError
from storeroom.functions.argument_text import plain_text, text_of
from tests.names import shown

HERE = __name__


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Right(Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: object
    note: object = field(default=None, compare=False)


@dataclass(eq=False)
class Handle:
    number: int


class PointOf(Point):
    """Not a dataclass itself: it may have grown."""


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 -- both kinds are tuples


class Marked(str):
    __slots__ = ()


class Money(int):
    currency: str


class Plain:
    pass


class User:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number

    @classmethod
    def made(cls) -> "User":
        return cls(7)


@attrs.frozen
class Article:
    number: int
    note: object = attrs.field(default=None, eq=False)


class Model(pydantic.BaseModel):
    a: int
    b: list[str]


class Open(pydantic.BaseModel, extra="allow"):
    a: int


class Struct(msgspec.Struct):
    a: int


def made() -> None:
    pass


class Nowhere(tzinfo):
    def utcoffset(self, _: Any) -> timedelta:
        return timedelta(hours=1)


TEXTS = {
    "None": None,
    "True": True,
    "1": 1,
    "1.0": 1.0,
    "-0.0": -0.0,
    "nan": float("nan"),
    "1j": 1j,
    "'1'": "1",
    "'it\\'s'": "it's",
    "'\\\\'": "\\",
    "b'1'": b"1",
    "()": (),
    "(1, 'a')": (1, "a"),
    "[1, [2]]": [1, [2]],
    "{'a': 1, 'b': 2}": {"b": 2, "a": 1},
    "set('a', 'b')": {"b", "a"},
    "frozenset(1, 2)": frozenset({2, 1}),
    "date('2026-11-26')": date(2026, 11, 26),
    "time('10:30:00')": time(10, 30),
    "datetime('2026-11-26 10:30:00')": datetime(2026, 11, 26, 10, 30),  # noqa: DTZ001 -- one without is a value, too
    "datetime('2026-11-26 10:30:00+00:00', 'UTC')": datetime(2026, 11, 26, 10, 30, tzinfo=UTC),
    "datetime('2026-11-26 10:30:00+01:00', 'Europe/Paris')": datetime(
        2026, 11, 26, 10, 30, tzinfo=ZoneInfo("Europe/Paris")
    ),
    "datetime('2026-10-25 02:30:00+01:00', 'Europe/Paris', fold=1)": datetime(
        2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1
    ),
    "datetime('2026-11-26 10:30:00+01:00', 'UTC+01:00')": datetime(
        2026, 11, 26, 10, 30, tzinfo=timezone(timedelta(hours=1))
    ),
    "timedelta('1 day, 0:00:00.000001')": timedelta(days=1, microseconds=1),
    "Decimal('1.50')": Decimal("1.50"),
    "UUID('12345678-1234-5678-1234-567812345678')": UUID("12345678123456781234567812345678"),
    "PurePosixPath('/a/it\\'s')": PurePosixPath("/a/it's"),
    f"{HERE}.Color.RED": Color.RED,
    f"{HERE}.Size.SMALL": Size.SMALL,
    f"{HERE}.Right.READ": Right.READ,
    f"{HERE}.Point(x=1, y='2')": Point(1, "2", note=Plain()),
    f"{HERE}.Pair((1, '2'))": Pair(1, "2"),
    f"{HERE}.Marked('<b>')": Marked("<b>"),
    f"{HERE}.User(7)": User(7),
    f"{HERE}.User": User,
    "int": int,
    "Fraction('1/3')": Fraction(1, 3),
    "IPv4Address('10.0.0.1')": ip_address("10.0.0.1"),
    "IPv6Network('2001:db8::/32')": ip_network("2001:db8::/32"),
    "range(0, 3, 1)": range(3),
    "slice(1, 2, None)": slice(1, 2),
    "bytearray(b'a')": bytearray(b"a"),
    "memoryview('B', (1), b'a')": memoryview(b"a"),
    "array('i', [1, 2])": array("i", [1, 2]),
    "OrderedDict([('b', 1), ('a', 2)])": OrderedDict(b=1, a=2),
    "Counter({'a': 2, 'b': 1})": Counter("baa"),
    "defaultdict(int, {'a': 1})": defaultdict(int, a=1),
    "deque([1, 2], 3)": deque([1, 2], 3),
    "mappingproxy({'a': 1})": MappingProxyType({"a": 1}),
    "SimpleNamespace({'a': 1})": SimpleNamespace(a=1),
    "dict_keys(set('a', 'b'))": {"b": 1, "a": 2}.keys(),
    "dict_values([1, 2])": {"b": 1, "a": 2}.values(),
    "dict_items({'a': 2, 'b': 1})": {"b": 1, "a": 2}.items(),
    "Pattern('a+', 34)": re.compile("a+", re.IGNORECASE),
    "ZoneInfo('Europe/Paris')": ZoneInfo("Europe/Paris"),
    "timezone(timedelta('1:00:00'), 'UTC+01:00')": timezone(timedelta(hours=1)),
    "Ellipsis": ...,
    "NotImplemented": NotImplemented,
    "builtins.len": len,
    f"{HERE}.made": made,
    f"{HERE}.User.made": User.made,
    "partial(int, (), {'base': 2})": partial(int, base=2),
    "module('re')": re,
    "list[int]": list[int],
    "Union[NoneType, int]": int | None,
    "Union[int, str]": str | int,
    "typing.Literal['a', 1]": Literal["a", 1],
    "typing.Annotated[int, 'm']": Annotated[int, "m"],
    f"{HERE}.Article(number=7)": Article(7),
    f"{HERE}.Model(a=1, b=['x'])": Model(a=1, b=["x"]),
    f"{HERE}.Open(a=1, **{{'c': 2}})": Open(a=1, c=2),
    f"{HERE}.Struct(a=1)": Struct(a=1),
    "numpy.int64(7)": np.int64(7),
    "numpy.float32(0.5)": np.float32(0.5),
    "numpy.float64(1.5)": np.float64(1.5),
    "numpy.bool(True)": np.bool_(True),
    "numpy.str_('a')": np.str_("a"),
    "numpy.datetime64('2026-01-01', numpy.dtype('<M8[D]'))": np.datetime64("2026-01-01"),
    "numpy.dtype('<f8')": np.dtype(float),
    "numpy.array(numpy.dtype('|b1'), (2, 1), 48bd4a08cebea34a5016248ea546826bbb87a319)": np.array([[True], [False]]),
    "numpy.array(numpy.dtype('|O'), (2), ['a', None])": np.array(["a", None], dtype=object),
    "pandas.Timestamp('2026-01-01T00:00:00.000000001', None, 0)": pd.Timestamp("2026-01-01") + pd.Timedelta(1),
    "pandas.NaTType()": pd.NaT,
    "pandas.NAType()": pd.NA,
}


@pytest.mark.parametrize(("text", "value"), TEXTS.items(), ids=list(TEXTS))
def test_text_of_reads_like_the_value(text: str, value: object) -> None:
    """The text of a value is its literal, or its type with its parts, alone and within a list."""
    assert text_of(value) == text
    assert text_of([value]) == f"[{text}]"


def test_text_of_a_path_is_that_of_its_kind() -> None:
    """A path's text begins with the path class of the system."""
    assert text_of(Path("a")) == f"{type(Path()).__name__}('a')"


def test_text_of_flags_holds_all_of_them() -> None:
    """A combination of flags has another text than each of them."""
    assert text_of(Right.READ | Right.WRITE) != text_of(Right.READ)


def local_class() -> type:
    class Local:
        pass

    return Local


UNKEYABLE = {
    "an object": Plain(),
    "a generator": (number for number in ()),
    "a dataclass that compares by identity": Handle(1),
    "a subclass of a dataclass": PointOf(1, 2),
    "a dataclass that holds an object": Point(1, Plain()),
    "a function of no name": lambda: None,
    "a method of an object": Plain().__repr__,
    "a method of a list": [].append,
    "a table whose missing items are made by a lambda": defaultdict(lambda: 1),
    "a type variable": TypeVar("T"),
    "an attrs class that compares by identity": attrs.make_class("ByIdentity", ["a"], eq=False)(1),
    "a subclass of an attrs class": type("Grown", (Article,), {})(1),
    "a secret of pydantic's": pydantic.SecretStr("s"),
    "an array with a mask": np.ma.masked_array([1], mask=[True]),
    "a generator of random numbers": np.random.default_rng(),
    "an array of objects": np.array([Plain()], dtype=object),
    "a class within a function": local_class(),
    "an instance of a class within a function": local_class()(),
}


@pytest.mark.parametrize("value", UNKEYABLE.values(), ids=list(UNKEYABLE))
def test_text_of_refuses_values_that_other_processes_could_not_write(value: object) -> None:
    """A value whose text would hold an address raises UnkeyableArgumentError, however deep it lies."""
    with pytest.raises(UnkeyableArgumentError):
        text_of({"deep": [value]})
    with pytest.raises(UnkeyableArgumentError):
        plain_text(value)


ARRAYS = [
    np.array([1, 2]),
    np.array([1, 2, 0]),
    np.array([2, 1]),
    np.array([[1, 2]]),
    np.array([1.0, 2.0]),
    np.array([1, 2], dtype="int32"),
    np.array(["1", "2"]),
    np.array([1, 2], dtype="M8[D]"),
    np.array([1, 2], dtype="M8[s]"),
    np.array([(1, 2)], dtype=[("a", "i8"), ("b", "i8")]),
    np.array([(1, 2)], dtype=[("b", "i8"), ("a", "i8")]),
    np.array([1, 2], dtype=object),
    pd.Series([1, 2]),
    pd.Series([1, 2], name="a"),
    pd.Series([1, 2], index=[1, 0]),
    pd.Series([1, None], dtype="Int64"),
    pd.Series([1, 0], dtype="Int64"),
    pd.Series(["a", "b"]),
    pd.Series(["a", "b"], dtype="category"),
    pd.Series(pd.Categorical(["a", "b"], categories=["b", "a"])),
    pd.Series(pd.Categorical(["a", "b"], ordered=True)),
    pd.to_datetime(pd.Series(["2026-01-01", "2026-01-02"])),
    pd.to_datetime(pd.Series(["2026-01-01", "2026-01-02"])).dt.tz_localize("UTC"),
    pd.Index([1, 2]),
    pd.RangeIndex(1, 3),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b")]),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "c")]),
    pd.DataFrame({"a": [1, 2]}),
    pd.DataFrame({"b": [1, 2]}),
    pd.DataFrame({"a": [1, 2]}, index=[1, 0]),
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
    pd.DataFrame({"a": [1, 2], "b": ["x", "z"]}),
    pd.Timestamp("2026-01-01"),
    pd.Timestamp("2026-01-01", tz="UTC"),
    pd.Timestamp("2026-01-01", tz="Europe/London"),
    pd.Period("2026-01", "M"),
    pd.Period("2026-01-01", "D"),
    pd.Interval(0, 1),
    pd.Interval(0, 1, closed="left"),
    pd.Timedelta(1, "s"),
]


def test_texts_of_arrays_tell_them_apart() -> None:
    """Arrays and frames have one text where type, shape, labels and items are the same, and else different ones."""
    texts = [text_of(value) for value in ARRAYS]
    assert len(set(texts)) == len(ARRAYS)
    assert [text_of(value.copy() if hasattr(value, "copy") else value) for value in ARRAYS] == texts
    grid = np.arange(12).reshape(3, 4)
    assert text_of(grid.T) == text_of(grid.T.copy())  # a view, in another order of memory
    assert len(text_of(np.zeros(1_000_000))) < 100


ALIGNED = np.dtype([("a", "i1"), ("b", "i8"), ("c", [("d", "i2"), ("e", "f8")], (2,))], align=True)
REORDERED = np.dtype({"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]})


def filled(byte: int, dtype: Any) -> Any:
    """Return an array of ones; the bytes beside its numbers are the given one."""
    array = np.full(3 * dtype.itemsize, byte, "u1").view(dtype)
    if dtype.names is None:
        array[:] = 1
        if np.finfo(np.longdouble).nmant == 63:  # of 16 bytes ten are used
            array.view("u1").reshape(-1, np.dtype(np.longdouble).itemsize)[:, 10:] = byte
        return array
    array["a"] = array["b"] = 1
    array["c"]["d"] = array["c"]["e"] = 1
    return array


@pytest.mark.parametrize("dtype", [np.dtype(np.longdouble), np.dtype(np.clongdouble), ALIGNED], ids=str)
def test_text_of_an_array_holds_its_numbers_and_no_bytes_between_them(dtype: Any) -> None:
    """Long floats and structures have bytes that belong to nothing: arrays and scalars have one text all the same."""
    first, second = filled(0, dtype), filled(255, dtype)
    assert first.tobytes() != second.tobytes() or dtype.names is None
    for one, other in ((first, second), (first[0], second[0]), (pd.Series(first[:1].tolist()), None)):
        assert other is None or text_of(one) == text_of(other)
    second["b" if dtype.names else slice(None)] = 2
    assert text_of(first) != text_of(second)
    assert text_of(first[0]) != text_of(second[0])


def test_text_of_a_structure_tells_its_layout() -> None:
    """Fields in another order of memory, which NumPy has no short description of, are another type."""
    array = np.ones(2, REORDERED)
    plain = array.astype([("a", "i4"), ("b", "i4")])
    assert len({text_of(array), text_of(plain), text_of(array.dtype), text_of(plain.dtype)}) == 4
    assert text_of(array) == text_of(array.copy())


def test_a_frozen_clock_makes_the_keys_of_a_running_one() -> None:
    """Under freezegun dates have the text of the dates that they stand for."""
    with freezegun.freeze_time("2026-01-01 12:00"):
        assert text_of(datetime.now(UTC)) == text_of(datetime(2026, 1, 1, 12, tzinfo=UTC))
        frozen = [text_of(date.today()), text_of(datetime.now()), plain_text(date.today())]  # noqa: DTZ005, DTZ011 -- as programs have them
    assert frozen == ["date('2026-01-01')", "datetime('2026-01-01 12:00:00')", "2026-01-01"]


def test_text_of_refuses_a_time_zone_without_a_name() -> None:
    """A datetime in a nameless zone has no key, since its offset does not identify the zone."""
    noon = datetime(2026, 1, 1, 12, tzinfo=Nowhere())
    with pytest.raises(UnkeyableArgumentError, match="a datetime whose time zone has no name"):
        text_of(noon)
    assert plain_text(noon) == "2026-01-01 12:00:00+01:00"


def test_text_of_refuses_a_number_with_a_state_of_its_own() -> None:
    """A subclass of int with attributes has no key, since its number does not tell them."""
    price = Money(5)
    assert text_of(price) == f"{HERE}.Money(5)"
    price.currency = "EUR"
    with pytest.raises(UnkeyableArgumentError, match="Money"):
        text_of(price)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("it's", "it's"),
        (7, "7"),
        (True, "True"),
        (None, "None"),
        (1.5, "1.5"),
        (date(2026, 11, 26), "2026-11-26"),
        (Decimal("1.50"), "1.50"),
        (UUID("12345678123456781234567812345678"), "12345678-1234-5678-1234-567812345678"),
        (Marked("<b>"), "<b>"),
        (Word.YES, "yes"),
        (Size.SMALL, "1"),
        (Color.RED, f"{HERE}.Color.RED"),
        (["a", 1], "['a', 1]"),
        (User(7), f"{HERE}.User(7)"),
        (Fraction(1, 3), "1/3"),
        (ip_address("10.0.0.1"), "10.0.0.1"),
        (ZoneInfo("Europe/Paris"), "Europe/Paris"),
        (np.int64(7), "7"),
        (np.str_("a"), "a"),
        (len, "builtins.len"),
        (range(3), "range(0, 3, 1)"),
    ],
    ids=shown,
)
def test_plain_text_is_for_the_eye(value: object, text: str) -> None:
    """Texts, numbers and dates have their str() as plain text, and other values their whole text."""
    assert plain_text(value) == text


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.floats(-2, 2)
    | st.text("a'\\,: 1", max_size=3)
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("a'1", max_size=1) | st.integers(0, 1), inner, max_size=2)
    ),
    max_leaves=6,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same types throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return [*map(type, sorted(one, key=repr))] == [*map(type, sorted(other, key=repr))] and (
            one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
        )
    return one == other and str(one) == str(other)  # 0.0 == -0.0


@given(VALUES, VALUES)
def test_two_values_have_one_text_only_if_they_are_the_same(one: Any, other: Any) -> None:
    """Two values have one text exactly if they are equal and of the same types throughout."""
    assert (text_of(one) == text_of(other)) == same(one, other)


def test_text_of_is_the_same_in_every_process() -> None:
    """Sets and dicts of texts have one text under any hash seed."""
    code = (
        "from storeroom.functions.argument_text import text_of\n"
        "print(text_of([{'a', 'b', 'c', None, 1}, {'b': 1, 'a': frozenset('xyz')}]))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(texts) == 1
