"""Findings of `storeroom check` in the directories of file caches."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storeroom import checks
from storeroom.backends.filebased import FileBasedCache
from storeroom.checks import Context
from tests.unit.checks.configurations import BARE, FILE, ROOMY, ids, on


@pytest.fixture
def cache_directory(tmp_path):
    """A directory in which a file cache has been used: the entries lie in one below it."""
    directory = tmp_path / "cache"
    FileBasedCache(str(directory), {}).set("key", "value")
    return directory


def in_files(directory: Path) -> dict[str, Any]:
    return on(FILE, str(directory), OPTIONS=ROOMY)


def test_a_directory_that_storeroom_made_has_nothing_wrong(cache_directory):
    """A directory made by a file cache yields no finding."""
    assert ids(in_files(cache_directory)) == set()


def test_a_directory_that_is_not_there_yet_has_nothing_wrong(tmp_path):
    """A directory that does not exist yet yields no finding."""
    assert ids(in_files(tmp_path / "a" / "b")) == set()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_entries_that_others_can_read_are_found(cache_directory, mode):
    """A directory of entries with rights for others is found, with the chmod that mends it."""
    (entries,) = cache_directory.iterdir()
    entries.chmod(mode)
    (finding,) = checks.run(in_files(cache_directory), context=BARE)
    assert finding.id == "storeroom.W011"
    assert finding.command == f"chmod 700 {entries}"


def test_a_readable_location_shows_nothing_of_the_entries(cache_directory):
    """A readable LOCATION is no finding, since the entries lie in a private directory within."""
    cache_directory.chmod(0o755)
    assert ids(in_files(cache_directory)) == set()


def test_entries_of_another_user_are_found(cache_directory):
    """A directory of entries that belongs to another user is found."""
    assert ids(in_files(cache_directory), replace(BARE, user_id=os.getuid() + 1)) == {"storeroom.E005"}


def test_a_location_that_everybody_may_write_is_found(cache_directory):
    """A LOCATION that everybody may write to is found."""
    cache_directory.chmod(0o1777)
    assert ids(in_files(cache_directory)) == {"storeroom.W012"}


def test_a_location_that_a_group_may_write_is_left_alone(cache_directory):
    """A LOCATION with rights for its group is no finding: many systems give each user a group."""
    cache_directory.chmod(0o770)
    assert ids(in_files(cache_directory)) == set()


def test_modes_are_not_looked_at_where_there_are_no_users(cache_directory):
    """On a system without user ids, modes of directories yield no finding."""
    cache_directory.chmod(0o777)
    assert ids(in_files(cache_directory), Context(user_id=None)) == set()


@pytest.fixture
def work_tree(tmp_path):
    """A git work tree with a package in it."""
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    (tmp_path / "shop" / "app").mkdir()
    (tmp_path / "shop" / "app" / "__init__.py").touch()
    return tmp_path / "shop"


@pytest.mark.parametrize("path", ["cache", "var/cache", "app", "app/cache"])
def test_a_directory_among_source_code_is_found(work_tree, path):
    """A cache directory within a git work tree is found."""
    assert ids(in_files(work_tree / path)) == {"storeroom.W014"}


@pytest.mark.parametrize(
    ("gitignore", "found"),
    [
        ("/var/\n", False),
        ("var\n", False),
        ("# the cache\n*.pyc\nvar/cache\n", False),
        ("cache/\n", False),
        ("*.pyc\nvariable\nar/cache\n", True),
    ],
)
def test_a_directory_that_git_ignores_is_left_alone(work_tree, gitignore, found):
    """A cache directory within a work tree is no finding if .gitignore names it or a folder above it."""
    (work_tree / ".gitignore").write_text(gitignore, "utf-8")
    assert ("storeroom.W014" in ids(in_files(work_tree / "var" / "cache"))) is found


def test_a_directory_may_ignore_itself(work_tree):
    """A cache directory with a .gitignore of its own is no finding."""
    (work_tree / "cache").mkdir()
    (work_tree / "cache" / ".gitignore").write_text("*\n", "utf-8")
    assert ids(in_files(work_tree / "cache")) == set()


def test_a_link_out_of_the_work_tree_is_followed(work_tree, tmp_path):
    """A link to a directory outside the work tree is no finding."""
    (work_tree / "cache").symlink_to(tmp_path / "elsewhere")
    assert ids(in_files(work_tree / "cache")) == set()


def test_checks_make_and_change_nothing(tmp_path):
    """Running the checks creates nothing on disk."""
    checks.run(in_files(tmp_path / "cache"), context=BARE)
    assert list(tmp_path.iterdir()) == []
