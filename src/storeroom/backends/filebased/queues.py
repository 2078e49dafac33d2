"""The entry of a file cache to evict: S3-FIFO as in local memory, over slots that processes share.

The policy is that of `storeroom.eviction.s3fifo`; the three queues lie differently:

- **Small** is the order of the slots: a new entry takes the next free one, so that the oldest
  of small comes first behind `small_hand`, and its youngest behind `window_hand`.
- **Main** is a ring of slots (`ring`).
- **Those to go next** are noted apart where few go at once: the choice (`choosing`) costs as much as several evictions.
  Until its turn comes an entry is there as before, and one that is read meanwhile goes on to main.
- **Ghosts** are a table. The checksum of a key, cut to its size, gives one of two neighbouring positions, which hold
  the last two keys evicted of those that share them: each the checksum, eight times the number among evictions from
  its queue, whether that was main, and the flags of `Share`. Versions before look at one of the two.

The numbers of `Share` lie in the header of the slots, where readers change them, too. Lost changes are harmless there.
"""

import math
from array import array
from collections.abc import Callable
from itertools import compress
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from storeroom.backends.filebased.choosing import Choice
from storeroom.backends.filebased.ring import append, promote
from storeroom.backends.filebased.slotfile import (
    BACKUP,
    EVICTED,
    LEAVING,
    LEAVING_MAIN,
    MAIN,
    ROOM,
    SHARE,
    SMALL,
    UNUSED,
    UNUSED_LIMIT,
)
from storeroom.backends.filebased.slots import (
    CHOSEN,
    ENTRIES,
    HAS_EVICTED,
    IN_MAIN,
    IN_SMALL,
    SIZE,
    SMALL_HAND,
    TAIL,
    WINDOW_HAND,
    YOUNG,
    Slots,
    compiled,
)
from storeroom.eviction import EVICTED as KEY_EVICTED
from storeroom.eviction.share import DRIFT, FLAGS, KNOWN, PROVEN, Share

__all__ = ["Bounds", "Queues"]

_SHARE: Final = Struct("=8d")
_NUMBERS: Final = 2**29
"""Numbers of evictions begin again at zero here: they have the bits of a word beside checksum and flags."""
_AT_ONCE: Final = 16
_PARTS: Final = 4
"""So many entries leave the window at once, or this part of it, as the call costs as much as several of them. From the
first eviction on each batch of them does that."""
_EVICTED_AT_ONCE: Final = 32
"""Likewise those that leave the cache; what small may hold is asked anew after them."""
_WAYS: Final = 2
"""Neighbouring positions of the table of ghosts that share their keys: with one, a third of the oldest were lost."""
_FIRST_OF: Final = -_WAYS
"""The bits of a position that the first of them has, too."""
_checksums: Final = Struct("=" + _WAYS * "4xI").unpack_from
_SMALL: Final = bytes([SMALL])
_LEAVES: Final = frozenset({LEAVING, LEAVING_MAIN})
_EVICTABLE: Final = (frozenset({SMALL}), _LEAVES)
"""Kinds of slots to evict: the oldest of small, and those that were chosen, unless they were removed meanwhile."""
_PROVEN: Final = frozenset({MAIN, LEAVING_MAIN})


class Bounds(NamedTuple):
    """The bounds, as an alias's OPTIONS say; None for none."""

    max_entries: int | None
    max_bytes: int | None
    cull_frequency: int | None
    max_tags: int | None


