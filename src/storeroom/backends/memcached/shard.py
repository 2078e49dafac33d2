"""The part of a cache that lies on one server: the hooks, with the outage policy around them.

Operations that read and then write do so by compare-and-swap, and again if somebody came first.
"""

import ssl
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn

from storeroom import storage, timeouts
from storeroom.backends.memcached.clients import Driver, NoRoomError, TooLargeError
from storeroom.backends.memcached.engine import FRESH_SECONDS, Server
from storeroom.backends.memcached.entries import FOR_EVER, GONE, HEADER, exptime, packed
from storeroom.backends.memcached.server_keys import new_token, server_key, server_keys
from storeroom.backends.network import NetworkCache
from storeroom.backends.refusals import LOGIN_REMEDY, TLS_REMEDY
from storeroom.base import BaseCache
from storeroom.exceptions import DecodeError, StorageError, ValueTooLargeError
from storeroom.storage.clocks import SERVER, Clock
from storeroom.storage.copies import alike
from storeroom.storage.counters import numeric
from storeroom.storage.envelope import Envelope, is_over, is_packed
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Swap
from storeroom.timeouts import AT_ONCE, NEVER

if TYPE_CHECKING:
    from storeroom.storage.sightings import Sighting

__all__ = ["Shard"]

_START = HEADER.size
_expiry_of = HEADER.unpack_from

_CLOCK_SECONDS: Final = 2
"""By how much a clock may be ahead of the seconds that the server tells, and agree with it."""

_SASL_REMEDY: Final = "It knows no users, perhaps: start it with -S, or leave the user name and the password out."

_GONE_EXPTIME = 1
"""Seconds after which the server drops an entry that was removed by replacing it: as soon as it can."""


