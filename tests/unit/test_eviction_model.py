"""The bounded map against a plain dict of the entries stored."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storeroom.eviction import ENCODED, BoundedMap, bounded_map, s3fifo

KEYS = st.integers(0, 40).map(str)
SIZES = st.integers(0, 30)
TIMEOUTS = st.sampled_from([math.inf, math.inf, 1.0, 5.0, 5.0, 5.0, 5.5, 60.0])
MAX_ENTRIES = st.one_of(st.none(), st.integers(-1, 12))
MAX_BYTES = st.one_of(st.none(), st.integers(1, 120))


class EvictionMachine(RuleBasedStateMachine):
    """Under any operations in any order, nothing is made up, lost without a count, or kept beyond a bound."""

    @initialize(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, cull_frequency=st.sampled_from([None, None, 0, 1, 2, 3]))
    def build(self, max_entries, max_bytes, cull_frequency):
        self.bounded = BoundedMap(max_entries, max_bytes, cull_frequency)
        self.stored = {}  # key -> value, encoded, expires_at, size
        self.now = 1_000.0

    def settle(self, evictions=0, expirations=0):
        """Drop from the model the entries that the map has evicted or expired; compare with its counters."""
        gone = self.stored.keys() - self.bounded.entries.keys()
        expired = {key for key in gone if self.stored[key][2] <= self.now}
        removed = self.bounded.evictions + self.bounded.expirations - evictions - expirations
        assert removed == len(gone)
        culled_all = self.bounded.cull_frequency == 0
        assert culled_all or self.bounded.expirations - expirations == len(expired)
        if len(gone) > len(expired) and not culled_all:
            assert not any(entry.expires_at <= self.now for entry in self.bounded.entries.values())
        for key in gone:
            del self.stored[key]

    @rule(key=KEYS, size=SIZES, timeout=TIMEOUTS, encoded=st.booleans())
    def set(self, key, size, timeout, encoded):
        value = (ENCODED, f"{key}@{self.now}".encode()) if encoded else (f"{key}@{self.now}", None)
        before = self.bounded.evictions, self.bounded.expirations
        entry, fits = self.bounded.entries.get(key), self.bounded.fits(size)
        if entry is None:
            self.bounded.insert(key, *value, self.now + timeout, size, self.now)
        else:
            self.bounded.replace(entry, *value, self.now + timeout, size, self.now)
        self.stored[key] = (*value, self.now + timeout, size)
        if not fits:
            # The new value's eviction is counted; a key that was there has lost its old value by it.
            assert key not in self.bounded.entries
            self.stored[key] = (*value, math.inf, size)
        self.settle(*before)
        assert (key in self.bounded.entries) == fits
        if self.bounded.max_bytes is not None and fits:
            assert self.bounded.bytes_used <= self.bounded.max_bytes
        if self.bounded.max_entries is not None and fits and entry is None:
            assert len(self.bounded) <= max(1, self.bounded.max_entries)

    @rule(key=KEYS)
    def hit(self, key):
        entry = self.bounded.entries.get(key)
        if entry is not None and entry.expires_at > self.now and entry.freq < 2:
            entry.freq += 1

    @rule(key=KEYS, timeout=TIMEOUTS)
    def touch(self, key, timeout):
        entry = self.bounded.entries.get(key)
        if entry is not None:
            self.bounded.touch(entry, self.now + timeout)
            value, encoded, _, size = self.stored[key]
            self.stored[key] = value, encoded, self.now + timeout, size

    @rule(key=KEYS)
    def delete(self, key):
        assert self.bounded.delete(key) == (self.stored.pop(key, None) is not None)

    @rule(limit=st.sampled_from([1, 3, math.inf]))
    def sweep(self, limit):
        expired = sum(expires_at <= self.now for _, _, expires_at, _ in self.stored.values())
        before = self.bounded.evictions, self.bounded.expirations
        assert self.bounded.sweep(self.now, limit) == min(limit, expired)
        self.settle(*before)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 30.0, -2.0]))
    def pass_time(self, seconds):
        """Clocks are set back, too."""
        self.now += seconds

    @rule(max_entries=MAX_ENTRIES)
    def change_max_entries(self, max_entries):
        self.bounded.max_entries = max_entries

    @rule(max_bytes=MAX_BYTES)
    def change_max_bytes(self, max_bytes):
        self.bounded.max_bytes = max_bytes

    @rule()
    def clear(self):
        self.bounded.clear()
        self.stored.clear()

    @invariant()
    def holds_what_was_stored(self):
        kept = {
            key: (entry.value, entry.encoded, entry.expires_at, entry.size)
            for key, entry in self.bounded.entries.items()
        }
        assert kept == self.stored

    @invariant()
    def keeps_its_promises(self):
        self.bounded.check_invariants()


TestEviction = pytest.mark.slow(EvictionMachine.TestCase)
TestEviction.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)


@pytest.mark.slow
class TestEvictionOfALargeMap(EvictionMachine.TestCase):
    """The same with entries in shards, and kept from the garbage collector."""

    settings = settings(max_examples=15, stateful_step_count=60, deadline=None)

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _large_soon(cls):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bounded_map, "_MANY", 3)
            patch.setattr(bounded_map, "LARGE", 5)
            patch.setattr(s3fifo, "LARGE", 5)
            yield
