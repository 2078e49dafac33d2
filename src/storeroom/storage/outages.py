"""When a server is down: notice it, stop asking it, look again, and say so once.

While a circuit breaker is *closed*, operations go to the server. After some failures in a row it *opens*: operations
are answered at once, by the alias's policy (``network``), or not at all within `no_answers`. After a pause one is let
through, *half-open*: if it succeeds the breaker closes, else it stays open for another pause.

Source: M. Nygard, "Release It!" (2007), chapter 5.
"""

from _contextvars import ContextVar
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias
from weakref import ref

from storeroom import timeouts, wording
from storeroom.late import logger_of
from storeroom.locks import reentrant

__all__ = [
    "FAILURES", "PAUSE_SECONDS", "CircuitBreaker", "are_answers_refused", "is_room_needed", "no_answers", "room_needed",
]  # fmt: skip

logger = logger_of("storeroom.outages")

FAILURES: Final = 3
"""Failures in a row that open the breaker: one may be a connection that idled out, three are an outage."""

PAUSE_SECONDS: Final = 1.0
"""Between probes of a server that is down: a recovery is noticed within this and one probe."""


class _Block:
    """A block that is under way for as long as its frame refers to this: an exception may tear it before its end."""

    __slots__ = ("__weakref__",)


_Blocks: TypeAlias = ContextVar[tuple[ref[_Block], ...]]

_refused: _Blocks = ContextVar("storeroom_no_answers", default=())


@contextmanager
def no_answers() -> Iterator[None]:
    """Let operations within raise StorageError during an outage, whatever the policy."""
    before, block = _refused.get(), _Block()
    _refused.set((*before, ref(block)))
    try:
        yield
    finally:
        _refused.set(before)  # no reset(): steps that are given up may end in another context


def are_answers_refused() -> bool:
    """Tell whether this code runs within no_answers()."""
    return _is_within(_refused)


_room_needed: _Blocks = ContextVar("storeroom_room_needed", default=())


@contextmanager
def room_needed() -> Iterator[None]:
    """Let a write within raise StorageError if a server has no room for it, whatever the policy for outages."""
    before, block = _room_needed.get(), _Block()
    _room_needed.set((*before, ref(block)))
    try:
        yield
    finally:
        _room_needed.set(before)  # as above


def is_room_needed() -> bool:
    """Tell whether this code runs within room_needed()."""
    return _is_within(_room_needed)


def _is_within(blocks: _Blocks) -> bool:
    return any(block() is not None for block in blocks.get())


class CircuitBreaker:
    """One server's health, as far as all threads of this process know it.

    Attributes:
        failures: operations that have failed since the start.
        is_open: whether operations are kept from the server.
        openings: times that it has opened.
    """

    def __init__(self, name: str) -> None:
        """Begin closed, for the server of this name: it is logged, and holds no password."""
        self.name = name
        self.failures = self.openings = 0
        self.is_open = False
        self._limit, self._pause = FAILURES, PAUSE_SECONDS
        self._in_a_row = 0
        self._probe_at = 0.0
        self._opened_at = 0.0
        self._lock = reentrant()

    @property
    def refuses(self) -> bool:
        """Whether an operation would be kept from the server now; unlike allows() it may be asked in vain."""
        # More than a pause away, the clock was put back.
        return self.is_open and 0 < self._probe_at - timeouts.now() <= self._pause

    def allows(self) -> bool:
        """Tell whether an operation may go to the server: always while closed, one a pause while open."""
        if not self.is_open:
            return True
        with self._lock:
            if self.refuses:
                return False
            self._probe_at = timeouts.now() + self._pause
            return True

    def succeed(self) -> None:
        """Note that the server answered."""
        if not self._in_a_row:
            return
        with self._lock:
            was_open, self.is_open, self._in_a_row = self.is_open, False, 0
        if was_open:
            seconds = timeouts.now() - self._opened_at
            fields = {"event": "recovery", "server": self.name, "seconds": round(seconds, 3)}
            text = wording.fields_text(fields)
            logger.warning("%s answers again, after %.1f s. %s", self.name, seconds, text, extra=fields)

    def fail(self, error: BaseException, *, is_down: bool = True) -> None:
        """Note that the server could not be reached or did not answer in time; it answers others if not `is_down`."""
        with self._lock:
            self.failures += 1
            self._in_a_row += is_down
            if self.is_open or self._in_a_row < self._limit:
                return
            self.is_open = True
            self.openings += 1
            self._opened_at = timeouts.now()
            self._probe_at = self._opened_at + self._pause
        fields = {"event": "outage", "server": self.name, "error": type(error).__name__, "failures": self._in_a_row}
        logger.error(
            "%s is down (%s: %s). Its caches follow their on_error policy; it is tried again every %g s. %s",
            self.name,
            type(error).__name__,
            error,
            self._pause,
            wording.fields_text(fields),
            extra=fields,
        )

    def trust(self) -> None:
        """Let everybody ask the server again, as others say that it is well; one failure stops them."""
        with self._lock:
            if self.is_open:
                self.is_open, self._in_a_row = False, self._limit - 1

    def reset(self) -> None:
        """Forget everything, in a child process: its connections are new."""
        self._lock = reentrant()
        self._in_a_row, self.openings, self.is_open = 0, 0, False
