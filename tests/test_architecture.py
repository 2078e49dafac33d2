"""The layers of src/storeroom, what an import of it may load, and what the repository may hold.

The layers, from the ground up. A module imports from layers below its own; from its own only as `BESIDE` says, and
never in a circle. Imports within functions count like any other; those under ``if TYPE_CHECKING`` do not, since nothing
that runs depends on them.
"""

import ast
import graphlib
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

#: layer -> its modules and packages, named as below ``storeroom``. A package belongs to a layer as a whole.
LAYERS = {
    "vocabulary": {"exceptions", "timeouts", "keys", "masking"},
    "mechanisms": {
        "background",
        "batch",
        "computation",
        "leases",
        "counting",
        "engines",
        "entry",
        "events",
        "eviction",
        "expiry",
        "flights",
        "freshness",
        "frozen",
        "hooks",
        "liveness",
        "locks",
        "memos",
        "near",
        "obtaining",
        "outages",
        "overlays",
        "process_locks",
        "s3fifo",
        "serializers",
        "stampede",
        "steps",
        "tags",
        "transactions",
    },
    "contract": {"addressing", "base", "computed", "config", "coordinated", "network", "option", "probes", "secret"},
    "backends": {"backends"},
    "front door": {
        "__init__",
        "aliases",
        "backend_paths",
        "cached_functions",
        "call_keys",
        "checks",
        "decorators",
        "fingerprints",
        "key_code",
        "key_templates",
        "key_text",
        "registry",
        "sources",
        "testing",
        "urls",
    },
    "edges": {"__main__", "cli", "integrations"},
}

#: Which modules of one layer may import each other: all of them, or only those of one backend or package.
BESIDE = {
    "vocabulary": "all",  # each error that a word may cause is in exceptions.py
    "mechanisms": "all",
    "contract": "all",
    "backends": "own",  # a storage per file or folder, and none knows another
    "front door": "all",
    "edges": "own",
}

#: The only layer that may import them. Everything else has to run, and be imported, without.
FRAMEWORKS = {"aiohttp", "django", "fastapi", "flask", "jinja2", "opentelemetry", "prometheus_client", "starlette"}

#: What talks to a storage or a format: loaded by the first cache that needs it, never by ``import storeroom``.
DRIVERS = {
    "asyncpg",
    "lmdb",
    "lz4",
    "msgpack",
    "platformdirs",
    "psycopg",
    "pylibmc",
    "pymemcache",
    "redis",
    "sqlalchemy",
    "sqlite3",
    "zstandard",
}


def modules() -> dict[str, Path]:
    """Every module's name below ``storeroom`` -> its file."""
    package = SOURCE / "storeroom"
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def layer_of(module: str) -> str | None:
    top = module.split(".", maxsplit=1)[0]
    return next((layer for layer, tops in LAYERS.items() if top in tops), None)


def imported_names(path: Path) -> Iterator[str]:
    """The dotted names that a file's imports mention, those for type checkers alone left out."""
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def internal_imports(module: str) -> set[str]:
    """The modules of storeroom that a module imports."""
    found = set()
    for name in imported_names(MODULES[module]):
        package, _, rest = name.partition(".")
        if package == "storeroom":
            longest = next((known for known in _prefixes(rest) if known in MODULES), "__init__")
            found.add(longest)
    return found - {module}


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def _home(module: str) -> str:
    """What "own" in `BESIDE` means: a backend's file or folder, or a package."""
    parts = module.split(".")
    if parts == ["__main__"]:
        return "cli"  # ``python -m storeroom`` is the command line
    return ".".join(parts[:2]) if parts[0] in {"backends", "integrations"} else parts[0]


