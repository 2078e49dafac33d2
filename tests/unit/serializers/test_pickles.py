"""Bytes that anybody may have written become plain data, or nothing."""

import collections
import copyreg
import datetime as dt
import fractions
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import threading
import zoneinfo

import pytest
from django.utils.safestring import SafeString

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError
from storeroom.serializers import build_codec, frames, pickles, safe_types
from tests.names import shown
from tests.unit.serializers.examples import ALLOWED, KEY, OBJECTS, PLAIN, Basket, Color, Markup, Outer, Point, same

SAFE = build_codec()
ALLOWING = build_codec(allowed_types=ALLOWED)

executed = []


def canary(*args):
    """Stand for any harmful function, and note the call."""
    executed.append(args)


class Calls:
    """Calls a function when its pickle is read."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def stored(stream):
    return frames.SAFE_PICKLE + stream


def refused(stream, codec=SAFE):
    with pytest.raises(DecodeError):
        codec.loads(stored(stream), KEY)
    return True


def text(word):
    return b"\x8c" + bytes([len(word)]) + word.encode()


def named(module, name):
    return text(module) + text(name) + b"\x93"


def program(*parts):
    return b"\x80\x05" + b"".join(parts) + b"."


def plain(value):
    """The opcodes of a value, as a part of a program: without header, frame, memo and end."""
    opcodes = pickle.dumps(value, 5)[2:-1].replace(b"\x94", b"")
    return opcodes[9:] if opcodes[:1] == b"\x95" else opcodes


def call(name, *args, module=safe_types.__name__):
    """A stream that calls the function of a name with plain arguments."""
    return program(named(module, name), plain(args), b"R")


def test_a_program_of_these_tests_runs_when_it_is_harmless():
    """Streams made by the helpers here are read if harmless, so later refusals have the right reason."""
    assert SAFE.loads(stored(call("new_fraction", 6, 4)), KEY) == fractions.Fraction(3, 2)
    assert SAFE.loads(stored(call("new_range", 0, 10**12, 1)), KEY) == range(10**12)
    assert SAFE.loads(stored(program(named(safe_types.__name__, "new_date"))), KEY) is safe_types.new_date
    assert SAFE.loads(stored(program(plain((None, {"planted": 1})))), KEY) == (None, {"planted": 1})
    assert SAFE.loads(stored(program(b"\x95", struct.pack("<Q", 2), b"N")), KEY) is None
    path = f"{Point.__module__}.Point"
    stream = call("restore", path, (1, 2), None, None, module=pickles.__name__)
    assert ALLOWING.loads(stored(stream), KEY) == Point(1, 2)


# Code ---------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        Calls(canary, 1),
        [{"deep": (Calls(canary, 1),)}],
        Calls(os.system, "true"),
        Calls(subprocess.Popen, ["true"]),
        Calls(eval, "1"),
        Calls(exec, "pass"),
        Calls(__import__, "antigravity"),
        Calls(getattr, Basket, "__init__"),
        Calls(setattr, Basket, "owner", "x"),
        Calls(open, os.devnull),
        Calls(pickle.loads, b"N."),
        Calls(copyreg._reconstructor, Basket, object, None),
        Calls(collections.OrderedDict, [("a", 1)]),
        Calls(bytes, 10),
        Calls(bytearray, 10),
        Calls(list, range(3)),
        Calls(slice, 1),
        Calls(type, "X", (), {}),
        Calls(map, len, []),
        Calls(dt.datetime, b"\xff" * 10),
        Calls(fractions.Fraction, "1e999999999"),
        Basket("x"),
        canary,
        Basket,
        len,
    ],
    ids=shown,
)
def test_no_function_and_no_class_is_reached_by_name(value, protocol):
    """A pickle that names a function or a foreign class is refused in every protocol, and nothing is called."""
    executed.clear()
    refused(pickle.dumps(value, protocol))
    assert executed == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "eval"),
        ("importlib", "import_module"),
        ("operator", "attrgetter"),
        ("functools", "partial"),
        ("types", "FunctionType"),
        ("pickle", "loads"),
        ("storeroom.serializers.pickles", "pkgutil.resolve_name"),
        ("storeroom.serializers.pickles", "_make"),
        ("storeroom.serializers.pickles", "pickle.loads"),
        ("storeroom.serializers.pickles", "restore.__globals__"),
        ("storeroom.serializers.pickles", "restore.__class__"),
        ("storeroom.serializers.safe_types", "dt.datetime"),
        ("storeroom.serializers.safe_types", "pathlib.os.system"),
        ("storeroom.serializers.safe_types", "collections"),
        ("storeroom.serializers.safe_types", "_exactly"),
        ("storeroom.serializers.safe_types", "new_path.__globals__"),
        ("storeroom.serializers.safe_types", "new_path.__call__"),
        ("storeroom.serializers.safe_types", "__builtins__"),
        ("", ""),
        ("datetime", "datetime"),
        ("decimal", "Decimal"),
        ("uuid", "UUID"),
        ("collections", "Counter"),
    ],
)
def test_only_the_constructors_have_a_name(module, name):
    """Every name but those of the constructors is refused, dotted paths into allowed modules included."""
    refused(program(named(module, name)))
    refused(call(name, "true", module=module))


@pytest.mark.parametrize(
    "stream",
    [
        program(text("pass"), b"N", text("builtins"), text("exec"), b"\x93", b"R"),
        b"\x80\x05cos\nsystem\n(Vtrue\ntR.",  # GLOBAL
        b"\x80\x05(S'true'\nios\nsystem\n.",  # INST
        program(b"(", named("os", "system"), text("true"), b"o"),  # OBJ
        program(named(safe_types.__name__, "new_complex"), b")\x81"),  # NEWOBJ
        program(named(safe_types.__name__, "new_complex"), b")}\x92"),  # NEWOBJ_EX
        program(b"\x82\x01"),  # EXT1
        program(b"\x83\x01\x00"),  # EXT2
        program(b"\x84\x01\x00\x00\x00"),  # EXT4
        program(b"Pid\n"),  # PERSID
        program(b"N", b"Q"),  # BINPERSID
        program(b"\x97"),  # NEXT_BUFFER
        program(b"C\x01x\x98"),  # READONLY_BUFFER
        program(b"Np1\n"),  # PUT
        program(b"Nq\x01"),  # BINPUT
        program(b"Nr\xff\xff\xff\x7f"),  # LONG_BINPUT: 32 GiB of memo
        program(b"N2\x86"),  # DUP
        program(b"I1\n"),  # INT
        program(b"L1L\n"),  # LONG
        program(b"F1.0\n"),  # FLOAT
        program(b"U\x01x"),  # SHORT_BINSTRING
        program(b"N\x80\x05"),  # PROTO, again
        b"\x80\x04N.",
        b"N.",
        b"\x80\x05N.N",
        b"\x80\x05N..",
        b"\x80\x05",
        b"\x80\x05N",
        b"\x80\x05.",
        b"",
    ],
    ids=shown,
)
def test_no_other_opcode_is_executed(stream):
    """A stream with an opcode outside the allowed set, or with a wrong header or end, is refused."""
    refused(stream)


def test_extension_codes_do_not_bypass_the_names():
    """A registered extension code is refused, even if the unpickler's cache of these codes already holds it."""
    copyreg.add_extension(__name__, "canary", 0xF0)
    try:
        copyreg._extension_cache[0xF0] = canary
        executed.clear()
        refused(program(b"\x82\xf0", b")R"))
        assert executed == []
    finally:
        copyreg.remove_extension(__name__, "canary", 0xF0)


