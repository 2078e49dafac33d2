"""``storeroom top`` on a real terminal, and without one, while real processes use their caches."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.integrations.cli.screens import PATIENCE, Screen
from tests.integrations.cli.shell import shell

PROGRAM = """
import sys, time
import storeroom
from storeroom import caches

storeroom.configure({
    "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"max_entries": 100}},
    "pages": {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": sys.argv[1]},
})
turn = 0
print("ready", flush=True)
while True:
    turn += 1
    for number in range(10):
        caches["default"].get_or_set(f"user:{number}", "Ada")
        caches["pages"].get_or_set(f"page:{number}", "<html>")
    caches["default"].get_or_set(f"visit:{turn}", 1)
    caches["pages"].get_or_set(f"feed:{turn}", 1)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The folder in which processes answer, for this module's tests alone."""
    folder = tmp_path_factory.mktemp("top")
    folder.chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def programs(answers, tmp_path_factory):
    """Two processes of one program that read and write all the time; their process ids."""
    directory = tmp_path_factory.mktemp("shop")
    (directory / "serve.py").write_text(PROGRAM)
    processes = [
        subprocess.Popen(
            [sys.executable, "serve.py", str(directory / "cache")],
            cwd=directory,
            env={**os.environ, "STOREROOM_TOP": str(answers)},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline()
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            process.stdout.close()


@pytest.fixture
def top(answers, programs):
    """Start ``storeroom top`` on a terminal."""
    screens = []

    def start(*arguments, **size):
        screens.append(Screen("top", *arguments, STOREROOM_TOP=str(answers), **size))
        return screens[-1]

    yield start
    for screen in screens:
        screen.close()


def shows(*texts):
    """Return whether lines hold all of these texts."""
    return lambda lines: all(any(text in line for line in lines) for text in texts)


def are_counted(lines):
    """Return whether both processes are there, with rates."""
    return shows("2 processes, 2 caches")(lines) and sum("Cache " in line and "%" in line for line in lines) == 2


@pytest.mark.slow
def test_all_caches_of_all_processes_are_shown_and_looked_into(top, programs, answers):
    """Caches with their rates, families of one, processes of one; keys sort, and Esc leads out again."""
    screen = top(columns=130)
    lines = screen.wait_for(are_counted)
    assert "reads/s*" in lines[1]
    row = next(line for line in lines if " default " in line)
    assert ": serve.py" in row
    assert "LocMemCache" in row
    screen.press("t")
    lines = screen.wait_for(shows("in all", "reads*"))
    assert int(next(line for line in lines if " default " in line).split()[4].replace(",", "")) > 20
    # The row stays chosen, wherever it goes; its families, and their processes.
    screen.press("\x1b[H")
    chosen = screen.wait_for(lambda _: bool(screen.chosen)) and screen.chosen[0].split()[0]
    screen.press("\r")
    named = {"default": ("user", "visit"), "pages": ("page", "feed")}[chosen]
    lines = screen.wait_for(shows(f"> {chosen}", "family", *named))
    screen.press("\r")
    screen.wait_for(shows(*map(str, programs), "process"))
    screen.press("\x1b")
    screen.wait_for(shows("family"))
    screen.press("\x7f")
    screen.wait_for(shows("program"))
    screen.press("p")
    lines = screen.wait_for(shows(*map(str, programs)))
    assert sum(": serve.py" in line for line in lines) == 4
    screen.press(">")
    screen.wait_for(shows("hit ratio*"))
    screen.press("q")
    assert screen.end() == 0
    assert not (answers / "watched").exists()


@pytest.mark.slow
def test_the_screen_follows_the_size_of_the_terminal(top):
    """A narrow terminal leaves out figures, a tiny one nearly all, and a wide one shows them again; nothing breaks."""
    screen = top(columns=130)
    screen.wait_for(are_counted)
    for columns, height in ((60, 10), (20, 4), (8, 2), (3, 1)):
        screen.resize(columns, height)
        screen.wait_for(lambda lines, columns=columns: any(lines) and max(map(len, lines)) <= columns)
        screen.press("j")
    screen.resize(130, 24)
    screen.wait_for(are_counted)
    screen.press("q")
    assert screen.end() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_gives_the_terminal_back(top, number, code):
    """Ctrl-C and SIGTERM end the command; the terminal's own screen is there again, its cursor and its echo."""
    screen = top()
    screen.wait_for(are_counted)
    assert not screen.echoes
    screen.press("\x03") if number == signal.SIGINT else screen.process.send_signal(number)
    assert screen.end() == code
    screen.lines  # noqa: B018 -- read what has come
    assert screen.echoes
    assert b"\x1b[?1049l" in screen.written
    assert not screen._screen.cursor.hidden


@pytest.mark.slow
@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_lost_terminal_ends_the_command(answers, programs, is_ignored):
    """A terminal that is closed takes the command with it, also if the signal that tells of it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN) if is_ignored else None
    try:
        screen = Screen("top", STOREROOM_TOP=str(answers))
    finally:
        if before is not None:
            signal.signal(signal.SIGHUP, before)
    try:
        screen.wait_for(are_counted)
        screen.hang_up()
        assert screen.end() in ({141} if is_ignored else {141, -signal.SIGHUP})  # it may write before that comes
    finally:
        screen.close()


@pytest.mark.slow
def test_without_a_terminal_it_prints_once(answers, programs):
    """A pipe gets the caches as a table, and JSON; so does a terminal that cannot be drawn on."""
    found = shell("top", STOREROOM_TOP=str(answers))
    assert (found.returncode, found.stderr) == (0, "")
    head, *rows = found.stdout.splitlines()
    assert head.split()[:3] == ["cache", "program", "backend"]
    assert sorted(row.split()[0] for row in rows) == ["default", "pages"]
    found = shell("top", "--json", "--alias", "pages", STOREROOM_TOP=str(answers))
    (cache,) = json.loads(found.stdout)
    assert (cache["alias"], sorted(cache["pids"])) == ("pages", sorted(programs))
    assert cache["counts"]["hits"] > 0
    assert set(cache["counts"]["families"]) == {"page", "feed"}
    screen = Screen("top", "--alias", "default", TERM="dumb", STOREROOM_TOP=str(answers))
    try:
        assert screen.end() == 0
        assert shows("LocMemCache", "family", "visit")(screen.lines)
    finally:
        screen.close()


@pytest.mark.slow
def test_processes_leave_nothing_behind(answers, programs, top):
    """Records are removed when nobody watches any more, and those of killed processes are passed by and removed."""
    (answers / "1.json").write_text(json.dumps(dead := record(pid=2**22 + 1)))
    (answers / "2.json").write_text("no JSON")
    (answers / "3.json").write_text(json.dumps({**dead, "form": 0}))
    os.utime(answers / "1.json", (0, 0))
    screen = top()
    screen.wait_for(are_counted)
    assert not (answers / "1.json").exists()
    screen.press("q")
    assert screen.end() == 0
    until = time.monotonic() + PATIENCE
    while any((answers / f"{pid}.json").exists() for pid in programs) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any((answers / f"{pid}.json").exists() for pid in programs)


def record(pid):
    """A process's record without caches."""
    return {"form": 1, "pid": pid, "started_at": 1.0, "at": 1.0, "program": "", "directory": "/", "caches": []}
