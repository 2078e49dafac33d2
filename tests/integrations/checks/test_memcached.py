"""`storeroom check` and Memcached, by both drivers."""

import time

import pytest

from storeroom import checks
from storeroom.backends.memcached import probe as memcached_probe
from storeroom.testing import FakeClock
from tests.integrations.checks.looks import PYLIBMC, PYMEMCACHE, REDIS, found, ids, look, on
from tests.servers import memcached as memcached_servers
from tests.servers.memcached import needs_pylibmc

DRIVERS = pytest.mark.parametrize("backend", [PYMEMCACHE, pytest.param(PYLIBMC, marks=needs_pylibmc)])


@DRIVERS
def test_a_sound_memcached_has_nothing_wrong(backend, memcached_server):
    """A sound Memcached has no findings, and its answer has version, clock and memory."""
    findings, probe = look(on(backend, memcached_server.location))
    assert findings == []
    (answer,) = probe.servers
    assert (answer.product, answer.endpoint.address) == ("Memcached", memcached_server.location)
    assert f"VERSION {answer.version}\r\n".encode() == memcached_server.ask(b"version")
    assert abs(answer.clock_ahead) < checks.servers.CLOCK_SECONDS
    assert answer.memory.max_bytes == 256 * 2**20


@DRIVERS
def test_asking_memcached_changes_nothing(backend, memcached_server):
    """A check sends no command that reads or writes an entry."""
    look(on(backend, memcached_server.location))
    stats = dict(line.split()[1:] for line in memcached_server.ask(b"stats").splitlines() if line.startswith(b"STAT "))
    assert [stats[name] for name in (b"cmd_set", b"cmd_get", b"cmd_flush", b"cmd_touch", b"delete_misses")] == [
        b"0"
    ] * 5


@pytest.mark.slow
@DRIVERS
def test_each_memcached_is_told_of(backend, tmp_path):
    """Of three servers the one that is down is named."""
    with memcached_servers.running(tmp_path, 3, by_port=True) as group:
        caches = on(backend, group.location())
        assert ids(caches) == set()
        dead = group.servers[1]
        dead.process.kill()
        findings, probe = look(caches)
        assert [finding.id for finding in findings] == ["storeroom.E007"]
        assert f"Server {dead.location}: " in findings[0].what
        assert [bool(answer.failure) for answer in probe.servers] == [False, True, False]


@pytest.mark.slow
@DRIVERS
def test_a_memcached_that_hangs_is_out_of_reach_in_time(backend, memcached_server):
    """A Memcached that hangs is out of reach after the check's own timeout, however long the cache's is."""
    memcached_server.process.pause()
    begun = time.monotonic()
    patient = {"socket_timeout": 60, "socket_connect_timeout": 60}
    assert ids(on(backend, memcached_server.location, OPTIONS=patient), seconds=0.2) == {"E007"}
    assert time.monotonic() - begun < 5
    memcached_server.process.resume()
    assert ids(on(backend, memcached_server.location)) == set()


@DRIVERS
def test_the_clock_of_memcached_is_compared(backend, memcached_server):
    """A server whose clock differs by more than a minute is found."""
    with FakeClock() as clock:
        assert ids(on(backend, memcached_server.location)) == set()
        clock.advance(61)
        assert ids(on(backend, memcached_server.location)) == {"W026"}


def test_a_memcached_that_evicts_nothing_is_found(tmp_path):
    """A Memcached that was started with -M is found, with the remedy."""
    with memcached_servers.running(tmp_path, 1, "-M", "-m", "64", by_port=True) as group:
        finding = found("W024", on(PYMEMCACHE, group.servers[0].location))
        assert finding.remedy == "Start it without -M."
        assert "67,108,864 bytes" in finding.what


def test_old_memcached_is_found(memcached_server, monkeypatch):
    """A server that is older than the oldest one supported is found."""
    monkeypatch.setattr(memcached_probe, "_OLDEST", "99")
    assert ids(on(PYMEMCACHE, memcached_server.location)) == {"E009"}


@DRIVERS
def test_another_kind_of_server_is_told_of(backend, sound, memcached_server):
    """A Redis where a Memcached is expected, or the reverse, is a finding, and no traceback."""
    hasty = {"socket_timeout": 0.2}
    memcached = on(backend, f"127.0.0.1:{sound.port}", OPTIONS=hasty)
    redis = on(REDIS, f"redis://127.0.0.1:{memcached_server.port}", OPTIONS=hasty)
    for caches in (memcached, redis):
        assert ids(caches) in ({"E007"}, {"E008"}), caches
