"""Servers of a Redis cluster that are taken for a single one, and those whose addresses lead elsewhere."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.testing.concurrency import eventually
from storeroom.testing.contract.suite import Driver
from tests.integrations.checks.looks import REDIS, found, ids, on
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, redis_binary, redis_server, running
from tests.servers.redis_groups import Cluster, cluster, redis_cluster

__all__ = ["redis_cluster", "redis_server"]

PATIENT = {"socket_timeout": 20, "socket_connect_timeout": 20}


# A server of a cluster by the URL of a single one ---------------------------------------------


async def in_turn(operation: Callable[[str], Awaitable[Any]], keys: Sequence[str]) -> None:
    for key in keys:
        await operation(key)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("database", ["", "/0", "/3"])
def test_a_server_of_a_cluster_is_told_from_a_single_one(redis_cluster: Cluster, mode: str, database: str) -> None:
    """Under every policy the error says that it is a cluster, and which URL to write; the rest of keys is no matter."""
    port = redis_cluster.primaries()[0].port
    location = f"redis://127.0.0.1:{port}{database}"
    mended = rf"one of a cluster: write redis\+cluster://127.0.0.1:{port} in LOCATION"
    for policy in ("miss", "raise"):
        cache = Driver(RedisCache(location, {"OPTIONS": {"on_error": policy, **PATIENT}}), mode)

        async def work(cache: Driver = cache) -> None:
            keys = [f"k{number}" for number in range(30)]
            for each in (lambda key: cache.set(key, 1), cache.get):
                with pytest.raises(StorageError, match=mended):
                    await in_turn(each, keys)
            with pytest.raises(StorageError, match=mended):
                await cache.get_many(keys)

        asyncio.run(work())


def test_check_tells_a_cluster_from_a_single_server(redis_cluster: Cluster, redis_server: RedisServer) -> None:
    """A location of redis:// that leads to one server of several is refused, with the URL to write."""
    port = redis_cluster.primaries()[1].port
    finding = found("E008", on(REDIS, f"redis://127.0.0.1:{port}/0"))
    assert f"write redis+cluster://127.0.0.1:{port} in LOCATION" in finding.what
    assert "E008" not in ids(on(REDIS, f"redis://127.0.0.1:{redis_server.port}/0"))


def test_a_cluster_of_one_server_may_be_taken_for_a_single_one(tmp_path: Path) -> None:
    """A server that holds all slots of its cluster answers for all keys, and nothing is wrong."""
    program = RedisServer(redis_binary(), tmp_path, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    for server in running(program):
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda server=server: "cluster_state:ok" in server.ask("CLUSTER", "INFO"))
        location = f"redis://127.0.0.1:{server.port}/0"
        cache = RedisCache(location, {"OPTIONS": PATIENT})
        for number in range(20):
            cache.set(f"k{number}", number)
        assert [cache.get(f"k{number}") for number in range(20)] == list(range(20))
        assert "E008" not in ids(on(REDIS, location))


# Addresses that lead elsewhere ----------------------------------------------------------------


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose servers name each other by a name that nobody can look up, as behind NAT."""
    with cluster(tmp_path_factory.mktemp("hidden")) as group:
        for server in group.servers:
            server.ask("CONFIG", "SET", "cluster-announce-hostname", "hidden.invalid")
            server.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")

        def told() -> set[str]:
            tables = [server.ask("CLUSTER", "SLOTS") for server in group.servers]
            return {node[0] for table in tables for _, _, *nodes in table for node in nodes}

        eventually(lambda: told() == {"hidden.invalid"})
        yield group


def reached(address: tuple[str, int]) -> tuple[str, int]:
    """Map addresses as a program's own function does."""
    host, port = address
    return ("127.0.0.1" if host == "hidden.invalid" else host), port


def maps(group: Cluster) -> dict[str, Any]:
    each = {f"hidden.invalid:{server.port}": f"127.0.0.1:{server.port}" for server in group.servers}
    return {"host": {"hidden.invalid": "127.0.0.1"}, "each": each, "function": reached}


