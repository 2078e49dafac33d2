"""A table is known by its database and its name: one name in two databases is two tables."""

from pathlib import Path
from typing import Any

import pytest

from storeroom.checks.context import Context
from storeroom.checks.sharing import check_pairs
from storeroom.checks.subject import read_subject
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import read_caches

DATABASE = "storeroom.backends.db.DatabaseCache"

TWO = [
    ("sqlite:////srv/one.sqlite3", "sqlite:////srv/two.sqlite3"),
    ("sqlite:////srv/one.sqlite3", "postgresql://h/one"),
    ("postgresql://h/one", "postgresql://h/two"),
    ("postgresql://h/one", "postgresql://i/one"),
    ("postgresql://h/one", "postgresql://h:5433/one"),
    ("postgresql:///one?host=/run/a", "postgresql:///one?host=/run/b"),
    ("mysql://h/one", "mysql://h:3307/one"),
    ("mysql://h/one", "postgresql://h/one"),
]

ONE = [
    ("sqlite:////srv/one.sqlite3", "sqlite:////srv/../srv/one.sqlite3"),
    ("postgresql://h/one", "postgres://h:5432/one"),
    ("postgresql://a:b@h/one", "postgresql://c@h/one?sslmode=require"),
    ("mysql://h/one", "mariadb://h:3306/one"),
]


def of(*urls: str, **settings: Any) -> dict[str, dict[str, Any]]:
    """Return a cache in the table "cache" of each database; all but the first have these settings."""
    caches = {url: {"BACKEND": DATABASE, "LOCATION": "cache", "OPTIONS": {"url": url}} for url in urls}
    named = dict(zip(("default", "other"), caches.values(), strict=False))
    named["other"].update(settings)
    return named


def pairs(caches: dict[str, dict[str, Any]]) -> list[str]:
    """Return the ids of the findings about two caches."""
    subjects = [read_subject(name, written, Context())[0] for name, written in caches.items()]
    return [finding.rule.id for finding in check_pairs(subjects)]


@pytest.mark.parametrize("urls", TWO)
def test_one_name_in_two_databases_is_two_tables(urls: tuple[str, str]) -> None:
    """Two caches of one table name in two databases may have different settings, and no check finds a collision."""
    caches = of(*urls, TIMEOUT=60)
    assert list(read_caches(caches)) == ["default", "other"]
    assert pairs(caches) == []


@pytest.mark.parametrize("urls", ONE)
def test_one_table_is_one_however_it_is_written(urls: tuple[str, str]) -> None:
    """Two caches of one table with different settings are refused, by whatever user and spelling they reach it."""
    caches = of(*urls, TIMEOUT=60)
    with pytest.raises(ConfigurationError, match=r"have the same LOCATION 'cache'.* but differ in TIMEOUT"):
        read_caches(caches)
    assert pairs(caches) == ["storeroom.W009"]


def test_a_link_leads_to_the_same_table(tmp_path: Path) -> None:
    """A SQLite file under another name is the same database."""
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    urls = (f"sqlite:///{tmp_path}/c.sqlite3", f"sqlite:///{tmp_path}/link/c.sqlite3")
    with pytest.raises(ConfigurationError, match="differ in TIMEOUT"):
        read_caches(of(*urls, TIMEOUT=60))
