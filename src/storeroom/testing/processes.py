"""Several processes on one storage, in tests: each makes its own cache, and they start together.

A job is a function of a module, so that a process started afresh can find it; it is
called as ``job(cache, number, *arguments)``.
"""

import multiprocessing
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Barrier

    from storeroom.base import BaseCache
    from storeroom.testing.contract.suite import Suite

__all__ = ["START_METHODS", "Child", "in_processes"]

START_METHODS: Final = tuple(
    method for method in ("fork", "spawn") if method in multiprocessing.get_all_start_methods()
)
"""Ways to start a process on this system: as a copy of this one where it can do that, and afresh."""

PATIENCE: Final = 60.0
"""Seconds after which a process is taken for stuck; starting eight afresh takes a few on a slow machine."""

Job = Callable[..., Any]


class Child:
    """A process that runs one job with a cache of its own.

    Attributes:
        pipe: for a job that talks: it gets the other end as its last argument if `talks`.
    """

    def __init__(
        self,
        suite: type["Suite"],
        location: str,
        params: Mapping[str, Any],
        job: Job,
        *arguments: Any,
        method: str = START_METHODS[0],
        talks: bool = False,
    ) -> None:
        """Start it."""
        context: Any = multiprocessing.get_context(method)
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        if talks:
            arguments = (*arguments, theirs)
        self._process: BaseProcess = context.Process(
            target=_run, args=(theirs, suite, location, dict(params), job, arguments), daemon=True
        )
        with warnings.catch_warnings():
            # Forking beside running threads is what some tests are about.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
            self._process.start()
        theirs.close()

    def result(self, patience: float = PATIENCE) -> Any:
        """Wait for the end of the job and return its result.

        Raises:
            AssertionError: the job raised (its traceback is the message), died or did not end.
        """
        try:
            if not self.pipe.poll(patience):
                self.kill()
                raise AssertionError(f"The process did not end within {patience:g} seconds.")
            succeeded, result = self.pipe.recv()
        except EOFError:
            self._process.join()
            raise AssertionError(f"The process died with exit code {self._process.exitcode}.") from None
        finally:
            self.end()
        if not succeeded:
            raise AssertionError(f"In the other process:\n{result}")
        return result

    def told(self, patience: float = PATIENCE) -> Any:
        """Return the result of a job that tells, by texts through its pipe, what it is about to do.

        Raises:
            AssertionError: the job raised, or it has told nothing for so long: it hangs. The message says where.
        """
        doing: Any = "the begin"
        while self.pipe.poll(patience):
            told, before = self.pipe.recv(), doing
            if not isinstance(told, str):
                succeeded, result = told
                self.end()
                assert succeeded, f"In the other process, at {before}:\n{result}"
                return result
            doing = told
        self.kill()
        raise AssertionError(f"The other process hangs, at {doing}.")

    def kill(self) -> None:
        """End it at once, as a crash would: nothing is cleaned up."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.join()

    def end(self) -> None:
        """Give it a moment to leave by itself, then end it."""
        self._process.join(PATIENCE / 10)
        self.kill()
        self.pipe.close()


def in_processes(
    suite: type["Suite"],
    location: str,
    params: Mapping[str, Any],
    job: Job,
    arguments: list[tuple[Any, ...]],
    *,
    method: str = START_METHODS[0],
) -> list[Any]:
    """Run a job in one process per tuple of arguments, begun together; return the results in order.

    Raises:
        AssertionError: see Child.result().
    """
    together = multiprocessing.get_context(method).Barrier(len(arguments))
    children = [
        Child(suite, location, params, _together, together, job, number, *own, method=method)
        for number, own in enumerate(arguments)
    ]
    try:
        return [child.result() for child in children]
    finally:
        for child in children:
            child.end()


def _together(cache: "BaseCache", barrier: "Barrier", job: Job, number: int, *arguments: Any) -> Any:
    barrier.wait(PATIENCE)
    return job(cache, number, *arguments)


def _run(
    pipe: Connection,
    suite: type["Suite"],
    location: str,
    params: dict[str, Any],
    job: Job,
    arguments: tuple[Any, ...],
) -> None:
    """Make the cache, do the job, send its result: the whole life of the process."""
    try:
        cache = suite().make_cache(location, params)
        outcome = (True, job(cache, *arguments))
    except BaseException:
        outcome = (False, traceback.format_exc())
    pipe.send(outcome)
    pipe.close()
