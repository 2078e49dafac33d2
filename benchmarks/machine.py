"""What a measurement was made on and with: figures without it mean nothing."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from shutil import which
from tempfile import gettempdir
from typing import Final

__all__ = ["cores", "describe"]

DISTRIBUTIONS: Final = (
    "storeroom",
    "Django",
    "diskcache",
    "cachetools",
    "cachebox",
    "cachelib",
    "dogpile.cache",
    "cashews",
    "django-redis",
    "redis",
    "hiredis",
    "pymemcache",
    "pylibmc",
    "psycopg",
    "lmdb",
)
PROGRAMS: Final = ("redis-server", "memcached", "psql")
"""Servers, and what came with one: they tell their version by --version."""


def describe(distributions: Sequence[str] = DISTRIBUTIONS, programs: Sequence[str] = PROGRAMS) -> dict[str, str]:
    """Return name to description, in the order to show them: of the machine, and of the versions of what ran."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": f"{_processor()}, {_cores()}",
        "system": f"{platform.system()} {platform.release()}, temporary files on {_file_system(gettempdir())}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}{_threading()}",
        "versions": ", ".join(f"{name} {version}" for name, version in _versions(distributions).items()),
        "servers": ", ".join(map(_server, filter(which, programs))) or "none",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores take part: `taskset` leaves some to others."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cores() -> str:
    """Return how many cores there are, and how many of them took part."""
    there, here = os.cpu_count() or 1, cores()
    return f"{there} cores, of which {here} took part" if 0 < here < there else f"{there} cores"


def _file_system(directory: str) -> str:
    """Return the type of the file system, from Linux's list of mounts (proc(5))."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "an unknown file system"
    fields = [line.split() for line in mounts.read_text().splitlines()]
    above = [(place, kind) for _, place, kind, *_ in fields if Path(directory).is_relative_to(place)]
    return max(above, key=lambda mount: len(mount[0]))[1]


def _threading() -> str:
    # Named so in 3.13: https://docs.python.org/3/howto/free-threading-python.html
    is_free = not getattr(sys, "_is_gil_enabled", lambda: True)()
    return ", free-threaded" if is_free else ""


def _server(program: str) -> str:
    # nginx and wrk know -v alone; the one tells it where errors are told, and the other one's status is 1.
    asked = [program, "-v" if program in ("nginx", "wrk") else "--version"]
    told = subprocess.run(asked, capture_output=True, text=True, check=len(asked[1]) > 2)
    version = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    return f"{program} {version[0] if version else 'of an unknown version'}"


def _versions(distributions: Sequence[str]) -> dict[str, str]:
    versions = {}
    for name in distributions:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
