"""memo(): entries that a unit of work has read or written once, it reads again without asking the storage.

A memo lasts as long as a block, in practice a request. An entry stays as it was read, a miss
too; the block's own writes go through to the storage, and are seen at once. Values are kept as
copies, so that changing one changes no other. Nothing outlives the block.

A computation of get_or_set() asks the storage again: there may be a value by now.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import replace
from importlib import import_module
from typing import Any, Final, NamedTuple, Self

from storeroom import timeouts
from storeroom.exceptions import SerializationError
from storeroom.locks import reentrant
from storeroom.storage import overlay
from storeroom.storage.envelope import Envelope, is_unread
from storeroom.storage.hooks import LOOK, MISSING, StorageHooks
from storeroom.storage.interruptions import value_or
from storeroom.storage.overlay import Overlay, Slot, every, first, first_two
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = ["memo"]

MAX_ENTRIES: Final = 1000
"""Entries that a memo keeps at most, where it is not told: more than a page reads."""

_UNKNOWN: Final = object()
"""Nothing in the memo, as opposed to MISSING, "there is no entry"."""


class _Kept(NamedTuple):
    """An entry as it was read or written.

    Attributes:
        frozen: a copy of its value, or MISSING.
        thaw: returns the value of the copy; None for MISSING.
        expires_at: epoch seconds, as far as is known.
    """

    frozen: Any = MISSING
    thaw: Callable[[str, Any], Any] | None = None
    expires_at: float = NEVER


class Memo:
    """The entries that a block knows, of all caches that it uses. The oldest goes when it is full."""

    def __init__(self, max_entries: int) -> None:
        self.is_open = True
        self.changes = 0
        self._entries: OrderedDict[Slot, _Kept] = OrderedDict()
        self._max_entries = max_entries
        self._lock = reentrant()  # tasks and threads of the block share it

    def look(self, slot: Slot) -> _Kept | None:
        """Return the entry, if it is known and has not expired."""
        kept = self._entries.get(slot)
        return None if kept is None or kept.expires_at <= timeouts.now() else kept

    def keep(self, ticket: int, slot: Slot, kept: _Kept) -> None:
        """Remember an entry, unless `changes` is the ticket no more: a late reader has seen old data."""
        gone: list[Any] = []  # freed without the lock, as a value's own code may use the memo
        with self._lock:
            if ticket != self.changes or not self.is_open:
                return
            gone.append(self._entries.get(slot))
            self._entries[slot] = kept
            if len(self._entries) > self._max_entries:
                gone.append(self._entries.popitem(last=False))

    def forget(self, slots: Iterable[Slot]) -> int:
        """Forget these. Return the ticket of this change."""
        with self._lock:
            self.changes += 1
            gone = [self._entries.pop(slot, None) for slot in slots]
            ticket = self.changes
        del gone  # without the lock, as in keep()
        return ticket

    def forget_all(self, storage: object) -> None:
        """Forget everything in this storage."""
        self.forget([slot for slot in list(self._entries) if slot[0] is storage])

    def close(self) -> None:
        """End: overlays that still hold the memo go to the storage from now on."""
        with self._lock:
            self.is_open = False
            gone, self._entries = self._entries, OrderedDict()
        del gone


_GONE: Final = (MISSING, NEVER)


def _written(done: Any, storage_key: str, *args: Any) -> dict[str, tuple[Any, float]]:
    """Return the last two arguments of a hook, a value and its expiry, if it was stored."""
    return {storage_key: (args[-2], args[-1])} if done and done is not LOOK else {}


def _writing(
    name: str,
    keys_of: Callable[..., Iterable[str]],
    known: Callable[..., Mapping[str, tuple[Any, float]]] = lambda *_: {},
) -> Callable[..., Steps[Any]]:
    """Return a hook that goes through to the storage.

    Args:
        name: of the hook, without underscore.
        keys_of: returns the storage keys that it may change, of its arguments.
        known: returns the values and expiries that are known afterwards, of its answer and its arguments.
    """

    def steps(self: "MemoOverlay", *args: Any) -> Steps[Any]:
        result, ticket = yield from self._through(keys_of(*args), name, args)
        for storage_key, (value, expires_at) in known(result, *args).items():
            self._keep(ticket, storage_key, value, expires_at)
        return result

    return steps


class MemoOverlay(Overlay):
    """A memo before the hooks of a handle.

    For a computation it serves no misses: that has to see values that others store meanwhile.
    """

    def __init__(self, handle: Any, below: StorageHooks, memo: Memo, *, serves_misses: bool = True) -> None:
        super().__init__(handle, below)
        self._memo = memo
        self._serves_misses = serves_misses

    @property
    def is_open(self) -> bool:
        """Whether the block has not ended."""
        return self._memo.is_open

    def _computing(self) -> StorageHooks:
        if not self._serves_misses:
            return self
        return MemoOverlay(self._handle, self._below._computing(), self._memo, serves_misses=False)

    def forget(self) -> None:
        """Forget the storage's entries."""
        self._memo.forget_all(self.engine)
        super().forget()

    def _known(self, storage_key: str) -> Any:
        """Return the value, MISSING, or _UNKNOWN."""
        kept = self._memo.look(self._slot(storage_key))
        if kept is None:
            return _UNKNOWN
        if kept.thaw is None:
            return MISSING if self._serves_misses else _UNKNOWN
        value = value_or(_UNKNOWN, kept.thaw, storage_key, kept.frozen)
        return value if _is_lasting(value) else _UNKNOWN

    def _keep(self, ticket: int, storage_key: str, value: Any, expires_at: float = NEVER) -> None:
        if not _is_lasting(value):
            return
        kept = _Kept()
        if value is not MISSING:
            try:
                kept = _Kept(self._freeze(storage_key, value), self._thaw, expires_at)
            except SerializationError:
                return  # it can be read, and not written: it is read again
        self._memo.keep(ticket, self._slot(storage_key), kept)

    def get(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._get()."""
        value = self._known(storage_key)
        if value is _UNKNOWN:
            ticket = self._memo.changes
            value = yield self._below, "_get", (storage_key,)
            self._keep(ticket, storage_key, value)
        return value

    def sight(self, storage_key: str) -> Steps[list[Any]]:
        """See StorageHooks._sight()."""
        sightings, kept = import_module("storeroom.storage.sightings"), self._memo.look(self._slot(storage_key))
        own, value = sightings.Sighting("memo"), self._known(storage_key)
        if kept is not None and value is MISSING:
            own = replace(own, note="this memo() has found no entry before, and asks no more", is_final=True)
        elif kept is not None and value is not _UNKNOWN:
            own = replace(own, is_there=True, value=value, expires_at=kept.expires_at)
        return [own, *(yield from sightings.sighted(self._below, storage_key))]

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """See StorageHooks._get_many()."""
        known = {storage_key: self._known(storage_key) for storage_key in storage_keys}
        unknown = [storage_key for storage_key, value in known.items() if value is _UNKNOWN]
        if unknown:
            ticket = self._memo.changes
            found = yield self._below, "_get_many", (unknown,)
            for storage_key in unknown:
                known[storage_key] = found.get(storage_key, MISSING)
                self._keep(ticket, storage_key, known[storage_key])
        return {storage_key: value for storage_key, value in known.items() if value is not MISSING}

    def has(self, storage_key: str) -> Steps[Any]:
        """See StorageHooks._has()."""
        value = self._known(storage_key)
        if value is _UNKNOWN:
            return (yield self._below, "_has", (storage_key,))
        return LOOK if type(value) is Envelope else value is not MISSING

    def _through(self, storage_keys: Iterable[str], name: str, args: tuple[Any, ...]) -> Steps[tuple[Any, int]]:
        """Let the storage do it; return its answer, and the ticket to remember the result by."""
        slots = [self._slot(storage_key) for storage_key in storage_keys]
        self._memo.forget(slots)
        ticket = -1
        try:
            result = yield self._below, f"_{name}", args
        finally:
            ticket = self._memo.forget(slots)  # a reader may have come in between
        return result, ticket

    set = _writing("set", first, _written)
    set_many = _writing(
        "set_many",
        every,
        lambda failed, values, until: {key: (values[key], until) for key in {*values}.difference(failed)},
    )
    add = _writing("add", first, _written)
    delete = _writing("delete", first, lambda _, key: {key: _GONE})
    delete_many = _writing("delete_many", every, lambda _, keys: dict.fromkeys(keys, _GONE))
    incr = _writing("incr", first, lambda total, key, _: {key: (total, NEVER)})
    count = _writing("count", first, lambda total, key, *_: {} if total is None else {key: (total, NEVER)})
    rename = _writing("rename", first_two, lambda moved, key, _: {key: _GONE} if moved is True else {})
    lease = _writing("lease", first)
    lease_many = _writing("lease_many", every)
    swap_many = _writing("swap_many", every, lambda done, swaps: {key: swaps[key][1:] for key in swaps if done[key]})
    compare_set = _writing("compare_set", first, _written)
    compare_delete = _writing("compare_delete", first, lambda done, key, _: {key: _GONE} if done else {})
    invalidate = _writing("invalidate", every)

    def touch(self, storage_key: str, expires_at: float) -> Steps[Any]:
        """See StorageHooks._touch()."""
        kept = self._memo.look(self._slot(storage_key))
        touched, ticket = yield from self._through((storage_key,), "touch", (storage_key, expires_at))
        if touched is True and kept is not None and kept.thaw is not None:
            self._memo.keep(ticket, self._slot(storage_key), kept._replace(expires_at=expires_at))
        return touched

    def clear(self) -> Steps[None]:
        """See StorageHooks._clear()."""
        self._memo.forget_all(self.engine)
        try:
            yield self._below, "_clear", ()
        finally:
            self._memo.forget_all(self.engine)


def _is_lasting(value: Any) -> bool:
    """Tell whether a value may be read again later: not one that was not read, or is just being computed."""
    if type(value) is not Envelope or is_unread(value):
        return type(value) is not Envelope
    return value.has_value and value.is_fresh and value.leased_until == 0


_current: ContextVar[Memo | None] = ContextVar("storeroom_memo", default=None)


class memo:  # noqa: N801 -- called like a function, as contextlib's are
    """A block in which an entry that was read or written once is read again without asking the storage.

    For ``with`` and ``async with``; tasks and ``asyncio.to_thread()`` within share it. A block within a block
    is part of the outer one. A cache with ``OPTIONS["memo"]`` False stays out of it.

    Args:
        max_entries: entries remembered at most.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._begun: tuple[Memo, Token[Memo | None]] | None = None

    def __enter__(self) -> Self:
        overlay.install(overlay.MEMO, _find)
        outer = _current.get()
        if outer is None or not outer.is_open:
            memo = Memo(self._max_entries)
            self._begun = memo, _current.set(memo)
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun is not None:
            memo, token = self._begun
            self._begun = None
            memo.close()
            _current.reset(token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _find(handle: Any, below: StorageHooks) -> StorageHooks:
    memo = _current.get()
    if memo is None or not memo.is_open or handle.settings.options.get("memo") is False:
        return below
    return MemoOverlay(handle, below, memo)
