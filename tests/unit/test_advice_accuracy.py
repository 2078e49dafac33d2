"""Advice's errors against replays of all keys: small traffic here, `python -m benchmarks.advice` for more."""

from statistics import mean

import pytest

from benchmarks.advice import Workload, drifting, line, measure, truth
from benchmarks.hit_ratio import load

MIXES = {
    "Zipf 0.9": lambda: Workload(
        "Zipf 0.9", drifting(250_000, 150_000, 0.9, drift=0.02), (2_000, 4_000, 8_000, 16_000)
    ),
    "Zipf 1.0, scans": lambda: Workload(
        "Zipf 1.0, scans", drifting(250_000, 150_000, 1.0, drift=0.01, scans=0.2), (2_000, 4_000, 8_000, 16_000)
    ),
    "web07": lambda: Workload("web07", load("web07"), (1_024, 2_048, 4_096, 8_192)),
}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("mix", "rate"), [("Zipf 0.9", 0.1), ("Zipf 1.0, scans", 0.1), ("web07", 0.25)])
def test_a_sample_of_some_thousand_keys_is_off_by_less_than_a_point_in_the_mean(mix, rate):
    """From 4,000 to 10,000 keys, errors are at most 1 point in the mean and 2.5 at worst, and intervals hold them."""
    workload = MIXES[mix]()
    row = measure(workload, rate, truth(workload), salts=(1, 2))
    assert 4_000 <= min(row.sampled) <= max(row.sampled) <= 12_000
    errors = list(map(abs, row.errors))
    assert len(errors) >= 12
    assert mean(errors) <= 1
    assert max(errors) <= 2.5
    assert mean(row.held) >= 0.9
    assert max(errors) < max(map(abs, row.lru_errors))


def test_a_row_without_enough_keys_says_so():
    """A sample of too few keys has no estimate, and no error."""
    workload = Workload("small", drifting(5_000, 2_000, 0.9, drift=0.0), (500, 1_000))
    row = measure(workload, 0.5, truth(workload), salts=(1,))
    assert not row.is_enough
    assert "not enough traffic yet" in line(row)
