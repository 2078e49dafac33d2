"""Commands on entries: get, set, delete, incr, ttl, keys, clear, stats, prune."""

import json
import sys

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.cli import main
from storeroom.testing import FakeClock

# get and set ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (["hello"], "hello"),
        (["5"], 5),
        (["-5"], -5),
        (["0"], 0),
        (["007"], "007"),
        (["5.0"], "5.0"),
        (["1_000"], "1_000"),
        (["٣"], "٣"),
        (["true"], "true"),
        ([""], ""),
        (["5", "--type", "str"], "5"),
        (["007", "--type", "int"], 7),
        (["2.5", "--type", "float"], 2.5),
        (['{"a": [1, null]}', "--type", "json"], {"a": [1, None]}),
    ],
)
def test_set_tells_numbers_from_text(run, cache, arguments, stored):
    """A whole number without leading zeros is stored as an int, all else as text, unless --type names another type."""
    assert run("set", "key", *arguments) == (0, "", "")
    assert cache.get("key") == stored
    assert type(cache.get("key")) is type(stored)


@pytest.mark.parametrize("arguments", [["x", "--type", "int"], ["{", "--type", "json"]])
def test_set_refuses_a_value_that_is_not_of_its_type(run, cache, arguments):
    """A value that is not of the named type is refused with exit code 2, and nothing is stored."""
    code, output, errors = run("set", "key", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"storeroom: VALUE is '{arguments[0]}', which is not of type {arguments[2]}")
    assert cache.stats().entries == 0


@pytest.mark.parametrize(("timeout", "ttl"), [("5m", 300), ("90", 90), ("1h30m", 5400), ("forever", None), ("0", 0)])
def test_set_takes_timeouts_in_words(run, cache, timeout, ttl):
    """--timeout takes seconds, durations in words, and "forever"."""
    assert run("set", "key", "value", "--timeout", timeout)[0] == 0
    assert cache.ttl("key") == (ttl if ttl is None else pytest.approx(ttl, abs=5))


def test_set_refuses_a_timeout_without_meaning(run):
    """A timeout without a meaning is named in the message and exits with 2."""
    code, _, errors = run("set", "key", "value", "--timeout", "5 parsecs")
    assert code == 2
    assert "5 parsecs" in errors


@pytest.mark.parametrize(
    ("value", "printed", "as_json"),
    [
        ("hello", "hello\n", '"hello"\n'),
        ("Grüße ☕", "Grüße ☕\n", '"Grüße ☕"\n'),
        (5, "5\n", "5\n"),
        (None, "null\n", "null\n"),
        ({"a": [1, True]}, '{"a": [1, true]}\n', '{"a": [1, true]}\n'),
        ({1}, "{1}\n", None),
        (b"\x00\xff", b"\x00\xff", None),
    ],
)
def test_get_prints_any_value(request, capfdbinary, value, printed, as_json):
    """`get` prints text and bytes as they are and other values readably; --json refuses values that are not JSON."""
    url = request.getfixturevalue("url")
    request.getfixturevalue("cache").set("key", value)
    assert main(["get", "key", "--config", url]) == 0
    expected = printed if isinstance(printed, bytes) else printed.encode()
    assert capfdbinary.readouterr().out == expected
    code = main(["get", "key", "--json", "--config", url])
    captured = capfdbinary.readouterr()
    if as_json is None:
        assert code == 2
        assert b"is not JSON" in captured.err
    else:
        assert captured.out == as_json.encode()


def test_get_says_why_a_value_cannot_be_read(run, cache, monkeypatch):
    """`get` says that an entry is there whose value cannot be read, as one of a class that cannot be imported."""
    monkeypatch.setattr(sys.modules[__name__], "Gone", type("Gone", (), {"__module__": __name__}), raising=False)
    cache.set("key", sys.modules[__name__].Gone())
    monkeypatch.undo()
    code, output, errors = run("get", "key")
    assert (code, output) == (1, "")
    assert errors == "Key 'key' is there, but its value cannot be read here.\n"


def test_keys_have_versions(run, cache):
    """--key-version chooses the version that set, get and keys work on."""
    run("set", "key", "new", "--key-version", "2")
    assert run("get", "key")[0] == 1
    assert run("get", "key", "--key-version", "2")[1] == "new\n"
    assert run("keys", "--key-version", "2")[1] == "key\n"


# delete, incr, ttl ------------------------------------------------------------------------


