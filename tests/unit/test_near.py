"""The near tier: the entries it keeps, the time it believes them, and the entries it never keeps."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import storeroom
from storeroom import config, timeouts
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.tiered import TieredCache
from storeroom.exceptions import ConfigurationError
from storeroom.keys import TAG_PREFIX
from storeroom.near import NearTable, Tolerance
from storeroom.registry import caches
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.testing import FakeClock
from storeroom.testing.clock import clock_ahead
from storeroom.timeouts import NEVER


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def table(clock: FakeClock) -> NearTable:
    return new_table()


def new_table(max_entries: int | None = 100, max_bytes: int | None = None, *, copy: bool = True) -> NearTable:
    return NearTable(Tolerance(max_entries, max_bytes, None, copy, max_staleness=1.0, max_tags=50))


def fill(table: NearTable, key: str, value: Any, expires_at: float | None = NEVER) -> None:
    ticket = table.begin([key])
    table.fill(ticket, {key: (value, expires_at)})
    table.end(ticket)


# Staleness --------------------------------------------------------------------------------------


def test_without_a_channel_an_entry_is_believed_for_max_staleness(table: NearTable, clock: FakeClock) -> None:
    """Without a channel of invalidations, an entry is a miss once max_staleness has passed."""
    fill(table, "k", 1)
    clock.advance(0.99)
    assert table.get("k") == 1
    clock.advance(0.01)
    assert table.get("k") is MISSING


def test_the_bound_counts_from_the_beginning_of_the_read(table: NearTable, clock: FakeClock) -> None:
    """max_staleness counts from the moment when the read began, not from its end."""
    ticket = table.begin(["k"])
    clock.advance(0.6)
    table.fill(ticket, {"k": (1, NEVER)})
    table.end(ticket)
    assert table.get("k") == 1
    clock.advance(0.4)
    assert table.get("k") is MISSING


def test_an_entry_never_outlives_the_storages(table: NearTable, clock: FakeClock) -> None:
    """A near entry is a miss when its entry in the storage expires."""
    table.begin_tracking(clock.uptime())
    fill(table, "k", 1, clock.now() + 0.5)
    clock.advance(0.5)
    assert table.get("k") is MISSING


def test_with_a_channel_an_entry_is_believed_while_that_vouches(table: NearTable, clock: FakeClock) -> None:
    """With a channel, an entry is believed as long as the channel vouches, and again once a late one does."""
    table.begin_tracking(clock.uptime())
    fill(table, "k", 1)
    for _ in range(100):
        clock.advance(0.9)
        assert table.get("k") == 1
        table.vouch(clock.uptime())
    clock.advance(1.0)
    assert table.get("k") is MISSING, "it has been silent for as long as the bound"
    table.vouch(clock.uptime())
    assert table.get("k") == 1, "it was only late, and has told all"


def test_an_unknown_expiry_is_bounded_with_a_channel_too(table: NearTable, clock: FakeClock) -> None:
    """With a channel, an entry of unknown expiry is still a miss after max_staleness."""
    table.begin_tracking(clock.uptime() + 10)
    fill(table, "k", 1, None)
    clock.advance(1.0)
    assert table.get("k") is MISSING


def test_the_end_of_a_channel_drops_everything(table: NearTable, clock: FakeClock) -> None:
    """When a channel ends, all entries are dropped, and new ones are bounded by time again."""
    table.begin_tracking(clock.uptime())
    fill(table, "k", 1)
    table.end_tracking()
    assert table.get("k") is MISSING
    fill(table, "k", 2)
    clock.advance(1.0)
    assert table.get("k") is MISSING, "bounded by time again"


def test_vouching_for_a_channel_that_has_ended_means_nothing(table: NearTable, clock: FakeClock) -> None:
    """A vouch that arrives after the end of its channel has no effect."""
    table.begin_tracking(clock.uptime())
    table.end_tracking()
    table.vouch(clock.uptime())
    assert table.trusted_until == NEVER


# The fill race ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["drop", "drop_all", "begin_tracking", "end_tracking"])
def test_a_value_read_before_a_change_is_not_kept_after_it(table: NearTable, clock: FakeClock, change: str) -> None:
    """A value read before its key was dropped, or before a channel began or ended, is not kept."""
    ticket = table.begin(["k", "other"])
    changes: dict[str, Callable[[], None]] = {
        "drop": lambda: table.drop(["k"]),
        "drop_all": table.drop_all,
        "begin_tracking": lambda: table.begin_tracking(clock.uptime()),
        "end_tracking": table.end_tracking,
    }
    changes[change]()
    table.fill(ticket, {"k": ("old", NEVER), "other": ("same", NEVER)})
    table.end(ticket)
    assert table.get("k") is MISSING
    assert table.get("other") == ("same" if change == "drop" else MISSING)
    fill(table, "k", "new")
    assert table.get("k") == "new"


def test_a_read_after_the_change_is_kept_while_one_from_before_is_under_way(table: NearTable) -> None:
    """Of two reads around a drop, only the later is kept, and no note of either remains."""
    before = table.begin(["k"])
    table.drop(["k"])
    after = table.begin(["k"])
    table.fill(after, {"k": ("new", NEVER)})
    table.fill(before, {"k": ("old", NEVER)})
    table.end(before)
    table.end(after)
    assert table.get("k") == "new"
    assert table._readings == {}, "nothing is remembered of reads that have ended"


class Gated(FileBasedCache):
    """A storage whose answers can be held back."""

    gate: "Gate | None" = None

    def _get_dated(self, storage_keys):
        found = super()._get_dated(storage_keys)
        if Gated.gate is not None:
            Gated.gate.hold()
        return found


class Gate:
    """Holds the first thread that comes until it is opened."""

    def __init__(self) -> None:
        self.has_come, self.is_open = threading.Event(), threading.Event()

    def hold(self) -> None:
        Gated.gate = None
        self.has_come.set()
        assert self.is_open.wait(10)


def tiered(tmp_path: Any, storage: type = Gated, **options: Any) -> TieredCache:
    tiers = [{"BACKEND": LocMemCache}, {"BACKEND": storage, "LOCATION": str(tmp_path / "storage")}]
    return TieredCache("", {"OPTIONS": {"tiers": tiers, **options}})


@pytest.mark.parametrize("change", ["set", "delete", "clear", "incr", "touch", "tag"])
def test_a_slow_read_never_puts_an_old_value_back(tmp_path: Any, clock: FakeClock, change: str) -> None:
    """A thread that read the old value before another changed the key does not keep it."""
    cache = tiered(tmp_path)
    cache.set("k", 1, tags=["t"] if change == "tag" else [])
    Gated.gate = gate = Gate()
    read: list[Any] = []
    reader = threading.Thread(target=lambda: read.append(cache.get("k")))
    reader.start()
    assert gate.has_come.wait(10)
    changes: dict[str, Callable[[], Any]] = {
        "set": lambda: cache.set("k", 5),
        "delete": lambda: cache.delete("k"),
        "clear": cache.clear,
        "incr": lambda: cache.incr("k", 4),
        "touch": lambda: cache.touch("k", 0.1),
        "tag": lambda: cache.invalidate_tags("t"),
    }
    changes[change]()
    gate.is_open.set()
    reader.join(10)
    if change == "touch":
        clock.advance(0.2)
    assert cache.get("k") == (5 if change in ("set", "incr") else None)


def test_an_asynchronous_read_that_is_cancelled_leaves_nothing(tmp_path: Any) -> None:
    """A cancelled read leaves no note of itself behind."""

    class Slow(FileBasedCache):
        async def _aget_dated(self, storage_keys):
            await asyncio.sleep(60)
            raise AssertionError

    cache = tiered(tmp_path, Slow)

    async def cancel() -> None:
        task = asyncio.create_task(cache.aget("k"))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert cache._near._readings == {}


# Entries kept -----------------------------------------------------------------------------------


def test_a_hit_asks_the_storage_nothing(tmp_path: Any) -> None:
    """Repeated reads of a near entry are hits of the near tier and leave the storage unasked."""
    cache = tiered(tmp_path)
    cache.set_many({"a": 1, "b": [2]})
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": [2]}
    asked = cache.stats().tiers["tier 1"]
    for _ in range(5):
        assert cache.get("a") == 1
        assert cache.get("b") == [2]
        assert asyncio.run(cache.aget("b")) == [2]
        assert cache.has_key("a")
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": [2]}
    stats = cache.stats()
    assert stats.tiers["tier 1"] == asked
    assert stats.tiers["tier 0"].hits == 30
    assert stats.hits == 27, "has_key() is not counted"


def test_a_tagged_entry_is_read_without_a_round_trip(tmp_path: Any) -> None:
    """A near entry with tags is a hit without the storage, until one of its tags is invalidated."""
    cache = tiered(tmp_path)
    cache.set("k", [1], tags=["t", "u"])
    assert cache.get("k") == [1]
    asked = cache.stats().tiers["tier 1"].hits
    assert [cache.get("k") for _ in range(5)] == [[1]] * 5
    assert asyncio.run(cache.aget("k")) == [1]
    assert cache.stats().tiers["tier 1"].hits == asked
    assert cache.invalidate_tags("u") == 1
    assert cache.get("k") is None


def test_near_entries_cannot_be_changed_by_their_readers(tmp_path: Any) -> None:
    """Changing a value that was read does not change the near entry."""
    cache = tiered(tmp_path)
    cache.set("k", ["as set"])
    for _ in range(3):
        cache.get("k").append("changed")
    assert cache.get("k") == ["as set"]


def test_a_value_that_cannot_be_copied_is_read_from_the_storage(table: NearTable) -> None:
    """A value that cannot be copied is not kept near, and counts as an error."""
    fill(table, "k", threading.Lock())
    assert table.get("k") is MISSING
    assert table.counters.errors == 1


def test_objects_are_kept_as_they_are_if_asked(clock: FakeClock) -> None:
    """With copy=False, the same objects come back."""
    table = new_table(copy=False)
    value, envelope = ["k"], Envelope(["k"], NEVER)
    fill(table, "a", value)
    fill(table, "b", envelope)
    assert table.get("a") is value
    assert table.get("b") is envelope


def test_an_entry_whose_successor_is_computed_is_not_kept(table: NearTable, clock: FakeClock) -> None:
    """An entry under a lease is not kept near, and one whose lease has ended is."""
    fill(table, "k", Envelope(1, NEVER).leased(clock.now() + 10))
    assert table.get("k") is MISSING
    fill(table, "k", Envelope(1, NEVER).leased(clock.now() - 1))
    assert table.get("k").value == 1


def test_misses_are_not_kept(tmp_path: Any) -> None:
    """A key set by another process after a miss is found."""
    cache = tiered(tmp_path)
    other = FileBasedCache(str(tmp_path / "storage"), {})
    assert cache.get("k") is None
    other.set("k", 1)
    assert cache.get("k") == 1


@pytest.mark.parametrize("bounds", [{"max_entries": 10}, {"max_entries": None, "max_bytes": 3000}])
def test_a_near_tier_keeps_its_bounds(clock: FakeClock, bounds: dict[str, Any]) -> None:
    """A near tier stays within max_entries or max_bytes by evictions."""
    table = new_table(**bounds)
    for number in range(100):
        fill(table, f"k{number}", number)
    stats = table.stats()
    assert 5 <= (stats.entries or 0) <= 15
    assert stats.evictions == 100 - (stats.entries or 0)
    table.check_invariants()


def test_versions_of_tags_take_no_room_near(tmp_path: Any, clock: FakeClock) -> None:
    """As many entries are near as there is room for, if each has a tag of its own; their versions are not counted."""
    cache = tiered(tmp_path, max_staleness=100)
    room = 300  # the default of both tiers
    for number in range(room):
        cache.set(str(number), number, tags=[f"user:{number}"])
    for _ in range(2):
        assert len(cache.get_many([str(number) for number in range(room)])) == room
    near = cache.stats().tiers["tier 0"]
    assert (near.entries, near.sets, near.evictions) == (room, room, 0)
    cache.invalidate_tags("user:7")
    assert cache.get("7") is None
    cache.clear()
    assert cache.get("8") is None
    assert not cache._near._tags.entries


def test_versions_of_tags_have_their_own_bound(table: NearTable) -> None:
    """A near tier keeps max_tags versions at most."""
    for number in range(200):
        fill(table, f"{TAG_PREFIX}{number}", "version")
    assert sum(table.get(f"{TAG_PREFIX}{number}") is not MISSING for number in range(200)) == 50
    assert table.stats().entries == 0
    table.check_invariants()


def test_a_forked_child_begins_with_nothing(table: NearTable, clock: FakeClock) -> None:
    """After a fork the child has an empty near tier without a channel."""
    table.begin_tracking(clock.uptime())
    life = table.life
    fill(table, "k", 1)
    table.after_fork_in_child()
    assert table.get("k") is MISSING
    assert table.life is not life
    assert not table.is_tracked


# OPTIONS["near"] on any alias -------------------------------------------------------------------


def test_near_is_an_option_of_every_storage(tmp_path: Any, clock: FakeClock) -> None:
    """Handles of one storage share its near tier, and its writes; other writers are seen after max_staleness."""
    location = str(tmp_path / "storage")
    params = {"OPTIONS": {"near": {"max_staleness": 2, "max_entries": 5}}}
    cache, other = FileBasedCache(location, params), FileBasedCache(location, params)
    outside = FileBasedCache(location, {})
    cache.set("k", 1)
    assert cache.get("k") == other.get("k") == 1
    outside.set("k", 2)
    clock.advance(1.9)
    assert cache.get("k") == 1
    clock.advance(0.1)
    assert cache.get("k") == 2
    other.set("k", 3)
    assert cache.get("k") == 3
    stats = cache.stats()
    assert stats.tiers["near"].hits >= 2
    assert stats.as_dict()["tiers"]["near"]["hits"] == stats.tiers["near"].hits
    assert "tiers" not in outside.stats().as_dict()


def test_near_does_nothing_in_memory() -> None:
    """On local memory, the option near installs nothing, since nothing is nearer."""
    cache = LocMemCache("near does nothing", {"OPTIONS": {"near": True}})
    assert cache._overlay is None


@pytest.mark.parametrize("written", [None, False, "none", "false"])
def test_near_can_be_none(written: Any) -> None:
    """None, False and their texts switch the near tier off."""
    assert config.near(written) is None


def test_near_takes_defaults() -> None:
    """True, its text and an empty dict give the defaults, and a given option changes that one."""
    assert config.near(True) == config.near("true") == config.near({})
    assert config.near({"MAX_STALENESS": "2s"}) == {**(config.near({}) or {}), "max_staleness": 2.0}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("redis", "a dict of max_entries"),
        (3, "a dict of max_entries, max_bytes, cull_frequency, max_tags, copy, max_staleness, or True"),
        ({"max_entrys": 3}, "'max_entrys' is none of them (Did you mean 'max_entries'?)"),
        ({"max_staleness": 0}, "as its 'max_staleness' seconds, more than 0"),
        ({"max_staleness": None}, "as its 'max_staleness' seconds, more than 0"),
        ({"max_staleness": "forever"}, "as its 'max_staleness' seconds, more than 0"),
    ],
)
def test_a_mistake_in_near_is_told(written: Any, expected: str) -> None:
    """A wrong near option raises ConfigurationError with alias and expectation."""
    with pytest.raises(ConfigurationError) as error:
        storeroom.configure({"default": {"BACKEND": FileBasedCache, "LOCATION": "x", "OPTIONS": {"near": written}}})
    assert "CACHES['default']['OPTIONS']['near'] is " in str(error.value)
    assert expected in str(error.value)


# OPTIONS["tiers"] -------------------------------------------------------------------------------


@pytest.fixture
def configure(tmp_path: Any) -> Iterator[Callable[..., None]]:
    """Configure aliases "memory" and "files" beside those given."""
    before = caches.swap(None)

    def configure(**aliases: Any) -> None:
        files = {"BACKEND": FileBasedCache, "LOCATION": str(tmp_path / "files"), "KEY_PREFIX": "shop", "TIMEOUT": 77}
        memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": {"max_entries": 7}}
        storeroom.configure({"files": files, "memory": memory, **aliases})

    yield configure
    caches.swap(before)


def of(*tiers: Any, **options: Any) -> dict[str, Any]:
    return {"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {"tiers": list(tiers), **options}}


def test_tiers_are_aliases(configure: Callable[..., None]) -> None:
    """The tiered cache has the storage's prefix, version and timeout, so that the storage's alias sees its entries."""
    configure(default=of("memory", "files"))
    cache = storeroom.caches["default"]
    assert (cache.key_prefix, cache.default_timeout) == ("shop", 77)
    cache.set("k", 1)
    assert storeroom.caches["files"].get("k") == 1
    assert storeroom.caches["memory"].get("k") is None, "an alias's entries are its own"
    assert cache._near._bounded.max_entries == 7
    assert list(cache.stats().tiers) == ["memory", "files"]


def test_a_tiered_cache_may_have_keys_of_its_own(configure: Callable[..., None]) -> None:
    """A tiered cache with its own prefix shares no entries with its storage, and clears its own only."""
    configure(default={**of("memory", "files"), "KEY_PREFIX": "own", "TIMEOUT": None})
    cache, files = storeroom.caches["default"], storeroom.caches["files"]
    cache.set("k", 1)
    files.set("k", 2)
    assert cache.get("k") == 1
    assert cache.ttl("k") is None
    cache.clear()
    assert cache.get("k") is None
    assert files.get("k") == 2
    cache.key_prefix = "another"
    cache.set("k", 3)
    cache.clear()
    assert cache.get("k") is None
    assert files.get("k") == 2


def test_three_tiers_keep_an_entry_no_longer_than_two(
    configure: Callable[..., None], tmp_path: Any, clock: FakeClock
) -> None:
    """An entry that is read is kept in the middle tier, too, and is stale for no longer than the bound of one tier."""
    far = {"BACKEND": FileBasedCache, "LOCATION": str(tmp_path / "far")}
    configure(default=of("memory", "files", "far"), far=far, outside=far)
    cache, files, outside = (storeroom.caches[alias] for alias in ("default", "files", "outside"))
    files.key_prefix = ""
    cache.set("k", 1)
    assert files.get("k") is None, "only what is read is kept"
    assert cache.get("k") == 1
    assert files.get("k") == 1
    cache._near.drop_all()
    outside.set("k", 2)
    clock.advance(0.9)
    assert cache.get("k") == 1, "from the middle"
    clock.advance(0.1)
    assert files.get("k") is None
    assert cache.get("k") == 2, "the bounds do not add up"
    cache.set("k", 3)
    assert files.get("k") is None
    assert asyncio.run(cache.aget("k")) == 3
    cache.clear()
    assert files.get("k") is None


def test_a_shared_tier_may_be_the_first(configure: Callable[..., None], tmp_path: Any) -> None:
    """A shared storage as first tier works without a near tier."""
    configure(default=of("files", "far"), far={"BACKEND": FileBasedCache, "LOCATION": str(tmp_path / "far")})
    cache = storeroom.caches["default"]
    cache.set("k", 1)
    assert [cache.get("k") for _ in range(3)] == [1, 1, 1]
    assert cache._near.stats().entries == 0


class Foreign:
    """A class of somebody else's, as Django takes it."""

    def __init__(self, location, params):
        pass