@pytest.mark.parametrize("kind", ["host", "each", "function"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_addresses_of_a_cluster_are_mapped(hidden: Cluster, kind: str, mode: str) -> None:
    """All keys are reached, by a map of hosts, of addresses, or by a function, and in redis-py's spelling."""
    remap = maps(hidden)[kind]
    for options in ({"address_remap": remap}, {"redis_client_kwargs": {"address_remap": remap}}):
        cache = Driver(RedisCache(hidden.url(), {"OPTIONS": {**options, "on_error": "raise", **PATIENT}}), mode)

        async def work(cache: Driver = cache) -> None:
            values = {f"k{number}": number for number in range(100)}
            assert await cache.set_many(values) == []
            assert await cache.get_many(values) == values
            assert await cache.count() == 100
            await cache.clear()
            assert await cache.count() == 0

        asyncio.run(work())


def test_without_a_map_the_addresses_lead_nowhere(hidden: Cluster) -> None:
    """A server whose address cannot be looked up is out of reach: the map is what makes the difference."""
    cache = RedisCache(hidden.url(), {"OPTIONS": {"on_error": "raise"}})
    with pytest.raises(StorageError, match="out of reach"):
        cache.set_many({f"k{number}": number for number in range(100)})


def test_mapped_addresses_hold_for_moves_near_tiers_and_checks(hidden: Cluster) -> None:
    """MOVED, the messages to near tiers, and the servers that check asks all go by the map."""
    options = {"address_remap": maps(hidden)["host"], "near": {"max_staleness": 600}, "on_error": "raise", **PATIENT}
    one, other = (RedisCache(hidden.url(), {"OPTIONS": options}) for _ in range(2))
    one.set_many({f"k{number}": number for number in range(50)})
    assert len(other.get_many([f"k{number}" for number in range(50)])) == 50
    one.set("k1", "new")
    eventually(lambda: other.get("k1") == "new")
    tracker = other._engine._tracker
    assert tracker is not None
    eventually(lambda: tracker._heard_until is not None)
    source = hidden.owner(":1:k1")
    target = next(server for server in hidden.primaries() if server is not source)
    hidden.move(source, target, [source.ask("CLUSTER", "KEYSLOT", ":1:k1")])
    for cache in (one, other):
        cache.set("k1", "moved")
        assert cache.get("k1") == "moved"
    told = one.probe(20).servers
    assert [answer.failure for answer in told] == [""] * len(told)
    assert all(answer.endpoint.host == "127.0.0.1" for answer in told)
    assert sum(answer.role == "primary" for answer in told) == 3


@pytest.mark.parametrize("wrong", ["10.0.0.1", 3, ["a"], {"a:b": "c"}])
def test_a_map_that_is_none_is_refused(wrong: Any) -> None:
    """An address map is a dict of addresses or a function, and the error says so."""
    with pytest.raises(ConfigurationError, match=r"address_remap.*expected a dict such as"):
        RedisCache("redis+cluster://h", {"OPTIONS": {"address_remap": wrong}})


# Passwords, and names in certificates ---------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+cluster", "redis+sentinel"])
@pytest.mark.parametrize("character", ["?", "#", "/"])
@pytest.mark.parametrize("before", ["pa", "12", ""])
@pytest.mark.parametrize("after", ["word9", "db=1", ""])
@pytest.mark.parametrize("user", ["", "user"])
def test_characters_that_cut_a_password_are_named(
    scheme: str, character: str, before: str, after: str, user: str
) -> None:
    """A password with ?, # or / is refused with its percent-encoding, and never shown; encoded, it is understood."""
    password = f"{before}{character}{after}"
    rest = "@host:6379/mymaster" if scheme == "redis+sentinel" else "@host:6379"
    with pytest.raises(ConfigurationError, match=f"expected %{ord(character):X} ") as caught:
        RedisCache.check_location(f"{scheme}://{user}:{password}{rest}", RedisCache("redis://h", {}).settings)
    assert not after or after not in str(caught.value)
    encoded = password.replace(character, f"%{ord(character):X}")
    server = RedisCache(f"{scheme}://{user}:{encoded}{rest}", {})._engine.target.servers[0]
    assert (server.password, server.host) == (password, "host" if scheme != "redis+sentinel" else server.host)


@pytest.mark.parametrize(
    "location",
    [
        "redis://host?password=a@b",
        "redis://host:6379/0?client_name=a@b",
        "redis://[::1]:6379?password=a@b",
        "redis+cluster://one,two:7000?password=a@b",
        "unix:///run/redis@1.sock",
    ],
)
def test_an_at_sign_elsewhere_is_no_password(location: str) -> None:
    """An @ in the query of a URL, or in the path of a socket, is what it is."""
    target = RedisCache(location, {})._engine.target
    assert {"a@b", "/run/redis@1.sock"} & {*dict(target.options).values(), target.servers[0].path}


def test_a_certificate_for_another_name_is_told_with_the_remedy(tmp_path: Path) -> None:
    """A server's certificate that is not for the address names the ways out."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    port = free_port()
    tls = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    tls += ("--tls-ca-cert-file", str(certificate))
    cluster_of_one = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes")
    program = RedisServer(redis_binary(), tmp_path / "server", "--tls-port", str(port), *tls, *cluster_of_one)
    for server in running(program):
        server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        server.ask("CONFIG", "SET", "cluster-announce-ip", "127.0.0.1", "cluster-announce-tls-port", port)
        eventually(lambda server=server: "cluster_state:ok" in server.ask("CLUSTER", "INFO"))
        options = {"ssl_ca_certs": str(certificate), **PATIENT}
        location = f"rediss+cluster://localhost:{port}"
        cache = RedisCache(location, {"OPTIONS": options})
        for read in (cache.get, lambda key, refused=cache: asyncio.run(refused.aget(key))):
            with pytest.raises(StorageError, match=r"certificate there is not for the address.*address_remap"):
                read("k")
        for mended in ({"address_remap": {"127.0.0.1": "localhost"}}, {"ssl_check_hostname": False}):
            cache = RedisCache(location, {"OPTIONS": options | mended})
            cache.set("k", 1)
            assert (cache.get("k"), asyncio.run(cache.aget("k"))) == (1, 1)
