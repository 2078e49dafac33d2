"""Writes that an outage has dropped: their keys are remembered, and removed when the server answers again.

A server that was only cut off still holds the old entries. They are removed before anything of them is served, so that
a value that was overwritten or deleted meanwhile does not come back.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from storeroom.backends.parts import PartialError
from storeroom.engines import Counters
from storeroom.keys import LOCK_PREFIX, TAG_PREFIX
from storeroom.late import logger_of
from storeroom.locks import reentrant
from storeroom.storage.outages import PAUSE_SECONDS
from storeroom.storage.overlay import every, first, first_two
from storeroom.storage.steps import Steps, pause

__all__ = ["MOST_DROPPED", "Dropped", "note", "settle", "written"]

logger = logger_of("storeroom.outages")

MOST_DROPPED: Final = 10_000
"""Keys that are remembered: some megabytes, and less than a second of the server's time to remove."""

_TURN_SECONDS: Final = 5.0
"""The longest turn of one caller that removes them: after it another takes over, as it may never come back."""

_LOOK_SECONDS: Final = 0.002
"""Between two looks of those who wait for its end."""

_WRITES: Final[Mapping[str, Callable[..., Sequence[str]]]] = {
    **dict.fromkeys(("set", "delete", "compare_set"), first),
    **dict.fromkeys(("set_many", "delete_many", "swap_many"), every),
}
"""Hook -> its keys, whose entries are old once it was dropped. After the others nothing is older than it was."""

_READS: Final = ("get_many", "get_dated")
"""Hooks of many keys, some of which may be answered alone."""

_ALL_SET: Final[tuple[str, Any]] = ("set_many", [])
"""The name and the result of a hook that has stored all."""


class Dropped:
    """The storage keys of one server whose writes were dropped.

    Attributes:
        keys: each with the number of its last drop.
        lost: drops whose keys were too many to be remembered, since the last recovery.
    """

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.lost = 0
        self._numbers = itertools.count()
        self._retry_at = self._turn_until = 0.0
        self._lock = reentrant()

    def after_fork_in_child(self) -> None:
        """Keep the keys: a child has an outage of its own to recover from."""
        self._lock = reentrant()
        self._turn_until = 0.0

    def add(self, storage_keys: Iterable[str]) -> int:
        """Remember keys, as far as there is room. Return how many there were."""
        count = 0
        with self._lock:
            for storage_key in storage_keys:
                count += 1
                if len(self.keys) < MOST_DROPPED or storage_key in self.keys:
                    self.keys[storage_key] = next(self._numbers)
                    continue
                if not self.lost:
                    logger.error(
                        "More than %d keys were written or deleted in vain during an outage. The old values of further "
                        "ones will be served again after it, until their timeouts: call clear() then.",
                        MOST_DROPPED,
                    )
                self.lost += 1
        return count

    @property
    def is_due(self) -> bool:
        """Whether a removal of all is worth an attempt."""
        return time.monotonic() >= self._retry_at

    def begin(self) -> bool:
        """Take the turn to remove all; return False while another caller has it."""
        with self._lock:
            now = time.monotonic()
            if now < self._turn_until:
                return False
            self._turn_until = now + _TURN_SECONDS
            return True

    def end(self, *, failed: bool) -> None:
        """Give the turn back."""
        with self._lock:
            self._turn_until = 0.0
            self._retry_at = time.monotonic() + PAUSE_SECONDS if failed else 0.0

    def forget(self, removed: Mapping[str, int]) -> int:
        """Forget keys that were removed, but for those dropped again meanwhile. Return how many were forgotten."""
        count = 0
        with self._lock:
            for storage_key, number in removed.items():
                if self.keys.get(storage_key) == number:
                    del self.keys[storage_key]
                    count += 1
            lost, self.lost = self.lost, self.lost if self.keys else 0
        if lost and not self.lost:
            logger.error("After the outage the old values of up to %d further writes are served again.", lost)
        return count


def note(dropped: Dropped, counters: Counters, name: str, args: Sequence[Any]) -> None:
    """Remember, and count, the keys of a hook that was not carried out, or of which nobody knows."""
    if (keys_of := _WRITES.get(name)) is not None:
        # A lock is somebody else's by then, perhaps. And to renew the version of a tag changes nothing.
        spared = (LOCK_PREFIX, TAG_PREFIX) if name in {"compare_set", "swap_many"} else LOCK_PREFIX
        counters.dropped += dropped.add(key for key in keys_of(*args) if not key.startswith(spared))


def settle(cache: Any, name: str, args: Sequence[Any]) -> Steps[dict[str, int]]:
    """Remove the entries of dropped writes, before a hook of a `served.ServedCache` is carried out.

    Where that fails, as not all servers are back perhaps, those of the keys that the hook asks for have to be removed.
    Return the keys that the hook writes, for written().

    Raises:
        Exception: one of the driver's: the server of the hook's keys is still out of reach.
    """
    dropped, failure = cache._dropped, None
    while dropped.keys and dropped.is_due:
        if not dropped.begin():
            yield from pause(_LOOK_SECONDS)
            continue
        try:
            yield from _remove(cache, dropped.keys.copy())
        except cache._outage_errors as error:
            failure = error
        finally:
            dropped.end(failed=failure is not None)
    own = _concerned(dropped.keys, name, args)
    if own and name not in _WRITES:
        try:
            if failure is not None:
                raise failure
            yield from _remove(cache, own)
        except cache._outage_errors as error:
            yield from _read_others(cache, name, args, own, error)
    elif failure is not None:
        cache._engine.breaker.fail(failure)
    return own


def _read_others(cache: Any, name: str, args: Sequence[Any], own: Mapping[str, int], error: Exception) -> Steps[None]:
    """Read the entries of a hook that were not dropped, where its server is one of several.

    Raises:
        PartialError: it holds these entries.
        Exception: `error`: there are no others.
    """
    others = [key for key in args[0] if key not in own] if name in _READS else []
    if not others:
        raise error
    lost: dict[str, Exception] = dict.fromkeys(own, error)
    try:
        found = yield cache, "_past", (name, others)
    except PartialError as part:
        found, lost = part.result, {**lost, **part.lost}
    raise PartialError(found, lost)


def written(cache: Any, own: Mapping[str, int] | None, name: str, result: Any) -> None:
    """Forget the keys of a write that was carried out after all, if there are any."""
    if own and _is_carried_out(name, result):
        cache._counters.recovered += cache._dropped.forget(own)


def _is_carried_out(name: str, result: Any) -> bool:
    is_stored = name in {"set", "compare_set"} and bool(result)
    return is_stored or name in {"delete", "delete_many"} or (name, result) == _ALL_SET


def _concerned(keys: Mapping[str, int], name: str, args: Sequence[Any]) -> dict[str, int]:
    if not args:
        return {}
    named: Iterable[str] = [args[0]] if isinstance(args[0], str) else args[0]
    if name == "rename":
        named = first_two(*args)
    return {key: keys[key] for key in named if key in keys}


def _remove(cache: Any, numbers: dict[str, int]) -> Steps[None]:
    try:
        yield cache, "_erase", (list(numbers),)
    except PartialError as part:
        removed = {key: number for key, number in numbers.items() if key not in part.lost}
        cache._counters.recovered += cache._dropped.forget(removed)
        raise part.cause from None
    cache._counters.recovered += cache._dropped.forget(numbers)
