"""The entry of a file cache to evict: S3-FIFO as in local memory, over slots that processes share.

The policy is that of `storeroom.eviction.s3fifo`; the three queues lie differently:

- **Small** is the order of the slots: a new entry takes the next free one, so that the oldest
  of small comes first behind `small_hand`, and its youngest behind `window_hand`.
- **Main** is a ring of slots. An entry that was removed stays in it until its turn comes.
- **Ghosts** are a table. The checksum of a key, cut to its size, gives a position, which holds
  the checksum, eight times the number among the evictions from its queue, whether that
  was main, and the flags of `Share`. A later key may take the position of an earlier one.

The numbers of `Share` lie in the header of the slots, where readers change them, too. Lost changes are harmless there.
"""

import math
from collections.abc import Callable
from itertools import compress
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

from storeroom.backends.filebased.slotfile import EVICTED, MAIN, SHARE, SMALL
from storeroom.backends.filebased.slots import (
    END,
    ENTRIES,
    HAS_EVICTED,
    HEAD,
    IN_MAIN,
    IN_SMALL,
    SIZE,
    SMALL_HAND,
    TAIL,
    WINDOW_HAND,
    YOUNG,
    Slots,
)
from storeroom.eviction import EVICTED as KEY_EVICTED
from storeroom.eviction.s3fifo import PATIENCE
from storeroom.eviction.share import ALIVE, BEYOND, CHANGING, DRIFT, FLAGS, KNOWN, PROVEN, Share

__all__ = ["QUEUED", "Bounds", "Queues"]