@pytest.mark.parametrize(
    ("tiers", "expected"),
    [
        (["memory"], "expected a list of two tiers or more"),
        ("memory", "expected a list of two tiers or more"),
        ([], "expected a list of two tiers or more"),
        (["memory", "fils"], "OPTIONS['tiers'][1] is 'fils', and there is no such alias. Did you mean 'files'?"),
        (["files", "memory"], "has 'files', which processes share, before 'memory', which is this process's own"),
        (["memory", "default"], "lead in a circle: 'default' -> 'default'"),
        (["memory", "second"], "lead in a circle: 'default' -> 'second' -> 'default'"),
        (["memory", {"BACKEND": "dict.Nothing"}], "dict.Nothing"),
        (["memory", "foreign"], "expected one of Storeroom's"),
    ],
)
def test_a_mistake_in_tiers_is_told(configure: Callable[..., None], tiers: Any, expected: str) -> None:
    """Too few, unknown, circular, foreign or wrongly ordered tiers raise ConfigurationError."""
    default = {"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {"tiers": tiers}}
    foreign = {"BACKEND": Foreign}
    with pytest.raises(ConfigurationError) as error:
        configure(default=default, second=of("memory", "default"), foreign=foreign)
    assert "CACHES['default']" in str(error.value)
    assert expected in str(error.value)


def test_tiers_must_be_given(configure: Callable[..., None]) -> None:
    """A tiered cache without tiers raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=r"OPTIONS\['tiers'\] is missing"):
        configure(default={"BACKEND": TieredCache})


def test_near_and_tiers_do_not_go_together(configure: Callable[..., None]) -> None:
    """A tiered cache with the option near raises ConfigurationError."""
    configure(default=of("memory", "files", near=True))
    with pytest.raises(ConfigurationError, match="'near' and 'tiers'"):
        storeroom.caches["default"]


def test_a_circle_is_told_where_nothing_was_checked_before(configure: Callable[..., None], monkeypatch: Any) -> None:
    """A circle of tiers is told when a cache is built, as in Django, which checks no alias beforehand."""
    monkeypatch.setattr(TieredCache, "check_aliases", None)
    configure(default=of("memory", "second"), second=of("memory", "default"))
    with pytest.raises(ConfigurationError, match="lead in a circle"):
        storeroom.caches["default"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
def test_tiers_work_in_a_forked_child(tmp_path: Any) -> None:
    """A forked child reads and writes through the tiers."""
    cache = tiered(tmp_path, FileBasedCache)
    cache.set("k", 1)
    assert cache.get("k") == 1
    pid = os.fork()
    if not pid:
        os._exit(0 if cache.get("k") == 1 and cache.set("k", 2) is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert timeouts.now() > 0


@pytest.mark.slow
def test_tiers_work_in_django(tmp_path: Any) -> None:
    """The handles that Django builds for its threads share one near tier."""
    code = f"""
import threading
import django
from django.conf import settings
settings.configure(SECRET_KEY="of this test alone", CACHES={{
    "default": {{"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {{"tiers": ["memory", "files"]}}}},
    "memory": {{"BACKEND": "storeroom.backends.locmem.LocMemCache"}},
    "files": {{"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": {str(tmp_path / "files")!r}}},
}})
django.setup()
from django.core.cache import cache, caches
cache.set("k", [1])
assert cache.get("k") == caches["files"].get("k") == [1]
threads = [threading.Thread(target=lambda: cache.get("k")) for _ in range(3)]
for thread in threads:
    thread.start()
    thread.join()
tiers = cache.stats().tiers
assert (tiers["memory"].hits, tiers["files"].hits) == (3, 1), tiers
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_clock_that_is_set_changes_no_bound(table: NearTable, clock: FakeClock, seconds: float) -> None:
    """An entry is believed for max_staleness, and not beyond its own time, however the host's clock is set."""
    fill(table, "bounded", 1, None)
    fill(table, "short", 2, clock.now() + 0.5)
    with clock_ahead(seconds):
        assert (table.get("bounded"), table.get("short")) == (1, 2)
        clock.advance(0.6)
        assert (table.get("bounded"), table.get("short")) == (1, MISSING)
        clock.advance(0.5)
        assert table.get("bounded") is MISSING
