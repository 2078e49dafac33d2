"""`storeroom demo`, with real processes and a real cache directory, on fewer modules."""

import contextlib
import io
import itertools
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from storeroom.cli import main
from storeroom.cli.demo import command, pages, passes
from storeroom.cli.demo.processes import start
from storeroom.computing.stampede import LEASE_SECONDS
from storeroom.exceptions import StorageError

pytestmark = pytest.mark.slow

MODULES = ["abc", "bisect", "colorsys"]


class Terminal(io.StringIO):
    """A file in memory that claims to be a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def rows(output):
    """Return the table's rows by name: lists of their five figures."""
    lines = output[output.index("time saved") :].splitlines()[1:]
    table = itertools.takewhile(str.strip, lines)
    return {line.split("  ")[1]: line.replace(" s", "").rsplit(maxsplit=5)[1:] for line in table}


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Return all that a demo has printed, whose directory has an odd name."""
    directory, output = tmp_path_factory.mktemp("demo") / "it's 100% mine? #1", io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["demo", "--directory", str(directory), "--limit", "4"]) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Return the directory of a demo in which pages were before, and the passes."""
    directory = tmp_path_factory.mktemp("demo")
    with start(directory, 1) as processes:
        processes.read(MODULES)
    return directory, passes.play(directory, MODULES, keep=False)[0]


def test_demo_counts_each_pass(printed):
    """A cold pass renders every page, warm ones none, and eight callers who want one page at once render it once."""
    counted = {name: (int(row[0]), int(row[2]), int(row[3])) for name, row in rows(printed).items()}
    assert counted == {
        "cold": (4, 4, 0),
        "warm": (4, 0, 4),
        "4 processes at once": (16, 0, 16),
        "after a restart": (4, 0, 4),
        "1 cold page, 8 at once": (8, 1, 7),
    }
    assert "\x1b" not in printed
    advice = printed.partition("The numbers to write")[2]
    assert "from 8 reads of about 4 keys" in advice  # cold and warm
    assert "10,000   50.0 %" in advice
    assert "OPTIONS['max_entries']: 10000 -> 2500" in advice


def test_demo_prints_a_command_that_lists_its_pages(capsys, printed):
    """The demo prints a command that lists its pages, quoted for a shell, whatever the directory's name."""
    line = next(line for line in printed.splitlines() if " keys json " in line)
    assert main(["keys", *shlex.split(line.partition(" keys json ")[2])]) == 0
    assert capsys.readouterr().out.split() == pages.standard_library()[:4]


def test_demo_is_cold_again_unless_told_to_keep(played):
    """The demo starts with an empty cache, unless --keep is given."""
    directory, again = played
    kept, _ = passes.play(directory, MODULES, keep=True)
    assert (kept[0].computations, again[0].computations) == (0, 3)
    assert kept[0].seconds_saved > 0


