"""`storeroom check` and Redis: one server, replicas, Sentinels, a cluster."""

import shlex
import time
from pathlib import Path

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.backends.redis import probe as redis_probe
from storeroom.checks import servers
from storeroom.checks.servers import SLOW_SECONDS
from storeroom.testing import FakeClock
from tests.integrations.checks.looks import REDIS, found, ids, look, on, url
from tests.servers.process import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, running, valkey_binary
from tests.servers.redis_groups import Cluster, ReplicaPair, Sentinels, eventually, is_following, replicas

#: Commands of Redis that tell something, or open a connection.
READING = {
    "auth",
    "hello",
    "info",
    "ping",
    "role",
    "select",
    "time",
    "client|setname",
    "command",
    "config|get",
    "cluster|slots",
}

#: Commands that are tried: for a key that nobody has, or with an argument that is none.
TRIED = {
    *("get", "mget", "getrange", "pttl", "set", "unlink", "scan", "eval", "evalsha", "incrby", "pexpire", "persist"),
    *("exists", "rename", "client|tracking"),
}


# One server -------------------------------------------------------------------------------


def test_a_sound_redis_has_nothing_wrong(sound):
    """A bounded Redis that evicts has no findings, and its answer has role, version, latency, clock and memory."""
    findings, probe = look(on(REDIS, url(sound)))
    assert findings == []
    (answer,) = probe.servers
    assert (answer.endpoint.address, answer.role, answer.product) == (url(sound)[:-2], "primary", "Redis")
    assert answer.version == sound.ask("INFO", "server").split("redis_version:")[1].split()[0]
    assert answer.latency < 1
    assert abs(answer.clock_ahead) < 1
    assert answer.memory.max_bytes == 100 * 2**20


def test_valkey_is_called_by_its_name(tmp_path):
    """A Valkey is told from a Redis, and is not too old."""
    for server in running(RedisServer(valkey_binary(), tmp_path)):
        (answer,) = look(on(REDIS, f"unix://{server.socket}"))[1].servers
        assert (answer.product, answer.failure) == ("Valkey", "")
        assert not answer.is_too_old


def test_the_bound_and_the_policy_of_redis_are_looked_at(redis_server):
    """A Redis without a bound is found, and one with a bound whose policy keeps the alias's entries."""
    assert ids(on(REDIS, url(redis_server))) == {"W023"}
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb")
    assert ids(on(REDIS, url(redis_server))) == {"W024"}
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    assert ids(on(REDIS, url(redis_server))) == set()
    assert ids(on(REDIS, url(redis_server), TIMEOUT=None)) == {"W024"}


def test_the_command_that_bounds_redis_does(redis_server):
    """The command that a finding offers mends it."""
    finding = found("W023", on(REDIS, url(redis_server)))
    assert finding.command.startswith(f"redis-cli -u redis://127.0.0.1:{redis_server.port} CONFIG SET ")
    redis_server.ask(*finding.command.split()[3:])
    assert ids(on(REDIS, url(redis_server))) == set()


def test_asking_redis_changes_nothing(sound):
    """A check sends no command that writes, but for trials of the user's rights, which change nothing."""
    sound.ask("CONFIG", "RESETSTAT")
    look(on(REDIS, url(sound, 3), OPTIONS={"near": True, "client_name": "shop"}))
    assert "rdb_changes_since_last_save:0" in sound.ask("INFO", "persistence")
    told = sound.ask("INFO", "commandstats").splitlines()[1:]
    used = {line.partition(":")[0].removeprefix("cmdstat_") for line in told}
    assert {"info", "ping", "role", "time"} <= used
    assert used - {"config|resetstat"} <= READING | TRIED
    assert sound.ask("INFO", "keyspace").strip() == "# Keyspace"


def test_asking_leaves_the_caches_own_connections_alone(sound):
    """A program that checks itself does not move its circuit breaker or its counters."""
    sound.process.kill()
    cache = RedisCache(url(sound), {})
    assert cache.probe(1).servers[0].failure
    assert cache._engine.breaker.failures == 0
    assert cache.stats().errors == 0


def test_a_killed_redis_is_out_of_reach(sound):
    """A Redis that is down is named, with its role and the error."""
    sound.process.kill()
    finding = found("E007", on(REDIS, url(sound)))
    assert f"redis://127.0.0.1:{sound.port} (primary)" in finding.what
    assert "Connection refused; that took " in finding.what


@pytest.mark.slow
def test_a_redis_that_hangs_is_out_of_reach_in_time(sound):
    """A Redis that hangs is out of reach after the check's own timeout, however long the cache's is."""
    sound.process.pause()
    begun = time.monotonic()
    assert ids(on(REDIS, url(sound), OPTIONS={"socket_timeout": 0.1})) == {"E007"}
    # Whatever the cache's own timeout.
    patient = {"socket_timeout": 60, "socket_connect_timeout": 60}
    finding = found("E007", on(REDIS, url(sound), OPTIONS=patient), seconds=0.2)
    assert "no answer within 0.2 s; that took 200.0 ms." in finding.what
    assert time.monotonic() - begun < 5
    sound.process.resume()
    assert ids(on(REDIS, url(sound))) == set()


