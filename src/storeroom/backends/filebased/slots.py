"""The slots of a file cache's entries: all that eviction and expiry know of them.

A slot is a number that an entry keeps for its life; its record names it. `SlotFile` tells where things lie.

**Changes follow the transaction.** A writer notes its transaction's number, copies the header's numbers, and logs each
kind and size before changing it. One that finds its own number noted knows that the transaction before was not
committed, and takes all that back. Where a slot was taken in the transaction that had freed it, or the noted number
fits neither this transaction nor the one before, all is made anew from the records. Hits, ghosts and times of expiry
are hints that outlive a failed transaction: an entry that is found too early is looked up, and stays.

**Expiry.** The earliest time of each of 1,024 blocks of slots, and of each of 32 groups of
blocks, leads to the entries that are due, in whatever order their times came.
"""

import math
from array import array
from collections.abc import Iterator
from itertools import compress, count, takewhile
from struct import Struct
from typing import Any, Final

from storeroom.backends.filebased.pieces import drop_aside
from storeroom.backends.filebased.records import LONGEST_FRAME
from storeroom.backends.filebased.slotfile import (
    ATTEMPT,
    BACKUP,
    BLOCKS,
    CELL_BYTES,
    EARLIEST,
    FLAGS,
    FREE,
    GROUPS,
    IS_REPLACED,
    LEAVING,
    LEAVING_MAIN,
    LOCKED,
    LOG,
    LOGGED,
    MAIN,
    NUMBERS,
    SMALL,
    VERSION,
    SlotFile,
)
from storeroom.exceptions import StorageError
from storeroom.late import compiled_module

__all__ = [
    "CHOSEN", "END", "ENTRIES", "FLAGGED", "HAS_EVICTED", "HEAD", "IN_MAIN", "IN_SMALL", "SIZE", "SMALL_HAND", "TAIL",
    "VERSIONS", "WINDOW_HAND", "YOUNG", "Slots", "compiled",
]  # fmt: skip

# The numbers that a transaction changes.
ENTRIES: Final = 0
"""Entries, expired ones not yet removed included; no locks."""
SIZE: Final = 1
"""Their bytes."""
IN_SMALL: Final = 2
IN_MAIN: Final = 3
YOUNG: Final = 4
"""Entries of small whose hits do not count yet, about."""
TAIL: Final = 5
"""The slot to begin at when a free one is sought."""
SMALL_HAND: Final = 6
"""The slot to begin at when the oldest of small is sought."""
WINDOW_HAND: Final = 7
"""The slot to begin at when the oldest of its young ones is sought."""
HEAD: Final = 8
END: Final = 9
"""The positions of main's first entry in the ring, and behind its last; they only grow."""
HAS_EVICTED: Final = 10
"""1 from the first eviction on."""
VERSIONS: Final = 11
"""Versions of tags."""
FLAGGED: Final = 12
"""Entries whose slots are flagged."""
CHOSEN: Final = 13
"""Slots that were chosen for the next evictions; the last of them goes first."""

_IN_USE: Final = frozenset({SMALL, MAIN, LOCKED, VERSION, LEAVING, LEAVING_MAIN})
_IS_SMALL: Final = bytes(kind == SMALL for kind in range(256))
_BYTES: Final = [bytes([kind]) for kind in range(VERSION + 1)]
_BACKUP: Final = slice(BACKUP.start, BACKUP.stop)
_LOG_AT: Final = LOG.start
_LOG_ROOM: Final = len(LOG)
_BLOCKS_AT: Final = BLOCKS.start

# The state of the noted transaction, beside its number; 0 where it has changed nothing.
_IN_LOG: Final = 1
_NOT_IN_LOG: Final = 2

_IS_SIZE: Final = 255
"""In the log, in place of a kind: twice the size before, and the flag, stand before it."""

_LENGTH_AT: Final = 16
_KEY_AT: Final = 18
_LONGEST_KEY: Final = CELL_BYTES - _KEY_AT
_IS_LONG: Final = 255
"""In place of the length of a key that has a record of its own."""
_KEY_RECORD: Final = Struct(">cI")
_write_cell: Final = Struct(f"=dQBB{_LONGEST_KEY}s").pack_into
"""Time of expiry, bytes, length of the key, flag, key."""
_read_cell: Final = Struct(f"=8xQBB{_LONGEST_KEY}s").unpack_from


compiled: Any = compiled_module("storeroom.backends.filebased._compiled")
"""The ordinary cases of methods of Slots and Queues, by their names, which change the same bytes; or None."""