def test_demo_goes_on_after_an_interruption(tmp_path):
    """After Ctrl-C the demo exits with 130 and its pages are whole; with --keep it renders the other ones only."""
    modules = pages.standard_library()[:12]
    demo = subprocess.Popen(
        [sys.executable, "-m", "storeroom", "demo", "--directory", str(tmp_path), "--limit", "12"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with start(tmp_path, 1) as processes:
        while (stored := processes.survey(modules)) < 3:
            assert demo.poll() is None
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate()
        found = processes.survey(modules)
    assert demo.returncode == 130
    assert stored <= found < 12
    assert f"found {found} of 12 pages" in output
    assert f"demo --keep --directory {tmp_path}" in output
    with start(tmp_path, 1) as processes:
        (tally,) = processes.read(modules)
    assert (tally.pages, tally.computations) == (12, 12 - found)
    assert tally.seconds < LEASE_SECONDS  # the interrupted demo has given its lease back


def test_demo_leaves_no_process_behind_when_it_fails(tmp_path):
    """All processes of the demo have ended when it fails."""
    running = []

    def interrupted() -> None:
        with start(tmp_path, 2) as processes:
            running.extend(process._popen for process in processes._processes)
            processes.ask({"read": pages.standard_library()})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(running) == 2
    assert all(popen.poll() is not None for popen in running)


def test_demo_tells_what_a_failed_process_said(tmp_path):
    """The last words of a process that fails are in the error."""

    def misunderstood() -> None:
        with start(tmp_path, 1) as processes:
            print("no order", file=processes._processes[0]._popen.stdin, flush=True)
            processes.survey([])

    with pytest.raises(StorageError, match="JSONDecodeError"):
        misunderstood()


def test_demo_refuses_a_directory_that_is_a_file(tmp_path, capsys):
    """A --directory that is a file is named in the message, and the demo fails."""
    (tmp_path / "file").touch()
    assert main(["demo", "--directory", str(tmp_path / "file"), "--limit", "1"]) != 0
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_page_of_a_module_that_prints_disturbs_nobody(tmp_path):
    """A module that prints when it is imported does not disturb the process that renders its page."""
    with start(tmp_path, 1) as processes:
        (tally,) = processes.read(["this"])
    assert (tally.computations, tally.unavailable) == (1, [])


def test_page_of_a_module_that_does_not_exist_says_so(tmp_path):
    """The page of a module that does not exist says so, and is cached as well."""
    with start(tmp_path, 1) as processes:
        first, second = (processes.read(["no_such_module"])[0] for _ in range(2))
    assert first.unavailable == second.unavailable == ["no_such_module"]
    assert (first.computations, second.computations) == (1, 0)
    page = pages.open_cache(str(tmp_path)).get("no_such_module")
    assert "No module named &#x27;no_such_module&#x27;" in page["html"]


def test_pages_hold_no_environment(tmp_path, monkeypatch):
    """Pages of modules whose help shows os.environ do not hold its values."""
    monkeypatch.setenv("API_TOKEN", "hunter2-hunter2")
    with start(tmp_path, 1) as processes:
        processes.read(["os", os.name])
    cache = pages.open_cache(str(tmp_path))
    assert "environ" in cache.get("os")["html"]
    assert "hunter2" not in cache.get("os")["html"] + cache.get(os.name)["html"]


def test_pages_are_of_the_standard_library_wherever_the_demo_runs(tmp_path, monkeypatch):
    """A module in the working directory does not take the place of the standard library's."""
    (tmp_path / "colorsys.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.chdir(tmp_path)
    with start(tmp_path / "cache", 1) as processes:
        (tally,) = processes.read(["colorsys"])
    assert tally.unavailable == []


def test_standard_library_is_listed_without_importing_it():
    """The standard library's modules are listed, but private and harmful ones, without importing any."""
    before = set(sys.modules)
    modules = pages.standard_library()
    assert {"abc", "json", "json.decoder", "xml.etree.ElementTree"} < set(modules)
    assert not {"antigravity", "this", "_ast", "test.support", "idlelib.run"} & set(modules)
    assert set(sys.modules) - before == set()


def test_report_tells_when_processes_disagree(tmp_path, capsys, played):
    """The report tells of a defect when processes have read different pages."""
    results = list(played[1])
    assert passes.agree(results)
    warm = results[1]
    results[1] = replace(warm, tallies=[replace(warm.tallies[0], digest="another")])
    capsys.readouterr()
    command.print_report(results, tmp_path)
    assert not passes.agree(results)
    assert "DEFECT" in capsys.readouterr().out


@pytest.mark.parametrize(("no_color", "painted"), [("", "\x1b[32m█████\x1b[0m"), ("1", "█████")])
def test_progress_draws_a_bar_on_a_terminal(monkeypatch, no_color, painted):
    """On a wide terminal progress is a bar, coloured unless NO_COLOR is set, and then one line of the result."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "51")
    monkeypatch.setenv("NO_COLOR", no_color)
    progress = passes.Progress("cold", 20)
    progress.update(10)
    progress.finish(1.5)
    drawn, last = terminal.getvalue().split("\r\x1b[K")[2:]
    assert drawn == f"  cold{' ' * 20}{painted}░░░░░░     10 of 20"
    assert last == f"  cold{' ' * 20}    20 pages     1.500 s\n"


def test_progress_shows_only_the_count_where_the_terminal_is_narrow(monkeypatch):
    """On a narrow terminal progress is the count alone."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "30")
    passes.Progress("cold", 20)
    assert terminal.getvalue() == "\r\x1b[K      0 of 20"
