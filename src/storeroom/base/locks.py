"""A lock among all that share a storage: ``cache.lock(name)``.

The lock is an entry: an Envelope without a value, whose stamp stands for its owner. To acquire is to add it; to give
back or prolong is to compare, in one step with the change: an owner who was too slow never touches the lock of the next
one. A caller who is cut short while he acquires it or gives it back leaves none behind (``computing.whole``). An outage
raises, whatever the alias's policy: a lock that could not be asked for was not acquired.

A lock whose timeout is over is free, whatever its owner is doing. A guarded resource tells the late from the current
owner by a *fencing token*: a number that grows with each owner who asks for one. It counts from the clock's
microseconds, so that it grows on also where the storage has lost it.

Source: https://redis.io/docs/latest/develop/use/patterns/distributed-locks/, for one server; fencing tokens by M.
Kleppmann, "How to do distributed locking" (2016).
"""

import time
from contextlib import suppress
from functools import partial
from typing import Final, Self, TypeVar

from storeroom import timeouts
from storeroom.computing.whole import Whole, look_again
from storeroom.exceptions import LockError, LockLostError, LockTimeoutError, StorageError
from storeroom.keys import FENCE_PREFIX, LOCK_PREFIX
from storeroom.storage import counters
from storeroom.storage.clocks import Clock
from storeroom.storage.endings import Ending
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.outages import no_answers
from storeroom.storage.steps import Steps, arun, pause, run
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, NEVER, Timeout

__all__ = ["Lock"]

T = TypeVar("T")

_FENCE_SECONDS: Final = 30 * 86_400.0
"""Seconds that a counter is kept for. The next one begins higher, unless the clock was put back by as much."""

_SLACK_SECONDS: Final = 86_400.0
"""Seconds that an entry is kept beyond its time where the storage has a clock: hosts' clocks may differ by as much."""

_FIRST_PAUSE: Final = 0.001
"""Seconds between the first two attempts; doubled up to `sleep`."""


