"""Local caches in places that another user prepared: nothing of theirs is read, changed or followed."""

import os
import pickle
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from storeroom import checks
from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.sqlite import is_private
from storeroom.backends.filebased import FileBasedCache
from storeroom.exceptions import ConfigurationError, StorageError

from .bomb import Bomb

OTHER = 12345
FILES = "storeroom.backends.filebased.FileBasedCache"
DATABASE = "storeroom.backends.db.DatabaseCache"

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files to another user"
)


def give_away(path: Path) -> None:
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def folder(place: Path, mode: int = 0o700) -> Path:
    path = place / "cache" / "storeroom-1"
    path.mkdir(parents=True)
    path.chmod(mode)
    return path


def anothers_location(place: Path) -> None:
    (place / "cache").mkdir()
    give_away(place / "cache")


def anothers_link_as_folder(place: Path) -> None:
    (place / "cache").mkdir()
    (place / "cache" / "storeroom-1").symlink_to(place / "aim")
    give_away(place / "cache" / "storeroom-1")


def link_as_folder(place: Path) -> None:
    (place / "cache").mkdir()
    (place / "cache" / "storeroom-1").symlink_to(place / "aim")


def anothers_data(place: Path) -> None:
    """Plant a pickle in a folder that was open to all."""
    path = folder(place, 0o777)
    with lmdb.open(str(path), map_size=2**20, max_readers=2048) as environment, environment.begin(write=True) as t:
        t.put(b"e:1:k", struct.pack(">dQI", float("inf"), 0, 0) + b"\x0f" + pickle.dumps(Bomb(place / "trace")))
    give_away(path / "data.mdb")


def writable_data(place: Path) -> None:
    path = folder(place) / "data.mdb"
    path.touch()
    path.chmod(0o620)


def link_as(name: str) -> Callable[[Path], None]:
    def plant(place: Path) -> None:
        (folder(place) / name).symlink_to(place / "kept")

    return plant


def hard_link_as(name: str) -> Callable[[Path], None]:
    def plant(place: Path) -> None:
        (folder(place) / name).hardlink_to(place / "kept")

    return plant


def pipe_as(name: str) -> Callable[[Path], None]:
    def plant(place: Path) -> None:
        os.mkfifo(folder(place) / name, 0o600)

    return plant


PLANTED = {
    "LOCATION of another user": (anothers_location, "belongs to user number 12345"),
    "folder is another's link": (anothers_link_as_folder, "belongs to user number 12345"),
    "folder is a link": (link_as_folder, "is a symbolic link"),
    "data of another user": (anothers_data, "belongs to user number 12345"),
    "data others can write": (writable_data, "has mode 0620"),
    "data is a link": (link_as("data.mdb"), "is a symbolic link"),
    "lock is a link": (link_as("lock.mdb"), "is a symbolic link"),
    "guard has two names": (hard_link_as("guard"), "hard link"),
    "slots is a pipe": (pipe_as("slots"), "no regular file"),
    "writer is a pipe": (pipe_as("writer"), "no regular file"),
    "next slots are a link": (link_as("slots.new"), "is a symbolic link"),
}
BY_ROOT = {anothers_location, anothers_link_as_folder, anothers_data}


@pytest.mark.parametrize(
    ("plant", "told"),
    [pytest.param(*case, id=name, marks=[needs_root] * (case[0] in BY_ROOT)) for name, case in PLANTED.items()],
)
def test_a_planted_place_is_refused_and_found(tmp_path: Path, plant: Callable[[Path], None], told: str) -> None:
    """Each is refused by the first use and by ``storeroom check``, with the reason; nothing is run or changed."""
    kept = tmp_path / "kept"
    kept.write_text("a file of this user")
    aim = tmp_path / "aim"
    aim.mkdir()
    aim.chmod(0o755)
    plant(tmp_path)
    settings = {"LOCATION": str(tmp_path / "cache")}
    cache = FileBasedCache(settings["LOCATION"], {})
    for _ in range(2):
        with pytest.raises(StorageError, match=told):
            cache.get("k")
    with pytest.raises(StorageError, match="will not trust values that others can write"):
        cache.set("k", 1)
    found = checks.run({"default": {"BACKEND": FILES, "OPTIONS": {"max_entries": 1000}, **settings}})
    assert [finding.id for finding in found if told in finding.what] == ["storeroom.E005"]
    assert kept.read_text() == "a file of this user"
    assert stat.S_IMODE(aim.stat().st_mode) == 0o755
    assert list(aim.iterdir()) == []
    assert not (tmp_path / "trace").exists()


