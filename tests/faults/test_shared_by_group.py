"""Files that a group of users shares by OPTIONS["group"]: its members and root trust values that are signed alone."""

import os
import pickle
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom import checks
from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.exceptions import ConfigurationError, StorageError

from .bomb import Bomb

GROUP, ANNA, BORIS, STRANGER = 23456, 12345, 12346, 12347
SECRET = "a secret of the group's"
PATHS = {
    FileBasedCache: "storeroom.backends.filebased.FileBasedCache",
    DatabaseCache: "storeroom.backends.db.DatabaseCache",
}

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be other users")


def files(place: Path, **options: Any) -> FileBasedCache:
    return FileBasedCache(place / "cache", {"OPTIONS": {"group": GROUP, "secret": SECRET, **options}})


def sqlite(place: Path, **options: Any) -> DatabaseCache:
    url = f"sqlite:///{place / 'cache' / 'cache.sqlite3'}"
    return DatabaseCache("t", {"OPTIONS": {"url": url, "group": GROUP, "secret": SECRET, **options}})


BACKENDS = [files, sqlite]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory of Anna's in which the group may make things; all that users import is imported by now."""
    for make in BACKENDS:
        warm = tmp_path / f"warm {make.__name__}"
        warm.mkdir()
        make(warm).set("k", {"a": 1})
        assert make(warm).get("k") == {"a": 1}
    with tempfile.TemporaryDirectory() as directory:  # pytest's are closed to other users
        path = Path(directory) / "place"
        path.mkdir()
        os.chown(path, ANNA, GROUP)
        path.chmod(0o2770)
        Path(directory).chmod(0o755)
        yield path


def as_user(user: int, groups: list[int], work: Callable[[], Any]) -> None:
    """Run in a process of that user; raise what it says of a failure."""
    back, forth = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups(groups)
        os.setgid(user)
        os.setuid(user)
        os.umask(0o077)
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- told to the parent
            os.write(forth, f"{type(error).__name__}: {error}".encode()[:4000])
        os._exit(0)
    os.close(forth)
    with os.fdopen(back, "rb") as told:
        failure = told.read().decode()
    os.waitpid(child, 0)
    if failure:
        raise AssertionError(failure)


def same(found: Any, expected: Any) -> None:
    if found != expected:
        message = f"found {found!r}, expected {expected!r}"
        raise AssertionError(message)


@pytest.mark.parametrize("make", BACKENDS)
def test_members_and_root_share_values_of_any_kind(make: Callable[..., Any], place: Path) -> None:
    """What one member stores, an object too, the other and root read, write and clear, whoever made which file."""

    def begins() -> None:
        cache = make(place)
        cache.set("object", Path("/anna"))
        cache.set("of anna", ["a"] * 100)

    def goes_on() -> None:
        cache = make(place)
        same(cache.get("object"), Path("/anna"))
        cache.set("of boris", {"b": 1})
        same(cache.incr("count", default=0), 1)

    def ends() -> None:
        cache = make(place)
        same(cache.get_many(["of boris", "of root"]), {"of boris": {"b": 1}, "of root": 1.5})
        same(cache.incr("count"), 3)
        same(cache.add("object", 1), False)

    as_user(ANNA, [GROUP], begins)
    as_user(BORIS, [GROUP], goes_on)
    cache = make(place)
    assert cache.get("of anna") == ["a"] * 100
    cache.set("of root", 1.5)
    assert cache.incr("count") == 2
    as_user(ANNA, [GROUP], ends)
    as_user(BORIS, [GROUP], lambda: make(place).clear())
    assert cache.get("of anna") is None
    found = [path for path in (place / "cache").rglob("*") if path.is_file()]
    assert {(path.stat().st_gid, path.stat().st_mode & 0o007) for path in found} == {(GROUP, 0)}


@pytest.mark.parametrize("make", BACKENDS)
def test_root_begins_and_a_member_goes_on(make: Callable[..., Any], place: Path) -> None:
    """A command that root runs first, as in a container, leaves files that the service's user can use."""
    make(place).set("k", [1])
    as_user(ANNA, [GROUP], lambda: same(make(place).get("k"), [1]))
    as_user(ANNA, [GROUP], lambda: make(place).set("l", [2]))
    assert make(place).get("l") == [2]


def at_once(place: Path, users: list[int], work: Callable[[str], Any]) -> list[str]:
    """Let users of the group do something at the same moment, by name; return what each says of a failure."""
    begin, told = place.parent / "begin", []
    begin.unlink(missing_ok=True)
    children = []
    for number, user in enumerate(users):
        back, forth = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([GROUP])
                os.setgid(GROUP if user else 0)
                os.setuid(user)
                os.umask(0o077)
                deadline = time.monotonic() + 20
                while not begin.exists() and time.monotonic() < deadline:
                    pass
                work(f"{number}")
            except BaseException as error:  # noqa: BLE001 -- told to the parent
                os.write(forth, f"{user}: {type(error).__name__}: {error}".encode()[:2000])
            os._exit(0)
        os.close(forth)
        children.append((child, back))
    begin.touch()
    for child, back in children:
        with os.fdopen(back, "rb") as said:
            told.append(said.read().decode())
        os.waitpid(child, 0)
    return [each for each in told if each]


