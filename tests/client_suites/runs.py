"""One run of a client's tests: on a storage, by Django's class or by ours, with servers of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client_suites.checkout import INSIDE, Checkout
from tests.client_suites.clients import Client
from tests.servers import databases, memcached, redis
from tests.servers.databases import PostgreSQLServer
from tests.servers.folders import new_folder
from tests.servers.redis import RedisServer, redis_binary

#: What the clients' settings say of servers and folders, to be replaced by those of a run.
SECOND_REDIS, SECOND_MEMCACHED = "6360", "127.0.0.1:11212"
REDIS, MEMCACHED, FOLDER = "127.0.0.1:6379", "127.0.0.1:11211", "/tmp/django_cache"

#: Storage -> its class, by its path within the package of Django's backends and of ours, and its LOCATION.
STORAGES = {
    "locmem": ("locmem.LocMemCache", "client-suites"),
    "filebased": ("filebased.FileBasedCache", FOLDER),
    "db": ("db.DatabaseCache", "client_suites"),
    "redis": ("redis.RedisCache", f"redis://{REDIS}/0"),
    "pymemcache": ("memcached.PyMemcacheCache", MEMCACHED),
    "postgresql": ("db.DatabaseCache", "client_suites"),
}

#: Those of them that no client's own settings know.
STORAGES_OF_OUR_CHOICE = frozenset({"db", "postgresql"})

#: Seconds after which a run is taken for hung.
SECONDS = 3600


@dataclass(slots=True)
class Outcome:
    """The results of one run.

    Attributes:
        results: a test's id -> "passed", "failed", "error" or "skipped".
        reasons: a test's id -> the traceback of its failure.
        touching: the tests that called a method of a cache.
        problem: why there is no report; "" where there is one.
    """

    results: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    touching: set[str] = field(default_factory=set)
    problem: str = ""
    seconds: float = 0.0

    def count(self, *results: str) -> int:
        """Return the number of tests with one of these results."""
        return sum(result in results for result in self.results.values())


def run(client: Client, ready: Checkout, storage: str, only: set[str] | None, *, ours: bool) -> Outcome:
    """Run a client's tests, or `only` some of them, in a folder of their own."""
    folder = new_folder()
    with _servers(folder) as edits, _database(storage) as database:
        home = ready.unpack(folder / "source", client.edited, edits, ours=ours, interface=client.interface)
        report = folder / "report.json"
        plan = {"settings": client.settings, "databases": client.databases, "report": str(report)}
        plan["only"] = None if only is None else sorted(only)
        plan["interface"], plan["storage"] = client.interface, storage
        is_chosen = client.interface == "cachelib" or (client.choice and storage not in STORAGES_OF_OUR_CHOICE)
        plan["default"] = None if is_chosen else _default(storage, edits, ours=ours)
        plan["postgresql"] = database
        if client.interface == "cachelib":
            plan["caches"] = _caches(edits, database, folder)
        begun = time.monotonic()
        ended, printed = _call_pytest(client, ready, home, {**_environment(plan), **_choice(client, storage)})
    outcome = Outcome(seconds=time.monotonic() - begun)
    if report.exists():
        read = json.loads(report.read_text("utf-8"))
        outcome.results, outcome.reasons, outcome.touching = read["results"], read["reasons"], set(read["touching"])
    if not outcome.results or ended not in {"exit code 0", "exit code 1"}:
        outcome.problem = f"{printed}\npytest ended with {ended}\n"
    shutil.rmtree(folder, ignore_errors=True)
    return outcome


@contextmanager
def _servers(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the texts to be replaced in settings, while the servers that they lead to run."""
    with ExitStack() as stack:
        server = stack.enter_context(contextmanager(redis.running)(RedisServer(redis_binary(), folder / "redis")))
        (other,) = stack.enter_context(memcached.running(folder / "memcached", by_port=True)).servers
        yield {
            REDIS: f"127.0.0.1:{server.port}", MEMCACHED: other.location, FOLDER: str(folder / "files"),
            SECOND_REDIS: str(server.port), SECOND_MEMCACHED: other.location,
            SECOND_MEMCACHED.rpartition(":")[2]: other.location.rpartition(":")[2],
        }  # fmt: skip


@contextmanager
def _database(storage: str) -> Iterator[dict[str, Any] | None]:
    """Yield the entry of DATABASES for a server of this run, where the storage is one."""
    if storage != "postgresql":
        yield None
        return
    with contextmanager(databases.running)(PostgreSQLServer()) as server:
        yield {
            "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "storeroom",
            "HOST": "127.0.0.1", "PORT": server.port,
        }  # fmt: skip


def _caches(edits: dict[str, str], database: dict[str, Any] | None, folder: Path) -> dict[str, Any]:
    """Return the path, LOCATION and OPTIONS of our class on each storage, outside Django."""
    (folder / "files").mkdir(parents=True)
    urls = {"db": f"sqlite:///{folder}/cache.sqlite3"}
    if database:
        urls["postgresql"] = f"postgresql://{database['USER']}@{database['HOST']}:{database['PORT']}/postgres"
    return {
        storage: (path, _edited(location, edits), {"url": urls[storage]} if storage in urls else {})
        for storage, (path, location) in STORAGES.items()
    }


def _default(storage: str, edits: dict[str, str], *, ours: bool) -> dict[str, Any]:
    """Return the default alias of CACHES."""
    path, location = STORAGES[storage]
    home = "storeroom.backends" if ours else "django.core.cache.backends"
    return {"BACKEND": f"{home}.{path}", "LOCATION": _edited(location, edits)}


def _edited(location: str, edits: dict[str, str]) -> str:
    for old, new in edits.items():
        location = location.replace(old, new)
    return location


def _environment(plan: dict[str, Any]) -> dict[str, str]:
    folders = (INSIDE, INSIDE.parents[1] / "django_suite" / "inside")
    path = os.pathsep.join(map(str, folders))
    # Where cachelib's tests find CI, they take servers as running, and start none at ports of their own.
    own = {"CI": "true"} if plan["interface"] == "cachelib" else {}
    return {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "STOREROOM_CLIENT_PLAN": json.dumps(plan), **own}


def _choice(client: Client, storage: str) -> dict[str, str]:
    return {client.choice: storage} if client.choice and storage not in STORAGES_OF_OUR_CHOICE else {}


def _call_pytest(client: Client, ready: Checkout, home: Path, environment: dict[str, str]) -> tuple[str, str]:
    """Return how pytest ended, and what it printed; its last line names the test in which one hangs."""
    settings = ("--ds=storeroom_client_settings",) if client.settings else ()
    # pytest-xprocess keeps its notes in the cache.
    without = ("-p", "no:cacheprovider") if client.interface == "django" else ()
    plugins = ("-v", *without, "-p", "storeroom_client_report")
    command = [ready.python, "-m", "pytest", *plugins, *settings, *client.options, *client.tests]
    printed = home / "printed"
    with printed.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=home, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            ended = f"exit code {process.wait(SECONDS)}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = f"nothing within {SECONDS} s"
    return ended, printed.read_text("utf-8", "replace")
