"""The servers of a group, each with a circuit breaker of its own: one that is down takes no other along."""

from collections.abc import Generator, Sequence
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from storeroom.backends.redis.location import Server
from storeroom.backends.redis.requests import Batch, Outcome, UnreachableError, is_outage
from storeroom.storage.outages import CircuitBreaker

__all__ = ["Carried", "GroupBreaker", "Health"]

Carried = Generator[list[Batch], list[Outcome], list[Outcome]]
"""Yields batches for servers, is sent their outcomes, and returns the outcomes of all."""

_UNREACHED: Final = (RedisConnectionError, RedisTimeoutError)


class GroupBreaker(CircuitBreaker):
    """Counts the failures of a group. It never opens: each server has its own breaker."""

    def succeed(self) -> None:
        """Do nothing: an answer of one server tells nothing of the others."""

    def fail(self, error: BaseException, *, is_down: bool = True) -> None:
        """Count a failure."""
        with self._lock:
            self.failures += 1


class _ServerBreaker(CircuitBreaker):
    """One server's breaker.

    Attributes:
        answers: batches that the server has answered.
    """

    answers = 0

    def judge(self, outcome: Outcome, answers: int, failures: int) -> None:
        """Note the outcome of a batch, and the answers and failures of the moment when it was sent.

        A server that has answered others meanwhile is slow, or this process is, and not down.
        """
        for error in (outcome,) if isinstance(outcome, Exception) else outcome:
            if is_outage(error):
                self.fail(error, is_down=isinstance(error, _UNREACHED) and answers == self.answers)
                return
        self.answers += 1
        if self.failures and (failures == self.failures or not self.is_open):  # an open one waits for an answer of now
            self.succeed()


class Health:
    """The health of each server of a group, as all threads and tasks of this process know it."""

    def __init__(self) -> None:
        self._breakers: dict[Server, _ServerBreaker] = {}

    def breaker(self, server: Server) -> _ServerBreaker:
        """Return a server's breaker."""
        breaker = self._breakers.get(server)
        return breaker or self._breakers.setdefault(server, _ServerBreaker(f"Redis at {server.name}"))

    def carried(self, batches: list[Batch]) -> Carried:
        """Yield the batches of servers that are well, or to be tried again; the others have an error at once."""
        breakers = [self._breakers.get(batch.server) or self.breaker(batch.server) for batch in batches]
        for breaker in breakers:
            if breaker.is_open:
                return (yield from self._carried_in_part(batches, breakers))
        before = [(breaker.answers, breaker.failures) for breaker in breakers]
        outcomes = yield batches
        for breaker, outcome, counts in zip(breakers, outcomes, before, strict=True):
            breaker.judge(outcome, *counts)
        return outcomes

    def _carried_in_part(self, batches: list[Batch], breakers: Sequence[_ServerBreaker]) -> Carried:
        asks = [breaker.allows() for breaker in breakers]
        before = [(breaker.answers, breaker.failures) for breaker in breakers]
        asked = [batch for batch, is_asked in zip(batches, asks, strict=True) if is_asked]
        told = iter((yield asked) if asked else ())
        outcomes: list[Outcome] = []
        for breaker, is_asked, counts in zip(breakers, asks, before, strict=True):
            if is_asked:
                outcomes.append(next(told))
                breaker.judge(outcomes[-1], *counts)
            else:
                outcomes.append(UnreachableError(f"{breaker.name} failed a moment ago, and is asked again soon"))
        return outcomes

    @property
    def openings(self) -> int:
        """Times that a server was taken for down."""
        return sum(breaker.openings for breaker in list(self._breakers.values()))

    @property
    def down(self) -> int:
        """The number of servers that are taken for down."""
        return sum(breaker.is_open for breaker in list(self._breakers.values()))

    def reset(self) -> None:
        """Forget everything, in a child process."""
        for breaker in self._breakers.values():
            breaker.reset()
