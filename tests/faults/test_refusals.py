"""What can never work is loud: servers that refuse a cache, and values that a server refuses."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from storeroom import caches, configure
from storeroom.backends.db import DatabaseCache
from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.exceptions import StorageError, ValueTooLargeError
from storeroom.testing.concurrency import PATIENCE, in_background
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import HASTY, PATIENT, Site, kinds
from tests.servers.memcached import needs_pylibmc


def database(location: Any, params: dict[str, Any]) -> DatabaseCache:
    params["OPTIONS"]["url"] = location
    return DatabaseCache("refused", params)


Open = Callable[[Any, dict[str, Any]], Any]

REFUSED: list[Any] = [
    # The server's kind, the cache, its location at a port, and words of the error
    ("redis", RedisCache, "redis://:wrong@127.0.0.1:{port}/0", "user name and the password"),
    ("redis", RedisCache, "redis://127.0.0.1:{port}/99999", "no database of that number"),
    ("redis", RedisCache, "rediss://127.0.0.1:{port}/0", "speaks Redis, and is asked by TLS"),
    ("redis", RedisCache, "redis+cluster://127.0.0.1:{port}", "in no cluster"),
    ("redis", RedisCache, "redis+sentinel://127.0.0.1:{port}/mymaster/0", "is no Sentinel"),
    ("redis", PyMemcacheCache, "127.0.0.1:{port}", "speaks Redis's protocol"),
    pytest.param("redis", PyLibMCCache, "127.0.0.1:{port}", "speaks Redis's protocol", marks=needs_pylibmc),
    ("redis", database, "mysql://root@127.0.0.1:{port}/test", "speaks Redis's protocol"),
    ("pymemcache", RedisCache, "redis://127.0.0.1:{port}/0", "is no Redis"),
    ("postgresql", RedisCache, "redis://127.0.0.1:{port}/0", "speaks PostgreSQL's protocol"),
    ("postgresql", PyMemcacheCache, "127.0.0.1:{port}", "speaks PostgreSQL's protocol"),
    ("postgresql", database, "postgresql://storeroom@127.0.0.1:{port}/nowhere", "Create the role and the database"),
    ("postgresql", database, "postgresql://nobody@127.0.0.1:{port}/postgres", "Create the role and the database"),
    ("postgresql", database, "postgresql://storeroom@127.0.0.1:{port}/postgres?sslmode=require", "TLS"),
    ("mariadb", RedisCache, "redis://127.0.0.1:{port}/0", "is no Redis"),
    ("mariadb", database, "mysql://root:wrong@127.0.0.1:{port}/test", "user name and the password"),
    ("mariadb", database, "mysql://root@127.0.0.1:{port}/nowhere", "Create the database"),
    ("mariadb", database, "postgresql://storeroom@127.0.0.1:{port}/postgres", "is no PostgreSQL"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "backend", "location", "words"), REFUSED, indirect=["kind"])
def test_server_that_refuses_a_cache_is_an_error(site: Site, backend: Open, location: str, words: str) -> None:
    """Every operation raises, by both APIs, under the policy that turns outages into misses; statistics do not."""
    options = HASTY if words.startswith("speaks") else dict.fromkeys(HASTY, PATIENT)  # the others answer
    cache = backend(location.format(port=site.server.port), {"OPTIONS": dict(options)})
    for _ in range(4):  # the last without asking
        with pytest.raises(StorageError, match=words):
            cache.get("k")
    with pytest.raises(StorageError, match=words):
        asyncio.run(cache.aset("k", 1))
    cache.stats()


class Website(BaseHTTPRequestHandler):
    """A server of another protocol altogether."""

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def website() -> Iterator[int]:
    """The port of a server that speaks HTTP."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Website) as server:
        serving = in_background(server.serve_forever, 0.02)
        yield server.server_port
        server.shutdown()
        serving.result(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "location"),
    [
        (RedisCache, "redis://127.0.0.1:{port}/0"),
        (PyMemcacheCache, "127.0.0.1:{port}"),
        pytest.param(PyLibMCCache, "127.0.0.1:{port}", marks=needs_pylibmc),
        (database, "mysql://root@127.0.0.1:{port}/test"),
    ],
)
def test_website_is_no_cache(website: int, backend: Open, location: str) -> None:
    """A port at which HTTP is spoken is an error at the first operation."""
    cache = backend(location.format(port=website), {"OPTIONS": dict(HASTY)})
    with pytest.raises(StorageError, match=r"speaks HTTP's protocol|is no Redis"):
        cache.get("k")


