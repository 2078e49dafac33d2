"""Values whose own methods fail or lie: they are stored, compared and counted by what was written."""

import enum
import math
from typing import Any, ClassVar, Final, Self

import pytest

from storeroom import timeouts
from storeroom.exceptions import SerializationError
from storeroom.storage import trials
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import Swap
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.testing.contract.swaps import swap_many, until
from storeroom.transactions import transaction

__all__ = ["OddValuesContract"]


class Odd:
    """A value with a number, by which a test knows it."""

    def __init__(self, number: int) -> None:
        self.number = number


class Raises(Odd):
    """No comparison, no truth and no hash."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("it cannot be compared")

    def __hash__(self) -> int:
        raise ValueError("it cannot be hashed")

    def __bool__(self) -> bool:
        raise ValueError("it is neither true nor false")


class Array(Odd):
    """Compared element by element, as arrays and tables are."""

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __eq__(self, other: object) -> Any:
        return Array(0)

    def __ne__(self, other: object) -> Any:
        return Array(1)

    def __bool__(self) -> bool:
        raise ValueError("The truth value of an array with more than one element is ambiguous.")


class Equal(Odd):
    """Equal to everything."""

    __hash__ = Odd.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


class Unequal(Odd):
    """Equal to nothing, itself included."""

    __hash__ = Odd.__hash__

    def __eq__(self, other: object) -> bool:
        return False


class Level(enum.IntEnum):
    """An int by another name."""

    LOW = 1


class Whole(int):
    """An int of a class of its own."""


class Real(float):
    """A float of a class of its own."""


class ApiError(Exception):
    """An exception as most people write one: its constructor takes other arguments than its `args`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Money(str):
    """A text that cannot be made of its text alone."""

    __slots__ = ()

    def __new__(cls, amount: int, currency: str) -> Self:
        return super().__new__(cls, f"{amount} {currency}")


