"""FakeClock as a fixture, for pytest: ``pytest_plugins = ["storeroom.testing.fixtures"]`` in a conftest.py."""

from collections.abc import Iterator

import pytest

from storeroom.testing.clock import FakeClock

__all__ = ["fake_clock"]


@pytest.fixture
def fake_clock() -> Iterator[FakeClock]:
    """The clock of every cache in this process, which stands still but for its advance()."""
    with FakeClock() as clock:
        yield clock