@needs_root
def test_a_link_of_another_user_is_not_followed_to_a_location(tmp_path: Path) -> None:
    """A link leads to LOCATION if this user or root made it, and not if another user did."""
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    FileBasedCache(tmp_path / "link" / "inner", {}).set("k", 1)
    assert FileBasedCache(tmp_path / "link" / ".." / "real" / "inner", {}).get("k") == 1
    give_away(tmp_path / "link")
    with pytest.raises(ConfigurationError, match=r"link .* belongs to user number 12345"):
        FileBasedCache(tmp_path / "link" / "inner", {})


def test_a_folder_that_was_opened_is_closed_again(tmp_path: Path) -> None:
    """Where all files are this user's alone, a folder with rights for others is made private, as ever."""
    cache = FileBasedCache(tmp_path, {})
    cache.set("k", 1)
    cache._engine.close()
    (tmp_path / "storeroom-1").chmod(0o755)
    assert FileBasedCache(tmp_path, {}).get("k") == 1
    assert stat.S_IMODE((tmp_path / "storeroom-1").stat().st_mode) == 0o700


@needs_root
def test_users_in_a_directory_of_all_have_only_their_own(tmp_path: Path) -> None:
    """In a LOCATION such as /tmp the first user has the folder; another one is told, and finds nothing of it."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_mode & stat.S_IXOTH == 0:
            directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
    FileBasedCache(tmp_path / "own", {}).set("k", {"a": 1})  # all that has to be imported can be read by root alone
    assert FileBasedCache(tmp_path / "own", {}).get("k") == {"a": 1}
    tmp_path.chmod(0o1777)
    child = os.fork()
    if child == 0:
        os.setgid(OTHER)
        os.setuid(OTHER)
        cache = FileBasedCache(tmp_path, {})
        cache.set("k", {"a": 1})
        os._exit(cache.get("k") != {"a": 1})
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(StorageError, match="sudo -u '#12345'"):
        FileBasedCache(tmp_path, {}).get("k")


# SQLite -----------------------------------------------------------------------------------------


def sqlite(path: Path) -> DatabaseCache:
    return DatabaseCache("t", {"OPTIONS": {"url": f"sqlite:///{path}"}})


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", [pytest.param("of another user", marks=needs_root), "link", "pipe"])
def test_a_planted_file_of_sqlite_is_refused_and_found(tmp_path: Path, suffix: str, kind: str) -> None:
    """SQLite would replay a log that another user has put beside the file, and write to what a link leads to."""
    path, kept = tmp_path / "cache.sqlite3", tmp_path / "kept"
    kept.touch()
    planted = Path(f"{path}{suffix}")
    if kind == "pipe":
        os.mkfifo(planted)
    elif kind == "link":
        planted.symlink_to(kept)
        if not suffix:  # one of this user's leads to a file of this user's
            return
    else:
        planted.touch()
        give_away(planted)
    cache = sqlite(path)
    with pytest.raises(StorageError, match="will not trust"):
        cache.get("k")
    alias: dict[str, Any] = {"BACKEND": DATABASE, "LOCATION": "t", "OPTIONS": {"url": f"sqlite:///{path}"}}
    assert "storeroom.E005" in {finding.id for finding in checks.run({"default": alias})}
    assert kept.read_bytes() == b""


@needs_root
@pytest.mark.parametrize("what", ["directory", "link"])
def test_a_place_of_another_user_is_refused_for_sqlite(tmp_path: Path, what: str) -> None:
    """A directory of another user, and a link that another user made, are not used for a database either."""
    place = tmp_path / "place"
    if what == "directory":
        place.mkdir()
    else:
        place.symlink_to(tmp_path)
    give_away(place)
    with pytest.raises(StorageError, match="belongs to user number 12345"):
        sqlite(place / "cache.sqlite3").get("k")


def test_sqlite_trusts_pickles_where_nobody_can_put_a_log(tmp_path: Path) -> None:
    """Beside a file in a directory such as /tmp anybody can put a log: nothing but plain data is read from there."""
    path = str(tmp_path / "cache.sqlite3")
    assert is_private(path)
    tmp_path.chmod(0o1777)
    assert not is_private(path)
    sqlite(Path(path)).set("k", [1])
    assert sqlite(Path(path)).get("k") == [1]
