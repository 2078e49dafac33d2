"""A cache in files, shared by all processes of this machine, that survives restarts.

LOCATION is a directory. In it lies an LMDB environment: reads are memory-mapped and
wait for nobody, writes are atomic transactions, and a process may be killed at any
moment. It is Storeroom's embedded default.

Needs a local disk: LMDB's locks live in shared memory, so network file systems do
not work.
"""

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import lmdb

from storeroom import config, storage, timeouts
from storeroom.backends.fallbacks import check_fallback
from storeroom.backends.filebased.comparing import ComparingCache
from storeroom.backends.filebased.counts import read_counts
from storeroom.backends.filebased.environment import FORMAT, MAP_BYTES, Environment
from storeroom.backends.filebased.folder import distrusted, resolved
from storeroom.backends.filebased.policy import WritePolicy, answered
from storeroom.backends.filebased.records import (
    ELSEWHERE,
    HASHED,
    HEADER,
    LONGEST_FRAME,
    bytes_aside,
    entry_key_of,
    entry_keys_of,
    envelope_of,
    first_of,
    is_all_under,
    is_conditional,
    live_keys,
    load,
    own_parts,
    read_header,
    start_of_live,
)
from storeroom.backends.filebased.slots import ENTRIES, SIZE
from storeroom.backends.filebased.table import LOOKS, Bounds, Table
from storeroom.backends.filebased.tally import tally
from storeroom.backends.filebased.transactions import steps_of
from storeroom.backends.filebased.turns import GAP_SECONDS
from storeroom.backends.nested import nested_answer, nesting
from storeroom.backends.ownership import GROUP, group_and_secret, require_same
from storeroom.backends.policies import ON_ERROR
from storeroom.base import BaseCache
from storeroom.base.backend_class import declared_as
from storeroom.engines import shared
from storeroom.engines.counts import total
from storeroom.eviction import MOST_HITS
from storeroom.exceptions import (
    ConfigurationError,
    DecodeError,
    ReentrantUseError,
    SerializationError,
    StorageError,
    ValueTooLargeError,
    WriteTimeoutError,
)
from storeroom.late import replaced
from storeroom.serializers import Codec, build_codec
from storeroom.serializers.frames import TEXT_BYTE
from storeroom.serializers.parts import is_large
from storeroom.storage.envelope import FIRST_BYTE, Envelope
from storeroom.storage.hooks import LOOK, MISSING
from storeroom.storage.steps import run
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.engines.stats import CacheStats
    from storeroom.storage.sightings import Sighting

__all__ = ["FileBasedCache"]

T = TypeVar("T")

_START: Final = HEADER.size


