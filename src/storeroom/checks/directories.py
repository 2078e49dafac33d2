"""The directory of a file cache, which only this program should write, and no web server hand out."""

import os
import shlex
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject

__all__ = ["check_directory"]

NETWORK: Final = Rule(
    "storeroom.E004",
    "The cache directory lies on a network file system",
    "The file cache maps its data into memory and locks it among the processes of one machine. Over a network "
    "neither holds: entries get damaged.",
)
FOREIGN: Final = Rule(
    "storeroom.E005",
    "The cache directory belongs to another user",
    "Reading a cached value can run code that its writer put into it, so Storeroom opens no directory and no file "
    "that another user owns or may have written: the first use of the cache fails.",
)
READABLE: Final = Rule(
    "storeroom.W011",
    "Others can look into the cache directory",
    "A cache holds what the program computes for its users: pages, sessions, personal data. Other accounts of "
    "this machine can read it.",
)
WRITABLE: Final = Rule(
    "storeroom.W012",
    "Others can write where the cache directory lies",
    "Another account can remove or rename the cache, or make its directory first; Storeroom then refuses to use it.",
)
SERVED: Final = Rule(
    "storeroom.W013",
    "The cache directory lies in a folder that is served",
    "A web server may hand the cache to whoever asks for it by name, with all the data in it.",
)
SOURCE: Final = Rule(
    "storeroom.W014",
    "The cache directory lies among source code",
    "Cached data gets committed, packaged and deployed with the program, and a reloader may restart the program "
    "each time the cache changes.",
)

NETWORK_TYPES: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gfs2", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "orangefs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs",
    "fuse.ceph", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.gvfsd-fuse", "fuse.rclone", "fuse.s3fs",
    "fuse.sshfs",
})  # fmt: skip
"""Types of /proc/mounts whose files other machines hold or share. LMDB's documentation: "Do not use LMDB
databases on remote filesystems, even between processes on the same host" (lmdb.h, Caveats)."""

SERVED_NAMES: Final = frozenset(
    {"htdocs", "public", "public_html", "static", "staticfiles", "webroot", "www", "wwwroot"}
)
"""Names that folders handed out by web servers usually have."""

_OUTSIDE: Final = {"LOCATION": "/var/cache/app"}


def check_directory(alias: Subject) -> Iterator[Finding]:
    """Find a directory that is wrong or risky."""
    yield from _check_owners(alias)
    if alias.directory is None:
        return
    for check in (_check_network, _check_folder, _check_writers, _check_served, _check_source):
        yield from check(alias, alias.directory)


def _check_network(alias: Subject, directory: Path) -> Iterator[Finding]:
    mounts = alias.context.mounts
    points = [point for point in mounts if directory.is_relative_to(point)]
    point = max(points, key=lambda point: len(point.parts), default=None)
    if point is not None and mounts[point] in NETWORK_TYPES:
        what = f"{directory} lies in {point}, which is mounted as {mounts[point]}."
        remedy = "Keep it on a disk of this machine; for several machines use a server, such as Redis."
        yield NETWORK.broken(alias.name, what, remedy, _OUTSIDE)


def _check_owners(alias: Subject) -> Iterator[Finding]:
    """Find a place or a file, SQLite's too, that others own or may have written."""
    for reason in alias.told("distrusted") or ():
        remedy = "If all in it is this program's, change owner and mode; or use another directory:"
        yield FOREIGN.broken(alias.name, f"{reason}.", remedy, _OUTSIDE)


def _check_folder(alias: Subject, _: Path) -> Iterator[Finding]:
    """Find a folder of entries that is another user's, or that somebody has opened: Storeroom makes it private."""
    user_id = alias.context.user_id
    group = alias.settings.options.get("group") if alias.settings is not None else None
    if alias.entries is None or user_id is None:
        return
    try:
        status = alias.entries.stat()
    except OSError:  # it is not made yet
        return
    is_of_group = group is not None and status.st_gid == group
    if status.st_uid != user_id and not is_of_group and not alias.entries.is_symlink():
        owner, user = _user_name(status.st_uid), _user_name(user_id)
        what = f"{alias.entries} belongs to {owner}; this check runs as {user}."
        remedy = "Run the program, and this check, as one user; or use another directory:"
        yield FOREIGN.broken(alias.name, what, remedy, _OUTSIDE)
    if status.st_mode & (stat.S_IRWXO if is_of_group else stat.S_IRWXG | stat.S_IRWXO):
        command = f"chmod 700 {shlex.quote(str(alias.entries))}"
        yield READABLE.broken(alias.name, _mode(alias.entries, status), "Keep it to its owner:", command=command)


def _check_writers(alias: Subject, directory: Path) -> Iterator[Finding]:
    """Find a LOCATION such as /tmp, where everybody may make and remove things."""
    if alias.context.user_id is None or not directory.is_dir():
        return
    status = directory.stat()
    if status.st_mode & stat.S_IWOTH:
        remedy = "Use a directory that only this program's user can write:"
        yield WRITABLE.broken(alias.name, _mode(directory, status), remedy, _OUTSIDE)


def _mode(directory: Path, status: os.stat_result) -> str:
    return f"{directory} has mode {stat.S_IMODE(status.st_mode):04o}, {stat.filemode(status.st_mode)}."


def _user_name(user_id: int) -> str:
    import pwd  # noqa: PLC0415 -- POSIX only, as user numbers are

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _check_served(alias: Subject, directory: Path) -> Iterator[Finding]:
    """Find a directory below one that a web server hands out, by Django's settings or by its name."""
    settings = {name: Path(os.path.realpath(folder)) for name, folder in alias.context.served_folders.items()}
    named = (f"{name}, {folder}" for name, folder in settings.items() if directory.is_relative_to(folder))
    usual = (
        f"{folder}, a name that served folders usually have"
        for folder in reversed((directory, *directory.parents))
        if folder.name.lower() in SERVED_NAMES
    )
    served = next(chain(named, usual), None)
    if served is not None:
        yield SERVED.broken(alias.name, f"{directory} lies in {served}.", "Keep it outside:", _OUTSIDE)


def _check_source(alias: Subject, directory: Path) -> Iterator[Finding]:
    """Find a directory inside a git work tree that does not ignore it, or inside a Python package."""
    folders = (directory, *directory.parents)
    package = next((path for path in folders if (path / "__init__.py").is_file()), None)
    tree = next((path for path in folders if (path / ".git").exists()), None)
    if package is not None:
        what = f"{directory} lies in the Python package {package}."
        yield SOURCE.broken(alias.name, what, "Keep it outside:", _OUTSIDE)
    elif tree is not None and not _is_ignored(directory, tree):
        what = f"{directory} lies in the git work tree {tree}, whose .gitignore does not name it."
        yield SOURCE.broken(alias.name, what, "Name it in .gitignore, or keep it outside:", _OUTSIDE)


def _is_ignored(directory: Path, tree: Path) -> bool:
    """Tell whether a .gitignore from the work tree's root down to the directory names it or a folder above it.

    Plain names and paths are understood, and a lone "*"; for other patterns git would have to be asked.
    """
    for folder in (directory, *directory.parents):
        below = directory.relative_to(folder)
        paths = {str(path) for path in (below, *below.parents) if path.parts}
        is_ignored = bool(_gitignore(folder / ".gitignore") & {*paths, *below.parts, "*"})
        if is_ignored or folder == tree:
            return is_ignored
    return False


def _gitignore(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.strip().strip("/") for line in lines)
