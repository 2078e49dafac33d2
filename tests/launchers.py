"""Whose cache the embedded default is, by launchers that the tests' own environment does not have: ``make launchers``.

IPython, Celery, PyInstaller and notebooks by each way of running one are started in two projects and two loose folders.
It prints a table, which docs/whose-cache.md repeats, and fails where two of the folders share a cache.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import storeroom

BIN: Final = Path(sys.executable).parent
SHOW: Final = """
from storeroom import cache
from storeroom.registry.program import find_owner
owner = find_owner()
print('owner', owner.kind, owner.path, cache.get_or_set('whose', lambda: NAME), flush=True)
"""
TASKS: Final = "import celery, os\nNAME = {name!r}\napp = celery.Celery('tasks', broker='memory://')\n" + SHOW
NBCLIENT: Final = """
import nbclient, nbformat, os, sys
if sys.argv[1:]:
    os.environ["JPY_SESSION_NAME"] = os.path.abspath(sys.argv[1])
notebook = nbformat.read("report.ipynb", 4)
nbclient.NotebookClient(notebook, kernel_name="python3").execute()
for cell in notebook.cells:
    for output in cell.outputs:
        print(output.get("text", ""))
"""


def notebook(name: str) -> str:
    source = f"NAME = {name!r}\n{SHOW}"
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5})


def new_folder(path: Path, *markers: str) -> Path:
    """Make a folder with a program for each launcher."""
    path.mkdir(parents=True)
    for marker in markers:
        (path / marker).touch()
    name = path.name
    (path / "report.ipynb").write_text(notebook(name))
    (path / "other.ipynb").write_text(notebook(f"another of {name}"))
    (path / "tasks.py").write_text(TASKS.format(name=name) + "os._exit(0)\n")
    (path / "app.py").write_text(f"NAME = {name!r}\n{SHOW}")
    (path / "run.py").write_text(NBCLIENT)
    return path


def told(command: list[str | Path], folder: Path, home: Path) -> tuple[str, Path, str]:
    """Run a program that tells its owner; return that, and the name that it found in the cache."""
    environ = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONPATH": str(Path(storeroom.__file__).parents[1]),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    run = subprocess.run(
        list(map(str, command)), cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    lines = [line.partition("owner ")[2] for line in run.stdout.replace("\\n", "\n").splitlines() if "owner " in line]
    lines = [line for line in lines if "{" not in line and "find_owner" not in line]
    if not lines:
        raise SystemExit(f"{' '.join(map(str, command))} told nothing:\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}")
    kind, path, name = lines[0].removesuffix('"').split(" ", 2)
    return kind, Path(path), name.strip().removesuffix("\\n")


def frozen(folder: Path) -> list[str | Path]:
    """Make a program of one file; it unpacks itself into another folder at each start."""
    if not (folder / "dist" / "app").exists():
        command = [sys.executable, "-m", "PyInstaller", "--onefile", "--noconfirm", "--collect-submodules", "storeroom"]
        paths = ["--paths", str(Path(storeroom.__file__).parents[1]), "app.py"]
        subprocess.run([*command, *paths], cwd=folder, check=True, capture_output=True)
    return [folder / "dist" / "app"]


RUN: Final = [BIN / "jupyter", "nbconvert", "--to", "notebook", "--execute", "--stdout"]
WAYS: Final[dict[str, Callable[[Path], list[str | Path]]]] = {
    "ipython": lambda folder: [BIN / "ipython", "-c", f"NAME = {folder.name!r}\n{SHOW}"],
    "jupyter nbconvert --execute": lambda _: [*RUN, "report.ipynb"],
    "papermill": lambda _: [BIN / "papermill", "report.ipynb", "-"],
    "jupyter execute": lambda _: ["sh", "-c", "jupyter execute --inplace report.ipynb && cat report.ipynb"],
    "nbclient, in a program": lambda _: [sys.executable, "run.py"],
    "the same, JPY_SESSION_NAME set": lambda _: [sys.executable, "run.py", "report.ipynb"],
    "celery worker": lambda _: [BIN / "celery", "-A", "tasks", "worker", "-P", "solo"],
    "python -m celery worker": lambda _: [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-P", "solo"],
    "PyInstaller --onefile": frozen,
}


def rows(home: Path, chosen: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each chosen way, and its owner in a project and outside any; raise SystemExit where two share a cache."""
    projects = [new_folder(home / name, "pyproject.toml") for name in ("shop", "bank")]
    loose = [new_folder(home / name) for name in ("red", "blue")]
    for way in chosen:
        command = WAYS[way]
        shown = []
        for pair in (projects, loose):
            for folder in pair:
                kind, path, name = told(command(folder), folder, home)
                again = told(command(folder), folder, home)
                if name != folder.name or again != (kind, path, name):
                    raise SystemExit(f"{way} in {folder}: {kind} {path} found {name}, and then {again}")
            own = path.relative_to(folder)
            shown.append(f"the {kind}" if path == folder else f"the {kind} {own}")
        yield way, *shown
    if sys.platform == "linux" and "jupyter nbconvert --execute" in chosen:
        found = told([*RUN, "other.ipynb"], loose[0], home)
        if found[2] != f"another of {loose[0].name}":
            raise SystemExit(f"two notebooks in one folder share a cache: {found}")


def main() -> None:
    """Print the table of all ways, or of those that are given as arguments."""
    with tempfile.TemporaryDirectory() as directory:
        print(f"| {'launcher':30} | {'in a project':12} | {'outside any':25} |")
        for way, inside, outside in rows(Path(directory).resolve() / "home", sys.argv[1:] or list(WAYS)):
            print(f"| {way:30} | {inside:12} | {outside:25} |", flush=True)


if __name__ == "__main__":
    main()
