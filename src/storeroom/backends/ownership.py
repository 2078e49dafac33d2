"""Ownership of the files that hold values: reading a value can run code, so only this user may have written them.

A group may share them
by OPTIONS["group"], where values are signed. Root's directories and links are trusted by everybody: root needs no
trick. On Windows others are kept out by other means, and nothing is looked at.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from storeroom.config import Option, Settings
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.serializers.secrets import secret_of

__all__ = [
    "GROUP", "HAS_USERS", "NO_FOLLOW", "OTHERS_WRITE", "foreign_directory", "foreign_file", "foreign_link",
    "give_to_group", "group_and_secret", "refusal", "require_same", "when_given",
]  # fmt: skip

HAS_USERS: Final = hasattr(os, "geteuid")

NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags for open(): no symbolic link as the last name, and nothing for a program that is run."""

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


def _group(value: Any) -> int | None:
    expectation = "the name or number of a group of this machine, or None for this user alone"
    if value is None or value in ("", "none"):
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0 and HAS_USERS:
        return value
    try:
        import grp  # noqa: PLC0415 -- not on Windows

        return grp.getgrnam(value).gr_gid
    except (ImportError, KeyError, TypeError):
        raise ValueError(expectation) from None


GROUP: Final = Option(
    _group,
    None,
    "A group of users whose members, and root, share the files: its name or number. All of them give it, and the same "
    "`secret`. None keeps the files to the user who runs the program.",
)
"""OPTIONS["group"]."""


def group_and_secret(settings: Settings) -> tuple[int | None, Any]:
    """Return the group that shares the files, and the secret that signs their values: in Django one of Django's.

    Raises:
        ConfigurationError: a group shares them, and there is no secret.
    """
    group, secret = settings.options["group"], secret_of(settings)
    if group is not None and secret is None:
        raise ConfigurationError(
            "OPTIONS['group'] is given and OPTIONS['secret'] is not. A member of the group could store a value that "
            "runs code when another reads it; expected a secret of 16 bytes or more, the same for all members."
        )
    return group, secret


def require_same(group: int | None, other: int | None, directory: str) -> None:
    """Raise ConfigurationError where handles of one directory name two groups: one would trust the other's members."""
    if group != other:
        raise ConfigurationError(
            f"OPTIONS['group'] is {group} here and {other} in another alias of this process in the directory "
            f"{directory!r}; expected the same in both, or another LOCATION."
        )


def give_to_group(path: int | str, group: int, mode: int) -> None:
    """Hand an open file or a directory of this user's to the group, with this mode.

    Raises:
        StorageError: this user is no member of the group.
    """
    status = os.stat(path)
    if (status.st_gid, stat.S_IMODE(status.st_mode)) == (group, mode):
        return
    try:
        os.chown(path, -1, group)
    except PermissionError as error:
        raise StorageError(
            f"OPTIONS['group'] is group number {group}, of which user number {os.geteuid()} is no member, so that "
            f"{path!r} cannot be given to it. Run the program as a member: usermod -a -G, or docker run --group-add."
        ) from error
    os.chmod(path, mode)


_T = TypeVar("_T")

_GIVING_SECONDS: Final = 2.0
"""A file or directory is given to the group at once after it was made; its maker may have to wait for a processor."""


def when_given(open_files: Callable[[], _T], group: int | None, paths: Iterable[str]) -> _T:
    """Open files of a group; wait while another member has just made one of `paths`, and not given it to the group yet.

    Raises:
        StorageError, OSError: as `open_files`, where it is not for that.
    """
    deadline, is_once_more = time.monotonic() + _GIVING_SECONDS, True  # it may have been given a moment ago
    while True:
        try:
            return open_files()
        except (PermissionError, StorageError):
            is_awaited = any(map(_is_just_made, paths))
            if group is None or time.monotonic() > deadline or not (is_awaited or is_once_more):
                raise
            is_once_more = is_awaited
        time.sleep(0.002)


def _is_just_made(path: str) -> bool:
    """Tell whether another user has made it in the last seconds, and has kept it private so far."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    is_private = status.st_uid != os.geteuid() and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    return is_private and abs(time.time() - status.st_ctime) < _GIVING_SECONDS


_MOST_LINKS: Final = 40
"""As many as Linux follows in one path: path_resolution(7)."""


def refusal(reason: str, owner: int | None = None) -> StorageError:
    """Return the error of a place that is not this user's alone; `reason` names it, and `owner` is another user."""
    user = os.geteuid()
    run = "" if owner is None else f"Run this program as that user (sudo -u '#{owner}' …), "
    return StorageError(
        f"{reason}, and this process runs as user number {user}: it will not trust values that others can write. "
        f"{run or 'Remove it, '}use a LOCATION of your own, or, if all in it is yours, change it: "
        f"chown -R {user} and chmod -R go-w. Several users share files by OPTIONS['group'] and a secret."
    )


def foreign_directory(status: os.stat_result, path: str, group: int | None = None) -> str | None:
    """Say whose a directory is, if it is neither this user's nor root's, nor the group's alone."""
    is_trusted = status.st_uid in {0, os.geteuid()} or _is_of_group(status, group)
    return None if is_trusted else f"The directory {path!r} {_belongs(status)}"


def foreign_file(status: os.stat_result, path: str, names: int = 1, group: int | None = None) -> str | None:
    """Say why others may have written a file; None where only this user can have, or the group.

    Args:
        status: its own, not of what a link leads to.
        path: for the message.
        names: the most hard links that it may have.
        group: the number of the group whose members may write, or None.
    """
    if stat.S_ISLNK(status.st_mode):
        return f"{path!r} is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return f"{path!r} is no regular file"
    is_of_group = _is_of_group(status, group)
    if status.st_uid != os.geteuid() and not is_of_group:
        return f"{path!r} {_belongs(status)}"
    if status.st_mode & OTHERS_WRITE and not is_of_group:
        return f"{path!r} has mode {stat.S_IMODE(status.st_mode):04o}, so that others can write to it"
    if status.st_nlink > names:
        return f"{path!r} has another name elsewhere (a hard link)"
    return None


def foreign_link(path: str) -> str | None:
    """Say which symbolic link on the way to an absolute path was made by a user other than this one and root."""
    if not HAS_USERS:
        return None
    names, links, here = _parts(path), 0, os.sep
    while names:
        name = names.pop()
        there = os.path.join(here, name)
        if name == os.pardir:  # links before it are followed already
            here = os.path.dirname(here)
        elif not os.path.islink(there):
            here = there
        else:
            owner, target, links = os.lstat(there), os.readlink(there), links + 1
            if owner.st_uid not in {0, os.geteuid()} or links > _MOST_LINKS:
                return f"The symbolic link {there!r} {_belongs(owner)}"
            here = os.sep if os.path.isabs(target) else here
            names += _parts(target)
    return None


def _parts(path: str) -> list[str]:
    """Return the names in a path of POSIX, the last one first."""
    return [name for name in reversed(path.split(os.sep)) if name not in ("", os.curdir)]


def _is_of_group(status: os.stat_result, group: int | None) -> bool:
    """Tell whether a file or directory is the group's, and nobody else can write to it."""
    return group is not None and status.st_gid == group and not status.st_mode & stat.S_IWOTH


def _belongs(status: os.stat_result) -> str:
    return (
        f"belongs to user number {status.st_uid}, group number {status.st_gid} "
        f"(mode {stat.S_IMODE(status.st_mode):04o})"
    )
