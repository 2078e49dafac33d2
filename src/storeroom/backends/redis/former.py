"""Locks and versions of tags under their present and their former names, for the days of an upgrade.

Before the kind of an internal key stood at its end, it stood before the prefix. Programs of both kinds may run at the
same time: a lock is held under both names, and a tag is invalidated under both. A user without the rights for the
former names cannot have used them, and goes on with the present ones.

A version of a tag counts while both names have it. Programs of before write the former name alone: such a version is
taken over. It differs by a sign from one that was written under both names, whose present name is missing only if
somebody has invalidated the tag.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeVar

from redis.exceptions import NoPermissionError

from storeroom.backends.parts import PartialError
from storeroom.backends.redis.names import Former
from storeroom.backends.redis.operations import Operations
from storeroom.backends.redis.replies import whole
from storeroom.backends.redis.requests import Exchange, Request
from storeroom.backends.redis.watching import is_watched
from storeroom.exceptions import StorageError
from storeroom.keys import FENCE_PREFIX, LOCK_PREFIX, TAG_PREFIX
from storeroom.storage.hooks import ABSENT, MISSING, Swap

__all__ = ["BothNames"]

T = TypeVar("T")
U = TypeVar("U")

_REFUSED: Final = object()

_BEHIND_INTERNAL: Final = "\x01"
"""Internal keys come before it."""

_SIGN: Final = " +"
"""Before the expiry of a version that has both names: programs of before read the same number."""


class BothNames(Operations):
    """The operations of one cache, which also knows the former names of internal keys."""

    _may_use_former = True

    def get_many(self, storage_keys: Sequence[str]) -> Exchange[dict[str, Any]]:
        """See Operations: in the same round trip, the versions of tags under both names."""
        return (yield from self._agreed(super().get_many, storage_keys, lambda version: version))

    def get_dated(self, storage_keys: Sequence[str]) -> Exchange[dict[str, tuple[Any, float | None]]]:
        """See get_many()."""
        return (yield from self._agreed(super().get_dated, storage_keys, itemgetter(0)))

    def _agreed(
        self, read: Callable[[Sequence[str]], Exchange[dict[str, Any]]], storage_keys: Sequence[str],
        value_of: Callable[[Any], Any],
    ) -> Exchange[dict[str, Any]]:  # fmt: skip
        """Read entries; of the versions of tags those that both names have, or that are taken over."""
        has_internal = storage_keys and min(storage_keys) < _BEHIND_INTERNAL
        tags = [Former(key) for key in storage_keys if key.startswith(TAG_PREFIX)] if has_internal else []
        if not tags or not self._may_use_former:
            return (yield from read(storage_keys))
        lost: dict[str, Exception] = {}
        found, former = yield from self._both(_noting(lost, read(storage_keys)), _noting(lost, read(tags)))
        if former is _REFUSED:
            return whole(found, lost)
        for tag in tags:
            present, other = found.pop(tag, None), former.get(tag)
            if other is None:
                continue
            if present is None and (yield from self._take_over(tag, value_of(other))):
                present = other
            if present is not None and _number(value_of(present)) == _number(value_of(other)):
                found[str(tag)] = present
        return whole(found, lost)

    def _take_over(self, tag: Former, version: Any) -> Exchange[bool]:
        """Give a version that was written by a program of before its present name; tell whether it has it now."""
        if not isinstance(version, str) or _SIGN in version:
            return False
        expires_at = float(version.partition(" ")[2] or 0)
        if not (yield from super().compare_set(tag, version, _signed(version), expires_at)):
            return False
        return (yield from super().add(str(tag), version, expires_at)) is True

    def add(self, storage_key: str, value: Any, expires_at: float) -> Exchange[Any]:
        """See Operations; a lock that is held under one of its names is not to be had."""
        if not self._has_former(storage_key):
            added = yield from super().add(storage_key, value, expires_at)
            # The one before has counted further under the former name where the clock was put back: count() goes on.
            return added if added is not True else (yield from self._level(storage_key, value)) == value
        terms = Former(storage_key), _signed(value), expires_at
        added, former = yield from self._both(super().add(storage_key, value, expires_at), super().add(*terms))
        if storage_key.startswith(TAG_PREFIX) or former is _REFUSED or added is former:
            return added
        taken = storage_key if added is True else terms[0]
        yield from super().compare_delete(taken, value)
        return former if added is True else added

    def set(self, storage_key: str, value: Any, expires_at: float) -> Exchange[bool]:
        """See Operations: a tag's version under both names."""
        if not self._has_former(storage_key):
            return (yield from super().set(storage_key, value, expires_at))
        former = super().set(Former(storage_key), _signed(value), expires_at)
        stored, _ = yield from self._both(super().set(storage_key, value, expires_at), former)
        return stored

    def set_many(self, values: Mapping[str, Any], expires_at: float) -> Exchange[Sequence[str]]:
        """See Operations; tags one by one, which are seldom written with others."""
        tags = {key: value for key, value in values.items() if key.startswith(TAG_PREFIX)}
        if not tags or not self._may_use_former:
            return (yield from super().set_many(values, expires_at))
        failed = yield from super().set_many({key: values[key] for key in values if key not in tags}, expires_at)
        for tag, value in tags.items():
            if not (yield from self.set(tag, value, expires_at)):
                failed = [*failed, tag]
        return failed

    def swap_many(self, swaps: Mapping[str, Swap]) -> Exchange[dict[str, bool]]:
        """See set_many()."""
        tags = {key: swap for key, swap in swaps.items() if key.startswith(TAG_PREFIX)}
        if not tags or not self._may_use_former:
            return (yield from super().swap_many(swaps))
        swapped = yield from super().swap_many({key: swaps[key] for key in swaps if key not in tags})
        for tag, (expected, value, expires_at) in tags.items():
            if expected is ABSENT:
                swapped[tag] = (yield from self.add(tag, value, expires_at)) is True
            elif value is MISSING:
                swapped[tag] = yield from self.compare_delete(tag, expected)
            else:
                swapped[tag] = yield from self.compare_set(tag, expected, value, expires_at)
        return swapped

    def compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> Exchange[bool]:
        """See Operations: under both names."""
        if not self._has_former(storage_key):
            return (yield from super().compare_set(storage_key, expected, value, expires_at))
        if expected is MISSING and storage_key.startswith(TAG_PREFIX):  # the two names do not agree
            return (yield from self.set(storage_key, value, expires_at))
        terms = Former(storage_key), _signed(expected), _signed(value), expires_at
        renewed, other = yield from self._both(
            super().compare_set(storage_key, expected, value, expires_at), super().compare_set(*terms)
        )
        return renewed and (bool(other) or storage_key.startswith(TAG_PREFIX))

    def compare_delete(self, storage_key: str, expected: Any) -> Exchange[bool]:
        """See Operations: under both names."""
        if not self._has_former(storage_key):
            return (yield from super().compare_delete(storage_key, expected))
        former = super().compare_delete(Former(storage_key), _signed(expected))
        deleted, _ = yield from self._both(super().compare_delete(storage_key, expected), former)
        return deleted

    def delete_many(self, storage_keys: Sequence[str]) -> Exchange[int]:
        """See Operations: tags under both names."""
        tags = [Former(key) for key in storage_keys if key.startswith(TAG_PREFIX)]
        if not tags or not self._may_use_former:
            return (yield from super().delete_many(storage_keys))
        lost: dict[str, Exception] = {}
        present, former = _noting(lost, super().delete_many(storage_keys)), _noting(lost, super().delete_many(tags))
        count, other = yield from self._both(present, former)
        return whole(count if other is _REFUSED else max(count, other), lost)

    def expiry(self, storage_key: str) -> Exchange[Any]:
        """See Operations: a lock is held while it has one of its names."""
        if not self._has_former(storage_key):
            return (yield from super().expiry(storage_key))
        found, former = yield from self._both(super().expiry(storage_key), super().expiry(Former(storage_key)))
        return former if found is None and former is not _REFUSED else found

    def incr(self, storage_key: str, delta: float) -> Exchange[float]:
        """See Operations; fencing tokens grow with those that programs of before count under the former name."""
        return (yield from self._level(storage_key, (yield from super().incr(storage_key, delta))))

    def _level(self, storage_key: str, count: float) -> Exchange[float]:
        """Return the higher count of both names of a fence, which both have from now on."""
        if not self._may_use_former or not storage_key.startswith(FENCE_PREFIX):
            return count
        former = Former(storage_key)
        try:
            other = yield from super().incr(former, 1)
        except KeyError:
            return count
        except StorageError as error:
            self._note_refusal(error)
            return count
        if other < count:
            yield from super().incr(former, count - other)
        elif other > count:
            count = yield from super().incr(storage_key, other - count)
        return count

    def _note_refusal(self, error: StorageError) -> None:
        """Go on without the former names if it is the rights for them that lack; raise another error again."""
        if not isinstance(error.__cause__, NoPermissionError):
            raise error
        self._may_use_former = False

    def _has_former(self, storage_key: str) -> bool:
        return self._may_use_former and storage_key.startswith((LOCK_PREFIX, TAG_PREFIX))

    def _both(self, present: Exchange[T], former: Exchange[U]) -> Exchange[tuple[T, Any]]:
        """Carry out an operation under both names; begin in one round trip. _REFUSED without rights for the former."""
        first, second = next(present), next(former)
        if is_watched(first.commands):
            found = yield from _rest(present, (yield first))
            others = yield second
        else:
            lacks = first.may_lack and second.may_lack
            replies = yield Request((*first.commands, *second.commands), first.use, may_lack=lacks)
            found = yield from _rest(present, replies[: len(first.commands)])
            others = replies[len(first.commands) :]
        try:
            return found, (yield from _rest(former, others))
        except StorageError as error:
            self._note_refusal(error)
        return found, _REFUSED


def _rest(exchange: Exchange[T], replies: list[Any]) -> Exchange[T]:
    while True:
        try:
            request = exchange.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        replies = yield request


def _noting(lost: dict[str, Exception], exchange: Exchange[T]) -> Exchange[T]:
    """Carry out an operation; note the keys whose servers are out of reach, while others have answered."""
    try:
        return (yield from exchange)
    except PartialError as part:
        lost |= part.lost
        result: T = part.result
        return result


def _number(version: Any) -> Any:
    return version.partition(" ")[0] if isinstance(version, str) else version


def _signed(value: Any) -> Any:
    """Return a tag's version as it is written under the former name, beside the present one."""
    return value.replace(" ", _SIGN, 1) if isinstance(value, str) else value