class Slots(SlotFile):
    """The slots, their numbers and times. All changes need a transaction that was begun.

    Attributes:
        freed: by this transaction.
    """

    def __init__(self, path: str, owner: int) -> None:
        """See SlotFile."""
        super().__init__(path, owner)
        self.freed: set[int] = set()

    # Transactions ---------------------------------------------------------------------------

    def begin(self, number: int) -> bool:
        """Begin the changes of the write transaction of this number; return False if all has to be made anew."""
        if compiled is None or not compiled.begin(self.file, number):
            words = self.words
            if (words[ATTEMPT] >> 2 != number - 1 or words[IS_REPLACED]) and not self.skip(number):
                return False
            words = self.words
            words[_BACKUP] = self.numbers
            words[LOGGED] = 0
            words[ATTEMPT] = number << 2 | _IN_LOG
        if self.freed:
            self.freed.clear()
        return True

    def follows(self, number: int) -> bool:
        """Tell whether the numbers are those that the transaction of this number finds."""
        return self.words[ATTEMPT] >> 2 == number - 1 and not self.words[IS_REPLACED]

    def skip(self, number: int) -> bool:
        """Note a write transaction that changes nothing here; return False if all has to be made anew."""
        if not self.follows(number):
            if self.is_replaced:
                self.map()
                self.words[IS_REPLACED] = 0  # if its maker died over the larger file, that goes on to be used
            attempted, state = divmod(self.words[ATTEMPT], 4)
            if attempted == number and state == _IN_LOG:
                self._undo()
            elif attempted != number - 1 and (attempted != number or state & _NOT_IN_LOG):
                self.words[ATTEMPT] = 0  # so it stays should this transaction be committed without making all anew
                return False
        self.words[ATTEMPT] = number << 2
        return True

    def _undo(self) -> None:
        self.numbers[:] = self.words[_BACKUP]
        positions = iter(reversed(LOG[: self.words[LOGGED]]))
        for position in positions:
            slot, kind = divmod(self.words[position], 256)
            if kind == _IS_SIZE:
                self.sizes[slot], self.flags[slot] = divmod(self.words[next(positions)], 2)
            else:
                self.kinds[slot] = kind
                self.expire_at(slot, self.dues[slot])

    def start_over(self, number: int, count: int) -> None:
        """Free all slots, of which there are to be so many; raise StorageError if there is no room for them.

        On a full disk twice the half of them will do: then nothing but removals comes. Should the transaction fail, all
        is void.
        """
        if count > self.count:
            try:
                self.replace(1 << (count - 1).bit_length())
            except StorageError:
                if count // 2 > self.count:
                    raise
        self.words[ATTEMPT] = number << 2
        self.give_up_log()
        self.numbers[:] = memoryview(bytes(8 * len(NUMBERS))).cast("Q")
        self.kinds[:] = bytes(self.count)
        for word in (EARLIEST, *GROUPS, *BLOCKS):
            self.times[word] = math.inf

    def give_up_log(self) -> None:
        """Let all be made anew should this transaction fail."""
        self.words[LOGGED] = len(LOG)
        self.words[ATTEMPT] |= _NOT_IN_LOG

    def committed(self, number: int) -> list[int] | None:
        """Return the header's numbers, this being the last transaction's number; None if all has to be made anew."""
        attempted, state = divmod(self.words[ATTEMPT], 4)
        is_pending = attempted > number
        if attempted - number not in {0, 1} or (is_pending and state & _NOT_IN_LOG) or self.is_replaced:
            return None
        numbers = BACKUP if is_pending and state == _IN_LOG else NUMBERS
        return self.words[numbers.start : numbers.stop].tolist()

    def is_changed_since(self, number: int) -> bool:
        """Tell whether a transaction after that of this number has changed slots: one under way, or one that failed."""
        state = self.words[ATTEMPT] - (number + 1 << 2)
        return state > _IN_LOG or (state == _IN_LOG and self.words[LOGGED] > 0)

    # Slots ----------------------------------------------------------------------------------

    def set_kind(self, slots: list[int], kind: int) -> None:
        """Change the kind of slots, which a transaction that fails takes back."""
        if compiled is not None and compiled.set_kind(self.file, slots, kind):
            return
        words, kinds, end = self.words, self.kinds, self.words[LOGGED]
        if end + len(slots) > _LOG_ROOM:
            self.give_up_log()
        else:
            # The log before its length, and that before the kinds: an exception may come in between.
            logged = array("Q", [slot << 8 | kinds[slot] for slot in slots])
            words[_LOG_AT + end : _LOG_AT + end + len(slots)] = logged
            words[LOGGED] = end + len(slots)
        for slot in slots:
            kinds[slot] = kind

    def find(self, kind: int, start: int) -> int:
        """Return the first slot of a kind from `start` on, around the end; -1 if there is none."""
        at = self.kinds_at
        found = self.file.find(_BYTES[kind], at + start, at + self.count)
        if found < 0:
            found = self.file.find(_BYTES[kind], at, at + start)
        return found - at if found >= 0 else -1

    def small(self, start: int, end: int, longest: int) -> tuple[list[int], int]:
        """Return up to so many slots of small from `start` on and before `end`, and the place behind those looked at.

        Others lie among them: twice as many are looked at.
        """
        end, at = min(end, self.count, start + 2 * longest), self.kinds_at
        found = list(compress(range(start, end), self.file[at + start : at + end].translate(_IS_SMALL)))
        if len(found) >= longest:
            del found[longest:]
            end = found[-1] + 1
        return found, end

    def alike(self, start: int, longest: int, kept: int) -> list[int]:
        """Return slots of small from `start` on, up to so many, that were all hit, or all not; the first one if any.

        Alone is one that is flagged, or `kept`, or far.
        """
        slots, end = self.small(start, self.count, longest) if longest > 1 else ([], start)
        if not slots:
            slot = self.find(SMALL, start)
            return [slot] if slot >= 0 else []
        hits = self.hits
        if hits[slots[0]]:
            slots = list(takewhile(hits.__getitem__, slots))
        elif hits[start:end].tobytes().strip(b"\0"):
            del slots[next(compress(count(), map(hits.__getitem__, slots)), len(slots)) :]
        if kept in slots or (self.numbers[FLAGGED] and any(map(self.flags.__getitem__, slots))):
            del slots[1:]
        return slots

    def take(
        self, transaction: Any, kind: int, entry_key: bytes, size: int, expires_at: float, is_flagged: bool
    ) -> int:
        """Give a new entry a slot, and return it; raise StorageError if there is no room for more slots."""
        numbers, kinds, words = self.numbers, self.kinds, self.words
        slot, end = numbers[TAIL], words[LOGGED]
        if slot >= self.count or kinds[slot]:
            slot = self.find(FREE, slot)
            if slot < 0 or 4 * (numbers[ENTRIES] + numbers[VERSIONS]) > 3 * self.count:
                self.grow(numbers[END])
                numbers, kinds, words = self.numbers, self.kinds, self.words
                slot = self.find(FREE, numbers[TAIL])
        if end >= _LOG_ROOM or slot in self.freed:
            self.give_up_log()
        else:
            words[_LOG_AT + end], words[LOGGED] = slot << 8 | FREE, end + 1
        numbers[TAIL] = slot + 1
        kinds[slot], self.hits[slot] = kind, 0
        if is_flagged or len(entry_key) > _LONGEST_KEY:
            self.fill(transaction, slot, entry_key, size, expires_at, is_flagged)
            return slot
        # The same, written out: calls are a large part of the cost of a new key.
        _write_cell(self.file, self.cells_at + slot * CELL_BYTES, expires_at, size, len(entry_key), 0, entry_key)
        if expires_at < self.times[_BLOCKS_AT + (slot >> self.shift)]:
            self.expire_at(slot, expires_at)
        return slot

    def fill(
        self, transaction: Any, slot: int, entry_key: bytes, size: int, expires_at: float, is_flagged: bool
    ) -> None:
        """Write a slot's cell."""
        length = len(entry_key)
        if length > _LONGEST_KEY:
            transaction.put(_KEY_RECORD.pack(b"k", slot), entry_key)
            length = _IS_LONG
        _write_cell(self.file, self.cells_at + slot * CELL_BYTES, expires_at, size, length, is_flagged, entry_key)
        if is_flagged:
            self._count_flag(slot, 1)
        if expires_at < self.times[_BLOCKS_AT + (slot >> self.shift)]:
            self.expire_at(slot, expires_at)

    def remove(self, transaction: Any, slots: list[int]) -> tuple[list[bytes], int]:
        """Delete the records of slots, and free these; return the keys of those that had a record, and all bytes."""
        file, at, delete = self.file, self.cells_at, transaction.delete
        sizes, lengths, flags, keys = zip(*[_read_cell(file, at + slot * CELL_BYTES) for slot in slots], strict=True)
        entry_keys = [key[:length] for key, length in zip(keys, lengths, strict=True)]
        if max(lengths) == _IS_LONG:
            for number, slot in enumerate(slots):
                entry_keys[number] = self.key_of(transaction, slot)
                delete(_KEY_RECORD.pack(b"k", slot))
        if max(sizes) > LONGEST_FRAME:
            for entry_key in compress(entry_keys, (size > LONGEST_FRAME for size in sizes)):
                drop_aside(transaction, entry_key)
        if 1 in flags:
            self.numbers[FLAGGED] -= sum(flags)
        self.set_kind(slots, FREE)
        self.freed.update(slots)
        return list(compress(entry_keys, map(delete, entry_keys))), sum(sizes)

    def remove_plain(self, transaction: Any, slot: int) -> tuple[bytes, int]:
        """Do so for one slot, where its entry has neither a flag nor another record; return b"", 0 elsewhere."""
        size, length, is_flagged, key = _read_cell(self.file, self.cells_at + slot * CELL_BYTES)
        words, end, entry_key = self.words, self.words[LOGGED], key[:length]
        is_plain = length != _IS_LONG and size <= LONGEST_FRAME and not is_flagged and end < _LOG_ROOM
        if not is_plain or not transaction.delete(entry_key):
            return b"", 0
        words[_LOG_AT + end], words[LOGGED] = slot << 8 | self.kinds[slot], end + 1
        self.kinds[slot] = FREE
        self.freed.add(slot)
        return entry_key, size

    def key_of(self, transaction: Any, slot: int) -> bytes:
        """Return the key of a slot's entry."""
        cell = self.cells_at + slot * CELL_BYTES
        length = self.file[cell + _LENGTH_AT]
        if length == _IS_LONG:
            return bytes(transaction.get(_KEY_RECORD.pack(b"k", slot), b""))
        return self.file[cell + _KEY_AT : cell + _KEY_AT + length]

    def holds(self, transaction: Any, slot: int, entry_key: bytes) -> bool:
        """Tell whether a slot is that of an entry."""
        return slot < self.count and self.kinds[slot] in _IN_USE and self.key_of(transaction, slot) == entry_key

    def fits(self, entry_key: bytes) -> bool:
        """Tell whether a key fits into a cell, and needs no record of its own."""
        return len(entry_key) <= _LONGEST_KEY

    def refill(self, slot: int, size: int, *, is_flagged: bool) -> int:
        """Change the bytes and the flag of a slot's entry; return by how many bytes it grows."""
        before, was_flagged = self.sizes[slot], self.flags[slot]
        if size != before or is_flagged != was_flagged:
            words, end = self.words, self.words[LOGGED]
            if end + 2 > _LOG_ROOM:
                self.give_up_log()
            else:
                words[_LOG_AT + end], words[_LOG_AT + end + 1] = 2 * before + was_flagged, slot << 8 | _IS_SIZE
                words[LOGGED] = end + 2
            self.sizes[slot], self.flags[slot] = size, is_flagged
            if is_flagged != was_flagged:
                self._count_flag(slot, is_flagged - was_flagged)
        return size - before

    def _count_flag(self, slot: int, change: int) -> None:
        self.numbers[FLAGGED] += change
        if change > 0:
            self.words[FLAGS[slot % len(FLAGS)]] = slot

    def flagged(self) -> set[int]:
        """Return the slots that are flagged: as a rule some of those flagged last; else all are looked at."""
        last = set(self.words[FLAGS.start : FLAGS.stop])
        found = {slot for slot in last if slot < self.count and self.flags[slot] and self.kinds[slot] != FREE}
        if len(found) != self.numbers[FLAGGED]:
            flags, slot = self.flags.tobytes(), -1
            while (slot := flags.find(1, slot + 1)) >= 0:
                if self.kinds[slot] != FREE:
                    found.add(slot)
        return found

    # Hints ----------------------------------------------------------------------------------

    def expire_at(self, slot: int, expires_at: float) -> None:
        """Let a slot come due no later than its entry expires."""
        times = self.times
        self.dues[slot] = min(self.dues[slot], expires_at)
        block = slot >> self.shift
        if expires_at < times[BLOCKS.start + block]:
            for at in (BLOCKS.start + block, GROUPS.start + block // 32, EARLIEST):
                times[at] = min(times[at], expires_at)

    def due(self, now: float) -> Iterator[int]:
        """Yield the slots that are due. The caller frees or postpones each before it asks for the next."""
        times = self.times
        for group, at in enumerate(GROUPS):
            if times[at] > now:
                continue
            blocks = BLOCKS[32 * group : 32 * group + 32]
            for block in blocks:
                if times[block] <= now:
                    yield from self._due_of(block, now)
            times[at] = min(times[blocks.start : blocks.stop])
        times[EARLIEST] = min(times[GROUPS.start : GROUPS.stop])

    def overdue(self, now: float) -> set[int]:
        """Return the slots that are due; nothing changes."""
        blocks = BLOCKS if self.times[EARLIEST] <= now else ()
        return {slot for block in blocks if self.times[block] <= now for slot in self._due_in(block, now)}

    def _due_of(self, block: int, now: float) -> Iterator[int]:
        yield from self._due_in(block, now)
        self.times[block] = min(
            (time for slot, time in self._times_in(block) if self.kinds[slot] != FREE), default=math.inf
        )

    def _due_in(self, block: int, now: float) -> Iterator[int]:
        return (slot for slot, time in self._times_in(block) if time <= now and self.kinds[slot] != FREE)

    def _times_in(self, block: int) -> Iterator[tuple[int, float]]:
        first = (block - BLOCKS.start) << self.shift
        return enumerate(self.dues[first : first + (1 << self.shift)].tolist(), first)
