"""The demo's processes: fresh interpreters that run ``pages``, asked and answered in JSON lines."""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

from storeroom.cli.demo.pages import Tally
from storeroom.exceptions import ConfigurationError, StorageError

__all__ = ["Processes", "start"]

GRACE_SECONDS: Final = 5.0  # for a process to end when it is told to, before it is killed
TICK_SECONDS: Final = 0.1  # between two looks of a wait: on Windows, Ctrl-C is noticed only then

Report = dict[str, Any]


class Process:
    """One interpreter, and the thread that reads its reports."""

    def __init__(
        self, directory: Path, complaints: IO[bytes], inbox: "queue.Queue[tuple[Process, Report | None]]"
    ) -> None:
        """Start it; its reports go to the inbox, None after the last, and its errors to the file of complaints."""
        self._popen = subprocess.Popen(  # noqa: S603 -- this very Python and this very package
            # -P: a random.py in the current directory must not pass for the standard library's.
            [sys.executable, "-P", "-W", "ignore", "-m", "storeroom.cli.demo.pages", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        )
        self._orders, self._reports = cast("IO[str]", self._popen.stdin), cast("IO[str]", self._popen.stdout)
        self._complaints, self._inbox = complaints, inbox
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._reports:
            self._inbox.put((self, json.loads(line)))
        self._inbox.put((self, None))

    def ask(self, order: dict[str, Sequence[str]]) -> None:
        """Send an order. The caller that waits for the report of a process notices that it is gone."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(order), file=self._orders, flush=True)

    def failure(self) -> StorageError:
        """Return the error that tells why the process ended."""
        code = self._popen.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode(errors="replace").strip()
        return StorageError(f"One of the demo's processes ended with exit code {code}. It said:\n{said or '(nothing)'}")

    def end(self, *, at_once: bool) -> None:
        """End the process: when it has obeyed its orders, or at once."""
        if at_once:
            self._popen.terminate()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._popen.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._reader.join()
        self._reports.close()


class Processes:
    """Several processes that get the same order at the same moment."""

    def __init__(self, directory: Path, complaints: Iterable[IO[bytes]]) -> None:
        """Start one for each file of complaints."""
        self._inbox: queue.Queue[tuple[Process, Report | None]] = queue.Queue()
        self._processes = [Process(directory, file, self._inbox) for file in complaints]

    def __len__(self) -> int:
        return len(self._processes)

    def gather(self, name: str, watch: Callable[[int], None] | None = None) -> list[Any]:
        """Wait until each process has reported `name`; return their reports, in the order of arrival.

        `watch` is told, now and then, the number of pages that all of them together have done. It is a
        ConfigurationError that a process found a setting wrong, and a StorageError that one ended without reporting.
        """
        done = dict.fromkeys(self._processes, 0)
        results: list[Any] = []
        while len(results) < len(self._processes):
            process, report = self._next_report()
            if name in report:
                results.append(report[name])
            elif "progress" in report and watch is not None:
                done[process] = report["progress"]
                watch(sum(done.values()))
        return results

    def _next_report(self) -> tuple[Process, Report]:
        while True:
            with contextlib.suppress(queue.Empty):
                process, report = self._inbox.get(timeout=TICK_SECONDS)
                break
        if report is None:
            raise process.failure()
        if "error" in report:
            raise ConfigurationError(report["error"])
        return process, report

    def ask(self, order: dict[str, Sequence[str]]) -> None:
        """Send all processes the same order."""
        for process in self._processes:
            process.ask(order)

    def read(self, modules: Sequence[str], watch: Callable[[int], None] | None = None) -> list[Tally]:
        """Let each process read these modules' pages; return their tallies."""
        self.ask({"read": modules})
        return [Tally(**tally) for tally in self.gather("tally", watch)]

    def advice(self) -> str:
        """Return the advice of one process, from what it has read."""
        self.ask({"advise": []})
        return str(self.gather("advice")[0])

    def survey(self, modules: Sequence[str]) -> int:
        """Return the number of these modules' pages that are stored and readable."""
        self.ask({"survey": modules})
        return int(self.gather("stored")[0])

    def forget(self, modules: Sequence[str]) -> None:
        """Remove these modules' pages; all pages if there are none."""
        self.ask({"forget": modules})
        self.gather("forgotten")

    def end(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for process in self._processes:
            process.end(at_once=at_once)


@contextlib.contextmanager
def start(directory: Path, count: int) -> Iterator[Processes]:
    """Start processes, wait until all are ready, and end them in the end, at once if something failed."""
    with contextlib.ExitStack() as files:
        complaints = [files.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        processes = Processes(directory, complaints)
        try:
            processes.gather("ready")
            yield processes
        except BaseException:
            processes.end(at_once=True)
            raise
        processes.end()
