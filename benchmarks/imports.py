"""How long importing takes: each time in a fresh interpreter, whose own start is not counted."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Final

from benchmarks.goals import AtMost, Goal
from benchmarks.timing import Effort, Timed

__all__ = ["GOALS", "IMPORTS", "measure"]

_DJANGO: Final = "import django.conf; django.conf.settings.configure(); django.setup(); import django.core.cache"
_LOCMEM: Final = "{'default': {'BACKEND': 'storeroom.backends.locmem.LocMemCache'}}"

IMPORTS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "import": {
        "Storeroom": ("storeroom", "import storeroom"),
        "Django": ("django", _DJANGO),
        "diskcache": ("diskcache", "import diskcache"),
        "cachetools": ("cachetools", "import cachetools"),
        "cachebox": ("cachebox", "import cachebox"),
        "cachelib": ("cachelib", "import cachelib"),
    },
    "import, and a first get of local memory": {
        "Storeroom": ("storeroom", f"import storeroom; storeroom.configure({_LOCMEM}); storeroom.cache.get('key')"),
        "Django": ("django", f"{_DJANGO}; django.core.cache.cache.get('key')"),
        "cachetools": ("cachetools", "import cachetools; cachetools.TTLCache(300, 300).get('key')"),
        "cachebox": ("cachebox", "import cachebox; cachebox.VTTLCache(300).get('key')"),
        "cachelib": ("cachelib", "import cachelib; cachelib.SimpleCache(300).get('key')"),
    },
}
"""Row to name to the module that must be installed and the statement."""

GOALS: Final[Mapping[str, Sequence[Goal]]] = {"import": (AtMost(0.040),)}


def measure(row: str, effort: Effort) -> Timed:
    """Run a row's statements in turn."""
    statements = {name: statement for name, (module, statement) in IMPORTS[row].items() if find_spec(module)}
    for statement in statements.values():
        _seconds(statement)  # leaves the compiled files behind
    rounds = [{name: _seconds(statement) for name, statement in statements.items()} for _ in range(effort.rounds)]
    return Timed({name: [each[name] for each in rounds] for name in statements})


def _seconds(statement: str) -> float:
    source = f"from time import perf_counter as clock; start = clock(); {statement}; print(clock() - start)"
    return float(subprocess.run([sys.executable, "-c", source], check=True, capture_output=True).stdout)