class Lock:
    """A lock, made by ``cache.lock()``, for ``with`` and ``async with``. Neither reentrant nor fair; an object per use.

    Raises:
        InvalidTimeoutError: a timeout has no meaning.
        ValueError: the timeout is not positive.
    """

    _is_entered = False  # by a block, whose end may not be reached: see Ending and __del__()
    _ending: object = None

    def __init__(
        self, hooks: StorageHooks, name: object, storage_key: str, timeout: Timeout, sleep: float,
        blocking_timeout: Timeout,
    ) -> None:  # fmt: skip
        self.name = name
        self._hooks, self._storage_key = hooks, storage_key
        self._key = f"{LOCK_PREFIX}{storage_key}"
        self._timeout = timeouts.parse_timeout(timeout)
        self._patience = timeouts.parse_timeout(blocking_timeout)
        self._sleep = sleep
        self._owned: Envelope | None = None  # the entry, while this object holds the lock
        self._tried: tuple[Envelope, Whole] | None = None  # noted before it is taken: the caller may be cut short
        self._over_at = NEVER  # by the time since the machine's start
        self._fence: int | None = None
        self._until(self._timeout)

    def _until(self, seconds: float | None) -> float:
        expires_at = timeouts.expires_at(seconds, None)
        if expires_at == AT_ONCE:
            raise ValueError(
                f"The timeout of the lock {self.name!r} is {seconds!r}; expected more than 0 seconds, or None for a "
                "lock that is held until it is given back."
            )
        return expires_at

    def acquire(self, *, blocking: bool = True, blocking_timeout: Timeout = DEFAULT_TIMEOUT) -> bool:
        """Take the lock; return whether it was to be had in time.

        Args:
            blocking: whether to wait at all.
            blocking_timeout: for how long, if not as the lock was made.

        Raises:
            LockError: this very object holds it.
            StorageError: the server is out of reach.
        """
        return run(self._or_not(self._acquiring(blocking=blocking, blocking_timeout=blocking_timeout)))

    async def aacquire(self, *, blocking: bool = True, blocking_timeout: Timeout = DEFAULT_TIMEOUT) -> bool:
        """Take the lock; return whether it was to be had in time. See acquire()."""
        return await arun(self._or_not(self._acquiring(blocking=blocking, blocking_timeout=blocking_timeout)))

    def _acquiring(self, *, blocking: bool, blocking_timeout: Timeout = DEFAULT_TIMEOUT) -> Steps[bool]:
        if self._owned is not None:
            raise LockError(
                f"The lock {self.name!r} was acquired by this object already, and has not been given back. A lock is "
                "not reentrant, and an object is for one use at a time: call lock() again for another."
            )
        patience = self._patience if blocking_timeout is DEFAULT_TIMEOUT else timeouts.parse_timeout(blocking_timeout)
        deadline = NEVER if patience is None else time.monotonic() + patience
        seconds = _FIRST_PAUSE
        while True:
            begun = timeouts.uptime()
            if (envelope := (yield from self._attempt())) is not None:
                self._owned, self._fence = envelope, None
                self._over_at = begun + _endless(self._timeout)
                return True
            left = deadline - time.monotonic()
            if not blocking or left <= 0:
                return False
            yield from pause(min(seconds, left))
            seconds = min(2 * seconds, self._sleep)

    def _attempt(self) -> Steps[Envelope | None]:
        """Return the entry of this object if it has got the lock."""
        with no_answers():
            clock = yield self._hooks, "_clock", (self._key,)
            envelope, whole = self._entry(self._timeout, clock), Whole(self._hooks)
            self._tried = envelope, whole
            if (yield whole, "make", ("_add", self._key, envelope, _kept_until(envelope))) is True:
                return envelope
            found = (yield self._hooks, "_get", (self._key,)) if clock else None
            if type(found) is Envelope and _is_over(found, clock):
                terms = self._key, found, envelope, _kept_until(envelope)
                if (yield whole, "make", ("_compare_set", *terms)):
                    return envelope
        self._tried = None
        return None

    def _withdrawing(self, envelope: Envelope) -> Steps[bool]:
        """Remove the entry, if it is there; return whether it was."""
        with no_answers(), suppress(StorageError):
            return bool((yield self._hooks, "_compare_delete", (self._key, envelope)))
        return False

    def _or_not(self, acquiring: Steps[T]) -> Steps[T]:
        """Acquire the lock, or be cut short without it."""
        try:
            result = yield from acquiring
        except BaseException:
            if (tried := self._tried) is not None:
                # A server that did not answer, or was not waited for, may have stored it all the same.
                self._owned = None
                yield tried[1], "undo", (partial(self._withdrawing, tried[0]),)
                self._tried = None
                self._end_block()
            raise
        self._tried = None
        return result

    def release(self) -> None:
        """Give the lock back.

        Raises:
            LockLostError: it is not ours any more, or never was; another's is not touched.
            StorageError: the server is out of reach.
        """
        run(self._releasing())

    async def arelease(self) -> None:
        """Give the lock back. See release()."""
        await arun(self._releasing())

    def _releasing(self) -> Steps[None]:
        envelope, whole = self._held(), Whole(self._hooks)
        try:
            with no_answers():
                released = yield whole, "make", ("_compare_delete", self._key, envelope)
        except BaseException as error:
            if isinstance(error, Exception) and not is_from_outside(error):
                raise
            self._owned = None
            yield whole, "undo", (partial(self._withdrawing, envelope),)
            raise
        self._owned = None
        self._end_block()
        if not released or self._is_late:
            raise self._lost()

    def extend(self, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Hold the lock for a new time, counted from now.

        Args:
            timeout: for how long, if not as the lock was made.

        Raises:
            LockLostError: it is not ours any more, or never was.
            StorageError: the server is out of reach.
        """
        run(self._extending(timeout))

    async def aextend(self, timeout: Timeout = DEFAULT_TIMEOUT) -> None:
        """Hold the lock for a new time, counted from now. See extend()."""
        await arun(self._extending(timeout))

    def _extending(self, timeout: Timeout) -> Steps[None]:
        envelope = self._held()
        seconds, begun = (
            self._timeout if timeout is DEFAULT_TIMEOUT else timeouts.parse_timeout(timeout),
            timeouts.uptime(),
        )
        self._until(seconds)
        with no_answers():
            renewed = self._entry(seconds, (yield self._hooks, "_clock", (self._key,)))
            renewed.stamp = envelope.stamp  # either is this object's, if it is cut short
            terms = self._key, envelope, renewed, _kept_until(renewed)
            if self._is_late or not (yield self._hooks, "_compare_set", terms):
                raise self._lost()
        self._owned, self._over_at = renewed, begun + _endless(seconds)

    def fence(self) -> int:
        """Return the fencing token of this holding: higher than that of every earlier owner who asked.

        The guarded resource refuses a lower one than it has seen. Cost: the first time two round trips, later none.

        Raises:
            LockLostError: the lock is not ours any more, or never was.
            StorageError: the server is out of reach.
        """
        return run(self._fencing())

    async def afence(self) -> int:
        """Return the fencing token of this holding: higher than that of every earlier owner who asked. See fence()."""
        return await arun(self._fencing())

    def _fencing(self) -> Steps[int]:
        self._held()
        if self._fence is None:
            now = timeouts.now()
            counter = f"{FENCE_PREFIX}{self._storage_key}"
            with no_answers():
                token = yield from counters.count(self._hooks, counter, 1, int(now * 1e6), now + _FENCE_SECONDS)
                # The lock is this object's still, so no later owner can have counted before.
                if not (yield from self._comparing()):
                    raise self._lost()
            self._fence = int(token)
        return self._fence

    def locked(self) -> bool:
        """Tell whether anybody holds the lock now; it may be otherwise a moment later."""
        return run(self._looking())

    async def alocked(self) -> bool:
        """Tell whether anybody holds the lock now; it may be otherwise a moment later. See locked()."""
        return await arun(self._looking())

    def _looking(self) -> Steps[bool]:
        with no_answers():
            clock = yield self._hooks, "_clock", (self._key,)
            if clock is None:
                return (yield self._hooks, "_expiry", (self._key,)) is not None
            found = yield self._hooks, "_get", (self._key,)
            return type(found) is Envelope and not _is_over(found, clock)

    def owned(self) -> bool:
        """Tell whether this object holds the lock now; it may be otherwise a moment later."""
        return run(self._comparing())

    async def aowned(self) -> bool:
        """Tell whether this object holds the lock now; it may be otherwise a moment later. See owned()."""
        return await arun(self._comparing())

    def _comparing(self) -> Steps[bool]:
        envelope = self._owned
        if envelope is None or self._is_late:
            return False
        with no_answers():  # a write that changes nothing: no replica and no near tier can answer it
            return bool((yield self._hooks, "_compare_set", (self._key, envelope, envelope, _kept_until(envelope))))

    @property
    def _is_late(self) -> bool:
        """Whether this object's time is over, even if nobody has taken the lock since."""
        return timeouts.uptime() >= self._over_at

    def _entry(self, seconds: float | None, clock: Clock | None) -> Envelope:
        """Return a new entry, which ends by the storage's clock where there is one, and else by its expiry."""
        until = self._until(seconds)
        if clock is None or seconds is None:
            return placeholder(until)
        return Envelope(None, AT_ONCE, grace=until, cost=clock.number, leased_until=clock.now + seconds)

    def _held(self) -> Envelope:
        if self._owned is None:
            raise LockLostError(f"The lock {self.name!r} is not held by this object; call acquire() before.")
        return self._owned

    def _lost(self) -> LockLostError:
        return LockLostError(
            f"The lock {self.name!r} is not ours any more: its timeout ({self._timeout} s) was shorter than the work, "
            "or the storage has lost it. Another may have worked at the same time: give it a longer timeout, extend() "
            "it in time, or use fence()."
        )

    def __enter__(self) -> Self:
        return run(self._or_not(self._entering()))

    async def __aenter__(self) -> Self:
        return await arun(self._or_not(self._entering()))

    def _entering(self) -> Steps[Self]:
        self._is_entered = self._is_entered or self._owned is None
        if not (yield from self._acquiring(blocking=True)):
            self._end_block()
            raise LockTimeoutError(f"The lock {self.name!r} was not free within {self._patience} s (blocking_timeout).")
        return self

    @Ending
    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        run(self._leaving(error))

    @partial(Ending, is_awaited=True)
    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await arun(self._leaving(error))

    def _leaving(self, error: BaseException | None) -> Steps[None]:
        """Give the lock back; an error of that is a note where another error is on its way."""
        try:
            yield from self._releasing()
        except (LockLostError, StorageError) as late:
            self._ending = None  # the program may try again
            if error is None:
                raise
            error.add_note(f"And at the end: {late}")

    def _end_block(self) -> None:
        self._is_entered, self._ending = False, None

    def _torn(self) -> None:
        """Give the lock back in the background, if that has not been done: nothing else can be done here."""
        if not self._is_entered:
            return
        held = self._owned or (self._tried and self._tried[0])
        self._owned = self._tried = None
        self._end_block()
        if held:
            look_again(partial(self._withdrawing, held))

    __del__ = _torn  # where there was no Ending

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, timeout {self._timeout}>"


def _endless(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds


def _kept_until(envelope: Envelope) -> float:
    """Return the expiry of an entry: later than its time by any clock that is about right, if it ends by another."""
    return envelope.grace + _SLACK_SECONDS if envelope.cost else envelope.kept_until


def _is_over(envelope: Envelope, clock: Clock) -> bool:
    """Tell whether an entry that is there has ended by the storage's clock; by this host's, if that began anew."""
    if not envelope.cost:
        return False
    return envelope.leased_until <= clock.now if envelope.cost == clock.number else envelope.grace <= timeouts.now()
