"""The floors of src/storeroom and its figures, what an import of it may load, and what the repository may hold."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parents[1]

#: The only packages that may import a framework. Everything else has to run, and be imported, without.
EDGES = {"__main__", "cli", "integrations"}
FRAMEWORKS = {
    *("aiohttp", "cachelib", "celery", "django", "fastapi", "flask", "jinja2", "markupsafe", "opentelemetry"),
    *("prometheus_client", "starlette", "starsessions", "werkzeug"),
}

#: Modules that turn to a framework which the program has loaded already, and never load it by themselves.
MAY_ASK = {
    "backends.db.site": {"django"},  # its database connections and routers
    "registry.handler": {"django"},  # settings.CACHES
    "transactions.django": {"django"},  # the transaction to follow
}

#: The most that each figure of the house may be. A limit is lowered when the figure is, and never raised; but that of
#: lines by what a capability takes (docs/decisions/0005-the-house.md).
LIMITS = {
    "modules directly in src/storeroom": 12,
    "lines without the test kit": 61_620,
    "longest file": 450,
    "longest function": 50,
    "p90 of functions": 14,
    "sentences headed by what, which, who, how": 30,
    "type: ignore": 15,
    "noqa": 80,
}

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


def test_imports_point_down() -> None:
    """A module imports from its own package, and from those on lower floors."""
    assert house.climbing(house.imports()) == []


def test_every_package_has_a_floor() -> None:
    """A new package is given its place in the table; a removed one leaves it."""
    placed = [room for floor in house.FLOORS for room in floor]
    assert sorted(placed) == sorted(house.between_rooms(house.imports()))
    assert len(house.FLOORS) <= 9


def test_imports_make_no_circle() -> None:
    """Files have an order in which each comes after all it imports, and so have packages."""
    assert house.circle(house.imports()) == []
    assert house.circle(house.between_rooms(house.imports())) == []


@pytest.mark.parametrize("figure", LIMITS)
def test_the_house_keeps_its_figures(figure: str) -> None:
    """Length, language and exceptions from the rules stay within what they were brought to."""
    assert house.figures()[figure] <= LIMITS[figure]


#: Words with several meanings, and the words that took their place: docs/architecture.md has the vocabulary.
RETIRED = {"mark", "marks", "place", "places", "liveness", "obtaining", "coordinated", "addressing"}


def test_code_uses_the_words_of_the_vocabulary() -> None:
    """No module, class, function, parameter or variable is named by a word with several meanings."""
    used = {}
    for module, path in house.modules().items():
        names = house.identifiers(path.read_text("utf-8")) | set(module.split("."))
        used[module] = {word for name in names for word in name.lower().strip("_").split("_")} & RETIRED
    assert {module: words for module, words in used.items() if words} == {}


def test_the_page_draws_the_floors_as_they_are() -> None:
    """docs/architecture.md shows every package on the floor that it has."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    picture = page.partition("```\n")[2].partition("```")[0]
    drawn: dict[str, int] = {}
    floor = len(house.FLOORS)
    for line in picture.splitlines():
        number, names = line[:2].strip(), line[4:48].split()
        floor = int(number) if number else floor
        drawn |= dict.fromkeys(names, floor)
    assert drawn == {room: house.floor_of(room) for floor in house.FLOORS for room in floor}


@pytest.mark.parametrize("kind", ["locmem.LocMemCache", "filebased.FileBasedCache"])
def test_a_miss_enters_few_packages(kind: str, tmp_path: Path) -> None:
    """A get_or_set() that has to compute enters at most eight packages, and reads and stores on the way."""
    entered = house.walk(kind, "miss", str(tmp_path / "cache"))
    assert len(set(map(house.room_of, entered))) <= 8
    assert {"backends", "computing"} <= set(map(house.room_of, entered))


@pytest.mark.parametrize(
    ("kind", "call", "most"),
    [
        ("locmem.LocMemCache", "hit", 1),
        ("locmem.LocMemCache", "warm", 1),
        ("filebased.FileBasedCache", "hit", 4),
        ("filebased.FileBasedCache", "warm", 5),
    ],
)
def test_a_hit_enters_few_modules(kind: str, call: str, most: int, tmp_path: Path) -> None:
    """A get(), and a get_or_set() that finds its value, go a short way."""
    assert 1 <= len(set(house.walk(kind, call, str(tmp_path / "cache")))) <= most


TESTS = sorted(path for folder in ("tests", "src/storeroom/testing") for path in (ROOT / folder).rglob("*.py"))


def test_every_test_states_its_behaviour() -> None:
    """A test's docstring says what holds: its name alone cannot."""
    silent = {str(path.relative_to(ROOT)): house.tests_without_docstring(path.read_text("utf-8")) for path in TESTS}
    assert {path: names for path, names in silent.items() if names} == {}


KNOWN = ("cli", "cli.tables", "storage.hooks", "timeouts")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import storeroom.cli.tables", {"cli.tables"}),
        ("from storeroom.cli import tables", {"cli.tables"}),
        ("from storeroom import timeouts", {"timeouts"}),
        ("def later():\n    from storeroom.cli.tables import rows", {"cli.tables"}),
        ("if TYPE_CHECKING:\n    from storeroom.cli import main", {"cli"}),
        ("import_module('storeroom.cli.tables')", {"cli.tables"}),
        ("importlib.import_module('storeroom.cli.tables')", {"cli.tables"}),
        ("__import__('storeroom.timeouts')", {"timeouts"}),
        ("import_module(f'storeroom.cli.{name}')", {"cli.tables"}),
        ("import_module(name); import json", set()),
    ],
)
def test_an_import_of_any_kind_is_seen(source: str, expected: set[str]) -> None:
    """Imports at the top, in a function, for type checkers, and by name while the program runs."""
    assert house.imports_of("storage.hooks", source, KNOWN) == expected
    told = house.climbing({"storage.hooks": expected - {"timeouts"}})
    assert [sentence.partition(" ")[0] for sentence in told] == ["storage.hooks"] * len(expected - {"timeouts"})


