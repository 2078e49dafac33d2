"""The entry to evict: windowed, adaptive S3-FIFO.

A hit only bumps a counter that saturates at 2; ranks are worked out when room is needed. New
entries pass through a small queue, and those used again go on to the main one::

    new ──► young ──► old ── used ──► main ◄─┐ used: counter - 1
             counter   │               │  └──┘
             cleared   ▼ unused        ▼ unused
                     ghost           near          hashes of evicted keys

Three things differ from S3-FIFO. Hits that follow an insertion closely say nothing about later use:
the counter is cleared between young and old. The small queue's share adapts to keys that return
(`storeroom.eviction.share`). And until the first eviction, the oldest of small go on to main
unused, so that a loop over more keys than small holds hits.

Sources: S3-FIFO, SOSP 2023, doi 10.1145/3600006.3613147; the window, Clock2Q+, arXiv 2511.21958; the
adaptation, ARC, FAST 2003; the filling, libCacheSim. Constants and figures:
docs/decisions/0020-eviction.md.

Not thread-safe: the caller holds a lock, except for bumping ``freq``.
"""

import math
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Final

from storeroom.eviction.entry import Entry
from storeroom.eviction.shards import LARGE, Debris, Shards, debris_of, free
from storeroom.eviction.share import ALIVE, BEYOND, CHANGING, FLAGS, KNOWN, LOST_RATE, PROVEN, Share

__all__ = ["MOST_HITS", "PATIENCE", "AdaptiveS3Fifo"]

YOUNG: Final = 0
OLD: Final = 1
MAIN: Final = 2
REMOVED: Final = 3

MOST_HITS: Final = 2
"""Hits at which an entry's counter saturates."""
PATIENCE: Final = 128
"""Used entries of main passed over in one eviction: bounds the time under the lock."""
_SLACK: Final = 64
"""Removed entries that may be left in any queues: keeps small ones from being compacted often."""
_STALE: Final = 4
"""One removed entry for so many live ones may be left, too: so many are looked at for each removal, on the average."""
_STEP: Final = 1_024
"""Entries that a removal looks at: in 0.05 ms. A pass over a million takes a thousand removals."""

_FILLED: Final = 3
"""Entries that go on to main with an insert at the most, while a cache fills: see `Share.fill()`."""
_REMEMBERED: Final = 0.95
"""Evictions in a generation of ghosts, from both queues, as a part of the capacity."""
_SURPLUS: Final = 1.25
"""A generation may be longer than it should be by this ratio where the capacity falls: to shorten it takes a pass."""
_FREED: Final = 8
"""Hashes of the generation before the previous one that each eviction frees, if they are many."""
_FREED_AT_ONCE: Final = 10_000
"""Hashes that may be freed at once: 0.5 ms, and half the time of freeing them one by one."""


