"""The record of a cache's traffic: its sample, its windows, its end, in threads and in children."""

import gc
import json
import math
import os
import sys
import threading
import weakref
from dataclasses import replace

import pytest

from benchmarks.advice import drifting
from benchmarks.hit_ratio import zipf
from storeroom.advice import Simulation
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.recording import recorder
from storeroom.recording.left import _key as left_key
from storeroom.recording.left import leave, left
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own


@pytest.fixture(autouse=True)
def own_engines():
    """The caches of a test are its own."""
    with engines_of_its_own():
        yield


@pytest.fixture
def no_budget(monkeypatch):
    """The sample does not depend on how busy the machine is."""
    monkeypatch.setattr(recorder, "_BUDGET", math.inf)
    monkeypatch.setattr(recorder, "submit", lambda job, _: job())


def memory(name, advise="always", **options):
    return LocMemCache(name, {"OPTIONS": {"max_entries": 100, "advise": advise, **options}})


def shared_files(tmp_path):
    return FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 100, "advise": True}})


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("no_budget")
def test_a_live_sample_tells_the_hit_ratio_of_other_sizes():
    """From a part of the keys of a running cache, its halves and doubles are told within 2.5 points."""
    size = 2_000
    cache = memory("recording-live", max_entries=size)
    keys = drifting(50_000, 40_000, 0.8, drift=0.01)
    whole = Simulation([1_000, 4_000])
    for key in keys:
        cache.get_or_set(key, 1)
        whole.read(key, 0)
    advice = cache.advice()
    assert advice.rate < 0.6
    assert advice.missing_keys == 0
    told = {point.at: point for point in advice.by_max_entries}
    assert told[size].hit_ratio == pytest.approx(cache.stats().hit_ratio)
    for miniature in whole.sizes:
        true = 1 - sum(miniature.misses) / whole.reads
        assert abs(told[miniature.size].hit_ratio - true) < 0.025
        assert told[miniature.size].low <= true <= told[miniature.size].high


def test_hits_of_computing_calls_are_reads_of_the_advice():
    """All reads count: those of get(), and those of get_or_set(), which are counted apart."""
    cache = memory("recording-reused")
    for _ in range(10):
        cache.get_or_set("a", 1)
        cache.get("a")
    advice = cache.advice()
    assert (advice.reads, advice.hit_ratio) == (20, cache.stats().hit_ratio)


def test_the_sample_of_a_large_cache_is_small(monkeypatch):
    """Where the replay takes more than its part of the time, fewer keys are noted."""
    monkeypatch.setattr(recorder, "_BUDGET", 0.0)
    monkeypatch.setattr(recorder, "_JUDGED_SECONDS", 0.0)
    cache = memory("recording-budget")
    for key in zipf(5_000, 1_000, 0.5):
        cache.get(key)
        if len(cache.engine.recorder._events) == 500:
            cache.engine.recorder.drain()
    assert cache.advice().rate < 0.5


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_pause_leaves_nothing_in_the_way_of_a_hit(kind, tmp_path):
    """Between windows, reads go their usual way and are not noted; the next window notes them again."""
    cache = memory("recording-pause", advise=True) if kind == "memory" else shared_files(tmp_path)
    cache.get("k")
    record = cache.engine.recorder
    record.close()
    record._timer.cancel()
    assert cache._overlay is None
    for _ in range(10):
        cache.get("k")
    assert not record._events or len(record._events) == 1
    assert cache.advice().reads == 1
    record.open()
    cache.get("k")
    assert cache._overlay is not None
    assert cache.advice().reads == 2
    record.stop()


def test_in_a_pause_a_hit_of_local_memory_takes_its_usual_way():
    """A window takes compiled methods out of the way, and its end puts them back: also in a handle of a pause."""
    cache, usual = memory("recording-compiled", advise=True), memory("recording-not", advise=False)
    for each in (cache, usual):
        each.set("k", "value")
    record = cache.engine.recorder
    record.close()
    record._timer.cancel()
    for handle in (cache, memory("recording-compiled", advise=True)):
        assert frames(handle.get, "k") == frames(usual.get, "k")
        assert frames(handle.get_or_set, "k", 0) == frames(usual.get_or_set, "k", 0)
        record.open()
        assert frames(handle.get, "k") > frames(usual.get, "k")
        assert record._events
        record.close()
        record._timer.cancel()
        assert frames(handle.get, "k") == frames(usual.get, "k")
    record.stop()


def frames(call, *args):
    """Count the functions of Python that a call enters."""
    entered = []
    sys.setprofile(lambda _, event, __: entered.append(event))
    try:
        call(*args)
    finally:
        sys.setprofile(None)
    return entered.count("call")


def test_a_handle_that_is_made_in_a_pause_does_not_record():
    """Handles come and go with threads and requests: each keeps to the windows of its storage."""
    cache = memory("recording-handles", advise=True)
    cache.get("k")
    cache.engine.recorder.close()
    cache.engine.recorder._timer.cancel()
    other = memory("recording-handles", advise=True)
    other.get("k")
    assert other._overlay is None
    cache.engine.recorder.open()
    assert other._overlay is not None
    cache.engine.recorder.stop()


