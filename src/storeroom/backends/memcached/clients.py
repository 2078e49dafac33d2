"""The cache's view of a driver: one connection to one server, for bytes under bytes.

Each driver has a module that fulfils this, and is loaded only when a cache is made.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from storeroom.backends.memcached.location import Address

__all__ = ["BATCH", "Client", "Driver", "NoRoomError", "TooLargeError", "attempts", "batches", "batches_of_values"]

K = TypeVar("K")
V = TypeVar("V")

BATCH: Final = 1000
"""Keys of one command or of writes that are sent together. Their replies fit into a socket's buffer, so that
neither side waits for the other to read."""

_BATCH_BYTES: Final = 2**20
"""Bytes of values that are sent together: no more than a socket's timeout is long enough for."""


class TooLargeError(Exception):
    """The server holds no items of this size, in bytes."""

    def __init__(self, key: bytes, size: int) -> None:
        super().__init__(key, size)
        self.key, self.size = key, size


class NoRoomError(Exception):
    """The server has no memory left for an item, and may not evict another."""


class Client(Protocol):
    """A connection, opened when it is first used. Used by one thread at a time.

    Where the server has no room for an item, add() and cas() raise NoRoomError. Other errors but TooLargeError are
    outages, `TimeoutError` where the server did not answer in time. After these the client is not used again.
    """

    def get(self, key: bytes) -> bytes | None:
        """Return the stored bytes, or None."""

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the stored bytes by key. One round trip for each BATCH, or for as many as may be sent together."""

    def gets(self, key: bytes) -> tuple[bytes, Any] | None:
        """Return the stored bytes, and a token of their state for cas(); or None."""

    def gets_many(self, keys: Sequence[bytes]) -> Mapping[bytes, tuple[bytes, Any]]:
        """Do as gets() for several keys; keys without an entry are absent."""

    def set(self, key: bytes, data: bytes, exptime: int) -> bool:
        """Store it. Return False if the server has no room."""

    def set_many(self, values: Mapping[bytes, bytes], exptime: int) -> Sequence[bytes]:
        """Store them all. Return the keys for which the server had no room."""

    def add(self, key: bytes, data: bytes, exptime: int) -> bool:
        """Store it if the key is free. Return whether it was stored."""

    def cas(self, key: bytes, data: bytes, exptime: int, token: Any) -> bool:
        """Store it if nobody has changed the entry since gets(). Return whether it was stored."""

    def add_many(self, values: Mapping[bytes, bytes], exptime: int) -> Collection[bytes]:
        """Do as add() for several keys. Return those that were stored; there was no room, or no need, for the others.

        Each value has some bytes of its own, to tell it from one that another client has stored.
        """

    def cas_many(self, values: Mapping[bytes, tuple[bytes, Any]], exptime: int) -> Collection[bytes]:
        """Do as cas() for several keys, with data and token of each. Return those that were stored."""

    def delete(self, key: bytes) -> bool:
        """Remove it. Return whether it was there."""

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Remove them all."""

    def probe(self) -> None:
        """Find out whether the server has closed the connection, and raise ConnectionError if so."""

    def item_size_max(self) -> int | None:
        """Return the largest size of an item (-I), in bytes; None if the driver cannot ask."""

    def stats(self, *names: bytes) -> Mapping[bytes, Any]:
        """Return the server's facts about itself: in general, or about a name such as "settings"."""

    def close(self) -> None:
        """Close the connection."""


class Driver(Protocol):
    """A driver's module."""

    OUTAGES: tuple[type[BaseException], ...]
    """Errors of its clients when the server is out of reach, or is no Memcached."""

    ERRORS: tuple[type[Exception], ...]
    """The classes that programs written for the driver catch."""

    def new_client(self, address: "Address", options: Mapping[str, Any]) -> Client:
        """Return a client of this server."""


def attempts(store: Callable[[K], V], items: Iterable[K]) -> Iterator[tuple[K, V | None]]:
    """Yield each item and the result of storing it, None for no room; raise the first TooLargeError at the end."""
    too_large: TooLargeError | None = None
    for item in items:
        try:
            yield item, store(item)
        except TooLargeError as error:
            too_large = too_large or error
        except NoRoomError:
            yield item, None
    if too_large is not None:
        raise too_large


def batches(keys: Sequence[bytes]) -> Sequence[Sequence[bytes]]:
    """Return the keys in groups that may be sent together."""
    return [keys[start : start + BATCH] for start in range(0, len(keys), BATCH)]


def batches_of_values(values: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Yield the values in groups that may be sent together."""
    batch: dict[bytes, bytes] = {}
    size = 0
    for key, data in values.items():
        if batch and (len(batch) == BATCH or size + len(data) > _BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[key] = data
        size += len(data)
    if batch:
        yield batch
