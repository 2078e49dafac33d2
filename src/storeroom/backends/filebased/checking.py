"""Entries, slots and numbers of a file cache compared with each other: for tests."""

from typing import Any

from storeroom.backends.filebased.pieces import are_whole
from storeroom.backends.filebased.records import (
    APART,
    ENTRY_LETTERS,
    bytes_aside,
    entry_size,
    frame_size,
    read_header,
)
from storeroom.backends.filebased.slotfile import EARLIEST, LEAVING, LEAVING_MAIN, LOCKED, MAIN, SMALL, VERSION
from storeroom.backends.filebased.slots import CHOSEN, END, ENTRIES, HEAD, IN_MAIN, IN_SMALL, SIZE, VERSIONS, Slots

__all__ = ["check"]


def check(transaction: Any, slots: Slots) -> None:
    """Raise AssertionError if they disagree."""
    numbers = slots.numbers
    counted = {SMALL: 0, MAIN: 0, LOCKED: 0, VERSION: 0, LEAVING: 0, LEAVING_MAIN: 0}
    size, is_late, seen, aside = 0, False, set(), dict[bytes, int]()
    for entry_key, record in transaction.cursor():
        if entry_key[0] in ENTRY_LETTERS:
            aside |= {entry_key: bytes_aside(record)} if bytes_aside(record) else {}
            expires_at, slot = read_header(record)
            if not slots.holds(transaction, slot, entry_key):
                raise AssertionError(f"slot {slot} is not that of {entry_key!r}")
            seen.add(slot)
            counted[slots.kinds[slot]] += 1
            is_late = is_late or not slots.times[EARLIEST] <= slots.dues[slot] <= expires_at
            size += 0 if entry_key[0] in APART else entry_size(entry_key, frame_size(record))
    small, main, _, versions, *leaving = counted.values()
    found = {ENTRIES: small + main + sum(leaving), SIZE: size, IN_SMALL: small, IN_MAIN: main, VERSIONS: versions}
    noted = {number: numbers[number] for number in found}
    in_ring = {slots.ring[position % slots.count] for position in range(numbers[HEAD], numbers[END])}
    faults = {
        "an entry comes due after it expires": is_late,
        "a frame lies aside without its entry, or an entry without its frame": not are_whole(transaction, aside),
        "slots are in use without an entry": len(seen) != sum(kind in counted for kind in slots.kinds),
        f"the numbers are noted as {noted}, and are {found}": noted != found,
        "an entry to go next is not noted": sum(leaving) > len(seen & {*slots.leaving[: numbers[CHOSEN]]}),
        "an entry of main is not in its ring": not {s for s in seen if slots.kinds[s] == MAIN} <= in_ring,
    }
    if broken := [fault for fault, is_found in faults.items() if is_found]:
        raise AssertionError("; ".join(broken))
