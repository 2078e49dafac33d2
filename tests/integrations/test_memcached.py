"""Memcached by TLS, the round trips of operations, and the drivers with refusals and with many keys."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.memcached.clients import Client
from storeroom.exceptions import StorageError
from storeroom.testing.contract.suite import Driver
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import MemcachedServer, Servers, memcached, needs_pylibmc

__all__ = ["memcached"]


@pytest.fixture(autouse=True)
def _engines() -> Iterator[None]:
    with engines_of_its_own():
        yield


def test_connections_by_tls_verify_the_certificate(tmp_path: Path) -> None:
    """A connection by TLS is made if the program's own context accepts the certificate, and not otherwise."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    files = ("-o", f"ssl_chain_cert={certificate},ssl_key={key}")
    server = MemcachedServer(tmp_path / "server", "-Z", *files, by_port=True)
    server.process._is_ready = server.accepts
    server.start()
    try:
        trusting = ssl.create_default_context(cafile=str(certificate))
        cache = PyMemcacheCache(server.location, {"OPTIONS": {"tls_context": trusting, "on_error": "raise"}})
        cache.set("k", "v" * 100_000)
        assert cache.get("k") == "v" * 100_000
        assert cache.incr_version("k") == 2
        assert asyncio.run(cache.aget("k", version=2)) == "v" * 100_000
        for context in (ssl.create_default_context(), None):
            options = {"tls_context": context, "on_error": "raise", "socket_timeout": 0.5}
            with pytest.raises(StorageError, match=r"out of reach|refuses this cache"):
                PyMemcacheCache(server.location, {"OPTIONS": options}).get("k")
    finally:
        server.stop()


# Round trips ----------------------------------------------------------------------------------

MANY = {f"k{number}": number for number in range(100)}

OPERATIONS: dict[str, Callable[[Driver], Coroutine[Any, Any, Any]]] = {
    "set": lambda cache: cache.set("n", 1),
    "get": lambda cache: cache.get("n"),
    "has_key": lambda cache: cache.has_key("n"),
    "ttl": lambda cache: cache.ttl("n"),
    "get_many": lambda cache: cache.get_many(MANY),
    "set_many": lambda cache: cache.set_many(MANY, timeout=30),
    "add": lambda cache: cache.add("new", 1),
    "add, there": lambda cache: cache.add("n", 1),
    "incr": lambda cache: cache.incr("n"),
    "decr": lambda cache: cache.decr("n"),
    "touch": lambda cache: cache.touch("n", 10),
    "delete": lambda cache: cache.delete("n"),
    "delete_many": lambda cache: cache.delete_many(MANY),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("backend", [PyMemcacheCache, pytest.param(PyLibMCCache, marks=needs_pylibmc)])
def test_operations_ask_as_often_as_the_page_says(
    backend: type[MemcachedCache], mode: str, memcached: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation calls its driver once, or twice where the page says so."""
    cache = backend(memcached.location(), {})
    cache.get("the generation is known from now on")
    server, calls = cache._shards[0]._engine, []
    ask, ask_once = server.ask, server.ask_once

    def counted(operation: str, *args: Any) -> Any:
        calls.append(operation)
        return ask(operation, *args)

    def counted_once(operation: str, *args: Any, probes: bool = False) -> Any:
        calls.append(operation)
        return ask_once(operation, *args, probes=probes)

    monkeypatch.setattr(server, "ask", counted)
    monkeypatch.setattr(server, "ask_once", counted_once)
    cache._shards[0]._generation.state = (cache._shards[0]._generation.state[0], float("inf"))

    async def work() -> dict[str, int]:
        counts = {}
        for name, operation in OPERATIONS.items():
            calls.clear()
            await operation(Driver(cache, mode))
            counts[name] = len(calls)
        return counts

    twice = ("add, there", "incr", "decr", "touch", "delete", "delete_many")
    assert asyncio.run(work()) == dict.fromkeys(OPERATIONS, 1) | dict.fromkeys(twice, 2)


# The drivers ----------------------------------------------------------------------------------

BY_DRIVER = [
    pytest.param(PyMemcacheCache, {}, id="pymemcache"),
    pytest.param(PyLibMCCache, {}, id="pylibmc", marks=needs_pylibmc),
    pytest.param(PyLibMCCache, {"binary": True}, id="pylibmc-binary", marks=needs_pylibmc),
]


@pytest.fixture
def client(backend: type[MemcachedCache], options: dict[str, Any], memcached: Servers) -> Iterator[Client]:
    """A connection to an empty server."""
    cache = backend(memcached.location(), {"OPTIONS": {"socket_timeout": 2, **options}})
    client: Client = cache._shards[0]._engine.make()
    yield client
    client.close()


@pytest.mark.parametrize(("backend", "options"), BY_DRIVER)
def test_refusal_is_not_taken_for_the_next_answer(client: Client) -> None:
    """Refused writes, which the binary protocol answers late, leave the next request its own answer."""
    values = {b"k%d" % number: b"value %d" % number for number in range(5)}
    assert client.set_many(values, 100) == []
    for _ in range(3):
        assert list(client.add_many(dict.fromkeys(values, b"other") | {b"new": b"mine"}, 100)) == [b"new"]
        client.delete_many([b"absent", b"new", b"absent-too", b"gone"])
        assert {key: client.get(key) for key in values} == values
        data, token = client.gets(b"k1") or (b"", None)
        assert data == b"value 1"
        assert list(client.cas_many({b"k1": (data, token), b"k2": (b"no", token)}, 100)) == [b"k1"]
        assert client.get(b"new") is None


@pytest.mark.parametrize(("backend", "options"), BY_DRIVER)
def test_many_keys_are_asked_for_without_waiting_for_each_other(client: Client) -> None:
    """Thousands of long keys are stored and found though the server answers while keys are still being sent."""
    for number in range(30):
        values = {b"%d-%d-" % (number, index) + 150 * b"k": 100 * b"v" for index in range(1000)}
        assert client.set_many(values, 100) == []
        assert client.get_many(list(values)) == values