@kinds(pytest.param("pylibmc", marks=needs_pylibmc))
def test_user_name_for_a_server_without_users_is_an_error(site: Site) -> None:
    """A Memcached that was not started with -S answers no login, and never will."""
    cache = site.cache(binary=True, username="user", password="secret")
    with pytest.raises(StorageError, match="start it with -S"):
        cache.get("k")


@kinds("redis", "pymemcache")
def test_refusal_names_the_alias(site: Site) -> None:
    """An error of a cache that CACHES names says which one, for each alias its own."""
    alias = {"BACKEND": RedisCache, "LOCATION": f"redis://:wrong@127.0.0.1:{site.server.port}"}
    before = caches.swap(None)
    configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"}, "first": alias, "second": alias})
    try:
        for name in ("first", "second"):
            with pytest.raises(StorageError, match=rf"refuses CACHES\['{name}'\]"):
                caches[name].get("k")
    finally:
        caches.swap(before)


@kinds("redis")
def test_server_that_refuses_a_cache_later_is_down(site: Site, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """A password that is changed under way is told once in the log, with the remedy, and the policy answers."""
    site.server.ask("ACL", "SETUSER", "later", "reset", "on", ">right", "~*", "&*", "+@all")
    cache = RedisCache(f"redis://later:right@127.0.0.1:{site.server.port}/0", {})
    driver = Driver(cache, mode)

    async def work() -> None:
        await driver.set("k", "v")
        site.server.ask("ACL", "SETUSER", "later", "resetpass", ">other")
        site.server.ask("CLIENT", "KILL", "USER", "later")
        with caplog.at_level(logging.ERROR, "storeroom.outages"):
            assert [await driver.get("k", "default") for _ in range(5)] == ["default"] * 5

    asyncio.run(work())
    assert len([message for message in caplog.messages if "user name and the password" in message]) == 1


@kinds("redis")
def test_missing_permission_is_an_error(site: Site, mode: str) -> None:
    """A user who may not run a command, or use the keys, is told all the rights that are needed."""
    site.server.ask("ACL", "SETUSER", "few", "reset", "on", ">pw", "~*:open*", "+@all", "-evalsha", "-watch")
    driver = Driver(RedisCache(f"redis://few:pw@127.0.0.1:{site.server.port}/0", {}), mode)

    async def work() -> None:
        await driver.set("open", 1)
        for refused in (lambda: driver.touch("open", 5), lambda: driver.get("k"), lambda: driver.set("k", 1)):
            with pytest.raises(StorageError, match=r"needs: ACL SETUSER few on '~:\*' \+mget .*\+evalsha \+eval "):
                await refused()

    asyncio.run(work())


# Values -------------------------------------------------------------------------------------

BIG = os.urandom(1_100_000)


@pytest.fixture
def narrow(site: Site) -> Iterator[Site]:
    """A Redis server that takes values of a megabyte at most, and a user who may not ask for that."""
    site.server.ask("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    site.server.ask("ACL", "SETUSER", "blind", "reset", "on", ">pw", "~*", "&*", "+@all", "-config")
    try:
        yield site
    finally:
        site.server.ask("CONFIG", "SET", "proto-max-bulk-len", "512mb")


@kinds("redis")
@pytest.mark.parametrize("user", ["", "blind:pw@"])
def test_value_over_the_servers_limit_is_refused_by_itself(narrow: Site, mode: str, user: str) -> None:
    """The value raises ValueTooLargeError, by whatever it is stored; the server is not down, and other keys go on."""
    cache = RedisCache(f"redis://{user}127.0.0.1:{narrow.server.port}/0", {"KEY_PREFIX": narrow.prefix})
    driver = Driver(cache, mode)

    async def work() -> None:
        await driver.set("k", "old")
        for _ in range(4):
            for store in (
                lambda: driver.set("big", BIG),
                lambda: driver.add("new", BIG),
                lambda: driver.set("tagged", BIG, tags=["t"]),
            ):
                with pytest.raises(ValueTooLargeError, match=r"takes 11000\d\d bytes"):
                    await store()
            assert await driver.get("k") == "old"
        assert await driver.incr("n", default=0) == 1

    asyncio.run(work())
    assert narrow.failures(cache) == 0
