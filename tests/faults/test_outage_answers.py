"""What each operation answers during an outage: docs/outages.md, held against servers that were killed."""

import asyncio
import inspect
import itertools
import logging
import re
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom import registry, timeouts
from storeroom.backends.db import DatabaseCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import MemcachedCache, PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.exceptions import (
    ConfigurationError,
    KeyNotFoundError,
    NotSupportedError,
    SerializationError,
    StorageError,
    ValueTypeError,
)
from storeroom.storage.outages import CircuitBreaker
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.contract.suite import Driver
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import needs_pylibmc
from tests.servers.memcached import running as running_memcached
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, redis_binary
from tests.servers.redis import running as running_redis

PAGE = Path(__file__).parents[2] / "docs" / "outages.md"
POLICIES = ("miss", "raise", "fallback:memory")

Operation: TypeAlias = Callable[[Any], Coroutine[Any, Any, Any]]


async def _iter_keys(cache: Any) -> Any:
    if cache.is_async:
        return [key async for key in cache.cache.aiter_keys("*")]
    return list(cache.cache.iter_keys("*"))


async def _lock(cache: Any) -> Any:
    lock = cache.cache.lock("l", timeout=1)
    return await lock.aacquire() if cache.is_async else lock.acquire()


OPERATIONS: dict[str, Operation] = {
    "get": lambda cache: cache.get("k", "default"),
    "get_many": lambda cache: cache.get_many(["a", "b"]),
    "set": lambda cache: cache.set("k", "value"),
    "set_many": lambda cache: cache.set_many({"a": 1, "b": 2}),
    "add": lambda cache: cache.add("k", "value"),
    "touch": lambda cache: cache.touch("k", 10),
    "expire_at": lambda cache: cache.expire_at("k", 4e9),
    "delete": lambda cache: cache.delete("k"),
    "has_key": lambda cache: cache.has_key("k"),
    "delete_many": lambda cache: cache.delete_many(["a", "b"]),
    "ttl": lambda cache: cache.ttl("k"),
    "get_or_set": lambda cache: cache.get_or_set("k", lambda: "computed"),
    "get_or_set_many": lambda cache: cache.get_or_set_many(["k"], lambda keys: dict.fromkeys(keys, "computed")),
    "refresh": lambda cache: cache.refresh("k", lambda: "computed"),
    "incr": lambda cache: cache.incr("n"),
    "decr": lambda cache: cache.decr("n"),
    "incr_version": lambda cache: cache.incr_version("n"),
    "decr_version": lambda cache: cache.decr_version("n", version=2),
    "keys": lambda cache: cache.keys(),
    "count": lambda cache: cache.count(),
    "clear": lambda cache: cache.clear(),
    "invalidate_tags": lambda cache: cache.invalidate_tags("red"),
    "lock": _lock,
    "set with nx=True": lambda cache: cache.set("k", "value", nx=True),
    "expire": lambda cache: cache.expire("k", 10),
    "persist": lambda cache: cache.persist("k"),
    "pttl": lambda cache: cache.pttl("k"),
    "iter_keys": _iter_keys,
    "delete_pattern": lambda cache: cache.delete_pattern("*"),
}

MEANINGS: dict[str, Callable[[Any], bool]] = {
    "the default": lambda result: result == "default",
    "`{}`": lambda result: result == {},
    "`None`": lambda result: result is None,
    "`False`": lambda result: result is False,
    "`0`": lambda result: result == 0 and result is not False,
    "all keys": lambda result: result == ["a", "b"],
    "what is computed": lambda result: result in ("computed", {"k": "computed"}),
}
"""How a cell of the table begins -> whether a result is that."""


def answers() -> dict[str, tuple[str, str, str]]:
    """Return operation -> what the page says of it under each policy."""
    said = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            for name in re.findall(r"`[a-z_]+`(?: with `nx=True`)?", cells[0]):
                said[name.replace("`", "")] = (cells[1], cells[2], cells[3])
    return said


ANSWERS = answers()


def test_page_tells_of_every_operation() -> None:
    """Of all those that a program calls, and of none that there is not."""
    assert ANSWERS.keys() == OPERATIONS.keys()
    public = {name for name, _ in inspect.getmembers(RedisCache, inspect.isfunction) if not name.startswith("_")}
    twins = {name for name in public if name.startswith("a") and name[1:] in public}
    keys = {"make_key", "make_and_validate_key", "validate_key", "get_backend_timeout"}
    without_server = keys | {"check_location", "close", "probe", "stats", "prune"}
    assert public - twins - without_server == OPERATIONS.keys() - {"set with nx=True"}


# The caches -----------------------------------------------------------------------------------


