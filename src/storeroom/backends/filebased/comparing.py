"""Changes of a file cache that depend on the value stored: counted, moved, or replaced where it is as expected.

No value is made within a transaction, as that can run a program's own code, which may use this cache. It is made of
the bytes before, and the transaction looks whether these are still there; if not, it is made anew.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from storeroom import storage
from storeroom.backends.filebased.pieces import Laid, size_of
from storeroom.backends.filebased.records import (
    HASHED,
    HEADER,
    LONGEST_FRAME,
    LONGEST_KEY,
    entry_key_of,
    entry_size,
    first_of,
    frame_head,
    halves,
    is_aside,
    is_conditional,
    join_name,
    load,
    own_frame,
    read_header,
)
from storeroom.backends.filebased.table import Table
from storeroom.backends.filebased.transactions import TransactingCache, steps_of
from storeroom.config.naming import named
from storeroom.eviction import MOST_HITS
from storeroom.exceptions import DecodeError, SerializationError, ValueTooLargeError
from storeroom.serializers import Codec
from storeroom.serializers.frames import TEXT_BYTE, is_plain_integer
from storeroom.serializers.parts import Part, is_large
from storeroom.storage.envelope import Envelope, is_unread
from storeroom.storage.hooks import LOOK, MISSING, Swap
from storeroom.storage.inline import WouldWaitError
from storeroom.storage.writings import Writing, swap_all
from storeroom.timeouts import NEVER

__all__ = ["ComparingCache"]

_NAMED: Final = b"h"
"""Keys from here on are not as they are stored, or of no entry."""

_LONGEST_ENTRY: Final = entry_size(bytes(LONGEST_KEY + 1), 0)
"""Bytes of an entry beside its frame, at most."""


class ComparingCache(TransactingCache, abstract=True):
    """The frames of a file cache, and the hooks that compare them."""

    _codec: Codec
    _reads_text: bool
    _decoded: Callable[..., Any]

    # Frames ---------------------------------------------------------------------------------

    def _frame(self, storage_key: str, entry_key: bytes, value: Any) -> bytes:
        if not self._bounds_due:
            self._agree()
        try:
            frame = self._codec.dumps(value, storage_key)
        except SerializationError as error:
            named(error, self.settings.alias)
            raise
        if self._bounds[1] is None and entry_key[0] != HASHED:
            return frame
        return self._bounded(storage_key, entry_key, frame)

    def _parts(self, storage_key: str, entry_key: bytes, value: Any) -> list[Part]:
        """Return a value's frame in parts, the first of which has the key, if that is long."""
        if not self._bounds_due:
            self._agree()
        try:
            head, *more = self._codec.parts_of(value, storage_key)
        except SerializationError as error:
            named(error, self.settings.alias)
            raise
        return [self._bounded(storage_key, entry_key, bytes(head), size_of(more)), *more]

    def _store(self, storage_key: str, entry_key: bytes, value: Any, expires_at: float) -> None:
        """Write an entry, whatever the size of its value."""
        if is_large(value.value if type(value) is Envelope else value, LONGEST_FRAME):
            self._put_parts(entry_key, self._parts(storage_key, entry_key, value), expires_at)
        else:
            self._put(entry_key, self._frame(storage_key, entry_key, value), expires_at)

    def _frames(self, values: Mapping[str, Any], entry_keys: Sequence[bytes]) -> list[bytes]:
        """Return the frame of each value, by whose keys it goes, as _frame() does."""
        if not self._bounds_due:
            self._agree()
        try:
            frames = self._codec.dumps_many(values)
        except SerializationError as error:
            named(error, self.settings.alias)
            raise
        max_bytes, are_named = self._bounds[1], max(entry_keys, default=b"") < _NAMED
        if are_named and (max_bytes is None or max(map(len, frames), default=0) + _LONGEST_ENTRY <= max_bytes):
            return frames
        return list(map(self._bounded, values, entry_keys, frames))

    def _bounded(self, storage_key: str, entry_key: bytes, frame: bytes, more: int = 0) -> bytes:
        """Return the frame as it is stored, its long key before it; raise an error if it is too large for the cache."""
        if entry_key[0] == HASHED:
            frame = join_name(storage_key, frame)
        max_bytes, size = self._bounds[1], entry_size(entry_key, len(frame) + more)
        if max_bytes is not None and size > max_bytes:
            refusal = ValueTooLargeError(
                f"The value of key {storage_key!r} takes {size} bytes, more than "
                f"OPTIONS['max_bytes'] ({max_bytes}) allows for the whole cache; raise max_bytes or store less."
            )
            raise named(refusal, self.settings.alias)
        return frame

    def _find(self, values: dict[str, Any], every: Iterable[Any], now: float, times: dict[str, float] | None) -> None:
        """Add the values of live entries, of which all that can be had at once are there already."""
        queues, text, most = self._engine.queues, TEXT_BYTE if self._reads_text else -1, MOST_HITS
        read, start, count = first_of, HEADER.size + 1, len(hits := queues.slots.hits)
        for storage_key, entry_key, record in every:
            if record is None:
                queues.miss(entry_key)
                continue
            value: Any = MISSING
            try:
                expires_at, slot, first_byte = read(record)
                if not expires_at > now:
                    continue
                if slot < count and hits[slot] < most:
                    hits[slot] += 1
                is_text = first_byte == text
                value = record[start:].decode() if is_text else self._decoded(storage_key, entry_key, record)
            except (struct.error, UnicodeDecodeError):
                self._counters.errors += 1
            if value is MISSING:
                values.pop(storage_key, None)
                continue
            values[storage_key] = value
            if times is not None:
                times[storage_key] = expires_at

    def _loaded(self, storage_key: str, frame: bytes) -> Any:
        try:
            return load(self._codec.loads, frame, storage_key)
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    # Hooks ----------------------------------------------------------------------------------

    def _incr(self, storage_key: str, delta: float) -> float:
        entry_key, seen, total, new = entry_key_of(storage_key), b"", delta, b""
        is_whole = type(delta) is int

        def incr(table: Table) -> float | bytes:
            record = table.live(entry_key)
            if record is None:
                raise KeyError(storage_key)
            table.note_use(record)
            frame = own_frame(storage_key, entry_key, record, table.frame_of)
            if frame and is_whole and is_plain_integer(frame):  # digits alone: no code but this
                counted = storage.counters.numeric(storage_key, self._loaded(storage_key, frame)) + delta
                table.put(entry_key, self._frame(storage_key, entry_key, counted), read_header(record)[0], self._bounds)
                return counted
            if frame != seen or not new:
                return frame
            table.put(entry_key, new, read_header(record)[0], self._bounds)
            return total

        while isinstance(found := self._write(incr), bytes):
            seen = found
            total = storage.counters.numeric(storage_key, self._loaded(storage_key, seen)) + delta
            new = self._frame(storage_key, entry_key, total)
        return found

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        entry_key, new_entry_key, space = entry_key_of(storage_key), entry_key_of(new_storage_key), self._key_space
        moved: dict[bytes, bytes | None] = {}

        def rename(table: Table) -> Any:
            if table.is_being_cleared(space):
                table.remove(entry_key)
                return False
            record = table.live(entry_key)
            if record is None:
                return False
            if is_conditional(entry_key, record):
                return LOOK
            frame = own_frame(storage_key, entry_key, record, table.frame_of)
            new = moved.get(frame, frame)
            if new is None or frame not in moved:
                return new is not None and frame
            table.remove(entry_key)
            table.put(new_entry_key, new, read_header(record)[0], self._bounds)
            return True

        while isinstance(done := self._write(rename), bytes):
            value = self._loaded(storage_key, done)
            # A signature is bound to its key.
            moved[done] = None if value is MISSING else self._frame(new_storage_key, new_entry_key, value)
        return done

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return self._swap_many({storage_key: Swap(expected, MISSING, NEVER)})[storage_key]

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return self._swap_many({storage_key: Swap(expected, value, expires_at)})[storage_key]

    def _new_frame(self, storage_key: str, value: Any, laid: dict[str, Laid]) -> bytes:
        """Return a value's frame; of one that lies aside the beginning, and its pieces are laid there."""
        entry_key = entry_key_of(storage_key)
        if is_large(value.value if type(value) is Envelope else value, LONGEST_FRAME):
            parts = self._parts(storage_key, entry_key, value)
        else:
            parts = [self._frame(storage_key, entry_key, value)]
        if not is_aside(entry_key, size_of(parts)):
            return b"".join(parts)
        laid[storage_key] = self._laid(parts if len(parts) > 1 else halves(entry_key, bytes(parts[0])))
        return laid[storage_key].head

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        laid, made = dict[str, Laid](), dict[str, bool]()
        try:
            made = self._swap_laid(swaps, laid)
            return made
        finally:
            self._drop_unwritten([one.name for key, one in laid.items() if one.number and not made.get(key)])

    def _swap_laid(self, swaps: Mapping[str, Swap], laid: dict[str, Laid]) -> dict[str, bool]:
        entry_keys = {storage_key: entry_key_of(storage_key) for storage_key in swaps}
        frames = {
            storage_key: self._new_frame(storage_key, swap.value, laid)
            for storage_key, swap in swaps.items()
            if swap.value is not MISSING and not is_unread(swap.value)
        }

        def swap(table: Table, storage_key: str, writing: Writing, doubtful: dict[str, bytes]) -> bool:
            expected, value, expires_at = swaps[storage_key]
            entry_key = entry_keys[storage_key]
            if is_unread(value) and (record := table.live(entry_key)) is not None:
                return table.renew(entry_key, record, expected, value, self._bounds)
            frame = _seen(storage_key, entry_key, table, is_head_enough=type(expected) is Envelope)
            is_expected = writing.is_in(frame)
            if frame is not None and is_expected is None:
                doubtful[storage_key] = frame
            if not is_expected:
                return False
            if value is MISSING:
                table.remove(entry_key)
            elif storage_key in laid:
                return table.put_laid(entry_key, laid[storage_key], expires_at, self._bounds)
            else:
                table.put(entry_key, frames[storage_key], expires_at, self._bounds)
            return True

        def attempt(writings: Mapping[str, Writing], doubtful: dict[str, bytes]) -> dict[str, bool]:
            def swap_each(table: Table, part: Sequence[str]) -> None:
                for key in part:  # a comprehension would hold on to the table after an error
                    doubtful.pop(key, None)  # of an attempt that failed
                    made[key] = swap(table, key, writings[key], doubtful)

            made = dict.fromkeys(writings, False)
            self._swap_in_steps(swap_each, made, frames, is_first=len(writings) == len(swaps))
            return made

        return swap_all(swaps, attempt, self._codec.dumps, self._loaded)

    def _swap_in_steps(
        self, swap_each: Callable[[Table, Sequence[str]], None], made: Mapping[str, bool], frames: Mapping[str, bytes],
        *, is_first: bool,
    ) -> None:  # fmt: skip
        keys, start = list(made), 0
        for end in steps_of([frames.get(key, b"") for key in keys]):
            try:
                self._write(swap_each, keys[start:end], frees=not frames)
            except WouldWaitError:
                if is_first and start == 0:
                    raise
                return  # some are made already: to begin anew would deny them
            start = end


def _seen(storage_key: str, entry_key: bytes, table: Table, *, is_head_enough: bool) -> bytes | None:
    """Return the frame of a live entry, or its beginning; None if there is none."""
    record = table.live(entry_key)
    if record is None:
        return None
    if is_head_enough:
        return frame_head(entry_key, record)
    return own_frame(storage_key, entry_key, record, table.frame_of)
