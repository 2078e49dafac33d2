"""The primary that Sentinels name: their votes, and the way of requests to it.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.requests import PRIMARIES, Batch, Command, Outcome, Request, UnreachableError, Use, undone
from storeroom.backends.redis.topology import Route, Single, has_failed, replies_of
from storeroom.locks import reentrant

__all__ = ["Sentinel", "Vote", "questions", "vote_of"]


@dataclass(frozen=True, slots=True)
class Vote:
    """The primary as one Sentinel knows it.

    Attributes:
        epoch: of its configuration: each failover has a higher one, for which a majority of Sentinels has voted.
        asked_at: monotonic time of the question.
    """

    epoch: int
    host: str
    port: int
    asked_at: float


def questions(service: str) -> tuple[Command, ...]:
    """Return the commands whose replies make a vote.

    The address comes second: a Sentinel that leads a failover has the new epoch before it names the new address by the
    first command, and names it by the second from that moment on.
    """
    return ("SENTINEL", "MASTER", service), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)


def vote_of(replies: Sequence[Any], asked_at: float) -> Vote | None:
    """Return the vote of a Sentinel's replies to the questions; None if it knows no such primary."""
    facts, address = replies
    if not isinstance(address, list) or not isinstance(facts, list | dict):
        return None
    if isinstance(facts, list):  # before RESP3
        facts = dict(zip(facts[::2], facts[1::2], strict=True))
    host, port = address
    return Vote(int(facts.get(b"config-epoch", 0)), host.decode(), int(port), asked_at)


class Sentinel(Single):
    """The primary that some Sentinels name; after a failover, the new one.

    Attributes:
        moved: called after another primary has been named.
    """

    REST: Final = 5.0
    """Seconds for which a Sentinel that failed is not asked again, while others answer."""

    SPREAD: Final = 10.0
    """Seconds after which every Sentinel knows of a failover: they tell each other every two."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.only = None
        self.moved: Callable[[], object] = dict
        self._service = target.service
        self._sentinels = target.sentinels
        self._rests_until: dict[Server, float] = {}
        self._primary: Server | None = None
        self._epoch, self._told_at = -1, 0.0
        self._lock = reentrant()

    def route(self, request: Request) -> Route:
        """See Single."""
        primary = self._primary or (yield from self._discover())
        if request is PRIMARIES:
            return [(primary, None)]
        batch = Batch(primary, request.commands, request.use)
        (outcome,) = yield [batch]
        if has_failed(outcome):
            successor = yield from self._discover()
            if successor != primary and undone(batch.commands, batch.use, outcome):
                outcome = yield from self._again(batch, outcome, successor)
        return replies_of(outcome)

    def sources(self) -> Route:
        """See Single."""
        return [(yield from self._discover())]

    def after_fork_in_child(self) -> None:
        """See Single."""
        self._lock = reentrant()
        self._rests_until = {}

    def _discover(self) -> Generator[list[Batch], list[Outcome], Server]:
        """Ask the Sentinels, all together; return the primary."""
        now = time.monotonic()
        awake = [sentinel for sentinel in self._sentinels if self._rests_until.get(sentinel, 0.0) <= now]
        asked = awake if 2 * len(awake) > len(self._sentinels) else self._sentinels
        outcomes = yield [Batch(sentinel, questions(self._service), Use.READ) for sentinel in asked]
        votes: dict[Server, Vote] = {}
        failures = []
        for sentinel, outcome in zip(asked, outcomes, strict=True):
            self._rests_until[sentinel] = now + self.REST if isinstance(outcome, Exception) else 0.0
            vote = vote_of(outcome, now) if isinstance(outcome, list) else None
            if vote is not None:
                votes[sentinel] = vote
            else:
                reason = outcome[1] if isinstance(outcome, list) else outcome
                failures.append(f"{sentinel.name}: {reason or 'knows no such primary'}")
        self.settle(votes)
        if self._primary is None:
            raise UnreachableError(f"no Sentinel names the primary {self._service!r} ({'; '.join(failures)})")
        return self._primary

    def hear(self, votes: Mapping[Server, Vote]) -> None:
        """Take votes that come one by one: once all Sentinels have been asked together, as the first is a late one."""
        if self._primary is not None:
            self.settle(votes)

    def settle(self, votes: Mapping[Server, Vote]) -> None:
        """Follow the highest epoch among the votes; where several have it, the address that most of them name.

        A Sentinel that was cut off from the others, or stopped, names the primary of an epoch that is over; and in the
        first seconds all but the one that leads the failover do, which may be out of reach by then. So an epoch below
        the known one counts only if a majority tells it, asked when all must have known: their memory was set back.
        """
        if not votes:
            return
        epoch = max(vote.epoch for vote in votes.values())
        has_majority = 2 * len(votes) > len(self._sentinels)
        with self._lock:
            asked_at = min(vote.asked_at for vote in votes.values())
            if epoch < self._epoch and not (has_majority and asked_at > self._told_at + self.SPREAD):
                return
            named = Counter((vote.host, vote.port) for vote in votes.values() if vote.epoch == epoch)
            old = self._primary
            known = (old.host, old.port) if old is not None else None
            host, port = max(named, key=lambda address: (named[address], address == known))
            self._epoch, self._told_at = epoch, time.monotonic()
            self._primary = new = replace(self._first, host=host, port=port)
        if old is not None and old != new:
            self.leave(old)
            self.moved()
