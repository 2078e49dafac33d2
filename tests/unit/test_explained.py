"""explain(): forms of bytes, tiers, what is remembered and what is not changed; the contract has the reasons."""

import os
import subprocess
import sys
from itertools import count
from typing import Any

import pytest

from benchmarks.removals import compare
from storeroom import caches, configure
from storeroom.backends.db import DatabaseCache
from storeroom.backends.dummy import DummyCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.tiered import TieredCache
from storeroom.base.explanation import seconds_in_words
from storeroom.exceptions import ConfigurationError
from storeroom.testing import FakeClock
from storeroom.testing.concurrency import in_threads

SECRETS = ["the secret that signs from today on", "the secret that has signed before", "a third one, for nothing else"]

_numbers = count()


def memory(**options: Any) -> LocMemCache:
    """Return a cache in memory of its own."""
    return LocMemCache(f"explained {next(_numbers)}", {"OPTIONS": options})


def files(folder: Any, **options: Any) -> FileBasedCache:
    """Return a handle of the files in a folder."""
    return FileBasedCache(f"{folder}/files", {"OPTIONS": options})


@pytest.mark.parametrize(
    ("value", "options", "form"),
    [
        ("text", {}, ("none: text", "none", "not signed")),
        (b"bytes", {}, ("none: bytes", "none", "not signed")),
        (7, {"secret": SECRETS[0]}, ("none: a number", "none", "not signed")),
        (2.5, {"secret": SECRETS[0]}, ("none: a number", "none", "signed with the current secret")),
        ([1], {}, ("pickle", "none", "not signed")),
        ([1], {"serializer": "json"}, ("json", "none", "not signed")),
        ([1] * 9999, {"serializer": "json", "compressor": "zlib"}, ("json", "zlib", "not signed")),
        ([1] * 9999, {"compressor": "lzma", "secret": SECRETS}, ("pickle", "lzma", "signed with the current secret")),
        ([1] * 99999, {"compressor": "zstd"}, ("pickle", "zstd", "not signed")),
        ([1] * 99999, {"compressor": "lz4"}, ("pickle", "lz4", "not signed")),
    ],
)
@pytest.mark.parametrize("tags", [[], ["t"]])
def test_the_form_of_the_bytes_is_told(tmp_path, value, options, form, tags):
    """By which serializer, compressor and secret an entry was stored, with tags and without."""
    if tags and value == 7:
        form = (form[0], form[1], "signed with the current secret")  # what has conditions is no bare number
    cache = files(tmp_path, **options)
    cache.set("k", value, tags=tags)
    found = cache.explain("k")
    assert (found.serializer, found.compressor, found.signature) == form
    assert found.would_hit
    assert not any(secret in repr(found) for secret in SECRETS)


@pytest.mark.parametrize("size", [100, 2**19], ids=["small", "large"])
def test_a_former_secret_is_told(tmp_path, size):
    """An entry that a former secret has signed is found, and it is told which one: it is to be kept."""
    files(tmp_path, secret=SECRETS[1]).set("k", "x" * size)
    found = files(tmp_path, secret=SECRETS).explain("k")
    assert (found.would_hit, found.signature) == (True, "signed with a former secret, number 2 of 3")


@pytest.mark.parametrize(
    ("writes", "reads", "reason"),
    [
        ({"secret": SECRETS[0]}, {"secret": SECRETS[1]}, "it is signed with another secret, or for another key"),
        ({"secret": SECRETS[0]}, {}, "it is signed, and no secret is set here"),
        ({}, {"secret": SECRETS[0]}, "it is not signed, and a secret is set here"),
        (
            {"serializer": "tests.unit.test_explained.Own"},
            {},
            "a serializer of a program's own has written it, which is another one here",
        ),
    ],
)
def test_bytes_that_cannot_be_read_are_told_by_the_reason(tmp_path, writes, reads, reason):
    """Another secret, none, or another serializer."""
    files(tmp_path, **writes).set("k", ["confidential"])
    found = files(tmp_path, **reads).explain("k")
    assert (found.would_hit, found.cause, found.tiers[-1].state) == (False, "unreadable", "unreadable")
    assert reason in found.reason
    assert "confidential" not in f"{found}{found!r}"


class Own:
    """A serializer of the program's own."""

    def dumps(self, value):
        return repr(value).encode()

    def loads(self, data):
        return data


