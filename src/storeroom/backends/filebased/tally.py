"""The number of a file cache's live entries, from the slots' numbers: no walk over the entries."""

from typing import Any

from storeroom import timeouts
from storeroom.backends.filebased.records import APART, is_conditional, name_of, read_header
from storeroom.backends.filebased.slots import ENTRIES, FLAGGED, Slots

__all__ = ["tally"]


def tally(transaction: Any, slots: Slots) -> tuple[int, list[str]] | None:
    """Return how many live entries have no conditions, and the storage keys of those that have.

    Entries that have expired, or may have conditions, are found by their slots, and looked up. None if a writer came in
    between, or the next one has to make the slots anew.
    """
    now, number = timeouts.now(), transaction.id()
    numbers = slots.committed(number)
    if numbers is None or numbers[FLAGGED] != len(flagged := slots.flagged()):
        return None
    count, conditional = numbers[ENTRIES], []
    for slot in slots.overdue(now) | flagged:
        entry_key = slots.key_of(transaction, slot)
        record = transaction.get(entry_key) if entry_key else None
        if record is None or entry_key[0] in APART:
            continue
        if not read_header(record)[0] > now:
            count -= 1
        elif is_conditional(entry_key, record):
            count -= 1
            conditional.append(name_of(entry_key, record))
    return None if slots.is_changed_since(number) else (count, conditional)
