"""A cache in a table of a database: SQLite, PostgreSQL, MariaDB or MySQL.

LOCATION is the table's name, as in Django; ``OPTIONS["url"]`` tells where the database is
(see location.py). The cache has connections of its own: its writes are never part of a
program's transaction, and no rollback of one takes them back.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

from storeroom import config, timeouts
from storeroom.backends.db import probe as probing
from storeroom.backends.db import rows as layout
from storeroom.backends.db.clearing import clear, remove_expired
from storeroom.backends.db.comparing import ComparingCache
from storeroom.backends.db.connect import distrusted, engine_of, located, names_database
from storeroom.backends.db.engine import DatabaseEngine
from storeroom.backends.db.errors import FullError, OutageError
from storeroom.backends.db.fetching import fetch_all, fetch_one, fetch_parts, rows_changed
from storeroom.backends.db.options import OPTIONS
from storeroom.backends.db.rows import from_column, name_of
from storeroom.backends.db.site import tell_of_app
from storeroom.backends.db.statements import chunks
from storeroom.backends.db.transaction import NO_BOUND, Bounds, Transaction
from storeroom.backends.network import busy_answer
from storeroom.backends.ownership import group_and_secret
from storeroom.exceptions import StorageError
from storeroom.keys import LOCK_PREFIX, TAG_PREFIX
from storeroom.serializers import build_codec
from storeroom.storage.channel import Channel
from storeroom.storage.clocks import Clock
from storeroom.storage.hooks import LOOK, MISSING, Conditional, twin_of
from storeroom.storage.probes import Endpoint, Probe

if TYPE_CHECKING:
    from storeroom.storage.sightings import Sighting

__all__ = ["DatabaseCache"]

T = TypeVar("T")
_Entry: TypeAlias = tuple[str, bytes, float, int]
"""Storage key, name, expires and sequence of a row."""

_STEP: Final = 1000
"""Rows that a scan reads at a time."""

_FEW: Final = 100
"""Keys that are read within the event loop, from a local file."""

_TAGS: Final = 256
"""New tags of a process between two counts of all tags there are."""

_new_tags = count(os.getpid())  # from another number on in each of many short-lived processes

_NO_ENTRY: Final = (layout.COUNTS_NAME.decode(), LOCK_PREFIX)
"""The beginnings of storage keys that clear() lets be."""


class DatabaseCache(ComparingCache):
    """A cache in a table.

    Atomic among threads, processes and hosts: every operation on one key, rename and set_many() too.
    Blocking: on a server each operation is a round trip or a few; asynchronous callers use worker threads.

    Args:
        location: the table's name, or a URL: see location.py.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = OPTIONS
    distrusted = staticmethod(distrusted)
    _outage_errors = (OutageError,)
    _bounds_seconds = 10.0
    sees_envelopes = True

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        """Note where the table is; it is connected to on first use."""
        super().__init__(params)
        self._location = location
        self._connect()
        tell_of_app(self._target.table)
        options = self.settings.options
        self._bounds = Bounds(cull_frequency=options["cull_frequency"])
        self._max_tags: int | None = options["max_tags"]
        self._begin_with(options)
        self._notes_reads = True

    def _keep_to(self, max_entries: int | None, max_bytes: int | None) -> None:
        entries, size = (NO_BOUND if bound is None else min(bound, NO_BOUND) for bound in (max_entries, max_bytes))
        self._bounds = Bounds(entries, size, self._bounds.cull_frequency)
        self._notes_reads = min(entries, size) < NO_BOUND

    def _connect(self) -> None:
        options = self.settings.options
        self._bounds_due = 0.0
        self._target, self._site = located(self._location, options)
        self.engine, is_trusted = engine_of(self._target, options, self._site)
        self._dropped = self._current.dropped
        _, secret = group_and_secret(self.settings)
        codec_options = {name: options[name] for name in config.CODEC_OPTIONS} | {"secret": secret}
        self._codec = build_codec(trusted=is_trusted, allowed_types=options["allowed_types"], **codec_options)

    @property  # type: ignore[override]  # the other backends' engine is the same for good
    def _engine(self) -> DatabaseEngine:
        site = self._site
        if site is not None and site.has_moved:
            self._connect()  # a test run of Django's uses a database of its own
        return self._current

    @_engine.setter
    def _engine(self, engine: DatabaseEngine) -> None:
        self._current = engine

    def _driver_errors(self, _: BaseException | None) -> tuple[type[Exception], ...]:
        own = self._current.database.unreachable
        return (own,) if self._site is None else (own, self._site.unreachable)

    def create_table(self) -> bool:
        """Make the table unless it is there. Return whether it was made.

        Raises:
            StorageError: there is a table of that name that holds something else, or the database says no.
        """
        try:
            return self._engine.create_table()
        except OutageError as error:
            raise StorageError(f"{self._engine.database.name} is out of reach ({error}).") from error

    def give_back(self) -> int | None:
        """Give the disk space of removed entries back to the file system: SQLite writes its file anew.

        Return the bytes that became free; None for a server, which sees to that itself, and for a file of SQLite with
        tables of others in it.

        Raises:
            StorageError: the file is in use for all of `busy_timeout`, or the disk has no room for a second one.
        """
        try:
            return self._engine.database.give_back()
        except self._engine.database.errors as error:
            raise StorageError(f"{self._engine.database.name} cannot give back disk space: {error}.") from error

    def create_statements(self) -> list[str]:
        """Return the SQL that create_table() runs where there is no table yet."""
        return self._engine.statements.create()

    @property
    def database_alias(self) -> str | None:
        """The alias in Django's DATABASES; None if the cache is not in one of them."""
        return self._site.alias if self._site else None

    @property
    def table_name(self) -> str:
        """The name of the table."""
        return self._engine.statements.name

    @classmethod
    def check_location(cls, location: str, settings: config.Settings) -> None:
        """Raise ConfigurationError unless LOCATION and OPTIONS make sense together; nothing is connected to."""
        located(location, settings.options)

    @classmethod
    def storage_identity(cls, location: str, settings: config.Settings) -> tuple[object, ...]:
        """Return the identity of the table, as LOCATION may name tables of several databases."""
        return located(location, settings.options)[0].identity

    @classmethod
    def is_in_site(cls, location: str, settings: config.Settings) -> bool:
        """Tell whether a running Django chooses the database."""
        return not names_database(location, settings.options)

    @classmethod
    def endpoints(cls, location: str, settings: config.Settings) -> Sequence[Endpoint]:
        """Return the servers that LOCATION and the settings name; nothing is connected to."""
        return probing.endpoints(located(location, settings.options)[0])

    def probe(self, seconds: float) -> Probe:
        """Ask each server once how it is; one that takes longer than so many seconds has failed."""
        return probing.probe(self._engine.database, self._target, seconds)

    # Reading ----------------------------------------------------------------------------------

    def _get(self, storage_key: str) -> Any:
        engine, name = self._engine, name_of(storage_key)
        row = engine.read(fetch_one, engine.statements.get, (name,))
        if row is None or row[2] <= timeouts.now():
            return MISSING
        if self._notes_reads:
            engine.note(name)
        return self._decoded(storage_key, name, row[0], row[1])

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        names = dict(zip(layout.names_of(storage_keys), storage_keys, strict=True))
        return self._decoded_all(names, self._live(names))

    def _live(self, names: Iterable[bytes]) -> list[tuple[Any, ...]]:
        """Return name, value, number and expires of the live rows among these, which are noted as read."""
        engine, parts = self._engine, list(chunks([*names]))
        found, now = engine.read(fetch_parts, engine.database, engine.statements, parts), timeouts.now()
        live = [(bytes(name), value, number, expires) for name, value, number, expires in found if expires > now]
        if self._notes_reads:
            engine.note_all([row[0] for row in live])
        return live

    def _clock(self, storage_key: str) -> Clock | None:
        return self._engine.read(self._engine.database.clock)

    def _found(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        names = dict(zip(layout.names_of(storage_keys), storage_keys, strict=True))
        values = self._decoded_all(names, live := self._live(names))
        found = [(names[row[0]], from_column(row[3])) for row in live]
        return {key: (values[key], expires_at) for key, expires_at in found if key in values}

    def _sight(self, storage_key: str) -> "Sequence[Sighting]":
        engine, name = self._engine, name_of(storage_key)
        row = engine.read(fetch_one, engine.statements.get, (name,))
        tier, of_frame = type(self).__name__, import_module("storeroom.storage.sightings").of_frame
        if row is None:
            return [of_frame(tier, None, storage_key, None)]
        frame = b"%d" % row[1] if row[0] is None else layout.frame_of(storage_key, name, row[0])
        size = len(name) + len(row[0] or b"")
        return [of_frame(tier, frame, storage_key, self._codec, from_column(row[2]), size)]

    _get_dated = _found
    _aclock = twin_of(_clock)

    def _expiry(self, storage_key: str) -> Any:
        row = self._engine.read(fetch_one, self._engine.statements.expiry, (name_of(storage_key),))
        if row is None or row[0] <= timeouts.now():
            return None
        return LOOK if row[1] else from_column(row[0])

    def _scan(self, start: str) -> Iterator[str]:
        now = timeouts.now()
        return iter([key for key, _, expires, _ in self._entries(start) if expires > now])

    def _entries(self, start: str) -> Iterator["_Entry"]:
        """Return all rows whose storage key begins with `start`."""
        # The column has only the beginning of a long name, so that the whole key is compared, too.
        first = layout.head_of(start)
        rows = takewhile(lambda row: bytes(row[0]).startswith(first), self._rows_from(first))
        return (entry for entry in _keyed(rows) if entry[0].startswith(start))

    def _rows_from(self, first: bytes) -> Iterator[Any]:
        """Yield the rows whose names do not come before `first`, in their order."""
        engine, last = self._engine, first
        statement = engine.statements.scan_from
        while found := engine.read(fetch_all, statement, (last, _STEP)):
            yield from found
            if len(found) < _STEP:
                return
            statement, last = engine.statements.scan, bytes(found[-1][0])

    def _usage(self) -> tuple[int | None, int | None]:
        counts = self._engine.read(fetch_one, self._engine.statements.counts, (layout.COUNTS_NAME,))
        if counts is None:
            counts = self._write(Transaction.recount)
        return counts[0], int(counts[1])

    def _channel(self) -> Channel | None:
        return self._engine.notifications()

    # Writing ----------------------------------------------------------------------------------

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        row = self._row(storage_key, value)
        self._see_to_bounds()
        try:
            return self._engine.put(row, expires_at, self._bounds)
        except FullError as error:
            return self._withdrawn(error, (storage_key,))

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        rows = self._rows(values)
        stored = 0
        try:
            for part in self._in_steps(rows, layout.value_bytes):
                self._write(Transaction.put, part, expires_at)
                stored += len(part)
        except FullError as error:
            refused = list(values)[stored:]
            self._withdrawn(error, refused)
            return refused
        return []

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        row = self._row(storage_key, value)
        self._see_to_bounds()
        try:
            # An entry in the way may have conditions that no statement can judge.
            added = self._engine.put(row, expires_at, self._bounds, only_absent=True)
            if added and self._max_tags is not None and storage_key.startswith(TAG_PREFIX):
                self._bound_tags(self._max_tags)
        except FullError as error:
            return self._without_room(error)
        return added or LOOK

    def _bound_tags(self, max_tags: int) -> None:
        if next(_new_tags) % min(_TAGS, max_tags // 10 + 1) == 0:
            self._write(Transaction.bound_tags, max_tags)

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        removed = 0
        try:
            for part in self._in_steps(map(name_of, storage_keys)):
                removed += self._free(Transaction.remove, part)
        except FullError as error:
            self._without_room(error)
        return removed

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        engine, name = self._engine, name_of(storage_key)
        parameters = (min(expires_at, layout.ENDLESS), name, timeouts.now())
        try:
            touched = engine.change(name, rows_changed, engine.statements.touch, parameters, expires_at=expires_at)
        except FullError as error:
            return self._without_room(error)
        return bool(touched) or LOOK

    def _clear(self) -> None:
        space = self._key_space

        def own(entries: Iterable[_Entry]) -> Iterator[tuple[bytes, int]]:
            return (entry[1::2] for entry in entries if space.owns(entry[0]) and not entry[0].startswith(_NO_ENTRY))

        leases = _keyed(self._engine.read(fetch_all, self._engine.statements.leases, ()))
        clear(self._engine, self._free, own(leases), lambda: own(self._entries(space.start())))

    def _prune(self) -> int:
        return remove_expired(self._engine, self._free)

    # Asynchronous callers ---------------------------------------------------------------------

    async def _run(self, hook: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        engine, name = self._engine, getattr(hook, "__name__", "")
        if engine.alook is not None:
            await engine.alook()
        # A switch of threads takes ten times as long as a short read of a file.
        if (
            engine.answers_at_once
            and not self._dropped.keys
            and (name == "_get" or (name == "_get_many" and len(args[0]) <= _FEW))
        ):
            return hook(*args, **kwargs)
        too_late = partial(busy_answer, self.settings, self._counters, name.removeprefix("_"), args)
        return await engine.in_thread(too_late, hook, *args, **kwargs)

    # Tests ------------------------------------------------------------------------------------

    def _check_invariants(self) -> None:
        """Raise AssertionError if the counts and the table disagree: for tests."""
        noted = self._usage()
        found = self._engine.read(fetch_one, self._engine.statements.recount, ())
        if noted != (found[0], int(found[1] or 0)):
            raise AssertionError(f"noted are {noted} entries and bytes, and there are {found}")


def _keyed(rows: Iterable[Any]) -> Iterator[_Entry]:
    """Yield the rows that a scan found, but for the counts."""
    for column, value, expires, is_envelope, sequence in rows:
        name = bytes(column)
        if name != layout.COUNTS_NAME:
            storage_key = layout.storage_key_of(name, value)
            yield (Conditional(storage_key) if is_envelope else storage_key), name, expires, sequence
