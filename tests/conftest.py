"""Beginning and end of every run; the fixtures of one subject live beside its tests."""

import gc
import signal
from collections.abc import Iterator

import pytest

from storeroom.engines.flights import Flights
from tests.servers.folders import new_folder, remove_leftovers
from tests.servers.shared import stop_shared

#: Commands, with parts that run only within the test runs of others; the last is for mypy alone.
collect_ignore = [
    *("client_suites", "django_redis_suite", "django_suite", "typing"),
    *(
        "integrations/django_admin_site",
        "integrations/django_ops_site",
        "integrations/django_pages_site",
        "integrations/django_site",
    ),
]


@pytest.fixture(autouse=True)
def _loops_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no event loop have ended before its computations: else those of young loops begin in threads.

    The contract has a fixture of this name, which takes the place of this one there.
    """
    monkeypatch.setattr(Flights, "has_met_closed_loops", False)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Clean up after runs that were interrupted, and give the workers of this one a folder in memory."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; children would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    remove_leftovers()
    if getattr(config.option, "numprocesses", None) and not config.option.basetemp:
        config.option.basetemp = str(new_folder() / "pytest")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, which would look at ten thousands of tests again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Stop the servers that the tests of this process have shared."""
    stop_shared()
