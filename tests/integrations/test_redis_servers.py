"""The Redis cache on servers that are full, ask for a password, or speak TLS."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.redis import RedisCache
from storeroom.exceptions import StorageError
from storeroom.testing.contract.suite import Driver
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, redis_binary, redis_server, running

__all__ = ["redis_server"]


# A full server --------------------------------------------------------------------------------


def test_full_server_stores_nothing_and_says_so(redis_server: RedisServer) -> None:
    """A server that is full and evicts nothing is no outage: reads go on, and writes say that nothing was stored."""
    location = f"redis://127.0.0.1:{redis_server.port}?client_name=full"
    cache = RedisCache(location, {})
    cache.set("k", "v")
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    assert cache.set("l", "v") is None
    assert cache.add("l", "v") is False
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get("k") == "v"
    assert cache.stats().errors >= 4
    assert not cache._engine.breaker.is_open
    strict = RedisCache(location, {"OPTIONS": {"on_error": "raise"}})
    for write in (lambda: strict.set("l", "v"), lambda: strict.get_or_set("l", lambda: 1), cache.lock("lock").acquire):
        with pytest.raises(StorageError, match="it is full and evicts nothing"):
            write()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_full_server_keeps_nobody_waiting(redis_server: RedisServer, mode: str) -> None:
    """On a full server, which takes no lease, each caller computes for itself at once."""
    redis = RedisCache(f"redis://127.0.0.1:{redis_server.port}?client_name=waiting-{mode}", {})
    redis.set_many({"stale": 1, "old": 1})
    redis_server.ask("CONFIG", "SET", "maxmemory", "1")
    cache = Driver(redis, mode)

    async def compute() -> list[Any]:
        return [
            await cache.get_or_set("a", lambda: "computed"),
            await cache.get_or_set("b", lambda: "computed", tags=["t"]),
            await cache.get_or_set("c", lambda: "computed", stale_while_revalidate=60),
            await cache.get_or_set_many(["d", "e"], lambda keys: dict.fromkeys(keys, "computed")),
            await cache.refresh("old", lambda: "computed"),
        ]

    begun = time.monotonic()
    assert asyncio.run(compute()) == [*["computed"] * 3, dict.fromkeys("de", "computed"), "computed"]
    assert time.monotonic() - begun < 1
    assert redis.get_many(["a", "b", "c", "d", "e"]) == {}


# Logins and encryption ------------------------------------------------------------------------


def test_password_is_told_to_the_server(redis_server: RedisServer) -> None:
    """A password in the URL or beside it logs in; a wrong one is an outage, told with its reason and no password."""
    redis_server.ask("CONFIG", "SET", "requirepass", "hunter2")
    address = f"127.0.0.1:{redis_server.port}/0"
    for location, options in (
        (f"redis://:hunter2@{address}", {}),
        (f"redis://default:hunter2@{address}", {}),
        (f"redis://{address}", {"PASSWORD": "hunter2"}),
        (f"unix://:hunter2@{redis_server.socket}?db=3", {}),
    ):
        cache = RedisCache(location, {"OPTIONS": options})
        assert cache.add(location, 1) is True
        assert asyncio.run(cache.aget(location)) == 1
    wrong = RedisCache(f"redis://:wrong-secret@{address}", {"OPTIONS": {"on_error": "raise"}})
    for read in (lambda: wrong.get("k"), lambda: asyncio.run(wrong.aget("k"))):
        with pytest.raises(StorageError, match="invalid username-password pair") as caught:
            read()
        assert "wrong-secret" not in str(caught.value)


def test_connections_by_tls_verify_the_certificate(tmp_path: Path) -> None:
    """A connection by TLS needs a certificate of a known authority for the host's name, unless that is turned off."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    for _ in running(RedisServer(redis_binary(), tmp_path / "server", "--tls-port", str(port), *files)):
        strict = {"ssl_min_version": "1.3", "ssl_ciphers": "ECDHE+AESGCM"}
        options = {"ssl_ca_certs": str(certificate), "on_error": "raise", "socket_connect_timeout": 20, **strict}
        cache = RedisCache(f"rediss://localhost:{port}/0", {"OPTIONS": options})
        cache.set("k", "v" * 100_000)
        assert cache.get("k") == "v" * 100_000
        assert asyncio.run(cache.aget("k")) == "v" * 100_000
        for location, refused in (
            (f"rediss://localhost:{port}/0", {"socket_connect_timeout": 20}),  # whatever the policy
            (f"rediss://127.0.0.1:{port}/0", options),
        ):
            other = RedisCache(location, {"OPTIONS": refused})
            for read in (lambda other=other: other.get("k"), lambda other=other: asyncio.run(other.aget("k"))):
                with pytest.raises(StorageError, match="the certificates that OPTIONS name"):
                    read()
        careless = RedisCache(f"rediss://127.0.0.1:{port}/0", {"OPTIONS": {"ssl_cert_reqs": "none"}})
        assert careless.get("k") == asyncio.run(careless.aget("k")) == "v" * 100_000
