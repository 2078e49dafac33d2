"""`storeroom stats`: the counts of all processes, for each cache of a configuration and each family of keys."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import sys
import storeroom
from storeroom import caches

storeroom.configure(tomllib.load(open(sys.argv[1], "rb"))["caches"])
for alias in ("default", "pages"):
    cache = caches[alias]
    for number in range(3):
        cache.set(f"user:{number}", number)
    cache.get("user:0")
    cache.get("user:9")
    cache.get_or_set("page:1", lambda: "x")
"""


@pytest.fixture
def config(tmp_path):
    """A project with a database and a file cache that count together, and a cache in memory."""
    file = tmp_path / "caches.toml"
    file.write_text(
        f"""
[caches.default]
BACKEND = "storeroom.backends.db.DatabaseCache"
LOCATION = "sqlite:///{tmp_path}/shared.db"
OPTIONS = {{ shared_stats = true }}
[caches.pages]
BACKEND = "storeroom.backends.filebased.FileBasedCache"
LOCATION = "{tmp_path}/pages"
[caches.memory]
BACKEND = "storeroom.backends.locmem.LocMemCache"
[caches.apart]
BACKEND = "storeroom.backends.db.DatabaseCache"
LOCATION = "sqlite:///{tmp_path}/apart.db"
"""
    )
    return str(file)


def work(config):
    """Let a program use the caches, and end."""
    subprocess.run([sys.executable, "-c", f"import tomllib\n{PROGRAM}", config], check=True)


def section(output, alias):
    """Return the lines of a cache as lists of words, by their first ones."""
    (text,) = [part for part in output.split("Cache ") if part.startswith(f"'{alias}'")]
    return {line.strip().split("  ")[0]: line.split() for line in text.splitlines()[1:] if line}


def test_stats_are_the_sum_of_all_processes(run, config):
    """What two programs have counted is added up, per alias and per family, also after they have ended."""
    work(config)
    work(config)
    code, output, _ = run("stats", config=config)
    assert code == 0
    for alias in ("default", "pages"):
        rows = section(output, alias)
        assert rows["hits"][:2] == ["hits", "3"], alias  # the second program finds the page
        assert rows["misses"][:2] == ["misses", "3"]
        assert rows["sets"][:2] == ["sets", "7"]
        assert rows["computed"][:2] == ["computed", "1"]
        assert rows["user"][-4:-2] == ["2", "6"]
    assert section(output, "default")["processes"] == ["processes", "2"]
    found = json.loads(run("stats", "--json", config=config)[1])
    assert set(found["aliases"]) == {"default", "pages", "memory", "apart"}
    for alias in ("default", "pages"):
        stats = found["aliases"][alias]
        assert (stats["hits"], stats["misses"], stats["sets"], stats["families"]["page"]["computed"]) == (3, 3, 7, 1)
    assert (found["scope"], found["processes"], found["hits"]) == ("all", 2, 3)
    one = json.loads(run("stats", "--json", "--alias", "pages", config=config)[1])
    assert (one["scope"], one["sets"]) == ("machine", 7)
    assert "aliases" not in one


def test_a_cache_without_counts_says_so(run, config):
    """No zeros of the command's own are shown where nobody has left any counts, and the reason is told."""
    _, output, _ = run("stats", config=config)
    assert "no process has left any within a day" in output.split("Cache 'pages'")[0]
    for alias, reason in (("memory", "in the memory of each process"), ("apart", "OPTIONS['shared_stats'] True")):
        code, output, _ = run("stats", "--alias", alias, config=config)
        assert code == 0
        assert reason in output
        assert "hits" not in output
        found = json.loads(run("stats", "--json", "-a", alias, config=config)[1])
        assert found["scope"] is None
        assert reason in found["note"]
        assert "hits" not in found


def test_commands_leave_no_counts(run, config):
    """A look by a command is no work of the project's."""
    work(config)
    run("get", "user:1", config=config)
    run("set", "user:1", "5", config=config)
    found = json.loads(run("stats", "--json", "--alias", "default", config=config)[1])
    assert (found["processes"], found["hits"], found["sets"]) == (1, 1, 4)


def test_counts_begin_at_zero_when_that_is_asked_for(run, config):
    """`--reset` lets the counts of all processes begin anew, and says where there are none."""
    work(config)
    for alias in ("default", "pages"):
        assert run("stats", "--reset", "--alias", alias, config=config)[:2] == (
            0,
            f"The counts of the cache {alias!r} begin at zero.\n",
        )
        found = json.loads(run("stats", "--json", "--alias", alias, config=config)[1])
        assert (found["hits"], found["misses"], found["sets"], found["families"]) == (0, 0, 0, {})
        assert found["entries"] == 4
    code, output, _ = run("stats", "--reset", "--alias", "memory", config=config)
    assert code == 1
    assert "No counts" in output
    work(config)
    found = json.loads(run("stats", "--json", config=config)[1])["aliases"]
    assert [found[alias]["sets"] for alias in ("default", "pages")] == [3, 3]


def test_stats_are_watched_until_an_interrupt(run, config, monkeypatch):
    """`--watch` shows them again and again, with their growth, until Ctrl-C."""
    work(config)
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            raise KeyboardInterrupt
        work(config)

    monkeypatch.setattr(time, "sleep", nap)
    code, output, _ = run("stats", "--watch", "0.5", "--alias", "pages", config=config)
    assert (code, naps) == (130, [0.5, 0.5])
    first, second = output.split("Cache 'pages'")[1:]
    assert "a second" not in first
    assert "a second" in second
    naps.clear()
    lines = run("stats", "--watch", "--json", "-a", "pages", config=config)[1].splitlines()
    assert [json.loads(line)["sets"] for line in lines] == [7, 10]


def test_a_cache_out_of_reach_leaves_the_others_shown(run, config, tmp_path):
    """One server that is down is told, and the other caches are shown; the exit code tells it, too."""
    file = tmp_path / "more.toml"
    redis = '[caches.down]\nBACKEND = "storeroom.backends.redis.RedisCache"\nLOCATION = "redis://127.0.0.1:1/0"\n'
    file.write_text(Path(config).read_text("utf-8") + redis)
    work(str(file))
    code, output, _ = run("stats", config=str(file))
    assert code == 3
    assert "is out of reach" in output
    assert section(output, "pages")["sets"][:2] == ["sets", "4"]