@nesting("clear", "prune", "lease", "lease_many")
@answered
class FileBasedCache(WritePolicy, ComparingCache):
    """A cache in an LMDB environment in the directory LOCATION.

    Atomic among threads and processes: every operation. Blocking: a write waits for the
    write under way in another thread or process, microseconds as a rule; a read waits
    for nothing.

    Args:
        location: the directory; made when needed, for this user only.
        params: the alias's settings.

    Raises:
        ConfigurationError: a setting is wrong, or LOCATION is empty or behind a link of another user.
    """

    options: ClassVar[Mapping[str, config.Option] | None] = {
        **config.ENTRY_BOUNDS,
        **config.CODEC_OPTIONS,
        "group": GROUP,
        "map_size": config.Option(
            config.finite_size,
            MAP_BYTES,
            "Address space reserved for the file, in bytes, and so its greatest size. Takes no memory and no disk.",
        ),
        "write_timeout": config.Option(
            config.number(0.001), 5.0, "Seconds that a write waits for those of other processes, at most."
        ),
        "on_error": replaced(
            ON_ERROR,
            meaning='What a write does after write_timeout: "miss", "raise" or "fallback:<alias>", or a word for each '
            "family of operations.",
        ),
    }
    _engine: Environment
    _shares_counts = False  # a record has them
    sees_envelopes = True
    notes_removals = True
    location_is_path: ClassVar[bool] = True
    entries_folder: ClassVar[str] = FORMAT
    """The folder in LOCATION that the entries are in."""

    def __init__(self, location: str | os.PathLike[str], params: Mapping[str, Any]) -> None:
        """Note where the cache lies; files are touched on first use."""
        super().__init__(params)
        self._dir = resolved(location)
        options = self.settings.options
        self._write_timeout: float = options["write_timeout"]
        check_fallback(options)
        group, secret = group_and_secret(self.settings)
        secret = options["secret"] if group is None else secret
        codec_options = {name: options[name] for name in config.CODEC_OPTIONS} | {"secret": secret}
        # Nobody else can write to a directory of one's own, so what is read from it needs no restriction.
        self._codec: Codec = build_codec(trusted=group is None, **codec_options)
        self._reads_text = secret is None  # the one kind of frame that needs no codec, where it is not signed
        self._bounds = Bounds(*(options[name] for name in Bounds._fields))
        self._begin_with(options)
        self.engine = shared(Environment, self._dir, lambda: Environment(self._dir, options["map_size"], group))
        require_same(group, self._engine.group, self._dir)

    @classmethod
    def check_location(cls, location: str | os.PathLike[str], settings: config.Settings) -> None:
        """Find out, without making anything, whether the directory can be used.

        Raises:
            ConfigurationError: LOCATION is empty, a file, behind another user's link, or this user cannot write there.
        """
        directory = resolved(location)
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

    @classmethod
    def distrusted(cls, location: str | os.PathLike[str], settings: config.Settings) -> list[str]:
        """Return the reasons why the first use would refuse the directory, as others may have written to it."""
        return distrusted(os.path.join(resolved(location), FORMAT), settings.options["group"])

    # Reading --------------------------------------------------------------------------------

    # A hit is written out, as the calls would cost more than LMDB does (benchmarks: "file get").

    @declared_as(BaseCache.get)
    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. Waits for nothing."""
        if self._overlay is not None:
            return BaseCache.get(self, key, default, version)
        head = self._head
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        value = self._get(storage_key, start_of_live)
        if type(value) is Envelope:
            value = self._opened(value)
        if value is MISSING:
            self._count_miss(key)
            return default
        self._counters.hits += 1
        return value

    def _get(self, storage_key: str, start_of: Callable[..., int] | None = None) -> Any:  # noqa: PLR0911
        entry_key, engine, now = entry_key_of(storage_key), self._engine, timeouts.now()
        if not engine.checked_at <= now <= engine.check_after:
            self._check(now)
            start_of = None  # a tag may be among those dropped
            if storage_key in engine.dropped.keys:
                return MISSING
        try:
            record = engine.begin().get(entry_key)
        except (lmdb.Error, ReentrantUseError) as error:
            return self._get_again(storage_key, error)
        queues = engine.queues
        if record is None:
            queues.miss(entry_key)
            return MISSING
        try:
            expires_at, slot, first_byte = first_of(record)
            if expires_at <= now:
                return MISSING
            hits = queues.slots.hits
            if slot < len(hits) and hits[slot] < MOST_HITS:
                hits[slot] += 1
            if first_byte == TEXT_BYTE and self._reads_text:
                return record[_START + 1 :].decode()
        except (struct.error, UnicodeDecodeError):
            self._counters.errors += 1
            return MISSING
        if first_byte == FIRST_BYTE[0] and start_of is not None and self._reads_text:
            record = record[start_of(record, now, engine.begin) :]
        return self._decoded(storage_key, entry_key, record)

    def _get_again(self, storage_key: str, error: lmdb.Error | ReentrantUseError) -> Any:
        with suppress(ReentrantUseError):
            if isinstance(error, lmdb.Error):
                self._engine.recover(error)
            return self._get_many([storage_key]).get(storage_key, MISSING)
        return MISSING

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return self._found(storage_keys, None)

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        times = dict[str, float]()
        return {key: (value, times[key]) for key, value in self._found(storage_keys, times).items()}

    def _found(self, storage_keys: Sequence[str], times: dict[str, float] | None) -> dict[str, Any]:
        """Return the values of live entries, and note when these expire, if asked for: the hot path of many."""
        if dropped := self._engine.dropped.keys:
            storage_keys = [key for key in storage_keys if key not in dropped]
        entry_keys = entry_keys_of(storage_keys)
        records = self._read(lambda transaction: list(map(transaction.get, entry_keys)))
        now, values = timeouts.now(), dict[str, Any]()
        every: Any = zip(storage_keys, entry_keys, records, strict=True)
        if times is None and self._reads_text:
            live, hits = storage.batches.live_headers(now), self._engine.queues.slots.hits
            values, left = storage.batches.values_of(storage_keys, records, _START, live, hits)
            if len(left) < len(records):
                every = ((storage_keys[number], entry_keys[number], records[number]) for number in left)
        self._find(values, every, now, times)
        return values

    def _expiry(self, storage_key: str) -> Any:
        entry_key, now = entry_key_of(storage_key), timeouts.now()
        if storage_key in self._engine.dropped.keys:
            return None

        def look(transaction: Any) -> Any:
            record = transaction.get(entry_key)
            if record is None or not (expires_at := read_header(record)[0]) > now:  # what is no number has expired, too
                return None
            if not is_conditional(entry_key, record):
                return expires_at
            return envelope_of(entry_key, record) or LOOK

        return self._read(look, buffers=True)  # of a large value only the beginning is read

    def _scan(self, start: str) -> Iterator[str]:
        now = timeouts.now()
        position = b"e"
        while position:
            found, position = self._read(live_keys, start, now, position, LOOKS)
            yield from found

    def _usage(self) -> tuple[int | None, int | None]:
        numbers = self._read(lambda transaction: self._engine.queues.slots.committed(transaction.id()))
        return self._write(Table.usage, frees=True) if numbers is None else (numbers[ENTRIES], numbers[SIZE])

    def _tally(self, start: str) -> tuple[int, list[str]] | None:
        if not self._read(lambda transaction: is_all_under(transaction, start)):
            return None
        return self._read_settled(lambda transaction: tally(transaction, self._engine.queues.slots))

    def _decoded(self, storage_key: str, entry_key: bytes, record: bytes) -> Any:
        frame = record[_START:]
        try:
            if frame[:1] == ELSEWHERE or entry_key[0] == HASHED:
                found = self._parts_of(entry_key) if bytes_aside(record) else [frame]
                head, parts = own_parts(storage_key, entry_key, found)
                return load(lambda head, key: self._codec.loads_parts(head, parts, key), head, storage_key)
            return self._codec.loads(frame, storage_key)
        except KeyError:  # removed since the record was read
            return MISSING
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    def _sight(self, storage_key: str) -> "Sequence[Sighting]":
        tier, sight = type(self).__name__, import_module("storeroom.backends.filebased.sight").sight
        found: list[Sighting] = sight(tier, storage_key, self._read, self._frame_of, self._codec)
        return found

    def _dropped_write(self, storage_key: str) -> bool:
        return storage_key in self._engine.dropped.keys

    def _names_of(self, storage_key: str) -> Sequence[object]:
        return (entry_key_of(storage_key),)

    # Writing --------------------------------------------------------------------------------

    def set(
        self, key: object, value: Any, timeout: Timeout = DEFAULT_TIMEOUT, version: int | None = None, *,
        tags: Iterable[object] = (),
    ) -> None:  # fmt: skip
        """Store the value: see BaseCache.set()."""
        if tags or self._overlay is not None:
            BaseCache.set(self, key, value, timeout, version, tags=tags)
            return
        head = self._head
        storage_key = f"{head}{key}" if version is None and head is not None else self._storage_key(key, version)
        expires_at = self._expires_at(timeout)
        if expires_at <= timeouts.now():
            self._delete(storage_key)
            return
        entry_key = entry_key_of(storage_key)
        try:
            if is_large(value, LONGEST_FRAME):
                self._store(storage_key, entry_key, value, expires_at)
            else:  # the same, without its call
                self._put(entry_key, self._frame(storage_key, entry_key, value), expires_at)
        except (SerializationError, ValueTooLargeError) as error:
            run(self._refused(self, key, storage_key, value, error))
            return
        except WriteTimeoutError as error:
            self._untaken("set", (storage_key, value, expires_at), error)
            return
        except ReentrantUseError as error:
            nested_answer(self, "set", (storage_key, value, expires_at), error)
        self._counted_set(key, stored=True)

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        self._store(storage_key, entry_key_of(storage_key), value, expires_at)
        return True

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        keys = entry_keys_of(list(values))
        frames, bounds, start = self._frames(values, keys), self._bounds, 0
        for end in steps_of(frames):
            part = slice(start, end)
            self._write_or_remove(keys[start:], Table.put_all, keys[part], frames[part], expires_at, bounds)
            start = end
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
        return self._remove_all([entry_key_of(storage_key) for storage_key in storage_keys])

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        entry_key = entry_key_of(storage_key)

        def touch(table: Table) -> Any:
            record = table.live(entry_key)
            if record is None:
                return False
            if is_conditional(entry_key, record):
                return (envelope_of(entry_key, record) if bytes_aside(record) else None) or LOOK
            table.touch(entry_key, record, expires_at, self._bounds)
            return True

        return self._write(touch, frees=True)

    def _clear(self) -> None:
        space, step = self._key_space, LOOKS  # a program's own function is not to run within a transaction
        try:
            if self._write(Table.clear, space, frees=True):
                self._free_pages()
                self._noted_clear(space)
                return
        except WriteTimeoutError:
            raise
        except StorageError:
            step = 1  # on a full disk, the pages that one small change frees are room for the next, larger one
        position = b"e"
        while position:
            try:
                position = self._write(Table.clear_from, space, position, step, frees=True, buffers=True)
            except StorageError as error:
                if step == 1 or type(error) is WriteTimeoutError:
                    raise
                step = 1
            else:
                step = min(2 * step, LOOKS)
            time.sleep(GAP_SECONDS)
        self._free_pages()
        self._noted_clear(space)

    # Statistics -----------------------------------------------------------------------------

    def _counted_here(self) -> dict[str, Any]:
        """Return the counts of all processes since the cache was made; see CacheStats.

        Other processes add theirs about once a second while they write, and when they end.
        """
        counted: dict[str, Any] = self._engine.counted()
        with suppress(WriteTimeoutError):  # the files are not open yet
            counted = total(self._read(read_counts), counted)
        return counted

    def _counted_by_this_process(self) -> dict[str, Any]:
        return total(self._counters.handed, self._engine.counted())

    def _whose(self) -> dict[str, Any]:
        return {"scope": "machine", "processes": None}

    def _stats_of_all(self, scope: str | None, *, with_own: bool = True) -> "CacheStats":
        return self.stats() if scope == "all" else super()._stats_of_all(scope, with_own=with_own)
