"""Bombs: a few bytes that stand for a value which crashes its reader, fills its memory, or takes its time."""

import ipaddress
import itertools
import lzma
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Final

from storeroom.serializers import safe_types
from storeroom.serializers.compressors import FORMATS

__all__ = ["BOMBS", "called", "led_past_others"]

PRIME: Final = 2**61 - 1  # integers that differ by it have one hash


def pickled(*opcodes: bytes) -> bytes:
    return b"\x10\x80\x05" + b"".join(opcodes) + b"."


def named(name: str) -> bytes:
    module = safe_types.__name__.encode()
    return b"\x8c%c%b\x8c%c%b\x93" % (len(module), module, len(name), name.encode())


def integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a%c%b" % (len(data), data) if len(data) < 256 else b"\x8b%b%b" % (struct.pack("<I", len(data)), data)


def text(length: int) -> bytes:
    return b"X" + struct.pack("<I", length) + b"9" * length


def shared(levels: int, begin: bytes, around: bytes) -> bytes:
    """Each level holds the one before twice: 2**levels of the first."""
    refers = (b"h%c" % number if number < 256 else b"j%b" % struct.pack("<I", number) for number in range(levels))
    return begin + b"\x94" + b"".join(around.replace(b"?", refer) for refer in refers)


def tuples(depth: int) -> bytes:
    return b")" + b"\x85" * depth


def outside_in(depth: int) -> bytes:
    """Lists within lists, each put into the one outside it while it is empty."""
    links = (b"j%b]\x94a0" % struct.pack("<I", number) for number in range(depth))
    return b"]\x94" + b"".join(links)


def row() -> bytes:
    """A row of a table, with a date, as a pickle of ours has it: four objects that can be referred to."""
    return b"(K\x01" + named("new_date") + b"\x94M\xe8\x07K\x01K\x01\x87\x94R\x94t\x94"


def shared_from(number: int, levels: int) -> bytes:
    """The same as `shared`, where objects before have taken so many numbers."""
    refers = (b"j%b" % struct.pack("<I", number + level) for level in range(levels))
    return b")\x85\x94" + b"".join(refer + refer + b"\x86\x94" for refer in refers)


def called(name: str, *texts: bytes, times: int = 100_000, end: bytes = b"h\x00)Re") -> bytes:
    """List a constructor, its arguments, and many results of them; in the end it refuses a call without any."""
    arguments = b"".join(b"\x8c%c%b" % (len(each), each) for each in texts) + b"\x86"
    return pickled(b"](", named(name), b"\x94", arguments, b"\x94", b"h\x00h\x01R" * times, end)


