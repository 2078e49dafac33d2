"""Wrong and unusual arguments: they are understood, or an error says what to write."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, Final

import pytest

from storeroom.exceptions import InvalidTimeoutError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["ArgumentsContract"]

FOR_EVER: Final = (
    10**400,
    Fraction(10**400),
    Decimal("1e400"),
    float("inf"),
    1e300,
    timedelta.max,
    "9e400",
    "9" * 400 + "d",
)
AT_ONCE: Final = (-(10**400), Fraction(-(10**400)), Decimal("-1e400"), float("-inf"), -1e300, timedelta.min, -0.0)
WRONG: Final = (
    float("nan"), Decimal("nan"), Decimal("snan"), "nan", True, False, 1j, [1], b"5", "soon", "-5s", "",
    datetime.now(UTC),
)  # fmt: skip


@needs("store")
class ArgumentsContract(Suite):
    """Arguments that a slip of the pen makes."""

    async def test_a_timeout_may_be_any_number(self, cache: Driver) -> None:
        """A timeout beyond all bounds is for ever, or at once if it is negative; others that are numbers count."""
        for timeout in FOR_EVER:
            await cache.set("k", 1, timeout)
            assert await cache.ttl("k") is None, timeout
            assert await cache.touch("k", timeout) is True
            await cache.set_many({"k": 1}, timeout, tags=["t"])
            assert await cache.ttl("k") is None, timeout
            await cache.delete("n")
            assert await cache.incr("n", default=4, timeout=timeout) == 5
            assert await cache.ttl("n") is None, timeout
        assert await cache.expire_at("k", 10**400) is True
        assert await cache.expire_at("k", datetime.max.replace(tzinfo=UTC)) is True
        assert await cache.get("k") == 1
        for timeout in AT_ONCE:
            await cache.set("k", 1, 100)
            await cache.set("k", 1, timeout)
            assert await cache.get("k", "absent") == "absent", timeout
            assert await cache.get_or_set("k", lambda: 2, timeout) == 2
            assert await cache.has_key("k") is False
        for timeout in (Decimal(1000), Fraction(2000, 2), timedelta(seconds=1000)):
            await cache.set("k", 1, timeout)
            assert await cache.ttl("k") == pytest.approx(1000, rel=0.1)

    async def test_a_timeout_that_is_none_is_an_error(self, cache: Driver) -> None:
        """A timeout that has no meaning is an error to every operation that takes one, and changes nothing."""
        await cache.set("k", "old")
        make_lock: Any = cache.cache.lock
        refused = partial(pytest.raises, InvalidTimeoutError, match="expected seconds")
        for timeout in WRONG:
            for key, write in (("k", cache.set), ("k", cache.add), ("absent", cache.get_or_set), ("k", cache.refresh)):
                with refused():
                    await write(key, 1, timeout)
            with refused():
                await cache.set_many({"k": 1}, timeout)
            with refused():
                await cache.get_or_set_many(["absent"], lambda keys: dict.fromkeys(keys, 1), timeout)
            with refused():
                await cache.incr("absent", default=0, timeout=timeout)
            with refused():
                await cache.touch("k", timeout)
            with refused():
                make_lock("k", timeout=timeout)
        assert await cache.get_many(["k", "absent"]) == {"k": "old"}

    @pytest.mark.parametrize("keys", ["ab", b"ab", 5, None], ids=repr)
    async def test_many_keys_are_a_list(self, cache: Driver, keys: Any) -> None:
        """A single key in the place of several is an error, not the keys of its letters."""
        await cache.set_many({"a": 1, "b": 2})
        for operation in (cache.get_many, cache.delete_many):
            with pytest.raises(TypeError, match="expected a list of keys"):
                await operation(keys)
        with pytest.raises(TypeError, match="expected a list of keys"):
            await cache.get_or_set_many(keys, dict)
        assert await cache.get_many(key for key in ("a", "b")) == {"a": 1, "b": 2}

    @pytest.mark.parametrize("data", [[("a", 1)], "a", {"a"}, None], ids=repr)
    async def test_many_values_are_a_dict(self, cache: Driver, data: Any) -> None:
        """set_many() of anything but a mapping is an error, whatever its timeout."""
        for timeout in (100, 0):
            with pytest.raises(TypeError, match="expected a dict from keys to values"):
                await cache.set_many(data, timeout)

    async def test_tags_are_names(self, cache: Driver) -> None:
        """A list in the place of a tag's name is an error; its text would be a tag that nothing has."""
        await cache.set("k", 1, tags=["a"])
        for tags in (["a"], ("a",), {"a"}, frozenset({"a"}), {"a": 1}, iter(["a"])):
            with pytest.raises(TypeError, match=r"expected a name.*invalidate_tags\(\*names\)"):
                await cache.invalidate_tags(tags)
            with pytest.raises(TypeError, match="expected a name"):
                await cache.set("k", 2, tags=[tags])
        assert await cache.get("k") == 1
        assert await cache.invalidate_tags(*["a"]) == 1

    async def test_a_delta_is_a_number(self, cache: Driver) -> None:
        """incr() and decr() add whole numbers of any kind, and floats; what is no number is an error."""

        class Index:
            def __index__(self) -> int:
                return 2

        await cache.set("n", 1)
        assert await cache.incr("n", Index()) == 3
        assert await cache.decr("n", Index()) == 1
        assert await cache.incr("n", True) == 2
        assert await cache.incr("new", default=Index()) == 3
        for delta in ("1", None, Decimal(1), [1]):
            with pytest.raises(TypeError, match=r"delta is .*; expected the int or float to add"):
                await cache.incr("n", delta)
            with pytest.raises(TypeError, match=r"delta is .*; expected the int or float to add"):
                await cache.decr("n", delta)
            with pytest.raises(TypeError, match=r"delta of a version is .*; expected a whole number"):
                await cache.decr_version("n", delta)
        assert await cache.get("n") == 2
        assert await cache.decr_version("n", Index()) == -1
        assert await cache.incr_version("n", Index(), version=-1) == 1

    async def test_versions_are_whole_numbers(self, cache: Driver) -> None:
        """A version may be negative; what is no whole number is an error."""
        await cache.set("k", 1, version=-3)
        assert await cache.get_many(["k"], version=-3) == {"k": 1}
        assert await cache.incr_version("k", -2, version=-3) == -5
        assert await cache.decr_version("k", -6, version=-5) == 1
        assert await cache.get("k") == 1
        for version in ("v2", 1.5, True, [1]):
            with pytest.raises(TypeError, match="expected a whole number"):
                await cache.get("k", version=version)
        with pytest.raises(TypeError, match="expected a whole number"):
            await cache.incr_version("k", 0.5)
