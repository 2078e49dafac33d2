"""Exceptions that come from outside: out of a signal's handler, set by another thread, raised by gevent's hub."""

import ctypes
import gc
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from storeroom.base import BaseCache
from storeroom.testing.concurrency import Flag, in_background
from storeroom.testing.contract.interruption import Faults, check_process
from tests.cut_short_campaign.cancelling import is_leased
from tests.cut_short_campaign.counts import LEFT_AFTER, PATIENCE, WATCH, Counts, Tell, next_in_background
from tests.faults.interrupting import OPERATIONS

__all__ = ["CALLED", "interrupt", "interrupt_mixed", "interrupt_mixed_by_gevent"]

NEIGHBOURS: Final = 2
"""Threads that work undisturbed beside the one that is interrupted."""


class CutError(Exception):
    """As Celery's soft limit."""


class CutExit(BaseException):
    """As KeyboardInterrupt."""


CUTS: Final = (CutError, CutExit)


def hold(cache: BaseCache, key: str) -> None:
    with cache.lock(key, timeout=600):
        pass


def load(keys: list[str]) -> dict[str, str]:
    return dict.fromkeys(keys, "computed")


CALLED: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "get_or_set": lambda cache, key: cache.get_or_set(key, lambda: "computed", 600),
    "get_or_set_many": lambda cache, key: cache.get_or_set_many([key, f"{key}+"], load, 600),
    "refresh": lambda cache, key: cache.refresh(key, lambda: "computed", 600),
    "lock": hold,
}

MIXED: Final[Mapping[str, Callable[[Any, int], Any]]] = {
    **OPERATIONS,
    **{
        name: lambda cache, number, call=call: call(cache, f"{number % 40} computed")  # type: ignore[misc]
        for name, call in CALLED.items()
    },
}
"""Operations on few keys, with a number each."""


# The ways to interrupt ----------------------------------------------------------------------


class Alarm:
    """Raises out of a signal's handler, in the main thread."""

    def __init__(self) -> None:
        self._is_set = False
        signal.signal(signal.SIGALRM, self._ring)

    def _ring(self, *_: object) -> None:
        if self._is_set:
            self._is_set = False
            raise random.choice(CUTS)  # a class: a name for the error would keep its frames, and what they hold

    def cut(self, call: Callable[[], Any], seconds: float) -> bool:
        """Call, and raise after so many seconds; return whether the exception came out."""
        self._is_set = True
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6))
                call()
            finally:
                self._is_set = False
        except CUTS:
            return True
        return False


class Sender:
    """Sets an exception in another thread."""

    def __init__(self) -> None:
        sys.setswitchinterval(1e-6)  # so that the two threads run beside each other, and not one after the other

    def cut(self, call: Callable[[], Any], seconds: float) -> bool:
        """Call in a thread, and raise there after so many seconds; return whether the exception came out."""
        begun, is_sent, outcome = Flag(), Flag(), list[Any]()  # an Event's lock would be left taken

        def run() -> None:
            try:
                begun.set()
                call()
                outcome.append(False)
                is_sent.wait()  # a thread that ends leaves its number to another, which the exception would meet
            except CUTS:
                outcome.append(True)
            except Exception as error:  # noqa: BLE001 -- it is told to the caller
                outcome.append(error)
                is_sent.wait()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        begun.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass  # a sleep takes longer than most operations
        error = ctypes.py_object(random.choice(CUTS))
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), error)
        is_sent.set()
        thread.join(PATIENCE)
        if thread.is_alive():
            raise TimeoutError("the thread that was interrupted has not ended")
        if outcome and isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[:1] != [False]


HOW: Final[Mapping[str, Callable[[], Any]]] = {"signal": Alarm, "thread": Sender}


# One operation ------------------------------------------------------------------------------


def interrupt(cache: Any, operation: str, how: str, count: int, chance: random.Random, tell: Tell) -> Counts:
    """Interrupt an operation so often; count the callers that wait, and the leases and locks that are left."""
    call, counts, cutter, lasts = CALLED[operation], Counts(), HOW[how](), deque[float](maxlen=5)
    for number in range(-5, count):
        if not number % 50:
            tell(f"interrupt {number} of {count} of {operation}, {how}")
        if number < 0 or not number % 20:  # again and again: a machine that was busy would spoil all moments
            begun = time.monotonic()
            call(cache, f"measured {number}")
            lasts.append(time.monotonic() - begun)
        if number < 0:
            continue
        key = f"{operation} {how} {number}"
        if operation == "refresh" and number % 2:
            cache.set(key, "old", 600)
        try:
            is_cut = cutter.cut(lambda key=key: call(cache, key), chance.uniform(0, sorted(lasts)[2] * 1.2))  # type: ignore[misc]
            counts.note(None, is_cut=is_cut)
        except Exception as error:  # noqa: BLE001 -- it is the finding
            counts.note(error, is_cut=False)
        next_in_background(counts, CALLED["lock" if operation == "lock" else "get_or_set"], cache, key)
        if operation != "lock":
            counts.left += _leases_left(cache, [key])
    return counts