class Ghosts:
    """The hashes of the last keys evicted, each with its number among those of its queue, and its flags.

    In two generations: when the recent one is full it becomes the previous one, and the one before
    is dropped. That is half the cost of a queue beside a dict, for about the same memory.

    Attributes:
        recent, previous: hash to eight times the number, plus `PROVEN` and the flags of `Share`; some may be older
            than is known. Dicts, or shards when there is room for many.
    """

    __slots__ = ("_dropped", "_evicted", "_known", "_room", "previous", "recent")

    def __init__(self) -> None:
        self._known = [0.0, 0.0]
        self._room = 1.0
        self._dropped: Debris = []
        self.recent: dict[int, int] | Shards[int, int] = {}
        self.previous: dict[int, int] | Shards[int, int] = {}
        self._evicted = [0, 0]

    def clear(self) -> Debris:
        """Forget all keys; return what is to be freed."""
        debris = [*self._dropped, *debris_of(self.recent), *debris_of(self.previous)]
        self._evicted, self._dropped = [0, 0], []
        self.recent, self.previous = {}, {}
        return debris

    def resize(self, capacity: float) -> None:
        """Change how many evictions back a key is known; where that are many, and now fewer, all keys are forgotten."""
        self._known = [part * capacity for part in KNOWN]
        self._room = max(1.0, _REMEMBERED * capacity)
        if self._room * _SURPLUS < max(len(self.recent), len(self.previous)):
            if len(self.recent) + len(self.previous) > LARGE:
                self._dropped = self.clear()
            notes = {**self.previous, **self.recent}
            self.previous = {hashed: note for hashed, note in notes.items() if self._age(note) < math.inf}
            self.recent = {}

    def add(self, hashed: int, *, proven: bool) -> None:
        """Remember a key that is being evicted from small, or from main if it was proven."""
        recent, evicted = self.recent, self._evicted
        if len(recent) > LARGE and isinstance(recent, dict):
            self.recent = recent = Shards(recent)
        recent[hashed] = evicted[proven] * 8 + PROVEN * proven
        evicted[proven] += 1
        if len(recent) >= self._room:
            if len(recent) > _FREED_AT_ONCE:
                self._dropped += debris_of(self.previous)
            self.previous = recent
            self.recent = {}
        if self._dropped:  # a few with each eviction: freeing a million at once takes 50 ms
            free(self._dropped, _FREED)

    def _age(self, note: int) -> float:
        """Return how many evictions from its queue ago a key went, or ``math.inf`` if that is too long ago."""
        proven = note & PROVEN > 0
        age = self._evicted[proven] - note // 8
        return age if age <= self._known[proven] else math.inf

    def teach(self, hashed: int, share: Share, *, is_read: bool) -> bool:
        """Let the share learn from a key that returns; one written is forgotten.

        Return whether the key is known to have left small.
        """
        generation = self.recent if hashed in self.recent else self.previous
        note = generation.get(hashed) if is_read else generation.pop(hashed, None)
        if note is None or (age := self._age(note)) == math.inf:
            return False
        proven = note & PROVEN
        flags = share.learn(age, note & FLAGS, proven=proven > 0, is_read=is_read, evictions=self._evicted[proven > 0])
        if is_read:
            generation[hashed] = note | flags
        return not proven


