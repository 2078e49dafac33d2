"""Values of plain data come back as they were, whichever way they are made: at once, or under watch."""

import collections
import copy
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom.integrations.django_redis.pickles import PlainPickle
from storeroom.serializers import build_codec
from tests.unit.serializers.examples import KEY

TEXTS = ["", "a", "id", "tR", "\x07restore", "new_deque", "x" * 63, "x" * 64, "x" * 300]
NUMBERS = [0, 1, -1, 138, 139, 255, 256, 65_535, 65_536, 2**31, 2**40, 2**63, -(2**63), 2**70, 7**300, 1.5, -0.0, 2.0]
ATOMS = [*TEXTS, *NUMBERS, None, True, False, b"", b"Q", b"h" * 300]
COMMON = [dt.date(2024, 2, 29), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.timedelta(1, 2, 3), decimal.Decimal("-1.50")]
OBJECTS = [
    *COMMON,
    *(fractions.Fraction(1, 3), uuid.UUID(int=5), 1j, range(3), dt.time(1, 2), dt.timezone(dt.timedelta(hours=1))),
    *(pathlib.PurePosixPath("a/b"), ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")),
]


class Maker:
    """Makes values by chance: of atoms, or of objects too, at a table's size or not, shared or not."""

    def __init__(self, seed, objects, mappings):
        self.chance = random.Random(seed)
        self.leaves = ATOMS + self.chance.choice([[], COMMON, objects])
        self.mappings = mappings
        self.mutable = objects is OBJECTS
        self.kept = []

    def leaf(self):
        number = self.chance.randrange(2**20)
        some = [number, str(number), number / 8, number << 44, f"a longer text, {number}"]
        return self.chance.choice(self.leaves if number % 3 else some)

    def key(self, depth):
        kind = self.chance.randrange(9) if depth else 9
        if kind > 1:
            return self.leaf()
        members = [self.key(depth - 1) for _ in range(self.chance.randrange(4))]
        return tuple(members) if kind else frozenset(members)

    def member(self):
        return bytearray(b"of bytes") if self.mutable and not self.chance.randrange(9) else self.key(2)

    def value(self, depth):
        chance = self.chance
        if self.kept and not chance.randrange(9):
            return chance.choice(self.kept)
        kind = chance.randrange(8) if depth else 8
        count = chance.choice([0, 1, 2, 3, 4, 5, 20])
        if kind > 6:
            return self.member()
        if kind == 0:
            made = {self.key(2) for _ in range(count)}
        elif kind < 4:
            made = [self.value(depth - 1) for _ in range(count)]
            made = made if kind == 1 else tuple(made)
        else:
            plain = kind == 4
            made = {str(n) if plain else self.key(2): self.value(depth - 1) for n in range(count)}
            made = made if plain else chance.choice(self.mappings)(made)
        self.kept.append(made)
        return made

    def table(self):
        row, times = self.value(2), self.chance.choice([1, 9, 20])
        rows = [copy.deepcopy(row) if times == 9 else row for _ in range(times)] + [self.value(2)]
        large = {self.key(1): None for _ in range(1100)} if times == 1 else None
        return self.chance.choice([rows, {"rows": rows, 1: times}, {"large": large, "rows": rows}])


def shape(value):
    """Types, and order, of all that is in a value."""
    if isinstance(value, dict):
        return type(value), [(shape(key), shape(each)) for key, each in value.items()]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(map(repr, map(shape, value)))
    if isinstance(value, (list, tuple, collections.deque)):
        return type(value), list(map(shape, value))
    return type(value), repr(value)


def by_default(items):
    return collections.defaultdict(list, items)


@pytest.mark.parametrize("options", [{}, {"compressor": "zlib"}], ids=["plain", "compressed"])
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_value_of_plain_data_comes_back_as_it_was(options, seed):
    """Every part has its type and its place, at any size, shared or not."""
    value = Maker(seed, OBJECTS, [dict, collections.OrderedDict, by_default]).table()
    codec = build_codec(**options)
    assert shape(codec.loads(codec.dumps(value, KEY), KEY)) == shape(value)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_value_of_another_cache_comes_back_as_it_was(seed):
    """Pickles as django-redis writes them do, too."""
    value = Maker(seed, COMMON, [dict, collections.OrderedDict]).table()
    pickles = PlainPickle(None)
    assert shape(pickles.loads(pickles.dumps(value))) == shape(value)
