"""`storeroom check` and real servers: what it finds on them, what it does not, and that it changes nothing."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom import checks
from storeroom.backends.memcached import probe as memcached_probe
from storeroom.backends.redis import RedisCache
from storeroom.backends.redis import probe as redis_probe
from storeroom.checks import Context, Finding
from storeroom.cli import main
from storeroom.registry import caches as configured
from storeroom.registry import configure
from storeroom.storage.probes import Probe
from storeroom.testing import FakeClock
from tests.servers import memcached as memcached_servers
from tests.servers.databases import (
    MariaDBServer,
    PostgreSQLServer,
    mariadb,
    mariadb_server,
    postgresql,
    postgresql_server,
)
from tests.servers.memcached import MemcachedServer, needs_pylibmc
from tests.servers.process import free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, redis_server, running, valkey_binary
from tests.servers.redis_groups import Cluster, ReplicaPair, Sentinels, redis_cluster, redis_pair, redis_sentinels

__all__ = [
    "mariadb",
    "mariadb_server",
    "postgresql",
    "postgresql_server",
    "redis_cluster",
    "redis_pair",
    "redis_sentinels",
    "redis_server",
]

REDIS = "storeroom.backends.redis.RedisCache"
PYMEMCACHE = "storeroom.backends.memcached.PyMemcacheCache"
PYLIBMC = "storeroom.backends.memcached.PyLibMCCache"
DATABASE = "storeroom.backends.db.DatabaseCache"

BARE = Context()

#: Commands of Redis that tell something, or open a connection.
READING = {"auth", "hello", "info", "ping", "role", "select", "time", "client|setname", "command", "config|get"}


def on(backend: str, location: Any, **settings: Any) -> dict[str, Any]:
    """One alias, with whatever else the checks ask for."""
    return {"default": {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": "shop"} | settings}


def look(caches: dict[str, Any], seconds: float = checks.PATIENCE) -> tuple[list[Finding], Probe]:
    """Ask the servers; return the findings, and what they have answered."""
    probes = checks.probe(caches, context=BARE, seconds=seconds)
    return checks.run(caches, context=BARE, probes=probes), probes["default"]


def ids(caches: dict[str, Any], seconds: float = checks.PATIENCE) -> set[str]:
    return {finding.id.removeprefix("storeroom.") for finding in look(caches, seconds)[0]}


def found(identifier: str, caches: dict[str, Any], seconds: float = checks.PATIENCE) -> Finding:
    findings, _ = look(caches, seconds)
    return next(finding for finding in findings if finding.id == f"storeroom.{identifier}")


# Redis --------------------------------------------------------------------------------------


@pytest.fixture
def sound(redis_server: RedisServer) -> RedisServer:
    """A server as it should be."""
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
    return redis_server


def url(server: RedisServer, db: int = 0) -> str:
    return f"redis://127.0.0.1:{server.port}/{db}"


def test_a_sound_redis_has_nothing_wrong(sound):
    findings, probe = look(on(REDIS, url(sound)))
    assert findings == []
    (answer,) = probe.servers
    assert (answer.endpoint.address, answer.role, answer.product) == (url(sound)[:-2], "primary", "Redis")
    assert answer.version == sound.ask("INFO", "server").split("redis_version:")[1].split()[0]
    assert answer.latency < 1
    assert abs(answer.clock_ahead) < 1
    assert answer.memory.max_bytes == 100 * 2**20


def test_valkey_is_called_by_its_name(tmp_path):
    for server in running(RedisServer(valkey_binary(), tmp_path)):
        (answer,) = look(on(REDIS, f"unix://{server.socket}"))[1].servers
        assert (answer.product, answer.failure) == ("Valkey", "")
        assert not answer.is_too_old


def test_the_bound_and_the_policy_of_redis_are_looked_at(redis_server):
    assert ids(on(REDIS, url(redis_server))) == {"W023"}
    redis_server.ask("CONFIG", "SET", "maxmemory", "100mb")
    assert ids(on(REDIS, url(redis_server))) == {"W024"}
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    assert ids(on(REDIS, url(redis_server))) == set()
    assert ids(on(REDIS, url(redis_server), TIMEOUT=None)) == {"W024"}


def test_the_command_that_bounds_redis_does(redis_server):
    finding = found("W023", on(REDIS, url(redis_server)))
    assert finding.command.startswith(f"redis-cli -u redis://127.0.0.1:{redis_server.port} CONFIG SET ")
    redis_server.ask(*finding.command.split()[3:])
    assert ids(on(REDIS, url(redis_server))) == set()


def test_asking_redis_changes_nothing(sound):
    sound.ask("CONFIG", "RESETSTAT")
    look(on(REDIS, url(sound, 3)))
    told = sound.ask("INFO", "commandstats").splitlines()[1:]
    used = {line.partition(":")[0].removeprefix("cmdstat_") for line in told}
    assert {"info", "ping", "role", "time"} <= used
    assert used - {"config|resetstat"} <= READING
    assert sound.ask("INFO", "keyspace").strip() == "# Keyspace"


def test_asking_leaves_the_caches_own_connections_alone(sound):
    """A program may check itself: its circuit breaker and its counters do not notice."""
    sound.process.kill()
    cache = RedisCache(url(sound), {})
    assert cache.probe(1).servers[0].failure
    assert cache._engine.breaker.failures == 0
    assert cache.stats().errors == 0


def test_a_killed_redis_is_out_of_reach(sound):
    sound.process.kill()
    finding = found("E007", on(REDIS, url(sound)))
    assert f"redis://127.0.0.1:{sound.port} (primary)" in finding.what
    assert "Connection refused; that took " in finding.what


@pytest.mark.slow
def test_a_redis_that_hangs_is_out_of_reach_in_time(sound):
    sound.process.pause()
    begun = time.monotonic()
    assert ids(on(REDIS, url(sound), OPTIONS={"socket_timeout": 0.1})) == {"E007"}
    # By whatever timeout the cache itself has.
    patient = {"socket_timeout": 60, "socket_connect_timeout": 60}
    finding = found("E007", on(REDIS, url(sound), OPTIONS=patient), seconds=0.2)
    assert "no answer within 0.2 s; that took 200.0 ms." in finding.what
    assert time.monotonic() - begun < 5
    sound.process.resume()
    assert ids(on(REDIS, url(sound))) == set()


def test_a_password_is_asked_for(sound):
    sound.ask("CONFIG", "SET", "requirepass", "hunter2")
    location = url(sound)
    finding = found("E008", on(REDIS, location))
    assert "Authentication required" in finding.what
    assert ids(on(REDIS, location.replace("//", "//:hunter3@"))) == {"E008"}
    assert ids(on(REDIS, location.replace("//", "//:hunter2@"))) == set()


def test_a_database_that_is_not_there_is_found(sound):
    assert ids(on(REDIS, url(sound, 15))) == set()
    assert "DB index is out of range" in found("E008", on(REDIS, url(sound, 16))).what


def test_clocks_that_differ_are_found(sound):
    with FakeClock() as clock:
        assert ids(on(REDIS, url(sound))) == set()
        clock.advance(61)
        assert "61 s behind this host's" in found("W026", on(REDIS, url(sound))).what


@pytest.mark.slow
def test_a_slow_way_is_found(sound):
    with Proxy(sound.port) as proxy:
        caches = on(REDIS, f"redis://127.0.0.1:{proxy.port}")
        assert ids(caches) == set()
        proxy.delay = 0.02
        assert "The median of 9 round trips to " in found("W025", caches).what


def test_old_servers_are_found(sound, monkeypatch):
    """There is none that is old enough here: another version is asked for."""
    monkeypatch.setattr(redis_probe, "_OLDEST", "99.0")
    assert "99.0 or newer is needed" in found("E009", on(REDIS, url(sound))).what


# Several Redis servers ----------------------------------------------------------------------


def bounded(*servers: RedisServer) -> None:
    for server in servers:
        server.ask("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")


def test_a_primary_and_its_replica_are_both_asked(redis_pair: ReplicaPair):
    bounded(redis_pair.primary)
    findings, probe = look(on(REDIS, redis_pair.url()))
    assert findings == []
    assert [answer.role for answer in probe.servers] == ["primary", "replica"]


def test_a_replica_that_is_written_to_is_found(redis_pair: ReplicaPair):
    location = f"redis://127.0.0.1:{redis_pair.replica.port}"
    assert "it is a replica, which takes no writes" in found("E008", on(REDIS, location)).what


def test_a_lost_replica_is_a_warning(redis_pair: ReplicaPair):
    location = [f"unix://{redis_pair.primary.socket}", f"redis://127.0.0.1:{free_port()}"]
    assert ids(on(REDIS, location)) == {"W022"}


@pytest.mark.slow
def test_sentinels_and_their_primary_are_asked(redis_sentinels: Sentinels):
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
    assert "it is in no cluster" in found("E008", on(REDIS, f"redis+cluster://127.0.0.1:{sound.port}")).what


# Memcached ----------------------------------------------------------------------------------

DRIVERS = pytest.mark.parametrize("backend", [PYMEMCACHE, pytest.param(PYLIBMC, marks=needs_pylibmc)])


@pytest.fixture
def memcached_server(tmp_path: Path) -> Iterator[MemcachedServer]:
    with memcached_servers.running(tmp_path, by_port=True) as group:
        yield group.servers[0]


@DRIVERS
def test_a_sound_memcached_has_nothing_wrong(backend, memcached_server):
    findings, probe = look(on(backend, memcached_server.location))
    assert findings == []
    (answer,) = probe.servers
    assert (answer.product, answer.endpoint.address) == ("Memcached", memcached_server.location)
    assert f"VERSION {answer.version}\r\n".encode() == memcached_server.ask(b"version")
    assert abs(answer.clock_ahead) < checks.servers.CLOCK_SECONDS
    assert answer.memory.max_bytes == 256 * 2**20


@DRIVERS
def test_asking_memcached_changes_nothing(backend, memcached_server):
    look(on(backend, memcached_server.location))
    stats = dict(line.split()[1:] for line in memcached_server.ask(b"stats").splitlines() if line.startswith(b"STAT "))
    assert [stats[name] for name in (b"cmd_set", b"cmd_get", b"cmd_flush", b"cmd_touch", b"delete_misses")] == [
        b"0"
    ] * 5


@pytest.mark.slow
@DRIVERS
def test_each_memcached_is_told_of(backend, tmp_path):
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
    memcached_server.process.pause()
    begun = time.monotonic()
    patient = {"socket_timeout": 60, "socket_connect_timeout": 60}
    assert ids(on(backend, memcached_server.location, OPTIONS=patient), seconds=0.2) == {"E007"}
    assert time.monotonic() - begun < 5
    memcached_server.process.resume()
    assert ids(on(backend, memcached_server.location)) == set()


@DRIVERS
def test_the_clock_of_memcached_is_compared(backend, memcached_server):
    with FakeClock() as clock:
        assert ids(on(backend, memcached_server.location)) == set()
        clock.advance(61)
        assert ids(on(backend, memcached_server.location)) == {"W026"}


def test_a_memcached_that_evicts_nothing_is_found(tmp_path):
    with memcached_servers.running(tmp_path, 1, "-M", "-m", "64", by_port=True) as group:
        finding = found("W024", on(PYMEMCACHE, group.servers[0].location))
        assert finding.remedy == "Start it without -M."
        assert "67,108,864 bytes" in finding.what


def test_old_memcached_is_found(memcached_server, monkeypatch):
    monkeypatch.setattr(memcached_probe, "_OLDEST", "99")
    assert ids(on(PYMEMCACHE, memcached_server.location)) == {"E009"}


@DRIVERS
def test_another_kind_of_server_is_told_of(backend, sound, memcached_server):
    """Whatever comes back, it is no traceback."""
    hasty = {"socket_timeout": 0.2}
    memcached = on(backend, f"127.0.0.1:{sound.port}", OPTIONS=hasty)
    redis = on(REDIS, f"redis://127.0.0.1:{memcached_server.port}", OPTIONS=hasty)
    for caches in (memcached, redis):
        assert ids(caches) in ({"E007"}, {"E008"}), caches


# Databases on servers -----------------------------------------------------------------------


def in_table(server: Any, table: str, address: str | None = None, **options: Any) -> dict[str, Any]:
    return on(DATABASE, table, OPTIONS={"url": address or server.url(), **options})


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request) -> Any:
    return request.getfixturevalue(request.param)


def execute(server: PostgreSQLServer | MariaDBServer, statement: str) -> Any:
    """Run a statement of a test."""
    if isinstance(server, PostgreSQLServer):
        return server.execute(statement)
    import pymysql

    with pymysql.connect(user="root", unix_socket=server.socket, database="test", autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall()


def tables(server: Any) -> set[str]:
    schema = "public" if isinstance(server, PostgreSQLServer) else "test"
    found = execute(server, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'")
    return {name for (name,) in found}


def test_a_table_that_will_be_made_is_all_right(database):
    table, before = database.table(), tables(database)
    findings, probe = look(in_table(database, table))
    assert findings == []
    assert (probe.table.state, probe.table.may_create) == ("absent", True)
    assert tables(database) == before
    (answer,) = probe.servers
    assert answer.product == ("PostgreSQL" if isinstance(database, PostgreSQLServer) else "MariaDB")
    assert answer.version
    assert (answer.endpoint.is_encrypted, answer.endpoint.has_password) == (False, False)
    assert answer.latency < 1
    assert abs(answer.clock_ahead) < 1


def test_a_table_that_nobody_makes_is_found(database):
    caches = in_table(database, database.table(), create_table=False)
    finding = found("E010", caches)
    assert finding.command == "storeroom createcachetable"
    configure(caches)
    configured["default"].create_table()
    assert ids(caches) == set()


def test_djangos_table_is_found(database):
    table = database.table()
    execute(database, f"CREATE TABLE {table} (cache_key varchar(255) PRIMARY KEY, value text, expires timestamp)")
    assert ids(in_table(database, table)) == {"W027"}
    assert ids(in_table(database, table, create_table=False)) == {"E010"}


def test_a_table_of_something_else_is_found(database):
    table = database.table()
    execute(database, f"CREATE TABLE {table} (id integer PRIMARY KEY, price integer)")
    assert "has the columns id, price." in found("E011", in_table(database, table)).what


def test_a_user_who_may_make_no_table_is_found_in_postgresql(postgresql):
    postgresql.execute("CREATE ROLE reader LOGIN")
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM public")
    address = postgresql.url().replace("storeroom@", "reader@")
    assert "this user may not make it" in found("E010", in_table(postgresql, "cache_none", address)).what


def test_a_user_who_may_make_no_table_is_found_in_mariadb(mariadb):
    execute(mariadb, "CREATE USER reader@localhost")
    execute(mariadb, "GRANT SELECT, INSERT ON test.* TO reader@localhost")
    # Anybody may use a database that is called "test", unless the grant to nobody in particular goes.
    execute(mariadb, "DELETE FROM mysql.db WHERE User = ''")
    execute(mariadb, "FLUSH PRIVILEGES")
    address = mariadb.url().replace("root@", "reader@")
    table = mariadb.table()
    assert "this user may not make it" in found("E010", in_table(mariadb, table, address)).what
    execute(mariadb, "GRANT CREATE ON test.* TO reader@localhost")
    assert ids(in_table(mariadb, table, address)) == set()


def test_a_database_that_is_not_there_is_a_refusal(database):
    name = "/postgres" if isinstance(database, PostgreSQLServer) else "/test"
    caches = in_table(database, database.table(), database.url().replace(name, "/nowhere"))
    assert "nowhere" in found("E008", caches).what


def test_the_clock_of_a_database_is_compared(database):
    with FakeClock() as clock:
        caches = in_table(database, database.table())
        assert ids(caches) == set()
        clock.advance(61)
        assert ids(caches) == {"W026"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("postgresql_server", "postgresql://storeroom@127.0.0.1:{}/postgres"),
        ("mariadb_server", "mariadb://root@127.0.0.1:{}/test"),
    ],
)
def test_a_database_that_hangs_or_is_gone_is_out_of_reach(name, address, request):
    server = request.getfixturevalue(name)
    # By its port: PyMySQL does not close a Unix socket that leads nowhere.
    caches = in_table(server, "pages", address.format(server.port))
    assert ids(caches) == set()
    server.pause()
    begun = time.monotonic()
    assert ids(caches, seconds=0.3) == {"E007"}
    assert time.monotonic() - begun < 5
    server.resume()
    assert ids(caches) == set()
    server.kill()
    assert ids(caches) == {"E007"}
    server.process.start()
    assert ids(caches) == set()


# SQLite -------------------------------------------------------------------------------------


def in_file(path: Path, **options: Any) -> dict[str, Any]:
    return on(DATABASE, "pages", OPTIONS={"url": f"sqlite:///{path}", **options})


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_file_that_will_be_made_is_all_right(tmp_path):
    findings, probe = look(in_file(tmp_path / "cache.sqlite3"))
    assert findings == []
    assert (probe.servers[0].product, probe.table.state) == ("SQLite", "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_use_is_looked_at_and_left_as_it_is(tmp_path):
    from storeroom.registry import caches as configured

    caches = in_file(tmp_path / "cache.sqlite3")
    configure(caches)
    configured["default"].set("key", "value")
    before = contents(tmp_path)
    findings, probe = look(caches)
    assert findings == []
    assert probe.table.state == "ready"
    after = contents(tmp_path)
    del before["cache.sqlite3-shm"], after["cache.sqlite3-shm"]  # where connections note that they read
    assert after == before


def test_tables_of_a_file_are_told_apart(tmp_path):
    file = tmp_path / "cache.sqlite3"
    assert ids(in_file(file, create_table=False)) == {"E010"}
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE pages (id integer)")
    assert ids(in_file(file)) == {"E011"}
    connection.execute("DROP TABLE pages")
    connection.execute("CREATE TABLE pages (cache_key, value, expires)")
    assert ids(in_file(file)) == {"W027"}
    connection.close()


def test_what_is_no_database_is_found(tmp_path):
    (tmp_path / "file").write_text("This is a letter." * 100)
    assert "file is not a database" in found("E008", in_file(tmp_path / "file")).what
    assert "is none in which this user may make it" in found("E008", in_file(tmp_path / "file" / "x")).what


# All together -------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_aliases_are_asked_at_the_same_time(sound):
    sound.process.pause()
    begun = time.monotonic()
    caches = {
        name: on(REDIS, url(sound, number), OPTIONS={"socket_timeout": 60})["default"]
        for number, name in enumerate(["default", "pages", "sessions", "rates"])
    }
    probes = checks.probe(caches, context=BARE, seconds=0.5)
    assert list(probes) == list(caches)
    assert time.monotonic() - begun < 1.5, "one after the other they take as long"
    findings = checks.run(caches, context=BARE, probes=probes)
    assert [finding.alias for finding in findings] == ["default"], "of a server that is shared it is said once"


def test_what_has_no_server_is_not_asked(tmp_path):
    memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache"}
    files = {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "cache")}
    assert checks.probe({"default": memory, "files": files}, context=BARE) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_alias_is_not_asked():
    assert checks.probe(on(REDIS, "redis://127.0.0.1:1", TIMEOUT="x"), context=BARE) == {}


def test_a_table_in_a_sites_database_is_not_looked_for_elsewhere():
    probes = checks.probe(on(DATABASE, "pages"), context=Context(in_django=True))
    assert "where Django runs" in probes["default"].unasked


# The command --------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["check", *arguments])
    return code, capsys.readouterr().out


def test_check_exits_by_what_the_servers_say(sound, capsys):
    config = f"{url(sound)}?key_prefix=shop"
    code, output = run(capsys, "--config", config)
    assert (code, output.splitlines()[-1]) == (0, "Nothing is wrong.")
    assert f"  default  redis://127.0.0.1:{sound.port} (primary)  Redis " in output
    sound.ask("CONFIG", "SET", "maxmemory", "0")
    assert run(capsys, "--config", config)[0] == 1
    assert run(capsys, "--config", config, "--silence", "W023")[0] == 0
    sound.process.kill()
    code, output = run(capsys, "--config", config)
    assert (code, output.splitlines()[-1]) == (2, "1 error.")
    assert "(primary)" in output
    assert "out of reach" in output


def test_check_offline_asks_nobody(sound, capsys):
    sound.process.kill()
    code, output = run(capsys, "--offline", "--config", f"{url(sound)}?key_prefix=shop")
    assert code == 0
    assert "Servers" not in output


@pytest.mark.slow
def test_check_has_a_timeout(sound, capsys):
    sound.process.pause()
    config = f"{url(sound)}?key_prefix=shop&socket_timeout=60"
    begun = time.monotonic()
    assert run(capsys, "--timeout", "0.2", "--config", config)[0] == 2
    assert time.monotonic() - begun < 5
    assert run(capsys, "--timeout", "0")[0] == 2
    assert run(capsys, "--timeout", "soon")[0] == 2


def test_check_as_json_has_the_servers(sound, capsys):
    code, output = run(capsys, "--json", "--config", f"{url(sound).replace('//', '//:hunter2@')}?key_prefix=shop")
    assert code == 2
    assert "hunter2" not in output
    (server,) = json.loads(output)["servers"]
    assert (server["alias"], server["address"]) == ("default", f"redis://127.0.0.1:{sound.port}")
    assert server["is_refusal"] is True
    code, output = run(capsys, "--json", "--config", f"{url(sound)}?key_prefix=shop")
    (server,) = json.loads(output)["servers"]
    assert (server["product"], server["failure"]) == ("Redis", "")
    assert server["latency"] < 1