def test_a_password_is_asked_for(sound):
    """A missing or a wrong password is a refusal."""
    sound.ask("CONFIG", "SET", "requirepass", "hunter2")
    location = url(sound)
    finding = found("E008", on(REDIS, location))
    assert "Authentication required" in finding.what
    assert ids(on(REDIS, location.replace("//", "//:hunter3@"))) == {"E008"}
    assert ids(on(REDIS, location.replace("//", "//:hunter2@"))) == set()


def test_a_database_that_is_not_there_is_found(sound):
    """A database number that the server does not have is a refusal."""
    assert ids(on(REDIS, url(sound, 15))) == set()
    assert "DB index is out of range" in found("E008", on(REDIS, url(sound, 16))).what


def test_clocks_that_differ_are_found(sound):
    """A server whose clock differs by more than a minute is found."""
    with FakeClock() as clock:
        assert ids(on(REDIS, url(sound))) == set()
        clock.advance(61)
        assert "61 s behind this host's" in found("W026", on(REDIS, url(sound))).what


@pytest.mark.slow
def test_a_slow_way_is_found(sound, monkeypatch):
    """Round trips that take long are found, with their median."""
    with Proxy(sound.port) as proxy:
        caches = on(REDIS, f"redis://127.0.0.1:{proxy.port}")
        assert ids(caches) == set()
        monkeypatch.setattr(servers, "SLOW_SECONDS", SLOW_SECONDS)
        proxy.delay = 2 * SLOW_SECONDS
        assert "The median of 9 round trips to " in found("W025", caches).what


def test_old_servers_are_found(sound, monkeypatch):
    """A server that is older than the oldest one supported is found."""
    monkeypatch.setattr(redis_probe, "_OLDEST", "99.0")
    assert "99.0 or newer is needed" in found("E009", on(REDIS, url(sound))).what


# Rights -----------------------------------------------------------------------------------

USERS = {
    "own keys": ("~shop:* &* +@all", ()),
    "guide": ("~shop:* &* +@read +@write +@connection -@dangerous", ("+evalsha", "+eval")),
    "no scripts": ("~shop:* &* +@all -@scripting", ()),
    "nor transactions": ("~shop:* &* +@all -@scripting -exec", ("+evalsha", "+eval")),
    "no scan": ("~shop:* &* +@all -scan -keys", ("+scan",)),
    "no tracking": ("~shop:* &* +@all -client", ("+client|tracking",)),
    "other keys": ("~shop:open:* +@all", ("~shop:*",)),
    "no ping": ("~shop:* +@all -ping", ("+ping",)),
}


@pytest.mark.parametrize("name", USERS)
def test_missing_rights_are_found_and_given(sound, name):
    """Each right that the alias needs and its user lacks is named, and the command that the finding offers gives it."""
    rules, lacks = USERS[name]
    sound.ask("ACL", "SETUSER", "shop", "reset", "on", ">pw", *rules.split())
    caches = on(REDIS, f"redis://shop:pw@127.0.0.1:{sound.port}/0", OPTIONS={"near": True})
    findings, probe = look(caches)
    (answer,) = probe.servers
    assert answer.lacks == lacks
    if not lacks:
        assert findings == []
        return
    (finding,) = findings
    assert finding.id == "storeroom.E012"
    assert f"has not the rights {' '.join(lacks)}." in finding.what
    sound.ask(*shlex.split(finding.command)[3:])
    assert look(caches)[0] == []


@pytest.mark.parametrize("prefix", ["shop", "a b", "*[x]", "é", "q'\"", "a\x00lock\x00", ""])
def test_the_least_rights_suffice_for_any_prefix(sound, prefix):
    """A user of the printed rights alone has no findings, whatever KEY_PREFIX has in it."""
    settings = {"KEY_PREFIX": prefix, "OPTIONS": {"near": True, "client_name": "shop"}}
    (answer,) = look(on(REDIS, url(sound, 1), **settings))[1].servers
    rule = shlex.split(shlex.join(answer.rights))
    assert sound.ask(*rule[:2], "least", *rule[3:], ">pw") == "OK"
    caches = on(REDIS, f"redis://least:pw@127.0.0.1:{sound.port}/1", **settings)
    assert ids(caches) <= {"W010"}, "no prefix is a warning of its own"
    cache = RedisCache(caches["default"]["LOCATION"], settings)
    cache.set("k", 1, tags=["t"])
    with cache.lock("door"):
        assert cache.incr("n", default=1) == 2
    assert sorted(cache.keys()) == ["k", "n"]
    cache.clear()
    assert cache.count() == 0