def test_nothing_in_this_process_is_given_attributes():
    """BUILD, which sets attributes on any object on the stack, is refused and changes nothing."""
    state = plain((None, {"__defaults__": (1,), "planted": 1}))
    refused(program(named(safe_types.__name__, "new_path"), state, b"b"))
    assert safe_types.new_path.__defaults__ is None
    assert not hasattr(safe_types.new_path, "planted")


def test_every_opcode_that_may_pass_is_as_long_as_pickletools_says():
    """The allowed opcodes, with the lengths of their arguments, agree with the table of pickletools."""
    lengths = {"uint1": 1, "uint2": 2, "int4": 4, "uint4": 4, "float8": 8, "uint8": 8}
    prefixed = {"1": 1, "4": 4, "8": 8}
    allowed = set()
    for opcode in pickletools.opcodes:
        code, argument = opcode.code.encode("latin-1"), opcode.arg
        if code == b".":
            continue
        if argument is None:
            body = b""
        elif argument.name in lengths:
            body = b"\x00" * lengths[argument.name]
        elif argument.n in {
            pickletools.TAKEN_FROM_ARGUMENT1,
            pickletools.TAKEN_FROM_ARGUMENT4,
            pickletools.TAKEN_FROM_ARGUMENT4U,
            pickletools.TAKEN_FROM_ARGUMENT8U,
        }:
            body = (3).to_bytes(prefixed[argument.name[-1]], "little") + b"abc"
        else:
            body = b"1\n1\n"
        try:
            pickles.check_opcodes(b"\x80\x05" + code + body + b".")
        except pickle.UnpicklingError:
            continue
        allowed.add(opcode.name)
    assert allowed == {
        *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "MARK", "POP", "POP_MARK"),
        *("MEMOIZE", "BINGET", "LONG_BINGET", "STACK_GLOBAL", "REDUCE", "FRAME"),
    }