class Away:
    """A server that was killed, and caches that ask for it."""

    def __init__(self, backend: type[BaseCache], location: str, **options: Any) -> None:
        self.backend, self.location, self.options = backend, location, options
        self._numbers = itertools.count()

    def cache(self, policy: str, **options: Any) -> Any:
        """Return a cache whose circuit breaker is closed."""
        cache = self.backend(
            self.location, {"TIMEOUT": None, "OPTIONS": {"on_error": policy, **self.options, **options}}
        )
        for breaker in breakers(cache):
            breaker.reset()
        return cache

    def memory(self) -> LocMemCache:
        return LocMemCache(f"fallback {next(self._numbers)}", {"TIMEOUT": None})


def breakers(cache: Any) -> list[CircuitBreaker]:
    if isinstance(cache, MemcachedCache):
        return [server.breaker for server in cache._group.servers]
    return [cache._engine.breaker]


AWAY = ["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc), "postgresql"]


@pytest.fixture(scope="module", params=AWAY)
def away(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    directory = tmp_path_factory.mktemp("away")
    with engines_of_its_own():
        if request.param == "redis":
            for server in running_redis(RedisServer(redis_binary(), directory)):
                server.process.kill()
                yield Away(RedisCache, f"redis://127.0.0.1:{server.port}/0?client_name=away")
        elif request.param == "postgresql":
            # Its start takes a second, and what is left of one that was killed is a port where nobody listens.
            yield Away(DatabaseCache, "t", url=f"postgresql://u@127.0.0.1:{free_port()}/test")
        else:
            with running_memcached(directory, by_port=True) as servers:
                servers.servers[0].process.kill()
                backend = PyMemcacheCache if request.param == "pymemcache" else PyLibMCCache
                yield Away(backend, servers.servers[0].location)


async def _pttl(cache: Any) -> int:
    return round(1000 * await cache.ttl("k"))


OF_DJANGO_REDIS: dict[str, Operation | None] = {
    "set with nx=True": OPERATIONS["add"],
    "expire": OPERATIONS["touch"],
    "persist": lambda cache: cache.touch("k", None),
    "pttl": _pttl,
    "iter_keys": None,
    "delete_pattern": None,
}
"""What Redis alone has -> how other caches say the same."""

ABSENT_BEFORE = {"add", "set with nx=True", "get_or_set", "get_or_set_many"}


def outcome(cache: Any, operation: Operation, mode: str) -> Any:
    """Return what an operation returns, or the class of what it raises."""

    async def run() -> Any:
        return await operation(Driver(cache, mode))

    try:
        return asyncio.run(run())
    except (StorageError, NotSupportedError, ValueError) as error:
        return type(error)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_answers_as_the_page_says(
    away: Away, name: str, policy: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the failure itself, and then without asking the server."""
    is_redis, lists_keys = away.backend is RedisCache, not issubclass(away.backend, MemcachedCache)
    if name in OF_DJANGO_REDIS and not is_redis:
        assert name == "set with nx=True" or not hasattr(away.backend, name)
        return
    monkeypatch.setattr(registry, "caches", {"memory": away.memory()})
    cache, same = away.cache(policy), away.memory()
    said = ANSWERS[name][POLICIES.index(policy)]
    if policy == "fallback:memory":
        for prepared in (cache, same):
            prepared.set_many({"n": 1, "b": 2} | ({} if name in ABSENT_BEFORE else {"k": "kept"}), timeout=100)
            prepared.set("n", 1, version=2)
    for is_open in (False, True):
        for breaker in breakers(cache):
            breaker.reset()
            breaker.is_open, breaker._probe_at = is_open, timeouts.now() + breaker._pause
        errors = cache.stats().errors
        result = outcome(cache, OPERATIONS[name], mode)
        if name in {"keys", "count"} and not lists_keys:
            assert result is NotSupportedError
        elif said == "raises":
            assert result is StorageError
        elif said == "as the other cache":
            expected = outcome(same, OF_DJANGO_REDIS.get(name) or OPERATIONS[name], mode)
            assert result == (pytest.approx(expected, rel=0.1) if name in {"ttl", "pttl"} else expected)
            assert cache.stats().errors > errors, "it is counted"
        else:
            (meaning,) = (check for begin, check in MEANINGS.items() if said.startswith(begin))
            assert meaning(result), f"{name} returned {result!r}; the page says: {said}"
            assert cache.stats().errors > errors, "it is counted"


@pytest.mark.parametrize("policy", POLICIES)
def test_mistakes_of_the_program_raise_during_an_outage(
    away: Away, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do at all times."""
    monkeypatch.setattr(registry, "caches", {"memory": LocMemCache("mistakes", {})})
    cache = away.cache(policy)
    with pytest.raises(SerializationError):
        cache.set("k", lambda: None)
    with pytest.raises(ValueError, match="timeout"):
        cache.set("k", 1, timeout="soon")
    if policy == "fallback:memory":
        cache.set("text", "no number")
        with pytest.raises(ValueTypeError):
            cache.incr("text")


def test_fallback_that_is_no_cache_of_storerooms_is_told(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Django an alias may have a backend of Django's, which has no hooks."""
    monkeypatch.setattr(registry, "caches", {"memory": object()})
    with pytest.raises(ConfigurationError, match=r"CACHES\['memory'\] is a object"):
        away.cache("fallback:memory").get("k")


# The circuit breaker --------------------------------------------------------------------------


#: Seconds that a server which does not answer is waited for: longer than a machine stands still.
HANGS = 0.6


@pytest.fixture(params=["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)])
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A cache, and its server's process."""
    options = {"OPTIONS": {"socket_timeout": HANGS, "socket_connect_timeout": HANGS}}
    with engines_of_its_own():
        if request.param == "redis":
            for server in running_redis(RedisServer(redis_binary(), tmp_path)):
                yield RedisCache(f"redis://127.0.0.1:{server.port}/0?client_name=mortal", options), server
        else:
            backend = PyMemcacheCache if request.param == "pymemcache" else PyLibMCCache
            with running_memcached(tmp_path, by_port=True) as servers:
                yield backend(servers.servers[0].location, options), servers.servers[0]


def _open(cache: Any) -> CircuitBreaker:
    (breaker,) = breakers(cache)
    while not breaker.is_open:
        cache.get("k")
    return breaker


@pytest.mark.slow
def test_recovery_is_noticed_by_a_program_that_only_counts(mortal: tuple[Any, Any]) -> None:
    """That there is no such entry is an answer, too; a limiter asks nothing else after a restart."""
    cache, server = mortal
    server.process.kill()
    _open(cache)
    server.start()
    begun = time.monotonic()
    while True:
        try:
            cache.incr("requests")
            break
        except (KeyNotFoundError, StorageError):
            cache.add("requests", 1)
        assert time.monotonic() - begun < 2
        time.sleep(0.005)


@pytest.mark.slow
def test_one_caller_at_a_time_looks_whether_a_hanging_server_is_back(mortal: tuple[Any, Any]) -> None:
    """The others are answered at once, whatever the probe waits for."""
    cache, server = mortal
    cache.set("k", "v")
    server.process.pause()
    try:
        breaker = _open(cache)
        failures, slow = breaker.failures, []

        def read(_: int) -> None:
            begun = time.monotonic()
            while time.monotonic() - begun < 1.6:
                before = time.monotonic()
                assert cache.get("k") is None
                slow.append(time.monotonic() - before)
                time.sleep(0.002)

        in_threads(8, read)
        assert breaker.failures - failures in {1, 2}
        assert sum(seconds > 0.9 * HANGS for seconds in slow) <= breaker.failures - failures
        assert statistics.quantiles(slow, n=100)[98] <= 0.01
        assert breaker.is_open
    finally:
        server.process.resume()
    eventually(lambda: cache.get("k") == "v")
    assert not breaker.is_open


@pytest.mark.slow
def test_each_outage_is_told_of_by_two_lines(mortal: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    """However many threads notice, and however often it happens."""
    cache, server = mortal
    cache.set("k", "v")
    with caplog.at_level(logging.WARNING, "storeroom"):
        for _ in range(2):
            server.process.kill()
            in_threads(8, lambda _: _open(cache))
            server.start()
            eventually(lambda: cache.add("back", 1, timeout=0.001) or not breakers(cache)[0].is_open)
    told = [(record.name, record.levelname, "is down" in record.getMessage()) for record in caplog.records]
    assert told == [("storeroom.outages", "ERROR", True), ("storeroom.outages", "WARNING", False)] * 2


@pytest.mark.parametrize("policy", POLICIES)
def test_statistics_are_there_during_an_outage(away: Away, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the policy: to ask for them is no operation that fails, and is not counted as one."""
    monkeypatch.setattr(registry, "caches", {"memory": away.memory()})
    cache = away.cache(policy)
    errors = cache.stats().errors
    for stats in (cache.stats(), asyncio.run(cache.astats()), cache.stats()):
        assert (stats.entries, stats.bytes, stats.errors) == (None, None, errors)


def test_breaker_is_not_closed_by_what_never_reached_the_server(away: Away) -> None:
    """A value that cannot be stored tells nothing of the server."""
    cache = away.cache("miss")
    breaker = _open(cache)
    breaker._probe_at = 0.0
    with pytest.raises(SerializationError):
        cache.set("k", lambda: None)
    assert breaker.is_open
