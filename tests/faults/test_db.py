"""The database cache when servers die, hang, come back and cut connections, and when rows hold nonsense."""

import asyncio
import gc
import logging
import pickle
import random
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from storeroom import engines
from storeroom.backends.db import DatabaseCache
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import StorageError
from storeroom.testing.concurrency import eventually, in_background, in_threads
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import (
    KINDS,
    MariaDBServer,
    PostgreSQLServer,
    mariadb,
    mariadb_server,
    new_table,
    postgresql,
    postgresql_server,
)
from tests.servers.proxy import Proxy

__all__ = ["mariadb", "mariadb_server", "new_table", "postgresql", "postgresql_server"]

#: Seconds: what a test waits for a server that does not answer.
SHORT = 0.3

#: Seconds: where the server does answer, so that a turn of a busy machine is no outage.
PATIENT = 20.0

HASTY = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}

Server: TypeAlias = PostgreSQLServer | MariaDBServer
Make: TypeAlias = Callable[..., DatabaseCache]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make caches of a table "t" of a database."""

    def make(url: str, table: str = "t", **options: Any) -> DatabaseCache:
        settings = {"url": url, "socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
        return DatabaseCache(table, {"TIMEOUT": None, "OPTIONS": settings})

    with engines_of_its_own():
        yield make


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server of the test's own, of each kind in turn."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return server


@pytest.fixture(params=["postgresql", "mariadb"])
def calm_server(request: pytest.FixtureRequest) -> Server:
    """A server of all tests, which none of them may mistreat."""
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def proxy(calm_server: Server) -> Iterator[Proxy]:
    with Proxy(calm_server.port) as proxy:
        yield proxy


def opens_again(cache: DatabaseCache) -> None:
    """Wait until the breaker lets the server be asked, and it answers."""
    eventually(lambda: cache.set_many({"back": 1}) == [])


# A server that is down ----------------------------------------------------------------------


@pytest.mark.slow
def test_outage_is_ten_thousand_misses_and_two_lines_in_the_log(
    make: Make, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises, most answers take microseconds, and soon after the server is back it is used."""
    cache = make(server.url())
    cache.set("k", "v")
    assert cache.get("k") == "v"
    server.kill()
    seconds = []
    with caplog.at_level(logging.WARNING, "storeroom"):
        while not cache._engine.breaker.is_open:
            assert cache.get("k") is None
        for _ in range(10_000):
            begun = time.perf_counter()
            assert cache.get("k", "default") == "default"
            seconds.append(time.perf_counter() - begun)
        assert statistics.quantiles(seconds, n=100)[98] <= 0.002
        assert cache.stats().errors >= 10_000
        server.start()
        begun = time.monotonic()
        while not cache.add("back", 1):
            assert time.monotonic() - begun < 2
            time.sleep(0.005)
    assert cache.get("back") == 1
    assert cache.get("k") in {"v", None}, "no write waits for the disk, so that the last ones may be lost"
    lines = [record.getMessage() for record in caplog.records if record.name == "storeroom.outages"]
    assert len(lines) == 2, lines
    assert "is down" in lines[0]
    assert "answers again" in lines[1]


@pytest.mark.slow
def test_answers_during_an_outage_pretend_nothing(make: Make, server: Server) -> None:
    """What was not stored is not said to be, and a counter that does not count raises."""
    cache = make(server.url())
    cache.set("k", "v")
    server.kill()
    assert cache.set("k", "v") is None
    assert cache.add("k", "v") is False
    assert cache.set_many({"a": 1, "b": 2}) == ["a", "b"]
    assert cache.get_many(["a", "b"]) == {}
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.has_key("k") is False
    assert cache.ttl("k") == 0
    assert cache.get_or_set("k", lambda: "computed") == "computed"
    for operation in (
        cache.clear,
        cache.keys,
        lambda: cache.incr("n"),
        lambda: cache.incr_version("k"),
        lambda: cache.invalidate_tags("t"),
    ):
        with pytest.raises(StorageError, match=r"PostgreSQL|MySQL"):
            operation()