@pytest.mark.parametrize("size", [b"\x58\xff\xff\xff\xff", b"\x42\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f"])
def test_a_length_that_is_not_there_allocates_nothing(size):
    """A length of gigabytes with no bytes behind it is refused without an allocation."""
    refused(program(size))


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x96", b"\x95"])
@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 2**64 - 1, 10**12])
def test_a_length_of_eight_bytes_that_is_not_there_allocates_nothing(opcode, length):
    """A length of up to 2**64 - 1 with no bytes behind it is refused without an allocation."""
    refused(program(opcode, struct.pack("<Q", length)))


# Calls of the constructors ------------------------------------------------------------


@pytest.mark.parametrize(
    "stream",
    [
        call("new_complex", 1, 2),
        call("new_complex", 1.0),
        call("new_range", 1.0, 2, 3),
        call("new_range", 1, 2, 0),
        call("new_range", True, 2, 1),
        call("new_decimal", "what"),
        call("new_decimal", 1.0),
        call("new_decimal", (0, (1,), 10**9)),
        call("new_fraction", "1e999999999"),
        call("new_fraction", "1e999999999", 1),
        call("new_fraction", 1, 0),
        call("new_fraction", True, 1),
        call("new_date", 2024, 13, 1),
        call("new_date", b"\x00" * 4),
        call("new_datetime", None, 0, b"\xff" * 10),
        call("new_datetime", None, 0, 2024, 1, 255),
        call("new_datetime", None, 2, 2024, 1, 1),
        call("new_datetime", "UTC", 0, 2024, 1, 1),
        call("new_time", None, 0, 25),
        call("new_timedelta", 10**20, 0, 0),
        call("new_timedelta", 1.5, 0, 0),
        call("new_timezone", "UTC"),
        call("new_timezone"),
        call("new_zoneinfo", "../../../etc/passwd", True),
        call("new_zoneinfo", "/etc/passwd", True),
        call("new_zoneinfo", "No/Such", True),
        call("new_zoneinfo", 1, True),
        program(
            named(safe_types.__name__, "new_zoneinfo"),
            call("new_path", "PurePosixPath", "UTC")[2:-1],
            b"\x88\x86R",
        ),
        call("new_uuid", 2**128, None),
        call("new_uuid", -1, None),
        call("new_uuid", 1, "maybe"),
        call("new_path", "os", "x"),
        call("new_path", "PurePosixPath", 1),
        call("new_address", "IPv4Address", "999.0.0.1"),
        call("new_address", "socket", "192.0.2.1"),
        call("new_address", "IPv4Address", 5),
        call("new_ordered_dict", [(1, 2)]),
        call("new_counter", "abc"),
        call("new_defaultdict", "eval"),
        call("new_defaultdict", ["list"]),
        call("new_deque", -1),
        call("new_deque", 10**30),
        call("new_deque", [1, 2]),
    ],
    ids=lambda stream: repr(stream[36:70]),
)
def test_a_constructor_takes_only_the_arguments_that_its_writer_makes(stream):
    """A constructor refuses arguments of a kind that the writer never stores."""
    refused(stream)