def test_delete_counts_the_entries_removed(run, cache):
    """`delete` tells how many entries it removed, and exits with 1 if there was none."""
    cache.set_many({"a": 1, "b": 2})
    assert run("delete", "a", "b", "c") == (0, "Removed 2 entries.\n", "")
    assert run("delete", "a") == (1, "Removed 0 entries.\n", "")


def test_incr_adds(run, cache):
    """`incr` adds 1 or the given number, also a negative one or a fraction, and prints the sum."""
    cache.set("n", 5)
    assert run("incr", "n") == (0, "6\n", "")
    assert run("incr", "n", "-10") == (0, "-4\n", "")
    assert run("incr", "n", "0.5") == (0, "-3.5\n", "")


def test_incr_of_nothing_is_a_no(run):
    """`incr` of a key that is not there says so and exits with 1."""
    code, output, errors = run("incr", "n")
    assert (code, output) == (1, "")
    assert errors.startswith("storeroom: Key 'n' not found")


def test_incr_of_text_is_a_mistake(run, cache):
    """`incr` of a value that is no number exits with 2."""
    cache.set("n", "text")
    assert run("incr", "n")[0] == 2


def test_ttl_of_an_entry_that_never_expires(run, cache):
    """`ttl` of an entry that never expires is "forever", and null as JSON."""
    cache.set("key", 1, timeout=None)
    assert run("ttl", "key") == (0, "forever\n", "")
    assert run("ttl", "key", "--json") == (0, "null\n", "")


def test_ttl_of_nothing_is_a_no(run):
    """`ttl` of a key that is not there says so and exits with 1."""
    assert run("ttl", "key") == (1, "", "Key 'key' is not in the cache.\n")


# keys, clear, stats, prune ----------------------------------------------------------------


def test_keys_are_sorted_and_chosen_by_prefix(run, cache):
    """`keys` lists the keys with a prefix in order, a line each or as JSON."""
    cache.set_many({"user:2": 1, "user:1": 1, "page:1": 1})
    assert run("keys") == (0, "page:1\nuser:1\nuser:2\n", "")
    assert run("keys", "user:") == (0, "user:1\nuser:2\n", "")
    assert json.loads(run("keys", "user:", "--json")[1]) == ["user:1", "user:2"]
    assert run("keys", "nothing") == (0, "", "")


def test_clear_without_a_terminal_needs_a_yes(run, cache):
    """Without a terminal clear removes nothing and asks for --yes."""
    cache.set("key", 1)
    code, output, errors = run("clear")
    assert (code, output) == (2, "")
    assert "pass --yes" in errors
    assert cache.count() == 1
    assert run("clear", "--yes") == (0, "The cache 'default' is empty.\n", "")
    assert cache.count() == 0


def test_stats_show_counts_and_bounds(run, cache):
    """`stats` shows entries beside their bound, hits and the hit ratio, as a table or as JSON."""
    cache.set("key", "x" * 1000)
    cache.get("key")
    cache.get("key")
    cache.get("absent")
    code, output, _ = run("stats")
    assert code == 0
    rows = {line[:15].strip(): line[15:].split() for line in output.splitlines()[2:]}
    assert rows["entries"] == ["1", "of", "10,000"]
    assert rows["hit ratio"] == ["66.7%"]
    assert rows["hits"] == ["2"]
    counted = json.loads(run("stats", "--json")[1])
    assert counted["entries"] == 1
    assert counted["hit_ratio"] == pytest.approx(2 / 3)


def test_prune_tells_the_room_it_made(run):
    """`prune` removes expired entries alone, and tells their number and their bytes."""
    memory = LocMemCache("prune", {})
    with FakeClock() as clock:
        memory.set_many({f"k{number}": "x" * 1000 for number in range(20)}, timeout=10)
        memory.set("kept", 1, timeout=None)
        clock.advance(11)
        code, output, _ = run("prune", "--json", config="locmem://prune")
        assert code == 0
        pruned = json.loads(output)
        assert pruned["entries"] == 20
        assert pruned["bytes"] > 20_000
        assert run("prune", config="locmem://prune")[1] == "Removed 0 expired entries, 0 bytes.\n"
        assert memory.keys() == ["kept"]


def test_prune_frees_room_in_files(run, cache):
    """`prune` removes expired entries from files."""
    with FakeClock() as clock:
        cache.set_many({f"k{number}": "x" * 1000 for number in range(20)}, timeout=10)
        clock.advance(11)
        assert run("prune")[0] == 0
        assert cache.stats().entries == 0
