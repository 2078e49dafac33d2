"""The entries of a file cache, as one write transaction sees them: put, remove, expire, evict.

Records lie in LMDB's tree (`records`), their slots in shared memory (`slots`), and which
entry is evicted is decided there (`queues`). An entry that is overwritten touches its record
alone.
"""

import math
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from storeroom import storage
from storeroom.backends.filebased.checking import check
from storeroom.backends.filebased.choosing import batch_of
from storeroom.backends.filebased.counts import COUNTS_KEY, counts_in
from storeroom.backends.filebased.environment import Environment
from storeroom.backends.filebased.pieces import (
    Laid,
    drop_aside,
    drop_unwritten,
    frame_of,
    is_whole,
    lay,
    lay_last,
    sweep,
)
from storeroom.backends.filebased.queues import Bounds
from storeroom.backends.filebased.rebuilding import rebuild
from storeroom.backends.filebased.records import (
    APART,
    ASIDE,
    HAS_TO_BE_SEEN,
    HEADER,
    LOCK,
    LONGEST_FRAME,
    are_all_owned,
    bytes_aside,
    clearing_key,
    entry_size,
    envelope_of,
    fold,
    is_being_computed,
    is_conditional,
    is_over,
    locks,
    owned_from,
    read_header,
    renewed,
)
from storeroom.backends.filebased.slotfile import EARLIEST, LEAVING, LEAVING_MAIN, LOCKED, MAIN, SMALL, VERSION
from storeroom.backends.filebased.slots import ENTRIES, IN_MAIN, IN_SMALL, SIZE, TAIL, VERSIONS, Slots
from storeroom.eviction import DELETED, EVICTED, MOST_HITS
from storeroom.keys import KeySpace
from storeroom.storage.envelope import Envelope

__all__ = ["Bounds", "Table", "put_alone"]


_SLOT_AT: Final = 16
_FRAME_AT: Final = HEADER.size
_header_of: Final = HEADER.unpack_from

_PER_WRITE: Final = 8
"""Expired entries removed by each write beyond what room needs: more than one, so that a backlog
shrinks; few, so that no write pays for many."""

LOOKS: Final = 500
"""Entries that one of the transactions of a long task looks at: three milliseconds, if all are removed."""

_NOTICE_SECONDS: Final = 10.0
"""Seconds for which a clear() counts as under way after one of its transactions: many times as long as its pauses."""

_SPARED: Final = 1000
"""Entries that the evictions of one transaction pass over because they are being computed: bounds a write's time."""

_COUNTED: Final = frozenset({SMALL, MAIN, LEAVING, LEAVING_MAIN})
"""Kinds of slots whose entries the bounds count."""


def put_alone(
    engine: Environment, transaction: Any, entry_key: bytes, frame: bytes, expires_at: float, bounds: Bounds, now: float
) -> bool:
    """Write an entry where that, and room, is all that is needed; return False, having changed no entry, elsewhere.

    An overwritten one keeps its size, and comes due no earlier; for a new one, none is due.
    """
    queues, old, number = engine.queues, transaction.get(entry_key), transaction.id()
    slots = queues.slots
    if old is not None:
        record = _renewed(slots, old, entry_key, frame, expires_at)
        if record is None or not slots.skip(number):
            return False
        transaction.put(entry_key, record)
        return True
    if entry_key[0] in APART or len(frame) > LONGEST_FRAME:
        return False
    if not slots.begin(number) or slots.times[EARLIEST] <= now:
        return False
    size, (max_entries, max_bytes, _, _), numbers = entry_size(entry_key, len(frame)), bounds, slots.numbers
    while (max_entries is not None and numbers[ENTRIES] >= max_entries) or (
        max_bytes is not None and numbers[SIZE] + size > max_bytes
    ):
        if not queues.let_go(transaction):
            Table(engine, transaction, now, is_begun=True).make_room(-1, size, bounds)
            break
        engine.counters.evictions += 1
    is_flagged = is_conditional(entry_key, frame, 0)
    slot = queues.enter(transaction, entry_key, size, expires_at, bounds, is_flagged)
    transaction.put(entry_key, HEADER.pack(expires_at, 0, slot) + frame)
    return True


def _renewed(slots: Slots, old: bytes, entry_key: bytes, frame: bytes, expires_at: float) -> bytes | None:
    """Return the record that overwrites an old one and leaves its slot as it is, or None."""
    size = len(frame)
    if len(old) != _FRAME_AT + size or size > LONGEST_FRAME:
        return None
    _, aside, slot = _header_of(old)
    if aside or slot >= slots.count or expires_at < slots.dues[slot] or is_conditional(entry_key, frame, 0):
        return None
    return HEADER.pack(expires_at, 0, slot) + frame


