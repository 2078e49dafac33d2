"""The embedded caches of this user: those of all projects and programs that had no configuration.

Each lies in a folder of its own, whose name does not tell the program: so the first one to use it leaves a note there.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from storeroom.registry.program import Owner, find_owner
from storeroom.registry.sources import embedded
from storeroom.registry.user_folder import own_folders

__all__ = ["EmbeddedCache", "embedded_caches", "note_program"]

_NOTE = "program"


@dataclass(frozen=True, slots=True)
class EmbeddedCache:
    """An embedded cache.

    Attributes:
        name: of its folder.
        directory: the folder.
        program: its owner, such as "project /home/ada/shop"; "" where no program has left a note.
        used_at: epoch seconds of the last write, or of the last time that a program began or ended to use it.
        disk_bytes: the room that it takes.
    """

    name: str
    directory: str
    program: str
    used_at: float
    disk_bytes: int

    @property
    def is_abandoned(self) -> bool:
        """Whether its project or program is known, and gone."""
        return bool(self.program) and not os.path.lexists(self.program.partition(" ")[2])

    def settings(self) -> dict[str, Any]:
        """Return the dict of an alias that leads to it."""
        return embedded(self.directory)


def embedded_caches() -> Iterator[EmbeddedCache]:
    """Yield the embedded caches of this user, by name."""
    for folder in own_folders():
        for name in sorted(os.listdir(folder)):
            directory = os.path.join(folder, name)
            files = list(_files(directory))
            if files:
                used_at = max(status.st_mtime for status in files)
                yield EmbeddedCache(name, directory, _program(directory), used_at, sum(map(_room, files)))


def _files(directory: str) -> Iterator[os.stat_result]:
    """Yield the status of each file of the cache: those within the folder of its format."""
    with suppress(OSError):
        for inner in os.scandir(directory):
            if inner.name.startswith("storeroom-") and inner.is_dir(follow_symlinks=False):
                for file in os.scandir(inner.path):
                    with suppress(FileNotFoundError):  # removed meanwhile
                        yield file.stat(follow_symlinks=False)


def _room(status: os.stat_result) -> int:
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def _program(directory: str) -> str:
    try:
        with open(os.path.join(directory, _NOTE), encoding="utf-8", errors="surrogateescape") as file:
            return file.read(8192).rstrip("\n")
    except OSError:
        return ""


def note_program(directory: str, owner: Owner | None = None) -> None:
    """Leave the program's name in its cache's folder, if there is none yet; a note is not worth an error."""
    owner = owner or find_owner()
    with suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(directory, _NOTE), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"{owner.kind} {owner.path}\n")
