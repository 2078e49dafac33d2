"""Beginning and end of every run; the fixtures of one subject live beside its tests."""

import pytest

from tests.servers.folders import remove_leftovers
from tests.servers.shared import stop_shared

#: The first is a command, and a part of it runs only within Django's own test run; the second is for mypy alone.
collect_ignore = ["django_suite", "typing"]


def pytest_configure(config: pytest.Config) -> None:
    """Clean up after runs that were interrupted; once, and not in each of several workers."""
    if not hasattr(config, "workerinput"):
        remove_leftovers()


def pytest_unconfigure() -> None:
    """Stop the servers that the tests of this process have shared."""
    stop_shared()
