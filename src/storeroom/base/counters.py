"""The operations by which callers agree with one another: counters and locks."""

import operator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, overload

from storeroom import storage
from storeroom.base.computing import ComputedCache
from storeroom.exceptions import KeyNotFoundError, StorageError, ValueTypeError
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import arun, run
from storeroom.timeouts import DEFAULT_TIMEOUT, Timeout

if TYPE_CHECKING:
    from storeroom.base.locks import Lock

__all__ = ["CountingCache", "ignored", "key_not_found"]


class CountingCache(ComputedCache):
    """The operations on counters and locks."""

    @overload
    def incr(
        self, key: object, delta: int = ..., version: int | None = ..., *, default: int | None = ...,
        timeout: Timeout = ...,
    ) -> int: ...  # fmt: skip
    @overload
    def incr(
        self, key: object, delta: float = ..., version: int | None = ..., *, default: float | None = ...,
        timeout: Timeout = ...,
    ) -> float: ...  # fmt: skip
    def incr(
        self, key: object, delta: float = 1, version: int | None = None, *, default: float | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Any:  # fmt: skip
        """Add delta to the number stored; its timeout stays. Atomic. Return the new number.

        It is whole if delta and the number before are. In an outage it is None, if ``on_error`` says "none" for
        counters, which type checkers are not told.

        Args:
            key: the key.
            delta: the number to add.
            version: of the key.
            default: the number that an absent one counts as: default + delta is then stored. None for an error.
            timeout: of a number that is created; one that exists keeps its own.

        Raises:
            KeyNotFoundError: there is no entry, and no `default` (a ValueError, as in Django).
            ValueTypeError: the value is not a number, or has tags or may become stale.
        """
        hooks, storage_key = self._overlay or self, self._storage_key(key, version)
        if type(delta) is not int:
            delta = _plain("delta", delta)
        try:
            if default is not None:
                start = _plain("default", default)
                return run(storage.counters.count(hooks, storage_key, delta, start, self._expires_at(timeout)))
            try:
                return hooks._incr(storage_key, delta)
            except ValueTypeError:
                return run(storage.counters.recount(hooks, storage_key, delta))
        except KeyError:
            raise key_not_found(key) from None
        except StorageError as error:
            return ignored(error)

    @overload
    async def aincr(
        self, key: object, delta: int = ..., version: int | None = ..., *, default: int | None = ...,
        timeout: Timeout = ...,
    ) -> int: ...  # fmt: skip
    @overload
    async def aincr(
        self, key: object, delta: float = ..., version: int | None = ..., *, default: float | None = ...,
        timeout: Timeout = ...,
    ) -> float: ...  # fmt: skip
    async def aincr(
        self, key: object, delta: float = 1, version: int | None = None, *, default: float | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Any:  # fmt: skip
        """Add delta to the number stored; its timeout stays. Atomic. Return the new number. See incr()."""
        hooks, storage_key = self._overlay or self, self._storage_key(key, version)
        if type(delta) is not int:
            delta = _plain("delta", delta)
        try:
            if default is not None:
                start, expires_at = _plain("default", default), self._expires_at(timeout)
                return await arun(storage.counters.count(hooks, storage_key, delta, start, expires_at))
            try:
                return await hooks._aincr(storage_key, delta)
            except ValueTypeError:
                return await arun(storage.counters.recount(hooks, storage_key, delta))
        except KeyError:
            raise key_not_found(key) from None
        except StorageError as error:
            return ignored(error)

    @overload
    def decr(
        self, key: object, delta: int = ..., version: int | None = ..., *, default: int | None = ...,
        timeout: Timeout = ...,
    ) -> int: ...  # fmt: skip
    @overload
    def decr(
        self, key: object, delta: float = ..., version: int | None = ..., *, default: float | None = ...,
        timeout: Timeout = ...,
    ) -> float: ...  # fmt: skip
    def decr(
        self, key: object, delta: float = 1, version: int | None = None, *, default: float | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Any:  # fmt: skip
        """Subtract delta from the number stored. Atomic. Return the new number. See incr()."""
        return self.incr(key, -_plain("delta", delta), version=version, default=default, timeout=timeout)

    @overload
    async def adecr(
        self, key: object, delta: int = ..., version: int | None = ..., *, default: int | None = ...,
        timeout: Timeout = ...,
    ) -> int: ...  # fmt: skip
    @overload
    async def adecr(
        self, key: object, delta: float = ..., version: int | None = ..., *, default: float | None = ...,
        timeout: Timeout = ...,
    ) -> float: ...  # fmt: skip
    async def adecr(
        self, key: object, delta: float = 1, version: int | None = None, *, default: float | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT,
    ) -> Any:  # fmt: skip
        """Subtract delta from the number stored. Atomic. Return the new number. See incr()."""
        return await self.aincr(key, -_plain("delta", delta), version=version, default=default, timeout=timeout)

    def lock(
        self, key: object, version: int | None = None, timeout: Timeout = None, sleep: float = 0.1,
        blocking_timeout: Timeout = None,
    ) -> "Lock":  # fmt: skip
        """Return a lock among all that share the storage, for ``with`` and ``async with``: see Lock.

        Neither keys() nor clear() see it, it takes no room from entries, and transaction() does not hold it back.

        Args:
            key: its name.
            version: of the key.
            timeout: after which it is free again, whatever its owner does; None for never.
            sleep: seconds between attempts, at most.
            blocking_timeout: for how long to wait for it; None for ever.
        """
        kind: type[Lock] = import_module("storeroom.base.locks").Lock
        return kind(self._locking(), key, self._storage_key(key, version), timeout, sleep, blocking_timeout)

    def _locking(self) -> StorageHooks:
        """Return the hooks that keep locks: those of the storage, without anything before it."""
        return self


_EXPECTED: Final = {"delta": "int or float to add", "default": "number that an absent counter counts as"}


def _plain(name: str, number: Any) -> float:
    """Return an argument as a plain number, which every storage can add; NumPy's whole numbers count, too.

    These may not be negated as they are: they have bounds, and some have no sign.
    """
    if type(number) is int:
        return number
    if isinstance(number, float):
        return float(number)
    if name == "delta" or not isinstance(number, bool):
        with suppress(TypeError):
            return operator.index(number)
    raise TypeError(f"{name} is {number!r}; expected the {_EXPECTED[name]}.")


def ignored(error: StorageError) -> Any:
    """Return None for a count that an outage has kept from being made, if that is the policy; raise `error` if not."""
    if error.is_ignored:
        return None
    raise error


def key_not_found(key: object) -> KeyNotFoundError:
    """Return the error of an operation that needs an entry."""
    return KeyNotFoundError(f"Key {key!r} not found: it was never set, has expired or was evicted.")