_SHARE: Final = Struct("=7d")
_NUMBERS: Final = 2**29
"""Numbers of evictions begin again at zero here: they have the bits of a word beside checksum and flags."""
_AT_ONCE: Final = 16
_PARTS: Final = 4
"""So many entries leave the window at once, or this part of it, as the call costs as much as several of them. From the
first eviction on each batch of them does that."""
_EVICTED_AT_ONCE: Final = 32
"""Likewise those that leave the cache; what small may hold is asked anew after them."""
QUEUED: Final = frozenset({SMALL, MAIN})


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
        self.share = Share(math.inf)
        self._settled_at = 0.0

    # Returns --------------------------------------------------------------------------------

    def miss(self, entry_key: bytes) -> None:
        """Learn from a read that did not find its key, if that was evicted lately."""
        ghosts, checksum = self.slots.ghosts, crc32(entry_key)
        if ghosts[checksum % len(ghosts)] >> 32 == checksum:
            self._teach(checksum, is_read=True)

    def _teach(self, checksum: int, *, is_read: bool) -> bool:
        """Learn from a key that returns; forget one that is written. Return whether it had left small."""
        ghosts = self.slots.ghosts
        position = checksum % len(ghosts)
        ghost = ghosts[position]
        if not ghost:
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
            share.small_used, share.main_used, share.refilled, share.silence, share.run = used
        else:
            share.reset(math.inf)
        if capacity is None or capacity == share.capacity:
            return
        if not share.capacity / DRIFT < capacity < share.capacity * DRIFT:
            share.resize(capacity)
            self._store()

    def _store(self) -> None:
        share = self.share
        used = share.small_used, share.main_used, share.refilled, share.silence, share.run
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
        slots, checksum = self.slots, crc32(entry_key)
        numbers = slots.numbers
        numbers[ENTRIES] += 1
        numbers[SIZE] += size
        if slots.ghosts[checksum % slots.count] >> 32 == checksum and self._teach(checksum, is_read=False):
            numbers[IN_MAIN] += 1
            slot = slots.take(transaction, MAIN, entry_key, size, expires_at, is_flagged)
            self.append(slot)
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
            numbers[IN_MAIN] += self._promote([slot])
            slots.hits[slot] = hits
        self._store()

    def _promote(self, late: list[int]) -> int:
        """Put entries at the end of main, and leave none in the list; return how many."""
        count = len(late)
        while late:
            slot = late.pop(0)
            self.slots.set_kind(slot, MAIN)
            self.slots.hits[slot] = 0
            self.append(slot)
        return count

    def append(self, slot: int) -> None:
        """Put an entry at the end of main."""
        slots, numbers = self.slots, self.slots.numbers
        if numbers[END] - numbers[HEAD] >= slots.count:
            self._compact()
        slots.ring[numbers[END] % slots.count] = slot
        numbers[END] += 1

    def _compact(self) -> None:
        """Drop the entries from the ring that have left main."""
        slots, numbers = self.slots, self.slots.numbers
        slots.give_up_log()
        ring = [slots.ring[position % slots.count] for position in range(numbers[HEAD], numbers[END])]
        numbers[HEAD] = end = numbers[END]
        for slot in dict.fromkeys(ring):
            if slots.kinds[slot] == MAIN:
                slots.ring[end % slots.count] = slot
                end += 1
        numbers[END] = end

    # Eviction -------------------------------------------------------------------------------

    def evict(
        self, transaction: Any, count: int, excess: float, capacity: float, kept: int, is_spared: Callable[[int], bool]
    ) -> int:
        """Evict so many entries at least, and until as many bytes are free; return how many went.

        The one in the slot `kept` stays, and flagged ones that `is_spared`, which must be false of them at some time.
        Raise LookupError if slots, records and counts disagree.
        """
        self._settle(capacity)
        share, evicted = self.share, 0
        self.slots.numbers[HAS_EVICTED] = 1
        while (evicted < count or excess > 0) and (
            chosen := self._choose(min(_EVICTED_AT_ONCE, max(1, count - evicted)), kept, is_spared)
        ):
            if share.silence > share.capacity:
                share.fall(len(chosen))
            evicted += len(chosen)
            excess -= self._bury(transaction, chosen)
        self._store()
        return evicted

    def _choose(self, count: int, kept: int, is_spared: Callable[[int], bool]) -> list[int]:
        """Take up to so many entries out of their queues; return their slots.

        Those that go on to main come behind all that were there, which may go round first: else they would go next.
        """
        share, slots, numbers = self.share, self.slots, self.slots.numbers
        hits, flags, rate, patience = slots.hits, slots.flags, share.rate, PATIENCE
        small, main, young, hand = numbers[IN_SMALL], numbers[IN_MAIN], numbers[YOUNG], numbers[SMALL_HAND]
        room, promotions = share.room(small + main), count if share.silence > share.capacity else 0
        small_used, silence = share.small_used, share.silence
        longest = room + 3 + share.capacity / 30  # more than a batch
        least = kept >= 0 and slots.kinds[kept] in QUEUED
        chosen, late = list[int](), list[int]()
        while len(chosen) < count and small + main + len(late) > least:
            alone = kept >= 0 and slots.kinds[kept] == MAIN  # then main may go round for ever
            if late and main <= alone:
                main += self._promote(late)
            if small >= room or main <= alone:
                goes_on = (promotions and small > longest) or (small_used > ALIVE and main and len(late) < PATIENCE)
                surplus = 1 if goes_on else max(1, int(small - room) + 1)
                found = slots.unused(hand, min(count - len(chosen), surplus), kept)
                if not found:
                    raise LookupError("small is empty")
                slot, length = found[-1], len(found)
                used = length == 1 and hits[slot] > 0 and small > young
                hand, small = slot + 1, small - length
                small_used = used * rate + small_used * (1 - rate) ** length
                if used or goes_on or ((slot == kept or flags[slot]) and is_spared(slot)):
                    promotions -= promotions > 0 and not used
                    late.append(slot)
                else:
                    silence += length
                    chosen += found
                continue
            slot = self._first_of_main()
            used = hits[slot] > 0
            share.main_used += (used - share.main_used) * rate
            if (used and patience) or ((slot == kept or flags[slot]) and is_spared(slot)):
                patience -= patience > 0
                hits[slot] = hits[slot] - used if small_used <= CHANGING else 0
                self.append(slot)
            else:
                main, patience = main - 1, PATIENCE
                if small >= share.target:
                    small_used -= small_used * rate * BEYOND
                chosen.append(slot)
        numbers[IN_SMALL], numbers[IN_MAIN], numbers[SMALL_HAND] = small, main + self._promote(late), hand
        share.small_used, share.silence = small_used, silence
        return chosen

    def _bury(self, transaction: Any, chosen: list[int]) -> int:
        """Remove entries that were taken out of their queues, and remember their keys; return their bytes."""
        slots = self.slots
        words, ghosts, count, kinds = slots.words, slots.ghosts, slots.count, slots.kinds
        proven = [kinds[slot] == MAIN for slot in chosen]
        entry_keys, size = slots.remove(transaction, chosen)
        if len(entry_keys) < len(chosen):
            raise LookupError("a slot has another key than its record")
        if self.note_removal is not None:
            for entry_key in entry_keys:
                self.note_removal(entry_key, KEY_EVICTED)
        for queue in {*proven}:
            note = words[EVICTED + queue] % _NUMBERS << 3 | PROVEN * queue
            for checksum in map(crc32, compress(entry_keys, map(queue.__eq__, proven))):
                ghosts[checksum % count] = checksum << 32 | note
                note += 8
            words[EVICTED + queue] += proven.count(queue)
        slots.numbers[SIZE] -= size
        slots.numbers[ENTRIES] -= len(chosen)
        return size

    def _first_of_main(self) -> int:
        slots, numbers = self.slots, self.slots.numbers
        while numbers[HEAD] < numbers[END]:
            slot = slots.ring[numbers[HEAD] % slots.count]
            numbers[HEAD] += 1
            if slots.kinds[slot] == MAIN:
                return slot
        raise LookupError("main is empty")