class Shard(NetworkCache, abstract=True):
    """One handle's part on one server. `MemcachedCache` asks the shard that is a key's `home`.

    An entry is kept for `longest` seconds at most; None for as long as the caller says.
    """

    _engine: Server
    sees_envelopes = True

    def __init__(
        self, server: Server, cache: BaseCache, driver: Driver, home: Callable[[str], "Shard"], longest: float | None
    ) -> None:
        super().__init__({})
        self._engine, self._home, self._longest, self._tier = server, home, longest, type(cache).__name__
        self.settings, self._codec, self._counters = cache.settings, cache._codec, cache._counters
        self.key_func, self._version, self._families = cache.key_func, cache.version, cache._families
        self._outage_errors, self._errors = driver.OUTAGES, driver.ERRORS
        self.use_prefix(self.settings.key_prefix)

    def use_prefix(self, key_prefix: str) -> None:
        """Belong to the generations of this prefix."""
        self.key_prefix = key_prefix
        self._generation = self._engine.generation(key_prefix)
        self._dropped = self._generation.dropped

    @property
    def is_guest(self) -> bool:
        """Whether the entries here are those of another server, which is down."""
        return self._longest is not None

    def _driver_errors(self, error: BaseException | None) -> tuple[type[Exception], ...]:
        return (*self._errors, TimeoutError) if isinstance(error, TimeoutError) else self._errors

    def _is_broken(self, error: Exception) -> bool:
        return isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError)

    def _remedy(self, error: BaseException) -> str:
        if isinstance(error, ssl.SSLError):
            return TLS_REMEDY
        text = str(error).upper()
        if "AUTHENTICAT" in text:  # of libmemcached, and of a server with -Y
            return LOGIN_REMEDY
        asks = bool(self.settings.options.get("username")) and not self._engine.has_answered
        return _SASL_REMEDY if asks and "UNKNOWN READ FAILURE" in text else ""

    # Keys -----------------------------------------------------------------------------------

    def _key(self, storage_key: str) -> bytes:
        return server_key(self._token(), storage_key)

    def _keys(self, storage_keys: Collection[str]) -> list[bytes]:
        """Return the server's keys."""
        return server_keys(self._token(), storage_keys)

    def _token(self) -> str:
        token, fresh_until = self._generation.state
        return token if time.monotonic() < fresh_until else self._engine.renewed(self._generation, self._counters)

    def _clear(self) -> None:
        token, generation = new_token(), self._generation
        if not self._engine.ask("set", generation.key, token.encode(), 0):
            raise self._no_room("Nothing was cleared.")
        with self._engine.lock:
            generation.state = (token, time.monotonic() + FRESH_SECONDS)

    # Reading --------------------------------------------------------------------------------

    def _decoded(self, storage_key: str, data: bytes, now: float) -> Any:
        """Return the value that is stored, or MISSING if it has expired or cannot be read."""
        frame = data[_START:]
        self._counters.bytes_read += len(frame)
        try:
            return self._codec.loads(frame, storage_key) if _expiry_of(data)[0] > now else MISSING
        except (struct.error, DecodeError):
            self._counters.errors += 1
            return MISSING

    def _get(self, storage_key: str) -> Any:
        # Short ways, as this is the most frequent read (benchmarks: "memcached get").
        token, fresh_until = self._generation.state
        if time.monotonic() >= fresh_until:
            token = self._token()
        data = self._engine.ask("get", server_key(token, storage_key))
        if data is None:
            return MISSING
        frame = data[_START:]  # as _decoded()
        self._counters.bytes_read += len(frame)
        try:
            return self._codec.loads(frame, storage_key) if _expiry_of(data)[0] > timeouts.now() else MISSING
        except (struct.error, DecodeError):
            self._counters.errors += 1
            return MISSING

    def _sight(self, storage_key: str) -> "Sequence[Sighting]":
        data = self._engine.ask("get", self._key(storage_key)) or b""
        of_frame = import_module("storeroom.storage.sightings").of_frame
        expires_at, frame = _header(data)  # without bytes it is one that was removed
        return [of_frame(self._tier, frame or None, storage_key, self._codec, expires_at, len(data))]

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        keys, counters = self._keys(storage_keys), self._counters
        found = self._engine.ask("get_many", keys)
        counters.bytes_read += max(0, sum(map(len, found.values())) - _START * len(found))
        records, live = list(map(found.get, keys)), storage.batches.live_headers(timeouts.now())
        values: dict[str, Any]
        values, unread = self._codec.loads_many(storage_keys, records, _START, live)
        counters.errors += unread
        return values

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        names = dict(zip(self._keys(storage_keys), storage_keys, strict=True))
        values: dict[str, tuple[Any, float | None]] = {}
        for key, data in self._engine.ask("get_many", list(names)).items():
            value = self._decoded(names[key], data, timeouts.now())
            if value is not MISSING:
                values[names[key]] = value, _expiry_of(data)[0]
        return values

    def _live(self, key: bytes) -> tuple[float, bytes, Any] | None:
        """Return expires_at, frame and token of an entry, or None if it is absent or has expired."""
        found = self._engine.ask("gets", key)
        if found is None:
            return None
        expires_at, frame = _header(found[0])
        return (expires_at, frame, found[1]) if expires_at > timeouts.now() else None

    def _expiry(self, storage_key: str) -> Any:
        data = self._engine.ask("get", self._key(storage_key))
        expires_at, frame = _header(data or b"")
        if not expires_at > timeouts.now():  # so that NaN has expired, too
            return None
        return LOOK if is_packed(frame) else expires_at

    def _clock(self, storage_key: str) -> Clock | None:
        told = self._engine.ask("stats").get(b"time")
        if told is None:
            return None
        # The server tells whole seconds, some of them late: a clock that agrees with it tells the rest.
        now = timeouts.now() - timeouts.skipped
        is_right = 0 <= now - int(told) < _CLOCK_SECONDS
        return Clock(SERVER, (now if is_right else float(told)) + timeouts.skipped)

    # Writing --------------------------------------------------------------------------------

    def _until(self, expires_at: float) -> float:
        return expires_at if self._longest is None else min(expires_at, timeouts.now() + self._longest)

    def _packed(self, storage_key: str, value: Any, expires_at: float) -> bytes:
        return packed(expires_at, self._frame_of(storage_key, value))

    def _frame_of(self, storage_key: str, value: Any) -> bytes:
        """Return the bytes of a value that are about to be sent."""
        frame: bytes = self._codec.dumps(value, storage_key)
        self._counters.bytes_written += len(frame)
        return frame

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        # Short ways, as this is the most frequent write (benchmarks: "memcached set").
        if self._longest is not None:
            expires_at = self._until(expires_at)
        frame = self._codec.dumps(value, storage_key)
        self._counters.bytes_written += len(frame)
        token, fresh_until = self._generation.state
        if time.monotonic() >= fresh_until:
            token = self._token()
        key, seconds = server_key(token, storage_key), FOR_EVER if expires_at == NEVER else exptime(expires_at)
        try:
            stored: bool = self._engine.ask("set", key, HEADER.pack(expires_at) + frame, seconds)
        except TooLargeError as error:
            self._too_large(storage_key, error)
        return stored or self._without_room(self._no_room("Nothing was stored."))

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        expires_at = self._until(expires_at)
        by_key = dict(zip(self._keys(values), values, strict=True))
        frames, header = self._codec.dumps_many(values), HEADER.pack(expires_at)
        self._counters.bytes_written += sum(map(len, frames))
        data = {key: header + frame for key, frame in zip(by_key, frames, strict=True)}
        failed = self._store(self._engine.ask, by_key, "set_many", data, exptime(expires_at))
        if failed:
            self._without_room(self._no_room("Some were not stored."), len(failed))
        return [by_key[key] for key in failed]

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        expires_at = self._until(expires_at)
        data, key = self._packed(storage_key, value, expires_at), self._key(storage_key)
        item = key, data, exptime(expires_at)
        once, names = self._engine.ask_once, {key: storage_key}
        try:
            while not self._store(once, names, "add", *item, probes=True):
                found = self._engine.ask("gets", key)
                if found is None:  # each turn another's entry comes or goes
                    continue
                there_until, frame = _header(found[0])
                if there_until > timeouts.now():
                    return LOOK if is_packed(frame) else False
                if self._store(once, names, "cas", *item, found[1]):
                    break
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was stored."))
        return True

    def _store(self, ask: Callable[..., Any], names: Mapping[bytes, str], *args: Any, **kwargs: Any) -> Any:
        """Ask the server to store entries, by key in `names`; raise ValueTooLargeError if one is too large for it."""
        try:
            return ask(*args, **kwargs)
        except TooLargeError as error:
            self._too_large(names[error.key], error)

    def _too_large(self, storage_key: str, error: TooLargeError) -> NoReturn:
        limit = self._engine.ask("item_size_max") or "1048576 (unless started with -I)"
        raise ValueTooLargeError(
            f"The value of key {storage_key!r} takes {error.size} bytes; {self._engine.breaker.name} holds "
            f"items of {limit} bytes at most. Compress it (OPTIONS['compressor']), split it, or start the server "
            "with a higher -I. What was stored under the key is gone."
        ) from error

    def _change(self, storage_key: str, change: Callable[[float, bytes], tuple[float, bytes] | None]) -> Any:
        """Replace expires_at and frame of a live entry by the result of `change`. Atomic.

        Return False if the entry is absent; LOOK if `change` returns None. After a NoRoomError the old one stays.
        """
        key = self._key(storage_key)
        while (found := self._live(key)) is not None:
            changed = change(*found[:2])
            if changed is None:
                return LOOK
            expires_at, frame = self._until(changed[0]), changed[1]
            item = key, packed(expires_at, frame), exptime(expires_at) if expires_at > timeouts.now() else _GONE_EXPTIME
            if self._store(self._engine.ask_once, {key: storage_key}, "cas", *item, found[2]):
                return True
        return False

    def _unless_full(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do some work; False if the server has no room for it."""
        try:
            return work(*args)
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was changed."))

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        return self._unless_full(
            self._change, storage_key, lambda _, frame: None if is_packed(frame) else (expires_at, frame)
        )

    def _incr(self, storage_key: str, delta: float) -> float:
        total: float = 0

        def incr(expires_at: float, frame: bytes) -> tuple[float, bytes]:
            nonlocal total
            total = numeric(storage_key, self._value(storage_key, frame)) + delta
            return expires_at, self._frame_of(storage_key, total)

        try:
            is_changed = self._change(storage_key, incr)
        except NoRoomError as error:
            raise self._no_room("The number is as it was.") from error
        if not is_changed:
            raise KeyError(storage_key)
        return total

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        try:
            taken = self._taken(storage_key, lambda value: type(value) is not Envelope)
        except NoRoomError as error:
            raise self._no_room("Nothing was moved.") from error
        if not isinstance(taken, tuple):
            return taken
        expires_at, value = taken
        stored = False
        try:
            stored = self._home(new_storage_key)._set(new_storage_key, value, expires_at)
        finally:
            if not stored:
                self._set(storage_key, value, expires_at)
        if not stored:
            raise StorageError("The server of the new key is out of reach or has no room: nothing was moved.")
        return True

    # Removing -------------------------------------------------------------------------------

    def _delete(self, storage_key: str) -> bool:
        key = self._key(storage_key)
        expires_at, frame = _header(self._engine.ask("get", key) or b"")
        now = timeouts.now()
        return expires_at > now and bool(self._engine.ask("delete", key)) and not is_over(frame, now)

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        keys, now = self._keys(storage_keys), timeouts.now()
        found = {key: _header(data) for key, data in self._engine.ask("get_many", keys).items()}
        live = [key for key, (expires_at, _) in found.items() if expires_at > now]
        if live:
            self._engine.ask("delete_many", live)
        return sum(not is_over(found[key][1], now) for key in live)

    def _taken(self, storage_key: str, wanted: Callable[[Any], bool]) -> Any:
        """Remove a live entry if its value is wanted; return expires_at and value, to one caller alone.

        Return False if the entry is absent; LOOK if its value is not wanted. NoRoomError: none even for GONE.
        """
        key = self._key(storage_key)
        while (found := self._live(key)) is not None:
            expires_at, frame, token = found
            value = self._value(storage_key, frame)
            if value is MISSING:
                break
            if not wanted(value):
                return LOOK
            if self._engine.ask_once("cas", key, GONE, _GONE_EXPTIME, token):
                return expires_at, value
        return False

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        taken = self._unless_full(self._taken, storage_key, lambda value: alike(value, expected))
        return isinstance(taken, tuple)

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        new = self._frame_of(storage_key, value)

        def replace(_: float, frame: bytes) -> tuple[float, bytes] | None:
            return (expires_at, new) if alike(self._value(storage_key, frame), expected) else None

        return self._unless_full(self._change, storage_key, replace) is True

    # Many swaps -----------------------------------------------------------------------------

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        """See StorageHooks: one round trip for keys that are to be absent; two for the rest, with pymemcache."""
        absent = {key: swap for key, swap in swaps.items() if swap.expected is ABSENT}
        others = {key: swap for key, swap in swaps.items() if key not in absent}
        return self._add_all(absent) | (self._replace_all(others) if others else {})

    def _add_all(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        by_expiry = defaultdict[float, dict[bytes, str]](dict)
        for name, swap in swaps.items():
            by_expiry[swap.expires_at][self._key(name)] = name
        added: dict[str, bool] = {}
        for expires_at, names in by_expiry.items():
            until = self._until(expires_at)
            data = {key: self._packed(name, swaps[name].value, until) for key, name in names.items()}
            stored = self._store(self._engine.ask_once, names, "add_many", data, exptime(until), probes=True)
            refused = [key for key in names if key not in stored]
            there = self._engine.ask("get_many", refused) if refused else {}
            for key, name in names.items():
                found = there.get(key, b"")
                # The driver may have stored it, and tried a second time.
                is_stored = key in stored or found == data[key]
                # An entry that has expired by this clock is in the way, or there was no room.
                may_add = not _header(found)[0] > timeouts.now()
                added[name] = is_stored or (may_add and self._swap(name, swaps[name]))
        return added

    def _replace_all(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        names = {self._key(name): name for name in swaps}
        replaced = dict.fromkeys(swaps, False)
        for seconds, changes in self._changes(names, swaps).items():
            try:
                stored = self._store(self._engine.ask_once, names, "cas_many", changes, seconds)
            except NoRoomError:
                self._without_room(self._no_room("Some were not changed."), len(changes))
                continue
            # Another client came in between where it was not stored, and may have left the value as it was.
            replaced |= {names[key]: key in stored or self._swap(names[key], swaps[names[key]]) for key in changes}
        return replaced

    def _changes(
        self, names: Mapping[bytes, str], swaps: Mapping[str, Swap]
    ) -> Mapping[int, dict[bytes, tuple[bytes, Any]]]:
        """Return data and token of each entry that is as expected, by exptime."""
        changes = defaultdict[int, dict[bytes, tuple[bytes, Any]]](dict)
        for key, (data, token) in self._engine.ask("gets_many", list(names)).items():
            expected, value, expires_at = swaps[names[key]]
            there_until, frame = _header(data)
            if not there_until > timeouts.now() or not alike(self._value(names[key], frame), expected):
                continue
            if value is MISSING:
                changes[_GONE_EXPTIME][key] = GONE, token
            else:
                until = self._until(expires_at)
                changes[exptime(until)][key] = self._packed(names[key], value, until), token
        return changes

    # Details --------------------------------------------------------------------------------

    def _no_room(self, consequence: str) -> StorageError:
        return StorageError(
            f"{self._engine.breaker.name} has no room, and may not evict (-M). {consequence} Start it with more memory "
            "(-m), or let it evict."
        )

    def _value(self, storage_key: str, frame: bytes) -> Any:
        self._counters.bytes_read += len(frame)
        try:
            return self._codec.loads(frame, storage_key)
        except DecodeError:
            self._counters.errors += 1
            return MISSING


def _header(data: bytes) -> tuple[float, bytes]:
    """Return expires_at and frame; an entry that is too short has expired."""
    return (_expiry_of(data)[0], data[_START:]) if len(data) > _START else (AT_ONCE, b"")
