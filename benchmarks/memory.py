"""What an entry costs: memory of the process, or space on the disk.

    python -m benchmarks.memory LIBRARY memory|file ENTRIES

prints the bytes per entry of one library. Each is measured in a process of its own
by what the operating system says, as not all of them allocate through Python.
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.libraries import FILE, MEMORY, Library

__all__ = ["ENTRIES", "VALUE_CHARACTERS", "by_library", "on_disk", "private"]

ENTRIES: Final = 50_000

VALUE_CHARACTERS: Final = 100
"""Each entry has a value of its own of that length, and a key of 21 characters."""

KINDS: Final = {"memory": MEMORY, "file": FILE}

A_FILE_EACH: Final = frozenset({"Django", "cachelib"})
"""Libraries that keep a file for each entry: one takes as much as another, and many take long to write."""


def by_library(kind: str, entries: int) -> dict[str, float]:
    """Return bytes per entry by library, of those that are installed."""
    names = [library.name for library in KINDS[kind] if library.is_installed and library.name != "LMDB"]
    fewer = {name: entries // 10 for name in A_FILE_EACH if kind == "file"}
    return {name: _in_fresh_process(name, kind, fewer.get(name, entries)) for name in names}


def _in_fresh_process(name: str, kind: str, entries: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", name, kind, str(entries)]
    return float(subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1]).stdout)


def bytes_per_entry(library: Library, kind: str, entries: int) -> float:
    """Fill a cache and see what has changed."""
    with TemporaryDirectory(prefix="storeroom-bench-") as directory, library.opened(Path(directory)) as cache:
        # What the first sets cost, modules and first pages, is not the entries'.
        library.fill(cache, {"first": "x", "second": "y"})
        usage = resident if kind == "memory" else lambda: on_disk(Path(directory))
        before = usage()
        for start in range(0, entries, 1_000):
            numbers = range(start, min(start + 1_000, entries))
            library.fill(cache, {f"user:{n:08}:profile": f"{n:0{VALUE_CHARACTERS}}" for n in numbers})
        return (usage() - before) / entries


def resident() -> int:
    """Return the bytes of memory that this process occupies."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    import resource

    # The most it ever occupied: the same where memory only grows. In kilobytes but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def private() -> int:
    """Return the bytes of memory that this process has for itself: without files that it maps, where that is told."""
    if sys.platform != "linux":
        return resident()
    _, resident_pages, shared_pages, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident_pages) - int(shared_pages)) * os.sysconf("SC_PAGE_SIZE")


def on_disk(directory: Path) -> int:
    """Return the bytes that the files occupy, holes not counted."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


if __name__ == "__main__":
    name, kind, entries = sys.argv[1:]
    (library,) = (library for library in KINDS[kind] if library.name == name)
    print(bytes_per_entry(library, kind, int(entries)))
