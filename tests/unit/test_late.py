"""Records, loggers and patterns: the standard library's, but late."""

import copy
import dataclasses
import inspect
import logging
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

from storeroom import base, computing, config, engines, registry, storage
from storeroom.cli.configuration import Named
from storeroom.late import _Field, field, logger_of, pattern, record, replaced
from storeroom.registry.alias import Alias
from storeroom.registry.program import Owner
from storeroom.registry.source import Source
from storeroom.serializers.compressors import StreamFormat


@record(frozen=True, slots=True)
class Point:
    """A record as any other."""

    x: float
    y: float = 0.0
    label: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)

    @property
    def length(self) -> float:
        """The distance from the origin."""
        return (self.x**2 + self.y**2) ** 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Twin:
    """The same as a dataclass."""

    x: float
    y: float = 0.0
    label: str = dataclasses.field(default="", compare=False)
    secret: str = dataclasses.field(default="", repr=False)


POINT = Point(3.0, 4.0, label="corner", secret="hush")


@pytest.mark.parametrize("given", [(1.0,), (1.0, 2.0), (1.0, 2.0, "here"), (1.0, 2.0, "here", "hush")])
def test_a_record_is_made_and_shown_as_a_dataclass(given: tuple[Any, ...]) -> None:
    """Arguments, defaults, the text, and the signature that help() prints."""
    assert repr(Point(*given)) == repr(Twin(*given)).replace("Twin", "Point")
    assert dataclasses.astuple(Point(*given)) == dataclasses.astuple(Twin(*given))
    assert str(inspect.signature(Point)) == str(inspect.signature(Twin))


def test_records_are_equal_by_their_compared_fields() -> None:
    """The others differ without notice; another class is never equal."""
    assert Point(3.0, 4.0, label="another", secret="hush") == POINT
    assert hash(POINT) == hash(Point(3.0, 4.0, secret="hush"))
    assert Point(3.0, 4.0) != POINT
    assert Twin(3.0, 4.0, "corner", "hush") != POINT


def test_a_record_is_frozen() -> None:
    """No field is set or deleted, and no other attribute is added."""
    point: Any = POINT
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert not hasattr(point, "__dict__")


def test_a_record_is_copied_whole() -> None:
    """By pickle, by copy, and with changes."""
    for made in (pickle.loads(pickle.dumps(POINT)), copy.copy(POINT), copy.deepcopy(POINT), replaced(POINT)):
        assert dataclasses.astuple(made) == (3.0, 4.0, "corner", "hush")
    assert replaced(POINT, y=0.0).length == 3.0
    with pytest.raises(TypeError, match="z"):
        replaced(POINT, z=1)


@pytest.mark.parametrize(
    "kind", [Alias, config.Freshness, config.Option, config.Settings, Named, Owner, Point, Source, StreamFormat]
)
def test_dataclasses_take_a_record_for_their_own(kind: type[Any]) -> None:
    """A program's own code may call fields(), replace() and asdict() on each record of the package."""
    assert dataclasses.is_dataclass(kind)
    assert [each.name for each in dataclasses.fields(kind)] == list(kind.__match_args__)
    made = kind(*kind.__match_args__)
    assert dataclasses.replace(made) == made
    assert dataclasses.asdict(made) == {name: name for name in kind.__match_args__}


def test_a_record_may_be_derived_from() -> None:
    """By a dataclass that adds a field."""

    @dataclasses.dataclass(frozen=True)
    class Solid(Point):
        z: float = 0.0

    assert dataclasses.astuple(Solid(1.0, z=2.0)) == (1.0, 0.0, "", "", 2.0)


def test_other_dataclasses_are_no_records() -> None:
    """A record that could be changed, or without slots, is refused: nothing is silently something else."""
    with pytest.raises(TypeError, match="frozen and has slots"):
        record(frozen=False, slots=True)
    assert _Field(1).is_compared


def test_a_logger_is_that_of_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """Levels, handlers and the place in the code are as those of any logger."""
    with caplog.at_level(logging.INFO, "storeroom.late_test"):
        logger_of("storeroom.late_test").info("%s happened", "this")
    assert [(each.name, each.message, each.funcName) for each in caplog.records] == [
        ("storeroom.late_test", "this happened", "test_a_logger_is_that_of_its_name")
    ]


def test_a_pattern_does_as_a_compiled_one() -> None:
    """Every method, the first time and later."""
    late, now = pattern(r"(\w)(\d+)"), re.compile(r"(\w)(\d+)")
    for _ in range(2):
        assert late.findall("a1 b22") == now.findall("a1 b22")
        assert late.sub(r"\2\1", "a1") == "1a"
        assert late.fullmatch("a") is None
    assert late.pattern == now.pattern


@pytest.mark.parametrize("package", [base, computing, engines, registry, storage])
def test_a_package_lists_and_hands_out_all_its_names(package: Any) -> None:
    """dir() and help() see those that are not loaded yet; a name that is none is refused as by any module."""
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'lcok'"):
        package.lcok  # noqa: B018 -- asking is the test


def test_nothing_is_loaded_before_it_is_used() -> None:
    """Making a record, a logger and a pattern loads neither of the three modules."""
    code = (
        "import sys\nfrom storeroom.late import field, logger_of, pattern, record\n"
        "@record(frozen=True, slots=True)\nclass A:\n    x: int = field(default=1)\n"
        "log, words = logger_of('storeroom'), pattern('x')\n"
        "print({'dataclasses', 'logging'} & {*sys.modules}, A())\n"
        "log.debug(''), A.__dataclass_fields__\n"
        "print(sorted({'dataclasses', 'logging'} & {*sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set() A(x=1)\n['dataclasses', 'logging']\n"
