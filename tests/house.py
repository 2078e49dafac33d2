"""The house: which package stands on which floor, who imports whom, and the figures that it is held to.

``python -m tests.house`` (``make house``) prints them; test_architecture.py holds them. All of it is read from the
source itself: nothing here runs the code that it measures, but for the walks of a hit and a miss (``walks``).
"""

import ast
import graphlib
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "storeroom"

#: The floors, from the top: a package imports from those below its own alone.
FLOORS = (
    ("__main__", "__init__", "integrations"),
    ("cli", "testing", "openers"),
    ("backends", "functions", "checks", "pages"),
    ("registry",),
    ("base",),
    ("computing", "near", "memos", "transactions", "serializers", "recording"),
    ("storage", "engines", "config", "advice"),
    ("timeouts", "keys", "locks", "http", "wording"),
    ("exceptions", "late", "eviction", "living", "private_folder", "manual"),
)


def floor_of(room: str) -> int:
    """Return the number of a package's floor: 1 is the ground.

    Raises:
        LookupError: it has none.
    """
    for number, rooms in enumerate(reversed(FLOORS), 1):
        if room in rooms:
            return number
    raise LookupError(f"storeroom.{room} stands on no floor: give it one in tests/house.py")


def room_of(module: str) -> str:
    """Return the package, or the single module, that a module's dotted name below ``storeroom`` begins with."""
    return module.partition(".")[0]


# Who imports whom ---------------------------------------------------------------------------------------------------


