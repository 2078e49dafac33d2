"""Finds the Pythons of a machine that really run, wherever they were put."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: The minor versions of Python 3 that Storeroom supports, newest first (pyproject.toml's classifiers).
SUPPORTED = (14, 13, 12, 11)

# A command on PATH may be a version manager's shim that only says it is not installed, and a system's Python may lack
# the parts that Debian packages apart: one that can't make a virtual environment or open SQLite is of no use here.
_PROBE = "import ensurepip, json, sqlite3, sys, venv; print(json.dumps([sys.executable, list(sys.version_info[:3])]))"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that runs, and its version."""

    path: Path
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return "Python " + ".".join(map(str, self.version))


def find(minor: int) -> Interpreter | None:
    """Return a working Python 3.`minor`, or None where the machine has none."""
    for candidate in _candidates(minor):
        found = _probe(candidate)
        if found is not None and found.version[:2] == (3, minor):
            return found
    return None


def newest() -> Interpreter:
    """Return the newest supported Python of the machine; at worst the one that runs this."""
    return next(found for minor in SUPPORTED if (found := find(minor)))


def _candidates(minor: int) -> Iterator[Path]:
    if sys.version_info[1] == minor:
        yield Path(sys.executable)
    for folder in os.get_exec_path():
        yield Path(folder, f"python3.{minor}")
    for root in _pyenv_roots():
        yield from sorted(root.glob(f"versions/3.{minor}.*/bin/python3"), reverse=True)


def _pyenv_roots() -> Iterator[Path]:
    if "PYENV_ROOT" in os.environ:
        yield Path(os.environ["PYENV_ROOT"])
    yield Path.home() / ".pyenv"


@functools.cache
def _probe(candidate: Path) -> Interpreter | None:
    if not candidate.is_file():
        return None
    run = subprocess.run([candidate, "-c", _PROBE], capture_output=True, text=True, check=False)
    if run.returncode:
        return None
    path, version = json.loads(run.stdout)
    return Interpreter(Path(path), tuple(version))
