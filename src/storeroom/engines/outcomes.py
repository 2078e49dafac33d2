"""The result of a computation, for those who wait for it.

A signal's handler may raise an exception at any moment, also on the way out of a block. ``concurrent.futures.Future``
and ``threading.Condition`` leave their lock taken then, for ever, if that is between two lines of Python. So there is
no lock here: a list, whose every change is whole, has what is to be woken. Whoever is not woken, as the leader was cut
short in between, looks by himself a moment later.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

__all__ = ["Outcome"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """A result, or an error, that is to come. It is set once, by one thread at a time."""

    __slots__ = ("_error", "_is_there", "_result", "_waking")

    def __init__(self) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._is_there = False
        self._waking: list[Callable[[Any], object]] = []

    def done(self) -> bool:
        """Tell whether it is there."""
        return self._is_there

    def set_result(self, result: T) -> None:
        """Wake all with a result."""
        self._result, self._is_there = result, True
        self._wake()

    def set_exception(self, error: BaseException) -> None:
        """Wake all with an error."""
        self._error, self._is_there = error, True
        self._wake()

    def add_done_callback(self, wake: Callable[[Any], object]) -> None:
        """Call the function when it is there, or now if it is."""
        self._waking.append(wake)
        if self._is_there:
            self._wake()

    def _wake(self) -> None:
        while self._waking:
            with suppress(IndexError):  # another thread has taken the last one
                self._waking.pop()(self)

    def result(self, timeout: float | None = None) -> T:
        """Wait for it, at the most so many seconds; return the result or raise the error.

        Raises:
            TimeoutError: it is not there in time.
        """
        if not self._is_there:
            gate = threading.Lock()
            gate.acquire()

            def wake(_: object) -> None:
                gate.release()

            self.add_done_callback(wake)
            gate.acquire(timeout=-1 if timeout is None else timeout)
            with suppress(ValueError):  # it was called
                self._waking.remove(wake)
        if not self._is_there:
            raise TimeoutError
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result
