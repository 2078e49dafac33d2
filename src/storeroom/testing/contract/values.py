"""Values: every type comes back equal, None is one, copies are given out, and the rest is refused."""

import enum
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pytest

from storeroom.exceptions import SerializationError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["ValuesContract"]


class Color(enum.Enum):
    """A class of the program's own."""

    RED = "red"


@dataclass
class Point:
    """Another."""

    x: int
    y: list[int]


MIB: Final = 1024 * 1024

PLAIN_VALUES: Final[dict[str, Any]] = {
    "None": None,
    "True": True,
    "False": False,
    "zero": 0,
    "int": 42,
    "negative int": -7,
    "64-bit int": 2**63,
    "big int": -(10**40),
    "float": 1.5,
    "float zero": 0.0,
    "infinity": float("inf"),
    "complex": 1 + 2j,
    "empty str": "",
    "str": "text",
    "numeric str": "42",
    "unicode str": "Grüße, 世界, \U0001f600, e\u0301",
    "str with a lone surrogate": "\ud800",
    "str with a null character": "a\x00b",
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "bytearray": bytearray(b"abc"),
    "tuple": (1, "two", (3.0, None)),
    "list": [1, [2, [3]]],
    "empty list": [],
    "dict": {"a": 1, 2: "b", None: {"nested": [True]}, (1, 2): "tuple key"},
    "set": {1, 2, 3},
    "frozenset": frozenset({"a", "b"}),
    "datetime without a time zone": datetime.fromisoformat("2024-02-29T12:30:15.123456"),
    "aware datetime": datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "UTC datetime": datetime(1969, 7, 20, tzinfo=UTC),
    "date": date(2024, 2, 29),
    "timedelta": timedelta(days=-1, microseconds=1),
    "Decimal": Decimal("1.10"),
    "UUID": uuid.UUID(int=7),
}

LARGE_VALUES: Final[dict[str, Any]] = {
    "bytes": b"\x00\xff" * (4 * MIB),
    "str": "é" * (2 * MIB),
    "list": list(range(100_000)),
}


