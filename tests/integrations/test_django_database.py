"""The database cache in a Django project: its database, its table, and its independence of the site's transactions."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.databases import MariaDBServer, PostgreSQLServer, mariadb, postgresql
from tests.servers.process import free_port

__all__ = ["mariadb", "postgresql"]

pytestmark = pytest.mark.slow

PROGRAM = """
import io, json, sys
import django
from django.conf import settings
settings.configure(SECRET_KEY="for tests only" * 2, **json.loads(sys.argv[1]))
django.setup()
from django.core.cache import cache, caches
from django.core.management import call_command
from django.db import connection, transaction
"""


def run(program: str, directory: Path, **settings: Any) -> Any:
    """Run a program in a Django project of these settings; return its `result`."""
    settings.setdefault("CACHES", {"default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "pages"}})
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{PROGRAM}{program}\nprint(json.dumps(result))", json.dumps(settings)],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "storeroom"}


def postgresql_of(server: PostgreSQLServer) -> dict[str, Any]:
    return {**POSTGRESQL, "HOST": "127.0.0.1", "PORT": str(server.port)}


def test_rollback_of_the_callers_takes_no_write_back(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    """A write within a caller's transaction stays when that is rolled back, and works after a failed query in it."""
    table = postgresql.table()
    caches = {"default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": table}}
    program = f"""
from django.db import DatabaseError
with transaction.atomic():
    cache.set("k", "kept")
    transaction.set_rollback(True)
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cache.set("l", "kept, too")
        cursor.execute("SELECT nonsense")
except DatabaseError:
    pass
with connection.cursor() as cursor:
    cursor.execute('SELECT count(*) FROM "{table}" WHERE size > 0')
    rows = cursor.fetchone()[0]
result = [cache.get("k"), cache.get("l"), rows]
"""
    found = run(program, tmp_path, DATABASES={"default": postgresql_of(postgresql)}, CACHES=caches)
    assert found == ["kept", "kept, too", 2]


def test_an_outage_is_caught_as_djangos_own_error(tmp_path: Path) -> None:
    """A database out of reach raises what `except OperationalError` of a site catches, where errors are asked for."""
    database = {**POSTGRESQL, "HOST": "127.0.0.1", "PORT": str(free_port())}
    cache = {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "pages", "OPTIONS": {"on_error": "raise"}}
    program = """
from django.db import OperationalError
try:
    cache.get("k")
except OperationalError as error:
    result = [type(error).__name__, isinstance(error, ConnectionError)]
"""
    found = run(program, tmp_path, DATABASES={"default": database}, CACHES={"default": cache})
    assert found == ["UnreachableError", True]


def test_any_object_is_stored_signed_by_djangos_secret(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    """Objects that Django's users cache, as a lazy string, are stored signed by SECRET_KEY."""
    program = """
from django.utils.safestring import mark_safe
cache.set("html", mark_safe("<b>"))
result = type(cache.get("html")).__name__
"""
    assert run(program, tmp_path, DATABASES={"default": postgresql_of(postgresql)}) == "SafeString"


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_createcachetable_makes_the_table_once(
    engine: str, postgresql: PostgreSQLServer, mariadb: MariaDBServer, tmp_path: Path
) -> None:
    """The command createcachetable makes the table once, and shows its SQL with --dry-run."""
    if engine == "mysql":
        pytest.importorskip("pymysql")
        database = {
            "ENGINE": "django.db.backends.mysql", "NAME": "test", "USER": "root",
            "HOST": "localhost", "OPTIONS": {"unix_socket": mariadb.socket},
        }  # fmt: skip
        before = "import pymysql; pymysql.version_info = (2, 2, 7, 'final', 0); pymysql.install_as_MySQLdb()\n"
    else:
        database, before = postgresql_of(postgresql), ""
    table = postgresql.table()
    caches = {
        "default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": table},
        "memory": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
    }
    program = """
def told(**options):
    out = io.StringIO()
    call_command("createcachetable", stdout=out, **options)
    return out.getvalue()
result = [told(dry_run=True), told(verbosity=2), told(), told(verbosity=0)]
cache.set("k", 1)
result.append(cache.get("k"))
"""
    ran = subprocess.run(
        [
            sys.executable, "-c", f"import json\n{before}{PROGRAM}{program}\nprint(json.dumps(result))",
            json.dumps({"DATABASES": {"default": database}, "CACHES": caches,
                        "INSTALLED_APPS": ["storeroom.integrations.django"]}),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    dry, first, second, third, value = json.loads(ran.stdout.splitlines()[-1])
    assert dry.startswith("CREATE TABLE")
    assert (first, second) == (f"Cache table '{table}' created.\n", f"Cache table '{table}' already exists.\n")
    assert third == ""
    assert value == 1


def test_createcachetable_makes_djangos_tables_too(tmp_path: Path) -> None:
    """The command createcachetable makes tables of Django's caches, too, by name and where the routers allow it."""
    (tmp_path / "routing.py").write_text(
        "class Router:\n"
        "    def allow_migrate(self, db, app_label, **hints):\n"
        "        return db == 'default' if app_label == 'django_cache' else None\n"
    )
    databases = {
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / f"{alias}.sqlite3")}
        for alias in ("default", "other")
    }
    cache_aliases = {
        "default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "ours"},
        "djangos": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "djangos"},
        "memory": {"BACKEND": "storeroom.backends.locmem.LocMemCache"},
    }
    program = """
def told(*names, **options):
    out = io.StringIO()
    call_command("createcachetable", *names, stdout=out, **options)
    return out.getvalue().splitlines()
result = [told(database="other"), told("ours", verbosity=2), told(verbosity=2), told("djangos")]
caches["djangos"].set("k", 1)
cache.set("k", 2)
result.append([caches["djangos"].get("k"), cache.get("k")])
"""
    found = run(
        program, tmp_path, DATABASES=databases, CACHES=cache_aliases, DATABASE_ROUTERS=["routing.Router"],
        INSTALLED_APPS=["storeroom.integrations.django"],
    )  # fmt: skip
    assert found == [
        [],
        ["Cache table 'ours' created."],
        ["Cache table 'djangos' created.", "Cache table 'ours' already exists."],
        ["Cache table 'djangos' already exists."],
        [1, 2],
    ]


