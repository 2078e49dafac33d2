"""The parts of ``storeroom top``: who answers and where, the figures, and the picture for any size of screen."""

import json
import os
import threading
import time

import pytest

from storeroom import private_folder
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.cli.top.reports import Report, Watcher, open_folder
from storeroom.cli.top.rows import caches_of, families_of, processes_of, program_name
from storeroom.cli.top.view import NOBODY, SELECTED, View, table
from storeroom.engines import showing
from storeroom.engines.watching import SIGN, VARIABLE, folders, watch
from storeroom.exceptions import StorageError
from storeroom.testing.isolation import engines_of_its_own

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no modes")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A folder of this test's own, and caches of its own; nobody watches yet."""
    folder = tmp_path / "answers"
    monkeypatch.setenv(VARIABLE, str(folder))
    with engines_of_its_own(alone=True):
        yield folder


@pytest.fixture
def watched(folder):
    """The folder, with somebody who watches."""
    watcher = Watcher(open_folder())
    watcher.look()
    yield folder
    watcher.close()


def due(cache):
    """Let the next one who passes by look; in files that is who looks after the files, about once a second."""
    if isinstance(cache, FileBasedCache):
        cache.engine.check_after = 0.0
    watch._due = cache._counters.look_at = 0.0


# Answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("call", ["get", "set", "get_or_set", "close", "get_many"])
def test_a_process_notices_that_it_is_watched_as_it_passes_by(kind, call, watched, tmp_path, monkeypatch):
    """A miss, a write, a computation and the end of a request look for somebody who watches."""
    begun = []
    monkeypatch.setattr(showing, "begin", lambda folder, *_: begun.append(folder))
    cache = LocMemCache("noticed", {}) if kind == "memory" else FileBasedCache(str(tmp_path / "cache"), {})
    cache.set("before", 1)
    begun.clear()
    due(cache)
    {
        "get": lambda: cache.get("absent"),
        "set": lambda: cache.set("k", 1),
        "get_or_set": lambda: cache.get_or_set("new", 1),
        "close": cache.close,
        "get_many": lambda: cache.get_many(["a", "b"]),
    }[call]()
    assert begun == [str(watched)]


def test_nobody_looks_more_than_once_a_second(watched, monkeypatch):
    """A process that is busy asks for the file once, and not for each miss."""
    begun = []
    monkeypatch.setattr(showing, "begin", lambda folder, *_: begun.append(folder))
    caches = [LocMemCache(f"often-{number}", {}) for number in range(2)]
    for cache in caches:
        due(cache)
    for number in range(100):
        for cache in caches:
            cache.get(f"k{number}")
    assert len(begun) == 1


def test_nothing_is_written_where_nobody_watches(folder):
    """Without somebody who watches, no folder is made, and no thread."""
    cache = LocMemCache("unwatched", {})
    due(cache)
    cache.get("absent")
    assert not folder.exists()
    assert not any(thread.name == "storeroom-top" for thread in threading.enumerate())


def test_an_answer_ends_with_the_watch(watched, monkeypatch):
    """The record is there while somebody watches, and is removed then."""
    monkeypatch.setattr(showing, "SHOW_SECONDS", 0.01)
    cache = LocMemCache("answered", {})
    due(cache)
    cache.get("user:1")
    path = watched / showing.record_name(os.getpid())
    wait_until(path.exists)
    (report,) = Watcher(watched).look()
    assert report.record["caches"][0]["counted"]["misses"] == 1
    (watched / SIGN).unlink()
    wait_until(lambda: not any(thread.name == "storeroom-top" for thread in threading.enumerate()))
    assert not path.exists()


def wait_until(is_so):
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.005)


