"""How long a program takes to start: each time in a fresh interpreter, whose own start is not counted but for commands.

All compiled files are there, whatever PYTHONDONTWRITEBYTECODE says: an installed package has them.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import perf_counter
from typing import Final

from benchmarks.goals import AtMost, Goal
from benchmarks.timing import Effort, Timed

__all__ = ["COMMAND", "GOALS", "IMPORTS", "measure"]

_DJANGO: Final = "import django.conf; django.conf.settings.configure({}); django.setup(); import django.core.cache"
_CACHES: Final = "{{'default': {{'BACKEND': '{}', 'LOCATION': 'cache'}}}}"
_LOCMEM: Final = _CACHES.format("storeroom.backends.locmem.LocMemCache")
_FILES: Final = _CACHES.format("storeroom.backends.filebased.FileBasedCache")
_DJANGO_FILES: Final = f"CACHES={_CACHES.format('django.core.cache.backends.filebased.FileBasedCache')}"

_TOML: Final = """\
[tool.storeroom.caches.default]
backend = "storeroom.backends.filebased.FileBasedCache"
location = "cache"
"""

COMMAND: Final = "the command storeroom get, with its interpreter"

IMPORTS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "import": {
        "Storeroom": ("storeroom", "import storeroom"),
        "Django": ("django", _DJANGO.format("")),
        "diskcache": ("diskcache", "import diskcache"),
        "cachetools": ("cachetools", "import cachetools"),
        "cachebox": ("cachebox", "import cachebox"),
        "cachelib": ("cachelib", "import cachelib"),
    },
    "import, and a first get of local memory": {
        "Storeroom": ("storeroom", f"import storeroom; storeroom.configure({_LOCMEM}); storeroom.cache.get('key')"),
        "Django": ("django", f"{_DJANGO.format('')}; django.core.cache.cache.get('key')"),
        "cachetools": ("cachetools", "import cachetools; cachetools.TTLCache(300, 300).get('key')"),
        "cachebox": ("cachebox", "import cachebox; cachebox.VTTLCache(300).get('key')"),
        "cachelib": ("cachelib", "import cachelib; cachelib.SimpleCache(300).get('key')"),
    },
    "import, and a first get of files": {
        "Storeroom": ("storeroom", f"import storeroom; storeroom.configure({_FILES}); storeroom.cache.get('key')"),
        "Django": ("django", f"{_DJANGO.format(_DJANGO_FILES)}; django.core.cache.cache.get('key')"),
        "diskcache": ("diskcache", "import diskcache; diskcache.Cache('cache').get('key')"),
        "cachelib": ("cachelib", "import cachelib; cachelib.FileSystemCache('cache').get('key')"),
    },
    COMMAND: {
        "Storeroom": ("storeroom", "from storeroom.cli import main; main(['get', 'key'])"),
        "the interpreter alone": ("sys", "pass"),
    },
}
"""Row to name to the module that must be installed and the statement, which is run in a directory of its own."""

GOALS: Final[Mapping[str, Sequence[Goal]]] = {
    "import": (AtMost(0.040),),
    "import, and a first get of local memory": (AtMost(0.020),),
    "import, and a first get of files": (AtMost(0.025),),
    COMMAND: (AtMost(0.090),),
}


def measure(row: str, effort: Effort) -> Timed:
    """Run a row's statements in turn, each in a folder of its own, where its files lie already."""
    statements = {name: statement for name, (module, statement) in IMPORTS[row].items() if find_spec(module)}
    timed = _whole if row == COMMAND else _seconds
    with TemporaryDirectory() as root:
        folders = {name: _project(root) for name in statements}
        for name, statement in statements.items():
            timed(statement, folders[name])  # leaves the compiled files behind, and those of the cache
        rounds = [
            {name: timed(statement, folders[name]) for name, statement in statements.items()}
            for _ in range(effort.rounds)
        ]
    return Timed({name: [each[name] for each in rounds] for name in statements})


def _project(root: str) -> str:
    """Return a new folder, with the configuration of a file cache in it."""
    folder = mkdtemp(dir=root)
    Path(folder, "pyproject.toml").write_text(_TOML, encoding="utf-8")
    return folder


def _seconds(statement: str, folder: str) -> float:
    """Return the seconds of a statement in a started interpreter."""
    source = f"from time import perf_counter as clock; start = clock(); {statement}; print(clock() - start)"
    return float(_printed(source, folder))


def _whole(statement: str, folder: str) -> float:
    """Return the seconds of an interpreter from its start to its end."""
    start = perf_counter()
    _printed(statement, folder)
    return perf_counter() - start


def _printed(source: str, folder: str) -> bytes:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", source]
    return subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment).stdout