def test_a_circle_is_seen() -> None:
    """A circle of files within a package is found, and one of packages through different files."""
    assert house.circle({"near.a": {"near.b"}, "near.b": {"near.a"}})
    graph = {"near.a": {"storage.a"}, "storage.b": {"near.b"}, "storage.a": set(), "near.b": set()}
    assert house.circle(graph) == []
    assert house.circle(house.between_rooms(graph))


def test_only_the_edges_import_a_framework() -> None:
    """Everything else has to run, and be imported, without."""
    asked = {}
    for module in set(house.modules()) - {module for module in house.modules() if house.room_of(module) in EDGES}:
        names = house.imported_names(house.modules()[module].read_text("utf-8"))
        asked[module] = {name.split(".")[0] for name in names} & FRAMEWORKS
    assert {module: names for module, names in asked.items() if names} == MAY_ASK


def run_python(code: str, folder: Path = ROOT) -> list[object]:
    """Run code in an interpreter of its own, without this one's plugins; return the JSON that it prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
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
    """A backend is loaded by the first cache of it."""
    loaded = run_python("import json, sys, storeroom; print(json.dumps(list(sys.modules)))")
    assert [name for name in loaded if name.startswith("storeroom.backends.")] == []


#: The first line of a program.
FIRST_LINE = "from storeroom import cache, caches, configure"

_LOCMEM = "storeroom.backends.locmem.LocMemCache"
_FILES = "storeroom.backends.filebased.FileBasedCache"

#: Parts of the standard library that take long to load, and are for errors, logs, servers or other programs.
LATE = {
    *("asyncio", "concurrent.futures", "dataclasses", "datetime", "hashlib", "importlib.metadata", "inspect", "json"),
    *("logging", "multiprocessing", "pathlib", "pickle", "random", "shutil", "socket", "ssl", "subprocess", "tempfile"),
    *("traceback", "urllib.parse", "uuid"),
}

#: Parts of Storeroom that compute, lock, judge conditions, or tell: a first read needs none of them.
LATE_OF_OURS = {
    *("storeroom.base.explaining", "storeroom.base.locks", "storeroom.computing.serving", "storeroom.engines.flights"),
    *("storeroom.engines.stats", "storeroom.manual", "storeroom.registry.sources", "storeroom.registry.urls"),
    "storeroom.transactions",
}

#: Those of them that a start needs: a TOML file, a computation.
NEEDED = {
    "command": {"datetime", "storeroom.registry.sources"},
    "computed": {"random", "storeroom.computing.serving", "storeroom.engines.flights"},
}

#: Starts: lines of code, the most modules of the package that they load, and the most of all.
STARTS = {
    "import": (FIRST_LINE, 5, 36),
    "memory": (f"{FIRST_LINE}\nconfigure({{'default': {{'BACKEND': {_LOCMEM!r}}}}})\ncache.get('key')", 68, 111),
    "files": (
        f"{FIRST_LINE}\nconfigure({{'default': {{'BACKEND': {_FILES!r}, 'LOCATION': 'files'}}}})\ncache.get('key')",
        109,
        161,
    ),
    "computed": (
        f"{FIRST_LINE}\nconfigure({{'default': {{'BACKEND': {_LOCMEM!r}}}}})\ncache.get_or_set('key', lambda: 1)",
        86,
        136,
    ),
    "command": ("from storeroom.cli import main\nassert main(['get', 'key']) == 1", 119, 183),
}


def loaded_by(lines: str, folder: Path) -> set[str]:
    """Run lines in a fresh interpreter, in a project with a file cache; return the modules that they load."""
    (folder / "pyproject.toml").write_text(
        f'[tool.storeroom.caches.default]\nbackend = "{_FILES}"\nlocation = "files"\n', encoding="utf-8"
    )
    code = f"import sys\nbefore = {{*sys.modules}}\n{lines}\nadded = {{*sys.modules}} - before\n"
    told = run_python(f"{code}import json\nprint(json.dumps([*added]))", folder)
    return {str(name) for name in told}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_loads_few_modules(start: str, tmp_path: Path) -> None:
    """An import, a first read, a first miss, and ``storeroom get`` load no more than they need, and their budget.

    Their number is the same on every machine, and the time goes with it: see docs/decisions/0150-late-imports.md.
    """
    lines, own, most = STARTS[start]
    loaded = loaded_by(lines, tmp_path)
    assert loaded & (LATE | LATE_OF_OURS) - NEEDED.get(start, set()) == set()
    assert sum(name.partition(".")[0] == "storeroom" for name in loaded) <= own
    assert len(loaded) <= most


# What the repository holds ------------------------------------------------------------------------------------------

#: Where package registries serve from, and folders that only one machine has: a project that runs anywhere names
#: neither. In parts, so that this file names none itself.
HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian"))]
FORBIDDEN = re.compile("|".join([*map(re.escape, HOSTS), r"(?<![\w./])/(?:work|root)/"]))

no_checkout = shutil.which("git") is None or not (ROOT / ".git").exists()


@pytest.mark.skipif(no_checkout, reason="not a git checkout")
def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    """The repository can be used on any machine, and with any registry."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__):
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{name}: {match.group()}" for match in FORBIDDEN.finditer(text)]
    assert found == []
