"""The folder of a file cache's files: made for this user or a group, and opened without following a link into it.

Its files are looked at once: when it is this user's with mode 0700, nobody else can put another in their place.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from storeroom import config
from storeroom.backends.ownership import (
    HAS_USERS,
    NO_FOLLOW,
    foreign_directory,
    foreign_file,
    foreign_link,
    give_to_group,
    refusal,
)
from storeroom.exceptions import ConfigurationError

__all__ = ["distrusted", "is_same", "open_folder", "open_own", "paths_of", "resolved", "share", "way_into"]

_FILES: Final = ("data.mdb", "lock.mdb", "slots", "slots.new", "writer", "guard", "ballast")


def paths_of(directory: str) -> list[str]:
    """Return the paths that are made when a cache begins."""
    return [os.path.dirname(directory), directory, *(os.path.join(directory, name) for name in _FILES)]


_PRIVATE: Final = 0o700
_SHARED: Final = 0o2770, 0o660
"""Modes of a folder and a file of a group. Files made in the folder are the group's, too."""

_groups: dict[str, int] = {}
"""Path of a folder to the number of the group that shares it: as the environment in it was told last."""


def share(directory: str, group: int | None) -> None:
    """Let a group share the folder and its files from now on, or nobody if it is None."""
    if group is None:
        _groups.pop(directory, None)
    else:
        _groups[directory] = group


_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0) | NO_FOLLOW

_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)
"""Opening a FIFO waits for the other end."""


def resolved(location: str | os.PathLike[str]) -> str:
    """Return a LOCATION's path: absolute, without links.

    Raises:
        ConfigurationError: it is empty, a URL, or a link of another user leads to it.
    """
    if not location:
        raise ConfigurationError("LOCATION is empty; a file cache needs a directory of its own.")
    config.require_path(str(location))
    path = os.path.expanduser(location)
    path = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    if reason := foreign_link(path):
        raise ConfigurationError(
            f"LOCATION is {str(location)!r}. {reason}, who can make it lead to another directory at any time; expected "
            "a directory, or a link of this user or root."
        )
    return os.path.realpath(path)


def open_folder(directory: str) -> int:
    """Open the folder, made with its parents when needed; return its descriptor, or -1 on Windows.

    Raises:
        StorageError: others own it or what it lies in, or may have written one of its files; or this user is no member
            of the group that shares it.
        OSError: it cannot be made.
    """
    location, name = os.path.split(directory)
    group = _groups.get(directory)
    _make(location, group)
    if not HAS_USERS:
        _make(directory, None)
        return -1
    outer = os.open(location, _DIRECTORY | getattr(os, "O_PATH", 0))
    try:
        owner = os.fstat(outer)
        if reason := foreign_directory(owner, location, group):
            raise refusal(reason, owner.st_uid)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, _PRIVATE, dir_fd=outer)
        folder = _open_within(outer, name, directory, group)
    finally:
        os.close(outer)
    try:
        _keep_private(folder, directory, group)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _make(directory: str, group: int | None) -> None:
    """Make a directory and its parents, for this user only, or the group."""
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _PRIVATE)
            if group is not None:
                give_to_group(path, group, _SHARED[0])


def _open_within(outer: int, name: str, path: str, group: int | None) -> int:
    owner = os.stat(name, dir_fd=outer, follow_symlinks=False)
    if owner.st_uid != os.geteuid() and (group is None or foreign_directory(owner, path, group)):
        raise refusal(f"The cache directory {path!r} belongs to user number {owner.st_uid}", owner.st_uid)
    try:
        return os.open(name, os.O_RDONLY | _DIRECTORY, dir_fd=outer)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR} or not stat.S_ISLNK(owner.st_mode):
            raise
        raise refusal(f"The cache directory {path!r} is a symbolic link") from error


def _keep_private(folder: int, path: str, group: int | None) -> None:
    status = os.fstat(folder)
    is_ours = status.st_uid == os.geteuid()
    if not is_ours and (group is None or foreign_directory(status, path, group)):
        raise refusal(f"The cache directory {path!r} belongs to user number {status.st_uid}", status.st_uid)
    if group is not None:
        if is_ours:
            give_to_group(folder, group, _SHARED[0])
    elif stat.S_IMODE(status.st_mode) != _PRIVATE:
        os.chmod(folder, _PRIVATE)  # first: from now on no file is changed by others
    for reason, owner in _foreign_files(folder, path, group):
        raise refusal(reason, owner)


def _foreign_files(folder: int | None, path: str, group: int | None) -> Iterator[tuple[str, int | None]]:
    """Yield the reason why a file within is not trusted, and its owner if that is another user."""
    for name in _FILES:
        file = os.path.join(path, name)
        try:
            status = os.stat(file if folder is None else name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if reason := foreign_file(status, file, group=group):
            yield reason, None if status.st_uid == os.geteuid() else status.st_uid


def distrusted(directory: str, group: int | None = None) -> list[str]:
    """Return the reasons why open_folder() would refuse the folder, without making or opening anything.

    Nothing is told of the folder itself where it is another user's, nor of files that this user may not see.
    """
    location, reasons = os.path.dirname(directory), list[str]()
    if not HAS_USERS:
        return reasons
    with contextlib.suppress(OSError):
        if reason := foreign_directory(os.stat(location), location, group):
            reasons.append(reason)
        owner = os.lstat(directory)
        if stat.S_ISLNK(owner.st_mode):
            whose = "" if owner.st_uid == os.geteuid() else f" and belongs to user number {owner.st_uid}"
            reasons.append(f"The cache directory {directory!r} is a symbolic link{whose}")
        elif owner.st_uid == os.geteuid() or not foreign_directory(owner, directory, group):
            reasons += [reason for reason, _ in _foreign_files(None, directory, group)]
    return reasons


def open_own(path: str, flags: int) -> int:
    """Open a file of this user or the folder's group, made when `flags` has O_CREAT; return its descriptor.

    Raises:
        StorageError: it is a link, or others may have written it.
        OSError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | NO_FOLLOW | _NO_WAIT, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO} and HAS_USERS:
            raise refusal(f"{path!r} is a symbolic link or no regular file") from error
        raise
    if not HAS_USERS:
        return descriptor
    try:
        _require_own(descriptor, path, _groups.get(os.path.dirname(path)))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(descriptor: int, path: str, group: int | None) -> None:
    status = os.fstat(descriptor)
    if reason := foreign_file(status, path, group=group):
        raise refusal(reason)
    if group is not None and status.st_uid == os.geteuid():
        give_to_group(descriptor, group, _SHARED[1])


def is_same(descriptor: int, path: str) -> bool:
    """Tell whether an open file still lies at its path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def way_into(folder: int, directory: str) -> str:
    """Return a path that leads into the open folder, whatever others rename, for a library that takes paths alone."""
    way = f"/proc/self/fd/{folder}"
    is_there = folder >= 0 and os.path.exists(way) and os.path.samestat(os.fstat(folder), os.stat(way))
    return way if is_there else directory
