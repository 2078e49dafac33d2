"""The lines of the log that a program may act on: slow computations and eviction storms, in text and in fields."""

import asyncio
import logging
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.engines.storms import WINDOW_SECONDS, EvictionWatch
from storeroom.exceptions import ConfigurationError
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own
from storeroom.wording import fields_text


@pytest.fixture(autouse=True)
def own_engines(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with engines_of_its_own(), caplog.at_level(logging.WARNING, "storeroom"):
        yield


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if getattr(record, "event", None) == event]


def memory(**options: Any) -> LocMemCache:
    return LocMemCache("", {"OPTIONS": options, "TIMEOUT": None})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ('a "quoted" one', '"a \\"quoted\\" one"'),
        ("a=b", '"a=b"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("", '""'),
        (3, "3"),
        (0.125, "0.125"),
        ("C:\\x", '"C:\\\\x"'),
    ],
)
def test_fields_are_one_line_that_can_be_parsed(value: object, text: str) -> None:
    """Values with spaces, quotes or line breaks are quoted and escaped; None is left out."""
    assert fields_text({"key": value, "absent": None}) == f"key={text}"


# Slow computations ----------------------------------------------------------------------------------


def test_a_slow_computation_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """It names the function, the key and its family, and the seconds; the value is not told."""
    cache = memory(slow_computation=0)

    def load_page() -> str:
        return "secret"

    assert [cache.get_or_set("page:7", load_page) for _ in range(3)] == ["secret"] * 3
    (record,) = told(caplog, "slow_computation")
    fields = {name: vars(record)[name] for name in ("alias", "family", "key", "keys", "error")}
    assert fields == {"alias": "default", "family": "page", "key": "page:7", "keys": 1, "error": None}
    assert record.__dict__["function"].endswith("load_page")
    assert 0 <= record.__dict__["seconds"] < 60
    text = record.getMessage()
    assert (record.name, "secret" in text) == ("storeroom.computing", False)
    assert "event=slow_computation alias=default function=" in text
    assert "family=page key=page:7 keys=1 seconds=" in text


def test_a_slow_computation_that_fails_or_is_of_many_keys_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """An error is told by its type; a batch is one computation; an asynchronous one is none the less."""
    cache = memory(slow_computation=0.0)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("a", lambda: 1 // 0)
    cache.get_or_set_many(["b", "c"], lambda keys: dict.fromkeys(keys, 1))

    async def load() -> int:
        return 1

    asyncio.run(cache.aget_or_set("d", load))
    records = [vars(record) for record in told(caplog, "slow_computation")]
    assert [(each["keys"], each["key"], each["error"]) for each in records] == [
        (1, "a", "ZeroDivisionError"),
        (2, None, None),
        (1, "d", None),
    ]


def test_computations_below_the_threshold_and_given_values_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """Without the option nothing is slow; a value that was given has taken no time."""
    for options in ({}, {"slow_computation": None}, {"slow_computation": 60}):
        cache = memory(**options)
        cache.get_or_set("a", lambda: 1)
        cache.clear()
    memory(slow_computation=0).get_or_set("b", 1)
    assert told(caplog, "slow_computation") == []
    with pytest.raises(ConfigurationError, match=r"slow_computation.*'soon'; expected seconds, such as 2\.5, or None"):
        memory(slow_computation="soon")


# Eviction storms ------------------------------------------------------------------------------------


class Named:
    alias = "pages"


def test_a_storm_is_more_evictions_within_a_minute_than_half_of_the_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Half of them is none yet; one more is, with their number, the seconds and the bound."""
    with FakeClock() as clock:
        watch = EvictionWatch()
        watch.look(1000, 100, Named)
        clock.advance(20)
        watch.look(1050, 100, Named)
        assert told(caplog, "eviction_storm") == []
        watch.look(1051, 100, Named)
    (record,) = told(caplog, "eviction_storm")
    assert record.name == "storeroom.evictions"
    assert record.getMessage() == (
        "Cache 'pages' has evicted 51 entries within 20 s, more than half of the 100 that it holds. Raise its "
        "bounds, or cache less. event=eviction_storm alias=pages evictions=51 seconds=20 bound=100"
    )
    assert (record.__dict__["evictions"], record.__dict__["bound"]) == (51, 100)


def test_slow_evictions_are_no_storm(caplog: pytest.LogCaptureFixture) -> None:
    """As many over a longer time, or with counts that began anew, are the cache's ordinary work."""
    with FakeClock() as clock:
        watch = EvictionWatch()
        for evictions in range(1, 5000, 40):
            watch.look(evictions, 100, Named)
            clock.advance(WINDOW_SECONDS + 1)
        watch.look(1, 100, Named)
        watch.look(40, 100, Named)
    assert told(caplog, "eviction_storm") == []


def test_a_storm_that_goes_on_is_told_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    """Once a minute at the most; an hour of it has few lines, and a new one after a calm is told at once."""
    with FakeClock() as clock:
        watch, evictions, times = EvictionWatch(), 1, list[float]()
        for second in range(3600):
            evictions += 100
            before = len(caplog.records)
            watch.look(evictions, 100, Named)
            times += [second] * (len(caplog.records) - before)
            clock.advance(1)
        assert all(later - earlier >= WINDOW_SECONDS for earlier, later in pairwise(times))
        assert 4 <= len(times) <= 8
        clock.advance(3 * 3600)
        watch.look(evictions, 100, Named)
        clock.advance(1)
        watch.look(evictions + 51, 100, Named)
    assert len(told(caplog, "eviction_storm")) == len(times) + 1


@pytest.mark.parametrize("kind", ["memory", "memory computed", "memory many", "files", "database"])
def test_each_storage_that_evicts_by_itself_tells_of_a_storm(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory, files and databases do, by whatever writes; once, however long it lasts within a minute."""
    params = {"TIMEOUT": None, "OPTIONS": {"max_entries": 40}}
    with FakeClock() as clock:
        if kind == "files":
            cache: Any = FileBasedCache(str(tmp_path / "files"), params)
        elif kind == "database":
            cache = DatabaseCache(f"sqlite:///{tmp_path}/cache.db", params)
        else:
            cache = LocMemCache(kind, params)
        for number in range(400):
            if kind == "memory many":
                cache.set_many({f"k{number}": number, f"l{number}": number})
            elif kind == "memory computed":
                cache.get_or_set(f"k{number}", lambda: 1)
            else:
                cache.set(f"k{number}", number)
            clock.advance(0.1)
    (record,) = told(caplog, "eviction_storm")
    assert record.__dict__["alias"] == "default"
    assert record.__dict__["bound"] == 40
    assert 20 < record.__dict__["evictions"] <= 400


def test_a_cache_that_is_filled_once_is_no_storm(caplog: pytest.LogCaptureFixture) -> None:
    """Writes within the bounds evict nothing."""
    cache = memory(max_entries=1000)
    for number in range(1000):
        cache.set(f"k{number}", number)
    assert told(caplog, "eviction_storm") == []
