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
from storeroom.backends.filebased.folder import paths_of
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.registry import user_folder

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


def of_another_user(path: Path, _: Path) -> None:
    path.touch()
    give_away(path)


def with_mode(mode: int) -> Callable[[Path, Path], None]:
    def plant(path: Path, _: Path) -> None:
        path.touch()
        path.chmod(mode)

    return plant


def device(path: Path, _: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # the same as /dev/null
    except PermissionError:
        pytest.skip("no devices can be made here")


#: Something in place of a file, made at a path, with a file of this user elsewhere -> the reason that is told.
KINDS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "of another user": (of_another_user, "belongs to user number 12345"),
    "all can write": (with_mode(0o666), "has mode 0666"),
    "a group can write": (with_mode(0o620), "has mode 0620"),
    "link": (lambda path, kept: path.symlink_to(kept), "is a symbolic link"),
    "link to nothing": (lambda path, kept: path.symlink_to(kept.with_name("nothing")), "is a symbolic link"),
    "hard link": (lambda path, kept: path.hardlink_to(kept), "hard link"),
    "pipe": (lambda path, _: os.mkfifo(path, 0o600), "no regular file"),
    "directory": (lambda path, _: path.mkdir(), "no regular file"),
    "device": (device, "no regular file"),
}
NAMES = [Path(path).name for path in paths_of("/location/storeroom-1")[2:]]


def planted_as(name: str, plant: Callable[[Path, Path], None]) -> Callable[[Path], None]:
    return lambda place: plant(folder(place) / name, place / "kept")


PLANTED = {
    "LOCATION of another user": (anothers_location, "belongs to user number 12345"),
    "folder is another's link": (anothers_link_as_folder, "belongs to user number 12345"),
    "folder is a link": (link_as_folder, "is a symbolic link"),
    "data of another user": (anothers_data, "belongs to user number 12345"),
    **{f"{name}: {kind}": (planted_as(name, plant), told) for name in NAMES for kind, (plant, told) in KINDS.items()},
}
BY_ROOT = ("LOCATION of another user", "folder is another's link", "data of another user")


def needs(name: str) -> list[pytest.MarkDecorator]:
    return [needs_root] * (name in BY_ROOT or name.endswith((": of another user", ": device")))


def everything(place: Path) -> dict[str, tuple[int, ...]]:
    """Return inode, mode, owner and size of all that lies there."""
    found = {str(path): path.lstat() for path in (place, *place.rglob("*"))}
    return {name: (each.st_ino, each.st_mode, each.st_uid, each.st_size) for name, each in found.items()}


@pytest.mark.parametrize(
    ("plant", "told"),
    [pytest.param(*case, id=name, marks=needs(name)) for name, case in PLANTED.items()],
)
def test_a_planted_place_is_refused_and_found(tmp_path: Path, plant: Callable[[Path], None], told: str) -> None:
    """Each is refused by the first use and by ``storeroom check``, with the reason; nothing is run or changed."""
    kept = tmp_path / "kept"
    kept.write_text("a file of this user")
    aim = tmp_path / "aim"
    aim.mkdir()
    aim.chmod(0o755)
    plant(tmp_path)
    if (path := tmp_path / "cache" / "storeroom-1").is_dir() and not path.is_symlink():
        path.chmod(0o700)
    before = everything(tmp_path)
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
    assert everything(tmp_path) == before


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
@pytest.mark.parametrize(
    "kind",
    [
        *("link", "link to nothing", "pipe", "directory"),
        *(pytest.param(kind, marks=needs_root) for kind in ("of another user", "device")),
    ],
)
def test_a_planted_file_of_sqlite_is_refused_and_found(tmp_path: Path, suffix: str, kind: str) -> None:
    """SQLite would replay a log that another user has put beside the file, and write to what a link leads to."""
    path, kept = tmp_path / "cache.sqlite3", tmp_path / "kept"
    kept.touch()
    if not suffix and kind.startswith("link"):  # one of this user's leads to a file of this user's
        return
    plant, _ = KINDS[kind]
    plant(Path(f"{path}{suffix}"), kept)
    before = everything(tmp_path)
    cache = sqlite(path)
    with pytest.raises(StorageError, match="will not trust"):
        cache.get("k")
    alias: dict[str, Any] = {"BACKEND": DATABASE, "LOCATION": "t", "OPTIONS": {"url": f"sqlite:///{path}"}}
    assert "storeroom.E005" in {finding.id for finding in checks.run({"default": alias})}
    assert everything(tmp_path) == before


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
    before = everything(tmp_path)
    with pytest.raises(StorageError, match="belongs to user number 12345"):
        sqlite(place / "cache.sqlite3").get("k")
    assert everything(tmp_path) == before


