"""The database cache behind PgBouncer, which hands a session of the server to whoever begins a transaction."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.exceptions import StorageError
from tests.servers.databases import PostgreSQLServer, postgresql
from tests.servers.pgbouncer import PgBouncer, bouncing
from tests.servers.process import PATIENCE

__all__ = ["postgresql"]

pytestmark = pytest.mark.slow


@pytest.fixture(params=["transaction", "session"])
def bouncer(request: pytest.FixtureRequest, postgresql: PostgreSQLServer) -> Iterator[PgBouncer]:
    with bouncing(postgresql, request.param, 2 if request.param == "transaction" else 20) as bouncer:
        yield bouncer


def cache_on(url: str, table: str, **options: Any) -> DatabaseCache:
    return DatabaseCache(table, {"OPTIONS": {"url": url, "on_error": "raise", "socket_timeout": 20, **options}})


def test_many_threads_share_few_sessions_of_the_server(bouncer: PgBouncer, postgresql: PostgreSQLServer) -> None:
    """Every kind of operation works, again and again, though each may meet another session of the server."""
    cache = cache_on(bouncer.url(), postgresql.table(), max_connections=8)

    def use(number: int) -> int:
        for turn in range(12):  # psycopg prepares a statement that has been used five times
            key = f"k{number}"
            cache.set(key, {"n": turn})
            assert cache.get(key) == {"n": turn}
            cache.set_many({f"{key}a": 1, f"{key}b": [2]})
            assert cache.get_many([f"{key}a", f"{key}b"]) == {f"{key}a": 1, f"{key}b": [2]}
            assert cache.add(key, 1) is False
            assert cache.touch(key, 60)
            cache.incr("sum")
            assert cache.get_or_set(f"{key}c", lambda: 3) == 3
            with cache.lock(f"{key}lock", timeout=60):
                assert cache.delete_many([key, f"{key}c"]) is None
        return number

    cache.set("sum", 0)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(use, range(8))) == list(range(8))
    assert cache.get("sum") == 8 * 12
    assert cache.stats().errors == 0
    cache._check_invariants()
    cache.clear()
    assert list(cache.keys("*")) == []


def test_other_programs_sessions_are_left_as_they_are(bouncer: PgBouncer, postgresql: PostgreSQLServer) -> None:
    """A session of the server that a program gets next has the settings of the server, not the cache's."""
    import psycopg

    cache = cache_on(bouncer.url(), postgresql.table(), max_connections=1)
    for number in range(20):
        cache.set(f"k{number}", number)
        cache.set_many({"a": number, "b": number})
    with psycopg.connect(bouncer.url(), autocommit=True, prepare_threshold=None) as other:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "synchronous_commit")
        found = [other.execute(f"SHOW {name}").fetchone() for name in names]
    assert found == [("0",), ("0",), ("off",)]  # as the tests' server is configured


def test_a_near_tier_says_that_it_hears_of_nothing(
    bouncer: PgBouncer, postgresql: PostgreSQLServer, caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN would be lost with the session: the log says so, once, and names the option; the bound of time holds."""
    caplog.set_level(logging.WARNING, "storeroom.near")
    cache = cache_on(bouncer.url(), table := postgresql.table(), near={"max_staleness": 0.2})
    cache.set("k", 1)
    assert cache.get("k") == 1
    deadline = time.monotonic() + PATIENCE
    while "PgBouncer" not in caplog.text:
        assert time.monotonic() < deadline, caplog.text
        time.sleep(0.01)
    assert "OPTIONS['url']" in caplog.text
    cache_on(postgresql.url(), table).set("k", 2)
    while cache.get("k") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    cache.close()


def test_a_parameter_that_pgbouncer_refuses_is_named(postgresql: PostgreSQLServer) -> None:
    """PgBouncer refuses parameters of a session at its start: the error says which, and the remedy."""
    with bouncing(postgresql) as bouncer:
        url = f"{bouncer.url()}?options=-c%20search_path%3Dpublic"
        with pytest.raises(StorageError, match=r"options.*ignore_startup_parameters"):
            cache_on(url, postgresql.table()).get("k")


def test_a_direct_connection_keeps_its_settings(postgresql: PostgreSQLServer) -> None:
    """Without a pooler nothing is lost: a session has the cache's timeouts, and its statements are prepared."""
    cache = cache_on(postgresql.url(), postgresql.table(), socket_timeout=7, max_connections=1)
    for number in range(10):
        cache.set("k", number)
        cache.get("k")
    timeout, idle, prepared = (
        cache.engine.read(lambda session, text=text: session.execute(text).fetchone()[0])
        for text in (
            "SHOW statement_timeout", "SHOW idle_in_transaction_session_timeout",
            "SELECT count(*) FROM pg_prepared_statements",
        )
    )  # fmt: skip
    assert (timeout, idle) == ("7s", "14s")
    assert prepared > 0
