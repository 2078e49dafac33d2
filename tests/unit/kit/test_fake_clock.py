"""The fake clock obeys."""

import time
from datetime import timedelta

import pytest

from storeroom import timeouts
from storeroom.testing import FakeClock

pytest_plugins = ["pytester"]


def test_the_fake_clock_starts_at_the_real_time_and_stands_still():
    """A fake clock shows the time at its start until it is advanced."""
    with FakeClock() as clock:
        assert clock.now() == pytest.approx(time.time(), abs=5)
        assert timeouts.now() == clock.now() == timeouts.now()


def test_the_fake_clock_advances_by_seconds_timedelta_or_words():
    """advance() takes seconds, a timedelta or words, zero included."""
    with FakeClock() as clock:
        start = clock.now()
        clock.advance(1.5)
        clock.advance(timedelta(minutes=1))
        clock.advance("1h30m")
        clock.advance(0)
        assert timeouts.now() == pytest.approx(start + 1.5 + 60 + 5400)


@pytest.mark.parametrize("duration", [-1, None, "forever", "soon", float("inf"), float("nan")])
def test_the_fake_clock_refuses_a_value_that_is_no_duration(duration):
    """advance() raises ValueError for a negative, endless or meaningless duration."""
    with FakeClock() as clock, pytest.raises(ValueError, match=r"timeout|advance"):
        clock.advance(duration)


def test_the_fake_clock_gives_the_real_one_back():
    """Leaving a fake clock restores the clock before it, nested and after an error."""
    real = timeouts.now
    with FakeClock() as outer:
        with pytest.raises(ZeroDivisionError), FakeClock() as inner:
            inner.advance(1 / (inner.now() - timeouts.now()))
        assert timeouts.now() == outer.now()
    assert timeouts.now is real


def test_the_fake_clock_is_a_fixture(pytester):
    """The plugin storeroom.testing.fixtures offers the clock as fixture fake_clock."""
    pytester.makeconftest('pytest_plugins = ["storeroom.testing.fixtures"]')
    pytester.makepyfile("""
        from storeroom.backends.locmem import LocMemCache

        def test_expiry(fake_clock, tmp_path):
            cache = LocMemCache(str(tmp_path), {})
            cache.set("k", 1, timeout="5m")
            fake_clock.advance("4m59s")
            assert cache.get("k") == 1
            fake_clock.advance(1)
            assert cache.get("k") is None
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