def test_a_constructor_takes_no_keyword_and_no_single_argument_in_place_of_a_tuple():
    """A call with a bare argument in place of a tuple is refused."""
    refused(program(named(safe_types.__name__, "new_decimal"), text("1"), b"R"))


def test_nothing_iterates_over_an_endless_value():
    """No opcode and no constructor unfolds a range of 10**12 or the IPv6 network, which are short to write."""
    for endless in (call("new_range", 0, 10**12, 1), call("new_address", "IPv6Network", "::/0")):
        value = endless[2:-1]
        for stream in (
            program(b"\x8f", value, b"\x90"),  # ADDITEMS, without a mark
            program(b"]", value, b"e"),  # APPENDS, without a mark
            program(b"]", value, b"Ns"),  # an item of a list, by a range
            program(named(safe_types.__name__, "new_deque"), value, b"\x85R"),
            program(named(safe_types.__name__, "new_counter"), value, b"\x85R"),
            program(named(safe_types.__name__, "new_ordered_dict"), value, b"\x85R"),
            program(named(safe_types.__name__, "new_decimal"), value, b"R"),  # as the arguments themselves
        ):
            refused(stream)


# Values refused at set ----------------------------------------------------------------


@pytest.mark.parametrize("value", [v for v in OBJECTS if not isinstance(v, list)])
def test_a_type_that_could_not_be_read_back_is_refused_at_set(value):
    """An object of a type not allowed raises SerializationError with its name and the two options that help."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    for wrapped in (value, [value], {"a": (value,)}):
        with pytest.raises(SerializationError) as caught:
            SAFE.dumps(wrapped, KEY)
        for part in (name, "OPTIONS['secret']", "OPTIONS['allowed_types']"):
            assert part in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        Basket,
        len,
        slice(1),
        ...,
        NotImplemented,
        dt,
        ValueError("x"),
        type("Sub", (dt.date,), {})(2024, 1, 1),
        collections.defaultdict(Basket),
        collections.defaultdict(lambda: 1),
        collections.UserDict(),
        [dt.datetime],
        [fractions.Fraction(1, 2), fractions.Fraction],
        dt.datetime(2024, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {})()),
        collections.ChainMap(),
        io.BytesIO(b"x"),
        threading.Event(),
    ],
    ids=shown,
)
def test_anything_else_is_refused_at_set_too(value):
    """Classes, functions, modules and subclasses of allowed types raise SerializationError."""
    with pytest.raises(SerializationError):
        SAFE.dumps(value, KEY)


@pytest.mark.parametrize("cls", [collections.OrderedDict, collections.Counter])
def test_a_mapping_with_attributes_is_refused_at_set(cls):
    """An OrderedDict or Counter with attributes is refused, since only its items would be stored."""
    value = cls(a=1)
    value.note = "lost"
    with pytest.raises(SerializationError, match="attributes"):
        SAFE.dumps(value, KEY)


def test_a_time_zone_from_a_file_is_refused_at_set():
    """A ZoneInfo read from a file is refused, since it has no name by which to find it again."""
    header = b"TZif" + b"\x00" * 16
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    local_type = struct.pack(">lbb", 3600, 0, 0) + b"XST\x00"
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(header + counts + local_type))
    assert zone.utcoffset(None) is not None
    with pytest.raises(SerializationError):
        SAFE.dumps([zone], KEY)


def test_a_class_with_the_name_of_an_allowed_one_is_refused():
    """A class that only bears the name decimal.Decimal is refused at set."""
    impostor = type("Decimal", (), {"__module__": "decimal"})
    with pytest.raises(SerializationError):
        SAFE.dumps(impostor(), KEY)


def test_shared_and_circular_containers_keep_their_shape():
    """Shared references and a container within itself come back as the same objects."""
    inner = [1]
    ring = collections.OrderedDict(pair=(inner, inner))
    ring["self"] = ring
    returned = SAFE.loads(SAFE.dumps(ring, KEY), KEY)
    assert returned["self"] is returned
    assert returned["pair"][0] is returned["pair"][1]


def test_written_values_pass_the_check_of_opcodes():
    """Every plain value is written in opcodes that the reader allows."""
    for value in PLAIN:
        pickles.check_opcodes(pickles.SafePickle().dumps(value))


def test_every_constructor_is_reached_by_a_value():
    """Each constructor on the allow-list is used by at least one example value."""
    streams = b"".join(pickles.SafePickle().dumps(value) for value in [*PLAIN, SafeString("<b>")])
    assert [name for name in safe_types.CONSTRUCTORS if text(name) not in streams] == []


# Allowed classes ----------------------------------------------------------------------


@pytest.mark.parametrize("value", OBJECTS, ids=shown)
def test_a_value_of_an_allowed_class_comes_back(value):
    """An object of a class in allowed_types comes back equal."""
    returned = ALLOWING.loads(ALLOWING.dumps(value, KEY), KEY)
    assert same(returned, value)


def test_an_allowed_class_is_given_by_path_too():
    """A dotted path in allowed_types allows that class and no other."""
    path = f"{Markup.__module__}.Markup"
    codec = build_codec(allowed_types=[path])
    assert type(codec.loads(codec.dumps(Markup("x"), KEY), KEY)) is Markup
    with pytest.raises(SerializationError):
        codec.dumps(Point(1, 2), KEY)


def test_a_path_that_leads_to_a_class_defined_elsewhere_allows_it():
    """A path that re-exports a class allows it, as packages offer classes under shorter paths."""
    codec = build_codec(allowed_types=["tests.unit.serializers.test_pickles.Point"])
    sys.modules.setdefault("tests.unit.serializers.test_pickles", sys.modules[__name__])
    assert codec.loads(codec.dumps(Point(1, 2), KEY), KEY) == Point(1, 2)


def test_a_value_of_a_class_that_is_no_longer_allowed_is_not_read():
    """A stored object is refused once its class is off allowed_types."""
    refused(ALLOWING.dumps(Point(1, 2), KEY)[1:])
    refused(ALLOWING.dumps(Point(1, 2), KEY)[1:], build_codec(allowed_types=[Basket]))


def test_an_allowed_class_is_the_only_one_that_restore_makes():
    """restore() refuses every path that is not in allowed_types."""
    for path in ("os.system", "builtins.eval", "subprocess.Popen", f"{Basket.__module__}.canary", ""):
        refused(call("restore", path, ("true",), None, None, module=pickles.__name__), ALLOWING)


def test_an_enum_member_is_given_no_state():
    """A stored state for an enum member is refused: the member is the whole process's."""
    stream = call("restore", f"{Color.__module__}.Color", (1,), None, {"_value_": 99}, module=pickles.__name__)
    refused(stream, ALLOWING)
    assert Color.RED.value == 1


