"""Answers of each operation during an outage: docs/outages.md, held against servers that are out of reach."""

import asyncio
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storeroom import caches, timeouts
from storeroom.backends.db import DatabaseCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import MemcachedCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.exceptions import (
    ConfigurationError,
    NotSupportedError,
    SerializationError,
    StorageError,
    UnansweredError,
    UnreachableError,
    ValueTypeError,
)
from tests.faults.away import OF_DJANGO_REDIS, OPERATIONS, Away, breakers, outcome

PAGE = Path(__file__).parents[2] / "docs" / "outages.md"
POLICIES = ("miss", "raise", "fallback:memory")

MEANINGS: dict[str, Callable[[Any], bool]] = {
    "the default": lambda result: result == "default",
    "`{}`": lambda result: result == {},
    "`None`": lambda result: result is None,
    "`False`": lambda result: result is False,
    "`0`": lambda result: result == 0 and result is not False,
    "all keys": lambda result: result == ["a", "b"],
    "what is computed": lambda result: result in ("computed", {"k": "computed"}),
}
"""Beginning of a cell of the table -> whether a result is that."""


def answers() -> dict[str, tuple[str, str, str]]:
    """Return operation -> the page's answers under each policy."""
    said = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            for name in re.findall(r"`[a-z_]+`(?: with `nx=True`)?", cells[0]):
                said[name.replace("`", "")] = (cells[1], cells[2], cells[3])
    return said


ANSWERS = answers()


def test_page_tells_of_every_operation() -> None:
    """The page has each operation that a program calls in its table, and no other."""
    assert ANSWERS.keys() == OPERATIONS.keys()
    public = {name for name, _ in inspect.getmembers(RedisCache, inspect.isfunction) if not name.startswith("_")}
    twins = {name for name in public if name.startswith("a") and name[1:] in public}
    keys = {"make_key", "make_and_validate_key", "validate_key", "get_backend_timeout"}
    without_server = keys | {"advice", "check_location", "close", "explain", "probe", "stats", "prune"}
    assert public - twins - without_server == OPERATIONS.keys() - {"set with nx=True"}


ABSENT_BEFORE = {"add", "set with nx=True", "get_or_set", "get_or_set_many"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_answers_as_the_page_says(away: Away, name: str, policy: str, mode: str, memory: BaseCache) -> None:
    """Each operation answers as the page says, when the server fails and when it is not asked any more."""
    is_redis, lists_keys = away.backend is RedisCache, not issubclass(away.backend, MemcachedCache)
    if name in OF_DJANGO_REDIS and not is_redis:
        assert name == "set with nx=True" or not hasattr(away.backend, name)
        return
    cache, same = away.cache(policy), LocMemCache("one like memory", {"TIMEOUT": None})
    same.clear()
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
        elif said == "raises a `ValueError`":
            assert issubclass(result, UnansweredError)
        elif said == "raises":
            assert issubclass(result, UnreachableError)
            assert not issubclass(result, ValueError)
        elif said == "as the other cache":
            expected = outcome(same, OF_DJANGO_REDIS.get(name) or OPERATIONS[name], mode)
            assert result == (pytest.approx(expected, rel=0.1) if name in {"ttl", "pttl"} else expected)
            assert cache.stats().errors > errors, "it is counted"
        else:
            (meaning,) = (check for begin, check in MEANINGS.items() if said.startswith(begin))
            assert meaning(result), f"{name} returned {result!r}; the page says: {said}"
            assert cache.stats().errors > errors, "it is counted"


@pytest.mark.parametrize("policy", POLICIES)
def test_mistakes_of_the_program_raise_during_an_outage(away: Away, policy: str, memory: BaseCache) -> None:
    """Values and timeouts that no cache takes raise under every policy, as they do at all times."""
    cache = away.cache(policy)
    with pytest.raises(SerializationError):
        cache.set("k", lambda: None)
    with pytest.raises(ValueError, match="timeout"):
        cache.set("k", 1, timeout="soon")
    if policy == "fallback:memory":
        cache.set("text", "no number")
        with pytest.raises(ValueTypeError):
            cache.incr("text")


def test_fallback_that_is_no_cache_of_storerooms_raises(away: Away, memory: BaseCache) -> None:
    """An alias whose backend has no hooks, as Django's own, cannot be fallen back to, and the error says so."""
    caches.configuration.handles["memory"] = object()
    with pytest.raises(ConfigurationError, match=r"CACHES\['memory'\] is a object"):
        away.cache("fallback:memory").get("k")


@pytest.mark.parametrize("policy", POLICIES)
def test_prune_has_no_answer_where_there_is_something_to_prune(away: Away, policy: str, memory: BaseCache) -> None:
    """prune() of a database raises StorageError, or prunes the other cache; other servers have nothing to remove."""
    cache = away.cache(policy)
    if isinstance(cache, DatabaseCache) and not policy.startswith("fallback"):
        with pytest.raises(StorageError):
            cache.prune()
    else:
        assert cache.prune() == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_statistics_are_there_during_an_outage(away: Away, policy: str, memory: BaseCache) -> None:
    """Under every policy stats() returns the counters during an outage, and does not count as a failure."""
    cache = away.cache(policy)
    errors = cache.stats().errors
    for stats in (cache.stats(), asyncio.run(cache.astats()), cache.stats()):
        assert (stats.entries, stats.bytes, stats.errors) == (None, None, errors)


def test_breaker_is_not_closed_by_a_call_that_never_reached_the_server(away: Away) -> None:
    """A value that cannot be stored tells nothing of the server, and leaves the circuit breaker open."""
    cache = away.cache("miss")
    (breaker,) = breakers(cache)
    while not breaker.is_open:
        cache.get("k")
    breaker._probe_at = 0.0
    with pytest.raises(SerializationError):
        cache.set("k", lambda: None)
    assert breaker.is_open


@pytest.mark.parametrize("name", ["incr", "decr", "incr_version", "decr_version"])
def test_a_counter_out_of_reach_is_handled_as_one_that_is_missing(away: Away, name: str, mode: str) -> None:
    """Under "miss" a program's ``except ValueError`` catches an outage, and one that asks for errors gets no such."""
    kind = outcome(away.cache("miss"), OPERATIONS[name], mode)
    assert issubclass(kind, StorageError)
    assert issubclass(kind, ValueError)
    assert not issubclass(outcome(away.cache("raise"), OPERATIONS[name], mode), ValueError)