class Queues:
    """The order of eviction over slots. All but `miss()` needs a transaction that the slots have begun."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.note_removal: Callable[[bytes, str], None] | None = None
        self.share, self._settled_at = Share(math.inf), 0.0

    # Returns --------------------------------------------------------------------------------

    def miss(self, entry_key: bytes) -> None:
        """Learn from a read that did not find its key, if that was evicted lately."""
        ghosts, checksum = self.slots.ghosts, crc32(entry_key)
        if checksum in _checksums(ghosts, (checksum % len(ghosts) & _FIRST_OF) << 3):
            self._teach(ghosts, checksum, is_read=True)

    def _teach(self, ghosts: memoryview, checksum: int, *, is_read: bool) -> bool:
        """Learn from a key that returns; forget one that is written. Return whether it had left small."""
        first = checksum % len(ghosts) & _FIRST_OF
        for position in range(first, first + _WAYS):
            if (ghost := ghosts[position]) >> 32 == checksum and ghost:
                break
        else:  # another process has just changed it
            return False
        if not is_read:
            ghosts[position] = 0
        proven = ghost & PROVEN > 0
        evictions = self.slots.words[EVICTED + proven]
        age = (evictions - (ghost >> 3)) % _NUMBERS
        self._load()
        if age > KNOWN[proven] * self.share.capacity:
            return False
        flags = self.share.learn(age, ghost & FLAGS, proven=proven, is_read=is_read, evictions=evictions)
        if is_read:
            ghosts[position] = ghost | flags
        self._store()
        return not proven

    def _load(self, capacity: float | None = None) -> None:
        """Take over the numbers of the share that another process may have changed."""
        share = self.share
        shared, target, *used = _SHARE.unpack_from(self.slots.file, SHARE * 8)
        if shared:
            if shared != share.capacity:
                share.resize(shared)
            share.aim(target)
            (share.small_used, share.main_used, share.refilled, share.silence, share.run, share.lost) = used
        else:
            share.reset(math.inf)
        if capacity is None or capacity == share.capacity:
            return
        if not share.capacity / DRIFT < capacity < share.capacity * DRIFT:
            share.resize(capacity)
            self._store()

    def _store(self) -> None:
        share = self.share
        used = share.small_used, share.main_used, share.refilled, share.silence, share.run, share.lost
        _SHARE.pack_into(self.slots.file, SHARE * 8, share.capacity, share.target, *used)

    def forget(self) -> None:
        """Forget all that was learnt, as nothing is left; ghosts go by themselves."""
        self.share.reset(math.inf)
        self._store()

    # Queues ---------------------------------------------------------------------------------

    def enter(
        self, transaction: Any, entry_key: bytes, size: int, expires_at: float, bounds: Bounds, is_flagged: bool
    ) -> int:
        """Put a new entry, for which there is room, into small, or into main if it returns; return its slot.

        Raise StorageError if there is no room for more slots.
        """
        slots = self.slots
        if compiled is not None and not is_flagged:
            slot: int = compiled.enter(slots.file, entry_key, size, expires_at, self._settled_at)
            if slot >= 0:
                return slot
        numbers, checksum = slots.numbers, crc32(entry_key)
        numbers[ENTRIES] += 1
        numbers[SIZE] += size
        ghosts = slots.ghosts
        known = _checksums(ghosts, (checksum % slots.count & _FIRST_OF) << 3)
        if checksum in known and self._teach(ghosts, checksum, is_read=False):
            numbers[IN_MAIN] += 1
            slot = slots.take(transaction, MAIN, entry_key, size, expires_at, is_flagged)
            append(slots, slot)
            return slot
        numbers[IN_SMALL] += 1
        numbers[YOUNG] = young = numbers[YOUNG] + 1
        if young > self._settled_at:
            self._settle(self.capacity(bounds))
        return slots.take(transaction, SMALL, entry_key, size, expires_at, is_flagged)

    def capacity(self, bounds: Bounds) -> float:
        """Return how many entries fill the cache, if the mean size stays as it is."""
        entries, size = self.slots.numbers[ENTRIES], self.slots.numbers[SIZE]
        capacity = math.inf if bounds.max_entries is None else max(1.0, bounds.max_entries)
        if bounds.max_bytes is not None and size:
            capacity = max(1.0, min(capacity, bounds.max_bytes * entries / size))
        return capacity

    def _settle(self, capacity: float) -> None:
        """Let those of small leave the window that are too old for it, and until the first eviction, small itself."""
        self._load(capacity)
        slots, numbers, share = self.slots, self.slots.numbers, self.share
        young, hand, tail = numbers[YOUNG], numbers[WINDOW_HAND], numbers[TAIL]
        while young > share.window:
            grown, end = slots.small(hand, tail if hand <= tail else slots.count, math.ceil(young - share.window))
            for slot in grown:
                slots.hits[slot] = 0
            if not grown and end == tail:
                young = 0  # some of them were removed
                break
            young, hand = young - len(grown), end if end < slots.count or end == tail else 0
        numbers[YOUNG], numbers[WINDOW_HAND] = young, hand
        late = share.soon if numbers[HAS_EVICTED] else share.window / _PARTS
        self._settled_at = young + (max(_AT_ONCE, late) if late < math.inf else _AT_ONCE)
        if numbers[HAS_EVICTED] or numbers[IN_SMALL] <= share.target:
            return
        while numbers[IN_SMALL] > share.target:
            slot = slots.find(SMALL, numbers[SMALL_HAND])
            if slot < 0:
                raise LookupError("small is empty")
            numbers[SMALL_HAND], hits = slot + 1, share.fill(slots.hits[slot])
            numbers[IN_SMALL] -= 1
            numbers[IN_MAIN] += promote(slots, [slot])
            slots.hits[slot] = hits
        self._store()

    # Eviction -------------------------------------------------------------------------------

    def evict(
        self, transaction: Any, count: int, ahead: int, excess: float, capacity: float, kept: int,
        is_spared: Callable[[int], bool],
    ) -> int:  # fmt: skip
        """Evict so many entries at least, and until as many bytes are free; return how many went.

        With `ahead` so many are chosen together: those that need not go yet are there until `let_go()` evicts them.
        The one in the slot `kept` stays, and flagged ones that `is_spared`, which must be false of them at some time.
        Raise LookupError if slots, records and counts disagree.
        """
        self._settle(capacity)
        self._count_unused()
        evicted, has_looked, self.slots.numbers[HAS_EVICTED] = 0, False, 1
        while evicted < count or excess > 0:
            if size := self.let_go(transaction, kept):
                evicted, excess, has_looked = evicted + 1, excess - size, False
                continue
            wanted = min(_EVICTED_AT_ONCE, max(1, count - evicted))
            chosen = self._chosen(wanted, kept, is_spared)
            if not chosen and ahead and not has_looked:
                self._look_ahead(ahead, kept, is_spared)
                has_looked = True
                continue
            chosen = chosen or Choice(self.slots, self.share, kept, is_spared).take(wanted)
            if not chosen:
                break
            evicted, has_looked = evicted + len(chosen), False
            excess -= self._bury(transaction, chosen)
        self._store()
        return evicted

    def let_go(self, transaction: Any, kept: int = -1) -> int:
        """Evict the next of the entries that were chosen, or the oldest of small; return its bytes.

        Return 0, and evict none, where it was read, is not plain, or small is to be looked at. Most new keys in a full
        cache take no more than this.
        """
        slots = self.slots
        if compiled is not None and self.note_removal is None:
            went: int = compiled.let_go(slots.file, kept, slots.freed, transaction.delete)
            return went
        numbers, words, hand, position = slots.numbers, slots.words, slots.numbers[SMALL_HAND], slots.numbers[CHOSEN]
        if position:
            slot = slots.leaving[position - 1]
        elif numbers[IN_SMALL] >= slots.times[ROOM] and words[UNUSED] < words[UNUSED_LIMIT]:
            slot = slots.file.find(_SMALL, slots.kinds_at + hand, slots.kinds_at + slots.count) - slots.kinds_at
        else:
            return 0
        if slot < 0 or slots.hits[slot] or slot == kept or (kind := slots.kinds[slot]) not in _EVICTABLE[position > 0]:
            return 0
        entry_key, size = slots.remove_plain(transaction, slot)
        if not size:
            return 0
        if position:
            numbers[CHOSEN] = position - 1
        else:
            numbers[SMALL_HAND], numbers[IN_SMALL] = slot + 1, numbers[IN_SMALL] - 1
            words[UNUSED] += 1
        numbers[SIZE] -= size
        numbers[ENTRIES] -= 1
        proven, checksum = kind == LEAVING_MAIN, crc32(entry_key)
        note = words[EVICTED + proven] % _NUMBERS << 3 | PROVEN * proven
        _remember(slots, checksum, note)
        words[EVICTED + proven] += 1
        if self.note_removal is not None:
            self.note_removal(entry_key, KEY_EVICTED)
        return size

    def _look_ahead(self, count: int, kept: int, is_spared: Callable[[int], bool]) -> None:
        """Choose for so many evictions, and let small give up its unused ones after these, if it is to."""
        slots, share = self.slots, self.share
        choice = Choice(slots, share, kept, is_spared)
        self._note_chosen(choice.look_ahead(count))
        slots.times[ROOM] = choice.room if choice.is_settled else math.inf
        slots.words[UNUSED], slots.words[UNUSED_LIMIT] = 0, count

    def _count_unused(self) -> None:
        """Count the entries of small that `let_go()` has evicted."""
        share, count = self.share, self.slots.words[UNUSED]
        self.slots.words[UNUSED] = self.slots.words[UNUSED_LIMIT] = 0
        if count:
            share.evict_small(count)
        if share.silence > share.capacity:
            share.fall(count)

    def _note_chosen(self, chosen: list[int]) -> None:
        """Note entries that were taken out of their queues as those to go next."""
        slots, hits, kinds = self.slots, self.slots.hits, self.slots.kinds
        if slots.words[BACKUP.start + CHOSEN]:
            slots.give_up_log()  # the slots noted before this transaction are overwritten
        slots.leaving[: len(chosen)] = array("I", reversed(chosen))
        for slot in chosen:
            hits[slot] = 0
        slots.numbers[CHOSEN] = len(chosen)
        for kind, leaves in ((SMALL, LEAVING), (MAIN, LEAVING_MAIN)):
            if found := [slot for slot in chosen if kinds[slot] == kind]:
                slots.set_kind(found, leaves)

    def _chosen(self, count: int, kept: int, is_spared: Callable[[int], bool]) -> list[int]:
        """Return up to so many of the slots that were chosen; those read since go on to main."""
        slots, numbers = self.slots, self.slots.numbers
        chosen = list[int]()
        if not numbers[CHOSEN] and numbers[IN_SMALL] + numbers[IN_MAIN] != numbers[ENTRIES]:
            raise LookupError("entries are in no queue")
        while numbers[CHOSEN] and len(chosen) < count:
            numbers[CHOSEN] -= 1
            slot = slots.leaving[numbers[CHOSEN]]
            kind = slots.kinds[slot]
            if kind not in _LEAVES:
                continue  # it was removed
            if slots.hits[slot] or ((slot == kept or slots.flags[slot]) and is_spared(slot)):
                self._spare(slot, is_proven=kind == LEAVING_MAIN)
            else:
                chosen.append(slot)
        return chosen

    def _spare(self, slot: int, *, is_proven: bool) -> None:
        """Put an entry into main that was chosen, and counted as unused."""
        share = self.share
        if is_proven:
            share.main_used += (1 - share.main_used) * share.rate
        else:
            share.small_used += (1 - share.small_used) * share.rate
        self.slots.numbers[IN_MAIN] += promote(self.slots, [slot])

    def _bury(self, transaction: Any, chosen: list[int]) -> int:
        """Remove entries that were taken out of their queues, and remember their keys; return their bytes."""
        slots = self.slots
        if compiled is not None and self.note_removal is None:
            size: int = compiled.bury(slots.file, chosen, slots.freed, transaction.delete)
            if size:
                return size
        words, kinds = slots.words, slots.kinds
        proven = [kinds[slot] in _PROVEN for slot in chosen]
        entry_keys, size = slots.remove(transaction, chosen)
        if len(entry_keys) < len(chosen):
            raise LookupError("a slot has another key than its record")
        if self.note_removal is not None:
            for entry_key in entry_keys:
                self.note_removal(entry_key, KEY_EVICTED)
        for queue in {*proven}:
            note = words[EVICTED + queue] % _NUMBERS << 3 | PROVEN * queue
            for checksum in map(crc32, compress(entry_keys, map(queue.__eq__, proven))):
                _remember(slots, checksum, note)
                note += 8
            words[EVICTED + queue] += proven.count(queue)
        slots.numbers[SIZE] -= size
        slots.numbers[ENTRIES] -= len(chosen)
        return size


def _remember(slots: Slots, checksum: int, note: int) -> None:
    """Put a ghost before those of its positions, of which the oldest is forgotten."""
    file, first = slots.file, checksum % slots.count & _FIRST_OF
    at = slots.ghosts_at + (first << 3)
    file[at + 8 : at + 8 * _WAYS] = file[at : at + 8 * _WAYS - 8]
    slots.ghosts[first] = checksum << 32 | note