def misses_in(path):
    return json.loads(path.read_text())["caches"][0]["counted"]["misses"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_answers_for_itself(watched, monkeypatch):
    """A child of a process that answers has its own record, with its own counts."""
    monkeypatch.setattr(showing, "SHOW_SECONDS", 0.01)
    cache = LocMemCache("forked", {})
    due(cache)
    cache.get("k")
    wait_until((watched / showing.record_name(os.getpid())).exists)
    child = os.fork()
    if child == 0:
        try:
            due(cache)
            cache.get("k")
            cache.get("k")
            path = watched / showing.record_name(os.getpid())
            wait_until(lambda: path.exists() and misses_in(path) == 2)
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_aliases_of_one_memory_are_one_cache():
    """Handles that count together are shown once, with all their names; what files have handed over counts on."""
    one = LocMemCache("together", {"OPTIONS": {"max_entries": 10}})
    LocMemCache("together", {"OPTIONS": {"max_entries": 10}})
    for number in range(20):
        one.set(f"k{number}", 1)
    (cache,) = showing.gathered([one.engine])["caches"]
    assert (cache["backend"], cache["entries"], cache["max_entries"]) == ("LocMemCache", 10, 10)
    assert cache["counted"]["evictions"] == 10


def test_counts_of_files_do_not_begin_anew_when_they_are_handed_over(tmp_path):
    """A file cache adds its counts to the record of all processes; this process's stay known."""
    cache = FileBasedCache(str(tmp_path / "cache"), {})
    cache.set("k", 1)
    cache.get("k")
    cache.engine.add_counts()
    cache.get("k")
    (shown,) = showing.gathered([cache.engine])["caches"]
    assert (shown["counted"]["hits"], shown["counted"]["sets"], shown["entries"]) == (2, 1, 1)


# The folder ---------------------------------------------------------------------------------------


@needs_users
def test_the_folder_lets_nobody_else_in(folder, tmp_path, monkeypatch):
    """A folder that others may enter, or a link to one, is refused by both sides; an empty name switches it off."""
    assert open_folder() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    cache = LocMemCache("refused", {})
    monkeypatch.setattr(showing, "begin", lambda *_: pytest.fail("it answers in another's folder"))
    (folder / SIGN).touch()
    folder.chmod(0o755)
    due(cache)
    cache.get("k")
    with pytest.raises(StorageError, match="lets nobody else in"):
        open_folder()
    folder.chmod(0o700)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "link"))
    due(cache)
    cache.get("other")
    with pytest.raises(StorageError, match="lets nobody else in"):
        open_folder()
    monkeypatch.setenv(VARIABLE, "")
    assert list(folders()) == []
    with pytest.raises(StorageError, match="is empty"):
        open_folder()


@needs_users
def test_the_folder_is_the_next_one_where_somebody_else_was_first(tmp_path, monkeypatch):
    """Without a name the folder lies in a shared directory; if another user holds the first one, in the second."""
    monkeypatch.delenv(VARIABLE)
    bases = [tmp_path / "first", tmp_path / "second"]
    for base in bases:
        base.mkdir()
        base.chmod(0o1777)
    monkeypatch.setattr(private_folder, "SHARED", tuple(map(str, bases)))
    (bases[0] / private_folder.NAME).mkdir(mode=0o755)
    assert open_folder() == bases[1] / private_folder.NAME / "top"
    monkeypatch.setattr(private_folder, "SHARED", (str(bases[0]),))
    with pytest.raises(StorageError, match="cannot be made, or let others in"):
        open_folder()


# Figures ------------------------------------------------------------------------------------------


def record(pid=1, at=100.0, hits=0, *, alias="default", families=None, **cache):
    """A process's record with one cache."""
    counted = {"hits": hits, "misses": 10, "families": families or {}}
    known = {"backend": "LocMemCache", "key_prefix": "", "is_shared": False, "counts_hits": False, "entries": 5}
    return {
        "form": showing.FORM,
        "pid": pid,
        "started_at": float(pid),
        "at": at,
        "program": "/srv/shop/manage.py",
        "directory": "/srv/shop",
        "caches": [{**known, "aliases": [alias], "counted": counted, **cache}],
    }


def report(*args, rate=0.0, **more):
    return Report(record(*args, **more), ({"hits": rate, "misses": 1.0},))


def test_rates_come_of_two_answers(folder):
    """The growth of a process's counts is divided by the time between its answers; a restart begins anew."""
    watcher = Watcher(open_folder())
    path = folder / showing.record_name(os.getpid())

    def look(**more):
        path.write_text(json.dumps({**record(os.getpid(), **more), "at": more.get("at", 0.0) + time.time()}))
        (found,) = watcher.look()
        return found.grown[0]

    assert look(hits=10) == {}
    assert look(hits=30, at=2.0)["hits"] == pytest.approx(10, rel=0.05)
    assert look(hits=5, at=4.0)["hits"] == 0.0
    assert look(hits=5, at=4.0, alias="other")["hits"] >= 0


def test_answers_that_are_none_are_passed_by(folder):
    """Another form, another type and half a file are no records."""
    watcher = Watcher(open_folder())
    good = record(os.getpid())
    for number, text in enumerate(
        ["", "[]", "{", json.dumps({**good, "form": 99}), json.dumps({**good, "pid": "x"}), json.dumps(good)[:-9]]
    ):
        (folder / f"{number}.json").write_text(text)
    assert watcher.look() == []


