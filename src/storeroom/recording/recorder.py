"""The sample: noted in the caller's thread, replayed in a worker's, in windows."""

import math
import os
import threading
import time
from collections import deque
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from typing import Any, Final
from weakref import ref

from storeroom import timeouts
from storeroom.advice import Advice, Simulation, Subject, advise, ladder, near_sizes
from storeroom.advice.simulation import MOST_ENTRIES
from storeroom.engines import Engine
from storeroom.engines.background import submit
from storeroom.living import Living
from storeroom.locks import reentrant
from storeroom.recording.left import INTERNAL, leave, round_trip_of
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.wording import masked

__all__ = ["ALWAYS", "MASK", "Recorder", "has_value", "recorder_of"]

ALWAYS: Final = "always"
"""The value of OPTIONS["advise"] that records without pauses."""

WINDOW_SECONDS: Final = 30.0
"""A window is as long, and as long as it takes to fill a batch."""
MEMORY_SHARE: Final = 1 / 2_000
FILES_SHARE: Final = 1 / 150
SERVERS_SHARE: Final = 1 / 8
"""The part of the time that a window takes. There a hit takes 6 times as long in local memory and a set() 20 times, as
neither is compiled then; in files a miss takes up to 2.4 times as long, and up to 1.1 in a database or on a server: so
the average is below a hundredth, with the replay."""

LEFT_SECONDS: Final = 60.0
"""Between one answer that is left in the storage and the next; one from twice the reads is left earlier."""

_BATCH: Final = 2_048
_MOST_WAITING: Final = 4 * _BATCH
_HANDED_OVER_AT: Final = frozenset({_BATCH, 2 * _BATCH, 3 * _BATCH})
_BUDGET: Final = 0.01
_WINDOW_BUDGET: Final = 10
"""The part of the time that the replay may take, and how many times as much in windows that are fifty times as rare: a
small cache has to be replayed nearly whole."""
_RARE: Final = 1 / 50
_JUDGED_SECONDS: Final = 1.0
"""That part is told over so long at least."""
_LEAST_RATE: Final = 1 / 4_096
MASK: Final = (1 << 24) - 1
_LIVE_STEPS: Final = range(-2, 3)


