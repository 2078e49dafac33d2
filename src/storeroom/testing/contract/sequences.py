"""Any sequence of operations agrees with a dict: runs the state machine of `storeroom.testing.model`."""

import itertools
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from storeroom.base import BaseCache
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Suite

__all__ = ["SequencesContract"]


@needs("store", "fake_clock")
class SequencesContract(Suite):
    """Hypothesis looks for a sequence that goes wrong, and for a short one that still does."""

    sequences: ClassVar[int] = 25
    """The number of sequences that are tried in each mode."""

    def test_any_sequence_of_operations_agrees_with_a_dict(self, tmp_path: Path, mode: str) -> None:
        """A cache without bounds holds the entries that a dict would, after every operation of any sequence."""
        hypothesis = pytest.importorskip("hypothesis", reason="needs Hypothesis: pip install hypothesis")
        from storeroom.testing.model import DEFAULT_SECONDS, machine  # noqa: PLC0415 -- it needs Hypothesis

        params: dict[str, Any] = {"TIMEOUT": DEFAULT_SECONDS}
        if "bounds" not in self.lacks:
            params["OPTIONS"] = {"MAX_ENTRIES": None}

        numbers = itertools.count()

        def make_cache() -> BaseCache:
            number = next(numbers)
            shutil.rmtree(tmp_path / str(number - 1), ignore_errors=True)
            return self.make_cache(str(tmp_path / str(number)), params)

        # Derandomised, so that a run says something about the code, not about the day.
        settings = hypothesis.settings(
            max_examples=self.sequences, stateful_step_count=40, deadline=None, derandomize=True, database=None,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],  # of a busy machine
        )  # fmt: skip
        hypothesis.stateful.run_state_machine_as_test(machine(make_cache, mode), settings=settings)
