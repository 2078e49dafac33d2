"""A cache in files, shared by all processes of this machine, that survives restarts.

LOCATION is a directory. In it lies an LMDB environment: reads are memory-mapped and
wait for nobody, writes are atomic transactions, and a process may be killed at any
moment. It is Storeroom's embedded default.

Needs a local disk: LMDB's locks live in shared memory, so network file systems do
not work.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812 -- an exception class
from typing import Any, ClassVar, Final, TypeVar

import lmdb

from storeroom import config, timeouts
from storeroom.backends.filebased.counts import read_counts
from storeroom.backends.filebased.environment import FORMAT, MAP_BYTES, Environment
from storeroom.backends.filebased.records import (
    ELSEWHERE,
    HASHED,
    HEADER,
    entry_key_of,
    entry_size,
    is_all_under,
    is_conditional,
    join_name,
    live_keys,
    own_frame,
    owned,
    read_header,
)
from storeroom.backends.filebased.slots import ENTRIES, SIZE
from storeroom.backends.filebased.table import Bounds, Table
from storeroom.backends.filebased.tally import tally
from storeroom.backends.filebased.transactions import TransactingCache
from storeroom.base import BaseCache
from storeroom.engines import shared
from storeroom.engines.counts import CacheStats
from storeroom.eviction import MOST_HITS
from storeroom.exceptions import ConfigurationError, DecodeError, StorageError, ValueTooLargeError, ValueTypeError
from storeroom.serializers import Codec, build_codec
from storeroom.serializers.frames import TEXT_BYTE
from storeroom.storage import conditions
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Swap
from storeroom.storage.steps import run
from storeroom.timeouts import DEFAULT_TIMEOUT, NEVER, Timeout

__all__ = ["FileBasedCache"]

T = TypeVar("T")

_START: Final = HEADER.size

_READ: Final = Struct(">d8xIB").unpack_from
"""What a read needs of a record: expires_at, the slot, and the first byte of the frame."""


class FileBasedCache(TransactingCache):
    """A cache in an LMDB environment in the directory LOCATION.

    Atomic among threads and processes: every operation. Blocking: a write waits for the
    write under way in another thread or process, microseconds as a rule; a read waits
    for nothing.

    Args:
        location: the directory; made when needed, for this user only.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong, or LOCATION is empty.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = {
        **config.ENTRY_BOUNDS,
        **config.CODEC_OPTIONS,
        "map_size": config.Option(
            config.finite_size,
            MAP_BYTES,
            "Address space reserved for the file, in bytes, and so its greatest size. Takes no memory and no disk.",
        ),
    }
    _engine: Environment
    sees_envelopes = True
    location_is_path: ClassVar[bool] = True
    entries_folder: ClassVar[str] = FORMAT
    """The folder in LOCATION that the entries are in."""

    def __init__(self, location: str | os.PathLike[str], params: Mapping[str, Any]) -> None:
        """Note where the cache lies; files are touched on first use."""
        super().__init__(params)
        self._dir = _resolved(location)
        options = self.settings.options
        # Nobody else can write to the directory, so what is read from it needs no restriction.
        self._codec: Codec = build_codec(trusted=True, **{name: options[name] for name in config.CODEC_OPTIONS})
        # Text is the one kind of frame that needs no codec, where it does not have to be signed.
        self._reads_text = options["secret"] is None
        self._bounds = Bounds(*(options[name] for name in Bounds._fields))
        self.engine = shared(Environment, self._dir, lambda: Environment(self._dir, options["map_size"]))

    @classmethod
    def check_location(cls, location: str | os.PathLike[str], settings: config.Settings) -> None:
        """Find out, without making anything, whether the directory can be used.

        Raises:
            ConfigurationError: LOCATION is empty, a file, or lies where this user cannot write.
        """
        directory = _resolved(location)
        while not os.path.lexists(directory):
            directory = os.path.dirname(directory)
        if not os.path.isdir(directory):
            raise ConfigurationError(
                f"is {str(location)!r}, but {directory!r} is not a directory; expected a directory."
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"is {str(location)!r}, but this user cannot write to {directory!r}; "
                "expected a directory that the user who runs the program owns."
            )

    # Reading --------------------------------------------------------------------------------

    # A hit is written out, as the calls would cost more than LMDB does (benchmarks: "file get").

    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. Waits for nothing."""
        if self._overlay is not None:
            return BaseCache.get(self, key, default, version)
        if version is None and self._head is not None:
            storage_key = f"{self._head}{key}"
        else:
            storage_key = self.make_and_validate_key(key, version)
        value = self._get(storage_key)
        if type(value) is Envelope:
            value = run(conditions.opened(self, value))
        if value is MISSING:
            self._counters.misses += 1
            return default
        self._counters.hits += 1
        return value

    def _get(self, storage_key: str) -> Any:
        entry_key = entry_key_of(storage_key)
        engine, now = self._engine, timeouts.now()
        if now > engine.check_after:
            engine.check(now)
        try:
            record = engine.begin().get(entry_key)
        except lmdb.Error as error:
            engine.recover(error)
            record = self._read(lambda transaction: transaction.get(entry_key))
        queues = engine.queues
        if record is None:
            queues.miss(entry_key)
            return MISSING
        try:
            expires_at, slot, first_byte = _READ(record)
            if expires_at <= now:
                return MISSING
            hits = queues.slots.hits
            if slot < len(hits) and hits[slot] < MOST_HITS:
                hits[slot] += 1
            if first_byte == TEXT_BYTE and self._reads_text:
                return record[_START + 1 :].decode()
        except (StructError, UnicodeDecodeError):
            self._counters.errors += 1
            return MISSING
        return self._decoded(storage_key, entry_key, record)

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return {storage_key: value for storage_key, (value, _) in self._get_dated(storage_keys).items()}

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        entry_keys = {storage_key: entry_key_of(storage_key) for storage_key in storage_keys}
        records = dict(self._read(lambda transaction: transaction.cursor().getmulti(entry_keys.values())))
        now, queues = timeouts.now(), self._engine.queues
        hits = queues.slots.hits
        values: dict[str, tuple[Any, float | None]] = {}
        for storage_key, entry_key in entry_keys.items():
            record = records.get(entry_key)
            if record is None:
                queues.miss(entry_key)
                continue
            expires_at, slot = read_header(record)
            if expires_at > now:
                if slot < len(hits) and hits[slot] < MOST_HITS:
                    hits[slot] += 1
                value = self._decoded(storage_key, entry_key, record)
                if value is not MISSING:
                    values[storage_key] = value, expires_at
        return values

    def _expiry(self, storage_key: str) -> Any:
        entry_key = entry_key_of(storage_key)

        def look(transaction: Any) -> tuple[float, bool] | None:
            record = transaction.get(entry_key)
            return None if record is None else (read_header(record)[0], is_conditional(entry_key, record))

        found = self._read(look, buffers=True)  # of a large value only the beginning is read
        if found is None or not found[0] > timeouts.now():  # what is no number has expired, too
            return None
        return LOOK if found[1] else found[0]

    def _scan(self, start: str) -> Iterator[str]:
        now = timeouts.now()
        return iter(self._read(lambda transaction: list(live_keys(transaction, start, now))))

    def _usage(self) -> tuple[int | None, int | None]:
        numbers = self._read(lambda transaction: self._engine.queues.slots.committed(transaction.id()))
        return self._write(Table.usage) if numbers is None else (numbers[ENTRIES], numbers[SIZE])

    def _tally(self, start: str) -> tuple[int, list[str]] | None:
        if not self._read(lambda transaction: is_all_under(transaction, start)):
            return None
        return self._read_settled(lambda transaction: tally(transaction, self._engine.queues.slots))

    # Writing --------------------------------------------------------------------------------

    def set(
        self,
        key: object,
        value: Any,
        timeout: Timeout = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[object] = (),
    ) -> None:
        """Store the value: see BaseCache.set()."""
        if tags or self._overlay is not None:
            BaseCache.set(self, key, value, timeout, version, tags=tags)
            return
        if version is None and self._head is not None:
            storage_key = f"{self._head}{key}"
        else:
            storage_key = self.make_and_validate_key(key, version)
        if timeout is DEFAULT_TIMEOUT and self.default_timeout:
            expires_at = timeouts.now() + self.default_timeout
        else:
            expires_at = self._expires_at(timeout)
        if expires_at <= timeouts.now():
            self._delete(storage_key)
            return
        entry_key = entry_key_of(storage_key)
        self._put(entry_key, self._frame(storage_key, entry_key, value), expires_at)
        self._counters.sets += 1

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        entry_key = entry_key_of(storage_key)
        self._put(entry_key, self._frame(storage_key, entry_key, value), expires_at)
        return True

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        frames = {}
        for storage_key, value in values.items():
            entry_key = entry_key_of(storage_key)
            frames[entry_key] = self._frame(storage_key, entry_key, value)
        bounds = self._bounds

        def put_all(table: Table) -> None:
            for entry_key, frame in frames.items():
                table.put(entry_key, frame, expires_at, bounds)

        self._write(put_all)
        return []

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        entry_key = entry_key_of(storage_key)
        frame = self._frame(storage_key, entry_key, value)

        def add(table: Table) -> Any:
            record = table.live(entry_key)
            if record is not None:
                return LOOK if is_conditional(entry_key, record) else False
            table.put(entry_key, frame, expires_at, self._bounds)
            return True

        return self._write(add)

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        entry_keys = [entry_key_of(storage_key) for storage_key in storage_keys]

        def remove_all(table: Table) -> int:
            return sum(map(table.remove, entry_keys))

        return self._write(remove_all, buffers=True)  # a large value need not be read to be removed

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        entry_key = entry_key_of(storage_key)

        def touch(table: Table) -> Any:
            record = table.live(entry_key)
            if record is None:
                return False
            if is_conditional(entry_key, record):
                return LOOK
            table.touch(entry_key, record, expires_at, self._bounds)
            return True

        return self._write(touch)

    def _incr(self, storage_key: str, delta: float) -> float:
        entry_key = entry_key_of(storage_key)

        def incr(table: Table) -> float:
            record = table.live(entry_key)
            value = MISSING if record is None else self._decoded(storage_key, entry_key, record, table.frame_of)
            if record is None or value is MISSING:
                raise KeyError(storage_key)
            if not isinstance(value, int | float):
                raise ValueTypeError(
                    f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
                )
            value += delta
            frame = self._frame(storage_key, entry_key, value)
            table.put(entry_key, frame, read_header(record)[0], self._bounds)
            return value

        return self._write(incr)

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        entry_key, new_entry_key = entry_key_of(storage_key), entry_key_of(new_storage_key)

        def rename(table: Table) -> Any:
            record = table.live(entry_key)
            if record is not None and is_conditional(entry_key, record):
                return LOOK
            value = MISSING if record is None else self._decoded(storage_key, entry_key, record, table.frame_of)
            if record is None or value is MISSING:
                return False
            frame = self._frame(new_storage_key, new_entry_key, value)  # a signature is bound to its key
            table.remove(entry_key)
            table.put(new_entry_key, frame, read_header(record)[0], self._bounds)
            return True

        return self._write(rename)

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        return self._swap_many({storage_key: Swap(expected, MISSING, NEVER)})[storage_key]

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        return self._swap_many({storage_key: Swap(expected, value, expires_at)})[storage_key]

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        entry_keys = {storage_key: entry_key_of(storage_key) for storage_key in swaps}
        frames = {
            storage_key: self._frame(storage_key, entry_keys[storage_key], swap.value)
            for storage_key, swap in swaps.items()
            if swap.value is not MISSING
        }

        def swap(table: Table, storage_key: str) -> bool:
            expected, value, expires_at = swaps[storage_key]
            entry_key = entry_keys[storage_key]
            record = table.live(entry_key)
            found = ABSENT if record is None else self._decoded(storage_key, entry_key, record, table.frame_of)
            if expected != found:
                return False
            if value is MISSING:
                table.remove(entry_key)
            else:
                table.put(entry_key, frames[storage_key], expires_at, self._bounds)
            return True

        return self._write(lambda table: {storage_key: swap(table, storage_key) for storage_key in swaps})

    def _clear(self) -> None:
        try:
            self._write(Table.clear, self._key_space)
        except StorageError:
            self._clear_in_steps()

    def _clear_in_steps(self) -> None:
        """Clear on a full disk: the pages that one small change frees are room for the next, larger one."""
        step, doomed = 1, self._read(lambda transaction: owned(transaction, self._key_space))
        while doomed:
            try:
                self._delete_many(doomed[:step])
            except StorageError:
                if step == 1:
                    raise
                step = 1
            else:
                del doomed[:step]
                step *= 2

    def _prune(self) -> int:
        removed, batch = 0, 1000
        while (expired := self._write(Table.prune, batch)) >= batch:
            removed += expired
        return removed + expired

    # Frames ---------------------------------------------------------------------------------

    def _frame(self, storage_key: str, entry_key: bytes, value: Any) -> bytes:
        frame = self._codec.dumps(value, storage_key)
        if entry_key[0] == HASHED:
            frame = join_name(storage_key, frame)
        max_bytes = self._bounds[1]
        if max_bytes is not None and entry_size(entry_key, len(frame)) > max_bytes:
            raise ValueTooLargeError(
                f"The value of key {storage_key!r} takes {entry_size(entry_key, len(frame))} bytes, more than "
                f"OPTIONS['max_bytes'] ({max_bytes}) allows for the whole cache; raise max_bytes or store less."
            )
        return frame

    def _decoded(self, storage_key: str, entry_key: bytes, record: bytes, frame_of: Any = None) -> Any:
        frame = record[_START:]
        try:
            if frame[:1] == ELSEWHERE or entry_key[0] == HASHED:
                frame = own_frame(storage_key, entry_key, record, frame_of or self._frame_of)
            return self._codec.loads(frame, storage_key)
        except KeyError:  # removed since the record was read
            return MISSING
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    # Statistics -----------------------------------------------------------------------------

    def stats(self) -> CacheStats:
        """Return the counts of all processes since the cache was made; see CacheStats.

        Other processes add theirs about once a second while they write, and when they end.
        """
        entries, size = self._usage()
        counts = self._read(read_counts)
        for name, count in self._counters.as_dict().items():
            counts[name] += count
        return CacheStats(**counts, entries=entries, bytes=size, tiers=self._tiers())

    def _check_invariants(self) -> None:
        """Raise AssertionError if entries, slots and numbers disagree: for tests."""
        self._write(Table.check)


def _resolved(location: str | os.PathLike[str]) -> str:
    """Return the directory's path: absolute, without links."""
    if not location:
        raise ConfigurationError("LOCATION is empty; a file cache needs a directory of its own.")
    return os.path.realpath(os.path.expanduser(location))