def _leases_left(cache: Any, keys: list[str]) -> int:
    until = time.monotonic() + LEFT_AFTER
    while left := [key for key in keys if is_leased(cache, key, cache._get(cache.make_key(key)))]:
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    return len(left)


# All operations -----------------------------------------------------------------------------


def _work(cache: Any, chance: random.Random, times: int, pause: Callable[[], None] = lambda: None) -> None:
    for _ in range(times):
        MIXED[chance.choice(list(MIXED))](cache, chance.randrange(1000))
        pause()


def _check_replies(cache: Any, own: str, number: float, counts: Counts) -> None:
    try:
        cache.set(own, number)
        counts.wrong += cache.get(own) != number
    except Exception as error:  # noqa: BLE001 -- writes are to work
        counts.note(error)


def interrupt_mixed(cache: Any, how: str, count: int, chance: random.Random, tell: Tell) -> Counts:
    """Interrupt operations of all kinds at random moments, beside threads that nobody interrupts."""
    counts, cutter, is_over = Counts(), HOW[how](), threading.Event()
    sys.unraisablehook = lambda _: None  # an exception within a destructor, which Python gives to nobody

    def neighbour(number: int) -> None:
        own = random.Random(number)
        while not is_over.is_set():
            try:
                _work(cache, own, 1)
            except Exception as error:  # noqa: BLE001 -- it is the finding
                counts.note(error)
            _check_replies(cache, f"of neighbour {number}", own.random(), counts)
            time.sleep(0.002)

    neighbours = [in_background(neighbour, number) for number in range(NEIGHBOURS)]
    while counts.cut < count:
        if not counts.cases % 50:
            tell(f"{counts.cut} of {count} interruptions of all operations, {how}")
        try:
            is_cut = cutter.cut(lambda: _work(cache, chance, 1000), chance.uniform(2e-5, 3e-3))
            counts.note(None, is_cut=is_cut)
        except Exception as error:  # noqa: BLE001 -- as above
            counts.note(error, is_cut=False)
        with WATCH.next_caller(counts):
            _check_replies(cache, "own", chance.random(), counts)
    is_over.set()
    for each in neighbours:
        each.result(PATIENCE)
    _check_all(cache, counts)
    return counts


def interrupt_mixed_by_gevent(cache: Any, _: str, count: int, chance: random.Random, tell: Tell) -> Counts:
    """Interrupt operations of all kinds by gevent's timeouts, in greenlets beside each other."""
    import gevent

    counts = Counts()

    def greenlet(number: int) -> None:
        own = random.Random(chance.random())
        while counts.cut < count:
            timeout = gevent.Timeout(own.uniform(2e-5, 3e-3))
            timeout.start()
            try:
                _work(cache, own, 1000, gevent.sleep)
            except gevent.Timeout as raised:
                counts.note(None if raised is timeout else raised, is_cut=raised is timeout)
            except Exception as error:  # noqa: BLE001 -- it is the finding
                counts.note(error, is_cut=False)
            finally:
                timeout.close()
            _check_replies(cache, f"of greenlet {number}", own.random(), counts)
            if not counts.cases % 50:
                tell(f"{counts.cut} of {count} interruptions of all operations, gevent")

    gevent.joinall([gevent.spawn(greenlet, number) for number in range(4)], raise_error=True)
    _check_all(cache, counts)
    return counts


def _check_all(cache: Any, counts: Counts) -> None:
    """Count the leases and locks that are left, and the faults of pools, computations and threads."""
    gc.collect()  # a connection may be in a circle with the traceback of an error
    names = [f"{number} computed" for number in range(40)]
    counts.left += _leases_left(cache, names)
    for name in names:
        begun = time.monotonic()
        if cache.lock(name, timeout=60).acquire(blocking_timeout=LEFT_AFTER):
            continue
        counts.left += 1
        counts.waited(time.monotonic() - begun)
    faults = Faults()
    check_process(cache, faults)
    for name, found in faults.items():
        counts.errors[f"{name}: {'; '.join(found)}"[:300]] += 1
