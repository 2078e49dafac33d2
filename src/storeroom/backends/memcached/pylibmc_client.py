"""pylibmc's client, as the cache needs it. See clients.py.

Habits of pylibmc 1.6 with libmemcached 1.0 are mended here. A read whose connection breaks is reported as a miss, and
only the next call says the truth: missing keys are asked for twice. Many writes are a round trip each: they are sent
without waiting, and read back in one. And the flags of foreign bytes choose how they are decoded, unpickling included:
here they choose nothing. ``docs/decisions/0085-memcached.md`` tells how the binary protocol differs.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

import pylibmc

from storeroom.backends.memcached.clients import BATCH, NoRoomError, TooLargeError, attempts, batches, batches_of_values
from storeroom.backends.memcached.location import Address
from storeroom.storage.batches import raw

__all__ = ["ERRORS", "OUTAGES", "PyLibMCClient", "new_client"]

T = TypeVar("T")

OUTAGES: tuple[type[BaseException], ...] = (OSError,)
"""The server is out of reach, or is no Memcached: the errors of pylibmc are turned into this one."""

ERRORS: tuple[type[Exception], ...] = (pylibmc.Error,)

_TIMED_OUT: Final = "error 31 "
"""MEMCACHED_TIMEOUT, for which pylibmc has no class."""

_NOT_COMPRESSED: Final = "decompress"
"""In pylibmc's message about foreign bytes that are flagged as compressed, and are not."""

_UNREADABLE: Final = b""
"""Stands for such bytes: no entry is empty."""

_PROBE: Final = b"#probe"
"""A key that nobody sets."""

_READ_BACK_MAX: Final = 2**18
"""Bytes; to read back more takes longer than to wait for each reply."""

_BINARY_READ_MAX: Final = 2**14
"""Bytes of the requests that are sent together in the binary protocol. A socket takes so many before the server reads
one of them, so that server and client never wait for each other to read."""

_BINARY_REQUEST: Final = 24
"""Bytes of such a request beside the key."""

_NO_ROOM: Final = "error 48 "
"""MEMCACHED_SERVER_MEMORY_ALLOCATION_FAILURE: the server has no memory left for an item."""


class _Bytes(pylibmc.Client):  # type: ignore[misc]  # pylibmc ships no types
    """pylibmc's client, without its serializer: bytes stay as they are."""

    deserialize = staticmethod(raw)  # called for each value: one of Python's takes a third of all the time


