"""The circuit breaker's states, by a clock that tests move."""

import logging
from collections.abc import Iterator

import pytest

from storeroom.storage.outages import FAILURES, PAUSE_SECONDS, CircuitBreaker
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import in_threads

ERROR = ConnectionError("refused")
DOWN = (
    "the server is down (ConnectionError: refused). Its caches follow their on_error policy; "
    "it is tried again every 1 s. "
    'event=outage server="the server" error=ConnectionError failures=3'
)
ENDED = 'the server answers again, after 12.4 s. event=recovery server="the server" seconds=12.4'


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def breaker(clock: FakeClock) -> CircuitBreaker:
    return CircuitBreaker("the server")


def open_it(breaker: CircuitBreaker) -> None:
    for _ in range(FAILURES):
        assert breaker.allows()
        breaker.fail(ERROR)


def test_breaker_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    """FAILURES in a row open the breaker; a success in between begins the row anew."""
    for _ in range(5):
        for _ in range(FAILURES - 1):
            breaker.fail(ERROR)
        breaker.succeed()
    assert breaker.allows()
    open_it(breaker)
    assert breaker.is_open
    assert not breaker.allows()
    assert breaker.failures == 5 * (FAILURES - 1) + FAILURES


def test_one_operation_in_a_pause_is_let_through(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """After each pause, one thread alone may try; the others are refused until it reports."""
    open_it(breaker)
    clock.advance(PAUSE_SECONDS / 2)
    assert not breaker.allows()
    clock.advance(PAUSE_SECONDS / 2)
    assert sum(in_threads(8, lambda _: breaker.allows())) == 1
    clock.advance(PAUSE_SECONDS)
    assert sum(in_threads(8, lambda _: breaker.allows())) == 1


def test_asking_whether_an_operation_would_be_refused_takes_no_turn(breaker: CircuitBreaker, clock: FakeClock) -> None:
    """Reading refuses does not use up the one operation that may try."""
    assert not breaker.refuses
    open_it(breaker)
    assert breaker.refuses
    clock.advance(PAUSE_SECONDS)
    assert [breaker.refuses, breaker.refuses] == [False, False]
    assert breaker.allows()
    assert breaker.refuses


def test_probe_that_fails_keeps_the_breaker_open_and_one_that_succeeds_closes_it(
    breaker: CircuitBreaker, clock: FakeClock
) -> None:
    """A failed try keeps the breaker open for another pause; a success closes it."""
    open_it(breaker)
    clock.advance(PAUSE_SECONDS)
    assert breaker.allows()
    breaker.fail(ERROR)
    assert breaker.is_open
    assert not breaker.allows()
    clock.advance(PAUSE_SECONDS)
    assert breaker.allows()
    breaker.succeed()
    assert not breaker.is_open
    assert all(breaker.allows() for _ in range(10))
    breaker.fail(ERROR)
    assert not breaker.is_open, "a row begins anew"


def test_outage_is_told_once_at_its_begin_and_once_at_its_end(
    breaker: CircuitBreaker, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage logs one error at its beginning, and one warning with its duration at its end."""
    with caplog.at_level(logging.DEBUG, "storeroom"):
        open_it(breaker)
        for _ in range(5):
            clock.advance(PAUSE_SECONDS)
            assert breaker.allows()
            breaker.fail(ERROR)
        clock.advance(7.4)
        assert breaker.allows()
        breaker.succeed()
        breaker.succeed()
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("storeroom.outages", "ERROR", DOWN),
        ("storeroom.outages", "WARNING", ENDED),
    ]
    fields = [{name: vars(record)[name] for name in ("event", "server")} for record in caplog.records]
    assert fields == [{"event": event, "server": "the server"} for event in ("outage", "recovery")]
    assert (caplog.records[0].error, caplog.records[1].seconds) == ("ConnectionError", 12.4)


def test_clock_that_is_put_back_does_not_prolong_an_outage() -> None:
    """After the clock is put back an hour, a try is allowed at once, and each pause after."""
    breaker = CircuitBreaker("the server")
    with FakeClock() as clock:
        clock.advance(3600)
        open_it(breaker)
    with FakeClock() as clock:
        assert breaker.allows()
        assert not breaker.allows()
        clock.advance(PAUSE_SECONDS)
        assert breaker.allows()


def test_child_process_begins_with_a_closed_breaker(breaker: CircuitBreaker) -> None:
    """reset() closes the breaker even if a thread of the parent held its lock at the fork."""
    open_it(breaker)
    breaker._lock.acquire()
    breaker.reset()
    assert not breaker.is_open
    assert breaker.allows()
    breaker.fail(ERROR)
