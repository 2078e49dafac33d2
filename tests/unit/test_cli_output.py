"""What others have stored does nothing to a terminal, and one key is one line."""

import io
import json
import sys

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.cli import main

ESCAPES = "esc\x1b]0;title\x07\x9b31m\u202e"
KEYS = ["a\nvictim", ESCAPES, "plain"]


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command on a cache that holds hostile keys and values; return its standard output."""
    cache = FileBasedCache(str(tmp_path / "cache"), {"TIMEOUT": None})
    cache.set_many({**dict.fromkeys(KEYS, 1), "value": f"two\nlines {ESCAPES}", "list": [ESCAPES]})

    def run(*arguments, terminal=False):
        stream = (Terminal if terminal else io.TextIOWrapper)(io.BytesIO(), encoding="utf-8", newline="\n")
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([*arguments, "--config", f"file://{tmp_path}/cache"]) == 0
        stream.flush()
        return stream.buffer.getvalue().decode()

    return run


def test_keys_are_one_line_each(run):
    """A key with a newline is quoted, others are as they are; --raw and --null quote none."""
    lines = run("keys").split("\n")
    assert sorted(lines) == sorted(["'a\\nvictim'", ESCAPES, "plain", "value", "list", ""])
    assert run("keys", "a", "--raw") == "a\nvictim\n"
    assert run("keys", "a", "-0") == "a\nvictim\0"


@pytest.mark.parametrize(
    "arguments", [["keys"], ["keys", "--json"], ["get", "value"], ["get", "list"], ["get", "list", "--json"]]
)
def test_terminal_is_told_nothing(run, arguments):
    """Nothing that is printed to a terminal has a character that it acts on; JSON stays what it is."""
    shown = run(*arguments, terminal=True)
    assert shown.replace("\n", "").isprintable()
    assert "esc" in shown
    if "--json" in arguments:
        assert ESCAPES in json.loads(shown)


def test_raw_and_pipes_get_the_text_as_it_is(run):
    """A pipe, or --raw on a terminal, gets a text as it was stored."""
    assert run("get", "value") == f"two\nlines {ESCAPES}\n"
    assert run("get", "value", "--raw", terminal=True) == f"two\nlines {ESCAPES}\n"
