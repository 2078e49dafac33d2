"""The part of a cache that lies on one server: the hooks, with the outage policy around them.

Whatever reads and then writes does so by compare-and-swap, and again if somebody came first.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from struct import error as StructError  # noqa: N812 -- an exception class
from typing import Any, Final

from storeroom import timeouts
from storeroom.backends.memcached.clients import NoRoomError, TooLargeError
from storeroom.backends.memcached.engine import FRESH_SECONDS, Server
from storeroom.backends.memcached.entries import GONE, HEADER, exptime, packed
from storeroom.backends.memcached.server_keys import is_token, new_token, server_key
from storeroom.backends.network import NetworkCache
from storeroom.config import Settings
from storeroom.engines.counts import Counters
from storeroom.exceptions import DecodeError, StorageError, ValueTooLargeError, ValueTypeError
from storeroom.serializers import Codec
from storeroom.storage.envelope import Envelope, is_packed
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Swap
from storeroom.timeouts import AT_ONCE

__all__ = ["Shard"]

_LOOKS: Final = 5
"""How often a generation is looked for, and begun: others may empty the server between two looks."""

_START = HEADER.size
_expiry_of = HEADER.unpack_from

_GONE_EXPTIME = 1
"""Seconds after which the server drops what was removed by replacing it: as soon as it can."""


class Shard(NetworkCache):
    """What one handle keeps on one server. `MemcachedCache` asks the shard that a key belongs to.

    Args:
        server: the engine.
        settings: of the cache that this is a part of.
        codec: its codec.
        counters: its counters.
        outages: what the driver raises when the server is out of reach.
        home: returns the shard that a storage key belongs to.
        longest: seconds that an entry is kept at most; None for as long as the caller says.
    """

    _engine: Server
    sees_envelopes = True

    def __init__(
        self,
        server: Server,
        settings: Settings,
        codec: Codec,
        counters: Counters,
        outages: tuple[type[BaseException], ...],
        home: Callable[[str], "Shard"],
        longest: float | None = None,
    ) -> None:
        super().__init__({})
        self.settings = settings
        self._engine, self._codec, self._counters, self._home = server, codec, counters, home
        self._longest = longest
        self._outage_errors = outages
        self.use_prefix(settings.key_prefix)

    def use_prefix(self, key_prefix: str) -> None:
        """Belong to the generations of this prefix."""
        self._generation = self._engine.generation(key_prefix)

    # Keys -----------------------------------------------------------------------------------

    def _key(self, storage_key: str) -> bytes:
        token, fresh_until = self._generation.state
        if time.monotonic() >= fresh_until:
            token = self._renewed()
        return server_key(token, storage_key)

    def _renewed(self) -> str:
        """Ask for the generation, and begin one if there is none: what was stored before is lost with it."""
        generation, engine = self._generation, self._engine
        before, fresh_until = generation.state, time.monotonic() + FRESH_SECONDS
        found = engine.ask("get", generation.key)
        for _ in range(_LOOKS):
            if found is not None:
                break
            try:
                engine.ask_once("add", generation.key, new_token().encode(), 0, probes=True)
            except NoRoomError:  # nor is there room for any entry, then
                break
            found = engine.ask("get", generation.key)
        if found is None:
            self._counters.errors += 1
            found = new_token().encode()
        elif not is_token(found):  # foreign bytes
            found = new_token().encode()
            engine.ask("set", generation.key, found, 0)
        with engine.lock:
            # A clear() of this process meanwhile knows better.
            if generation.state is before:
                generation.state = (found.decode(), fresh_until)
            return generation.state[0]

    def _clear(self) -> None:
        token, generation = new_token(), self._generation
        if not self._engine.ask("set", generation.key, token.encode(), 0):
            raise self._no_room("Nothing was cleared.")
        with self._engine.lock:
            generation.state = (token, time.monotonic() + FRESH_SECONDS)

    # Reading --------------------------------------------------------------------------------

    def _decoded(self, storage_key: str, data: bytes) -> Any:
        """Return the value that is stored, or MISSING if it has expired or cannot be read."""
        try:
            if not _expiry_of(data)[0] > timeouts.now():
                return MISSING
            return self._codec.loads(data[_START:], storage_key)
        except (StructError, DecodeError):
            self._counters.errors += 1
            return MISSING

    def _get(self, storage_key: str) -> Any:
        data = self._engine.ask("get", self._key(storage_key))
        return MISSING if data is None else self._decoded(storage_key, data)

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        return {storage_key: value for storage_key, (value, _) in self._found(storage_keys).items()}

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        return self._found(storage_keys)

    def _found(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        by_key = {self._key(storage_key): storage_key for storage_key in storage_keys}
        values: dict[str, tuple[Any, float | None]] = {}
        for key, data in self._engine.ask("get_many", list(by_key)).items():
            value = self._decoded(by_key[key], data)
            if value is not MISSING:
                values[by_key[key]] = value, _expiry_of(data)[0]
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
        if data is None:
            return None
        expires_at, frame = _header(data)
        if not expires_at > timeouts.now():  # what is no number has expired, too
            return None
        return LOOK if is_packed(frame) else expires_at

    # Writing --------------------------------------------------------------------------------

    def _until(self, expires_at: float) -> float:
        return expires_at if self._longest is None else min(expires_at, timeouts.now() + self._longest)

    def _packed(self, storage_key: str, value: Any, expires_at: float) -> bytes:
        return packed(expires_at, self._codec.dumps(value, storage_key))

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        expires_at = self._until(expires_at)
        data = self._packed(storage_key, value, expires_at)
        try:
            stored: bool = self._engine.ask("set", self._key(storage_key), data, exptime(expires_at))
        except TooLargeError as error:
            raise self._too_large(storage_key, error) from error
        return stored or self._without_room(self._no_room("Nothing was stored."))

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        expires_at = self._until(expires_at)
        by_key = {self._key(storage_key): storage_key for storage_key in values}
        data = {key: self._packed(name, values[name], expires_at) for key, name in by_key.items()}
        try:
            failed = self._engine.ask("set_many", data, exptime(expires_at))
        except TooLargeError as error:
            raise self._too_large(by_key[error.key], error) from error
        if failed:
            self._without_room(self._no_room("Some were not stored."), len(failed))
        return [by_key[key] for key in failed]

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        expires_at = self._until(expires_at)
        data = self._packed(storage_key, value, expires_at)
        key, seconds = self._key(storage_key), exptime(expires_at)
        try:
            while True:  # each turn another's entry comes or goes
                if self._engine.ask_once("add", key, data, seconds, probes=True):
                    return True
                found = self._engine.ask("gets", key)
                if found is None:
                    continue
                there_until, frame = _header(found[0])
                if there_until > timeouts.now():
                    return LOOK if is_packed(frame) else False
                if self._engine.ask_once("cas", key, data, seconds, found[1]):
                    return True
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was stored."))
        except TooLargeError as error:
            raise self._too_large(storage_key, error) from error

    def _change(self, storage_key: str, change: Callable[[float, bytes], tuple[float, bytes] | None]) -> Any:
        """Replace expires_at and frame of a live entry by what `change` makes of them. Atomic.

        Return False if the entry is absent; LOOK if `change` makes nothing of them.

        Raises:
            NoRoomError: the server has no room for the new one, so that the old one stays.
        """
        key = self._key(storage_key)
        while (found := self._live(key)) is not None:
            changed = change(*found[:2])
            if changed is None:
                return LOOK
            expires_at, frame = self._until(changed[0]), changed[1]
            seconds = exptime(expires_at) if expires_at > timeouts.now() else _GONE_EXPTIME
            try:
                if self._engine.ask_once("cas", key, packed(expires_at, frame), seconds, found[2]):
                    return True
            except TooLargeError as error:
                raise self._too_large(storage_key, error) from error
        return False

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        def touch(_: float, frame: bytes) -> tuple[float, bytes] | None:
            return None if is_packed(frame) else (expires_at, frame)

        try:
            return self._change(storage_key, touch)
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was changed."))

    def _incr(self, storage_key: str, delta: float) -> float:
        value: Any = MISSING

        def incr(expires_at: float, frame: bytes) -> tuple[float, bytes]:
            nonlocal value
            value = self._value(storage_key, frame)
            if value is MISSING:
                raise KeyError(storage_key)
            if not isinstance(value, int | float):
                raise ValueTypeError(
                    f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
                )
            value += delta
            return expires_at, self._codec.dumps(value, storage_key)

        try:
            is_changed = self._change(storage_key, incr)
        except NoRoomError as error:
            raise self._no_room("The number is as it was.") from error
        if not is_changed:
            raise KeyError(storage_key)
        result: float = value
        return result

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        conditional = False

        def is_bare(value: Any) -> bool:
            nonlocal conditional
            conditional = type(value) is Envelope
            return not conditional

        try:
            taken = self._taken(storage_key, is_bare)
        except NoRoomError as error:
            raise self._no_room("Nothing was moved.") from error
        if taken is None:
            return LOOK if conditional else False
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
        data = self._engine.ask("get", key)
        return data is not None and _header(data)[0] > timeouts.now() and bool(self._engine.ask("delete", key))

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        keys, now = list(map(self._key, storage_keys)), timeouts.now()
        stored = self._engine.ask("get_many", keys)
        live = [key for key, data in stored.items() if _header(data)[0] > now]
        if live:
            self._engine.ask("delete_many", live)
        return len(live)

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        try:
            return self._taken(storage_key, lambda value: bool(value == expected)) is not None
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was changed."))

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        new = self._codec.dumps(value, storage_key)

        def replace(_: float, frame: bytes) -> tuple[float, bytes] | None:
            return (expires_at, new) if self._value(storage_key, frame) == expected else None

        try:
            return self._change(storage_key, replace) is True
        except NoRoomError:
            return self._without_room(self._no_room("Nothing was changed."))

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        """See StorageHooks: one round trip for what is to be absent; two for the rest, with pymemcache."""
        absent = {key: swap for key, swap in swaps.items() if swap.expected is ABSENT}
        others = {key: swap for key, swap in swaps.items() if key not in absent}
        return self._add_all(absent) | self._replace_all(others)

    def _add_all(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        added: dict[str, bool] = {}
        for expires_at, names in _by_expiry(swaps).items():
            until = self._until(expires_at)
            by_key = {self._key(name): name for name in names}
            data = {key: self._packed(name, swaps[name].value, until) for key, name in by_key.items()}
            try:
                stored = self._engine.ask_once("add_many", data, exptime(until), probes=True)
            except TooLargeError as error:
                raise self._too_large(by_key[error.key], error) from error
            added |= {by_key[key]: True for key in stored}
            refused = [key for key in by_key if key not in stored]
            there = self._engine.ask("get_many", refused) if refused else {}
            for key in refused:
                if there.get(key) == data[key]:  # the driver has tried twice
                    added[by_key[key]] = True
                    continue
                # What has expired by our clock may be in the way, or there was no room.
                is_live = key in there and _header(there[key])[0] > timeouts.now()
                added[by_key[key]] = not is_live and self._swap(by_key[key], swaps[by_key[key]])
        return added

    def _replace_all(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        if not swaps:
            return {}
        keys = {name: self._key(name) for name in swaps}
        found = self._engine.ask("gets_many", list(keys.values()))
        changes: dict[int, dict[str, tuple[bytes, Any]]] = {}
        for name, (expected, value, expires_at) in swaps.items():
            data, token = found.get(keys[name], (b"", None))
            there_until, frame = _header(data)
            if not there_until > timeouts.now() or self._value(name, frame) != expected:
                continue
            if value is MISSING:
                changes.setdefault(_GONE_EXPTIME, {})[name] = GONE, token
            else:
                until = self._until(expires_at)
                changes.setdefault(exptime(until), {})[name] = self._packed(name, value, until), token
        replaced = dict.fromkeys(swaps, False)
        for seconds, changed in changes.items():
            names = {keys[name]: name for name in changed}
            try:
                stored = self._engine.ask_once("cas_many", {keys[name]: changed[name] for name in changed}, seconds)
            except TooLargeError as error:
                raise self._too_large(names[error.key], error) from error
            except NoRoomError:
                self._without_room(self._no_room("Some were not changed."), len(changed))
                continue
            # Somebody came in between where it was not stored, and may have left the value as it was.
            replaced |= {name: key in stored or self._swap(name, swaps[name]) for key, name in names.items()}
        return replaced

    def _taken(self, storage_key: str, wanted: Callable[[Any], bool] = lambda _: True) -> tuple[float, Any] | None:
        """Remove a live entry if its value is wanted; return expires_at and value to one caller alone, or None.

        Raises:
            NoRoomError: the server has no room even for what takes the place of the entry.
        """
        key = self._key(storage_key)
        while (found := self._live(key)) is not None:
            expires_at, frame, token = found
            value = self._value(storage_key, frame)
            if value is MISSING or not wanted(value):
                return None
            if self._engine.ask_once("cas", key, GONE, _GONE_EXPTIME, token):
                return expires_at, value
        return None

    # Room -----------------------------------------------------------------------------------

    def _no_room(self, consequence: str) -> StorageError:
        return StorageError(
            f"{self._engine.breaker.name} has no room, and may not evict (-M). {consequence} Start it with more memory "
            "(-m), or let it evict."
        )

    # Details --------------------------------------------------------------------------------

    def _value(self, storage_key: str, frame: bytes) -> Any:
        try:
            return self._codec.loads(frame, storage_key)
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    def _too_large(self, storage_key: str, error: TooLargeError) -> ValueTooLargeError:
        limit = self._engine.ask("item_size_max") or "1048576 (unless started with -I)"
        return ValueTooLargeError(
            f"The value of key {storage_key!r} takes {error.size} bytes; {self._engine.breaker.name} holds items of "
            f"{limit} bytes at most. Compress it (OPTIONS['compressor']), split it, or start the server with a higher "
            "-I. What was stored under the key is gone."
        )


def _by_expiry(swaps: Mapping[str, Swap]) -> Mapping[float, list[str]]:
    """Return the storage keys by the expiry that they are to have."""
    by_expiry: dict[float, list[str]] = {}
    for storage_key, swap in swaps.items():
        by_expiry.setdefault(swap.expires_at, []).append(storage_key)
    return by_expiry


def _header(data: bytes) -> tuple[float, bytes]:
    """Return expires_at and frame; what is too short has expired."""
    return (_expiry_of(data)[0], data[_START:]) if len(data) > _START else (AT_ONCE, b"")