def test_the_rights_of_a_cluster_suffice(redis_cluster: Cluster):
    """A user of the printed rights alone has no findings on a cluster, and the cache works."""
    bounded(*redis_cluster.servers)
    _, probe = look(on(REDIS, redis_cluster.url(), KEY_PREFIX="rights"))
    rule = next(answer.rights for answer in probe.servers)
    try:
        for server in redis_cluster.servers:
            server.ask(*rule[:2], "cluster-rights", *rule[3:], ">pw")
        location = redis_cluster.url().replace("//", "//cluster-rights:pw@", 1)
        caches = on(REDIS, location, KEY_PREFIX="rights")
        assert look(caches)[0] == []
        cache = RedisCache(location, {"KEY_PREFIX": "rights"})
        cache.set_many({f"k{number}": number for number in range(50)}, tags=["t"])
        assert len(cache.get_many([f"k{number}" for number in range(50)])) == 50
        with cache.lock("door"):
            assert cache.incr("n", default=1) == 2
        cache.clear()
        assert cache.count() == 0
    finally:
        for server in redis_cluster.servers:
            server.ask("ACL", "DELUSER", "cluster-rights")


# Several servers --------------------------------------------------------------------------


def bounded(*servers: RedisServer) -> None:
    for server in servers:
        server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")


def test_a_primary_and_its_replica_are_both_asked(redis_pair: ReplicaPair):
    """Primary and replica of a pair are asked, and told apart."""
    bounded(redis_pair.primary)
    findings, probe = look(on(REDIS, redis_pair.url()))
    assert findings == []
    assert [answer.role for answer in probe.servers] == ["primary", "replica"]


def test_a_replica_that_is_written_to_is_found(redis_pair: ReplicaPair):
    """A location whose only server is a replica is refused."""
    location = f"redis://127.0.0.1:{redis_pair.replica.port}"
    assert "it is a replica, which takes no writes" in found("E008", on(REDIS, location)).what


@pytest.mark.slow
def test_a_replica_whose_link_is_broken_is_a_warning(tmp_path: Path):
    """A replica that answers, and no longer follows its primary, is told of, and left alone."""
    with replicas(tmp_path, 1) as group:
        group.links[0].cut_off()
        eventually(lambda: not is_following(group.replicas[0]), "the replica follows")
        what = found("W022", on(REDIS, group.url("check"))).what
        assert "its link to its primary is broken (master_link_status:down): it is left alone" in what


def test_a_lost_replica_is_a_warning(redis_pair: ReplicaPair):
    """A replica that is out of reach is a warning, as its primary serves."""
    bounded(redis_pair.primary)
    location = [f"unix://{redis_pair.primary.socket}", f"redis://127.0.0.1:{free_port()}"]
    assert ids(on(REDIS, location)) == {"W022"}


@pytest.mark.slow
def test_sentinels_and_their_primary_are_asked(redis_sentinels: Sentinels):
    """Sentinels and the primary that they name are asked; a lost Sentinel is a warning, a name they lack an error."""
    bounded(*redis_sentinels.servers)
    location = redis_sentinels.url()
    findings, probe = look(on(REDIS, location))
    assert findings == []
    assert [answer.role for answer in probe.servers] == [*["Sentinel"] * 3, "primary"]
    assert probe.servers[3].endpoint.address.endswith(f":{redis_sentinels.primary().port}")
    lost = location.replace("//", f"//127.0.0.1:{free_port()},")
    assert ids(on(REDIS, lost)) == {"W022"}
    assert (
        "no Sentinel names the primary 'other'" in found("E008", on(REDIS, location.replace("mymaster", "other"))).what
    )
    assert ids(on(REDIS, f"redis+sentinel://127.0.0.1:{free_port()}/mymaster")) == {"E007", "W022"}


@pytest.mark.slow
def test_one_server_leads_to_the_primaries_of_a_cluster(redis_cluster: Cluster):
    """One server of a cluster is enough to ask all primaries, and a lost one beside it is a warning."""
    bounded(*redis_cluster.servers)
    first, *_ = redis_cluster.servers
    location = f"redis+cluster://127.0.0.1:{first.port}"
    findings, probe = look(on(REDIS, location))
    assert findings == []
    ports = {int(answer.endpoint.address.rpartition(":")[2]) for answer in probe.servers if answer.role == "primary"}
    assert ports == {server.port for server in redis_cluster.primaries()}
    assert ids(on(REDIS, f"{location},127.0.0.1:{free_port()}")) == {"W022"}
    assert ids(on(REDIS, f"redis+cluster://127.0.0.1:{free_port()}")) == {"E007"}


def test_a_server_that_is_in_no_cluster_is_found(sound):
    """A location of a cluster whose server is in none is refused."""
    assert "it is in no cluster" in found("E008", on(REDIS, f"redis+cluster://127.0.0.1:{sound.port}")).what