class PyLibMCClient:
    """One connection by pylibmc."""

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self._binary, timeout = options["binary"], options["socket_timeout"]
        microseconds = max(1, int(timeout * 1e6))
        # A read that took nearly as long has timed out, whatever it says.
        self._silence = 0.9 * timeout
        self._client = _Bytes(
            [address.path or str(address)],
            **{name: options[name] for name in ("binary", "username", "password")},
            behaviors={
                "tcp_nodelay": True,
                **options["behaviors"],
                "cas": True,
                "connect_timeout": max(1, int(options["socket_connect_timeout"] * 1e3)),
                "receive_timeout": microseconds,
                "send_timeout": microseconds,
                "_poll_timeout": max(1, int(timeout * 1e3)),
            },
        )

    def get(self, key: bytes) -> bytes | None:
        begun = time.monotonic()
        data: bytes | None
        try:
            data = self._client.get(key)
            if data is None:
                self._require_answer(begun)
                data = self._client.get(key)
        except pylibmc.Error as error:
            if _NOT_COMPRESSED in str(error):
                return _UNREADABLE
            raise _outage(error) from error
        return data

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if not self._binary and len(keys) <= BATCH:
            return self._get_batch(keys)
        found: dict[bytes, bytes] = {}
        for batch in _binary_reads(keys) if self._binary else batches(keys):
            found |= self._get_batch(batch)
        return found

    def _get_batch(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        begun = time.monotonic()
        found: dict[bytes, bytes]
        try:
            found = self._client.get_multi(keys)
        except pylibmc.Error as error:
            if _NOT_COMPRESSED not in str(error):
                raise _outage(error) from error
            found = {key: data for key in keys if (data := self.get(key)) is not None}
        if len(found) < len(keys):
            self._require_answer(begun)
            missed = next(key for key in keys if key not in found)
            data = self.get(missed)
            if data is not None:
                found[missed] = data
        return found

    def gets(self, key: bytes) -> tuple[bytes, int] | None:
        begun = time.monotonic()
        try:
            data, token = self._client.gets(key)
            if data is None:
                self._require_answer(begun)
                data, token = self._client.gets(key)
        except pylibmc.Error as error:
            if _NOT_COMPRESSED not in str(error):
                raise _outage(error) from error
            self.delete(key)  # nobody can read it, and it would be in the way
            return None
        return None if data is None else (data, token)

    def gets_many(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        # pylibmc has no such call: one after the other.
        return {key: found for key in keys if (found := self.gets(key)) is not None}

    def _require_answer(self, begun: float) -> None:
        """Raise TimeoutError if a read that found nothing got no reply.

        It has taken as long, then; but so has one whose thread did not run meanwhile.
        """
        if time.monotonic() - begun > self._silence:
            self.probe()

    def set(self, key: bytes, data: bytes, exptime: int) -> bool:
        try:
            return bool(self._client.set(key, data, exptime))
        except pylibmc.Error as error:
            try:
                self._raise(error, key, data)
            except NoRoomError:
                return False

    def add(self, key: bytes, data: bytes, exptime: int) -> bool:
        return self._store(self._client.add, key, data, time=exptime)

    def cas(self, key: bytes, data: bytes, exptime: int, token: int) -> bool:
        try:
            return self._store(self._client.cas, key, data, token, time=exptime)
        except pylibmc.NotFound:
            return False

    def _store(self, method: Callable[..., bool], key: bytes, data: bytes, *token: int, time: int) -> bool:
        try:
            return bool(method(key, data, *token, time=time))
        except pylibmc.NotFound:
            raise
        except pylibmc.Error as error:
            self._raise(error, key, data)

    def _raise(self, error: Exception, key: bytes, data: bytes) -> NoReturn:
        """Raise the error of a value that was not stored, as clients.py has it."""
        if isinstance(error, pylibmc.TooBig):
            raise TooLargeError(key, len(data)) from error
        if _NO_ROOM in str(error):
            raise NoRoomError from error
        raise _outage(error) from error

    def set_many(self, values: Mapping[bytes, bytes], exptime: int) -> list[bytes]:
        unsure = (key for batch in batches_of_values(values) for key in self._not_sent(batch, exptime))
        stored = attempts(lambda key: self.set(key, values[key], exptime), unsure)
        return [key for key, is_stored in stored if not is_stored]

    def _not_sent(self, batch: Mapping[bytes, bytes], exptime: int) -> list[bytes]:
        """Store values without waiting, where that pays; return the keys that have to be stored singly."""
        if len(batch) == 1 or self._binary or sum(map(len, batch.values())) > _READ_BACK_MAX:
            return list(batch)
        self._without_waiting(self._client.set_multi, batch, time=exptime)
        stored = self.get_many(list(batch))
        return [key for key in batch if key not in stored]

    def add_many(self, values: Mapping[bytes, bytes], exptime: int) -> Collection[bytes]:
        if self._binary:
            added = attempts(lambda key: self.add(key, values[key], exptime), values)
            return [key for key, is_added in added if is_added]
        found: list[bytes] = []
        for batch in batches_of_values(values):
            self._without_waiting(self._client.add_multi, batch, time=exptime)
            stored = self.get_many(list(batch))
            found += [key for key, data in batch.items() if stored.get(key) == data]
        return found

    def cas_many(self, values: Mapping[bytes, tuple[bytes, int]], exptime: int) -> Collection[bytes]:
        # As gets_many().
        return [key for key, (data, token) in values.items() if self.cas(key, data, exptime, token)]

    def _without_waiting(self, method: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call a method that is not to wait for replies. Its outcome has to be found out."""
        self._client.behaviors = {"_noreply": True}
        try:
            self._ask(method, *args, **kwargs)
        finally:
            self._client.behaviors = {"_noreply": False}

    def delete(self, key: bytes) -> bool:
        return bool(self._ask(self._client.delete, key))

    def delete_many(self, keys: Sequence[bytes]) -> None:
        if self._binary:
            for key in keys:
                self.delete(key)
            return
        for batch in batches(keys):
            self._without_waiting(self._client.delete_multi, batch[:-1])
            # The reply to this one comes after the others were carried out.
            self.delete(batch[-1])

    def _ask(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return method(*args, **kwargs)
        except pylibmc.Error as error:
            raise _outage(error) from error

    def probe(self) -> None:
        self.delete(_PROBE)

    def item_size_max(self) -> int | None:
        return None

    def stats(self, *names: bytes) -> dict[bytes, Any]:
        ((_, told),) = self._ask(self._client.get_stats, *(name.decode() for name in names)) or [(b"", {})]
        return {name.encode() if isinstance(name, str) else name: value for name, value in told.items()}

    def close(self) -> None:
        self._client.disconnect_all()


new_client: Final = PyLibMCClient
"""See Driver."""


def _binary_reads(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the keys in groups that may be asked for together in the binary protocol."""
    start = size = 0
    for end, key in enumerate(keys):
        size += _BINARY_REQUEST + len(key)
        if size > _BINARY_READ_MAX:
            yield keys[start:end]
            start, size = end, _BINARY_REQUEST + len(key)
    if start < len(keys):
        yield keys[start:]


def _outage(error: Exception) -> OSError:
    return TimeoutError(str(error)) if _TIMED_OUT in str(error) else ConnectionError(str(error))