class Table:
    """The entries under a write transaction.

    Attributes:
        slots: their numbers are those of this transaction.
        expired: expired entries that this transaction has removed.
        now: epoch seconds; the same for the whole transaction.
    """

    __slots__ = ("_environment", "_kept", "_queues", "_spared", "_transaction", "expired", "now", "slots")

    def __init__(self, environment: Environment, transaction: Any, now: float, *, is_begun: bool = False) -> None:
        """Begin the changes, unless that is done, or make the slots anew if they do not fit the tree."""
        self._environment, self._transaction, self.now = environment, transaction, now
        self._queues, self.slots = environment.queues, environment.queues.slots
        self.expired = self._spared = 0
        self._kept = -1
        if not is_begun and not self.slots.begin(transaction.id()):
            self._rebuild()
        if self.slots.times[EARLIEST] <= now:
            self.expire(_PER_WRITE)

    def usage(self) -> tuple[int, int]:
        """Return entries and bytes, expired ones not yet removed included."""
        return self.slots.numbers[ENTRIES], self.slots.numbers[SIZE]

    def live(self, entry_key: bytes) -> bytes | None:
        """Return the entry's record, header and all, or None if it is absent or expired."""
        record: bytes | None = self._transaction.get(entry_key)
        return None if record is None or not read_header(record)[0] > self.now else record

    def frame_of(self, entry_key: bytes) -> bytes:
        """Return an entry's frame: see pieces.frame_of()."""
        return frame_of(self._transaction, entry_key)

    def _slot_of(self, entry_key: bytes) -> int:
        """Return the slot of an entry, expired or not; -1 if there is none."""
        record = self._transaction.get(entry_key)
        if record is None:
            return -1
        slot = read_header(record)[1]
        if len(record) >= HEADER.size and self.slots.holds(self._transaction, slot, entry_key):
            return slot
        self._rebuild()  # a damaged record
        return self._slot_of(entry_key)

    # Writing --------------------------------------------------------------------------------

    def put(self, entry_key: bytes, frame: bytes, expires_at: float, bounds: Bounds, laid: Laid | None = None) -> None:
        """Insert or overwrite an entry, evicting others where the bounds ask for it; `frame` may be laid aside."""
        slots = self.slots
        record = self._transaction.get(entry_key)
        slot = -1
        if record is not None:
            if laid is None and (renewed := _renewed(slots, record, entry_key, frame, expires_at)) is not None:
                self._transaction.put(entry_key, renewed)
                return
            slot = self._slot_of(entry_key)
        size = entry_size(entry_key, len(frame) if laid is None else laid.size)
        if entry_key[0] in APART:
            slot = self._put_apart(slot, entry_key, size, bounds)
        else:
            if self.make_room(slot, size, bounds):
                slot = self._slot_of(entry_key)  # it may have been among the expired ones that went
            is_flagged = is_conditional(entry_key, frame, 0)
            if slot >= 0:
                growth = slots.refill(slot, size, is_flagged=is_flagged)
                slots.numbers[SIZE] += growth
                if size - growth > LONGEST_FRAME:
                    drop_aside(self._transaction, entry_key)
            else:
                slot = self._queues.enter(self._transaction, entry_key, size, expires_at, bounds, is_flagged)
        slots.expire_at(slot, expires_at)
        aside = 0
        if laid is not None:
            lay_last(self._transaction, entry_key, laid)
            frame, aside = fold(entry_key, frame), laid.size
        elif len(frame) > LONGEST_FRAME and entry_key[0] not in APART:
            self._transaction.put(ASIDE + entry_key, frame)
            frame, aside = fold(entry_key, frame), len(frame)
        self._transaction.put(entry_key, HEADER.pack(expires_at, aside, slot) + frame)

    def lay(self, name: bytes, number: int, pieces: Sequence[memoryview]) -> bool:
        """Put pieces of a frame aside: see pieces.lay()."""
        return lay(self._transaction, name, number, pieces, self.now)

    def put_laid(self, entry_key: bytes, laid: Laid, expires_at: float, bounds: Bounds) -> bool:
        """Insert or overwrite an entry whose frame was laid aside; return False if pieces of it were removed."""
        if not is_whole(self._transaction, laid):
            return False
        self.put(entry_key, laid.head, expires_at, bounds, laid)
        return True

    def drop_pieces(self, name: bytes) -> None:
        """Remove the pieces of an entry that was not written."""
        drop_unwritten(self._transaction, name)

    def put_all(self, entry_keys: Sequence[bytes], frames: Sequence[bytes], expires_at: float, bounds: Bounds) -> None:
        """Insert or overwrite entries, as put() does; those first, and together, whose slots stay as they are."""
        # As _renewed(), and no slot comes due later than its record expires (benchmarks: "file set_many of 100").
        olds, head = list(map(self._transaction.get, entry_keys)), HEADER.pack(expires_at, 0, 0)[:_SLOT_AT]
        renewed, others = storage.batches.renewals(entry_keys, frames, olds, head, HAS_TO_BE_SEEN)
        self._transaction.cursor().putmulti(renewed)
        for entry_key, frame in others:
            self.put(entry_key, frame, expires_at, bounds)

    def note_use(self, record: bytes) -> None:
        """Count a look at an entry, of which this is the record, as its readers do."""
        slot, hits = read_header(record)[1], self.slots.hits
        if slot < len(hits):
            hits[slot] = min(hits[slot] + 1, MOST_HITS)

    def touch(self, entry_key: bytes, record: bytes, expires_at: float, bounds: Bounds) -> None:
        """Give a live entry, of which this is the record, another expiry; a frame that lies aside stays as it is."""
        aside, body = bytes_aside(record), record[HEADER.size :]
        if not aside:
            self.put(entry_key, body, expires_at, bounds)
            return
        slot = self._slot_of(entry_key)
        self.slots.expire_at(slot, expires_at)
        self._transaction.put(entry_key, HEADER.pack(expires_at, aside, slot) + body)

    def renew(self, entry_key: bytes, record: bytes, expected: Envelope, envelope: Envelope, bounds: Bounds) -> bool:
        """Change the terms of an envelope whose frame lies aside, if it is the writing `expected`; tell whether."""
        if not bytes_aside(record) or envelope_of(entry_key, record) != expected:
            return False
        self.touch(entry_key, renewed(entry_key, record, envelope), envelope.kept_until, bounds)
        return True

    def _put_apart(self, slot: int, entry_key: bytes, size: int, bounds: Bounds) -> int:
        """Return the slot of a lock, or of a tag's version, of which the oldest goes if there are too many."""
        slots: Slots = self.slots
        max_tags = bounds.max_tags
        if slot >= 0:
            slots.refill(slot, size, is_flagged=False)
            return slot
        if entry_key[0] == LOCK:
            return slots.take(self._transaction, LOCKED, entry_key, size, math.inf, is_flagged=False)
        while max_tags is not None and slots.numbers[VERSIONS] >= max_tags:
            oldest = slots.find(VERSION, slots.numbers[TAIL])
            if oldest < 0:
                self._rebuild()
                continue
            self._note(slots.key_of(self._transaction, oldest), EVICTED, math.inf)
            self._release(oldest)
        slot = slots.take(self._transaction, VERSION, entry_key, size, math.inf, is_flagged=False)
        slots.numbers[VERSIONS] += 1
        return slot

    def remove(self, entry_key: bytes) -> bool:
        """Remove an entry; return whether it was live."""
        slot = self._slot_of(entry_key)
        if slot < 0:
            return False
        record = self._transaction.get(entry_key)
        is_live = read_header(record)[0] > self.now and not is_over(entry_key, record, self.now)
        self._release(slot)
        self._note(entry_key, DELETED, read_header(record)[0])
        return is_live

    def _note(self, entry_key: bytes, kind: str, until: float) -> None:
        """Remember a removal, where somebody wants to know; if the transaction fails, the entry is there again."""
        if self._environment.remembered is not None:
            self._environment.remembered.note(entry_key, kind, until)

    def _release(self, slot: int) -> bool:
        """Remove the entry of a slot; return whether it was one that counts."""
        numbers, kind = self.slots.numbers, self.slots.kinds[slot]
        _, size = self.slots.remove(self._transaction, [slot])
        if kind in _COUNTED:
            numbers[IN_SMALL] -= kind == SMALL
            numbers[IN_MAIN] -= kind == MAIN
            numbers[ENTRIES] -= 1
            numbers[SIZE] -= size
        elif kind == VERSION:
            numbers[VERSIONS] -= 1
        return kind in _COUNTED

    def clear(self, key_space: KeySpace) -> bool:
        """Remove the entries and the tags of a cache, however many; no locks.

        Return False, and do nothing, if there are others, or many locks.
        """
        transaction = self._transaction
        held = locks(transaction, LOOKS + 1)
        if len(held) > LOOKS or not are_all_owned(transaction, key_space, LOOKS):
            return False
        kept = [*held, *counts_in(transaction)]
        transaction.drop(self._environment.main_database, delete=False)
        for entry_key, record in kept:
            transaction.put(entry_key, record)
        self._queues.forget()
        self._rebuild()
        return True

    def clear_from(self, key_space: KeySpace, position: bytes, limit: int) -> bytes:
        """Remove a cache's own among the next `limit` records; return the position to go on from, b"" at the end.

        Until then no entry of this cache is moved: it might come to lie behind the position.
        """
        found, position = owned_from(self._transaction, key_space, position, limit)
        for entry_key in found:
            self.remove(entry_key)
        if position:
            self._transaction.put(clearing_key(key_space), HEADER.pack(self.now + _NOTICE_SECONDS, 0, 0))
        else:
            self._transaction.delete(clearing_key(key_space))
        return position

    def forget_counts(self) -> None:
        """Let the counts of all processes begin at zero."""
        for key, _ in list(counts_in(self._transaction)):
            self._transaction.delete(key)

    def rewrite_counts(self) -> None:
        """Change nothing, in a transaction: the pages that the one before has freed serve the one after it."""
        self._transaction.put(COUNTS_KEY, self._transaction.get(COUNTS_KEY, b""))

    def is_being_cleared(self, key_space: KeySpace) -> bool:
        """Tell whether a clear() of the cache is under way, in whatever process."""
        notice = self._transaction.get(clearing_key(key_space))
        return notice is not None and read_header(notice)[0] > self.now

    # Making room ----------------------------------------------------------------------------

    def prune(self, limit: int) -> int:
        """Remove up to about `limit` expired entries; return how many went in this transaction."""
        sweep(self._transaction, self.now)
        self.expire(limit)
        return self.expired

    def expire(self, limit: float = math.inf) -> int:
        """Remove up to `limit` expired entries; return how many."""
        transaction, slots, removed = self._transaction, self.slots, 0
        with closing(slots.due(self.now)) as due:
            for slot in due:
                if removed >= limit:
                    break
                entry_key = slots.key_of(transaction, slot)
                record = transaction.get(entry_key)
                if record is not None and (expires_at := read_header(record)[0]) > self.now:
                    slots.dues[slot] = expires_at
                    continue
                if record is not None:
                    self._note(entry_key, DELETED, read_header(record)[0])
                removed += self._release(slot)
        self._environment.counters.expirations += removed
        self.expired += removed
        return removed

    def make_room(self, slot: int, size: int, bounds: Bounds) -> bool:
        """Remove the entries that stand in the way of one of this size in this slot, or of a new one.

        Return whether any had to be.
        """
        max_entries, max_bytes, cull_frequency, _ = bounds
        slots, numbers, entries = self.slots, self.slots.numbers, self.slots.numbers[ENTRIES]
        surplus = 0 if slot >= 0 or max_entries is None else entries + 1 - max_entries
        allowed = math.inf if max_bytes is None else max_bytes - size + (slots.sizes[slot] if slot >= 0 else 0)
        if surplus <= 0 and numbers[SIZE] <= allowed:
            return False
        count, ahead = batch_of(entries, self._queues.share.small_used)
        count = max(surplus, count)
        if surplus > 0 and cull_frequency is not None:
            surplus = count = max(surplus, entries // cull_frequency if cull_frequency else entries)
        if slots.times[EARLIEST] <= self.now:
            removed = self.expire(max(1, surplus))
            surplus, count = surplus - removed, count - removed
            while numbers[SIZE] > allowed and self.expire(1):
                pass
        self._kept = slot
        try:
            self._evict(surplus, allowed, count, ahead, self._queues.capacity(bounds))
        except LookupError:
            self._rebuild()
            self._evict(surplus, allowed, count, ahead, self._queues.capacity(bounds))
        return True

    def _evict(self, surplus: int, allowed: float, count: int, ahead: int, capacity: float) -> None:
        """Evict as many as the bounds ask for: if any at all, so many at least."""
        excess = self.slots.numbers[SIZE] - allowed
        remembered = self._environment.remembered
        self._queues.note_removal = None if remembered is None else remembered.note
        if surplus > 0 or excess > 0:
            self._environment.counters.evictions += self._queues.evict(
                self._transaction, count, ahead, excess, capacity, self._kept, self._is_spared
            )

    def _is_spared(self, slot: int) -> bool:
        """Tell whether an entry is to stay: the one being written, and those that another caller computes."""
        if slot == self._kept:
            return True
        if self._spared >= _SPARED or not self.slots.flags[slot]:
            return False
        entry_key = self.slots.key_of(self._transaction, slot)
        record = self._transaction.get(entry_key)
        is_spared = record is not None and is_being_computed(entry_key, record, self.now)
        self._spared += is_spared
        return is_spared

    def _rebuild(self) -> None:
        rebuild(self._transaction, self._queues, self._environment.main_database)

    def check(self) -> None:
        """Raise AssertionError if entries, slots and numbers disagree: for tests."""
        check(self._transaction, self.slots)
