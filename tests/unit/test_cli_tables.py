"""``storeroom createcachetable``."""

import json

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
    assert main(["createcachetable"]) == 0
    assert capsys.readouterr().out == "pages: table 'pages' created.\n"
    assert (tmp_path / "cache.sqlite3").exists()
    assert main(["createcachetable", "pages", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pages": False}


def test_a_dry_run_prints_the_sql_and_makes_nothing(capsys):
    assert main(["createcachetable", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith('-- pages\nCREATE TABLE "pages"')
    main(["createcachetable"])
    assert "created" in capsys.readouterr().out


def test_an_alias_without_a_table_is_a_mistake(capsys):
    assert main(["createcachetable", "default"]) != 0
    assert "has no table" in capsys.readouterr().err
    assert main(["createcachetable", "pagse"]) != 0
    assert "Did you mean 'pages'" in capsys.readouterr().err


def test_no_database_cache_is_said(capsys, tmp_path):
    (tmp_path / "caches.toml").write_text('[caches.default]\nBACKEND = "storeroom.backends.dummy.DummyCache"\n')
    assert main(["createcachetable"]) == 1
    assert "No cache" in capsys.readouterr().out
