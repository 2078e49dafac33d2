"""After the commit: changes that were held back are made, in order."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from storeroom import timeouts
from storeroom.storage import counters
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, Swap
from storeroom.storage.overlay import Slot
from storeroom.storage.steps import Steps
from storeroom.storage.tags import TAG_PREFIX
from storeroom.transactions.changes import Change, Kind, Segment

__all__ = ["apply"]


def apply(segments: Sequence[Segment]) -> Steps[None]:
    """Make the changes, each as far as it can be made: one that the cache misses leaves an old value in it.

    Raises:
        Exception: the first that one of them has raised, when all others are made.
    """
    touched = {slot for segment in segments for slot in segment.changes}
    errors: list[Exception] = []
    for segment in segments:
        for work in _works(segment, touched):
            try:
                yield from work
            except Exception as error:  # noqa: BLE001 -- it is raised when the others are done
                errors.append(error)
    if errors:
        errors[0].add_note(
            f"The database has committed; {len(errors)} of the cache's changes that were held back could not be made."
        )
        raise errors[0]


def _works(segment: Segment, touched: set[Slot]) -> Iterator[Steps[Any]]:
    if segment.clears is not None:
        yield _clear(segment.clears)
    for (kind, _, _), together in groupby(segment.changes.items(), key=_group):
        changes = [(storage_key, change) for (_, storage_key), change in together]
        if kind in _TOGETHER:
            yield _TOGETHER[kind](changes)
        elif kind is Kind.COMPUTED:
            yield _store_computed(changes, touched)
        else:
            yield _apply_one(*changes[0])


def _group(item: tuple[Slot, Change]) -> tuple[Any, ...]:
    (_, storage_key), change = item
    is_fenced = change.kind is Kind.COMPUTED and change.expected is not None
    if not (change.kind in _TOGETHER or is_fenced) or storage_key.startswith(TAG_PREFIX):
        return None, storage_key, id(change)
    return change.kind, id(change.handle), change.expires_at if change.kind is Kind.SET else None


def _clear(change: Change) -> Steps[None]:
    yield change.below, "_clear", ()


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
        failed = yield change.below, "_set_many", (values, change.expires_at)
    except Exception:
        yield change.below, "_delete_many", (keys,)
        raise
    if failed:
        yield change.below, "_delete_many", (failed,)


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
    """Store computed values over their fences, but for those whose tags' versions nobody else has ever seen."""
    swaps = {}
    for storage_key, change in changes:
        value = change.value(storage_key)
        is_envelope = type(value) is Envelope
        is_of_own_tags = is_envelope and any((change.handle.engine, tag) in touched for tag, _ in value.tags)
        if (is_envelope and not value.has_value) or is_of_own_tags or _has_expired(change):
            value = MISSING
        swaps[storage_key] = Swap(change.expected, value, change.expires_at or timeouts.NEVER)
    yield changes[0][1].below, "_swap_many", (swaps,)


def _has_expired(change: Change) -> bool:
    return change.expires_at is not None and change.expires_at <= timeouts.now()