def test_every_module_has_a_layer() -> None:
    """A new module is given its place in `LAYERS`; a removed one leaves it."""
    tops = {module.split(".")[0] for module in MODULES}
    placed = list(itertools.chain.from_iterable(LAYERS.values()))
    assert tops - set(placed) == set(), "give these a layer"
    assert set(placed) - tops == set(), "these exist no more"
    assert len(placed) == len(set(placed)), "one layer each"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    """A module imports from lower layers, and from its own as `BESIDE` allows."""
    order = list(LAYERS)
    own = layer_of(module)
    for imported in internal_imports(module):
        other = layer_of(imported)
        if own is None or other is None:
            continue  # test_every_module_has_a_layer tells
        if other == own:
            assert BESIDE[own] == "all" or _home(imported) == _home(module), f"{module} imports {imported} beside it"
        else:
            assert order.index(other) < order.index(own), f"{module} ({own}) imports {imported} ({other})"


def test_imports_make_no_circle() -> None:
    """There is an order in which every module comes after all it imports."""
    graph = {module: internal_imports(module) for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize("module", sorted(module for module in MODULES if layer_of(module) != "edges"))
def test_only_the_edges_import_a_framework(module: str) -> None:
    tops = {name.split(".")[0] for name in imported_names(MODULES[module])}
    assert tops & FRAMEWORKS == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_module_is_longer_than_500_lines(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= 500


def run_python(code: str) -> list[object]:
    """Run code in an interpreter of its own, without this one's plugins; return the JSON that it prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(run.stdout)


def test_import_loads_no_driver_and_no_framework() -> None:
    """Neither does reading any of the public names, `cache` and `caches` included."""
    loaded = run_python(
        "import json, sys, storeroom\n"
        "for name in storeroom.__all__: getattr(storeroom, name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    assert "storeroom" in loaded
    assert set(loaded) & (DRIVERS | FRAMEWORKS) == set()


def test_import_loads_no_backend() -> None:
    loaded = run_python("import json, sys, storeroom; print(json.dumps(list(sys.modules)))")
    assert [name for name in loaded if name.startswith("storeroom.backends.")] == []


#: What a program writes first. The package loads its names one by one, so importing it alone would prove little.
FIRST_LINE = "from storeroom import cache, caches, configure"
#: Runs of each side, alternating, so that a busy moment hits both. The fastest of each is compared: noise only adds.
IMPORT_RUNS = 9
#: The goal is 40 ms where asyncio takes 80: no test knows its machine's speed, but asyncio runs on the same one.
SHARE_OF_ASYNCIO = 0.5
#: What an import adds to a bare interpreter's modules is its cost too, and the same on every machine.
MODULES_ADDED = 45


def import_cost(line: str) -> tuple[float, int]:
    """Run an import in a fresh interpreter; return the seconds, and how many modules it added."""
    seconds, added = run_python(
        "import json, sys, time\n"
        "before, begun = len(sys.modules), time.perf_counter()\n"
        f"{line}\n"
        "seconds = time.perf_counter() - begun\n"
        "print(json.dumps([seconds, len(sys.modules) - before]))"
    )
    return seconds, added


@pytest.mark.slow
def test_import_keeps_its_time_budget() -> None:
    """Importing what a program uses first takes at most half of what importing asyncio takes."""
    import_cost(FIRST_LINE)  # writes the bytecode
    pairs = [(import_cost(FIRST_LINE)[0], import_cost("import asyncio")[0]) for _ in range(IMPORT_RUNS)]
    ours, reference = (min(seconds) for seconds in zip(*pairs, strict=True))
    assert ours <= SHARE_OF_ASYNCIO * reference, f"{ours * 1000:.1f} ms, asyncio {reference * 1000:.1f} ms"


def test_import_adds_few_modules() -> None:
    _, added = import_cost(FIRST_LINE)
    assert added <= MODULES_ADDED


# What the repository holds ------------------------------------------------------------------------------------------

#: Where package registries serve from, and folders that only one machine has: a project that runs anywhere names
#: neither. In parts, so that this file names none itself.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian"))]
FORBIDDEN = re.compile("|".join([*map(re.escape, HOSTS), r"(?<![\w./])/(?:work|root)/"]))

no_checkout = shutil.which("git") is None or not (ROOT / ".git").exists()


@pytest.mark.skipif(no_checkout, reason="not a git checkout")
def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{name}: {match.group()}" for match in FORBIDDEN.finditer(text)]
    assert found == []
