"""The command why."""

import json
import socket

import pytest

from storeroom.backends.filebased import FileBasedCache


def test_why_tells_of_a_key_that_is_there(run, cache):
    """The first line is the answer, and the exit code is 0; the value is not shown, nor is anything counted."""
    cache.set("user:7", ["confidential"], 1000, tags=["users"])
    code, output, errors = run("why", "user:7")
    assert (code, errors) == (0, "")
    assert output.startswith("'user:7' would be found. A read finds it in FileBasedCache.\n")
    for fact in ("storage key", "live for ", "pickle", "not signed", "'users', current"):
        assert fact in output
    assert "confidential" not in output
    assert (cache.stats().hits, cache.stats().misses) == (0, 0)


def test_why_tells_of_a_key_that_is_not_there(run, cache):
    """The exit code is 1, as for get."""
    code, output, _ = run("why", "none")
    assert code == 1
    assert output.startswith("'none' would be missed. It was never set, as far as is known: ")


def test_why_tells_of_another_version(run, cache):
    """--version names the version, and so does --key-version, as in the other commands."""
    cache.set("k", 1, version=2)
    assert "Version 2 has it" in run("why", "k")[1]
    assert run("why", "k", "--version", "2")[0] == 0
    assert run("why", "k", "--key-version", "2")[0] == 0
    assert run("why", "k", "--version", "3")[0] == 1


def test_why_prints_json(run, cache):
    """--json prints the fields of the explanation."""
    cache.set("k", 1, None)
    code, output, _ = run("why", "k", "--json")
    found = json.loads(output)
    assert (code, found["cause"], found["would_hit"], found["left"]) == (0, "hit", True, None)
    assert found["tiers"][0]["state"] == "live"
    assert json.loads(run("why", "none", "--json")[1])["cause"] == "never"


def test_why_looks_under_the_prefixes_of_other_aliases(run, tmp_path):
    """The aliases at the same LOCATION are asked, although this process uses none of them."""
    file = tmp_path / "caches.toml"
    alias = f'backend = "storeroom.backends.filebased.FileBasedCache"\nlocation = "{tmp_path}/both"\n'
    file.write_text(f'[caches.default]\n{alias}[caches.pages]\n{alias}key_prefix = "pages"\n')
    FileBasedCache(f"{tmp_path}/both", {"KEY_PREFIX": "pages"}).set("k", 1)
    code, output, _ = run("why", "k", config=str(file))
    assert code == 1
    assert "KEY_PREFIX 'pages' (CACHES['pages']) has it, and KEY_PREFIX '' has not." in output
    assert run("why", "k", "--alias", "pages", config=str(file))[0] == 0


def test_why_looks_at_aliases_with_other_options(run, tmp_path):
    """Another alias of the same table has connections of its own, and is asked all the same."""
    url = f"sqlite:///{tmp_path}/cache.sqlite3"
    file = tmp_path / "caches.toml"
    alias = 'backend = "storeroom.backends.db.DatabaseCache"\nlocation = "cache_table"\n'
    pages = f'key_prefix = "pages"\noptions = {{ url = "{url}", max_connections = 3 }}\n'
    file.write_text(f'[caches.default]\n{alias}options = {{ url = "{url}" }}\n[caches.pages]\n{alias}{pages}')
    assert run("set", "k", "v", "--alias", "pages", config=str(file))[0] == 0
    assert "KEY_PREFIX 'pages' (CACHES['pages']) has it" in run("why", "k", config=str(file))[1]


@pytest.mark.parametrize("server", ["redis://127.0.0.1:{}/0", "memcached://127.0.0.1:{}"])
def test_why_works_during_an_outage(run, server):
    """It says that the server is down, and exits with 3, as the other commands do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = server.format(taken.getsockname()[1])
        code, output, errors = run("why", "k", config=url)
        assert (code, errors) == (3, "")
        assert "would be missed. The server is down: " in output
        assert "is out of reach (" in output
        assert json.loads(run("why", "k", "--json", config=url)[1])["cause"] == "down"


def test_why_shows_no_password(run):
    """Neither that of a URL, nor a secret."""
    url = "redis://user:hidden-password@127.0.0.1:1/0?secret=a+secret+that+signs+all+values"
    code, output, errors = run("why", "k", config=url)
    assert code == 3
    assert "hidden-password" not in output + errors
    assert "signs" not in output + errors


def test_why_needs_a_key(run):
    """Without one it is a mistake of usage."""
    assert run("why")[0] == 2
