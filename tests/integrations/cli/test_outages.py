"""Commands whose server is out of reach say so, and exit with 3: a script must not take a write for done."""

import socket

import pytest

COMMANDS = [
    ["get", "k"],
    ["set", "k", "v"],
    ["delete", "k"],
    ["incr", "k"],
    ["ttl", "k"],
    ["clear", "--yes"],
    ["stats"],
    ["stats", "--json"],
    ["prune"],
    ["bench", "--seconds", "0.01"],
]


@pytest.fixture
def port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("server", ["redis://127.0.0.1:{}/0", "memcached://127.0.0.1:{}"])
def test_server_out_of_reach_is_told(run, port, server, command):
    """Under the default policy, by which a program goes on as if nothing were there, a command fails."""
    code, output, errors = run(*command, config=server.format(port))
    assert (code, output) == (3, "")
    assert "is out of reach (" in errors
    assert errors.startswith("storeroom: ")
    assert errors.count("\n") == 1


def test_tier_out_of_reach_is_told(run, port, tmp_path):
    """A server behind a tier, and one with a fallback, is told as well: an entry in local memory would be lost."""
    file = tmp_path / "caches.toml"
    file.write_text(
        f"""
[caches.default]
backend = "storeroom.backends.tiered.TieredCache"
options = {{ tiers = ["memory", "server"] }}
[caches.memory]
backend = "storeroom.backends.locmem.LocMemCache"
[caches.server]
backend = "storeroom.backends.redis.RedisCache"
location = "redis://127.0.0.1:{port}"
options = {{ on_error = "fallback:memory" }}
"""
    )
    for alias in ("default", "server"):
        code, output, errors = run("set", "k", "v", "--alias", alias, config=str(file))
        assert (code, output) == (3, "")
        assert "is out of reach (" in errors