class AdaptiveS3Fifo:
    """The order of eviction.

    Args:
        capacity: entries that are expected to be kept; ``math.inf`` if there is no bound.
    """

    __slots__ = (
        "_filling", "_main", "_main_kept", "_old", "_old_kept", "_passing", "_proven", "_small", "_young", "ghosts",
        "queues", "share",
    )  # fmt: skip

    def __init__(self, capacity: float) -> None:
        self.share = Share(capacity)
        self.ghosts = Ghosts()
        # Removed entries stay in the queues until their turn comes, or until there are many.
        self._young: deque[Entry] = deque()
        self._old: deque[Entry] = deque()
        self._main: deque[Entry] = deque()
        # The older part of each of the two, while a pass takes removed entries out.
        self._old_kept: deque[Entry] = deque()
        self._main_kept: deque[Entry] = deque()
        self.queues = self._young, self._old, self._main, self._old_kept, self._main_kept
        self.clear()

    def clear(self) -> Debris:
        """Forget all entries, all evictions, and the lessons from them; return what is to be freed."""
        debris: Debris = [*self.queues, *self.ghosts.clear()]
        self.queues = deque(), deque(), deque(), deque(), deque()
        self._young, self._old, self._main, self._old_kept, self._main_kept = self.queues
        self._passing = False
        self._small = 0  # entries in young and old, without removed ones
        self._proven = 0  # entries in main, likewise
        self._filling = True
        self.share.reset(self.share.capacity)
        self.resize(self.share.capacity)
        return debris

    def resize(self, capacity: float) -> None:
        """Change the capacity; small keeps its share.

        Entries that came while there was no bound pass into their queues as if there had been one.
        """
        was_unbounded = self.share.capacity == math.inf
        self.share.resize(capacity)
        self.ghosts.resize(capacity)
        if was_unbounded and capacity < math.inf:
            window = int(self.share.window)
            for _ in range(len(self._young) - window):
                entry = self._young.popleft()
                if entry.queue == YOUNG:
                    entry.queue = OLD
                    self._old.append(entry)
            while self._small > self.share.target:
                self._promote_oldest()

    def _promote_oldest(self) -> Entry:
        """Move the oldest of small to main, used or not, and return it."""
        while (entry := (self._old_kept or self._old or self._young).popleft()).queue == REMOVED:
            pass
        entry.queue = MAIN
        self._main.append(entry)
        self._small -= 1
        self._proven += 1
        return entry

    def admit(self, entry: Entry, full: bool) -> Entry | None:
        """Put a new entry into a queue; if there is no room, evict another one and return it."""
        hashed, ghosts = hash(entry.key), self.ghosts
        returning = False
        if hashed in ghosts.recent or hashed in ghosts.previous:
            returning = ghosts.teach(hashed, self.share, is_read=False)
        victim = self.evict() if full else None
        if returning:
            entry.queue = MAIN
            self._main.append(entry)
            self._proven += 1
            return victim
        entry.queue = YOUNG
        young = self._young
        young.append(entry)
        self._small += 1
        while len(young) > self.share.window:
            grown = young.popleft()
            if grown.queue == YOUNG:
                grown.freq = 0
                grown.queue = OLD
                self._old.append(grown)
        if self._filling:
            for _ in range(_FILLED):
                if self._small <= self.share.target:
                    break
                entry = self._promote_oldest()
                entry.freq = self.share.fill(entry.freq)
        return victim

    def miss(self, key: str) -> None:
        """Learn from a read that did not find its key, if that was evicted lately."""
        self.ghosts.teach(hash(key), self.share, is_read=True)

    def evict(self, keep: Entry | None = None) -> Entry:  # noqa: C901, PLR0912 -- one loop: calls would double its time
        """Choose the entry to evict, take it out, and return it.

        There must be one besides `keep`, which is spared: if its turn comes, it goes to the tail of
        main. Cost: amortised constant; a step for each recent hit, at most PATIENCE in main.
        """
        self._filling = False
        share, rate, ghosts = self.share, self.share.rate, self.ghosts
        room = share.room(self._small + self._proven)
        if share.silence > share.capacity and self._small >= room + 2:
            self._promote_oldest()
        young, old, main, old_kept, main_kept = self._young, self._old, self._main, self._old_kept, self._main_kept
        small, proven, patience, passed = self._small, self._proven, PATIENCE, None
        spared = keep is not None and keep.queue == MAIN
        while True:
            if small >= room or proven <= spared:
                entry = (old_kept or old or young).popleft()
                if entry.queue == REMOVED:
                    continue
                small -= 1
                used = entry.queue == OLD and entry.freq > 0
                share.small_used += (used - share.small_used) * rate
                if not used and entry is not keep and not (share.small_used > ALIVE and proven and patience):
                    ghosts.add(hash(entry.key), proven=False)
                    share.silence, share.lost = share.silence + 1, share.lost * (1 - rate * LOST_RATE)
                    if share.silence > share.capacity:
                        share.fall()
                    break
                patience -= not used and patience > 0
                spared = spared or entry is keep
                entry.freq, entry.queue = 0, MAIN
                proven += 1
            else:
                entry = (main_kept or main).popleft()
                if entry.queue == REMOVED:
                    continue
                if entry is not keep:
                    share.main_used += ((entry.freq > 0) - share.main_used) * rate
                    if not entry.freq or not patience:
                        if passed is not None and passed.freq < entry.freq:
                            (main_kept or main).appendleft(entry)
                            entry = passed  # its position goes when its turn comes
                        ghosts.add(hash(entry.key), proven=True)
                        if small >= share.target:
                            share.small_used -= share.small_used * rate * BEYOND
                        proven -= 1
                        break
                    patience -= 1
                    entry.freq = 0 if share.small_used > CHANGING else entry.freq - 1
                    if passed is None or entry.freq < passed.freq:
                        passed = entry
            main.append(entry)
        entry.queue = REMOVED
        self._small, self._proven = small, proven
        return entry

    def remove(self, entry: Entry) -> None:
        """Take out an entry that goes for another reason than room."""
        if entry.queue == MAIN:
            self._proven -= 1
        else:
            self._small -= 1
        entry.queue = REMOVED
        live = self._small + self._proven
        if self._passing or len(self._young) + len(self._old) + len(self._main) > live + live // _STALE + _SLACK:
            self._compact()

    def trim(self) -> None:
        """Let go of removed entries that come first, so that there never are many to let go of at once."""
        for queue in self.queues:
            while queue and queue[0].queue == REMOVED:
                queue.popleft()

    def _compact(self) -> None:
        """Take removed entries out: a pass over all queues, some entries at a time, from the oldest on."""
        self._passing = True
        for queue, kept in ((self._old, self._old_kept), (self._main, self._main_kept)):
            looked_at = [queue.popleft() for _ in range(min(_STEP, len(queue)))]
            kept.extend([entry for entry in looked_at if entry.queue != REMOVED])
        if self.share.window == math.inf:  # all are young, and pass on as in resize()
            for entry in [self._young.popleft() for _ in range(min(_STEP, len(self._young)))]:
                if entry.queue == YOUNG:
                    entry.queue = OLD
                    self._old.append(entry)
        if not self._old and not self._main:
            self._old, self._old_kept = self._old_kept, self._old
            self._main, self._main_kept = self._main_kept, self._main
            self._passing = False
            if self.share.window == math.inf:  # else the young are few, and leave by their number
                left = [entry for entry in self._young if entry.queue != REMOVED]
                self._young.clear()
                self._young.extend(left)

    def rebuild(self, entries: Iterable[Entry]) -> None:
        """Rank these entries anew, as a change was cut short: in the order that is left; the others are new."""
        unranked = dict.fromkeys(entries)
        queues = {
            MAIN: (self._main_kept, self._main),
            OLD: (self._old_kept, self._old),
            YOUNG: (self._young, list(unranked)),
        }
        ranked = {
            name: [entry for entry in chain(*parts) if unranked.pop(entry, entry) is None]
            for name, parts in queues.items()
        }
        for name, members in ranked.items():
            for entry in members:
                entry.queue = name
        self.queues = deque(ranked[YOUNG]), deque(ranked[OLD]), deque(ranked[MAIN]), deque(), deque()
        self._young, self._old, self._main, self._old_kept, self._main_kept = self.queues
        self._passing = False
        self._small, self._proven = len(self._young) + len(self._old), len(self._main)

    def check_invariants(self, entries: list[Entry]) -> None:
        """Raise AssertionError if these entries are not ranked as they should be. For tests; linear."""
        queues = {
            YOUNG: self._young,
            OLD: self._old_kept + self._old,
            MAIN: self._main_kept + self._main,
        }
        live = {name: [entry for entry in queue if entry.queue == name] for name, queue in queues.items()}
        ranked = [id(entry) for queue in live.values() for entry in queue]
        promises = {
            "each entry is in one queue": sorted(ranked) == sorted(map(id, entries)),
            "an entry in a queue belongs there or was removed": all(
                entry.queue in {name, REMOVED} for name, queue in queues.items() for entry in queue
            ),
            "small is counted": self._small == len(live[YOUNG]) + len(live[OLD]),
            "main is counted": self._proven == len(live[MAIN]),
            "counters are between 0 and 2": all(0 <= entry.freq <= MOST_HITS for entry in entries),
            "small's share is within its bounds": 1 <= self.share.target <= max(1, self.share.capacity),
            "ghosts are bounded": all(
                len(generation) <= max(1.0, _SURPLUS * self.share.capacity + 1)
                for generation in (self.ghosts.recent, self.ghosts.previous)
            ),
        }
        if broken := [promise for promise, holds in promises.items() if not holds]:
            raise AssertionError(f"The eviction policy has broken these promises: {broken}")
