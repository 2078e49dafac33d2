"""Local memory's hit ratio, on real traces and on patterns that break simpler policies."""

import pytest

from benchmarks import hits
from benchmarks.hit_ratio import (
    REFERENCE,
    load,
    loop,
    replay,
    replay_culling_lru,
    replay_django,
    replay_lru,
    scans,
    shifting_zipf,
    zipf,
)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("trace", "capacity"), REFERENCE)
def test_hit_ratio_is_at_most_three_tenths_below_the_reference(trace: str, capacity: int) -> None:
    """On real traces, the hit ratio is at most 0.3 points below that of the reference implementation."""
    assert replay(load(trace), capacity) > REFERENCE[trace, capacity] - 0.3


@pytest.mark.slow
def test_hit_ratio_is_two_points_above_an_lru_on_a_trace() -> None:
    """On the trace web12, the hit ratio is more than two points above that of an LRU."""
    keys = load("web12")
    assert replay(keys, 137) > replay_lru(keys, 137) + 2


def test_hit_ratio_of_a_loop_larger_than_the_cache_is_not_zero() -> None:
    """A loop over more keys than fit hits over 40 %, while an LRU evicts each key just before its turn."""
    keys = loop(20_000, 1_250)
    assert replay_lru(keys, 1_000) == 0
    assert replay(keys, 1_000) > 40


def test_hit_ratio_of_a_hot_set_survives_scans() -> None:
    """A hot set of half the requests hits over 44 % despite scans, out of the 50 % possible."""
    keys = scans(30_000, hot=800, scan=2_000)
    assert replay_lru(keys, 1_000) < 35
    assert replay(keys, 1_000) > 44


