"""Makes a virtual environment for a client's tests, and lays its sources out, with our paths or Django's."""

import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.client_suites.clients import Client
from tests.django_suite.checkout import ROOT, dependencies, run_command
from tests.django_suite.interpreters import Interpreter

CACHE = ROOT / ".cache" / "client-suites"
INSIDE = Path(__file__).parent / "inside"

#: Of each environment. The long-term release of Django is the one that all clients support.
COMMON = ("Django==5.2.*", "pytest>=9.0", "pytest-django>=4.11")

#: Storeroom's, of which the storages of all runs are.
EXTRAS = "redis,memcached,postgresql,cachelib"

_CLASSES = (
    r"locmem\.LocMemCache|filebased\.FileBasedCache|dummy\.DummyCache|redis\.RedisCache|db\.DatabaseCache"
    r"|memcached\."
)
_CACHELIB = "SimpleCache|FileSystemCache|RedisCache|MemcachedCache"
#: The only edit of settings and tests: a path of a class is replaced by ours, by the interface. Where a suite
#: moves the clock of cachelib's classes, it moves ours.
_CLOCK = 'monkeypatch.setattr("storeroom.timeouts.now", fake)'
_PATHS = {
    "django": (
        (re.compile(rf"\bdjango\.core\.cache\.backends\.(?={_CLASSES})"), "storeroom.backends."),
        (re.compile(r"\bdjango_redis\.cache\.RedisCache\b"), "storeroom.backends.redis.RedisCache"),
    ),
    "cachelib": (
        (re.compile(rf"^from cachelib import (?={_CACHELIB})", re.MULTILINE), "from storeroom_cachelib_client import "),
        (
            re.compile(r"^from flask_caching import backends$", re.MULTILINE),
            "import storeroom_cachelib_client as backends",
        ),
        (re.compile(rf"(?<=CACHE_TYPE\"[]:] )(= )?\"({_CACHELIB})\""), r'\1"storeroom_cachelib_client.\2"'),
        (re.compile(r'monkeypatch.setattr\(cachelib.simple, "time", fake\)'), rf"\g<0>; {_CLOCK}"),
    ),
}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A client ready to be tested: a Python that has what its tests need, and its source distribution."""

    python: Path
    sdist: Path

    @property
    def version(self) -> str:
        """The client's."""
        return self.sdist.name.removesuffix(".tar.gz").rpartition("-")[2]

    def unpack(
        self, folder: Path, edited: tuple[str, ...], edits: dict[str, str], *, ours: bool, interface: str = "django"
    ) -> Path:
        """Lay the source distribution out in a folder of one run; return where its tests are run.

        Args:
            folder: of this run alone.
            edited: patterns of the files in which texts are replaced.
            edits: text -> its replacement, such as the address of a server.
            ours: whether paths of others' classes are replaced, too.
            interface: whose these are.
        """
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        (home,) = (path for path in folder.iterdir() if path.is_dir())
        for path in INSIDE.glob("*_settings.py"):
            shutil.copy(path, home)
        for path in {path for pattern in edited for path in home.glob(pattern)}:
            text = path.read_text("utf-8")
            for old, new in edits.items():
                text = text.replace(old, new)
            for pattern, package in _PATHS[interface] if ours else ():
                text = pattern.sub(package, text)
            path.write_text(text, "utf-8")
        return home


def prepare(client: Client, interpreter: Interpreter, *, refresh: bool = False) -> Checkout:
    """Return the client; download and install it the first time, or when asked to `refresh`.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    home = CACHE / client.name
    python = home / "venv" / "bin" / "python"
    state = home / "ready.json"
    wanted = {"python": str(interpreter), "needs": [EXTRAS, *COMMON, *client.needs], "dependencies": dependencies()}
    ready = json.loads(state.read_text()) if state.exists() and not refresh else {}
    if ready.get("wanted") != wanted or not python.exists():
        shutil.rmtree(home, ignore_errors=True)
        ready = {"wanted": wanted, "sdist": _install(client, interpreter, home, python)}
        state.write_text(json.dumps(ready))
    return Checkout(python, home / ready["sdist"])


def download(client: Client, python: Path) -> Checkout:
    """Return the client's source distribution for an environment that has what its tests need; download it once.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    home = CACHE / client.name
    sdist = next(home.glob("*.tar.gz"), None) or _download(client, home, python)
    return Checkout(python, sdist)


def _download(client: Client, home: Path, python: Path) -> Path:
    download = ("download", "--no-deps", "--no-binary", client.requirement, "--dest", home, client.requirement)
    run_command(python, "-m", "pip", "-qq", *download)
    (sdist,) = home.glob("*.tar.gz")
    return sdist


def _install(client: Client, interpreter: Interpreter, home: Path, python: Path) -> str:
    """Make the environment; return the name of the client's source distribution."""
    run_command(interpreter.path, "-m", "venv", home / "venv")
    sdist = _download(client, home, python)
    storeroom = ("--editable", f"{ROOT}[{EXTRAS}]")
    run_command(python, "-m", "pip", "-qq", "install", *COMMON, *client.needs, sdist, *storeroom)
    return sdist.name
