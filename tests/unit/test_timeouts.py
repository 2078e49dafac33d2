"""Timeouts: every form that has a meaning, and forms that have none."""

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import pytest

from storeroom import timeouts
from storeroom.exceptions import InvalidTimeoutError
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, NEVER, epoch, expires_at, parse_timeout

NOW = 1_000_000.0


@pytest.fixture
def _clock(monkeypatch):
    monkeypatch.setattr(timeouts, "now", lambda: NOW)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (0, 0),
        (1, 1),
        (-3, -3),
        (0.25, 0.25),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 4), 0.25),
        (timedelta(minutes=2), 120),
        (timedelta(microseconds=1), 1e-6),
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("250ms", 0.25),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        (" 5 M ", 300),
        ("5 minutes", 300),
        ("1 minute", 60),
        ("10 mins", 600),
        ("1 hour 5 seconds", 3605),
        ("2 hrs", 7200),
        ("3 days", 259_200),
        ("2 weeks", 1_209_600),
        ("100 milliseconds", 0.1),
        ("30 secs", 30),
    ],
)
def test_timeout_is_read_as_seconds(timeout, seconds):
    """A number, timedelta or text with units is read as its seconds."""
    assert parse_timeout(timeout) == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", [None, "forever", "Never", " none ", math.inf, "inf"])
def test_timeout_can_mean_never(timeout):
    """None, infinity and the words for them are read as None."""
    assert parse_timeout(timeout) is None


@pytest.mark.parametrize(
    "timeout",
    [
        "",
        "soon",
        "5 parsecs",
        "m",
        "-5m",
        "5m?",
        "1.5.2h",
        "5mm",
        "nan",
        math.nan,
        True,
        False,
        [5],
        {},
        object(),
        b"5",
    ],
)
def test_timeout_without_meaning_is_refused(timeout):
    """A timeout without meaning raises InvalidTimeoutError with the forms that have one."""
    with pytest.raises(InvalidTimeoutError, match=r'expected seconds, a timedelta.*"1h30m", "forever"'):
        parse_timeout(timeout)


@pytest.mark.usefixtures("_clock")
@pytest.mark.parametrize(
    ("timeout", "default", "expected"),
    [
        (DEFAULT_TIMEOUT, 300, NOW + 300),
        (DEFAULT_TIMEOUT, None, NEVER),
        (DEFAULT_TIMEOUT, 0, AT_ONCE),
        (object(), 300, NOW + 300),  # Django's DEFAULT_TIMEOUT is one
        (None, 300, NEVER),
        ("forever", 300, NEVER),
        (10, 300, NOW + 10),
        (0.001, 300, NOW + 0.001),
        ("5m", 1, NOW + 300),
        (0, 300, AT_ONCE),
        (-1, 300, AT_ONCE),
        (timedelta(seconds=-1), 300, AT_ONCE),
    ],
)
def test_expires_at_is_absolute(timeout, default, expected):
    """A timeout becomes the time of now plus its seconds, NEVER, or AT_ONCE from zero down."""
    assert expires_at(timeout, default) == expected


def test_default_timeout_is_told_by_its_repr():
    """The repr of DEFAULT_TIMEOUT is its name."""
    assert repr(DEFAULT_TIMEOUT) == "DEFAULT_TIMEOUT"


@pytest.mark.parametrize(
    ("when", "seconds"),
    [
        (None, NEVER),
        (12, 12.0),
        (12.5, 12.5),
        (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), 60.0),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0.0),
    ],
)
def test_epoch_reads_a_point_in_time(when, seconds):
    """Epoch seconds, an aware datetime or None is read as epoch seconds."""
    assert epoch(when) == seconds


def test_epoch_refuses_a_datetime_without_time_zone():
    """A naive datetime, whose moment would be a guess, raises InvalidTimeoutError with the call to use."""
    with pytest.raises(InvalidTimeoutError, match=r"no time zone.*datetime\.now\(timezone\.utc\)"):
        epoch(datetime(2030, 1, 1))  # noqa: DTZ001 -- the mistake in question


@pytest.mark.parametrize("when", [True, math.nan, "2030-01-01", timedelta(1), object()])
def test_epoch_refuses_a_value_that_is_no_time(when):
    """A value that is no point in time raises InvalidTimeoutError with the forms expected."""
    with pytest.raises(InvalidTimeoutError, match="expected epoch seconds, an aware datetime or None"):
        epoch(when)
