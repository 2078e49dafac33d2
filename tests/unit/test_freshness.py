"""The decision of get_or_set() about an entry, and the options behind it."""

import math
from datetime import timedelta

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.computing.decision import Decision, decide, shortened
from storeroom.config.freshness import Freshness, parse
from storeroom.exceptions import ConfigurationError
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.timeouts import NEVER

NOW = 1000.0
GRACE = Freshness(stale_while_revalidate=10, stale_if_error=100)


def entry(seconds_left: float, *, cost: float = 0.0, leased_until: float = 0.0) -> Envelope:
    return Envelope("value", NOW + seconds_left, 100.0, cost, leased_until=leased_until)


@pytest.mark.parametrize(
    ("seconds_left", "freshness", "paused", "expected"),
    [
        (1, Freshness(), False, Decision.SERVE),
        (1, Freshness(), True, Decision.SERVE),
        (0, Freshness(), False, Decision.COMPUTE),
        (-5, Freshness(), False, Decision.COMPUTE),
        (1, GRACE, False, Decision.SERVE),
        (0, GRACE, False, Decision.REFRESH),
        (-9.9, GRACE, False, Decision.REFRESH),
        (-9.9, GRACE, True, Decision.SERVE),
        (-10, GRACE, False, Decision.COMPUTE_OR_SERVE),
        (-10, GRACE, True, Decision.SERVE),
        (-99.9, GRACE, False, Decision.COMPUTE_OR_SERVE),
        (-100, GRACE, False, Decision.COMPUTE),
        (-100, GRACE, True, Decision.COMPUTE),
        (-50, Freshness(stale_while_revalidate=NEVER), False, Decision.REFRESH),
        (-50, Freshness(stale_if_error=NEVER), False, Decision.COMPUTE_OR_SERVE),
    ],
)
def test_decide_goes_by_age(seconds_left, freshness, paused, expected):
    """By its age and the options, an entry is served, refreshed, or computed anew."""
    assert decide(entry(seconds_left), NOW, freshness, paused=paused) is expected


def test_decide_raises_a_remembered_failure_only_where_there_is_nothing_to_serve():
    """A remembered failure is raised only where no value may be served in its place."""
    lenient = Freshness(stale_if_error=10, error_timeout=5)
    for seconds_left, expected in [(1, Decision.SERVE), (-5, Decision.COMPUTE_OR_SERVE), (-15, Decision.RAISE)]:
        entry = Envelope("value", NOW + seconds_left, 10)
        assert decide(entry, NOW, lenient, failed=True) is expected
    assert decide(None, NOW, lenient, failed=True) is Decision.RAISE
    assert decide(None, NOW, lenient) is Decision.COMPUTE


def test_decide_computes_an_absent_entry():
    """A missing entry is computed."""
    assert decide(None, NOW, GRACE) is Decision.COMPUTE


def test_decide_leaves_the_refresh_to_the_holder_of_the_lease():
    """While another caller holds the lease, an entry is served rather than refreshed."""
    assert decide(entry(-1, leased_until=NOW + 5), NOW, GRACE) is Decision.SERVE
    assert decide(entry(-1, leased_until=NOW - 5), NOW, GRACE) is Decision.REFRESH
    early = Freshness(early=1e9)
    assert decide(entry(1, cost=1.0, leased_until=NOW + 5), NOW, early, draw=0.5) is Decision.SERVE
    assert decide(entry(1, cost=1.0), NOW, early, draw=0.5) is Decision.REFRESH


def test_early_is_the_rule_of_the_paper():
    """An entry is refreshed when ``now - cost * beta * ln(draw) >= expiry``: at draw 1/e, cost * beta before."""
    freshness, draw = Freshness(early=2), math.exp(-1)
    assert decide(entry(6.1, cost=3.0), NOW, freshness, draw=draw) is Decision.SERVE
    assert decide(entry(5.9, cost=3.0), NOW, freshness, draw=draw) is Decision.REFRESH
    assert decide(entry(5.9, cost=3.0), NOW, freshness, draw=1.0) is Decision.SERVE
    assert decide(entry(5.9, cost=3.0), NOW, freshness, paused=True, draw=draw) is Decision.SERVE
    assert decide(entry(NEVER, cost=3.0), NOW, freshness, draw=1e-300) is Decision.SERVE


def test_a_placeholder_has_no_value():
    """A placeholder is never fresh, and is kept until its lease ends."""
    empty = placeholder(NOW + 30)
    assert not empty.has_value
    assert not empty.is_fresh
    assert empty.kept_until == NOW + 30


def test_a_lease_lengthens_how_long_an_entry_is_kept_and_not_how_long_it_is_fresh():
    """A lease that outlasts an entry prolongs its storage, and leaves its freshness alone."""
    leased = entry(5).leased(NOW + 500)
    assert (leased.fresh_until, leased.kept_until) == (NOW + 5, NOW + 500)
    assert leased != entry(5)
    assert leased.leased(0.0).kept_until == NOW + 105


def test_shortened_stays_between_the_share_and_the_whole():
    """Jitter shortens a lifetime at random by at most its share, and leaves an endless one alone."""
    times = [shortened(NOW + 100, NOW, 0.3) for _ in range(200)]
    assert all(NOW + 70 <= time <= NOW + 100 for time in times)
    assert len(set(times)) > 100
    assert shortened(NEVER, NOW, 0.3) == NEVER
    assert shortened(NOW + 100, NOW, 0.0) == NOW + 100


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("stale_if_error", "5m", 300.0),
        ("stale_if_error", timedelta(hours=1), 3600.0),
        ("stale_if_error", None, NEVER),
        ("stale_while_revalidate", 0, 0.0),
        ("hard_timeout", None, None),
        ("soft_timeout", 0.5, 0.5),
        ("early", 1, 1.0),
        ("jitter", 0.1, 0.1),
    ],
)
def test_parse_accepts_each_form_of_an_option(name, value, expected):
    """Each option accepts its forms, and None where that has a meaning."""
    assert parse(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stale_if_error", -1),
        ("stale_if_error", "soon"),
        ("hard_timeout", 0),
        ("soft_timeout", "soon"),
        ("early", -1),
        ("early", True),
        ("early", math.nan),
        ("jitter", 1.1),
        ("jitter", "a bit"),
    ],
)
def test_a_value_without_meaning_is_refused_where_it_is_written(name, value):
    """A wrong value is refused in OPTIONS and in a call, by the name of the option."""
    with pytest.raises(ConfigurationError, match=rf"OPTIONS'\]\['{name}'\] is .*; expected a "):
        LocMemCache("refused", {"OPTIONS": {name: value}})
    with pytest.raises(ValueError, match=rf"{name} is .*; expected a "):
        LocMemCache("refused", {}).get_or_set("k", lambda: 1, **{name: value})
