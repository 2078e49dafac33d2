"""Main, the queue of proven entries of a file cache: a ring of slots.

An entry that was removed stays in it until its turn comes.
"""

from storeroom.backends.filebased.slotfile import MAIN
from storeroom.backends.filebased.slots import END, HEAD, Slots, compiled

__all__ = ["append", "first", "promote"]


def append(slots: Slots, slot: int) -> None:
    """Put an entry of main at its end."""
    numbers = slots.numbers
    if numbers[END] - numbers[HEAD] >= slots.count:
        _compact(slots)
    slots.ring[numbers[END] % slots.count] = slot
    numbers[END] += 1


def promote(slots: Slots, late: list[int]) -> int:
    """Put entries of other queues at the end, without hits, and leave none in the list; return how many."""
    if not late:
        return 0
    promoted = len(late)
    if compiled is not None and compiled.promote(slots.file, late):
        late.clear()
        return promoted
    numbers, count, ring, hits = slots.numbers, slots.count, slots.ring, slots.hits
    slots.set_kind(late, MAIN)
    if numbers[END] - numbers[HEAD] + len(late) > count:
        _compact(slots)
    end = numbers[END]
    for slot in late:
        hits[slot] = 0
        ring[end % count] = slot
        end += 1
    numbers[END] = end
    late.clear()
    return promoted


def first(slots: Slots) -> int:
    """Take the first entry of main out of the ring; return its slot."""
    numbers = slots.numbers
    while numbers[HEAD] < numbers[END]:
        slot = slots.ring[numbers[HEAD] % slots.count]
        numbers[HEAD] += 1
        if slots.kinds[slot] == MAIN:
            return slot
    raise LookupError("main is empty")


def _compact(slots: Slots) -> None:
    """Drop the entries from the ring that have left main."""
    numbers = slots.numbers
    slots.give_up_log()
    ring = [slots.ring[position % slots.count] for position in range(numbers[HEAD], numbers[END])]
    numbers[HEAD] = end = numbers[END]
    for slot in dict.fromkeys(ring):
        if slots.kinds[slot] == MAIN:
            slots.ring[end % slots.count] = slot
            end += 1
    numbers[END] = end