def test_an_allowed_class_whose_values_pickle_themselves_otherwise_is_refused_at_set():
    """An allowed class whose __reduce__ calls another function raises SerializationError at set."""
    codec = build_codec(allowed_types=[Calls])
    with pytest.raises(SerializationError, match="although it is in allowed_types"):
        codec.dumps(Calls(canary), KEY)


def test_allowed_classes_may_hold_each_other():
    """Allowed objects nest; one class that is missing from the list refuses the whole value."""
    value = Basket("Ada", [Point(1, 2), Outer.Inner(), {"at": dt.date(2024, 1, 1)}])
    assert ALLOWING.loads(ALLOWING.dumps(value, KEY), KEY) == value
    with pytest.raises(SerializationError, match="Point"):
        build_codec(allowed_types=[Basket]).dumps(value, KEY)


@pytest.mark.parametrize(("path", "part"), [("no.such.Class", "No module"), ("os.system", "expected a class")])
def test_an_allowed_type_that_does_not_exist_is_told_when_it_is_needed(path, part):
    """A path in allowed_types that leads to no class is an error only when an object needs it."""
    codec = build_codec(allowed_types=[path])
    assert codec.loads(codec.dumps([1], KEY), KEY) == [1]
    with pytest.raises(ConfigurationError, match=part):
        codec.dumps(Point(1, 2), KEY)


def test_a_stored_function_of_ours_is_harmless_in_other_hands():
    """Plain pickle.loads() of an allowed object raises, and makes nothing."""
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(ALLOWING.dumps(Point(1, 2), KEY)[1:])
