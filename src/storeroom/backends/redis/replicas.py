"""A server that is written to, and replicas that are read from while they keep up with it."""

import asyncio
import contextvars
import itertools
import logging
import math
import time
from collections import deque
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from storeroom.backends.redis.health import Health
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.requests import Batch, Command, Outcome, Request, Use, any_turned_away, keys_of
from storeroom.backends.redis.topology import Route, Single, has_failed, replies_of

__all__ = ["Replicated", "facts_of"]

_log = logging.getLogger("storeroom.outages")

_INFO: Final = (("INFO", "replication"),)

_MOST_RECENT: Final = 10_000
"""Keys of tasks' writes that are remembered; of more, all tasks read from the first server for a while."""


class _Replica:
    """A replica, as far as it is known.

    Attributes:
        rests_until: monotonic time until which it is left alone, as it failed; 0 while it is well.
        held_at: monotonic time of the latest known state of the first server that it holds.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.rests_until = 0.0
        self.held_at = -math.inf


class Replicated(Single):
    """A server that is written to, and others that are read from.

    A thread or task that has written reads from the first server for a while, as the others may lag behind. So do all
    tasks that read a key which another task has written: that may be their child.
    """

    REST: Final = 5.0
    """Seconds for which a replica that failed is left alone; then one read tries it again."""

    LAG: Final = 1.0
    """Seconds for which nobody reads from a replica, at least, after the entries of an outage were removed."""

    LOOKS_PER_BOUND: Final = 4
    """Looks at the replicas before the bound of their lag is over."""

    def __init__(self, target: Target, read_own_writes: float, max_lag: float | None) -> None:
        super().__init__(target)
        self.only = None
        self.health: Health = Health()
        self._replicas = [_Replica(server) for server in target.servers[1:]]
        self._turn = itertools.count()
        self._window = read_own_writes
        self._all_read_first_until = 0.0
        # Each thread has a context of its own, and so has each task.
        self._reads_first_until = contextvars.ContextVar("storeroom-redis-reads-first-until", default=0.0)
        self._recent: dict[bytes, float] = {}
        self._max_lag = max_lag
        self._states: deque[tuple[float, str, int]] = deque(maxlen=2 * self.LOOKS_PER_BOUND)
        self._look_at = 0.0
        self._is_lost = False
        self._unheard = frozenset[Server]()
        self._has_warned = False

    def route(self, request: Request) -> Route:
        """See Single."""
        if request.use is not Use.READ or request.at is not None or not request.commands:
            return (yield from self._ask_first(request))
        if time.monotonic() >= self._look_at:
            yield from self._look()
        outcome: Outcome | None = None
        for server in self._candidates(request):
            (outcome,) = yield from self.health.carried([Batch(server, request.commands, request.use)])
            self._note(server, is_well=not has_failed(outcome))
            if not has_failed(outcome):
                break
            if isinstance(outcome, list):
                self.leave(server)  # a name of several replicas leads to another, perhaps
        return replies_of(outcome) if outcome is not None else []

    def _ask_first(self, request: Request) -> Route:
        if not request.commands:
            return (yield from super().route(request))
        batch = Batch(request.at or self._first, request.commands, request.use)
        (outcome,) = yield from self.health.carried([batch])
        if isinstance(outcome, list) and any_turned_away(outcome):
            outcome = yield from self._again(batch, outcome)
        if request.use in {Use.WRITE, Use.ONCE} and not has_failed(outcome):
            self._note_write(request.commands)
        return replies_of(outcome)

    def sources(self) -> Route:
        """See Single: a change may show at a replica later than at the first server."""
        return [self._first, *(replica.server for replica in self._replicas)]
        yield  # a generator, as where the servers have to be asked

    def goes_on_without(self, server: Server) -> bool:
        """See Single: a replica is not read from meanwhile."""
        return server != self._first

    def note_unheard(self, servers: Collection[Server]) -> None:
        """See Single."""
        self._unheard = frozenset(servers)

    def note_removal(self) -> None:
        """See Single."""
        self._all_read_first_until = time.monotonic() + max(self._window, self.LAG)

    def _note_write(self, commands: Iterable[Command]) -> None:
        """Let this thread or task read from the first server for a while, and other tasks what is written now."""
        now = time.monotonic()
        until = now + self._window
        self._reads_first_until.set(until)
        if not self._window or not _is_in_task():
            return
        self._recent |= dict.fromkeys((key for command in commands for key in keys_of(command)), until)
        if len(self._recent) > _MOST_RECENT:
            self._recent = {key: due for key, due in list(self._recent.items()) if due > now}
            if len(self._recent) > _MOST_RECENT:
                self._recent = {}
                self._all_read_first_until = max(self._all_read_first_until, until)

    def _candidates(self, request: Request) -> Sequence[Server]:
        """Return the servers that may answer a read; each but the first of them only if those before it fail."""
        now = time.monotonic()
        if now < max(self._reads_first_until.get(), self._all_read_first_until):
            return [self._first]
        good = [replica for replica in self._replicas if self._keeps_up(replica, now)]
        if self._is_recent(request, now):
            return [self._first, *(replica.server for replica in good if not replica.rests_until)]
        for replica in good:
            if 0 < replica.rests_until <= now:  # its turn to be tried again, by this read alone
                replica.rests_until = now + self.REST
                return [replica.server, self._first, *(other.server for other in good if not other.rests_until)]
        awake = [replica.server for replica in good if not replica.rests_until]
        turn = next(self._turn) % len(awake) if awake else 0
        return [*awake[turn : turn + 1], self._first, *awake[turn + 1 :], *awake[:turn]]

    def _is_recent(self, request: Request, now: float) -> bool:
        if not self._recent or not _is_in_task():
            return False
        return any(self._recent.get(key, 0.0) > now for command in request.commands for key in keys_of(command))

    def _note(self, server: Server, *, is_well: bool) -> None:
        for replica in self._replicas:
            if replica.server == server:
                replica.rests_until = 0.0 if is_well else time.monotonic() + self.REST

    # The lag ----------------------------------------------------------------------------------

    def _keeps_up(self, replica: _Replica, now: float) -> bool:
        """Tell whether a replica holds all that the first server held `max_lag` seconds ago, or before it was lost."""
        if replica.server in self._unheard:
            return False
        if self._max_lag is None:
            return True
        if self._is_lost:
            if not self._states:
                return replica.held_at > -math.inf
            now = self._states[-1][0]
        return replica.held_at >= now - self._max_lag

    def _look(self) -> Generator[list[Batch], list[Outcome], None]:
        """Ask the first server for the length of all it has ever written, and the replicas for their part of it."""
        now = time.monotonic()
        if self._max_lag is None:
            self._look_at = math.inf
            return
        self._look_at = now + self._max_lag / self.LOOKS_PER_BOUND  # others go on by what is known
        (outcome,) = yield from self.health.carried([Batch(self._first, _INFO, Use.READ)])
        facts = self._facts(outcome)
        self._is_lost = has_failed(outcome)
        if facts.get("role") == "slave":
            self.leave(self._first)  # its name leads to another server by now, or soon
        elif facts:
            self._states.append((now, facts["master_replid"], int(facts["master_repl_offset"])))
        batches = [Batch(it.server, _INFO, Use.READ) for it in self._replicas if it.rests_until <= now]
        told = dict(zip((batch.server for batch in batches), (yield from self.health.carried(batches)), strict=True))
        for replica in self._replicas:
            if replica.server in told:
                self._note(replica.server, is_well=not has_failed(told[replica.server]))
                replica.held_at = self._held_at(self._facts(told[replica.server]), replica.held_at)

    def _held_at(self, facts: Mapping[str, str], before: float) -> float:
        if not facts:
            return before
        if facts["role"] != "slave":
            return -math.inf
        own, offset = facts["master_replid"], int(facts["slave_repl_offset"])
        if not self._states and self._is_lost:
            return 0.0  # nobody knows better
        return max((at for at, replid, written in self._states if replid == own and written <= offset), default=before)

    def _facts(self, outcome: Outcome) -> Mapping[str, str]:
        """Return the facts of INFO; none if it was not answered. A server that refuses it bounds no lag."""
        if isinstance(outcome, Exception):
            return {}
        (reply,) = outcome
        if isinstance(reply, ResponseError) and not self._has_warned:
            self._has_warned = True
            _log.error(
                "A server refuses INFO (%s), so that nobody knows how far replicas are behind: they are left alone. "
                "Let the user run it, or set OPTIONS['replica_max_lag'] to None to read from them without a bound.",
                reply,
            )
        return facts_of(reply)


def facts_of(info: Any) -> dict[str, str]:
    """Return the facts of a reply to INFO; none where this user may not ask for it."""
    if not isinstance(info, bytes):
        return {}
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _is_in_task() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
