"""After the commit: changes that were held back are made, in order, and to their end.

The database has committed, so none may be left out because the caller is cancelled meanwhile, or a signal's handler
raises: others would be served the old values. The change that this cuts short may have been made or not. Its entries
are removed, which is right in either case. The others are made, and then the caller is cancelled.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeAlias

from storeroom import timeouts
from storeroom.exceptions import StoreroomError
from storeroom.keys import CLEARED
from storeroom.storage import counters, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, Swap
from storeroom.storage.overlay import Slot
from storeroom.storage.steps import Steps, arun, run
from storeroom.storage.tags import TAG_PREFIX
from storeroom.transactions.changes import Change, Kind, Segment

__all__ = ["Application"]

_ATTEMPTS: Final = 3
"""Times that a change may be cut short, before it is left out: so all comes to an end where it is cut short at once."""

_Work: TypeAlias = tuple[Callable[[], Steps[Any]], Callable[[], Steps[Any]]]
"""A change, and another one to make in its place if it was cut short."""


class Application:
    """Changes that are made one after the other, each as far as it can be made.

    One that the cache misses leaves an old value in it.

    Args:
        segments: the changes.
        is_unsure: whether their entries are removed instead, as nobody knows whether the database has committed.
    """

    def __init__(self, segments: Sequence[Segment], *, is_unsure: bool = False) -> None:
        touched = {slot for segment in segments for slot in segment.changes}
        self._left = deque(_works(segments, touched))  # the first may be under way
        self._interruption: BaseException | None = None
        self._attempts, self._is_unsure = 0, is_unsure
        self._errors: list[Exception] = []

    def carry_out(self) -> None:
        """Make the changes.

        Raises:
            BaseException: the first that has cut them short, or that one of them has raised, when all others are made.
        """
        self.finish()
        self._tell()

    async def acarry_out(self) -> None:
        """Do as carry_out(): in a task of its own, which is not cancelled with the caller, or by its scope."""
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        if not self._left:
            return
        task, cancelled = asyncio.ensure_future(self._afinish()), None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        self._interruption = cancelled or self._interruption
        self._tell()

    def finish(self) -> None:
        """Make those that are left; nothing is raised."""
        while self._left:
            try:
                run(self._steps())
            except BaseException as error:  # noqa: BLE001 -- raised in the end
                self._cut_short(error)

    async def _afinish(self) -> None:
        while self._left:
            try:
                await arun(self._steps())
            except BaseException as error:  # noqa: BLE001 -- as above
                self._cut_short(error)

    def _steps(self) -> Steps[None]:
        """Make those that are left. Where it was cut short, it goes on."""
        while self._left:
            make, make_sure = self._left[0]
            attempt, self._attempts = self._attempts, self._attempts + 1
            with unstored.Caught() as caught:  # it is raised when the others are done
                yield from make_sure() if attempt or self._is_unsure else make()
            if caught.error is not None and not getattr(caught.error, "is_ignored", False):
                self._errors.append(caught.error)
                if not (attempt or isinstance(caught.error, StoreroomError)):
                    continue  # nobody knows how far it came
            self._left.popleft()
            self._attempts = 0

    def _cut_short(self, error: BaseException) -> None:
        """Note the exception; give up a change that was cut short too often."""
        self._interruption = self._interruption or error
        self._attempts += 1
        if self._attempts > 2 * _ATTEMPTS and self._left:
            self._left.popleft()
            self._attempts = 1

    def _tell(self) -> None:
        """Raise what is to be told."""
        errors, interruption = self._errors, self._interruption
        self._errors, self._interruption = [], None
        if errors:
            errors[0].add_note(
                f"The database has committed; {len(errors)} of the cache's changes that were held back could not "
                "be made."
            )
        try:
            if interruption is not None:
                raise interruption from next(iter(errors), None)
            if errors:
                raise errors[0]
        finally:
            del errors, interruption  # which hold on to their frames, and these to connections, until collected


def _works(segments: Sequence[Segment], touched: set[Slot]) -> Iterator[_Work]:
    together: list[tuple[Slot, Change, Segment]] = []
    for segment in segments:
        if segment.clears is not None:
            yield from _grouped(together, touched)
            together = []
            clear = partial(_clear, segment.clears)
            yield clear, clear
        together += [(slot, change, segment) for slot, change in segment.changes.items()]
    yield from _grouped(together, touched)


def _grouped(items: Sequence[tuple[Slot, Change, Segment]], touched: set[Slot]) -> Iterator[_Work]:
    for (kind, *_), together in groupby(items, key=_group):
        changes = [(storage_key, change) for (_, storage_key), change, _ in together]
        make = partial(_apply_one, *changes[0])
        if kind in _TOGETHER:
            make = partial(_TOGETHER[kind], changes)
        elif kind is Kind.COMPUTED:
            make = partial(_store_computed, changes, touched)
        is_tag = changes[0][0].startswith(TAG_PREFIX)
        yield make, (make if is_tag else partial(_delete, changes))


def _group(item: tuple[Slot, Change, Segment]) -> tuple[Any, ...]:
    (_, storage_key), change, segment = item
    is_fenced = change.kind is Kind.COMPUTED and change.expected is not None
    if not (change.kind in _TOGETHER or is_fenced) or storage_key.startswith(TAG_PREFIX):
        return None, storage_key, id(change)
    return change.kind, id(change.handle), change.expires_at if change.kind is Kind.SET else is_fenced and id(segment)


def _clear(change: Change) -> Steps[None]:
    moment = CLEARED.set(change.expected)
    try:
        yield change.below, "_clear", ()
    finally:
        CLEARED.reset(moment)


def _delete(changes: Sequence[tuple[str, Change]]) -> Steps[None]:
    yield changes[0][1].below, "_delete_many", ([storage_key for storage_key, _ in changes],)


def _set(changes: Sequence[tuple[str, Change]]) -> Steps[None]:
    """Store values; those that cannot be stored are removed, so that no older one outlives the commit."""
    change, keys = changes[0][1], [storage_key for storage_key, _ in changes]
    if _has_expired(change):
        yield change.below, "_delete_many", (keys,)
        return
    values = {storage_key: change.value(storage_key) for storage_key, change in changes}
    try:
        failed, refused = yield from unstored.set_many(change.below, values, change.expires_at or timeouts.NEVER)
    except Exception:
        yield change.below, "_delete_many", (keys,)
        raise
    if failed:
        yield change.below, "_delete_many", (failed,)
    for error in refused.values():
        raise error


_TOGETHER: Final = {Kind.DELETE: _delete, Kind.SET: _set}
"""Kinds of changes of which many are one operation."""


def _apply_one(storage_key: str, change: Change) -> Steps[Any]:
    kind, below = change.kind, change.below
    if kind is Kind.INVALIDATE or storage_key.startswith(TAG_PREFIX):
        yield below, "_invalidate", ([storage_key],)
        if not change.removes:
            yield below, "_set", (storage_key, change.value(storage_key), change.expires_at)
    elif kind is Kind.AMEND:
        yield from _amend(storage_key, change)
    elif kind is Kind.COMPUTED:
        if change.under is not None:  # a computed value without a fence is not stored
            yield from _apply_one(storage_key, change.under)
    elif kind in _TOGETHER:
        yield from _TOGETHER[kind]([(storage_key, change)])
    elif _has_expired(change):
        return
    elif kind is Kind.COUNT:
        yield from counters.count(below, storage_key, change.delta, change.start, change.expires_at or timeouts.NEVER)
    elif kind is Kind.ADD:
        yield below, "_add", (storage_key, change.value(storage_key), change.expires_at)
    else:
        yield below, "_compare_set", (storage_key, change.expected, change.value(storage_key), change.expires_at)


def _amend(storage_key: str, change: Change) -> Steps[None]:
    if change.delta:
        try:
            yield change.below, "_incr", (storage_key, change.delta)
        except KeyError:
            return  # it has expired, or somebody has removed it
    if change.expires_at is None:
        return
    if _has_expired(change):
        yield change.below, "_delete", (storage_key,)
    else:
        yield change.below, "_touch", (storage_key, change.expires_at)


def _store_computed(changes: list[tuple[str, Change]], touched: set[Slot]) -> Steps[None]:
    """Store computed values over their fences, but for those whose tags' versions nobody else has ever seen.

    Their callers have got them: one that the storage refuses is noted, and its fence removed with the value before.
    """
    swaps, values = {}, {}
    for storage_key, change in changes:
        value = values[storage_key] = change.value(storage_key)
        is_envelope = type(value) is Envelope
        is_of_own_tags = is_envelope and any((change.handle.engine, tag) in touched for tag, _ in value.tags)
        if (is_envelope and not value.has_value) or is_of_own_tags or _has_expired(change):
            value = MISSING
        swaps[storage_key] = Swap(change.expected, value, change.expires_at or timeouts.NEVER)
    below, handle = changes[0][1].below, changes[0][1].handle
    _, refused = yield from unstored.swap_many(below, swaps)
    if refused and handle.settings.options.get("on_unstorable") == "raise":
        raise next(iter(refused.values()))
    for storage_key, error in refused.items():
        value = values[storage_key]
        value = value.value if type(value) is Envelope else value
        unstored.note(handle._counters, storage_key, value, error, "transaction()")
    if refused:
        with unstored.overlooked(next(iter(refused))):
            yield below, "_swap_many", ({key: swaps[key]._replace(value=MISSING) for key in refused},)


def _has_expired(change: Change) -> bool:
    return change.expires_at is not None and change.expires_at <= timeouts.now()
