"""A folder of this user's alone, in a directory that everybody may write to: made so that nobody else can take it."""

import os
import stat
from typing import Final

__all__ = ["NAME", "SHARED", "is_fit", "is_own", "made"]

NAME: Final = f"storeroom-{os.geteuid()}" if hasattr(os, "geteuid") else "storeroom"
"""The name of the folder in such a directory. On Windows each user has a directory for temporary files."""

SHARED: Final = ("/tmp", "/var/tmp")  # noqa: S108 -- what is made there is private
"""Directories of POSIX that everybody may write to."""


def is_fit(base: str) -> bool:
    """Tell whether nobody else could put a folder of theirs where one of this user's was."""
    if not os.path.isabs(base) or not os.access(base, os.W_OK | os.X_OK):
        return False
    if not hasattr(os, "geteuid"):
        return True
    status = os.stat(base)
    is_sticky = status.st_mode & stat.S_ISVTX
    return not (status.st_mode & stat.S_IWOTH and not is_sticky) and status.st_uid in {0, os.geteuid()}


def made(folder: str) -> bool:
    """Make a folder that is this user's alone; return whether there is one."""
    try:
        os.mkdir(folder, stat.S_IRWXU)
    except FileExistsError:
        pass
    except OSError:
        return False
    return is_own(folder)


def is_own(folder: str) -> bool:
    """Tell whether a folder is there, is this user's, and lets nobody else in; a link to one does not count."""
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    if not hasattr(os, "geteuid"):
        return stat.S_ISDIR(status.st_mode)
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_ours and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
