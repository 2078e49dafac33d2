"""The processes of this user, asked and answering by files in a private folder: see storeroom.engines.watching."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storeroom import private_folder
from storeroom.engines.counts import less
from storeroom.engines.showing import FORM
from storeroom.engines.watching import PATIENCE_SECONDS, SIGN, VARIABLE, folders
from storeroom.exceptions import StorageError

__all__ = ["Report", "Watcher", "open_folder"]

_KEPT_SECONDS: Final = 60.0
"""A record that was not written for so long is removed: its process was killed, or the machine was."""

_FIELDS: Final[Mapping[str, Any]] = {
    "pid": int,
    "started_at": int | float,
    "at": int | float,
    "program": str,
    "directory": str,
    "caches": list,
}
_OF_CACHE: Final[Mapping[str, Any]] = {
    "aliases": list,
    "backend": str,
    "key_prefix": str,
    "is_shared": bool,
    "counts_hits": bool,
    "counted": dict,
}


def open_folder() -> Path:
    """Return the folder in which processes are asked, made if it is not there.

    Raises:
        StorageError: there is none that is this user's alone.
    """
    named = os.environ.get(VARIABLE)
    for folder, around in folders():
        if named is None and not private_folder.is_fit(os.path.dirname(around)):
            continue
        if private_folder.made(around) and (folder == around or private_folder.made(folder)):
            return Path(folder)
    if named == "":
        raise StorageError(f"{VARIABLE} is empty, so that no process shows its counts. Remove it, or name a folder.")
    if named is not None:
        raise StorageError(
            f"{VARIABLE} is {named!r}; expected a folder of this user that lets nobody else in (mode 0700), or one "
            "that can be made."
        )
    tried = " and ".join(around for _, around in folders())
    raise StorageError(
        f"No folder can be had in which processes answer: {tried} cannot be made, or let others in. "
        f"Set {VARIABLE} to a folder that is yours alone, for this command and for the programs."
    )


@dataclass(frozen=True, slots=True)
class Report:
    """The answer of a process, and its growth since the one before.

    Attributes:
        record: see storeroom.engines.showing.
        grown: for each cache its growth per second, by the names of its counts; nothing at first.
        is_late: whether the process has not answered for some seconds: it is stopped, or very busy.
    """

    record: Mapping[str, Any]
    grown: tuple[Mapping[str, Any], ...]
    is_late: bool = False


class Watcher:
    """Asks the processes, and reads their answers.

    Args:
        folder: as open_folder() returns it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Report] = {}

    def look(self) -> list[Report]:
        """Ask, and return the reports of all processes that have answered by now, the oldest process first."""
        sign = self._folder / SIGN
        sign.touch(0o600)
        os.utime(sign)
        found = {path.name: record for path, record in self._records()}
        now = time.time()
        known, self._known = self._known, {}
        for name, record in found.items():
            self._known[name] = _report(record, known.get(name), now)
        return sorted(self._known.values(), key=lambda report: (report.record["started_at"], report.record["pid"]))

    def close(self) -> None:
        """Ask no more."""
        with suppress(OSError):
            (self._folder / SIGN).unlink()

    def _records(self) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        for path in self._folder.glob("*.json"):
            with suppress(OSError, ValueError):  # it is being removed; or nobody knows whose it is
                age = time.time() - path.stat().st_mtime
                record = json.loads(path.read_bytes())
                if not _is_sound(record):
                    continue
                if _is_running(record["pid"]):
                    yield path, record
                elif age > PATIENCE_SECONDS:
                    path.unlink()
                continue
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()


def _report(record: Mapping[str, Any], before: Report | None, now: float) -> Report:
    is_late = now - record["at"] > PATIENCE_SECONDS
    if before is None or before.record["started_at"] != record["started_at"]:
        return Report(record, tuple({} for _ in record["caches"]), is_late)
    seconds = record["at"] - before.record["at"]
    if seconds <= 0:  # the same as before
        return Report(record, before.grown if not is_late else tuple({} for _ in record["caches"]), is_late)
    old = {_name(cache): cache["counted"] for cache in before.record["caches"]}
    grown = (_scaled(less(cache["counted"], old.get(_name(cache), {})), 1 / seconds) for cache in record["caches"])
    return Report(record, tuple(grown), is_late)


def _name(cache: Mapping[str, Any]) -> tuple[Any, ...]:
    return *cache["aliases"], cache["backend"], cache["key_prefix"]


def _scaled(counted: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return counts times a factor; one that has become less was begun anew, and counts as zero."""
    return {
        name: _scaled(number, factor) if isinstance(number, Mapping) else max(0.0, number * factor)
        for name, number in counted.items()
    }


def _is_sound(record: Any) -> bool:
    """Tell whether this is a record of a version that is known."""
    if not isinstance(record, dict) or record.get("form") != FORM:
        return False
    return _has(record, _FIELDS) and all(
        isinstance(cache, dict) and _has(cache, _OF_CACHE) for cache in record["caches"]
    )


def _has(record: Mapping[str, Any], kinds: Mapping[str, Any]) -> bool:
    return all(isinstance(record.get(name), kind) for name, kind in kinds.items())


def _is_running(pid: int) -> bool:
    if not hasattr(os, "geteuid"):  # on Windows os.kill() ends a process, whatever the signal is
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