def test_sqlite_trusts_pickles_where_nobody_can_put_a_log(tmp_path: Path) -> None:
    """Beside a file in a directory such as /tmp anybody can put a log: nothing but plain data is read from there."""
    path = str(tmp_path / "cache.sqlite3")
    assert is_private(path)
    tmp_path.chmod(0o1777)
    assert not is_private(path)
    sqlite(Path(path)).set("k", [1])
    assert sqlite(Path(path)).get("k") == [1]


# Where nothing is configured --------------------------------------------------------------------


def of_another(name: str) -> Callable[[Path], None]:
    def plant(home: Path) -> None:
        (home / name).mkdir(parents=True)
        give_away(home / name)

    return plant


def link_of_another(name: str) -> Callable[[Path], None]:
    def plant(home: Path) -> None:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).symlink_to(home.parent / "aim")
        give_away(home / name)

    return plant


def link_to_another(name: str) -> Callable[[Path], None]:
    def plant(home: Path) -> None:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        give_away(home.parent / "aim")
        (home / name).symlink_to(home.parent / "aim")

    return plant


def file_as(name: str) -> Callable[[Path], None]:
    def plant(home: Path) -> None:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()

    return plant


@needs_root
@pytest.mark.parametrize(
    ("plant", "outcome"),
    [
        pytest.param(of_another("."), "elsewhere", id="home of another user"),
        pytest.param(of_another("storeroom"), "elsewhere", id="folder of another user"),
        pytest.param(link_to_another("storeroom"), "elsewhere", id="folder leads to another user's"),
        pytest.param(file_as("storeroom"), "elsewhere", id="folder is a file"),
        pytest.param(link_of_another("storeroom"), "refused", id="folder is another's link"),
        pytest.param(of_another("storeroom/shop"), "elsewhere", id="project of another user"),
        pytest.param(link_of_another("storeroom/shop"), "refused", id="project is another's link"),
        pytest.param(link_to_another("storeroom/shop"), "elsewhere", id="project leads to another user's"),
        pytest.param(of_another("storeroom/shop/storeroom-1"), "refused", id="cache of another user"),
        pytest.param(link_of_another("storeroom/shop/storeroom-1"), "refused", id="cache is another's link"),
    ],
)
def test_a_planted_default_place_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None], outcome: str
) -> None:
    """Where nothing is configured, a place that another user prepared is refused, or another one is found."""
    for name in ("temporary", "aim"):
        (tmp_path / name).mkdir(mode=0o700)
    plant(tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(user_folder, "_told", set())
    before = everything(tmp_path / "home"), everything(tmp_path / "aim")
    directory, _ = user_folder.own_directory("shop")
    assert directory is not None
    assert Path(directory).is_relative_to(tmp_path / ("temporary" if outcome == "elsewhere" else "home"))
    if outcome == "elsewhere":
        FileBasedCache(directory, {}).set("k", 1)
    else:
        with pytest.raises((StorageError, ConfigurationError), match="user number 12345"):
            FileBasedCache(directory, {}).set("k", 1)
    assert (everything(tmp_path / "home"), everything(tmp_path / "aim")) == before
