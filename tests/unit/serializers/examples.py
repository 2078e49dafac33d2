"""Values and classes that the tests of the serializers share."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo

SECRET = "correct horse battery staple"
KEY = "shop:1:basket"

SCALARS = [
    *("", "plain", "Grüße 🎁", "nul\x00", "line\r\n", "\ud800 lone", "\ud83d\ude00 split pair", "1", "-1", "x" * 5000),
    *(b"", b"raw", bytes(range(256)), b"12"),
    *(0, 1, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, 10**30, -(10**30), 10**5000),
    *(0.0, -0.0, 1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")),
    *(None, True, False),
]

JSON_VALUES = [
    *([], {}, [[]], [None, True, False, 1, -1.5, "text"], {"": {}}, {"a": [1, {"b": "c"}]}),
    *([float("nan")], [2**100], {"key \ud800": "\ud83d\ude00"}, ["x" * 10_000], {str(i): i for i in range(2000)}),
]

MSGPACK_VALUES = [
    *([], {}, [None, True, -1, 1.5, "text", b"bytes"], {"a": {1: b"x", b"k": [2**64 - 1, -(2**63)]}}),
    *([float("nan")], ["\ud800"], {str(i): i for i in range(2000)}),
]

LITERALS = [
    *([], {}, (), set(), frozenset(), bytearray(), bytearray(b"x" * 300)),
    *((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (None, (True, (False,)))),
    *({1: "a", None: "b", (1, 2): "c", 1.5: b"d"}, {frozenset({1, 2}), "x"}, frozenset({("a", 1), 2.0})),
    *([255, 256, 65535, 65536, 2**31, -(2**31), 2**40, 2**63, 2**3000], [1.5, -0.0, "\ud800", b"x" * 300]),
    *(["x" * length for length in (0, 63, 64, 65, 255, 256, 70_000)], {"n": [{"id": i} for i in range(3000)]}),
]

RICH = [
    *(1 + 2j, complex("-0-0j"), range(3), range(10, -5, -3)),
    *(decimal.Decimal("1.10"), decimal.Decimal("-0"), decimal.Decimal("sNaN123"), decimal.Decimal("1e-999")),
    *(fractions.Fraction(-3, 7), fractions.Fraction(10**40)),
    *(dt.date.min, dt.date(2024, 2, 29), dt.time(23, 59, 59, 999999), dt.time(1, fold=1, tzinfo=dt.UTC)),
    *(
        dt.datetime.combine(dt.date(2024, 10, 27), dt.time(2, 30, fold=1)),
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5.5))),
    ),
    *(dt.datetime(2024, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")), zoneinfo.ZoneInfo("UTC")),
    *(dt.timedelta.max, dt.timedelta(microseconds=-1), dt.UTC, dt.timezone(dt.timedelta(hours=-3), "BRT")),
    *(uuid.UUID("12345678-1234-5678-1234-567812345678"), uuid.UUID(int=5, is_safe=uuid.SafeUUID.safe)),
    *(pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\x\\y"), pathlib.Path("relative"), pathlib.Path()),
    *(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_interface("192.0.2.1/24")),
    *(ipaddress.ip_address("fe80::1%eth0"), ipaddress.ip_network("2001:db8::/32"), ipaddress.ip_interface("::1/64")),
    *(collections.OrderedDict(b=1, a=2), collections.Counter("abca"), collections.deque([1, 2, 3], maxlen=3)),
    *(collections.deque("ab"), collections.defaultdict(list, a=[1]), collections.defaultdict(None, a=1)),
    *(collections.defaultdict(int), [dt.date(2024, 1, day) for day in range(1, 32)]),
    {
        "at": dt.datetime.combine(dt.date(2024, 1, 1), dt.time()),
        "price": decimal.Decimal("9.99"),
        "deep": [(uuid.UUID(int=1), {b"k": {1j}})],
    },
]

PLAIN = [*SCALARS, *JSON_VALUES, *LITERALS, *RICH]


@dataclasses.dataclass
class Basket:
    owner: str
    items: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int


class Slotted:
    """Without a __setstate__ of its own, with both a dict and slots."""

    __slots__ = ("__dict__", "left")

    def __eq__(self, other):
        return (self.left, self.__dict__) == (other.left, other.__dict__)

    __hash__ = None


class Keywords:
    """Made by __new__ with a keyword."""

    def __new__(cls, *, name):
        made = super().__new__(cls)
        made.name = name
        return made

    def __getnewargs_ex__(self):
        return (), {"name": self.name}

    def __eq__(self, other):
        return self.name == other.name

    __hash__ = None


Pair = collections.namedtuple("Pair", "first second")  # noqa: PYI024 -- the kind that programs have


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Markup(str):
    """Text that is safe to print, as of template engines."""

    __slots__ = ()


class Named(dict):
    """A dict with attributes."""


class Outer:
    class Inner:
        def __eq__(self, other):
            return isinstance(other, Outer.Inner)

        __hash__ = None


def slotted(left, **attributes):
    made = Slotted()
    made.left = left
    vars(made).update(attributes)
    return made


def named(attribute, **items):
    made = Named(items)
    made.attribute = attribute
    return made


OBJECTS = [
    *(Basket("Ada", ["book"]), Point(1, 2), slotted(1, right=2), Keywords(name="x"), Pair(1, [2]), Outer.Inner()),
    *(Color.RED, Level.LOW | Level.HIGH, Markup("<b>"), named("n", a=1), [Basket("a"), {Color.BLUE: Point(3, 4)}]),
]

ALLOWED = [Basket, Point, Slotted, Keywords, Pair, Color, Level, Markup, Named, Outer.Inner]


def same(one: object, other: object) -> bool:
    """Compare as a cache's user would: value and type, all the way down, NaN equal to NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return (
            len(one) == len(other)
            and all(same(*keys) and same(*values) for (keys, values) in (zip(*pair, strict=True) for pair in pairs))
            and getattr(one, "default_factory", None) is getattr(other, "default_factory", None)
            and getattr(one, "__dict__", None) == getattr(other, "__dict__", None)
        )
    if isinstance(one, list | tuple | collections.deque):
        return (
            len(one) == len(other)
            and all(same(*pair) for pair in zip(one, other, strict=True))
            and getattr(one, "maxlen", None) == getattr(other, "maxlen", None)
        )
    if isinstance(one, float | complex | decimal.Decimal | dt.date | dt.time | uuid.UUID):
        details = [(repr(x), getattr(x, "fold", None), getattr(x, "is_safe", None)) for x in (one, other)]
        return details[0] == details[1]
    return one == other
