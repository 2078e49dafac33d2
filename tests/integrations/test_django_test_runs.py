"""The database cache in the test suite of a Django project: by Django's runner, on real databases."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.databases import MariaDBServer, PostgreSQLServer, mariadb, postgresql

__all__ = ["mariadb", "postgresql"]

pytestmark = pytest.mark.slow

SITE = Path(__file__).parent / "django_site"
OURS = "storeroom.backends.db.DatabaseCache"
APP = "storeroom.integrations.django"
KINDS = ("sqlite", "sqlite file", "postgresql", "mariadb")

NewDatabase = Callable[[str], dict[str, Any]]


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Return an entry of DATABASES whose test database no other test has."""

    def new_database(kind: str) -> dict[str, Any]:
        if kind.startswith("sqlite"):
            test = {"NAME": f"{tmp_path}/test.sqlite3"} if kind == "sqlite file" else {}
            return {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{tmp_path}/site.sqlite3", "TEST": test}
        if kind == "postgresql":
            server: PostgreSQLServer = request.getfixturevalue("postgresql")
            where = {"ENGINE": "django.db.backends.postgresql", "USER": "storeroom", "HOST": str(server.folder)}
            return {**where, "PORT": str(server.port), "NAME": f"runs_{os.getpid()}_{server.table()}"}
        pytest.importorskip("pymysql")
        other: MariaDBServer = request.getfixturevalue("mariadb")
        where = {"ENGINE": "django.db.backends.mysql", "USER": "root", "HOST": other.socket}
        return {**where, "NAME": f"runs_{os.getpid()}_{other.table()}"}

    return new_database


def run_tests(database: dict[str, Any], *options: str, apps: str = APP, **environment: str) -> str:
    """Run the tests of the project; return the output, of which nothing may have failed."""
    kind = {"sqlite3": "sqlite"}.get(engine := database["ENGINE"].rpartition(".")[2], engine)
    ran = subprocess.run(
        [sys.executable, "-m", "django", "test", "--settings", "site_settings", "--noinput", *options],
        cwd=SITE,
        env=os.environ
        | {
            "PYTHONPATH": str(SITE),
            "SITE_DATABASE": json.dumps(database),
            "SITE_KIND": kind,
            "SITE_BACKEND": OURS,
            "SITE_APPS": apps,
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0, output
    assert "\nOK" in output, output
    return output


@pytest.mark.parametrize(
    ("kind", "apps"), [*((kind, APP) for kind in KINDS), ("sqlite", ""), ("postgresql", ""), ("mariadb", "")]
)
def test_a_test_case_takes_back_what_it_cached(kind: str, apps: str, new_database: NewDatabase) -> None:
    """The tests of the project pass, be the table made before or in the midst, and the database can be dropped."""
    output = run_tests(new_database(kind), "site_tests", apps=apps)
    assert "Ran 35 tests" in output
    assert "Destroying test database" in output


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_tests_in_another_order_pass_too(kind: str, new_database: NewDatabase) -> None:
    """Nothing depends on the test that was before, or on the first operation's being a synchronous one."""
    run_tests(new_database(kind), "--reverse", "site_tests")
    run_tests(new_database(kind), "-k", "test_one_asynchronous", "-k", "test_other_asynchronous", "site_tests")


@pytest.mark.parametrize("kind", KINDS)
def test_each_worker_has_a_cache_of_its_own(kind: str, new_database: NewDatabase, tmp_path: Path) -> None:
    """Tests that run in parallel do not see each other's entries, and leave no directory behind."""
    workers, temporary = tmp_path / "workers", tmp_path / "temporary"
    workers.mkdir()
    temporary.mkdir()
    database = new_database(kind)
    run_tests(database, "--parallel", "3", "site_tests", SITE_WORKERS=str(workers), TMPDIR=str(temporary))
    assert len(list(workers.iterdir())) > 1
    assert [path.name for path in temporary.iterdir() if path.name.startswith("storeroom-")] == []
