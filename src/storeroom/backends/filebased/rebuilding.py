"""Slots made anew from the records: after a start of the machine, damage, or a death in mid-change."""

from typing import Any

from storeroom.backends.filebased.pieces import drop_unowned
from storeroom.backends.filebased.queues import Queues
from storeroom.backends.filebased.records import (
    APART,
    ENTRY_LETTERS,
    HEADER,
    LOCK,
    TAG,
    bytes_aside,
    entry_size,
    frame_size,
    is_conditional,
    read_header,
)
from storeroom.backends.filebased.ring import append
from storeroom.backends.filebased.slotfile import FREE, LOCKED, MAIN, SMALL, VERSION
from storeroom.backends.filebased.slots import ENTRIES, IN_MAIN, IN_SMALL, SIZE, TAIL, VERSIONS

__all__ = ["rebuild"]


def rebuild(transaction: Any, queues: Queues, database: Any) -> None:
    """Give each record a slot: its own, if it has one, in the queue that it was in, as far as that is known.

    Raise StorageError if there is no room for the slots.
    """
    slots = queues.slots
    cursor = transaction.cursor()
    while cursor.set_range(b"k") and bytes(cursor.key()).startswith(b"k"):  # long keys, which are written again
        cursor.delete()
    kinds = bytes(slots.kinds)
    slots.start_over(transaction.id(), 2 * transaction.stat(database)["entries"])
    drop_unowned(transaction)
    later = []
    cursor.set_range(b"b")  # behind what lies aside
    for entry_key, record in cursor:
        if entry_key[0] in ENTRY_LETTERS:
            slot = read_header(record)[1]
            is_whole = len(record) >= HEADER.size
            if is_whole and slot < slots.count and slots.kinds[slot] == FREE and slots.fits(entry_key):
                _fill(queues, transaction, bytes(entry_key), record, slot, kinds)
            else:
                later.append(bytes(entry_key))
    for entry_key in later:
        record = transaction.get(entry_key)
        if len(record) < HEADER.size:
            transaction.delete(entry_key)
            continue
        expires_at, slot = read_header(record)
        if slot >= slots.count or slots.kinds[slot] != FREE:
            slot = slots.find(FREE, 0)
            transaction.put(entry_key, HEADER.pack(expires_at, bytes_aside(record), slot) + record[HEADER.size :])
        _fill(queues, transaction, entry_key, record, slot, kinds)


def _fill(queues: Queues, transaction: Any, entry_key: bytes, record: bytes, slot: int, kinds: bytes) -> None:
    slots = queues.slots
    size = entry_size(entry_key, frame_size(record))
    expires_at, is_flagged = read_header(record)[0], is_conditional(entry_key, record)
    slots.fill(transaction, slot, entry_key, size, expires_at, is_flagged)
    numbers = slots.numbers
    numbers[TAIL] = max(numbers[TAIL], slot + 1)
    if entry_key[0] in APART:
        slots.kinds[slot] = LOCKED if entry_key[0] == LOCK else VERSION
        numbers[VERSIONS] += entry_key[0] == TAG
        return
    numbers[ENTRIES] += 1
    numbers[SIZE] += size
    if slot < len(kinds) and kinds[slot] == MAIN:
        slots.kinds[slot] = MAIN
        numbers[IN_MAIN] += 1
        append(slots, slot)
    else:
        slots.kinds[slot] = SMALL
        numbers[IN_SMALL] += 1
