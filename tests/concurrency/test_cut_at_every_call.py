"""An exception that comes where a function is entered, as out of a signal's handler, leaves nothing behind.

Python runs handlers where a function begins, or a generator goes on, and between few other instructions. A tracer is
called there, too: so each of these moments has its turn, in order, and not by chance as in the contract.
"""

import itertools
import sys
import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.engines import background
from storeroom.engines.outcomes import Outcome
from storeroom.exceptions import ComputationTimeoutError
from storeroom.testing.concurrency import Flag, eventually, in_background


class TornError(BaseException):
    """Comes from outside, as KeyboardInterrupt does."""


def torn_at(number, work):
    """Do the work, torn at the entry of this number; return whether it was: it may end before."""
    left = number

    def trace(*_):
        nonlocal left
        left -= 1
        if left < 0:
            raise TornError

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        work()
    except TornError:
        return True
    finally:
        sys.settrace(before)
    return left < 0  # within a destructor, whose errors Python gives to nobody


def hold(cache, key):
    with cache.lock(key, timeout=60):
        pass


OPERATIONS = {
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: "value"),
    "get_or_set with hard_timeout": lambda cache, key: cache.get_or_set(key, lambda: "value", hard_timeout=20),
    "get_or_set_many": lambda cache, key: cache.get_or_set_many([key], lambda keys: dict.fromkeys(keys, "value")),
    "refresh": lambda cache, key: cache.refresh(key, lambda: "value"),
    "lock": hold,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_next_caller_goes_on(tmp_path, name):
    """Whichever call is torn: the next caller computes, or has the lock, and no computation is left under way."""
    cache = LocMemCache(str(tmp_path), {})
    OPERATIONS[name](cache, "warm")
    for number in itertools.count():
        key = f"k {number}"
        if not torn_at(number, lambda key=key: OPERATIONS[name](cache, key)):
            break
        try:
            if name == "lock":
                is_free = cache.lock(key, timeout=60).acquire(blocking_timeout=2)
            else:
                is_free = cache.get_or_set(key, lambda: "value", hard_timeout=2) == "value"
        except ComputationTimeoutError:
            is_free = False
        assert is_free, f"not after the call of number {number}"
    assert number > 20
    eventually(lambda: not cache.engine.flights.has_any)


@pytest.mark.parametrize("submit", [background.submit, partial(background.submit_later, 0.001)], ids=["now", "later"])
def test_a_job_whose_submitter_was_torn_is_done(submit):
    """Whichever call of submit() is torn: the job is refused, or done as soon as another comes by."""
    for number in itertools.count():
        done = threading.Event()
        if not torn_at(number, lambda done=done: submit(done.set, copy_context())):
            break
        other = threading.Event()
        assert background.submit(other.set, copy_context())
        assert other.wait(2), number
        assert background.drain(2), number
    assert number > 5


def test_a_result_that_tells_nobody_is_seen_all_the_same():
    """A leader who is torn while he wakes the others, or a follower who waits, is in nobody's way."""
    for number in itertools.count():
        outcome, woken = Outcome(), []
        outcome.add_done_callback(woken.append)
        if not torn_at(number, lambda outcome=outcome: outcome.set_result("value")):
            break
        if outcome.done():
            assert in_background(outcome.result, 2).result(2) == "value"
    assert (woken, outcome.result()) == ([outcome], "value")
    for number in itertools.count():
        outcome = Outcome()
        if not torn_at(number, lambda outcome=outcome: wait(outcome)):
            break
        outcome.set_result("value")
        assert in_background(outcome.result, 2).result(2) == "value"


def test_a_flag_can_be_set_wherever_a_wait_for_it_was_torn():
    """Tests, and a ChaosCache that hangs, wait for a Flag: the lock of an Event would be left taken."""
    for number in itertools.count():
        flag = Flag()
        if not torn_at(number, lambda flag=flag: flag.wait(0.001)):
            break
        in_background(flag.set).result(2)
        assert in_background(flag.wait, 2).result(2)
    assert number > 5


def wait(outcome):
    with suppress(TimeoutError):
        outcome.result(0.001)
