"""Threads, processes and loops of the test kit fail a test instead of hanging it."""

import os
import subprocess
import sys
import threading

import pytest

from storeroom.testing import concurrency
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.processes import Child
from tests.contract import test_dummy


def test_threads_that_do_not_end_fail_the_test(monkeypatch):
    """Threads or conditions that do not come to their end within PATIENCE raise AssertionError."""
    monkeypatch.setattr(concurrency, "PATIENCE", 0.1)
    for_ever = threading.Event()
    with pytest.raises(AssertionError, match="1 of 3 threads did not end"):
        in_threads(3, lambda number: number or for_ever.wait())
    for_ever.set()
    with pytest.raises(AssertionError, match="did not happen"):
        eventually(lambda: False)


def test_an_error_in_a_thread_is_the_callers():
    """An exception in a thread is raised by in_threads()."""
    with pytest.raises(ZeroDivisionError):
        in_threads(3, lambda number: 1 // number)


def test_an_error_in_a_process_is_told_with_its_traceback(tmp_path):
    """An exception in a child process raises AssertionError with its traceback."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, fail)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        child.result()


def test_a_process_that_dies_fails_the_test(tmp_path):
    """A child process that exits raises AssertionError with its exit code."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, die)
    with pytest.raises(AssertionError, match="exit code 7"):
        child.result()


def test_a_process_that_does_not_end_fails_the_test_and_is_ended(tmp_path):
    """A child process that does not end raises AssertionError and is terminated."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, sleep_for_ever)
    with pytest.raises(AssertionError, match="did not end within"):
        child.result(patience=0.1)
    assert not child._process.is_alive()


def fail(cache):
    return 1 // 0


def die(cache):
    os._exit(7)


def sleep_for_ever(cache):
    threading.Event().wait()


def test_the_kit_is_loaded_by_tests_alone():
    """A program that imports storeroom loads no test kit, and FakeClock works without pytest."""
    code = (
        "import sys; sys.modules['pytest'] = None; import storeroom, storeroom.base\n"
        "assert not any(name.startswith('storeroom.testing') for name in sys.modules)\n"
        "from storeroom.testing import FakeClock\n"
        "import storeroom.testing\n"
        "try: storeroom.testing.CacheContract\n"
        "except ImportError: pass\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