def test_damaged_bytes_are_told(tmp_path):
    """Bytes that no serializer has written."""
    cache = files(tmp_path)
    cache._put(b"e:1:k", b"\x0fno pickle", 4e9)
    assert "its bytes are damaged" in cache.explain("k").reason
    cache._put(b"e:1:k", b"\x80\x05}.", 4e9)
    assert "its bytes begin with 0x80" in cache.explain("k").reason


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_look_moves_nothing_in_the_order_of_eviction(tmp_path, kind):
    """Of two caches with the same history the same entries stay, although one of them was asked about each."""

    def survivors(*, asks: bool) -> set[str]:
        options = {"max_entries": 50, "removals": 10}
        cache = memory(**options) if kind == "memory" else files(tmp_path / str(asks), **options)
        for number in range(300):
            cache.set(f"k{number}", number, None)
            cache.get(f"k{number % 7}")
            if asks and number % 5 == 0:
                for each in range(0, number, 3):
                    cache.explain(f"k{each}")
        assert (cache.stats().entries or 0) <= 50
        return set(cache.keys("k"))

    assert survivors(asks=True) == survivors(asks=False)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_so_many_removals_are_remembered_and_no_more(tmp_path, kind):
    """The last ones are, and the first are forgotten; without the option none is."""
    caches_ = [
        memory(removals=n) if kind == "memory" else files(tmp_path / str(n), **{"removals": n} if n else {})
        for n in (0, 5)
    ]
    for cache in caches_:
        for number in range(20):
            cache.set(f"k{number}", number)
            cache.delete(f"k{number}")
    causes = [[cache.explain(f"k{number}").cause for number in range(20)] for cache in caches_]
    assert causes == [["never"] * 20, ["never"] * 15 + ["deleted"] * 5]
    assert "it is not among the last 5 removals" in caches_[1].explain("k0").reason


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("remove", ["prune", "room", "delete"])
def test_an_entry_that_has_expired_and_is_gone_has_expired(tmp_path, kind, remove):
    """Whether it was pruned, went for room, or was deleted after that: not evicted, nor deleted."""
    options = {"max_entries": 3, "removals": 100}
    with FakeClock() as clock:
        cache = memory(**options) if kind == "memory" else files(tmp_path, **options)
        cache.set("k", 1, 5)
        cache.set_many({"a": 1, "b": 2}, None)
        clock.advance(8)
        if remove == "prune":
            assert cache.prune() == 1
        elif remove == "room":
            cache.set("c", 3, None)
        else:
            cache.delete("k")
        assert cache.stats().entries <= 3
        found = cache.explain("k")
        assert (found.cause, found.reason, found.tiers[-1].state) == ("expired", "It expired 3.0 s ago.", "absent")
        clock.advance(4)
        assert cache.explain("k").reason == "It expired 7.0 s ago."


def test_handles_of_a_storage_share_the_longest_memory():
    """A handle without the option takes nothing from another's, and one with a longer memory keeps what there is."""
    name = f"explained {next(_numbers)}"
    first, plain = LocMemCache(name, {"OPTIONS": {"removals": 2}}), LocMemCache(name, {})
    plain.set_many({"a": 1, "b": 2})
    plain.delete("a")
    longer = LocMemCache(name, {"OPTIONS": {"removals": 9}})
    for number in range(5):
        plain.set(f"k{number}", 1)
        plain.delete(f"k{number}")
    assert [handle.explain("a").cause for handle in (first, plain, longer)] == ["deleted"] * 3


@pytest.mark.parametrize("wrong", [-1, "many", 2.5])
def test_the_number_of_removals_is_a_whole_one(wrong):
    """Any other is refused."""
    with pytest.raises(ConfigurationError, match="removals"):
        memory(removals=wrong)


def test_a_long_key_is_remembered_in_files(tmp_path):
    """By its hash, under which it lies there."""
    cache = files(tmp_path, removals=10)
    cache.set("x" * 2000, 1)
    cache.delete("x" * 2000)
    assert cache.explain("x" * 2000).cause == "deleted"


def test_a_culled_cache_tells_of_its_evictions():
    """CULL_FREQUENCY 0 evicts all there is at once."""
    cache = memory(max_entries=5, cull_frequency=0, removals=100)
    for number in range(6):
        cache.set(f"k{number}", number)
    assert [cache.explain(f"k{number}").cause for number in range(6)] == ["evicted"] * 5 + ["hit"]


def test_an_evicted_version_of_a_tag_is_told():
    """An entry that is missed as its tag's version was evicted is told so: max_tags is too small."""
    cache = memory(max_tags=2, removals=100)
    cache.set("k", 1, tags=["first"])
    for number in range(20):
        cache.set(f"k{number}", 1, tags=[f"t{number}"])
    found = cache.explain("k")
    assert (found.cause, found.tags[0].was_evicted) == ("tag", True)
    assert 'The version of its tag "first" was evicted ' in found.reason


def test_each_tier_is_told(tmp_path):
    """In order, by name; the removals that the tiered alias asks for are remembered at its storage."""
    storage = {"BACKEND": FileBasedCache, "LOCATION": f"{tmp_path}/far", "OPTIONS": {"max_entries": 20}}
    tiers = [{"BACKEND": LocMemCache}, storage]
    cache = TieredCache("", {"OPTIONS": {"tiers": tiers, "removals": 100}})
    cache.set("k", [1])
    assert [tier.state for tier in cache.explain("k").tiers] == ["absent", "live"]
    cache.get("k")
    found = cache.explain("k")
    assert [(tier.name, tier.state) for tier in found.tiers] == [("near", "live"), ("FileBasedCache", "live")]
    assert found.reason == "A read finds it in near."
    cache.delete("k")
    assert cache.explain("k").cause == "deleted"