class Proxy:
    """Looks for an attribute that is not there yet when it is unpickled."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Changing:
    """Can be read while its class says so."""

    can_be_read = True

    def __reduce__(self) -> Any:
        return _changing, ()


def _changing() -> Changing:
    if not Changing.can_be_read:
        raise TypeError("its class has changed")
    return Changing()


UNREADABLE: Final = (ApiError(404, "no such user"), {"error": [ApiError(1, "x")]}, Money(3, "EUR"), Proxy([1]))
KINDS: Final = [Raises, Array, Equal, Unequal]


@needs("store")
class OddValuesContract(Suite):
    """Values are never asked whether they are equal, true, or what their hash is."""

    @needs("objects")
    @pytest.mark.parametrize("kind", KINDS)
    async def test_a_value_is_never_compared(self, cache: Driver, kind: type[Odd]) -> None:
        """Values that cannot be compared are stored, refreshed, tagged, moved and counted as absent like others."""
        assert (await cache.get_or_set("k", lambda: kind(1))).number == 1
        tags: dict[str, Any] = {"tags": ["t"]}
        for number, options in enumerate(({}, {}, tags, tags, {"stale_if_error": 50}, {}), 2):
            assert (await cache.refresh("k", lambda number=number: kind(number), 100, **options)).number == number
            assert (await cache.get("k")).number == number
        with transaction():
            await cache.refresh("k", lambda: kind(8))
            assert (await cache.get("k")).number == 8
        assert (await cache.get_many(["k"]))["k"].number == 8
        assert await cache.add("k", kind(9)) is False
        assert await cache.incr_version("k") == 2
        found = await cache.get_or_set_many(["k", "l"], lambda keys: {key: kind(10) for key in keys}, version=2)
        assert [found["k"].number, found["l"].number] == [8, 10]
        assert (await cache.get("gone", kind(11))).number == 11

    @needs("objects")
    async def test_a_value_is_not_compared_with_an_envelope(self, cache: Driver) -> None:
        """A value that somebody has stored, over the one to be refreshed, is not compared with that."""
        for kind in KINDS:
            old = Envelope(kind(1), until(100))
            await cache.set_many({"k": old, "l": old})
            swaps = {"k": Swap(old, kind(2), until(100)), "l": Swap(Envelope(kind(1), until(100)), kind(2), until(100))}
            assert await swap_many(cache, swaps) == {"k": True, "l": False}
            assert await swap_many(cache, {"k": Swap(old, kind(3), until(100))}) == {"k": False}
            assert (await cache.get("k")).number == 2

    @needs("objects")
    async def test_equal_values_of_another_writing_are_another_value(self, cache: Driver) -> None:
        """A swap is not made over a value that claims to be equal, and is made over one that denies it."""
        await cache.set_many({"equal": Equal(1), "unequal": Unequal(1), "true": True, "nan": math.nan})
        swaps = {
            "equal": Swap(Equal(2), "new", until(100)),
            "unequal": Swap(Unequal(1), "new", until(100)),
            "true": Swap(1, "new", until(100)),
            "nan": Swap(math.nan, "new", until(100)),
        }
        made = {"equal": False, "unequal": True, "true": False, "nan": True}
        assert await swap_many(cache, swaps) == made

    async def test_not_a_number_is_a_value(self, cache: Driver) -> None:
        """NaN, which does not equal itself, is stored and refreshed."""
        for value in (math.nan, [math.nan]):
            await cache.set("k", value)
            assert (await cache.refresh("k", lambda value=value: value)) is value
            assert repr(await cache.get("k")) == repr(value)

    @needs("refusal")
    async def test_what_pickles_and_does_not_unpickle_is_refused(self, cache: Driver) -> None:
        """A value that can be pickled, and not read back, is refused by every write, also within another value."""
        await cache.set("k", [1])
        for value in UNREADABLE:
            for _ in range(2):
                with pytest.raises(SerializationError, match=r"ApiError|Money|Proxy"):
                    await cache.set("k", value)
            with pytest.raises(SerializationError):
                await cache.set_many({"l": value})
            with pytest.raises(SerializationError):
                await cache.add("l", [value])
            with pytest.raises(SerializationError), transaction():
                await cache.set("l", value)
        assert await cache.get_many(["k", "l"]) == {"k": [1]}

    @needs("objects", "isolation")
    async def test_what_cannot_be_read_any_more_is_logged_once(
        self, cache: Driver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A value whose class has changed since is a counted miss, and the first one is logged, without its content."""
        monkeypatch.setattr(trials, "_noted", set())
        await cache.set_many({"k": Changing(), "l": [Changing()]})
        assert type(await cache.get("k")) is Changing
        await cache.set_many({"k": Changing(), "l": [Changing()]})  # no tier in this process's memory has them now
        with caplog.at_level("WARNING", "storeroom"):
            monkeypatch.setattr(Changing, "can_be_read", False)
            assert [await cache.get("k", "absent") for _ in range(3)] == ["absent"] * 3
            assert await cache.get_many(["k", "l"]) == {}
        (record,) = [record for record in caplog.records if "cannot be unpickled" in record.message]
        assert "_changing" in record.message
        assert "has changed" not in record.message.replace("Has the class changed", "")
        assert cache.cache.stats().errors >= 5
        monkeypatch.undo()
        assert type(await cache.get("k")) is Changing

    async def test_what_is_an_int_or_a_float_is_counted(self, cache: Driver) -> None:
        """A value of a class derived from int or float counts, and its timeout stays."""
        for value in (True, *(() if "objects" in self.lacks else (Level.LOW, Whole(1), Real(1.0)))):
            await cache.set("n", value, timeout=100)
            assert await cache.incr("n") == 2
            assert await cache.decr("n", True) == 1
            assert await cache.get("n") == 1
            assert await cache.ttl("n") == pytest.approx(100, rel=0.1)
            await cache.set("n", value)
            assert await cache.incr("n", default=5) == 2

    async def test_a_lease_is_no_entry(self, cache: Driver) -> None:
        """While somebody computes the first value of a key, or the last one is stale, no operation finds any."""
        now = timeouts.now()
        leased = Envelope(None, timeouts.AT_ONCE, leased_until=now + 50)
        stale = Envelope([1], now - 1, grace=100)
        for key, entry in {"k": leased, "l": stale, "m": stale.leased(now + 50)}.items():
            await cache.set_many({key: entry, "other": entry})
            assert await cache.has_key(key) is False
            assert await cache.ttl(key) == 0
            assert await cache.touch(key) is False
            with pytest.raises(ValueError, match="not found"):
                await cache.incr(key)
            with pytest.raises(ValueError, match="not found"):
                await cache.incr_version(key)
            if "enumerate" not in self.lacks:
                assert await cache.keys() == []
                assert await cache.count() == 0
            assert await cache.delete(key) is False
            assert await cache.get(key, "absent") == "absent"
            await cache.delete_many(["other"])
        if (cache.cache._overlay or cache.cache).sees_envelopes:
            assert cache.cache.stats().deletes == 0
        live = Envelope([1], until(100), leased_until=until(50))
        await cache.set("k", live)
        assert await cache.delete("k") is True

    async def test_a_counter_is_counted_while_it_is_refreshed(self, cache: Driver) -> None:
        """A number whose successor somebody computes is counted, which takes the right to store from that caller."""
        for default in (None, 100):
            lease = Envelope(41, until(100), leased_until=until(50))
            await cache.set("n", lease)
            assert await cache.incr("n", default=default) == 42
            assert await cache.ttl("n") == pytest.approx(100, rel=0.1)
            assert await swap_many(cache, {"n": Swap(lease, 7, until(100))}) == {"n": False}
            assert await cache.incr("n") == 43
