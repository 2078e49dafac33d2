"""The database cache in Django projects whose ENGINE wraps one of Django's, under any name."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.integrations.test_django_database import postgresql_of, run
from tests.servers.databases import MariaDBServer, PostgreSQLServer, mariadb, postgresql
from tests.servers.process import free_port

__all__ = ["mariadb", "postgresql"]

pytestmark = pytest.mark.slow

ROUND_TRIP = 'cache.set("k", {"n": 1}); result = [cache.get("k"), cache.stats().errors]'


def make_engine(directory: Path, name: str, body: str) -> str:
    """Write an ENGINE, a package of that dotted path; return the path."""
    folder = directory.joinpath(*name.split("."))
    folder.mkdir(parents=True)
    for above in (folder, *folder.relative_to(directory).parents):
        directory.joinpath(above, "__init__.py").touch()
    (directory / "__init__.py").unlink(missing_ok=True)
    (folder / "base.py").write_text(body)
    return name


def cache_of(table: str) -> dict[str, Any]:
    return {"default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": table}}


@pytest.mark.parametrize("name", ["tenants.postgresql_backend", "geo.wrapped", "sqlite3", "mysql"])
def test_an_engine_that_wraps_postgresql_has_any_name(name: str, postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    """The vendor of Django's connection says which database it is, and not the name of the ENGINE."""
    engine = make_engine(tmp_path, f"wrap.{name}", "from django.db.backends.postgresql.base import *\n")
    database = postgresql_of(postgresql) | {"ENGINE": engine}
    assert run(ROUND_TRIP, tmp_path, DATABASES={"default": database}, CACHES=cache_of(postgresql.table())) == [
        {"n": 1},
        0,
    ]


def test_an_engine_that_wraps_sqlite_has_any_name(tmp_path: Path) -> None:
    """A metered ENGINE of SQLite has its cache in a file beside the database, as Django's own."""
    body = "from django.db.backends.sqlite3 import base\nclass DatabaseWrapper(base.DatabaseWrapper): pass\n"
    database = {"ENGINE": make_engine(tmp_path, "metered.lite", body), "NAME": f"{tmp_path}/site.sqlite3"}
    assert run(ROUND_TRIP, tmp_path, DATABASES={"default": database}) == [{"n": 1}, 0]
    assert (tmp_path / "site.sqlite3.cache").exists()


def test_an_engine_that_wraps_mysql_has_any_name(mariadb: MariaDBServer, tmp_path: Path) -> None:
    """The same for MariaDB, whose user is known to the ENGINE alone."""
    pytest.importorskip("pymysql")
    body = """
import pymysql
pymysql.version_info = (2, 2, 7, "final", 0)
pymysql.install_as_MySQLdb()
from django.db.backends.mysql import base
class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self):
        return super().get_connection_params() | {"user": "root"}
"""
    engine = make_engine(tmp_path, "vault.maria", body)
    database = {"ENGINE": engine, "NAME": "test", "USER": "nobody-here", "HOST": mariadb.socket}
    found = run(ROUND_TRIP, tmp_path, DATABASES={"default": database}, CACHES=cache_of(mariadb.table()))
    assert found == [{"n": 1}, 0]


TOKENS = """
from pathlib import Path
from django.db.backends.postgresql import base
class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self):
        given = super().get_connection_params()
        assert given.pop("use_tokens")
        user, port = Path(__file__).with_name("token").read_text().split()
        return given | {"host": "127.0.0.1", "user": user, "port": port}
"""


