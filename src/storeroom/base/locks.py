"""A lock among all that share a storage: ``cache.lock(name)``.

The lock is an entry: an Envelope without a value, whose stamp stands for its owner. To acquire is to add it; to give
back or prolong is to compare, in one step with the change: an owner who was too slow never touches the lock of the next
one. An outage raises, whatever the alias's policy: a lock that could not be asked for was not acquired.

A lock whose timeout is over is free, whatever its owner is doing. A guarded resource tells the late from the current
owner by a *fencing token*: a number that grows with each owner who asks for one. It counts from the clock's
microseconds, so that it grows on also where the storage has lost it.

Source: https://redis.io/docs/latest/develop/use/patterns/distributed-locks/, for one server; fencing tokens by M.
Kleppmann, "How to do distributed locking" (2016).
"""

import time
from contextlib import suppress
from typing import Any, Final, Self

from storeroom import timeouts
from storeroom.exceptions import LockError, LockLostError, LockTimeoutError, StorageError
from storeroom.keys import LOCK_PREFIX
from storeroom.storage import counters
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.outages import no_answers
from storeroom.storage.steps import Steps, arun, pause, run
from storeroom.timeouts import AT_ONCE, DEFAULT_TIMEOUT, NEVER, Timeout

__all__ = ["Lock"]

_FENCE_PREFIX: Final = "\x00fence\x00"
"""The prefix of the storage keys of counters of fencing tokens."""

_FENCE_SECONDS: Final = 30 * 86_400.0
"""Seconds that a counter is kept for. The next one begins higher, unless the clock was put back by as much."""

_FIRST_PAUSE: Final = 0.001
"""Seconds between the first two attempts; doubled up to `sleep`."""


class Lock:
    """A lock, made by ``cache.lock()``, for ``with`` and ``async with``. Neither reentrant nor fair; an object per use.

    Raises:
        InvalidTimeoutError: a timeout has no meaning.
        ValueError: the timeout is not positive.
    """

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
        return run(self._acquiring(blocking=blocking, blocking_timeout=blocking_timeout))

    async def aacquire(self, *, blocking: bool = True, blocking_timeout: Timeout = DEFAULT_TIMEOUT) -> bool:
        """See acquire()."""
        return await arun(self._acquiring(blocking=blocking, blocking_timeout=blocking_timeout))

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
            envelope = placeholder(self._until(self._timeout))
            if (yield from self._attempt(envelope)):
                self._owned, self._fence = envelope, None
                return True
            left = deadline - time.monotonic()
            if not blocking or left <= 0:
                return False
            yield from pause(min(seconds, left))
            seconds = min(2 * seconds, self._sleep)

    def _attempt(self, envelope: Envelope) -> Steps[bool]:
        with no_answers():
            try:
                return (yield _Whole(self._hooks), "add", (self._key, envelope, envelope.kept_until)) is True
            except BaseException:
                # A server that did not answer, or was not waited for, may have stored it all the same.
                with suppress(StorageError):
                    yield self._hooks, "_compare_delete", (self._key, envelope)
                raise

    def release(self) -> None:
        """Give the lock back.

        Raises:
            LockLostError: it is not ours any more, or never was; another's is not touched.
            StorageError: the server is out of reach.
        """
        run(self._releasing())

    async def arelease(self) -> None:
        """See release()."""
        await arun(self._releasing())

    def _releasing(self) -> Steps[None]:
        envelope = self._held()
        with no_answers():
            released = yield self._hooks, "_compare_delete", (self._key, envelope)
        self._owned = None
        if not released:
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
        """See extend()."""
        await arun(self._extending(timeout))

    def _extending(self, timeout: Timeout) -> Steps[None]:
        envelope = self._held()
        seconds = self._timeout if timeout is DEFAULT_TIMEOUT else timeouts.parse_timeout(timeout)
        renewed = placeholder(self._until(seconds))
        with no_answers():
            extended = yield self._hooks, "_compare_set", (self._key, envelope, renewed, renewed.kept_until)
        if not extended:
            raise self._lost()
        self._owned = renewed

    def fence(self) -> int:
        """Return the fencing token of this holding: higher than that of every earlier owner who asked.

        The guarded resource refuses a lower one than it has seen. Cost: the first time two round trips, later none.

        Raises:
            LockLostError: the lock is not ours any more, or never was.
            StorageError: the server is out of reach.
        """
        return run(self._fencing())

    async def afence(self) -> int:
        """See fence()."""
        return await arun(self._fencing())

    def _fencing(self) -> Steps[int]:
        envelope = self._held()
        if self._fence is None:
            now = timeouts.now()
            counter = f"{_FENCE_PREFIX}{self._storage_key}"
            with no_answers():
                token = yield from counters.count(self._hooks, counter, 1, int(now * 1e6), now + _FENCE_SECONDS)
                # The lock is this object's still, so no later owner can have counted before.
                if not (yield self._hooks, "_compare_set", (self._key, envelope, envelope, envelope.kept_until)):
                    raise self._lost()
            self._fence = int(token)
        return self._fence

    def locked(self) -> bool:
        """Tell whether anybody holds the lock now; it may be otherwise a moment later."""
        return run(self._looking())

    async def alocked(self) -> bool:
        """See locked()."""
        return await arun(self._looking())

    def _looking(self) -> Steps[bool]:
        with no_answers():
            return (yield self._hooks, "_expiry", (self._key,)) is not None

    def owned(self) -> bool:
        """Tell whether this object holds the lock now; it may be otherwise a moment later."""
        return run(self._comparing())

    async def aowned(self) -> bool:
        """See owned()."""
        return await arun(self._comparing())

    def _comparing(self) -> Steps[bool]:
        envelope = self._owned
        if envelope is None:
            return False
        with no_answers():  # a write that changes nothing: no replica and no near tier can answer it
            return bool((yield self._hooks, "_compare_set", (self._key, envelope, envelope, envelope.kept_until)))

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
        return run(self._entering())

    async def __aenter__(self) -> Self:
        return await arun(self._entering())

    def _entering(self) -> Steps[Self]:
        if not (yield from self._acquiring(blocking=True)):
            raise LockTimeoutError(f"The lock {self.name!r} was not free within {self._patience} s (blocking_timeout).")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        run(self._leaving(error))

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await arun(self._leaving(error))

    def _leaving(self, error: BaseException | None) -> Steps[None]:
        """Give the lock back; an error of that is a note where another error is on its way."""
        try:
            yield from self._releasing()
        except (LockLostError, StorageError) as late:
            if error is None:
                raise
            error.add_note(f"And at the end: {late}")

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}, timeout {self._timeout}>"


class _Whole:
    """Adds an entry, and knows how that ended before it lets a cancelled caller go: its thread may store it later."""

    def __init__(self, hooks: StorageHooks) -> None:
        self._hooks = hooks

    def add(self, storage_key: str, value: Envelope, expires_at: float) -> Any:
        """See StorageHooks._add()."""
        return self._hooks._add(storage_key, value, expires_at)

    async def aadd(self, storage_key: str, value: Envelope, expires_at: float) -> Any:
        """See add()."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        adding = asyncio.ensure_future(self._hooks._aadd(storage_key, value, expires_at))
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            with suppress(StorageError):
                await adding
            raise
