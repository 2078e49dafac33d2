"""Followers that an exception tears out of their wait, at any instruction: nobody is taken for one that waits still."""

import asyncio
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.computing import serving, stampede
from storeroom.engines import flights
from storeroom.engines.flights import Flight, Landing, Wait
from storeroom.engines.outcomes import Outcome
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.interrupting import cut_short

FOLLOWS: dict[str, Callable[[BaseCache, str], object]] = {
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: "own"),
    "get_or_set with hard_timeout": lambda cache, key: cache.get_or_set(key, lambda: "own", hard_timeout=20),
    "get_or_set_many": lambda cache, key: cache.get_or_set_many([key], lambda keys: dict.fromkeys(keys, "own"))[key],
}

#: Files whose instructions have their turn.
TRACED = {module.__file__ for module in (flights, serving, stampede)}


class TornError(BaseException):
    """Comes from outside, as KeyboardInterrupt does."""


class Follower:
    """A call that follows a flight, which lands when it is waited for; within a computation, and in an event loop."""

    def __init__(self, cache: BaseCache, number: int, operation: str) -> None:
        self._cache, self._typed = cache, f"k{number}"
        self.leader: Any = Wait()  # any object will do
        cache.engine.flights.reset()
        known, key = cache.engine.flights, cache.make_key(self._typed)
        self.flight = flight = known.join([key], Wait(), blocking=True, leader=self.leader).flight
        self.outer = Flight(known, ["outer"], None, None)
        self.kept: BaseException | None = None
        self._operation = operation

        class Ready(Outcome[Landing]):
            def result(self, timeout: float | None = None) -> Landing:
                known.land(flight, Landing({key: "led"}))
                return super().result(timeout)

        flight.future = Ready()

    def call(self) -> None:
        """Make the call; keep its error, with the frames that it has come through."""
        try:
            assert FOLLOWS[self._operation](self._cache, self._typed) == "led"
        except BaseException as error:
            self.kept = error
            raise

    @contextmanager
    def within(self) -> Iterator[None]:
        """Let the call come in a computation, and in an event loop, which it stops."""
        loop, before = asyncio.new_event_loop(), flights.computing.set(self.outer)
        asyncio._set_running_loop(loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            flights.computing.reset(before)
            loop.close()

    def torn_at(self, number: int) -> bool:
        """Call, and raise at one of the instructions; return whether there are so many."""
        left = number

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename in TRACED:
                frame.f_trace_opcodes = True
                left -= event == "opcode"
                if left < 0:
                    sys.settrace(None)
                    raise TornError
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            self.call()
        except TornError:
            self.kept = None
        finally:
            sys.settrace(before)
        return left < 0

    def waiting(self) -> list[Flight]:
        """Return what is waited for, by all who are known to wait."""
        known = (self.flight.followers, self.outer.waits, flights._stalled)
        return [flight for waits in known for flight in flights._under_way(waits)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators that are closed
@pytest.mark.parametrize("operation", FOLLOWS)
def test_a_follower_that_is_torn_at_any_instruction_waits_no_longer(operation: str) -> None:
    """Also at those where Python itself looks for no signal."""
    with engines_of_its_own():
        cache = LocMemCache(f"torn {operation}", {})
        for number in itertools.count():
            follower = Follower(cache, number, operation)
            with follower.within():
                is_torn = follower.torn_at(number)
            if follower.waiting():
                gc.collect()  # the error may be in a circle with a frame whose next instruction is to drop it
            assert follower.waiting() == [], number
            while flights._lock._is_owned():  # likewise a lock, which the next instruction releases
                flights._lock.release()
            if not is_torn:
                break
    assert number > 500


@pytest.mark.parametrize("operation", FOLLOWS)
def test_a_follower_that_is_interrupted_waits_no_longer(operation: str) -> None:
    """Wherever a signal's handler raises, and however long its error is kept."""
    kept = []
    with engines_of_its_own():
        cache = LocMemCache(f"interrupted {operation}", {})
        for number in itertools.count():
            follower = Follower(cache, number, operation)
            with follower.within():
                is_cut, where = cut_short(follower.call, number)
            assert follower.waiting() == [], where
            kept.append(follower.kept)
            if not is_cut:
                break
    assert number > 100