def test_an_engines_own_login_is_asked_for_at_each_connection(postgresql: PostgreSQLServer, tmp_path: Path) -> None:
    """An ENGINE logs in by tokens that change; settings and OPTIONS are for it to read."""
    table = postgresql.table()
    other = f"tokens_{os.getpid()}_{table}"
    postgresql.execute(f"CREATE ROLE {other} LOGIN SUPERUSER")
    try:
        engine = make_engine(tmp_path, "iam.postgresql", TOKENS)
        token = tmp_path / "iam" / "postgresql" / "token"
        token.write_text(f"storeroom {postgresql.port}")
        database = {
            "ENGINE": engine, "NAME": "postgres", "USER": "nobody-here", "HOST": "127.0.0.1", "PORT": free_port(),
            "OPTIONS": {"use_tokens": True, "application_name": f"tokens {table}"},
        }  # fmt: skip
        program = f"""
from pathlib import Path
cache.set("k", 1)
Path({str(token)!r}).write_text("{other} {postgresql.port}")
mine = "FROM pg_stat_activity WHERE application_name = 'tokens {table}' AND pid <> pg_backend_pid()"
with connection.cursor() as cursor:
    cursor.execute(f"SELECT pg_terminate_backend(pid) {{mine}}")
    ended = len(cursor.fetchall())
cache.set("l", 2)
with connection.cursor() as cursor:
    cursor.execute(f"SELECT usename {{mine}}")
    users = cursor.fetchall()
result = [cache.get("k"), cache.get("l"), ended, users, cache.stats().errors]
"""
        found = run(program, tmp_path, DATABASES={"default": database}, CACHES=cache_of(table))
        assert found == [1, 2, 1, [[other]], 0]
    finally:
        postgresql.execute(f"DROP ROLE {other}")


def test_an_engine_that_needs_models_serves_a_cache_that_is_made_before(
    postgresql: PostgreSQLServer, tmp_path: Path
) -> None:
    """A cache that a module of models asks for works where the ENGINE, as django-tenants', is loaded after models."""
    body = "from django.apps import apps\napps.check_models_ready()\nfrom django.db.backends.postgresql.base import *\n"
    database = postgresql_of(postgresql) | {"ENGINE": make_engine(tmp_path, "tenants.postgresql_backend", body)}
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "__init__.py").touch()
    (tmp_path / "early" / "models.py").write_text("from django.core.cache import caches\ncache = caches['default']\n")
    program = "from early.models import cache\n" + ROUND_TRIP
    settings = {"DATABASES": {"default": database}, "CACHES": cache_of(postgresql.table())}
    assert run(program, tmp_path, INSTALLED_APPS=["early"], **settings) == [{"n": 1}, 0]


@pytest.mark.parametrize(
    "options",
    [
        {"pool": False, "isolation_level": 4, "sslmode": "prefer", "options": "-c statement_timeout=5000"},
        {"application_name": "site", "server_side_binding": True, "client_encoding": "LATIN1"},
    ],
)
def test_options_of_djangos_connection_are_taken_or_let_be(
    options: dict[str, Any], postgresql: PostgreSQLServer, tmp_path: Path
) -> None:
    """Parameters of the driver hold for the cache, and those of Django's transactions, pools and cursors do not."""
    database = postgresql_of(postgresql) | {"OPTIONS": options, "CONN_MAX_AGE": 0, "ATOMIC_REQUESTS": True}
    found = run(ROUND_TRIP, tmp_path, DATABASES={"default": database}, CACHES=cache_of(postgresql.table()))
    assert found == [{"n": 1}, 0]


@pytest.mark.parametrize(
    ("body", "word"),
    [("raise RuntimeError('no driver here')\n", "no driver here"), (None, "nowhere.at_all")],
)
def test_an_engine_that_cannot_be_loaded_is_named(body: str | None, word: str, tmp_path: Path) -> None:
    """The error tells of the alias in DATABASES, of the ENGINE, and what is the matter with it."""
    engine = "nowhere.at_all" if body is None else make_engine(tmp_path, "broken.engine", body)
    program = """
try:
    caches["default"]
except Exception as error:
    result = f"{type(error).__name__}: {error}"
"""
    found = run(program, tmp_path, DATABASES={"default": {"ENGINE": engine, "NAME": "x"}})
    assert found.startswith("ConfigurationError")
    assert "DATABASES['default']" in found
    assert engine in found
    assert word in found
