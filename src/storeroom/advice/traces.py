"""Traces of traffic: files of keys, logs of Redis' MONITOR, logs of Memcached.

A trace is read into arrays, a few bytes for each request, so that it can be replayed more than once.
"""

import gzip
import lzma
import math
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final
from zlib import crc32

from storeroom.advice import logs
from storeroom.advice.simulation import Simulation
from storeroom.exceptions import TraceError

__all__ = ["FORMATS", "Trace", "mixed", "read_trace"]

FORMATS: Final[Mapping[str, logs.LineParser]] = {
    "keys": logs.keys,
    "redis": logs.monitor,
    "memcached": logs.memcached,
}
"""The forms of traces by name."""

_READ, _WRITE, _DELETE, _CLEAR = range(4)
_NUMBERS: Final = {"read": _READ, "write": _WRITE, "delete": _DELETE, "clear": _CLEAR}
_LOOKED_AT: Final = 100
"""Lines that tell the format."""
_MIXER: Final = 0x9E3779B97F4A7C15
"""2**64 by the golden ratio, odd: spreads the 32 bits of a checksum. Knuth, vol. 3, section 6.4."""
_WORD: Final = (1 << 64) - 1


def mixed(key: str, salt: int = 0) -> int:
    """Return a hash of a key that is the same in every process: 32 well-mixed bits."""
    return (crc32(key.encode("utf-8", "surrogatepass")) * (_MIXER * (2 * salt + 1) & _WORD) & _WORD) >> 32


class Trace:
    """Requests in order.

    Attributes:
        name: of the file.
        keys: the distinct keys, in the order in which they came.
        reads: the number of requests that read.
        has_times: whether each request has a time, in seconds.
        left_out: lines that say nothing about a key, or change what is of no concern here.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.keys: list[str] = []
        self.reads = 0
        self.has_times = False
        self.left_out = 0
        self._numbers: dict[str, int] = {}
        self._operations = bytearray()
        self._ids = array("L")
        self._times = array("d")
        self._timeouts = array("d")

    def __len__(self) -> int:
        return len(self._operations)

    def add(self, request: logs.Request) -> None:
        """Add a request."""
        number = self._numbers.setdefault(request.key, len(self.keys))
        if number == len(self.keys):
            self.keys.append(request.key)
        self._operations.append(_NUMBERS[request.operation])
        self._ids.append(number)
        self.reads += request.operation == "read"
        if request.time is not None:
            self.has_times = True
        self._times.append(request.time or 0.0)
        self._timeouts.append(math.nan if request.timeout is None else request.timeout)

    def replay(self, simulation: Simulation, salt: int = 0) -> None:
        """Replay all requests, or those of the keys that the simulation takes."""
        hashes = [mixed(key, salt) for key in self.keys]
        keys, takes = self.keys, simulation.takes
        requests = zip(self._operations, self._ids, self._times, self._timeouts, strict=True)
        for operation, number, now, timeout in requests:
            hashed = hashes[number]
            if operation == _CLEAR:
                for key in keys:
                    simulation.delete(key)
            elif not takes(hashed):
                continue
            elif operation == _READ:
                simulation.read(keys[number], hashed, now)
            elif operation == _WRITE:
                until = now + (simulation.timeout if math.isnan(timeout) else timeout)
                simulation.write(keys[number], hashed, now, until)
            else:
                simulation.delete(keys[number])


def read_trace(path: str, form: str | None = None) -> Trace:
    """Read a trace.

    Args:
        path: of a file, which may end in .gz or .xz; "-" for standard input.
        form: one of `FORMATS`; None to tell it by the first lines.

    Raises:
        TraceError: it cannot be read, a line is not of the form, or there is no read in it.
    """
    name = "standard input" if path == "-" else path
    trace = Trace(name)
    try:
        with _opened(path) as file:
            _read_into(trace, file, form)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TraceError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if not trace.reads:
        raise TraceError(f"{name} has no read in it, among {len(trace):,} requests and {trace.left_out:,} other lines.")
    return trace


def _opened(path: str) -> IO[str]:
    if path == "-":
        return open(sys.stdin.fileno(), encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False)
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")
    if path.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n")
    return Path(path).open(encoding="utf-8", errors="surrogateescape", newline="\n")


def _read_into(trace: Trace, file: Iterable[str], form: str | None) -> None:
    lines: Iterator[str] = iter(file)
    first = list(islice(lines, _LOOKED_AT))
    parse = FORMATS[form or _form(first)]
    for number, line in enumerate(chain(first, lines), 1):
        try:
            requests = parse(line.rstrip("\r\n"))
        except ValueError as error:
            if not line.endswith("\n"):
                break  # the last line, which its writer has not ended
            raise TraceError(f"{trace.name}:{number}: {error}; it begins with {line[:60].rstrip()!r}.") from error
        if requests is None:
            trace.left_out += 1
            continue
        for request in requests:
            trace.add(request)


def _form(first: Iterable[str]) -> str:
    """Return the form that most of the first lines have; any line is a key."""
    lines = [line.rstrip("\r\n") for line in first if line.strip()]
    for form, fits in (("redis", logs.is_monitor), ("memcached", logs.is_memcached)):
        if sum(map(fits, lines)) > len(lines) / 2:
            return form
    return "keys"
