"""Overlays between a cache and its storage: a near tier, a memo, a transaction.

Every operation of a cache turns to ``self._overlay or self`` for its hooks. An overlay is hooks over hooks: it answers
some calls itself and passes the others down. A near tier lies lowest; a memo, and a transaction over that, depend on
the context (``contextvars``), so they are right for threads, tasks, and threads that a context was copied to.

The first memo or transaction installs a descriptor in the class of all caches. A program that uses none looks at an
attribute that is None, and pays for nothing more.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from storeroom.storage.hooks import OVERLAID, OVERLAY_ATTRIBUTE, StorageHooks
from storeroom.storage.steps import Steps, arun, run

if TYPE_CHECKING:
    from storeroom.storage.channel import Channel

__all__ = [
    "HOOKS", "MEMO", "TRANSACTION", "Finder", "Overlay", "Relay", "Slot", "every", "first", "first_two", "install",
]  # fmt: skip

Finder: TypeAlias = Callable[[Any, StorageHooks], StorageHooks]
"""Called with a handle and the hooks below; returns the overlay that lies over them in this context, or them."""

Slot: TypeAlias = tuple[object, str]
"""An entry, known by the engine of its storage and its storage key."""

MEMO: Final = 0
TRANSACTION: Final = 1
"""The positions of overlays, from the storage up."""

HOOKS: Final = (
    "get", "get_many", "get_dated", "set", "set_many", "add", "delete", "delete_many", "touch", "incr", "count",
    "expiry", "has", "rename", "lease", "lease_many", "swap_many", "compare_set", "compare_delete", "invalidate",
    "clear", "scan", "tally", "usage", "prune", "sight",
)  # fmt: skip
"""The hooks that go through an overlay, without the underscore."""


class _ContextOverlay:
    """The attribute `_overlay` of all caches, once there may be overlays."""

    def __init__(self) -> None:
        self.finders: list[Finder | None] = [None, None]

    def __get__(self, handle: Any, owner: type | None = None) -> StorageHooks | None:
        if handle is None:
            return None
        near: StorageHooks | None = handle.__dict__.get("_overlay")
        below = top = near or handle
        for find in self.finders:
            if find is not None:
                top = find(handle, top)
        return near if top is below else top

    def __set__(self, handle: Any, near: StorageHooks | None) -> None:
        handle.__dict__["_overlay"] = near


_descriptor: Final = _ContextOverlay()


def install(position: int, find: Finder) -> None:
    """Let caches ask for overlays at this position from now on."""
    _descriptor.finders[position] = find
    OVERLAY_ATTRIBUTE[:] = [_descriptor]
    for kind in OVERLAID:
        kind._overlay = _descriptor


class Relay(StorageHooks):
    """Hooks that hand every call to those below."""

    _below: StorageHooks

    def _channel(self) -> "Channel | None":
        return self._below._channel()


class Overlay(Relay):
    """Hooks over the hooks of one handle.

    A subclass writes a hook as steps (``steps``), under its name without the underscore: ``get`` becomes `_get` and
    `_aget`. The other hooks, and all of them once `is_open` is False, go down: to the handle, or to another overlay.
    """

    def __init__(self, handle: Any, below: StorageHooks) -> None:
        self._handle, self._below = handle, below
        # The storage's answers about itself hold of both.
        self.async_inline = below.async_inline
        self.is_shared = below.is_shared
        self.sees_envelopes = below.sees_envelopes

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make both forms of the hooks that this class writes."""
        super().__init_subclass__(**kwargs)
        may_end = cls.is_open is not Overlay.is_open
        for name in HOOKS:
            if written := cls.__dict__.get(name):
                _write(cls, name, _steps_of(name, written) if may_end else written)

    @property
    def engine(self) -> Any:
        """That of the handle."""
        return self._handle.engine

    @property
    def is_open(self) -> bool:
        """Whether the overlay still does anything of its own."""
        return True

    def forget(self) -> None:
        """Forget the storage's entries: the handle has changed some by another way than its hooks."""
        if isinstance(self._below, Overlay):
            self._below.forget()

    def _slot(self, storage_key: str) -> Slot:
        return self._handle.engine, storage_key

    def _freeze(self, storage_key: str, value: Any) -> Any:
        return self._handle._freeze(storage_key, value)

    def _thaw(self, storage_key: str, kept: Any) -> Any:
        return self._handle._thaw(storage_key, kept)


def _steps_of(name: str, written: Callable[..., Steps[Any]]) -> Callable[..., Steps[Any]]:
    @wraps(written)
    def steps(self: Overlay, *args: Any) -> Steps[Any]:
        if self.is_open:
            return (yield from written(self, *args))
        return (yield self._below, f"_{name}", args)

    return steps


def _write(cls: type[Relay], name: str, steps: Callable[..., Steps[Any]]) -> None:
    def hook(self: Any, *args: Any) -> Any:
        return run(steps(self, *args))

    async def twin(self: Any, *args: Any) -> Any:
        return await arun(steps(self, *args))

    setattr(cls, f"_{name}", hook)
    setattr(cls, f"_a{name}", twin)


def first(storage_key: str, *_: Any) -> Sequence[str]:
    """Return the one key."""
    return (storage_key,)


def first_two(storage_key: str, new_storage_key: str, *_: Any) -> Sequence[str]:
    """Return both keys of a rename."""
    return storage_key, new_storage_key


def every(storage_keys: Iterable[str], *_: Any) -> Sequence[str]:
    """Return the keys of a list, or of a mapping."""
    return list(storage_keys)


def _pass_down(hook: str, twin: str) -> None:
    def down(self: Relay, *args: Any) -> Any:
        return getattr(self._below, hook)(*args)

    async def adown(self: Relay, *args: Any) -> Any:
        return await getattr(self._below, twin)(*args)

    setattr(Relay, hook, down)
    setattr(Relay, twin, adown)


for _name in HOOKS:
    _pass_down(f"_{_name}", f"_a{_name}")
