"""NumPy's numbers and arrays, which look like Python's, and are not."""

from pathlib import Path
from typing import Any

import pytest

from storeroom import timeouts
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.exceptions import InvalidTimeoutError
from storeroom.timeouts import epoch, parse_timeout

np = pytest.importorskip("numpy", reason="needs NumPy, of the group dev")


@pytest.fixture(params=[LocMemCache, FileBasedCache])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> BaseCache:
    """A cache that keeps any object."""
    made: BaseCache = request.param(str(tmp_path), {})
    return made


@pytest.mark.parametrize(
    "timeout",
    [
        *(np.int8(90), np.int64(90), np.uint64(90), np.float32(90), np.float64(90)),
        *(np.timedelta64(90, "s"), np.timedelta64(90_000, "ms"), np.timedelta64(90 * 10**9, "ns")),
    ],
    ids=repr,
)
def test_a_number_of_numpys_is_a_timeout(timeout: Any) -> None:
    """NumPy's scalars are timeouts of as many seconds, a timedelta64 in whatever unit."""
    assert parse_timeout(timeout) == 90
    assert parse_timeout(np.float64("inf")) is None


@pytest.mark.parametrize(
    "timeout",
    [np.True_, np.float64("nan"), np.timedelta64("NaT"), np.datetime64("2024-02-29"), np.array([1, 2])],
    ids=repr,
)
def test_what_is_no_number_of_seconds_is_an_error(timeout: Any) -> None:
    """NumPy's truths, NaN, NaT and arrays are no timeouts, as Python's are none."""
    with pytest.raises(InvalidTimeoutError, match="expected"):
        parse_timeout(timeout)
    with pytest.raises(InvalidTimeoutError, match="expected"):
        epoch(timeout)


def test_numbers_of_numpys_are_keys_and_versions_and_deltas(cache: BaseCache) -> None:
    """NumPy's whole numbers mean the same as Python's: in versions, deltas and points in time."""
    cache.set("n", 1, version=np.int64(2))
    assert cache.incr("n", np.int32(5), version=2) == 6
    cache.set("x", np.float64(1.5), version=2)
    assert cache.incr("x", np.float64(1), version=np.int8(2)) == 2.5
    assert cache.expire_at("n", np.float64(timeouts.now() + 100), version=2) is True
    assert 0 < (cache.ttl("n", version=2) or 0) <= 100


@pytest.mark.parametrize("value", [np.arange(3), np.array([np.nan]), np.zeros((2, 2)), np.float64("nan")], ids=repr)
def test_arrays_are_values_as_others(cache: BaseCache, value: Any) -> None:
    """Arrays, which are neither true nor false, are stored, refreshed, tagged and computed as other values."""
    for options in ({}, {"tags": ["t"]}, {"stale_while_revalidate": 50}):
        for _ in range(2):
            assert np.array_equal(cache.refresh("k", lambda: value, 100, **options), value, equal_nan=True)
            assert np.array_equal(cache.get("k"), value, equal_nan=True)
    found = cache.get_or_set_many(["k", "l"], lambda keys: dict.fromkeys(keys, value))
    assert all(np.array_equal(found[key], value, equal_nan=True) for key in ("k", "l"))


def test_bounds_of_numpys_numbers_are_not_those_of_counters_and_versions(cache: BaseCache) -> None:
    """Numbers without a sign, and the least of those with one, are subtracted as what they are; sums have no bound."""
    cache.set("n", 10)
    assert cache.decr("n", np.uint8(2)) == 8
    assert cache.decr("n", np.int8(-128)) == 136
    assert cache.incr("new", np.uint8(200), default=np.uint8(100)) == 300
    cache.set("v", 1, version=300)
    assert cache.decr_version("v", np.uint8(200), version=300) == 100
    assert cache.incr_version("v", np.uint8(200), version=np.int8(100)) == 300
    for delta in (np.array([1, 2]), np.float32(1), np.True_):
        with pytest.raises(TypeError, match="expected the int or float to add"):
            cache.decr("n", delta)
