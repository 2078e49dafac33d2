"""``storeroom createcachetable``."""

import json
import subprocess
import sys

import pytest

from storeroom.cli import main

CACHES = """
[caches.default]
BACKEND = "storeroom.backends.locmem.LocMemCache"
[caches.pages]
BACKEND = "storeroom.backends.db.DatabaseCache"
LOCATION = "pages"
[caches.pages.OPTIONS]
url = "sqlite:///cache.sqlite3"
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "caches.toml").write_text(CACHES)
    monkeypatch.setenv("STOREROOM_CONFIG", "caches.toml")


def test_it_makes_the_tables_that_are_missing(capsys, tmp_path):
    """The command creates a missing table, and reports False as JSON for one that exists."""
    assert main(["createcachetable"]) == 0
    assert capsys.readouterr().out == "pages: table 'pages' created.\n"
    assert (tmp_path / "cache.sqlite3").exists()
    assert main(["createcachetable", "pages", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pages": False}


def test_a_dry_run_prints_the_sql_and_makes_nothing(capsys):
    """--dry-run prints the SQL and leaves the table to be created later."""
    assert main(["createcachetable", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith('-- pages\nCREATE TABLE "pages"')
    main(["createcachetable"])
    assert "created" in capsys.readouterr().out


def test_an_alias_without_a_table_is_a_mistake(capsys):
    """An alias without a table, or an unknown alias, ends with an error that explains it."""
    assert main(["createcachetable", "default"]) != 0
    assert "has no table" in capsys.readouterr().err
    assert main(["createcachetable", "pagse"]) != 0
    assert "Did you mean 'pages'" in capsys.readouterr().err


def test_no_database_cache_is_said(capsys, tmp_path):
    """Without a database cache in CACHES, the command says so and exits with 1."""
    (tmp_path / "caches.toml").write_text('[caches.default]\nBACKEND = "storeroom.backends.dummy.DummyCache"\n')
    assert main(["createcachetable"]) == 1
    assert "No cache" in capsys.readouterr().out


SETTINGS = """
SECRET_KEY = "for tests only" * 3
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{name}.sqlite3"} for name in ("default", "other")
}
DATABASE_ROUTERS = ["site_settings.Router"]
CACHES = {
    "default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "pages"},
    "djangos": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "djangos"},
    "elsewhere": {
        "BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "t", "OPTIONS": {"url": "sqlite:///else.sqlite3"},
    },
}
class Router:
    def db_for_write(self, model, **hints):
        return "other" if model._meta.app_label == "django_cache" else None
"""


def storeroom(directory, *arguments):
    """Run the command in a process of its own: it may start Django."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "storeroom", *arguments, "--config", "site_settings"],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_site_is_asked_which_database_it_is(tmp_path):
    """Every command starts Django if the settings need it, and its routers choose the cache's database."""
    pytest.importorskip("django")
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    ran = storeroom(tmp_path, "createcachetable")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "default: table 'pages' created.\nelsewhere: table 't' created.\n"
    assert "'djangos' is on Django's own class" in ran.stderr
    assert sorted(path.name for path in tmp_path.glob("*.sqlite3*")) == ["else.sqlite3", "other.sqlite3.cache"]
    assert storeroom(tmp_path, "set", "k", "5").returncode == 0
    assert storeroom(tmp_path, "get", "k").stdout == "5\n"
    for command in (("createcachetable", "djangos"), ("get", "k", "--alias", "djangos")):
        ran = storeroom(tmp_path, *command)
        assert ran.returncode == 3
        assert "Django's own class" in ran.stderr