@pytest.mark.parametrize("is_by_command_line", [True, False])
def test_createcachetable_without_the_app_says_that_it_is_missing(tmp_path: Path, *, is_by_command_line: bool) -> None:
    """Django's own command, which passes over the table, does so no longer in silence; with the app nothing is said."""
    said = []
    for apps in ([], ["storeroom.integrations.django"]):
        settings = {
            "SECRET_KEY": "for tests only" * 4,
            "DATABASES": {
                "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{tmp_path}/{len(apps)}.sqlite3"}
            },
            "CACHES": {"default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "pages"}},
            "INSTALLED_APPS": apps,
        }
        (tmp_path / "some_settings.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
        call = (
            "import django; django.setup(); from django.core.management import call_command as c; c('createcachetable')"
        )
        command = ["-m", "django", "createcachetable"] if is_by_command_line else ["-c", call]
        ran = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "some_settings", "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        said.append(ran.stderr)
    assert said[0].count("makes no table 'pages'") == 1
    assert "'storeroom.integrations.django' into INSTALLED_APPS" in said[0]
    assert said[1] == ""


def test_sqlite_site_has_a_cache_file_beside_it(tmp_path: Path) -> None:
    """A site on SQLite has its cache in a file of its own, so that no write waits for the caller's transaction."""
    site = tmp_path / "db.sqlite3"
    program = """
import time
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("CREATE TABLE t (n INTEGER)")
    cursor.execute("INSERT INTO t VALUES (1)")
    begun = time.monotonic()
    cache.set("k", 1)
    waited = time.monotonic() - begun
result = [cache.get("k"), waited < 2]
"""
    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(site)}}
    assert run(program, tmp_path, DATABASES=databases) == [1, True]
    assert (tmp_path / "db.sqlite3.cache").exists()


def test_a_test_run_has_a_cache_of_its_own_and_can_drop_its_database(
    postgresql: PostgreSQLServer, tmp_path: Path
) -> None:
    """A cache follows the database that Django's test runner makes, and does not keep the runner from dropping it."""
    program = """
from django.test.utils import setup_test_environment, teardown_test_environment
from django.test.runner import DiscoverRunner
cache.set("k", "site's")
setup_test_environment()
runner = DiscoverRunner(verbosity=0, interactive=False)
databases = runner.setup_databases()
seen = [cache.get("k")]
cache.set("k", "test's")
seen.append(cache.get("k"))
runner.teardown_databases(databases)
teardown_test_environment()
result = [*seen, cache.get("k")]
"""
    found = run(program, tmp_path, DATABASES={"default": postgresql_of(postgresql)})
    assert found == [None, "test's", "site's"]


def test_routers_choose_the_database(tmp_path: Path) -> None:
    """Routers choose the cache's database, as they do for Django's own, by the app label django_cache."""
    (tmp_path / "routing.py").write_text(
        "class Router:\n"
        "    def db_for_write(self, model, **hints):\n"
        "        return 'other' if model._meta.app_label == 'django_cache' else None\n"
    )
    databases = {
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / f"{alias}.sqlite3")}
        for alias in ("default", "other")
    }
    program = "cache.set('k', 1); result = caches['default'].database_alias"
    assert run(program, tmp_path, DATABASES=databases, DATABASE_ROUTERS=["routing.Router"]) == "other"
    assert (tmp_path / "other.sqlite3.cache").exists()


def test_a_database_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    """A site's database of a kind that cannot hold a cache is refused, and named."""
    program = """
try:
    caches["default"]
except Exception as error:
    result = f"{type(error).__name__}: {error}"
"""
    found = run(program, tmp_path, DATABASES={"default": {"ENGINE": "django.db.backends.oracle", "NAME": "x"}})
    assert found.startswith("ConfigurationError")
    assert "DATABASES['default']" in found
    assert "oracle" in found