@cache
def led_past_others(count: int) -> tuple[int, ...]:
    """Integers of which a dict of 2**15 slots leads most past most of those before them.

    A dict tries ten slots by the bits of a hash below 2**50, five more of them each time, and then a run that is the
    same for all. The first third fill the begin of the run. The others are led from one slot that is taken to the next,
    and up the run.
    """
    last, chance = 2**15 - 1, random.Random(13)
    run = [0]
    while len(run) < count:
        run.append((run[-1] * 5 + 1) & last)
    chosen = run[: count // 3]
    taken = set(chosen)

    def ends_in_taken(number: int, slot: int, step: int) -> bool:
        while number >> 5 * step and slot in taken:
            step += 1
            slot = (slot * 5 + (number >> 5 * step) + 1) & last
        return slot in taken

    while len(chosen) < count:
        number = slot = chosen[chance.randrange(count // 3)]
        for step in range(1, 8):
            begin = chance.randrange(32)
            for turn in range(32):
                tried = number | (begin + turn) % 32 << 10 + 5 * step
                following = (slot * 5 + (tried >> 5 * step) + 1) & last
                if following in taken and (step < 7 or ends_in_taken(tried, following, step)):
                    number, slot = tried, following
                    break
            else:
                break
        else:
            taken.add(run[len(chosen)])
            chosen.append(number)
    return tuple(chosen)


def of_one_hash(count: int) -> Iterator[tuple[int, int]]:
    """Pairs of integers that have the hash of each other: the second is what the hash of tuples asks for."""
    first, second, seed, whole = 11400714785074694791, 14029467366897019727, 2870177450012600261, 2**64

    def turned(number: int, bits: int) -> int:
        return (number << bits | number >> 64 - bits) % whole

    wanted = turned(13 * pow(first, -1, whole) % whole, 33)
    made = 0
    for one in itertools.count():
        before = turned((seed + one * second) % whole, 31) * first % whole
        other = (wanted - before) * pow(second, -1, whole) % whole
        other -= whole * (other >= 2**63)
        if abs(other) < PRIME:
            yield one, other
            made += 1
        if made == count:
            return


def pairs(count: int, end: bytes = b"\x86") -> list[bytes]:
    return [integer(one) + integer(other) + end for one, other in of_one_hash(count)]


def short(word: str) -> bytes:
    return b"\x8c%c%b" % (len(word), word.encode())


def calls(name: str, arguments: Iterable[bytes], end: bytes = b"R") -> list[bytes]:
    """A constructor that is named once, at 0, and called with many arguments."""
    each = [b"h\x00" + one + end for one in arguments]
    return [named(name) + b"\x94" + each[0][2:], *each[1:]]


def referring(begin: int, end: int) -> bytes:
    """A dict whose keys are objects that came before."""
    return b"}(" + b"".join(b"h%cN" % number for number in range(begin, end)) + b"u"


def in_batches(items: list[bytes], size: int, end: bytes, begin: bytes = b"") -> list[bytes]:
    return [begin + b"(" + b"".join(items[start : start + size]) + end for start in range(0, len(items), size)]


def nested(levels: int, members: bytes) -> bytes:
    return b"\x12" + members * levels


PICKLES: Final[dict[str, Callable[[], bytes]]] = {
    "tuples in a set": lambda: pickled(b"\x8f(", tuples(300_000), b"\x90"),
    "tuples in a frozenset": lambda: pickled(b"(", tuples(300_000), b"\x91"),
    "tuples as a key": lambda: pickled(b"}", tuples(300_000), b"Ns"),
    "tuples as keys, many": lambda: pickled(b"}(", tuples(300_000), b"Nu"),
    "tuples in tuples of two": lambda: pickled(b"\x8f(", b"K\x01" * 100_000, b")", b"\x86" * 100_000, b"\x90"),
    "tuples of all, marked": lambda: pickled(b"\x8f(", b"(" * 300_000, b"t" * 300_000, b"\x90"),
    "tuples kept, and put away": lambda: pickled(b")\x94" + b"\x85\x94" * 200_000, b"0\x8f(j\x40\x0d\x03\x00\x90"),
    "frozensets in frozensets": lambda: pickled(b"(" * 300_000, b"\x91" * 300_000),
    "tuples as a counter's key": lambda: pickled(named("new_counter"), b")R(", tuples(300_000), b"K\x01u"),
    "lists": lambda: pickled(b"]" * 100_000, b"a" * 99_999),
    "lists in dicts": lambda: pickled(b"}K\x01" * 100_000, b"N", b"s" * 100_000),
    "lists from outside in": lambda: pickled(outside_in(100_000)),
    "deques in deques": lambda: pickled((named("new_deque") + b"N\x85R") * 5_000, b"a" * 4_999),
    "one tuple in two, hashed": lambda: pickled(b"\x8f(", shared(60, b")", b"??\x86\x94"), b"\x90"),
    "one tuple in two, as a key": lambda: pickled(b"}", shared(60, b")", b"??\x86\x94"), b"Ns"),
    "integers of one hash": lambda: pickled(b"\x8f(", *(integer(PRIME * n) for n in range(1, 20_001)), b"\x90"),
    "integers of one hash as keys": lambda: pickled(
        b"}(", *(integer(PRIME * n) + b"N" for n in range(1, 20_001)), b"u"
    ),
    "long integers of one hash": lambda: pickled(
        b"\x8f(", *(integer((PRIME * n) << 61 * 40) for n in range(1, 10_001)), b"\x90"
    ),
    "UUIDs of one hash": lambda: pickled(
        named("new_uuid"),
        b"\x940",
        b"\x8f(",
        *(b"h\x00" + integer(PRIME * n) + b"N\x86R" for n in range(1, 20_001)),
        b"\x90",
    ),
    "a fraction in lowest terms": lambda: pickled(
        named("new_fraction"), integer(7**100_000), integer(3**120_000), b"\x86R"
    ),
    "one fraction, many times": lambda: pickled(
        named("new_fraction"), b"\x94", integer(7**600), integer(3**1000), b"\x86\x94R(", b"h\x00h\x01R" * 50_000, b"t"
    ),
    "one long number, many times": lambda: pickled(
        named("new_decimal"), b"\x94", text(60_000), b"\x85\x94R(", b"h\x00h\x01R" * 50_000, b"t"
    ),
    "a path of many parts": lambda: pickled(
        named("new_path"), b"\x8c\x0dPurePosixPathX", struct.pack("<I", 1_000_000), b"a/" * 500_000, b"\x86R"
    ),
    "empty sets": lambda: pickled(b"](", b"\x8f" * 200_000, b"e"),
    "empty deques": lambda: pickled(
        named("new_deque"), b"\x940(NN\x85\x94", b"h\x00h\x01R" * 50_000, b"t"
    ),
    "memory by a number of the memo": lambda: pickled(b"Nr\xff\xff\xff\x7f"),
    "twice the top of the stack": lambda: pickled(b"](", b"N2" * 100_000, b"e"),
    "a text of 2**62 bytes": lambda: pickled(b"\x8d" + struct.pack("<Q", 2**62)),
    "a bytearray of 2**40 bytes": lambda: pickled(b"\x96" + struct.pack("<Q", 2**40)),
    "a frame of 2**62 bytes": lambda: pickled(b"\x95" + struct.pack("<Q", 2**62) + b"N"),
    "laughs among rows with dates": lambda: pickled(
        b"}(\x8c\x04rows](", row() * 1000, b"e\x8c\x01k", shared_from(4001, 40), b"K\x01u"
    ),
    "laughs among rows, as a date": lambda: pickled(b"](", row(), shared_from(5, 40), b"}h\x2dNse"),
    "tuples in a constructor's argument": lambda: pickled(named("new_zoneinfo"), tuples(300_000), b"\x88\x86R"),
    "tuples as another argument": lambda: pickled(named("new_uuid"), b"K\x01", tuples(300_000), b"\x86R"),
    "tuples as a factory": lambda: pickled(named("new_defaultdict"), tuples(300_000), b"\x85R"),
    "tuples kept as arguments, as a key": lambda: pickled(
        named("new_text"), b"\x94", b")" + b"\x85\x94R\x94" * 100_000, b"}h\x09Ns"
    ),
    "dicts with the arguments of a call as keys": lambda: pickled(
        named("new_date"), tuples(200_000), b"\x94R}h\x00Ns"
    ),
    "a range of long integers, many times": lambda: pickled(
        named("new_range"), integer(1), integer(7**80_000), integer(1), b"\x87R\x94}(", b"h\x00N" * 50_000, b"u"
    ),
    "one Decimal as a key, many times": lambda: pickled(
        named("new_decimal"), text(60_000), b"\x85R\x94}(", b"h\x00N" * 25_000, b"u"
    ),
    "integers of one hash, of 64 bytes and more": lambda: pickled(
        b"}(", *(integer((PRIME * n) << 61 * 9) + b"(K\x01tu(" for n in range(1, 15_001)), b"u"
    ),
    "lists and tuples in turn": lambda: pickled(b"]" + b"\x85](" * 50_000, b"e" * 50_000),
    "many long texts": lambda: pickled(b"](", (b"\x8c\x50" + b"9a" * 40) * 3_000, b"K\x01\x85}h\x00Nse"),
    "marks": lambda: pickled(b"}(" * 100_000, b"u" * 100_000),
    "calls in a set that ends early": lambda: pickled(b"\x8f(", b"h\x05M\xe8\x07K\x01K\x01\x87R" * 700, b"t"),
    "empty frozensets": lambda: pickled(b"](", b"(\x91" * 200_000, b"e"),
    "frozensets of one": lambda: pickled(b"](", b"(K\x01\x91" * 100_000, b"e"),
    "one path, 100,000 times": lambda: called("new_path", b"PurePosixPath", b"a/b"),
    "one network, 100,000 times": lambda: called("new_address", b"IPv6Network", b"2001:db8:1:2::/64"),
    "one interface, 100,000 times": lambda: called("new_address", b"IPv6Interface", b"1:2:3:4:5:6:7:8/64"),
    "one UUID, 100,000 times": lambda: pickled(
        b"](", named("new_uuid"), b"\x94", integer(5**50), b"N\x86\x94", b"h\x00h\x01R" * 100_000, b"e"
    ),
    "empty dicts in order": lambda: pickled(b"](", named("new_ordered_dict"), b"\x94", b"h\x00)R" * 50_000, b"e"),
    "empty defaultdicts": lambda: pickled(b"](", named("new_defaultdict"), b"\x94", b"h\x00N\x85R" * 50_000, b"e"),
    "tuples as a path": lambda: pickled(named("new_path"), b"\x8c\x0dPurePosixPath", tuples(300_000), b"\x86R"),
    "an extension": lambda: pickled(b"\x84\xff\xff\xff\x7f"),
    "integers led past each other, as keys": lambda: pickled(
        b"}(", *(integer(number) + b"N" for number in led_past_others(20_000)), b"u"
    ),
    "integers led past each other, by one": lambda: pickled(
        b"}", *(integer(number) + b"Ns" for number in led_past_others(20_000))
    ),
    "integers led past each other, by 900": lambda: pickled(
        b"}", *in_batches([integer(number) + b"N" for number in led_past_others(20_000)], 900, b"u")
    ),
    "integers led past each other, among texts": lambda: pickled(
        b"}(", *(integer(number) + b"N\x8c\x06%06dN" % number_of for number_of, number in enumerate(
            led_past_others(16_000))), b"u"
    ),
    "integers led past each other, of a counter": lambda: pickled(
        named("new_counter"), b")R(", *(integer(number) + b"N" for number in led_past_others(20_000)), b"u"
    ),
    "integers led past each other, in order": lambda: pickled(
        named("new_ordered_dict"), b")R(", *(integer(number) + b"N" for number in led_past_others(20_000)), b"u"
    ),
    "integers led past each other, by default": lambda: pickled(
        named("new_defaultdict"), b"N\x85R(", *(integer(number) + b"N" for number in led_past_others(20_000)), b"u"
    ),
    "pairs of one hash": lambda: pickled(b"\x8f(", *pairs(8_000), b"\x90"),
    "pairs of one hash, as keys of small dicts": lambda: pickled(
        b"](", *in_batches([one + b"N" for one in pairs(8_000)], 400, b"u", b"}"), b"e"
    ),
    "pairs of one hash, again and again": lambda: pickled(
        b"](", *pairs(250, b"\x86\x94"), referring(0, 250) * 300, b"e"
    ),
    "Decimals of one hash": lambda: pickled(
        b"\x8f(", *calls("new_decimal", (short(str(7 + PRIME * n)) + b"\x85" for n in range(8_000))), b"\x90"
    ),
    "Decimals of one hash, as keys": lambda: pickled(
        b"](", *calls("new_decimal", (short(str(PRIME * n)) + b"\x85" for n in range(250)), b"R\x94"),
        referring(1, 250) * 200, b"e"
    ),
    "complex numbers of one hash": lambda: pickled(
        b"\x8f(", *calls("new_complex", (
            b"G%bG%b\x86" % (struct.pack(">d", 2**40 - 1_000_003 * n), struct.pack(">d", n)) for n in range(8_000)
        )), b"\x90"
    ),
    "ranges of one hash": lambda: pickled(
        b"\x8f(", *calls("new_range", (
            integer(PRIME * n) + integer(PRIME * n + 5) + b"K\x01\x87" for n in range(5_000)
        )), b"\x90"
    ),
    "fractions of one hash": lambda: pickled(
        b"\x8f(", *calls("new_fraction", (
            integer(PRIME // 3 * n % PRIME) + integer(n) + b"\x86" for n in range(3, 4_000)
        )), b"\x90"
    ),
    "networks of one hash": lambda: pickled(
        b"\x8f(", *calls("new_address", (
            short("IPv6Network") + short(str(ipaddress.IPv6Address((5 + n * PRIME) ^ (2**128 - 1)))) + b"\x86"
            for n in range(4_000)
        )), b"\x90"
    ),
    "UUIDs of forty hashes": lambda: pickled(
        named("new_uuid"), b"\x940\x8f(",
        *(b"h\x00" + integer(PRIME * n + m) + b"N\x86R" for m in range(40) for n in range(1, 400)), b"\x90"
    ),
    "UUIDs of one hash, as keys": lambda: pickled(
        b"](", *calls("new_uuid", (integer(PRIME * n) + b"N\x86" for n in range(1, 250)), b"R\x94"),
        referring(1, 250) * 100, b"e"
    ),
    "timedeltas' arguments of one hash, as keys": lambda: pickled(
        b"](", *calls("new_timedelta", (b"K\x00" + integer(one) + b"K\x00\x87\x94" for one in range(200))),
        *pairs(50, b"\x86\x94"), referring(201, 250) * 2_000, b"e"
    ),
    "frozensets of one hash": lambda: pickled(
        b"\x8f(", *(b"(" + integer(PRIME * n) + integer(PRIME * n + 1) + b"\x91" for n in range(5_000)), b"\x90"
    ),
    "one tuple in two, as a key of a small dict": lambda: pickled(
        b"](", shared(60, b")", b"??\x86\x94"), b"}", b"(h\x3bNu", b"e"
    ),
    "tuples, as a key of a small dict": lambda: pickled(b"](", tuples(50_000), b"\x94}(h\x00Nue"),
    "24 pairs of one hash, again and again": lambda: pickled(
        b"](", *pairs(24, b"\x86\x94"), referring(0, 24) * 5_000, b"e"
    ),
    "one tuple of 60,000 as 20,000 keys of small dicts": lambda: pickled(
        b"(", b"K\x01" * 60_000, b"t\x94](", b"}(h\x00Nu" * 20_000, b"e"
    ),
    "one tuple of 60,000 as 4,000 keys": lambda: pickled(
        b"(", b"K\x01" * 60_000, b"t\x94](", b"}h\x00Ns" * 4_000, b"e"
    ),
    "a number of 60 kB as 20,000 keys": lambda: pickled(
        integer(7**170_000), b"\x94](", b"}h\x00Ns" * 20_000, b"e"
    ),
    "deques in deques, and more": lambda: pickled(
        (named("new_deque") + b"N\x85R") * 600, b"](" + b"K\x01" * 9_000 + b"e" + b"a" * 600
    ),
    "defaultdicts within each other": lambda: pickled(
        (named("new_defaultdict") + b"N\x85RK\x01") * 600, b"N", b"s" * 600
    ),
}  # fmt: skip

JSONS: Final[dict[str, Callable[[], bytes]]] = {
    "lists, not closed": lambda: b"\x11" + b"[" * 1_000_000,
    "lists, closed": lambda: b"\x11" + b"[" * 800 + b"]" * 800,
    "dicts, closed": lambda: b"\x11" + b'{"a":' * 700 + b"1" + b"}" * 700,
    "lists in dicts": lambda: b"\x11" + b'[{"a":' * 400 + b"1" + b"}]" * 400,
    "digits": lambda: b"\x11" + b"9" * 1_000_000,
    "a text that does not end": lambda: b'\x11"' + b"a" * 1_000_000,
    "many lists 480 deep": lambda: b"\x11[" + (b"[" * 480 + b"]" * 480 + b",") * 1000 + b"1]",
    "many lists ten deep": lambda: b"\x11[" + (b"[" * 10 + b"]" * 10 + b",") * 50_000 + b"1]",
    "texts that begin again and again": lambda: b'\x11["' + b'","' * 250_000,
}

MSGPACKS: Final[dict[str, Callable[[], bytes]]] = {
    "arrays that claim all that follows": lambda: nested(500, b"\xdd\x00\x20\x00\x00") + b"\x01" * 2**21,
    "maps that claim all that follows": lambda: nested(500, b"\xdf\x00\x10\x00\x00\x01") + b"\x01" * 2**21,
    "an array of 2**32": lambda: nested(1, b"\xdd\xff\xff\xff\xff") + b"\xc0" * 1000,
    "arrays": lambda: nested(100_000, b"\x91") + b"\x01",
    "maps": lambda: nested(100_000, b"\x81\x01") + b"\x01",
    "extensions that claim all": lambda: nested(100, b"\xc9\xff\xff\xff\xff\x01"),
    "a text of 2**32": lambda: nested(1, b"\xdb\xff\xff\xff\xff"),
    "many arrays 480 deep": lambda: nested(1, b"\xdc\x07\xd0" + (b"\x91" * 480 + b"\x01") * 2000),
    "many arrays ten deep": lambda: nested(1, b"\xdd\x00\x01\x86\xa0" + (b"\x91" * 10 + b"\x01") * 100_000),
    "many maps 240 deep": lambda: nested(1, b"\xdc\x07\xd0" + (b"\x81\x01" * 240 + b"\x01") * 2000),
    "maps and arrays in turn": lambda: nested(50_000, b"\x81\xa1a\x91") + b"\xc0",
    "a text that is none": lambda: nested(1, b"\xdb\x00\x0f\x42\x40") + b"\xff" * 1_000_000,
    "integers led past each other": lambda: (
        b"\x12\xdf\x00\x00\x4e\x20"
        + b"".join(b"\xcf%b\xc0" % struct.pack(">Q", number) for number in led_past_others(20_000))
    ),
    "floats as keys": lambda: (
        b"\x12\xdf\x00\x00\x4e\x20"
        + b"".join(b"\xcb%b\xc0" % struct.pack(">d", number) for number in led_past_others(20_000))
    ),
    "times as keys": lambda: (
        b"\x12\xde\x03\xe8" + b"".join(b"\xc7\x0c\xff%b\xc0" % struct.pack(">Iq", n, n) for n in range(1_000))
    ),
    "dicts of one member, which expand": lambda: (
        b"\x14" + zlib.compress(b"\x12\xdd\x00\x0f\x00\x00" + b"\x81\x01\x02" * 0xF0000)
    ),
}

COMPRESSED: Final[dict[str, Callable[[], bytes]]] = {
    "zeros": lambda: _zlib(b"\x02", b"0" * 2**20, 30),
    "zeros as bytes": lambda: _zlib(b"\x03", b"\x00" * 2**20, 30),
    "sets": lambda: _zlib(pickled()[:-1] + b"](", b"\x8f" * 2**20, 4, b"e."),
    "as many sets as expand": lambda: _zlib(pickled()[:-1] + b"](", b"\x8f" * 3_100_000, 1, b"e."),
    "as many lists as expand": lambda: _zlib(pickled()[:-1] + b"](", b"]" * 3_100_000, 1, b"e."),
    "as many lists of JSON as expand": lambda: _zlib(b"\x11[", b"[]," * 1_040_000, 1, b"[]]"),
    "as many maps of MessagePack as expand": lambda: _zlib(b"\x12\xdd\x00\x2f\x4d\x60", b"\x80" * 3_100_000, 1),
    "a few sets": lambda: _zlib(pickled()[:-1] + b"](", b"\x8f" * 500_000, 1, b"e."),
    "dicts": lambda: _zlib(pickled()[:-1] + b"](", b"}" * 500_000, 1, b"e."),
    "one tuple within another": lambda: b"\x14" + zlib.compress(pickled(b"\x8f(", tuples(2_000_000), b"\x90")),
    "lists of JSON": lambda: _zlib(b"\x11[", b"[]," * 349_000, 1, b"[]]"),
    "many lists of JSON": lambda: _zlib(b"\x11[", b"[]," * 349_000, 6, b"[]]"),
    "maps of MessagePack": lambda: b"\x14" + zlib.compress(b"\x12\xdd" + struct.pack(">I", 10**6) + b"\x80" * 10**6),
    "zeros of another compressor": lambda: b"\x15" + lzma.compress(b"\x02" + b"0" * 2**23, preset=0),
    "zeros by xz": lambda: b"\x15" + lzma.compress(b"\x02" + b"0" * 2**25),
    "zeros by Zstandard": lambda: b"\x16" + _compressed("zstd", b"\x02" + b"0" * 2**25),
    "zeros by LZ4": lambda: b"\x17" + _compressed("lz4", b"\x02" + b"0" * 2**25),
    "sets by Zstandard": lambda: b"\x16" + _compressed("zstd", pickled(b"](", b"\x8f" * 500_000, b"e")),
    "tuples by LZ4": lambda: b"\x17" + _compressed("lz4", pickled(b"\x8f(", tuples(1_000_000), b"\x90")),
    "Zstandard in LZ4": lambda: b"\x17" + _compressed("lz4", b"\x16" + _compressed("zstd", b"\x02" + b"0" * 2**25)),
    "xz that asks for 33 MB": lambda: (
        b"\x15" + lzma.compress(b"\x02" + b"0" * 2**20, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**25}])
    ),
    "references": lambda: _zlib(pickled()[:-1] + b"](\x8c\x01a\x94", b"h\x00" * 1_500_000, 1, b"e."),
    "tuples in a dict": lambda: _zlib(pickled()[:-1] + b"}(K\x01](", b"K\x01K\x02\x86" * 600_000, 1, b"eu."),
    "pairs of pairs": lambda: _zlib(
        pickled()[:-1] + b"}(K\x01](", b"K\x01K\x02\x86K\x01K\x02\x86\x86" * 270_000, 1, b"eu."
    ),
    "texts of MessagePack": lambda: _zlib(b"\x12\xdd\x00\x16\xe3\x60", b"\xa1a" * 1_500_000, 1),
    "floats of MessagePack": lambda: _zlib(b"\x12\xdd\x00\x08\x00\x00", (b"\xcb" + bytes(8)) * 340_000, 1),
    "Zstandard of empty blocks": lambda: b"\x16\x28\xb5\x2f\xfd\x00\x58" + bytes(3) * 200_000,
    "LZ4 that claims 2**60 bytes": lambda: b"\x17\x04\x22\x4d\x18\x68\x40" + struct.pack("<Q", 2**60) + b"\x00",
    "compressed once more": lambda: b"\x14" + zlib.compress(b"\x14" + zlib.compress(b"\x02" + b"0" * 2**25)),
}


def _compressed(name: str, frame: bytes) -> bytes:
    return bytes(FORMATS[name].library().compress(frame))


def _zlib(begin: bytes, piece: bytes, times: int, end: bytes = b"") -> bytes:
    press = zlib.compressobj(9)
    parts = itertools.chain([begin], itertools.repeat(piece, times), [end])
    return b"\x14" + b"".join(map(press.compress, parts)) + press.flush()


BOMBS: Final = {
    f"{kind}: {name}": make
    for kind, bombs in (("pickle", PICKLES), ("json", JSONS), ("msgpack", MSGPACKS), ("compressed", COMPRESSED))
    for name, make in bombs.items()
}
"""Name to a function that makes the stored bytes."""
