"""The bounds of a storage, kept with it: those that its handles were given, for the handles that were given none.

A handle keeps to the max_entries and max_bytes of its own options, and notes them in the storage when it first writes.
One that is given none, such as the command line's, keeps to those that were noted last. Two that are given different
ones keep to their own, each at its own writes; the log tells of it.

A note is an integer, which every codec reads, signed or not, under the name of a lock that no program can have: clear()
passes it by, and nothing evicts it.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from storeroom import timeouts
from storeroom.config import Settings
from storeroom.engines import Engine
from storeroom.exceptions import StorageError
from storeroom.keys import LOCK_PREFIX
from storeroom.late import logger_of
from storeroom.storage.hooks import StorageHooks

__all__ = ["KeptBounds", "note_given"]

logger = logger_of("storeroom.bounds")

_NOTES: Final = {name: f"{LOCK_PREFIX}\x00{name}" for name in ("max_entries", "max_bytes")}

_DIFFERENT: Final = (
    "OPTIONS has %r here, and had %r for this storage before. Each handle keeps to its own, and those without bounds "
    "to the last. Give all handles of a storage the same."
)

_RETRY_SECONDS: Final = 1.0
"""Until the storage is asked again, when it could not be."""


def note_given(engine: Engine, settings: Settings) -> None:
    """Note the bounds that a handle of entries in memory is given; warn of the first that differ from others."""
    given = tuple((name, settings.options[name]) for name in _NOTES if name in settings.given)
    if given and given not in engine.bounds:
        if len(engine.bounds) == 1:
            logger.warning(_DIFFERENT, dict(given), dict(next(iter(engine.bounds))))
        engine.bounds[given] = None, math.inf


class KeptBounds(StorageHooks):
    """A part of handles whose storage keeps its bounds: they ask `_agree()` before they write."""

    settings: Any
    _bounds_due: float = 0.0
    """Epoch second from which the bounds are to be asked for again; 0 before the first time."""
    _bounds_seconds: float = 1.0
    """The time for which a handle that is given no bounds keeps to those that it has read."""

    def _keep_to(self, max_entries: int | None, max_bytes: int | None) -> None:
        """Keep to these bounds from now on."""
        raise NotImplementedError

    def _begin_with(self, options: Mapping[str, Any]) -> None:
        """Keep to the bounds that were given: until the storage was asked, there are no others."""
        given = self.settings.given
        self._keep_to(*(options[name] if name in given else None for name in _NOTES))

    def _see_to_bounds(self) -> None:
        """Ask for the bounds if it is time to."""
        if timeouts.now() > self._bounds_due:
            self._agree()

    def _agree(self) -> None:
        """Note the bounds that this handle was given, and learn the others."""
        given = {name: self.settings.options[name] for name in _NOTES if name in self.settings.given}
        known, now = self.engine.bounds, timeouts.now()
        bounds, due = known.get(tuple(given.items()), (None, 0.0))
        if due <= now:
            self._bounds_due = now + _RETRY_SECONDS  # meanwhile other threads go on, and so does the note itself
            try:
                with import_module("storeroom.storage.outages").no_answers():
                    bounds = self._agreed(given)
            except StorageError:
                return  # the write that comes next meets the same error and tells it
            due = math.inf if len(given) == len(_NOTES) else now + self._bounds_seconds
            known[tuple(given.items())] = bounds, due
        self._bounds_due = due
        self._keep_to(**bounds)

    def bounds(self) -> dict[str, int | None]:
        """Return max_entries and max_bytes as they hold for this handle."""
        options, given = self.settings.options, self.settings.given
        return (
            {name: options[name] for name in _NOTES}
            | self._noted_bounds()
            | {name: options[name] for name in _NOTES if name in given}
        )

    def _noted_bounds(self, get_many: Callable[..., Any] | None = None) -> dict[str, int | None]:
        found = (get_many or self._get_many)(list(_NOTES.values()))
        return {name: found[key] or None for name, key in _NOTES.items() if type(found.get(key)) is int}

    def _past_policy(self, name: str) -> Callable[..., Any]:
        """Return a hook as the class wrote it: see network._guarded()."""
        hook: Any = getattr(type(self), name)
        return partial(getattr(hook, "__wrapped__", hook), self)

    def _agreed(self, given: dict[str, int | None]) -> dict[str, int | None]:
        # Past the outage policy: this may be within the very removal that the policy waits for.
        noted = self._noted_bounds(self._past_policy("_get_many"))
        for name, bound in given.items():
            if name in noted and noted[name] != bound and tuple(given.items()) not in self.engine.bounds:
                logger.warning(_DIFFERENT, {name: bound}, {name: noted[name]})
            if name not in noted or noted[name] != bound:
                self._past_policy("_set")(_NOTES[name], bound or 0, timeouts.NEVER)
        options = self.settings.options
        bounds: dict[str, Any] = {**{name: options[name] for name in _NOTES}, **noted, **given}
        if "max_entries" not in {*noted, *given}:
            # A program that could not note its bounds yet may have filled it.
            bounds["max_entries"] = max(bounds["max_entries"], self._usage()[0] or 0)
        return bounds
