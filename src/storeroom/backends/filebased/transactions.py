"""Transactions of a file cache: begun, ended, and made again where the environment had to be mended."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, TypeVar

import lmdb

from storeroom import timeouts
from storeroom.backends.filebased.aborting import abort
from storeroom.backends.filebased.environment import CHECK_SECONDS, Environment
from storeroom.backends.filebased.pieces import Laid, frame_of, groups_of, lengths_of, new_name, parts_of, size_of
from storeroom.backends.filebased.records import LONGEST_FRAME, halves, is_aside
from storeroom.backends.filebased.slots import ENTRIES, SIZE
from storeroom.backends.filebased.table import LOOKS, Bounds, Table, put_alone
from storeroom.backends.filebased.turns import GAP_SECONDS, GIVEN_UP_SECONDS, TakenError, Waiting
from storeroom.backends.inline import InlineCache
from storeroom.backends.kept_bounds import KeptBounds
from storeroom.config.naming import named
from storeroom.exceptions import ReentrantUseError, StorageError, WriteTimeoutError
from storeroom.keys import KeySpace
from storeroom.serializers.parts import Part
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.inline import WouldWaitError, is_inline

__all__ = ["TransactingCache", "steps_of"]

T = TypeVar("T")

_TRIES: Final = 50
_PAUSE: Final = 1e-5
"""Seconds by which each pause is longer than the one before: a write takes ten microseconds, a large one more."""


_COMMITS: Final = 2
"""Transactions after which pages that were freed before them may be used: LMDB keeps those of the last one."""

_LAID: Final = 10
"""Times that a frame is laid aside, if clear() removes its pieces each time; then it is written as a whole."""

_TOGETHER: Final = 128
_LARGEST_TOGETHER: Final = 2**16
"""Groups of values that are kept, and the bytes of each: 8 MiB at most."""

_STEP_BYTES: Final = 2**22
"""Bytes that one of the transactions of a long task writes: about as long as `LOOKS` entries."""


class TransactingCache(KeptBounds, InlineCache, abstract=True):
    """A cache whose hooks read and write the table of an environment in transactions."""

    _engine: Environment
    _bounds: Bounds
    _write_timeout: float

    def _read(self, read: Callable[..., T], *args: Any, buffers: bool = False) -> T:
        """Run `read` in a read transaction; once more if the environment had to be mended.

        With `buffers` it finds values uncopied, and must keep none of them.
        """
        engine, now = self._engine, timeouts.now()
        if not engine.checked_at <= now <= engine.check_after:
            self._check(now)
        is_last, waiting = False, None
        while True:
            try:
                return read(engine.begin(buffers=buffers), *args)
            except TakenError:  # the files are not open yet
                waiting = self._wait(waiting)
            except lmdb.Error as error:
                is_last = engine.recover(error, is_last=is_last)
            except StorageError as error:
                named(error, self.settings.alias)
                raise

    def _get_together(self, storage_keys: tuple[str, ...], before: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """Return the values; if no process has committed anything since they were read twice, those of then.

        A read transaction has the number of the last commit. A look for a value also gives Python's lock away.
        """
        engine, keys, now, kept = self._engine, (self._codec, storage_keys), timeouts.now(), None
        turns = engine.open_turns if engine.checked_at <= now <= engine.check_after else None
        try:
            number = engine.begin().id() if turns is not None else 0
        except (lmdb.Error, ReentrantUseError):
            turns = None
        if turns is not None and engine.open_turns is turns:  # else it may be the number in other files
            kept = turns.together.get(keys)
            if kept is not None and kept[0] == number and now < kept[1]:
                return kept[2]
        dated = self._get_dated(storage_keys)
        found = tuple(dated[key][0] if key in dated else MISSING for key in storage_keys)
        values: list[Any] = [value.value if type(value) is Envelope else value for value in found]
        is_fixed = {*map(type, values)} <= {str, bytes}  # nobody can change them
        if turns is not None and is_fixed and sum(map(len, values)) <= _LARGEST_TOGETHER:
            if len(turns.together) >= _TOGETHER:
                turns.together.clear()
            is_second = kept is not None and kept[0] == number  # eviction counts two reads
            turns.together[keys] = number, min(until or 0.0 for _, until in dated.values()) if is_second else 0.0, found
        return found

    def _check(self, now: float) -> None:
        """See to it that the files are those of the location; an error names the cache."""
        self._pass_by()
        try:
            self._engine.check(now)
        except StorageError as error:
            named(error, self.settings.alias)
            raise

    def _wait(self, waiting: Waiting | None) -> Waiting:
        """Let a moment pass, as another process writes; return the wait.

        Raises:
            WouldWaitError: an event loop would stand still meanwhile.
            WriteTimeoutError: it has lasted for `write_timeout`.
        """
        if is_inline():
            raise WouldWaitError
        engine = self._engine
        if waiting is None:
            waiting = Waiting(min(self._write_timeout, GIVEN_UP_SECONDS if engine.has_given_up else math.inf))
        try:
            waiting.look_again(engine.open_turns)
        except WriteTimeoutError as error:
            engine.give_up(error)
            raise
        return waiting

    def _read_settled(self, read: Callable[[Any], T | None]) -> T | None:
        """Run `read` in one read transaction after another, until writers let it return something, or for 15 ms."""
        for attempt in range(_TRIES):
            if (found := self._read(read, buffers=True)) is not None:
                return found
            time.sleep(attempt * _PAUSE)
        return None

    def _frame_of(self, entry_key: bytes) -> bytes:
        return self._read(lambda transaction: frame_of(transaction, entry_key), buffers=True)  # copied once

    def _parts_of(self, entry_key: bytes) -> list[Any]:
        return self._read(parts_of, entry_key, buffers=True)  # copied once

    def _add_counts(self, now: float) -> None:
        """Add this process's counts to those of all, once a second, and look whether all have evicted many."""
        engine = self._engine
        engine.counts_due = now + CHECK_SECONDS
        engine.storms.look(engine.add_counts(), self._bounds.max_entries or self._entries_about(), engine)

    def _put_parts(self, entry_key: bytes, parts: Sequence[Part], expires_at: float) -> None:
        """Write an entry whose frame is given in parts; a large one in pieces, before its record."""
        if not is_aside(entry_key, size_of(parts)):
            self._put(entry_key, b"".join(parts), expires_at)
            return
        with self._or_removed((entry_key,)):
            for _ in range(_LAID):
                laid = self._laid(parts)
                with self._or_dropped(laid.name):
                    if self._write(Table.put_laid, entry_key, laid, expires_at, self._bounds):
                        return
            self._write(Table.put, entry_key, b"".join(parts), expires_at, self._bounds)

    def _laid(self, parts: Sequence[Part]) -> Laid:
        """Lay all of a large frame aside but the last pieces, which go with its entry."""
        name, number, groups = new_name(), 0, list(groups_of(parts))
        if len(groups) > 1 and is_inline():
            raise WouldWaitError  # an event loop would stand still for milliseconds
        with self._or_dropped(name):
            for group in groups[:-1]:
                if not self._write(Table.lay, name, number, group):
                    break  # somebody has removed the others, as the entry's writer will find
                number += len(group)
        return Laid(name, bytes(parts[0]), size_of(parts), lengths_of(parts), number, groups[-1])

    @contextmanager
    def _or_dropped(self, name: bytes) -> Iterator[None]:
        """Remove the pieces of a write that is cut short."""
        try:
            yield
        except BaseException:
            self._drop_unwritten([name])
            raise

    def _drop_unwritten(self, names: Sequence[bytes]) -> None:
        """Remove pieces whose entries were not written; if that fails, too, they go a minute later."""
        for name in names:
            with suppress(StorageError, WouldWaitError):
                self._write(Table.drop_pieces, name, frees=True)

    def _put(self, entry_key: bytes, frame: bytes, expires_at: float) -> None:
        if len(frame) > LONGEST_FRAME and is_aside(entry_key, len(frame)):
            self._put_parts(entry_key, halves(entry_key, frame), expires_at)
            return
        engine, now, transaction = self._engine, timeouts.now(), None
        if now > self._bounds_due:
            self._agree()
        bounds = self._bounds
        is_due = now > engine.counts_due or not engine.checked_at <= now <= engine.check_after
        if is_due or engine.is_tight:
            self._write_or_remove((entry_key,), Table.put, entry_key, frame, expires_at, bounds)
            return
        try:
            turns = engine.turns
            with turns.threads:
                if turns.alone.is_under_way:
                    turns.alone.look()
                try:
                    turns.take()
                    with turns.begin(write=True) as transaction:
                        try:
                            if not put_alone(engine, transaction, entry_key, frame, expires_at, bounds, now):
                                Table(engine, transaction, now).put(entry_key, frame, expires_at, bounds)
                        except BaseException:
                            abort(engine, transaction)
                            raise
                finally:
                    try:
                        turns.give()
                    except BaseException:  # of a signal's handler: others wait for it
                        turns.give()
                        raise
        except lmdb.Error as error:
            transaction = None  # room is made when nobody holds on to one
            self._write_or_remove((entry_key,), Table.put, entry_key, frame, expires_at, bounds, after=error)

    def _write_or_remove(
        self, entry_keys: Sequence[bytes], change: Callable[..., Any], *args: Any, after: lmdb.Error | None = None
    ) -> None:
        """Run a change that overwrites these entries, if the error `after` which it is run again can be mended.

        If it fails, as the disk or the map is full, they are removed: no older value outlives one that was refused.
        """
        with self._or_removed(entry_keys):
            if after is not None:
                self._engine.recover(after)
            self._write(change, *args)

    @contextmanager
    def _or_removed(self, entry_keys: Sequence[bytes]) -> Iterator[None]:
        """Remove entries whose newer values were refused."""
        try:
            yield
        except WriteTimeoutError:
            raise
        except StorageError:
            with suppress(StorageError):
                self._remove_all(entry_keys)
            raise

    def _remove_all(self, entry_keys: Sequence[bytes]) -> int:
        """Remove entries in steps, one by one where there is room for no more at once; return how many were live."""

        def remove(table: Table, part: Sequence[bytes]) -> int:
            return sum(map(table.remove, part))

        live, start, step = 0, 0, LOOKS
        while start < len(entry_keys):
            try:  # a large value need not be read to be removed
                live += self._write(remove, entry_keys[start : start + step], frees=True, buffers=True)
            except WriteTimeoutError:
                raise
            except StorageError:
                if step == 1:
                    raise
                step = 1
                continue
            start, step = start + step, min(2 * step, LOOKS)
            if start < len(entry_keys):
                time.sleep(GAP_SECONDS)
        self._free_pages()
        return live

    def _noted_clear(self, space: KeySpace) -> None:
        if self._engine.remembered is not None:
            self._engine.remembered.note_clear(space.owns)

    def _free_pages(self) -> None:
        """Let the next write have the pages that the last one has freed, where it may need them."""
        if self._engine.is_tight:
            self._write(Table.rewrite_counts, frees=True)

    def _write(self, change: Callable[..., T], *args: Any, frees: bool = False, buffers: bool = False) -> T:
        """Run `change` on the table in a write transaction; once more if the environment had to be mended.

        With `frees` it takes no room for long, and may have what other writes leave. With `buffers` it finds records
        uncopied, and must write none of them.
        """
        engine, now = self._engine, timeouts.now()
        if now > self._bounds_due:
            self._agree()
        if not engine.checked_at <= now <= engine.check_after:
            self._check(now)
        if not 0 <= engine.counts_due - now <= CHECK_SECONDS:
            self._add_counts(now)
        is_last, waiting = False, None
        while True:
            leaves = engine.is_tight and not frees
            if leaves:
                engine.settle_room()
            try:
                return self._transact(change, args, now, waiting, leaves=leaves, buffers=buffers)
            except TakenError:
                waiting = self._wait(waiting)
            except lmdb.Error as error:
                is_last = engine.recover(error, is_last=is_last, frees=frees)
            except StorageError as error:
                named(error, self.settings.alias)
                raise

    def _transact(
        self, change: Callable[..., T], args: Sequence[Any], now: float, waiting: Waiting | None,
        *, leaves: bool, buffers: bool,
    ) -> T:  # fmt: skip
        engine = self._engine
        turns = engine.turns
        with turns.threads:
            if turns.alone.is_under_way:
                turns.alone.look()
            try:
                turns.take(waiting)
                with turns.begin(write=True, buffers=buffers) as transaction:
                    try:
                        result = change(engine.settled(Table(engine, transaction, now)), *args)
                        if leaves:
                            engine.leave_room(transaction)
                    except BaseException:
                        abort(engine, transaction)
                        raise
                if engine.has_given_up:
                    engine.recovered()
                return result
            finally:
                try:
                    turns.give()
                except BaseException:  # of a signal's handler: others wait for it
                    turns.give()
                    raise

    def give_back(self) -> int | None:
        """Give the disk space of removed entries back to the file system, while others go on using the cache.

        The file keeps its length, and takes no more room than its entries need. Return the bytes that became free; None
        where the file system or the operating system cannot do this: then new entries use the room.

        Raises:
            WriteTimeoutError: another process was writing for all of `write_timeout`.
            StorageError: the file system has failed.
        """
        for _ in range(_COMMITS):
            self._write(Table.rewrite_counts, frees=True)
        return self._write(_given_back, self._engine, frees=True)

    def _reset_stats(self) -> None:
        self._write(Table.forget_counts, frees=True)
        self._counters.reset()

    def _check_invariants(self) -> None:
        """Raise AssertionError if entries, slots and numbers disagree: for tests."""
        self._write(Table.check, frees=True)

    def _prune(self) -> int:
        removed = 0
        while (expired := self._write(Table.prune, LOOKS, frees=True)) >= LOOKS:
            removed += expired
            time.sleep(GAP_SECONDS)
        return removed + expired

    def _entries_about(self) -> int:
        slots = self._engine.queues.slots
        return LOOKS + 1 if slots is self._engine.queues else slots.numbers[ENTRIES]

    def _size_at_hand(self) -> tuple[int | None, int | None]:
        slots = self._engine.queues.slots
        with suppress(ValueError):  # they were put in place of others, and closed, at this moment
            return (None, None) if slots is self._engine.queues else (slots.numbers[ENTRIES], slots.numbers[SIZE])
        return None, None

    def _keep_to(self, max_entries: int | None, max_bytes: int | None) -> None:
        self._bounds = self._bounds._replace(max_entries=max_entries, max_bytes=max_bytes)

    @property
    def _max_entries(self) -> int | None:
        return self._bounds.max_entries

    @_max_entries.setter
    def _max_entries(self, max_entries: int | None) -> None:
        self._bounds = self._bounds._replace(max_entries=max_entries)


def _given_back(_: Table, engine: Environment) -> int | None:
    give_back: Callable[..., int | None] = import_module("storeroom.backends.filebased.giving_back").give_back
    environment: Any = getattr(engine.begin, "__self__", None)  # it is open, within a transaction
    try:
        return give_back(os.path.join(engine.directory, "data.mdb"), environment.readers())
    except OSError as error:
        raise StorageError(f"The disk space of removed entries cannot be given back: {error}.") from error


def steps_of(frames: Sequence[bytes]) -> Iterator[int]:
    """Yield where each transaction of a write of many frames ends; let others write between two."""
    start = size = 0
    if len(frames) > LOOKS or sum(map(len, frames)) > _STEP_BYTES:
        for number, frame in enumerate(frames):
            if number > start and (number - start == LOOKS or size + len(frame) > _STEP_BYTES):
                yield number
                time.sleep(GAP_SECONDS)
                start, size = number, 0
            size += len(frame)
    if frames:
        yield len(frames)
