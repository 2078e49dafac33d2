"""Transactions of a file cache: begun, ended, and made again where the environment had to be mended."""

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import lmdb

from storeroom import timeouts
from storeroom.backends.filebased.environment import Environment
from storeroom.backends.filebased.records import frame_of
from storeroom.backends.filebased.table import Bounds, Table, put_alone
from storeroom.backends.inline import InlineCache

__all__ = ["TransactingCache"]

T = TypeVar("T")

_TRIES: Final = 50
_PAUSE: Final = 1e-5
"""Seconds by which each pause is longer than the one before: a write takes ten microseconds, a large one more."""


class TransactingCache(InlineCache, abstract=True):
    """A cache whose hooks read and write the table of an environment in transactions."""

    _engine: Environment
    _bounds: Bounds

    def _read(self, read: Callable[[Any], T], *, buffers: bool = False) -> T:
        """Run `read` in a read transaction; once more if the environment had to be mended.

        With `buffers` it finds values uncopied, and must keep none of them.
        """
        engine, now = self._engine, timeouts.now()
        if now > engine.check_after:
            engine.check(now)
        for is_last in (False, True):
            try:
                return read(engine.begin(buffers=buffers))
            except lmdb.Error as error:
                engine.recover(error, is_last=is_last)
        raise AssertionError  # the last attempt returned or raised

    def _read_settled(self, read: Callable[[Any], T | None]) -> T | None:
        """Run `read` in one read transaction after another, until writers let it return something, or for 15 ms."""
        for attempt in range(_TRIES):
            if (found := self._read(read, buffers=True)) is not None:
                return found
            time.sleep(attempt * _PAUSE)
        return None

    def _frame_of(self, entry_key: bytes) -> bytes:
        return self._read(lambda transaction: frame_of(transaction, entry_key))

    def _put(self, entry_key: bytes, frame: bytes, expires_at: float) -> None:
        engine, now = self._engine, timeouts.now()
        if now > engine.check_after:
            self._write(Table.put, entry_key, frame, expires_at, self._bounds)
            return
        try:
            turns = engine.turns
            with turns.threads:
                try:
                    turns.take()
                    with turns.begin(write=True) as transaction:
                        bounds = self._bounds
                        if not put_alone(engine.queues, transaction, entry_key, frame, expires_at, bounds, now):
                            Table(engine, transaction, now).put(entry_key, frame, expires_at, bounds)
                finally:
                    turns.give()
        except lmdb.Error as error:
            engine.recover(error)
            self._write(Table.put, entry_key, frame, expires_at, self._bounds)

    def _write(self, change: Callable[..., T], *args: Any, buffers: bool = False) -> T:
        """Run `change` on the table in a write transaction; once more if the environment had to be mended.

        With `buffers` it finds records uncopied, and must write none of them.
        """
        engine, now = self._engine, timeouts.now()
        if now > engine.check_after:
            engine.check(now)
            engine.add_counts()
        for is_last in (False, True):
            try:
                turns = engine.turns
                with turns.threads:
                    try:
                        turns.take()
                        with turns.begin(write=True, buffers=buffers) as transaction:
                            return change(Table(engine, transaction, now), *args)
                    finally:
                        turns.give()
            except lmdb.Error as error:
                engine.recover(error, is_last=is_last)
        raise AssertionError  # the last attempt returned or raised

    @property
    def _max_entries(self) -> int | None:
        return self._bounds.max_entries

    @_max_entries.setter
    def _max_entries(self, max_entries: int | None) -> None:
        self._bounds = self._bounds._replace(max_entries=max_entries)
