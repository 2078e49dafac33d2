"""A storage's work for the framework: the hooks that a backend fills in.

A hook sees storage keys, Python values and absolute expiry times, never prefixes, versions, timeouts and defaults.
Eight hooks make a whole cache; the others have a default built from them, which a backend replaces where its engine
does better. Each has an asynchronous twin with an "a" in its name, which by default runs the synchronous one: inline
where `async_inline` says that it never waits, else in a worker thread.

Every hook may rely on this: `expires_at` lies in the future or is NEVER, lists hold no key twice, and a value is the
caller's, or an Envelope of it, which is stored as one value. Every hook owes this: expired entries are absent, and add,
incr, touch, rename, compare-delete and compare-set are atomic among all that share the storage.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from importlib import import_module
from operator import is_
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, NamedTuple, ParamSpec, TypeVar, final

from storeroom.exceptions import NotSupportedError
from storeroom.storage.envelope import Envelope
from storeroom.storage.steps import Steps, run

if TYPE_CHECKING:
    from storeroom.storage.channel import Channel
    from storeroom.storage.clocks import Clock
    from storeroom.storage.sightings import Sighting

__all__ = [
    "ABSENT", "LOOK", "MISSING", "OVERLAID", "OVERLAY_ATTRIBUTE", "REQUIRED", "Conditional", "StorageHooks", "Swap",
    "overlaid", "swapped", "twin_of",
]  # fmt: skip

P = ParamSpec("P")
T = TypeVar("T")


@final
class _Sentinel:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


MISSING: Final = _Sentinel("MISSING")
"""No entry, as opposed to a stored None."""

LOOK: Final = _Sentinel("LOOK")
"""The answer of a hook that has found an Envelope: its conditions decide."""

ABSENT: Final = _Sentinel("ABSENT")
"""The expectation of a swap where there is to be no entry."""


class Swap(NamedTuple):
    """A change of an entry that is made if the entry is as expected, and not at all if it is not.

    Attributes:
        expected: the value that has to be there; ABSENT for no entry, MISSING for bytes that cannot be read.
        value: the new one; MISSING to remove the entry.
    """

    expected: Any
    value: Any
    expires_at: float


def swapped(hooks: "StorageHooks", storage_key: str, swap: Swap) -> Steps[bool]:
    """Make one swap; return whether it was made."""
    expected, value, expires_at = swap
    if expected is ABSENT:
        return (yield hooks, "_add", (storage_key, value, expires_at)) is True
    if value is MISSING:
        return bool((yield hooks, "_compare_delete", (storage_key, expected)))
    return bool((yield hooks, "_compare_set", (storage_key, expected, value, expires_at)))


class Conditional(str):
    """A storage key that `_scan` found, and whose entry is an Envelope: its conditions decide."""

    __slots__ = ()


REQUIRED: Final[Mapping[str, str]] = {
    "_get_many": "storage_keys",
    "_set_many": "values, expires_at",
    "_add": "storage_key, value, expires_at",
    "_delete_many": "storage_keys",
    "_touch": "storage_key, expires_at",
    "_incr": "storage_key, delta",
    "_expiry": "storage_key",
    "_clear": "",
}
"""The hooks that every backend defines, and their parameters."""

OVERLAID: Final[list[Any]] = []
"""Classes before whose hooks overlays may stand."""

OVERLAY_ATTRIBUTE: Final[list[Any]] = []
"""The descriptor of their attribute `_overlay`, once there may be overlays: see ``storage.overlay``."""


def overlaid(kind: type[T]) -> type[T]:
    """Let overlays stand before the hooks of a class. It says so itself, as it lies above."""
    handles: Any = kind
    OVERLAID.append(handles)
    for descriptor in OVERLAY_ATTRIBUTE:
        handles._overlay = descriptor
    return kind


def twin_of(hook: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Return the asynchronous twin of a hook, which runs the synchronous one of its class."""
    name = hook.__name__

    async def twin(self: "StorageHooks", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(getattr(self, name), *args, **kwargs)

    return twin


def _copies() -> Any:
    from storeroom.storage import copies  # noqa: PLC0415 -- few programs keep values aside, or compare them so

    return copies


class StorageHooks:
    """The hooks, with the defaults of those that can be derived from others."""

    async_inline: bool = False
    """True where no hook waits for longer than a thread switch would take."""

    is_shared: bool = True
    """Whether other processes see the entries: computations are then coordinated with them."""

    keeps_entries: ClassVar[bool] = True
    """False where nothing is stored, so that no two aliases can get into each other's way."""

    clears_by_prefix: ClassVar[bool] = False
    """Whether `_clear` removes the entries of a KEY_PREFIX without asking for their storage keys."""

    sees_envelopes: bool = False
    """Whether `_add`, `_touch`, `_rename`, `_has` and `_expiry` answer LOOK, and do nothing, where they find an
    Envelope whose conditions they cannot judge, and `_scan` tells Conditional keys. Otherwise the framework reads
    each entry to find out."""

    engine: Any
    """The storage's identity in this process, an ``engines.Engine``. An overlay has that of its handle."""

    _codec: Any = None
    """Turns values into bytes and back, where a storage has one: a ``serializers.Codec``."""

    @property
    def flights(self) -> Any:
        """The computations under way among all that see the same entries: an ``engines.Flights``."""
        return self.engine.flights

    # The eight that a backend must provide ------------------------------------------------

    def _get_many(self, storage_keys: Sequence[str]) -> dict[str, Any]:
        """Return storage key to value; absent entries are absent."""
        raise NotImplementedError

    def _set_many(self, values: Mapping[str, Any], expires_at: float) -> Sequence[str]:
        """Store all values; return the storage keys that could not be stored.

        Raises:
            ValueTooLargeError: one is larger than the storage can hold; the framework finds out which, by asking again.
        """
        raise NotImplementedError

    def _add(self, storage_key: str, value: Any, expires_at: float) -> Any:
        """Store the value if the key is absent. Atomic. Return whether it was stored, or LOOK."""
        raise NotImplementedError

    def _delete_many(self, storage_keys: Sequence[str]) -> int:
        """Remove the entries; return how many of them were live.

        Where it `sees_envelopes`, a stale one is not, nor a lease without a value.
        """
        raise NotImplementedError

    def _touch(self, storage_key: str, expires_at: float) -> Any:
        """Give a live entry a new expiry. Atomic. Return False, and do nothing, if it is absent, or LOOK.

        In place of LOOK it may return the entry's envelope without its value (``envelope.UNREAD``), if `_compare_set`
        takes that as expected and, with another time, as the new value, and then leaves the value that is stored.
        """
        raise NotImplementedError

    def _incr(self, storage_key: str, delta: float) -> float:
        """Add delta to a live number, keeping its expiry. Atomic.

        Raises:
            KeyError: the entry is absent.
            ValueTypeError: the entry is not a number.
        """
        raise NotImplementedError

    def _expiry(self, storage_key: str) -> Any:
        """Return the entry's expires_at (NEVER if it has none), None if it is absent, or LOOK.

        In place of LOOK it may return the entry's envelope without its value, if that is to be had for less.
        """
        raise NotImplementedError

    def _clear(self) -> None:
        """Remove all entries of this cache, in every version, and nobody else's."""
        raise NotImplementedError

    # Those with a default -----------------------------------------------------------------

    def _get(self, storage_key: str) -> Any:
        """Return the value, or MISSING."""
        return self._get_many([storage_key]).get(storage_key, MISSING)

    def _get_together(self, storage_keys: tuple[str, ...], before: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """Return the values of keys, each as _get() does; perhaps `before` itself, if they are its very objects."""
        found = tuple(map(self._get, storage_keys))
        return before if len(found) == len(before) and all(map(is_, found, before)) else found

    def _set(self, storage_key: str, value: Any, expires_at: float) -> bool:
        """Store one value; return whether it was stored."""
        return not self._set_many({storage_key: value}, expires_at)

    def _delete(self, storage_key: str) -> bool:
        """Remove one entry; return whether it was live. A lease is not, nor is a stale value."""
        found = MISSING if self.sees_envelopes else self._get(storage_key)
        is_over = type(found) is Envelope and not found.is_fresh
        return self._delete_many([storage_key]) > 0 and not is_over

    def _has(self, storage_key: str) -> Any:
        """Tell whether the entry is live: True, False, or like _expiry()."""
        expires_at = self._expiry(storage_key)
        return expires_at if expires_at is LOOK or type(expires_at) is Envelope else expires_at is not None

    def _rename(self, storage_key: str, new_storage_key: str) -> Any:
        """Move a live entry, expiry and all, over any entry that is there. Return False if it is absent, or LOOK.

        This default is not atomic: between its steps another client may write either key.
        """
        expires_at = self._expiry(storage_key)
        value = self._get(storage_key)
        if expires_at is None or value is MISSING:
            return False
        if Envelope in {type(value), type(expires_at)} or expires_at is LOOK:
            return LOOK
        self._set(new_storage_key, value, expires_at)
        self._delete(storage_key)
        return True

    def _count(self, storage_key: str, delta: float, start: float, expires_at: float) -> float | None:
        """Add delta to a live number, keeping its expiry, or store start + delta. Return the new number.

        None if another client came in between, or an Envelope is in the way. No count is lost.

        Raises:
            ValueTypeError: the entry is not a number.
        """
        try:
            return self._incr(storage_key, delta)
        except KeyError:
            return start + delta if self._add(storage_key, start + delta, expires_at) is True else None

    def _lease(self, storage_key: str, seen: Any, lease: Any, expires_at: float) -> bool | None:
        """Take the right to compute, for get_or_set(): put the lease over the value that was seen. Atomic.

        Return whether nobody came first; None if that cannot be known now, so that each computes for itself.
        """
        if seen is MISSING:
            return self._add(storage_key, lease, expires_at) is True
        return self._compare_set(storage_key, seen, lease, expires_at)

    def _compare_delete(self, storage_key: str, expected: Any) -> bool:
        """Remove the entry if it is the writing `expected`. Return whether it was. Not atomic by default, either."""
        return self._holds(storage_key, expected) and self._delete_many([storage_key]) > 0

    def _compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> bool:
        """Replace the entry if it is the writing `expected`: see copies.alike(). Return whether it was replaced.

        MISSING stands for bytes that cannot be read, which are in the way of `_add`. Not atomic by default, either.
        """
        return self._holds(storage_key, expected) and self._set(storage_key, value, expires_at)

    def _holds(self, storage_key: str, expected: Any) -> bool:
        """Tell whether the entry, read anew, is the writing `expected`; the values' own ``==`` is not asked."""
        return bool(_copies().alike(self._get(storage_key), expected))

    def _lease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        """Do as `_lease` for several keys: each swap puts a lease over the value that was seen."""
        return dict(self._swap_many(swaps))

    def _swap_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool]:
        """Make several swaps, each by itself. Return of each storage key whether it was made.

        This default is as atomic as `_add`, `_compare_set` and `_compare_delete`, and takes as many round trips.
        """
        return {storage_key: self._swap(storage_key, swap) for storage_key, swap in swaps.items()}

    def _swap(self, storage_key: str, swap: Swap) -> bool:
        return run(swapped(self, storage_key, swap))

    def _invalidate(self, storage_keys: Sequence[str]) -> int:
        """Remove the versions of tags; return how many there were.

        Raises:
            StorageError: they cannot be removed now.
        """
        return self._delete_many(storage_keys)

    def _scan(self, start: str) -> Iterator[str]:
        """Yield the storage keys of all live entries whose storage key begins with `start`.

        Those of envelopes are Conditional, if `sees_envelopes`.

        Raises:
            NotSupportedError: the storage cannot list its entries.
        """
        raise NotSupportedError(
            f"{type(self).__name__} cannot list its keys: its storage has no such operation. "
            "Keep the keys you need to find again in an entry of their own."
        )

    def _tally(self, start: str) -> tuple[int, list[str]] | None:
        """Return how many entries `_scan` would find that are no envelopes, and the storage keys of those that are.

        None if only a scan can tell.
        """

    def _usage(self) -> tuple[int | None, int | None]:
        """Return the numbers of entries and bytes stored now; None for one that the storage cannot tell."""
        return None, None

    def _sight(self, storage_key: str) -> "Sequence[Sighting]":
        """Return the entry as each tier holds it, nearest first, for explain(). A storage that can leaves no trace."""
        value, expires_at = self._get(storage_key), self._expiry(storage_key)
        of_value = import_module("storeroom.storage.sightings").of_value
        return list(of_value(type(self).__name__, value, expires_at, is_readable=value is not MISSING))

    def _prune(self) -> int:
        """Remove all expired entries now; return how many (0 where the storage does so by itself)."""
        return 0

    def _clock(self, storage_key: str) -> "Clock | None":
        """Return a clock that all who share the key's storage go by, for locks; None if its expiry does so itself.

        This default is right on one machine. On another, a lock ends by that one's clock.

        Raises:
            StorageError: the server is out of reach.
        """
        clock: Clock | None = import_module("storeroom.storage.clocks").machine_clock()
        return clock

    # For near tiers, see near.hooks ---------------------------------------------------------

    def _get_dated(self, storage_keys: Sequence[str]) -> dict[str, tuple[Any, float | None]]:
        """Return storage key to value and expires_at; None for an expiry that it would cost more to know."""
        return {storage_key: (value, None) for storage_key, value in self._get_many(storage_keys).items()}

    def _channel(self) -> "Channel | None":
        """Return the channel that tells of others' changes, or None: a near tier is then bounded by time alone."""
        return None

    # For overlays ---------------------------------------------------------------------------

    def _computing(self) -> "StorageHooks":
        """Return the hooks that a computation goes through: they show values that others store meanwhile."""
        return self

    def _freeze(self, storage_key: str, value: Any) -> Any:
        """Return a copy of the value for as long as it is not in the storage: nobody can change it.

        Raises:
            SerializationError: the storage could not keep it.
        """
        if self._codec is not None:
            return self._codec.dumps(value, storage_key)
        return _copies().freeze(value)

    def _thaw(self, storage_key: str, kept: Any) -> Any:
        """Return the value of a copy made by _freeze(), as a read of the storage would."""
        if self._codec is not None:
            return self._codec.loads(kept, storage_key)
        return _copies().thaw(kept)

    # The asynchronous twins ---------------------------------------------------------------

    async def _run(self, hook: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a synchronous hook for an asynchronous caller."""
        if self.async_inline:
            return hook(*args, **kwargs)
        return await self._in_thread(hook, *args, **kwargs)

    async def _in_thread(self, hook: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        import asyncio  # noqa: PLC0415 -- 15 ms that a synchronous program need not spend

        return await asyncio.to_thread(hook, *args, **kwargs)

    _aget_many = twin_of(_get_many)
    _aset_many = twin_of(_set_many)
    _aadd = twin_of(_add)
    _adelete_many = twin_of(_delete_many)
    _atouch = twin_of(_touch)
    _aincr = twin_of(_incr)
    _aexpiry = twin_of(_expiry)
    _aclear = twin_of(_clear)
    _aget = twin_of(_get)
    _aset = twin_of(_set)
    _adelete = twin_of(_delete)
    _ahas = twin_of(_has)
    _arename = twin_of(_rename)
    _aget_dated = twin_of(_get_dated)
    _acompare_delete = twin_of(_compare_delete)
    _acompare_set = twin_of(_compare_set)
    _aswap_many = twin_of(_swap_many)
    _atally = twin_of(_tally)
    _ausage = twin_of(_usage)
    _aprune = twin_of(_prune)
    _asight = twin_of(_sight)

    async def _aclock(self, storage_key: str) -> "Clock | None":
        return self._clock(storage_key)

    async def _acount(self, storage_key: str, delta: float, start: float, expires_at: float) -> float | None:
        try:
            return await self._aincr(storage_key, delta)
        except KeyError:
            return start + delta if await self._aadd(storage_key, start + delta, expires_at) is True else None

    async def _alease(self, storage_key: str, seen: Any, lease: Any, expires_at: float) -> bool | None:
        if seen is MISSING:
            return await self._aadd(storage_key, lease, expires_at) is True
        return await self._acompare_set(storage_key, seen, lease, expires_at)

    async def _alease_many(self, swaps: Mapping[str, Swap]) -> dict[str, bool | None]:
        return dict(await self._aswap_many(swaps))

    async def _ainvalidate(self, storage_keys: Sequence[str]) -> int:
        return await self._adelete_many(storage_keys)

    async def _ascan(self, start: str) -> list[str]:
        return await self._run(self._scanned, start)

    def _scanned(self, start: str) -> list[str]:
        return list(self._scan(start))
