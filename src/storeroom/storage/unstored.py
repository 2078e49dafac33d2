"""Values that a storage refuses: too large, not to be serialized, or without room.

A refusal is the value's alone. The other values of a batch are stored, and no older value is left under its key. A
value that was computed goes to its caller all the same; that it is not stored is counted, and logged once for each
type of value, function that computes it, and kind of error.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Self, TypeAlias

from storeroom.exceptions import SerializationError, StorageError, UnreachableError, ValueTooLargeError
from storeroom.late import logger_of
from storeroom.storage.hooks import StorageHooks, Swap
from storeroom.storage.interruptions import is_from_outside
from storeroom.storage.outages import room_needed
from storeroom.storage.steps import Steps

__all__ = [
    "NOT_TAKEN", "Caught", "Refused", "note", "note_copy", "overlooked", "reason_of", "remember", "set_many",
    "swap_many",
]  # fmt: skip

_log = logger_of("storeroom.computing")

Refused: TypeAlias = dict[str, Exception]
"""Storage key to the error that refused its value."""

_REASONS: Final[Mapping[type[Exception], str]] = {
    ValueTooLargeError: "too_large",
    SerializationError: "unserializable",
    UnreachableError: "unreachable",
    TimeoutError: "busy",
    StorageError: "full",
}
"""Kind of error -> the reason, in one word. Those that are also of a later kind come first."""

_MOST_TOLD: Final = 1000
"""Refusals that are remembered as logged; beyond that the oldest is forgotten, and may be logged again."""

_told: OrderedDict[tuple[str, str, str], None] = OrderedDict()

NOT_TAKEN: Final = "the storage was out of reach, or had no room"
"""The reason of a write that was dropped without an error."""

_COPIES: Final = ("django.contrib.sessions.cached_db", "views.decorators.cache.", "template.cache.")
"""Beginnings of the keys under which Django stores copies: of sessions that its database has, and of pages and parts of
templates that it is about to send. It asks for no result, and an error would take the answer from its reader."""


class Caught:
    """A block whose errors are caught, but a signal handler's: a storage, and a value's own code, may raise anything.

    Attributes:
        error: the error that ended it, or None.
    """

    error: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        self.error = error if isinstance(error, Exception) and not is_from_outside(error) else None
        return self.error is not None


def set_many(
    hooks: StorageHooks, values: Mapping[str, Any], expires_at: float
) -> Steps[tuple[Sequence[str], dict[str, ValueTooLargeError]]]:
    """Store all values but those that are too large, whose older ones are removed.

    Return the storage keys that could not be stored for another reason, and the errors of those that were too large.
    These are found by halving: the storage need not tell which they are.
    """
    try:
        return (yield hooks, "_set_many", (values, expires_at)), {}
    except ValueTooLargeError as error:
        if len(values) == 1:
            yield hooks, "_delete_many", (list(values),)
            return (), dict.fromkeys(values, error)
    failed, refused = list[str](), dict[str, ValueTooLargeError]()
    for half in _halves(values):
        more_failed, more_refused = yield from set_many(hooks, half, expires_at)
        failed += more_failed
        refused |= more_refused
    return failed, refused


def swap_many(hooks: StorageHooks, swaps: Mapping[str, Swap]) -> Steps[tuple[dict[str, bool], Refused]]:
    """Make all swaps that the storage takes; return of each whether it was made, and the errors of the others.

    A storage that fails, or has no room, fails for all; a value that it refuses is found by halving.
    """
    with Caught() as caught, room_needed():
        return (yield hooks, "_swap_many", (swaps,)), {}
    if isinstance(caught.error, StorageError) or len(swaps) == 1:
        return {}, dict.fromkeys(swaps, caught.error)
    swapped, refused = dict[str, bool](), Refused()
    for half in _halves(swaps):
        more_swapped, more_refused = yield from swap_many(hooks, half)
        swapped |= more_swapped
        refused |= more_refused
    return swapped, refused


@contextmanager
def overlooked(storage_key: str) -> Iterator[None]:
    """Let a lease that cannot be given back be: it ends by itself. An error here would hide the value, or its own."""
    with Caught() as caught:
        yield
    error = caught.error
    if error is not None and _is_new(("lease", "", type(error).__qualname__)):
        _log.warning("The lease of key %r cannot be taken away, and ends by itself.", storage_key, exc_info=error)


def _halves(batch: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    items = list(batch.items())
    middle = len(items) // 2
    return dict(items[:middle]), dict(items[middle:])


def remember(engine: Any, storage_key: str, error: Exception | str) -> None:
    """Let explain() tell why a value was not stored; an error's text is not repeated where it may hold a value."""
    reason = error if isinstance(error, str) else type(error).__name__
    if isinstance(error, ValueTooLargeError | StorageError):
        reason = f"{error}"
    engine.remember(0).note_refusal(storage_key, reason)


def reason_of(error: Exception) -> str:
    """Return the reason, in one word, for which a value was not stored.

    >>> reason_of(ValueTooLargeError()), reason_of(RuntimeError())
    ('too_large', 'other')
    """
    return next((reason for kind, reason in _REASONS.items() if isinstance(error, kind)), "other")


def note(counters: Any, storage_key: str, value: object, error: Exception, origin: str) -> None:
    """Count a computed value that is not stored, and log it if none like it was.

    Args:
        counters: those of the cache.
        storage_key: of the entry that there is none of.
        value: its type is told, and nothing else of it.
        error: the refusal.
        origin: names the function that has computed it.
    """
    counters.unstored += 1
    counters.refuse(reason_of(error))
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if not _is_new((kind, origin, type(error).__qualname__)):
        return
    _log.warning(
        "%s computed a value of type %s for key %r that cannot be stored (%s: %s). Its caller gets it, and it is "
        "computed again each time; that is told once. OPTIONS['on_unstorable'] of \"raise\" makes it an error.",
        origin,
        kind,
        storage_key,
        type(error).__name__,
        error,
    )


def note_copy(counters: Any, key: object, value: object, error: Exception) -> bool:
    """Do as note() for a copy that Django did not ask for in vain, by its key; return False for any other key.

    A session's key lets in whoever knows it, and so is not told.
    """
    start = next((start for start in _COPIES if str(key).startswith(start)), None)
    if start is None:
        return False
    shown = f"{start}…"
    note(counters, shown, value, type(error)(str(error).replace(str(key), shown)), "Django")
    return True


def _is_new(refusal: tuple[str, str, str]) -> bool:
    """Tell whether nothing like this was logged, and remember it."""
    if refusal in _told:
        return False
    _told[refusal] = None
    if len(_told) > _MOST_TOLD:
        with suppress(KeyError):  # another thread was faster
            _told.popitem(last=False)
    return True