class Recorder:
    """The sampled traffic of one storage in this process.

    Args:
        handle: one of its handles.
        share: the part of the time that windows take; 1 for no pauses.

    Attributes:
        limit: hashes below it are noted.
        is_open: whether a window is open.
    """

    def __init__(self, handle: Any, share: float) -> None:
        self._subject = subject_of(handle)
        self._engine = ref[Engine](handle.engine)
        self._left_at, self._left_reads = -math.inf, 0
        self._counters = handle._counters
        self._share = share
        self._budget = _BUDGET * (_WINDOW_BUDGET if share <= _RARE else 1)
        self.begin()

    def begin(self) -> None:
        """Begin with nothing noted: at first, and in a child process, which may have got half of a replay."""
        subject = self._subject
        self._lock = reentrant()
        self._events: deque[tuple[str | None, str, Any, float]] = deque(maxlen=_MOST_WAITING)
        others = near_sizes if subject.is_remote else ()
        self.simulation = Simulation(
            ladder(subject.size, others=others, steps=_LIVE_STEPS),
            size=subject.size,
            timeouts=subject.timeouts,
            timeout=subject.timeout,
            cull_frequency=subject.cull_frequency,
            most_entries=MOST_ENTRIES,
        )
        self.limit = self.simulation.limit
        self.is_open = self._is_full = False
        self._hits = self._misses = 0
        self._since = (0, 0)
        self._opened_at = self._judged_at = self._spent = 0.0
        self._timer: threading.Timer | None = None

    # Windows ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a window: all handles of the storage record from now on."""
        engine = self._engine()
        if engine is None:
            return
        with self._lock:
            self._opened_at = self._judged_at = time.monotonic()
            self._spent = 0.0
            self._since = self._counters.reads()
            self.is_open = True
            for handle in list(engine.handles.values()):
                if (overlay := handle._recording) is not None:
                    handle._lay(overlay)

    def close(self) -> None:
        """End the window, and begin a pause, after which the next window opens by itself."""
        engine = self._engine()
        with self._lock:
            if not self.is_open or engine is None:
                return
            self._count()
            self.is_open = False
            for handle in list(engine.handles.values()):
                if (overlay := handle._recording) is not None:
                    handle._lay(overlay.below)
            pause = (time.monotonic() - self._opened_at) * (1 / self._share - 1)
            self._timer = threading.Timer(pause, self.open)
            self._timer.daemon = True
            with suppress(RuntimeError):  # no thread can be had, or the process is ending: there is no further window
                self._timer.start()

    def stop(self) -> None:
        """End the window for good."""
        with self._lock:
            self.close()
            if self._timer is not None:
                self._timer.cancel()

    def _count(self) -> None:
        hits, misses = self._counters.reads()
        self._hits += hits - self._since[0]
        self._misses += misses - self._since[1]
        self._since = hits, misses

    # Notes ------------------------------------------------------------------------------------

    def note(self, operation: str | None, storage_key: str, detail: Any) -> None:
        """Note a read, with its value, a write, with its expiry, or a removal (None): called for keys below the limit.

        Without a lock: it may be called anywhere, by finalizers too.
        """
        if storage_key[:1] == INTERNAL:
            return
        if operation == "read":
            detail = _is_found(detail)
        self._events.append((operation, storage_key, detail, timeouts.now()))
        waiting = len(self._events)
        if waiting in _HANDED_OVER_AT:
            submit(self.drain, Context())
        elif waiting == _MOST_WAITING and not self._is_full:  # the oldest go: half of the keys are as many as can be
            self._is_full = True
            self.limit //= 2

    def drain(self) -> None:
        """Replay the notes, and see that this stays within its part of the time, and the window within its own."""
        self._drain()
        handle, now = self._handle(), time.monotonic()
        reads = sum(self._counters.reads())
        is_due = now - self._left_at > LEFT_SECONDS or reads > 2 * self._left_reads
        if handle is not None and handle.is_shared and is_due:
            self._left_at, self._left_reads = now, reads
            leave(handle, self.advice(handle))

    def _handle(self) -> Any:
        """Return a handle of the storage that records; None if there is none any more."""
        handles = list(engine.handles.values()) if (engine := self._engine()) is not None else []
        return next((handle for handle in handles if handle._recording is not None), None)

    def _drain(self) -> None:
        with self._lock:
            begun = time.thread_time()
            self._replay()
            self._spent += time.thread_time() - begun
            now = time.monotonic()
            if (elapsed := now - self._judged_at) >= _JUDGED_SECONDS:
                if self._spent > self._budget * elapsed and self.simulation.rate > _LEAST_RATE:
                    self.simulation.lower()
                self._judged_at, self._spent = now, 0.0
            self.limit = self.simulation.limit
            if self._share < 1 and now - self._opened_at > WINDOW_SECONDS:
                self.close()

    def _replay(self) -> None:
        simulation, events = self.simulation, self._events
        if self._is_full:
            self._is_full = False
            while simulation.limit > self.limit and simulation.rate > _LEAST_RATE:
                simulation.lower()
            self.limit = simulation.limit
        for _ in range(len(events)):
            try:
                operation, storage_key, detail, now = events.popleft()
            except IndexError:
                return
            hashed = hash(storage_key)
            if not simulation.takes(hashed):
                continue
            key = f"{hashed:x}"
            if operation == "read":
                simulation.read(key, hashed, now, found=detail)
            elif operation == "write":
                simulation.write(key, hashed, now, detail)
            else:
                simulation.delete(key)

    def advice(self, handle: Any) -> Advice:
        """Return the advice for a handle, from the traffic so far."""
        subject = subject_of(handle)
        if subject.is_remote:
            subject = replace(subject, round_trip=round_trip_of(handle))
        with self._lock:
            self._replay()
            if self.is_open:
                self._count()
            reads = self._hits + self._misses
            return advise(
                self.simulation,
                subject,
                scope=self._scope(),
                reads=reads,
                real_hit_ratio=self._hits / reads if reads else None,
            )

    def _scope(self) -> str:
        pauses = "" if self._share >= 1 else f", in windows that take {self._share:.1%} of the time"
        return f"The traffic of this process, {os.getpid()}, alone{pauses}."


def _is_found(value: Any) -> bool:
    return value.is_fresh if type(value) is Envelope else value is not MISSING


def has_value(value: Any) -> bool:
    """Tell whether this is more than the lease of a computation."""
    return type(value) is not Envelope or value.has_value


def subject_of(handle: Any) -> Subject:
    """Return the cache that a handle stands for."""
    settings, kind = handle.settings, type(handle)
    timeout = handle.default_timeout
    evicts = handle.async_inline and handle.keeps_entries
    options = {name: value for name, value in settings.options.items() if name in settings.given and name != "advise"}
    written: dict[str, Any] = {"BACKEND": f"{kind.__module__}.{kind.__qualname__}"}
    if timeout != _DJANGO_TIMEOUT:
        written["TIMEOUT"] = timeout
    written |= {"OPTIONS": masked(options)} if options else {}
    return Subject(
        settings.alias or "default",
        written,
        settings.options.get("max_entries") if evicts else None,
        math.inf if timeout is None else max(timeout, 1.0),
        is_remote=not handle.async_inline,
        max_bytes=settings.options.get("max_bytes"),
        cull_frequency=settings.options.get("cull_frequency"),
    )


_DJANGO_TIMEOUT: Final = 300


_recorders: Final = Living[Recorder]()


def recorder_of(handle: Any) -> Recorder:
    """Return the recorder of a handle's storage in this process, made on first use."""
    recorder: Recorder | None = handle.engine.recorder
    if recorder is None:
        recorder = handle.engine.recorder = Recorder(handle, _share(handle))
        _recorders.add(recorder)
        recorder.open()
    elif not recorder.is_open:
        handle._lay(handle._recording.below)  # made in a pause
    return recorder


def _share(handle: Any) -> float:
    if handle.settings.options.get("advise") == ALWAYS:
        return 1.0
    if not handle.async_inline:
        return SERVERS_SHARE
    return FILES_SHARE if handle.is_shared else MEMORY_SHARE


def _begin_anew() -> None:
    for recorder in _recorders:
        recorder.begin()
        recorder.open()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
