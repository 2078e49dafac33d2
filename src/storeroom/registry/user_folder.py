"""The folder that this user's caches lie in where nothing is configured; a private one, or none."""

import os
from typing import Final

from storeroom import private_folder
from storeroom.late import logger_of

__all__ = ["own_directory", "own_folders"]

_log = logger_of("storeroom")

_told: set[str] = set()

_SHARED: Final = private_folder.SHARED


def own_directory(name: str) -> tuple[str | None, str]:
    """Return the first directory of this name that can be used, or None, and why it is not the first of all, or "".

    It lies in ``storeroom`` in the user's cache directory (on Linux XDG_CACHE_HOME, else ~/.cache), or, on POSIX, in
    ``storeroom-<user id>`` in TMPDIR, /tmp or /var/tmp, which is made at once: nobody else can then make it. Any but
    the first is logged, once in a process.
    """
    directory: str | None
    directory, reason = _in_home(name)
    if reason:
        directory = _temporary(name)
        _warn_once(reason, directory or "the memory of this process")
    return directory, reason


def own_folders() -> list[str]:
    """Return the folders that are there in which own_directory() may have chosen one, each once."""
    folders = [os.path.dirname(_in_home("x")[0])]
    if hasattr(os, "getuid"):
        bases = (os.environ.get("TMPDIR", ""), *_SHARED)
        temporary = (os.path.join(base, private_folder.NAME) for base in bases if private_folder.is_fit(base))
        folders += filter(private_folder.is_own, temporary)
    return [folder for folder in dict.fromkeys(folders) if os.path.isabs(folder) and os.path.isdir(folder)]


def _warn_once(reason: str, instead: str) -> None:
    text = (
        f"Nothing is configured, and {reason}. The cache is in {instead} instead. "
        "Set CACHE_URL to choose, such as CACHE_URL=file:///var/cache/app"
    )
    if text not in _told:
        _told.add(text)
        _log.warning(text)


def _in_home(name: str) -> tuple[str, str]:
    """Return the directory in the user's cache directory, and the reason why it cannot be used, or ""."""
    import platformdirs  # noqa: PLC0415 -- only where nothing is configured

    try:
        directory = str(platformdirs.user_cache_path("storeroom", appauthor=False) / name)
    except RuntimeError:  # Path.home(), where neither HOME nor an entry in passwd tells
        directory = ""
    if not os.path.isabs(directory):
        return directory, "there is no home directory for it"
    there = directory
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        return directory, f"{directory} cannot be written to"
    # A folder made in another user's would be at their mercy; and root leaves none in the home that sudo has kept.
    is_anothers = hasattr(os, "getuid") and os.stat(there).st_uid not in {0, os.geteuid()}
    return directory, f"{there} belongs to another user" if is_anothers else ""


def _temporary(name: str) -> str | None:
    """Return the directory in a private folder in that of temporary files, or None."""
    if not hasattr(os, "getuid"):
        return None
    for base in (os.environ.get("TMPDIR", ""), *_SHARED):
        folder = os.path.join(base, private_folder.NAME)
        if private_folder.is_fit(base) and private_folder.made(folder):
            return os.path.join(folder, name)
    return None