def test_processes_of_a_program_are_summed():
    """A cache is one row for all processes of a program; its entries are summed where each has its own."""
    rows = caches_of([report(1, hits=90, rate=9.0), report(2, hits=10, rate=3.0)])
    assert [(row.labels, row.processes, row.entries) for row in rows] == [
        (("default", "shop: manage.py", "LocMemCache"), 2, 10)
    ]
    assert (rows[0].counted["hits"], rows[0].grown["hits"]) == (100, 12.0)
    assert [row.labels[0] for row in processes_of(rows[0])] == ["1", "2"]
    shared = caches_of([report(1, is_shared=True), report(2, is_shared=True)])
    assert shared[0].entries == 5
    assert caches_of([report(1)], alias="other") == []


@pytest.mark.parametrize(
    ("program", "directory", "name"),
    [
        ("/srv/shop/manage.py", "/srv/shop", "shop: manage.py"),
        ("/lib/gunicorn/__main__.py", "/srv/shop", "shop: gunicorn"),
        ("", "/home/ada", "ada: python"),
        ("-c", "/", "python -c"),
        ("worker", "", "worker"),
    ],
)
def test_programs_have_names(program, directory, name):
    """A program is known by its folder and its file, or the package that it runs."""
    assert program_name({"program": program, "directory": directory}) == name


def test_unknown_figures_are_no_zeros():
    """Hits of families that nobody looks at, and what no family has, are shown as unknown."""
    families = {"user": {"hits": 0, "misses": 3, "sets": 2, "computed": 1, "failed": 0, "compute_seconds": 0.5}}
    (row,) = caches_of([report(families=families)])
    head, line = table(families_of(row), ("family",), in_all=True)
    cells = dict(zip(head.replace("hit ratio", "ratio").replace("saved s", "saved").replace("trip ms", "trip").split(),
                     line.split(), strict=True))  # fmt: skip
    assert (cells["family"], cells["reads"], cells["ratio"], cells["misses"]) == ("user", "-", "-", "3")
    assert (cells["evicted"], cells["saved"], cells["entries"]) == ("-", "-", "-")


# The picture --------------------------------------------------------------------------------------


def view_of(*reports):
    view = View()
    view.update(reports)
    return view


def chosen(view):
    return [line.text.split()[0] for line in view.lines(120, 20) if line.style == SELECTED]


def test_the_chosen_row_stays_chosen_as_the_order_changes():
    """Rows are sorted by their reads; the chosen one is known by its name and not by its number."""
    slow, fast = report(1, alias="slow", rate=1.0), report(2, alias="fast", rate=9.0)
    view = view_of(slow, fast)
    assert chosen(view) == ["fast"]
    view.press("down")
    assert chosen(view) == ["slow"]
    view.update([report(1, alias="slow", rate=99.0), fast])
    assert chosen(view) == ["slow"]
    assert [line.text.split()[0] for line in view.lines(120, 20)[2:4]] == ["slow", "fast"]
    view.press("r")
    assert [line.text.split()[0] for line in view.lines(120, 20)[2:4]] == ["fast", "slow"]
    for key in ("home", "down", "down", "end", "page up", "q"):
        view.press(key)
    assert chosen(view) == ["fast"]
    assert view.is_over


def test_a_cache_that_has_gone_leaves_an_empty_picture():
    """Where the processes of an entered cache end, the picture says so, and Esc leads out."""
    view = view_of(report(families={"user": {"misses": 1}}))
    view.press("enter")
    view.press("enter")
    view.press("enter")
    view.update([])
    assert any(NOBODY[0] in line.text for line in view.lines(80, 20))
    view.press("escape")
    view.press("escape")
    view.press("escape")
    view.update([report()])
    assert chosen(view) == ["default"]


@pytest.mark.parametrize("height", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("width", [1, 8, 20, 60, 100, 400])
def test_the_picture_fits_any_screen(width, height):
    """No line is longer than the screen, there are no more lines than it has, and the chosen row is among them."""
    view = view_of(*(report(number, alias=f"cache-{number}\x1b[31m", rate=number) for number in range(1, 30)))
    for key in ("down", "end", "home", "p", "p", "t", "enter"):
        lines = view.lines(width, height)
        assert len(lines) <= height
        assert all(len(line.text) <= width and line.text.isprintable() for line in lines)
        if height > 1 and key != "enter":
            assert sum(line.style == SELECTED for line in lines) == 1
        view.press(key)
    if width >= 20:
        assert any("cache-" in line.text for line in view_of(report(alias="cache-1")).lines(width, 5))
