"""Makes a virtual environment with Django, and lays Django's tests out beside it."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tests.django_suite.interpreters import Interpreter

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "django-suite"

#: The extras of Storeroom whose backends Django has too.
EXTRAS = "redis,memcached,postgresql"

#: Packages that come built for some systems only, as in pyproject.toml's development group.
BUILT = ["pylibmc>=1.6.3; python_version < '3.12' and sys_platform == 'linux' and platform_machine == 'x86_64'"]

#: Parts of Django's ``tests/`` that are unpacked: the runner, its needs, and the suites that use a cache.
_WANTED = (
    "runtests.py", "urls.py", "templates", "cache", "conditional_processing", "decorators", "sessions_tests",
    "template_tests",
)  # fmt: skip

# The only edit: a dotted path as a setting or a mock names it, or the module that a subclass is imported from.
_CLASSES = (
    r"locmem\.LocMemCache|filebased\.FileBasedCache|dummy\.DummyCache|redis\.RedisCache\b|db\.DatabaseCache"
    r"|memcached\.PyMemcacheCache|memcached\.PyLibMCCache"
)
_PATHS = re.compile(rf"\bdjango\.core\.cache\.backends\.(?={_CLASSES}|(?:locmem|filebased|dummy) import )")


@dataclass(frozen=True, slots=True)
class Pair:
    """A Python, and the Django asked for on it: ``"Django==5.2.*"``, or ``"Django"`` for the newest that it runs."""

    interpreter: Interpreter
    requirement: str

    @property
    def home(self) -> Path:
        """The folder of the pair's environment, source distribution and tests."""
        name = re.sub(r"[^a-z0-9.]+", "-", self.requirement.lower()).strip("-.")
        return CACHE / "python{}.{}-{}".format(*self.interpreter.version[:2], name)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A Django ready to be tested: its environment's Python, its source distribution, its version."""

    home: Path
    python: Path
    sdist: Path
    version: str

    def has(self, module: str) -> bool:
        """Tell whether a module is installed in the environment."""
        return subprocess.run([self.python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0

    def unpack_tests(self, backends: str) -> Path:
        """Lay Django's tests out anew, naming the classes of the package `backends`; return their folder."""
        tests = self.home / "tests"
        shutil.rmtree(tests, ignore_errors=True)
        prefix = f"{self.sdist.name.removesuffix('.tar.gz')}/tests/"
        with tarfile.open(self.sdist) as archive:
            for member in archive:
                name = member.name.removeprefix(prefix)
                if name != member.name and name.split("/")[0] in _WANTED and member.isfile():
                    _write(tests / name, archive.extractfile(member).read())
        for path in tests.glob("*/**/*.py"):
            text = path.read_text("utf-8")
            path.write_text(_PATHS.sub(f"{backends}.", text), "utf-8")
        return tests


def prepare(pair: Pair, *, refresh: bool = False) -> Checkout:
    """Return the pair's Django; download and install it the first time, or when asked to `refresh`.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    python = pair.home / "venv" / "bin" / "python"
    state = pair.home / "ready.json"
    wanted = {"python": str(pair.interpreter), "dependencies": dependencies()}
    ready = json.loads(state.read_text()) if state.exists() and not refresh else {}
    if ready.get("wanted") != wanted or not python.exists():
        shutil.rmtree(pair.home, ignore_errors=True)
        ready = {"wanted": wanted, "sdist": _install(pair, python)}
        state.write_text(json.dumps(ready))
    sdist = pair.home / ready["sdist"]
    return Checkout(pair.home, python, sdist, _version(sdist))


def _install(pair: Pair, python: Path) -> str:
    """Make the environment; return the name of Django's source distribution."""
    run_command(pair.interpreter.path, "-m", "venv", pair.home / "venv")
    download = ("download", "--no-deps", "--no-binary", "Django", "--dest", pair.home, pair.requirement)
    run_command(python, "-m", "pip", "-qq", *download)
    (sdist,) = pair.home.glob("*.tar.gz")
    django, storeroom = f"Django=={_version(sdist)}", ("--editable", f"{ROOT}[{EXTRAS}]")
    run_command(python, "-m", "pip", "-qq", "install", django, *storeroom, *BUILT)
    return sdist.name


def _version(sdist: Path) -> str:
    return sdist.name.removesuffix(".tar.gz").split("-")[1]


def dependencies() -> list[str]:
    """Storeroom's own, so that an environment made for older ones is made anew."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS.split(","))
    return [*project["dependencies"], *itertools.chain.from_iterable(extras)]


def run_command(*command: str | Path) -> None:
    """Run a command that prepares an environment; it may print what goes wrong.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    # Another environment's paths would be found in this one, and pip would print a notice of its newer version.
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    subprocess.run(command, check=True, env=environment | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
