"""Commands in processes of their own: pipes, terminals, exit codes, interrupts."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integrations.cli.shell import on_terminal, shell


@pytest.mark.slow
def test_commands_of_several_processes_share_the_cache(url):
    """An entry that one process sets is read, counted up, listed and removed by others."""
    on_cache = ("--config", url)
    assert shell("set", "visits", "5", *on_cache).returncode == 0
    assert shell("incr", "visits", *on_cache).stdout == "6\n"
    assert shell("get", "visits", *on_cache).stdout == "6\n"
    assert shell("keys", *on_cache).stdout == "visits\n"
    assert 200 < float(shell("ttl", "visits", *on_cache).stdout) <= 300
    assert shell("delete", "visits", *on_cache).stdout == "Removed 1 entry.\n"
    missed = shell("get", "visits", *on_cache)
    assert (missed.returncode, missed.stdout, missed.stderr) == (1, "", "Key 'visits' is not in the cache.\n")


@pytest.mark.slow
def test_values_travel_through_pipes(url):
    """A value is read from standard input where VALUE is "-", and written to standard output as it is."""
    assert shell("set", "page", "-", "--config", url, stdin="line one\nline two\n").returncode == 0
    assert shell("get", "page", "--config", url).stdout == "line one\nline two\n"


@pytest.mark.slow
def test_a_mistake_is_one_message_without_traceback():
    """A mistake is one line on standard error, exits with 2, and shows no traceback."""
    ran = shell("get", "key", "--config", "nowhere.toml")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("storeroom: --config is 'nowhere.toml', which cannot be read")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_storage_that_fails_exits_with_3(tmp_path):
    """A storage that fails is named in a message, without a traceback, and the command exits with 3."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "storeroom-1").touch()
    ran = shell("get", "key", "--config", f"file://{tmp_path}/cache")
    assert ran.returncode == 3
    assert ran.stderr.startswith("storeroom: The file cache in ")
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(cache, url):
    """A reader that closes the pipe early ends the command quietly, with the exit code of SIGPIPE."""
    cache.set_many({f"{number:05}{'x' * 90}": 1 for number in range(5000)})
    command = [sys.executable, "-m", "storeroom", "keys", "--config", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("00000")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


@pytest.mark.slow
def test_an_interrupt_ends_quietly_and_leaves_nothing_behind(cache, url):
    """Ctrl-C ends a benchmark without output, with exit code 130, and removes its entries."""
    command = [sys.executable, "-m", "storeroom", "bench", "--seconds", "60", "--config", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while cache.stats().entries == 0:
            assert time.monotonic() < deadline, "the benchmark has begun"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130
    assert output == ""
    assert errors.strip() == ""
    assert cache.stats().entries == 0


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 1), ("\n", 1, 1), ("\x04", 1, 1), ("y\n", 0, 0)])
def test_clear_asks_on_a_terminal(cache, url, answer, code, left):
    """On a terminal clear asks, and removes entries after a "y" alone."""
    cache.set("key", "value")
    exited, shown = on_terminal("clear", "--config", url, answer=answer)
    assert "Remove all entries, 1 of the current version? [y/N]" in shown
    assert exited == code
    assert cache.count() == left


@pytest.mark.slow
def test_colours_are_for_terminals(monkeypatch):
    """Findings are coloured on a terminal, and neither in a pipe nor where NO_COLOR is set."""
    Path("mistake.toml").write_text(
        "[caches.default]\nBACKEND = 'storeroom.backends.locmem.LocMemCache'\nTIMEOUT = 0\n"
    )
    assert "\x1b[33;1mwarning storeroom.W004\x1b[0m" in on_terminal("check", "--config", "mistake.toml")[1]
    assert "\x1b" not in shell("check", "--config", "mistake.toml").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shell("check", "--config", "mistake.toml").stdout
