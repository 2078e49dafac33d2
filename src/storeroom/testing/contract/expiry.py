"""Time: timeouts in all their forms, ttl, touch, expire_at, and what an expired entry is: absent."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from storeroom import timeouts
from storeroom.exceptions import InvalidTimeoutError, KeyNotFoundError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite, is_left
from storeroom.timeouts import DEFAULT_TIMEOUT

__all__ = ["ExpiryContract"]

FORMS: Final[dict[str, tuple[Any, float | None]]] = {
    "int": (90, 90),
    "float": (90.5, 90.5),
    "digits": ("90", 90),
    "timedelta": (timedelta(minutes=1, seconds=30), 90),
    "short words": ("1m30s", 90),
    "long words": ("5 minutes", 300),
    "milliseconds": ("1500ms", 1.5),
    "days": ("2d", 172_800),
    "years": (timedelta(days=3650), 315_360_000),
    "None": (None, None),
    "forever": ("forever", None),
    "infinity": (float("inf"), None),
}
"""A way to write a timeout -> what is written, and its seconds (None for never)."""

AT_ONCE: Final = {"zero": 0, "float zero": 0.0, "negative": -1, "timedelta": timedelta(0), "words": "0s"}
"""Timeouts with which nothing is stored."""

MEANINGLESS: Final = {"words": "5 parsecs", "empty": "", "bool": True, "list": [5], "nan": float("nan")}


@needs("store")
class ExpiryContract(Suite):
    """When entries go by themselves."""

    async def test_an_entry_lives_until_its_timeout(self, cache: Driver) -> None:
        """An entry is there until its timeout, and absent to every operation afterwards."""
        await cache.set("k", 1, timeout=self.moment * 2)
        await self.pass_time(self.moment)
        assert await cache.get("k") == 1
        await self.pass_time(self.moment * 1.1)
        assert await cache.get("k", "absent") == "absent"
        assert await cache.has_key("k") is False
        assert "k" not in cache.cache
        assert await cache.get_many(["k"]) == {}
        assert await cache.ttl("k") == 0
        assert await cache.delete("k") is False

    async def test_a_fraction_of_a_second_counts(self, cache: Driver) -> None:
        """A timeout of 0.9 s is rounded neither to 0 nor to 1."""
        await cache.set("k", 1, timeout=0.9)
        assert await cache.get("k") == 1
        await self.pass_time(0.5)
        assert await cache.get("k") == 1
        await self.pass_time(0.5)
        assert await cache.get("k", "absent") == "absent"

    @pytest.mark.parametrize(("timeout", "seconds"), FORMS.values(), ids=FORMS)
    async def test_a_timeout_may_be_written_in_many_forms(
        self, cache: Driver, timeout: Any, seconds: float | None
    ) -> None:
        """Every operation with a timeout takes numbers, timedeltas and words, and means the same by them."""
        expected = None if seconds is None else pytest.approx(seconds, rel=0.01, abs=0.5)
        await cache.set("set", 1, timeout=timeout)
        await cache.add("add", 1, timeout=timeout)
        await cache.set_many({"set_many": 1}, timeout=timeout)
        await cache.get_or_set("get_or_set", 1, timeout=timeout)
        await cache.set("touch", 1, timeout=17)
        await cache.touch("touch", timeout=timeout)
        for key in ("set", "add", "set_many", "get_or_set", "touch"):
            assert await cache.ttl(key) == expected, f"of {key}"

    @needs("fake_clock")
    @pytest.mark.parametrize("timeout", [None, "forever"])
    async def test_none_is_never(self, cache: Driver, timeout: Any) -> None:
        """An entry with a timeout of None is there ten years later."""
        await cache.set("k", 1, timeout=timeout)
        await self.pass_time(315_360_000)
        assert await cache.get("k") == 1
        assert await cache.ttl("k") is None

    @pytest.mark.parametrize("timeout", AT_ONCE.values(), ids=AT_ONCE)
    async def test_zero_and_less_is_at_once(self, cache: Driver, timeout: Any) -> None:
        """Writing with a timeout of zero or less stores nothing, and removes the entry that was there."""
        await cache.set("new", 1, timeout=timeout)
        assert await cache.get("new", "absent") == "absent"
        await cache.set_many({"a": 1, "b": 2})
        await cache.set("a", 3, timeout=timeout)
        assert await cache.set_many({"b": 3}, timeout=timeout) == []
        assert await cache.get_many(["a", "b"]) == {}

    async def test_add_with_timeout_zero_stores_nothing(self, cache: Driver) -> None:
        """add() with a timeout of zero returns whether the key was free, and changes nothing."""
        assert await cache.add("k", 1, timeout=0) is True
        assert await cache.get("k", "absent") == "absent"
        await cache.set("k", 1)
        assert await cache.add("k", 2, timeout=0) is False
        assert await cache.get("k") == 1

    @pytest.mark.parametrize("timeout", MEANINGLESS.values(), ids=MEANINGLESS)
    async def test_a_timeout_without_meaning_is_refused(self, cache: Driver, timeout: Any) -> None:
        """A timeout that means nothing raises InvalidTimeoutError in every operation, and nothing is stored."""
        await cache.set("k", 1)
        for operation in (
            cache.set("k", 2, timeout=timeout),
            cache.add("l", 2, timeout=timeout),
            cache.touch("k", timeout=timeout),
            cache.set_many({"k": 2}, timeout=timeout),
        ):
            with pytest.raises(InvalidTimeoutError):
                await operation
        assert await cache.get_many(["k", "l"]) == {"k": 1}

    # The alias's TIMEOUT --------------------------------------------------------------------

    @pytest.mark.parametrize("default", [DEFAULT_TIMEOUT, object()], ids=["Storeroom's", "Django's"])
    async def test_the_sentinel_means_the_setting(self, drive: Callable[..., Driver], default: Any) -> None:
        """A sentinel object as the timeout, Django's too, means the setting TIMEOUT."""
        cache = drive(TIMEOUT=40)
        await cache.set("implicit", 1)
        await cache.set("set", 1, timeout=default)
        await cache.add("add", 1, timeout=default)
        await cache.set_many({"set_many": 1}, timeout=default)
        await cache.get_or_set("get_or_set", 1, timeout=default)
        await cache.set("touch", 1, timeout=17)
        await cache.touch("touch", default)
        for key in ("implicit", "set", "add", "set_many", "get_or_set", "touch"):
            assert is_left(await cache.ttl(key), 40), f"of {key}"

    async def test_without_a_setting_it_is_300_seconds(self, cache: Driver) -> None:
        """Without TIMEOUT an entry lives for 300 seconds, as in Django."""
        await cache.set("k", 1)
        assert await cache.ttl("k") == pytest.approx(300, rel=0.01)

    @pytest.mark.parametrize(("setting", "left"), [(None, None), ("forever", None), ("1h", 3600), (0, 0), ("0", 0)])
    async def test_the_setting_has_the_same_forms(
        self, drive: Callable[..., Driver], setting: Any, left: float | None
    ) -> None:
        """TIMEOUT may be written as a timeout may; with 0, entries are stored only with a timeout of their own."""
        cache = drive(TIMEOUT=setting)
        await cache.set("k", 1)
        await cache.set("l", 1, timeout=20)
        assert await cache.ttl("k") == (left if not left else pytest.approx(left, rel=0.01))
        assert is_left(await cache.ttl("l"), 20)

    # ttl, touch, expire_at ------------------------------------------------------------------

    async def test_ttl_tells_the_seconds_left(self, cache: Driver) -> None:
        """ttl() is a float; None for an entry that never expires; 0 for an absent key."""
        await cache.set("k", 1, timeout=100)
        await self.pass_time(self.moment / 4)
        left = await cache.ttl("k")
        assert isinstance(left, float)
        assert is_left(left, 100, self.moment / 4)
        await cache.set("l", 1, timeout=None)
        assert await cache.ttl("l") is None
        assert await cache.ttl("absent") == 0

    async def test_set_gives_a_new_timeout(self, cache: Driver) -> None:
        """Overwriting gives an entry the new timeout, be it shorter, longer or none."""
        for timeout in (100, 10, 1000, None, 50):
            await cache.set("k", 1, timeout=timeout)
            left = await cache.ttl("k")
            assert left is None if timeout is None else is_left(left, timeout)

    async def test_touch_gives_a_new_timeout(self, cache: Driver) -> None:
        """touch() changes the timeout, to a longer or shorter one, and leaves the value."""
        await cache.set("k", ["v"], timeout=self.moment)
        assert await cache.touch("k", timeout=self.moment * 10) is True
        await self.pass_time(self.moment * 1.5)
        assert await cache.get("k") == ["v"]
        assert await cache.touch("k", timeout=self.moment) is True
        await self.pass_time(self.moment * 1.5)
        assert await cache.get("k", "absent") == "absent"

    async def test_touch_may_take_the_timeout_away(self, cache: Driver) -> None:
        """touch() with None lets an entry live for ever."""
        await cache.set("k", 1, timeout=self.moment)
        assert await cache.touch("k", timeout=None) is True
        assert await cache.ttl("k") is None
        await self.pass_time(self.moment * 1.5)
        assert await cache.get("k") == 1

    async def test_touch_without_a_timeout_gives_the_default(self, cache: Driver) -> None:
        """touch() without a timeout gives that of the setting, as in Django."""
        await cache.set("k", 1, timeout=None)
        assert await cache.touch("k") is True
        assert await cache.ttl("k") == pytest.approx(300, rel=0.01)

    @pytest.mark.parametrize("timeout", AT_ONCE.values(), ids=AT_ONCE)
    async def test_touch_with_zero_removes(self, cache: Driver, timeout: Any) -> None:
        """touch() with a timeout of zero or less removes the entry, and returns whether there was one."""
        await cache.set("k", 1)
        assert await cache.touch("k", timeout=timeout) is True
        assert await cache.get("k", "absent") == "absent"
        assert await cache.touch("k", timeout=timeout) is False

    async def test_touch_never_revives(self, cache: Driver) -> None:
        """touch() of a key that is absent, deleted or expired returns False and stores nothing."""
        assert await cache.touch("never") is False
        await cache.set("deleted", 1)
        await cache.delete("deleted")
        assert await cache.touch("deleted") is False
        await cache.set("expired", 1, timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        assert await cache.touch("expired", timeout=None) is False
        assert await cache.get_many(["never", "deleted", "expired"]) == {}

    async def test_expire_at_takes_a_point_in_time(self, cache: Driver) -> None:
        """expire_at() takes epoch seconds, or a datetime with a time zone."""
        for key in ("epoch", "aware"):
            await cache.set(key, 1, timeout=None)
        when = timeouts.now() + self.moment
        assert await cache.expire_at("epoch", when) is True
        assert await cache.expire_at("aware", datetime.fromtimestamp(when, UTC)) is True
        for key in ("epoch", "aware"):
            assert is_left(await cache.ttl(key), self.moment)
        await self.pass_time(self.moment * 1.5)
        assert await cache.get_many(["epoch", "aware"]) == {}

    async def test_expire_at_none_is_never(self, cache: Driver) -> None:
        """expire_at() with None lets an entry live for ever."""
        await cache.set("k", 1, timeout=self.moment)
        assert await cache.expire_at("k", None) is True
        assert await cache.ttl("k") is None

    async def test_expire_at_a_time_in_the_past_removes(self, cache: Driver) -> None:
        """expire_at() of a time in the past removes the entry, and returns whether there was one."""
        await cache.set("k", 1)
        assert await cache.expire_at("k", timeouts.now() - 1) is True
        assert await cache.get("k", "absent") == "absent"
        assert await cache.expire_at("k", datetime(1999, 1, 1, tzinfo=UTC)) is False

    async def test_expire_at_never_revives(self, cache: Driver) -> None:
        """expire_at() of an expired entry returns False and stores nothing."""
        await cache.set("k", 1, timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        assert await cache.expire_at("k", None) is False
        assert await cache.get("k", "absent") == "absent"

    @pytest.mark.parametrize(
        "when",
        [datetime.fromisoformat("2099-01-01"), "tomorrow", float("nan"), True],
        ids=["naive datetime", "words", "nan", "bool"],
    )
    async def test_expire_at_refuses_what_is_no_moment(self, cache: Driver, when: Any) -> None:
        """expire_at() refuses a datetime without a time zone, words, NaN and a bool, and leaves the entry."""
        await cache.set("k", 1)
        with pytest.raises(InvalidTimeoutError):
            await cache.expire_at("k", when)
        assert await cache.get("k") == 1

    # Expired is absent ----------------------------------------------------------------------

    async def test_add_stores_over_an_expired_entry(self, cache: Driver) -> None:
        """add() takes an expired entry for absent, and stores with the new timeout."""
        await cache.set("k", "old", timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        assert await cache.add("k", "new", timeout=None) is True
        assert await cache.get("k") == "new"
        assert await cache.ttl("k") is None

    async def test_set_stores_over_an_expired_entry(self, cache: Driver) -> None:
        """set() takes an expired entry for absent, and stores with the new timeout."""
        await cache.set("k", "old", timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        await cache.set("k", "new", timeout=None)
        assert await cache.get("k") == "new"

    async def test_get_or_set_computes_over_an_expired_entry(self, cache: Driver) -> None:
        """get_or_set() takes an expired entry for absent, and stores the computed value."""
        await cache.set("k", "old", timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        assert await cache.get_or_set("k", lambda: "new") == "new"
        assert await cache.get("k") == "new"

    async def test_counting_an_expired_entry_is_an_error(self, cache: Driver) -> None:
        """incr() takes an expired entry for absent, and raises."""
        await cache.set("k", 5, timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        with pytest.raises(KeyNotFoundError):
            await cache.incr("k")
        assert await cache.get("k", "absent") == "absent"

    async def test_entries_of_one_set_many_expire_together(self, cache: Driver) -> None:
        """The timeout of set_many() is that of each of its entries, and of no other."""
        await cache.set_many({"a": 1, "b": 2}, timeout=self.moment)
        await cache.set("c", 3)
        await self.pass_time(self.moment * 1.5)
        assert await cache.get_many(["a", "b", "c"]) == {"c": 3}