@pytest.mark.slow
@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("users", [[ANNA, BORIS] * 2, [ANNA, BORIS, 0]], ids=["members", "members and root"])
def test_users_who_begin_a_cache_at_once_share_it(make: Callable[..., Any], users: list[int], place: Path) -> None:
    """Whoever makes which directory or file, all find one cache, lose nothing, and are refused nothing."""
    for number in range(5):
        home = place / f"{number}"
        home.mkdir()
        os.chown(home, ANNA, GROUP)
        home.chmod(0o2770)

        def begins(name: str, home: Path = home) -> None:
            cache = make(home)
            cache.set(name, Path(name), timeout=None)
            cache.incr("count", default=0)

        def goes_on(name: str, home: Path = home) -> None:
            cache = make(home)
            same(len(cache.get_many(list(map(str, range(len(users)))))), len(users))
            same(cache.get("count"), len(users))

        assert at_once(place, users, begins) == []
        assert at_once(place, [ANNA, BORIS], goes_on) == []


@pytest.mark.parametrize("make", BACKENDS)
@pytest.mark.parametrize("given_after", [0.05, None], ids=["given", "kept"])
def test_a_directory_that_a_member_has_just_made_is_awaited(
    make: Callable[..., Any], given_after: float | None, place: Path
) -> None:
    """A member who finds it private waits for the other to give it to the group; one that stays private is refused."""
    (place / "cache").mkdir(0o700)
    os.chown(place / "cache", BORIS, BORIS)
    (place / "cache").chmod(0o700)

    def gives() -> None:
        os.chown(place / "cache", BORIS, GROUP)
        (place / "cache").chmod(0o2770)

    if given_after is None:
        with pytest.raises(AssertionError, match="Error"):
            as_user(ANNA, [GROUP], lambda: make(place, on_error="raise").set("k", [1]))
        return
    timer = threading.Timer(given_after, gives)
    timer.start()
    as_user(ANNA, [GROUP], lambda: make(place).set("k", [1]))
    timer.join()
    as_user(BORIS, [GROUP], lambda: same(make(place).get("k"), [1]))


@pytest.mark.parametrize("make", BACKENDS)
def test_who_is_no_member_gets_nothing(make: Callable[..., Any], place: Path) -> None:
    """Another user can neither read nor write, with the same options; root without the option is refused, too."""
    as_user(ANNA, [GROUP], lambda: make(place).set("k", [1]))
    with pytest.raises(AssertionError, match=r"Error|found None"):
        as_user(STRANGER, [], lambda: same(make(place).get("k"), [1]))
    with pytest.raises((StorageError, ConfigurationError), match=r"belongs to user number|OPTIONS\['group'\]"):
        make(place, group=None).get("k")


@pytest.mark.parametrize("make", BACKENDS)
def test_a_group_without_a_secret_is_refused(make: Callable[..., Any], place: Path) -> None:
    """Members could run code as each other by values that nobody signs: no cache is made, and check says why."""
    with pytest.raises(ConfigurationError, match=r"OPTIONS\['secret'\] is not"):
        make(place, secret=None)
    with pytest.raises(ConfigurationError, match="the name or number of a group"):
        make(place, group="no such group")


def test_a_value_that_a_member_plants_runs_no_code(place: Path) -> None:
    """An unsigned pickle in the file is a counted miss, also for root."""
    as_user(ANNA, [GROUP], lambda: files(place).set("k", [1]))
    trace = place / "trace"
    plant = (
        "import lmdb, struct, sys\n"
        "with lmdb.open(sys.argv[1], map_size=2**20, max_readers=2048) as e, e.begin(write=True) as t:\n"
        "    t.put(b'e:1:k', bytes.fromhex(sys.argv[2]))\n"
    )
    record = struct.pack(">dQI", float("inf"), 0, 0) + b"\x0f" + pickle.dumps(Bomb(trace))
    subprocess.run([sys.executable, "-c", plant, place / "cache" / "storeroom-1", record.hex()], check=True)
    cache = files(place)
    assert cache.get("k") is None
    assert cache.stats().errors >= 1
    assert not trace.exists()


@pytest.mark.parametrize("name", ["data.mdb", "guard", "slots"])
@pytest.mark.parametrize("kind", ["link", "another group", "open to all"])
def test_what_others_have_planted_is_refused_in_a_group_too(name: str, kind: str, place: Path) -> None:
    """A link, a file of another user and group, and one that everybody can write to, are not opened."""
    as_user(ANNA, [GROUP], lambda: files(place).set("k", [1]))
    file = place / "cache" / "storeroom-1" / name
    if kind == "link":
        file.unlink()
        file.symlink_to(place / "kept")
    elif kind == "another group":
        os.chown(file, STRANGER, STRANGER)
    else:
        file.chmod(0o666)
    with pytest.raises(StorageError, match="will not trust values that others can write"):
        files(place).get("k")


def test_check_finds_nothing_wrong_where_a_group_shares_as_it_says(place: Path) -> None:
    """``storeroom check`` of root finds neither a foreign folder nor one that others can look into."""
    as_user(ANNA, [GROUP], lambda: files(place).set("k", [1]))
    alias = {"BACKEND": PATHS[FileBasedCache], "LOCATION": str(place / "cache")}
    options = {"max_entries": 1000, "secret": SECRET}
    wrong = {"storeroom.E005", "storeroom.W011"}
    found = checks.run({"default": {**alias, "OPTIONS": {**options, "group": GROUP}}})
    assert not wrong & {finding.id for finding in found}
    found = checks.run({"default": {**alias, "OPTIONS": options}})
    assert wrong <= {finding.id for finding in found}


def test_two_groups_of_one_directory_are_an_error(tmp_path: Path) -> None:
    """A handle that trusts the files beside one that shares them is refused, and both options are named."""
    cache = files(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"OPTIONS\['group'\] is None here and {GROUP}"):
        FileBasedCache(tmp_path / "cache", {})
    assert cache.get("k") is None