@cache
def modules(package: Path = PACKAGE) -> Mapping[str, Path]:
    """Return each module's dotted name below the package, and its file."""
    found = {}
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.pyi")]):  # the latter stand for compiled modules
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(source: str) -> Iterator[str]:
    """Yield the dotted names that a source imports: anywhere, for type checkers, and by import_module(), too.

    The name that an f-string begins with stands for all modules below it, as ``storeroom.cli.*``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"imports are written in full: {ast.unparse(node)}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from _loaded(node.args[0])


def _loaded(argument: ast.expr) -> Iterator[str]:
    first = argument.values[0] if isinstance(argument, ast.JoinedStr) and argument.values else argument
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        yield f"{first.value}*" if isinstance(argument, ast.JoinedStr) else first.value


def imports_of(module: str, source: str, known: Iterable[str]) -> set[str]:
    """Return the modules among the known ones that a module's source imports."""
    known, found = set(known), set()
    for name in imported_names(source):
        package, _, rest = name.partition(".")
        if package != "storeroom":
            continue
        if rest.endswith(".*"):
            found |= {other for other in known if other.startswith(rest[:-1])}
        else:
            found.add(next((longest for longest in _prefixes(rest) if longest in known), "__init__"))
    return found - {module}


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts), 0, -1))


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Return each module of the package, and those it imports."""
    return {
        module: frozenset(imports_of(module, path.read_text("utf-8"), modules())) for module, path in modules().items()
    }


def climbing(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return a sentence for each import that does not lead to a lower floor, or stay in its package."""
    return [
        f"{module} (floor {floor_of(room_of(module))}) imports {other} (floor {floor_of(room_of(other))})"
        for module, others in graph.items()
        for other in others
        if room_of(other) != room_of(module) and floor_of(room_of(other)) >= floor_of(room_of(module))
    ]


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return modules that import each other in a circle, the first again as the last; none if there is no circle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def between_rooms(graph: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Return the imports between packages."""
    rooms: dict[str, set[str]] = {}
    for module, others in graph.items():
        own = rooms.setdefault(room_of(module), set())
        own |= {room_of(other) for other in others} - {room_of(module)}
    return rooms


# Length and language ------------------------------------------------------------------------------------------------

#: A sentence that begins so makes its reader wait for its noun.
_HEADED = re.compile(r"(?:^|[.!?:]\s+|\n\s*\n\s*)(?:what|which|who|how)\b", re.IGNORECASE)


class Function(NamedTuple):
    """A function, and its lines without docstring."""

    lines: int
    name: str


def functions(module: str) -> Iterator[Function]:
    """Yield the functions of a module; one within another counts for both."""
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            said = first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
            docstring = (said.end_lineno or 0) - said.lineno + 1 if said else 0
            yield Function((node.end_lineno or 0) - node.lineno + 1 - docstring, f"{module}.{node.name}")


def prose(source: str) -> Iterator[str]:
    """Yield the comments of a source, those of lines that follow each other as one, and its docstrings."""
    block: list[str] = []
    last = -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1 and block:
                yield " ".join(block)
                block = []
            block.append(token.string.lstrip("#: "))
            last = token.start[0]
    if block:
        yield " ".join(block)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def headed_sentences(source: str) -> list[str]:
    """Return the beginnings of sentences in comments and docstrings that begin with what, which, who or how."""
    return [text[match.start() :][:60].strip() for text in prose(source) for match in _HEADED.finditer(text.strip())]


def identifiers(source: str) -> set[str]:
    """Return the names that a source gives: of classes, functions, parameters, variables and attributes."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def tests_without_docstring(source: str) -> list[str]:
    """Return the names of the tests in a source that do not say in a docstring which behaviour they hold."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]


@cache
def figures() -> dict[str, float]:
    """Return the house's figures by name."""
    texts = {module: path.read_text("utf-8") for module, path in modules().items()}
    lengths = sorted(function.lines for module in texts for function in functions(module))
    rooms = between_rooms(imports())
    lines = {module: len(text.splitlines()) for module, text in texts.items()}
    return {
        "rooms (packages and single modules)": len(rooms),
        "floors": len(FLOORS),
        "arrows between rooms": sum(len(others) for others in rooms.values()),
        "imports that climb": len(climbing(imports())),
        "files in a circle": len(circle(imports())),
        "modules directly in src/storeroom": len(list(PACKAGE.glob("*.py"))),
        "lines without the test kit": sum(count for module, count in lines.items() if room_of(module) != "testing"),
        "longest file": max(lines.values()),
        "longest function": lengths[-1],
        "p90 of functions": lengths[len(lengths) * 9 // 10],
        "sentences headed by what, which, who, how": sum(len(headed_sentences(text)) for text in texts.values()),
        "type: ignore": sum(text.count("# type: ignore") for text in texts.values()),
        "noqa": sum(text.count("# noqa") for text in texts.values()),
    }


# Walks: the rooms that a hit and a miss enter -----------------------------------------------------------------------

_WALK = """
import sys, tempfile
from storeroom import caches, configure

kind, call, location = sys.argv[1:]
configure({"default": {"BACKEND": f"storeroom.backends.{kind}", "LOCATION": location}})
cache = caches["default"]
for key in ("warm", "warmer"):
    cache.get_or_set(key, lambda: ["value"])
    cache.get(key)
entered = []

def enter(frame, event, _):
    path = frame.f_code.co_filename
    if event == "call" and "/storeroom/" in path:
        module = path.rpartition("/storeroom/")[2].removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        if not entered or entered[-1] != module:
            entered.append(module)

sys.setprofile(enter)
cache.get("warm") if call == "hit" else cache.get_or_set("warm" if call == "warm" else "cold", lambda: ["value"])
sys.setprofile(None)
print(*entered)
"""


def walk(kind: str, call: str, location: str = "") -> list[str]:
    """Return the modules that one call enters, one after the other, in an interpreter of its own.

    Args:
        kind: a class below ``storeroom.backends``.
        call: "hit" (of get()), "warm" (a hit of get_or_set()) or "miss" (of get_or_set()).
        location: of the storage.
    """
    command = [sys.executable, "-c", _WALK, kind, call, location]
    environment = os.environ | {"STOREROOM_PURE": "1"}  # compiled methods enter no module that can be seen
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return ran.stdout.split()


def _print_floors() -> None:
    rooms = between_rooms(imports())
    for number, names in zip(range(len(FLOORS), 0, -1), FLOORS, strict=True):
        for name in names:
            print(f"{number:2}  {name:14} -> {' '.join(sorted(rooms.get(name, ()), key=lambda room: -floor_of(room)))}")


def _print_walks() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for kind in ("locmem.LocMemCache", "filebased.FileBasedCache"):
            for call in ("hit", "warm", "miss"):
                entered = walk(kind, call, folder)
                rooms = list(dict.fromkeys(map(room_of, entered)))
                print(f"{kind.partition('.')[0]} {call}: {len(set(entered))} modules in {len(rooms)} rooms, "
                      f"entered {len(entered)} times: {' '.join(rooms)}")  # fmt: skip


def main() -> None:
    """Print the floors, the walks and the figures."""
    _print_floors()
    print()
    for line in climbing(imports()):
        print(line)
    _print_walks()
    print()
    for name, figure in figures().items():
        print(f"{figure:8,}  {name}")


if __name__ == "__main__":
    main()