@needs("store")
class ValuesContract(Suite):
    """Reading and writing single values."""

    @pytest.mark.parametrize("value", PLAIN_VALUES.values(), ids=PLAIN_VALUES)
    async def test_get_returns_an_equal_value_of_the_same_type(self, cache: Driver, value: Any) -> None:
        """A value of every builtin type comes back equal, and of the same type."""
        await cache.set("k", value)
        found = await cache.get("k", "absent")
        assert found == value
        assert type(found) is type(value)

    @needs("objects")
    @pytest.mark.parametrize("value", [Color.RED, Point(1, [2, 3])], ids=["enum", "dataclass"])
    async def test_get_returns_an_equal_object_of_the_programs_own_class(self, cache: Driver, value: Any) -> None:
        """An instance of an importable class comes back equal."""
        await cache.set("k", [value])
        assert await cache.get("k") == [value]

    @needs("large_values")
    @pytest.mark.parametrize("value", LARGE_VALUES.values(), ids=LARGE_VALUES)
    async def test_get_returns_a_large_value(self, cache: Driver, value: Any) -> None:
        """A value of several MiB comes back equal."""
        await cache.set("k", value)
        assert await cache.get("k") == value

    @needs("large_values")
    async def test_operations_do_not_tell_a_large_value_from_a_small_one(self, cache: Driver) -> None:
        """A large value is touched, moved, kept by add(), overwritten by a small one and back, and removed."""
        large = "v" * 300_000
        await cache.set("k", 1)
        await cache.set("k", large, timeout=50)
        assert await cache.touch("k", 1000) is True
        assert await cache.ttl("k") == pytest.approx(1000, rel=0.1)
        assert await cache.add("k", 2) is False
        assert await cache.get_or_set("k", lambda: 2) == large
        assert await cache.incr_version("k") == 2
        assert await cache.get_many(["k"], version=2) == {"k": large}
        assert await cache.get("k", "absent") == "absent"
        await cache.set("k", 3, version=2)
        assert await cache.get("k", version=2) == 3
        await cache.set("k", large, version=2)
        assert await cache.delete("k", version=2) is True
        assert await cache.has_key("k", version=2) is False

    async def test_get_tells_a_stored_none_from_absence(self, cache: Driver) -> None:
        """A stored None is a value to every operation, and the default is returned for an absent key alone."""
        await cache.set("k", None)
        assert await cache.get("k", "default") is None
        assert await cache.get("l", "default") == "default"
        assert await cache.has_key("k")
        assert await cache.get_many(["k", "l"]) == {"k": None}
        assert await cache.add("k", "other") is False

    async def test_set_overwrites(self, cache: Driver) -> None:
        """set() replaces a value by one of any type."""
        for value in (1, "two", [3], None, 4.0, {"five": 5}):
            await cache.set("k", value)
            assert await cache.get("k", "absent") == value

    async def test_set_returns_nothing(self, cache: Driver) -> None:
        """set() returns None, as in Django."""
        assert await cache.set("k", 1) is None

    async def test_add_keeps_the_first_value(self, cache: Driver) -> None:
        """add() stores under a free key alone, and returns whether it did."""
        assert await cache.add("k", "first") is True
        assert await cache.add("k", "second") is False
        assert await cache.get("k") == "first"

    async def test_delete_removes_and_tells_whether_it_did(self, cache: Driver) -> None:
        """delete() removes the entry, and returns whether there was one."""
        await cache.set("k", 1)
        assert await cache.delete("k") is True
        assert await cache.get("k") is None
        assert await cache.delete("k") is False

    async def test_add_stores_after_delete(self, cache: Driver) -> None:
        """add() stores under a key that was deleted."""
        await cache.set("k", 1)
        await cache.delete("k")
        assert await cache.add("k", 2) is True
        assert await cache.get("k") == 2

    async def test_has_key_and_in_tell_whether_a_key_is_there(self, cache: Driver) -> None:
        """has_key() and `in` tell whether there is an entry, whatever its value."""
        await cache.set("k", 0)
        assert await cache.has_key("k") is True
        assert await cache.has_key("l") is False
        assert "k" in cache.cache
        assert "l" not in cache.cache

    @needs("isolation")
    @pytest.mark.parametrize(
        ("write", "read"),
        [("set", "get"), ("add", "get"), ("set_many", "get"), ("set", "get_many"), ("set", "get_or_set")],
    )
    async def test_changing_an_object_does_not_change_what_is_cached(
        self, cache: Driver, write: str, read: str
    ) -> None:
        """Changing an object that was stored or read does not change the cached value."""

        async def found() -> Any:
            if read == "get_many":
                return (await cache.get_many(["k"]))["k"]
            return await (cache.get("k") if read == "get" else cache.get_or_set("k", "absent"))

        value = {"list": [1, 2]}
        await (cache.set_many({"k": value}) if write == "set_many" else getattr(cache, write)("k", value))
        value["list"].append(3)
        first = await found()
        assert first == {"list": [1, 2]}
        first["list"].clear()
        assert await found() == {"list": [1, 2]}

    @needs("refusal")
    @pytest.mark.parametrize(
        "make",
        [threading.Lock, lambda: lambda: None, lambda: iter(lambda: 1, 2), lambda: {"nested": [threading.Lock()]}],
        ids=["lock", "function", "iterator", "nested"],
    )
    async def test_set_refuses_what_could_not_be_read_back(self, cache: Driver, make: Callable[[], Any]) -> None:
        """set() of a value that cannot be read back raises SerializationError, and leaves the old value."""
        with pytest.raises(SerializationError):
            await cache.set("new", make())
        assert await cache.get("new", "absent") == "absent"
        await cache.set("k", "old")
        with pytest.raises(SerializationError):
            await cache.set("k", make())
        assert await cache.get("k") == "old"

    @needs("refusal")
    async def test_the_refusal_names_the_type(self, cache: Driver) -> None:
        """The error of a refused value names its type."""
        with pytest.raises(SerializationError, match="lock"):
            await cache.set("k", threading.Lock())

    @needs("refusal")
    async def test_add_and_set_many_refuse_what_could_not_be_read_back(self, cache: Driver) -> None:
        """add() and set_many() refuse such a value, and leave the key free."""
        with pytest.raises(SerializationError):
            await cache.add("k", threading.Lock())
        with pytest.raises(SerializationError):
            await cache.set_many({"k": threading.Lock()})
        assert await cache.get("k", "absent") == "absent"
        assert await cache.add("k", 1) is True
