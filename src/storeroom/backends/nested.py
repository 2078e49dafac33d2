"""Answers of hooks in the midst of another operation of the same thread: see ``engines.nesting``.

A read finds nothing. A write whose result nobody needs is made a moment later, and answers as if it were made. A lease
is nobody else's, so that its caller computes for itself. Anything else raises.
"""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from importlib import import_module
from typing import Any, Final, TypeVar

from storeroom.engines.nesting import later
from storeroom.exceptions import ReentrantUseError

__all__ = ["nested_answer", "nesting"]

T = TypeVar("T")

_AS_IN_OUTAGES: Final = frozenset({"get", "get_many", "get_dated", "has", "expiry", "usage"})

_READS: Final[Mapping[str, Callable[..., Any]]] = {
    "lease": lambda *_: None,
    "lease_many": dict.fromkeys,
}
_WRITES: Final[Mapping[str, Callable[..., Any]]] = {
    "set": lambda *_: True,
    "set_many": lambda *_: [],
    "delete": lambda *_: False,
    **dict.fromkeys(("delete_many", "invalidate", "prune"), lambda *_: 0),
    "touch": lambda *_: False,
    "clear": lambda: None,
}

_AGAIN: Final = {"touch": "_touch_until"}
"""The method that looks after values with conditions, too."""


def nested_answer(handle: Any, name: str, args: tuple[Any, ...], error: ReentrantUseError) -> Any:
    """Return the answer of a hook that could not be carried out, and see to it that a write is.

    Raises:
        ReentrantUseError: `error`: the hook has no honest answer.
    """
    if name in _AS_IN_OUTAGES:
        return import_module("storeroom.backends.policies").ANSWERS[name](*args)
    if name in _READS:
        return _READS[name](*args)
    if name not in _WRITES:
        raise error
    if name in {"set", "set_many"}:
        values = args[0] if name == "set_many" else {args[0]: args[1]}
        frozen = {key: handle._freeze(key, value) for key, value in values.items()}
        later(partial(_set_copies, handle, frozen, args[-1]))
    else:
        later(partial(_repeat, handle, name, args))
    return _WRITES[name](*args)


def _set_copies(handle: Any, frozen: Mapping[str, Any], expires_at: float) -> None:
    _repeat(handle, "set_many", ({key: handle._thaw(key, kept) for key, kept in frozen.items()}, expires_at))


def _repeat(handle: Any, name: str, args: tuple[Any, ...]) -> None:
    hooks = handle if name == "touch" else handle._overlay or handle  # near tiers learn of it
    getattr(hooks, _AGAIN.get(name, f"_{name}"))(*args)


def nesting(*names: str) -> Callable[[type[T]], type[T]]:
    """Let these hooks of a class have these answers."""

    def guard(kind: type[T]) -> type[T]:
        for name in names:
            setattr(kind, f"_{name}", _guarded(name, getattr(kind, f"_{name}")))
        return kind

    return guard


def _guarded(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(hook)
    def guarded(self: Any, *args: Any) -> Any:
        try:
            return hook(self, *args)
        except ReentrantUseError as error:
            return nested_answer(self, name, args, error)

    return guarded
