"""Answers that processes leave in the storage that they share, for `storeroom advise`.

There is one for each cache: that of the process with the most reads, of those that were heard of lately.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from statistics import median
from typing import Any, Final

from storeroom import timeouts
from storeroom.advice import Advice
from storeroom.exceptions import StoreroomError
from storeroom.keys import LOCK_PREFIX

__all__ = ["INTERNAL", "leave", "left", "round_trip_of"]

INTERNAL: Final = "\x00"
"""The first character of storage keys that no program's key becomes."""

_KEPT_SECONDS: Final = 86_400.0
_FIELDS: Final[Mapping[str, Any]] = {
    "written_at": int | float,
    "process": int,
    "reads": int,
    "missing_keys": int,
    "text": str,
    "changes": list,
}
_CHANGE: Final = frozenset({"setting", "before", "after", "effect"})
_READS: Final = 5
_LATE_SECONDS: Final = 600.0
"""A process that has left nothing for so long is taken to have ended, or to be read no more."""


def leave(handle: Any, advice: Advice) -> None:
    """Leave an answer, unless another process has left one from more reads lately. Nothing is raised."""
    note = {"written_at": timeouts.now(), "process": os.getpid(), "text": advice.text(), **advice.as_dict()}
    with suppress(StoreroomError):
        before = left(handle)
        if before is not None and before["process"] != os.getpid():
            is_late = timeouts.now() - before["written_at"] > _LATE_SECONDS
            if before["reads"] > advice.reads and not is_late:
                return
        handle._set(_key(handle), json.dumps(note), timeouts.now() + _KEPT_SECONDS)


def left(handle: Any) -> dict[str, Any] | None:
    """Return the answer that was left, with its text, its process and the time; None if there is none."""
    found = handle._get(_key(handle))
    if not isinstance(found, str):
        return None
    try:
        note: Any = json.loads(found)
    except ValueError:
        return None
    return note if _is_whole(note) else None


def _is_whole(note: Any) -> bool:
    """Tell whether this is an answer, as others may write to the storage."""
    if not isinstance(note, dict) or not all(isinstance(note.get(name), kind) for name, kind in _FIELDS.items()):
        return False
    return all(isinstance(change, dict) and change.keys() == _CHANGE for change in note["changes"])


def _key(handle: Any) -> str:
    """Return the storage key of the answer: the name of a lock behind the prefix.

    So no bound evicts it, and no listing and no clear() knows it; on a server the least rights for the prefix hold.
    """
    return f"{LOCK_PREFIX}{handle.key_prefix}:{INTERNAL}advice{INTERNAL}{handle.version}"


def round_trip_of(handle: Any) -> float | None:
    """Return the seconds that a read of the storage takes, of a few the one in the middle; None if it cannot be had."""
    taken = []
    with suppress(StoreroomError):
        for _ in range(_READS):
            begun = time.perf_counter()
            handle._get(f"{_key(handle)}{INTERNAL}")
            taken.append(time.perf_counter() - begun)
    return median(taken) if len(taken) == _READS else None
