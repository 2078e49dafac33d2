"""Answers of a file cache whose write has waited for too long: another process may have been stopped within its own.

The alias's ``on_error`` decides on them, as for a server that is out of reach. Keys of writes that were dropped are
misses from then on, and their entries are removed by the first write that gets its turn.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

from storeroom.backends.nested import nested_answer
from storeroom.backends.policies import ANSWERS, answer_of, fallback_of, word_for
from storeroom.backends.recovery import note
from storeroom.backends.sessions import is_session
from storeroom.exceptions import ReentrantUseError, WriteTimeoutError
from storeroom.storage.hooks import StorageHooks, twin_of
from storeroom.storage.outages import is_room_needed, no_answers

__all__ = ["WritePolicy", "answered"]

T = TypeVar("T")

_GUARDED: Final = (
    "get_many", "get_dated", "set", "set_many", "add", "delete_many", "touch", "incr", "rename", "swap_many", "expiry",
    "usage", "clear", "prune",
)  # fmt: skip

_WITHOUT_FALLBACK: Final = ("usage", "clear")


class WritePolicy(StorageHooks):
    """A part of handles that follow the policy."""

    settings: Any
    _counters: Any

    def _untaken(self, name: str, args: tuple[Any, ...], error: WriteTimeoutError) -> Any:
        """Return what a hook answers that did not get its turn.

        Raises:
            WriteTimeoutError: `error`: the policy is "raise", the caller needs the write, or there is no honest answer.
        """
        note(self.engine.dropped, self._counters, name, args)
        self._counters.errors += name != "usage"  # a look at the counters does not raise them
        if name not in _WITHOUT_FALLBACK and (fallback := fallback_of(self.settings)) is not None:
            return getattr(fallback, f"_{name}")(*args)
        if name == "usage":
            return ANSWERS[name]()
        answer, is_new_session = answer_of(self.settings, name), name == "add" and is_session(args[0])
        # A lease that cannot be written is nobody else's: its caller computes for itself.
        if answer is None or is_new_session or is_room_needed():
            error.is_ignored = word_for(self.settings, name) == "none"
            raise error
        return answer(*args)

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