@pytest.mark.parametrize("by_bytes", [False, True])
@pytest.mark.parametrize("refills", [False, True])
def test_hit_ratio_of_a_hot_set_is_that_of_the_better_policy(refills: bool, by_bytes: bool) -> None:
    """Local memory and files keep a hot set from scans, with refills and without, by entries and by bytes."""
    traffic = hits.Traffic(scans(9_000, hot=400, scan=1_000), 500, refills, by_bytes)
    goal = max(hits.ratio(traffic, store(traffic)) for store in (hits.Lru, hits.WritesTeach)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    if not refills:
        assert hits.ratio_of_files(traffic, 1) > goal


def test_hit_ratio_of_sessions_from_the_start_is_that_of_an_lru() -> None:
    """Sessions that fill the cache are read again and again, and are not taken for a hot set."""
    traffic = hits.Traffic(list(hits.sessions(12_000, 500, 9)), 1_000, refills=True, by_bytes=False)
    assert hits.ratio(traffic, hits.Local(traffic)) > hits.ratio(traffic, hits.Lru(traffic)) - hits.NEAR


@pytest.mark.slow
@pytest.mark.parametrize("by_bytes", [False, True])
def test_hit_ratio_of_sessions_from_the_start_is_near_an_lru_without_refills(by_bytes: bool) -> None:
    """While the cache fills, sessions that are over do not outlive in main those that have just begun."""
    traffic = hits.Traffic(list(hits.sessions(15_000, 500, 9)), 1_000, refills=False, by_bytes=by_bytes)
    goal = hits.ratio(traffic, hits.Lru(traffic)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    assert hits.ratio_of_files(traffic, 1) > goal


def test_hit_ratio_of_a_small_cache_is_that_of_the_better_policy() -> None:
    """Silence does not shorten the small queue of a small cache by chance, on a third of a trace."""
    traffic = hits.Traffic(load("web12")[31_869:63_738], 31, refills=True, by_bytes=False)
    goal = max(hits.ratio(traffic, store(traffic)) for store in (hits.Lru, hits.WritesTeach)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal


@pytest.mark.slow
@pytest.mark.parametrize("by_bytes", [False, True])
def test_hit_ratio_of_a_small_cache_is_near_the_better_policy_without_refills(by_bytes: bool) -> None:
    """Proven entries of a small cache stay on a trace, where one that is lost is lost for good."""
    traffic = hits.Traffic(load("web12"), 137, refills=False, by_bytes=by_bytes)
    goal = max(hits.ratio(traffic, store(traffic)) for store in (hits.Lru, hits.WritesTeach)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    assert hits.ratio_of_files(traffic, 1) > goal


@pytest.mark.slow
@pytest.mark.parametrize("by_bytes", [False, True])
def test_hit_ratio_of_a_wholly_new_popularity_is_near_an_lru_without_refills(by_bytes: bool) -> None:
    """Where main is fading, and what is lost is lost for good, small is wide, and main goes round once more."""
    keys, capacity = hits.workloads()["wholly new popularity"]
    traffic = hits.Traffic(keys, capacity, refills=False, by_bytes=by_bytes)
    goal = hits.ratio(traffic, hits.Lru(traffic)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    assert hits.ratio_of_files(traffic, 1) > goal


@pytest.mark.slow
@pytest.mark.parametrize("by_bytes", [False, True])
def test_hit_ratio_of_a_wholly_new_popularity_is_near_an_lru_with_refills(by_bytes: bool) -> None:
    """Small grows fast where many return to it in a row, and used entries of main have one more round alone."""
    keys, capacity = hits.workloads()["wholly new popularity"]
    traffic = hits.Traffic(keys, capacity, refills=True, by_bytes=by_bytes)
    goal = hits.ratio(traffic, hits.Lru(traffic)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    assert hits.ratio_of_files(traffic, 1) > goal


@pytest.mark.slow
@pytest.mark.parametrize(("capacity", "by_bytes"), [(250, False), (400, True)])
def test_hit_ratio_of_a_new_popularity_of_many_keys_is_near_an_lru_without_refills(
    capacity: int, by_bytes: bool
) -> None:
    """Where small had no time to be used, and main is dead, reads of what was evicted give small its share again."""
    keys, _ = hits.workloads()["wholly new popularity"]
    traffic = hits.Traffic(keys, capacity, refills=False, by_bytes=by_bytes)
    goal = hits.ratio(traffic, hits.Lru(traffic)) - hits.NEAR
    assert hits.ratio(traffic, hits.Local(traffic)) > goal
    assert hits.ratio_of_files(traffic, 1) > goal


@pytest.mark.parametrize(("exponent", "margin"), [(0.8, 7), (1.0, 4)])
def test_hit_ratio_of_zipf_is_well_above_an_lru(exponent: float, margin: int) -> None:
    """On Zipf-distributed keys, the hit ratio is several points above that of an LRU."""
    keys = zipf(30_000, 10_000, exponent)
    assert replay(keys, 500) > replay_lru(keys, 500) + margin


def test_hit_ratio_follows_a_shift_of_popularity_no_worse_than_an_lru() -> None:
    """When other keys become popular, the hit ratio is at most 0.3 points below that of an LRU."""
    keys = shifting_zipf(30_000, 10_000, 1.0, phases=6)
    assert replay(keys, 500) > replay_lru(keys, 500) - 0.3


@pytest.mark.parametrize("capacity", [1, 2, 3, 5, 10, 20, 40])
def test_hit_ratio_of_a_tiny_cache_is_no_worse_than_an_lru(capacity: int) -> None:
    """With room for a few entries, the hit ratio is at most 0.3 points below that of an LRU."""
    keys = zipf(10_000, 1_000, 1.0)
    assert replay(keys, capacity) > replay_lru(keys, capacity) - 0.3


def test_hit_ratio_of_everything_that_fits_is_all_but_the_first_requests() -> None:
    """If all keys fit, only the first request for each misses."""
    keys = loop(10_000, 1_000)
    assert replay(keys, 1_000) == 90


def test_replay_culling_lru_is_a_model_of_django() -> None:
    """The model of a culling LRU, used where Django is missing, has the hit ratio of Django's local memory."""
    pytest.importorskip("django")
    keys = zipf(3_000, 300, 0.9)
    assert replay_culling_lru(keys, 50) == replay_django(keys, 50)