def test_a_near_tier_before_a_database_is_told(tmp_path):
    """What is near is told, whether it may be believed, and what this process has removed behind it."""
    options = {"url": f"sqlite:///{tmp_path}/near.sqlite3", "near": {"max_staleness": 5}, "removals": 100}
    cache = DatabaseCache("near", {"OPTIONS": options})
    with FakeClock() as clock:
        cache.set("k", 1, 500)
        cache.get("k")
        assert [(tier.name, tier.state) for tier in cache.explain("k").tiers] == [
            ("near", "live"),
            ("DatabaseCache", "live"),
        ]
        clock.advance(6)
        assert [tier.state for tier in cache.explain("k").tiers] == ["not believed", "live"]
        assert cache.explain("k").age == pytest.approx(6, abs=1)
        cache.delete("k")
        clock.advance(2)
        assert cache.explain("k").reason == "It was deleted 2.0 s ago."


@pytest.mark.parametrize("version", [3, "3"])
def test_a_version_may_be_written_as_digits(version):
    """As for the other operations."""
    cache = memory()
    cache.set("k", 1, version=version)
    assert cache.explain("k", version).would_hit
    assert cache.explain("k", version).version == 3
    assert "Version 3 has it" in cache.explain("k", "4" if version == "3" else 4).reason


def test_dummy_keeps_nothing():
    """The cache that stores nothing says so."""
    found = DummyCache("", {}).explain("k")
    assert (found.would_hit, found.cause) == (False, "dummy")


def test_the_prefix_of_another_alias_is_named(tmp_path):
    """By the alias, in a configuration of several at one LOCATION."""
    before = caches.swap(None)
    backend = "storeroom.backends.filebased.FileBasedCache"
    alias = {"BACKEND": backend, "LOCATION": f"{tmp_path}/shared"}
    try:
        configure({"default": alias, "pages": {**alias, "KEY_PREFIX": "pages"}})
        caches["pages"].set("k", 1)
        assert "KEY_PREFIX 'pages' (CACHES['pages']) has it" in caches["default"].explain("k").reason
    finally:
        caches.swap(before)


def test_a_computation_of_another_process_is_told_by_its_name(tmp_path):
    """The lease in the entry has the name of the process that computes."""
    code = f"""
import sys
from storeroom.backends.filebased import FileBasedCache
cache = FileBasedCache({f"{tmp_path}/files"!r}, {{}})
def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    return 1
cache.get_or_set("k", compute)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "computing\n"
        found = files(tmp_path).explain("k")
        process.stdin.write("\n")
    lease = found.lease
    assert found.cause == "computing"
    assert lease is not None
    assert (lease.is_here, lease.holder.split(" on ")[0]) == (False, f"process {process.pid}")
    assert os.uname().nodename in lease.holder
    assert files(tmp_path).explain("k").would_hit


def test_the_text_is_one_line_for_each_fact():
    """The first line is the answer."""
    cache = memory(removals=1)
    cache.set("k", [1], 100, tags=["t"])
    lines = str(cache.explain("k")).splitlines()
    assert lines[0] == "'k' would be found. A read finds it in LocMemCache."
    assert lines[1] == "  storage key     ':1:k'"
    assert lines[2].startswith("  in LocMemCache  live for 1")
    assert lines[-1] == "  tag             't', current"


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0.0 s"), (9.96, "10.0 s"), (59, "59 s"), (599, "599 s"), (7200, "120 min")]
)
def test_durations_are_told_in_a_fitting_unit(seconds, words):
    """Tenths of seconds, seconds, minutes, hours."""
    assert seconds_in_words(seconds) == words


def test_the_cost_of_remembering_is_measured():
    """The benchmark runs, and gives a time and a ratio."""
    microseconds, ratio = compare(lambda removals: memory(max_entries=50, removals=removals), rounds=3, sets=50)
    assert microseconds > 0
    assert ratio > 0


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_others_may_write_meanwhile(tmp_path, kind):
    """While threads evict, delete and clear, each explanation is whole, and its cause one that can be."""
    options = {"max_entries": 20, "removals": 50}
    cache = memory(**options) if kind == "memory" else files(tmp_path, **options)
    causes = set()

    def work(thread: int) -> None:
        for number in range(150):
            key = f"k{number % 40}"
            if thread == 0:
                causes.add(cache.explain(key).cause)
            else:
                cache.set(key, [number], tags=["t"] if number % 3 else [])
                cache.delete(f"k{(number * 7) % 40}")
                if number % 50 == 49:
                    cache.invalidate_tags("t") if number % 100 == 49 else cache.clear()

    in_threads(4, work)
    assert causes <= {"hit", "never", "evicted", "deleted", "cleared", "tag"}