@pytest.mark.slow
def test_policies_raise_and_fallback(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = LocMemCache("fallback of a database", {"TIMEOUT": None})
    monkeypatch.setattr("storeroom.registry.caches", {"memory": memory})
    raises, falls_back = make(server.url(), on_error="raise"), make(server.url(), on_error="fallback:memory")
    raises.set("k", "v")
    server.kill()
    with pytest.raises(StorageError, match="out of reach"):
        raises.get("k")
    with pytest.raises(StorageError, match="out of reach"):
        asyncio.run(raises.aget("k"))
    falls_back.set("k", "in memory")
    assert falls_back.get("k") == "in memory"
    assert asyncio.run(falls_back.aget("k")) == "in memory"
    assert falls_back.get_or_set("l", lambda: "computed") == "computed"
    assert memory.get("l") == "computed"


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["get", "set", "incr", "add"])
def test_restart_between_two_operations_is_not_noticed(make: Make, server: Server, operation: str) -> None:
    """A connection that the server has closed is replaced before it is used."""
    cache = make(server.url(), socket_timeout=10, socket_connect_timeout=10)
    cache.set("n", 1)
    server.stop()
    server.start()
    arguments = {"set": ("n", 2), "add": ("m", 2)}.get(operation, ("n",))
    getattr(cache, operation)(*arguments)
    expected = {"get": {"n": 1}, "set": {"n": 2}, "incr": {"n": 2}, "add": {"n": 1, "m": 2}}
    assert cache.get_many(["n", "m"]) == expected[operation]
    assert cache.stats().errors == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_hanging_server_is_a_miss_after_the_timeout(make: Make, server: Server, mode: str) -> None:
    """One that has stopped working without closing anything."""
    cache = make(server.url(), **HASTY)
    cache.set("k", "v")
    server.pause()
    begun = time.monotonic()
    try:
        while not cache._engine.breaker.is_open:
            value = cache.get("k") if mode == "sync" else asyncio.run(cache.aget("k"))
            assert value is None
        assert time.monotonic() - begun < 3 * (SHORT + 2) + 2, "PyMySQL and libpq connect in whole seconds"
    finally:
        server.resume()
    opens_again(cache)
    assert cache.get("k") == "v"


@pytest.mark.slow
def test_event_loop_goes_on_while_a_server_hangs(make: Make, server: Server) -> None:
    """Its thread waits for nobody."""
    cache = make(server.url(), **HASTY)
    cache.set("k", "v")

    async def main() -> float:
        server.pause()
        operations = [asyncio.create_task(cache.aget("k")) for _ in range(40)]
        longest = 0.0
        while not all(operation.done() for operation in operations):
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - begun)
        assert {await operation for operation in operations} == {None}
        return longest

    try:
        assert asyncio.run(main()) < 0.25
    finally:
        server.resume()


# A connection that is cut, late or truncated -------------------------------------------------


@pytest.mark.slow
def test_cut_connection_is_a_miss_at_most(make: Make, proxy: Proxy, calm_server: Server) -> None:
    """Whatever is under way when it is cut; afterwards all is well."""
    cache = make(calm_server.url(by_port=proxy.port), calm_server.table())
    cache.set("k", "v")
    stop = threading.Event()

    def cut() -> None:
        while not stop.wait(0.02):
            proxy.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for turn in range(150):
            assert cache.get("k") in {"v", None}
            cache.set(f"n{turn % 5}", turn)
    finally:
        stop.set()
        cutter.join()
    opens_again(cache)
    assert cache.get("k") == "v"


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1, 5, 20, 60])
def test_truncated_reply_is_a_miss(make: Make, proxy: Proxy, calm_server: Server, limit: int) -> None:
    """No part of a reply is taken for the whole."""
    cache = make(calm_server.url(by_port=proxy.port), calm_server.table())
    cache.set("k", "value " * 20)
    proxy.truncate_after = limit
    for _ in range(3):
        proxy.cut()
        assert cache.get("k") is None
    proxy.truncate_after = None
    opens_again(cache)
    assert cache.get("k") == "value " * 20


@pytest.mark.slow
def test_late_reply_is_nobody_elses(make: Make, proxy: Proxy, calm_server: Server) -> None:
    """A connection whose answer did not come in time is used no more."""
    cache = make(calm_server.url(by_port=proxy.port), calm_server.table(), socket_timeout=0.1)
    cache.set_many({"a": "a", "b": "b"})
    proxy.delay = 0.2
    assert cache.get("a") is None
    proxy.delay = 0.0
    time.sleep(0.2)
    eventually(lambda: cache.get("b") is not None)
    assert cache.get("b") == "b"
    assert cache.get("a") == "a"


@pytest.mark.slow
def test_cancelled_task_leaves_the_connection_in_order(make: Make, calm_server: Server) -> None:
    """At any moment; every later answer is the right one."""
    cache = make(calm_server.url(), calm_server.table(), socket_timeout=20)
    cache.set_many({f"k{number}": number for number in range(20)})
    chance = random.Random(3)

    async def main() -> None:
        for _ in range(60):
            tasks = [asyncio.create_task(cache.aget(f"k{number}")) for number in range(20)]
            await asyncio.sleep(chance.random() * 0.003)
            for task in chance.sample(tasks, 10):
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            for number, answer in enumerate(answers):
                assert answer == number or isinstance(answer, asyncio.CancelledError)

    asyncio.run(main())
    assert cache._engine.breaker.failures == 0


@pytest.mark.slow
def test_what_is_under_way_when_the_engine_is_closed_is_closed_when_it_is_over(
    make: Make, proxy: Proxy, calm_server: Server
) -> None:
    """And not before; whoever comes next opens another connection."""
    cache = make(calm_server.url(by_port=proxy.port), calm_server.table())
    cache.set("k", "v")
    assert proxy.connections == 1
    proxy.delay = 1.0
    asked = in_background(cache.get, "k")
    eventually(lambda: proxy.is_holding)
    engines.close_all()
    proxy.delay = 0.0
    assert proxy.connections == 1
    assert asked.result(20) == "v"
    eventually(lambda: not proxy.connections)
    assert [cache.get("k"), cache.get("k")] == ["v", "v"]
    assert proxy.connections == 1
    assert cache._engine.breaker.failures == 0


