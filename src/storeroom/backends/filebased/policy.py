"""Answers of a file cache whose write has waited for too long: another process may have been stopped within its own.

The alias's ``on_error`` decides on them, as for a server that is out of reach. Keys of writes that were dropped are
misses from then on, and their entries are removed by the first write that gets its turn.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

from storeroom.backends.nested import nested_answer
from storeroom.backends.policies import ANSWERS, fallback_of, must_raise
from storeroom.backends.recovery import note
from storeroom.exceptions import ReentrantUseError, WriteTimeoutError
from storeroom.storage.hooks import StorageHooks, twin_of
from storeroom.storage.outages import is_room_needed, no_answers

__all__ = ["WritePolicy", "answered"]

T = TypeVar("T")

_GUARDED: Final = (
    "get_many", "get_dated", "set", "set_many", "add", "delete_many", "touch", "incr", "rename", "swap_many", "expiry",
    "usage",
)  # fmt: skip


class WritePolicy(StorageHooks):
    """A part of handles that follow the policy."""

    settings: Any
    _counters: Any

    def _untaken(self, name: str, args: tuple[Any, ...], error: WriteTimeoutError) -> Any:
        """Return what a hook answers that did not get its turn.

        Raises:
            WriteTimeoutError: `error`: the policy is "raise", the caller needs the write, or there is no honest answer.
        """
        note(self.engine.dropped, name, args)
        self._counters.errors += name != "usage"  # a look at the counters does not raise them
        fallback, answer = fallback_of(self.settings), ANSWERS.get(name)
        if fallback is not None and name != "usage":
            return getattr(fallback, f"_{name}")(*args)
        # A lease that cannot be written is nobody else's: its caller computes for itself.
        if name != "usage" and (answer is None or must_raise(self.settings) or is_room_needed()):
            raise error
        return ANSWERS[name](*args)

    def _invalidate(self, storage_keys: Any) -> int:
        with no_answers():  # entries would be live again
            return self._delete_many(storage_keys)

    _ainvalidate = twin_of(_invalidate)


def answered(kind: type[T]) -> type[T]:
    """Put the policy around the hooks of a class that may have to write, or to open the files first."""
    for name in _GUARDED:
        setattr(kind, f"_{name}", _guarded(name, getattr(kind, f"_{name}")))
    return kind


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def guarded(self: Any, *args: Any) -> Any:
        try:
            return hook(self, *args)
        except WriteTimeoutError as error:
            return self._untaken(name, args, error)
        except ReentrantUseError as error:
            return nested_answer(self, name, args, error)

    return guarded