def test_a_window_ends_by_itself_and_the_next_one_begins(monkeypatch):
    """A window ends with the first batch after its time, and opens after a pause in proportion."""
    monkeypatch.setattr(recorder, "WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(recorder, "MEMORY_SHARE", 0.9)
    cache = memory("recording-window", advise=True)
    cache.get("k")
    record, ended = cache.engine.recorder, threading.Event()
    close = record.close
    monkeypatch.setattr(record, "close", lambda: (close(), ended.set()))
    for _ in range(recorder._BATCH):
        cache.get("k")
    assert ended.wait(30)
    record._timer.join(30)
    assert record.is_open
    record.stop()


def test_notes_are_bounded_where_no_worker_takes_them(monkeypatch):
    """Where no thread can be had, the oldest notes go, and the sample is one of fewer keys: it is none of all."""
    monkeypatch.setattr(recorder, "submit", lambda *_: False)
    cache = memory("recording-bounded")
    for number in range(recorder._MOST_WAITING + 100):
        cache.get(f"k{number % 50}")
    assert len(cache.engine.recorder._events) == recorder._MOST_WAITING
    advice = cache.advice()
    assert advice.rate <= 0.5
    assert 10 <= advice.sampled_keys < 40


def test_threads_record_together():
    """Reads of several threads are all noted."""
    cache = memory("recording-threads")

    def read(first):
        for number in range(1_000):
            cache.get(f"{first}-{number % 10}")

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.advice().sampled_keys == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_records_by_itself():
    """A forked child begins anew, even in a pause of its parent and while that replays: it tells of its own reads."""
    cache = memory("recording-fork", advise=True)
    cache.get("k")
    record = cache.engine.recorder
    record.close()
    with record._lock:
        child = os.fork()
        if child == 0:
            try:
                cache.get("in the child")
                advice = cache.advice()
                os._exit(0 if advice.sampled_keys == 1 and str(os.getpid()) in advice.scope else 1)
            finally:
                os._exit(2)
    record.stop()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_record_keeps_no_storage_alive():
    """A pause under way does not keep a cache that nobody uses."""
    cache = memory("recording-gone", advise=True)
    cache.get("k")
    record, engine = cache.engine.recorder, weakref.ref(cache.engine)
    record.stop()
    del cache
    from storeroom.engines import engine as engines

    for name in [name for name, each in engines._engines.items() if each is engine()]:
        del engines._engines[name]
    gc.collect()
    assert engine() is None
    record.open()
    assert not record.is_open


def test_a_process_leaves_its_answer_in_a_shared_storage(tmp_path, monkeypatch):
    """After a batch the answer lies in the storage, where keys() and clear() of the program do not meet it."""
    monkeypatch.setattr(recorder, "submit", lambda job, _: job())
    cache = shared_files(tmp_path)
    for number in range(recorder._BATCH):
        cache.get(f"k{number % 50}")
    note = left(cache)
    assert note is not None
    assert (note["process"], note["sampled_keys"]) == (os.getpid(), 50)
    assert "Hit ratio by MAX_ENTRIES" in note["text"]
    assert cache.keys() == []
    cache.engine.recorder.stop()


def test_the_answer_with_the_most_reads_stays(tmp_path, monkeypatch):
    """Another process's answer from more reads is not overwritten, unless that process was not heard of for long."""
    with FakeClock() as clock:
        cache = FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 100, "advise": "always"}})
        for number in range(100):
            cache.get(f"k{number % 50}")
        more = cache.advice()
        monkeypatch.setattr("os.getpid", lambda: 1)
        leave(cache, more)
        monkeypatch.undo()
        fewer = replace(more, reads=7)
        leave(cache, fewer)
        assert left(cache)["reads"] == 100
        clock.advance("11m")
        leave(cache, fewer)
        assert left(cache)["reads"] == 7


def test_bytes_that_are_no_answer_are_none(tmp_path):
    """A text that another program has put there is not taken for an answer."""
    cache = shared_files(tmp_path)
    whole = {"written_at": 1.5, "process": 1, "reads": 1, "missing_keys": 0, "text": "", "changes": []}
    cache._set(left_key(cache), json.dumps(whole), math.inf)
    assert left(cache) == whole
    for text in (
        "no JSON",
        "[]",
        "{}",
        5,
        json.dumps({**whole, "changes": [1]}),
        json.dumps({**whole, "reads": "many"}),
    ):
        cache._set(left_key(cache), text, math.inf)
        assert left(cache) is None


def test_versions_of_tags_are_no_reads():
    """The framework's own entries are not part of the traffic."""
    cache = memory("recording-tags")
    cache.set("k", 1, tags=["tag"])
    cache.get("k")
    cache.invalidate_tags("tag")
    advice = cache.advice()
    assert (advice.reads, advice.sampled_keys) == (1, 1)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_all_reads_of_a_window_are_counted(kind, tmp_path):
    """Hits of get_or_set() count as those of get(); counts that files add to the record of all processes count on."""
    options = {"max_entries": 100, "advise": "always"}
    cache = memory("recording-reads") if kind == "memory" else FileBasedCache(str(tmp_path), {"OPTIONS": options})
    for number in range(40):
        cache.get_or_set(f"k{number % 10}", 1)
    if kind == "files":
        cache.engine.add_counts()
    for number in range(40):
        cache.get(f"k{number % 20}")
    advice = cache.advice()
    assert (advice.reads, advice.hit_ratio) == (80, 50 / 80)
    assert cache.stats().hit_ratio == advice.hit_ratio


def test_options_do_not_slow_the_attributes_of_a_handle():
    """A handle has no more attributes than Python keeps in line, and the same ones whatever its options are."""
    handles = [memory("recording-plain", advise=False), memory("recording-all", advise=True, removals=9)]
    plain, full = map(vars, handles)
    assert list(plain) == list(full)
    assert len(plain) < 30


def test_an_answer_outlives_the_traffic(tmp_path):
    """The answer in a full cache is not evicted by what is written after it, and clear() leaves it."""
    cache = shared_files(tmp_path)
    for number in range(100):
        cache.set(f"k{number}", 1)
    leave(cache, cache.advice())
    for number in range(2_000):
        cache.set(f"later-{number}", 1)
    cache.clear()
    assert left(cache)["process"] == os.getpid()
    cache.engine.recorder.stop()