@pytest.mark.slow
def test_many_loops_in_many_threads_leave_nothing_behind(
    make: Make, calm_server: Server, recwarn: pytest.WarningsRecorder
) -> None:
    cache = make(calm_server.url(), calm_server.table(), socket_timeout=20, max_connections=4)
    cache.set("k", "v")

    async def look() -> set[Any]:
        return set(await asyncio.gather(*(cache.aget("k") for _ in range(20))))

    assert in_threads(6, lambda _: [asyncio.run(look()) for _ in range(3)]) == [[{"v"}] * 3] * 6
    assert sum(thread.name.startswith("storeroom-db") for thread in threading.enumerate()) <= 4
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


# Rows that hold nonsense ----------------------------------------------------------------------


class Bomb:
    """A value whose pickle runs a program when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def _mutated(chance: random.Random, payload: bytes) -> bytes:
    changed = bytearray(payload)
    for _ in range(chance.randrange(4)):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.randrange(len(changed) + 1)]) if chance.random() < 0.3 else bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("secret", [None, "a secret of this test alone"])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_bytes_are_counted_misses(
    make: Make, new_table: Callable[[str], tuple[str, str]], kind: str, secret: str | None, tmp_path: Path
) -> None:
    """10,000 payloads, mutated, truncated, foreign: none raises, none runs, each is counted."""
    tmp_path.chmod(0o777)  # so that others may write to SQLite's file, and its values are not trusted
    cache = make(*new_table(kind), secret=secret, max_entries=None, socket_timeout=30)
    chance = random.Random(20)
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    cache.set("sample", {"a": [1, 2.5, "text"], "b": None})
    cache.set("tagged", {"a": 1}, tags=["t"])
    statements = cache._engine.statements
    good, enveloped = (
        bytes(cache._engine.read(lambda session, key: session.execute(statements.get, (key,)).fetchone()[0], key))
        for key in (cache.make_key("sample").encode(), cache.make_key("tagged").encode())
    )
    foreign = [bomb, zlib.compress(bomb), b"\x0f" + bomb, b"\x10" + bomb, b"", b"\x80\x05.", b"{}", b"\x1f\x8b"]
    payloads = {f"k{number}": _mutated(chance, chance.choice([good, enveloped, *foreign])) for number in range(10_000)}
    rows = [
        (cache.make_key(key).encode(), data, None, 1e15, len(data) + 1, len(data) + 1, 1)
        for key, data in payloads.items()
    ]
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        values = [column for row in part for column in row]
        cache._engine.write(
            lambda transaction, part=part, values=values: transaction.execute(statements.insert(len(part)), values)
        )
    before = cache.stats().errors
    found = cache.get_many(payloads)
    assert cache.stats().errors - before >= 5000
    assert cache.stats().errors - before <= len(payloads) - len(found), "an envelope that is over misses uncounted"
    assert not mark.exists()
    missing = [key for key in payloads if key not in found]
    for key in chance.sample(missing, 200):
        assert cache.get(key, "absent") == "absent"
    for key in ("k1", "k2", "k3"):
        cache.set(key, "again")
        assert cache.get(key) == "again"
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mariadb"])
def test_row_of_another_program_is_a_miss(
    make: Make, request: pytest.FixtureRequest, kind: str, tmp_path: Path
) -> None:
    """Values that no version of the cache writes: numbers where there is a value, nothing at all, a name no UTF-8."""
    if kind == "sqlite":
        cache = make(f"sqlite:///{tmp_path}/cache.sqlite3")
    else:
        server: Server = request.getfixturevalue(kind)
        cache = make(server.url(), server.table(), socket_timeout=20)
    cache.set("k", "v")
    rows = [
        (b":1:a", None, None, 1e15, 0, 0, 1),
        (b":1:b", b"", 1, 1e15, 5, 5, 1),
        (b":1:c", b"\x02text", 7, 1e15, 5, 5, 1),
        (b":1:\xff\xfe", b"\x02text", None, 1e15, 5, 5, 1),
        (b":1:" + b"x" * 477, b"\xff\xff\xff\xff", None, 1e15, 5, 5, 1),
    ]
    insert = cache._engine.statements.insert(1)
    for row in rows:
        cache._engine.write(lambda transaction, row=row: transaction.execute(insert, row))
    assert cache.get("a", "absent") in {"absent", None}
    assert cache.get("b", "absent") == "absent"
    assert cache.get_many(["a", "b", "k"])["k"] == "v"
    assert {"k", "c"} <= set(cache.keys())
    for key in ("a", "b", "c"):
        assert cache.touch(key, 60) in {True, False}
        with pytest.raises((ValueError, TypeError)):
            cache.incr(key)
        cache.set(key, 1)
        assert cache.incr(key) == 2
    cache.clear()
    assert cache.keys() == []
