"""``storeroom list``: the embedded caches of this user, and the one that a name leads to."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storeroom.cli.exits import NO, YES, UsageError
from storeroom.cli.output import ago, columns, plain, print_json, size
from storeroom.cli.progress import progress
from storeroom.exceptions import StoreroomError
from storeroom.registry.aliases import Alias, read_alias
from storeroom.registry.embedded import EmbeddedCache, embedded_caches
from storeroom.wording import nearest

__all__ = ["add_arguments", "alias_of", "named_cache", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of list."""
    parser.epilog = """\
Where nothing is configured, each project and each program has a cache of its
own in a folder of its user. Exits 1 if there is none.

examples:
  storeroom list
  storeroom clear --program shop
  storeroom prune --all
"""
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    """List the embedded caches."""
    with progress("Looking into the caches"):
        found = [(each, _entries(each)) for each in embedded_caches()]
    if args.json:
        print_json([_as_dict(each, entries) for each, entries in found])
    elif found:
        rows = (_row(each, entries) for each, entries in found)
        head = ("name", "entries", "on disk", "last use", "program")
        print(columns([head, *rows], right=(1, 2), yields=4))
    else:
        print("This user has no embedded caches.")
    return YES if found else NO


def alias_of(each: EmbeddedCache) -> Alias:
    """Return the alias that leads to an embedded cache."""
    return read_alias("default", each.settings(), None)


def _entries(each: EmbeddedCache) -> int | None:
    """Return the number of entries; None where the files cannot be read."""
    try:
        return alias_of(each).build().stats().entries
    except StoreroomError:
        return None


def _row(each: EmbeddedCache, entries: int | None) -> tuple[str, ...]:
    program = (plain(each.program) or "unknown") + (" (gone)" if each.is_abandoned else "")
    known = "unknown" if entries is None else f"{entries:,}"
    return plain(each.name), known, size(each.disk_bytes), ago(each.used_at), program


def _as_dict(each: EmbeddedCache, entries: int | None) -> dict[str, Any]:
    return {
        "name": each.name,
        "directory": each.directory,
        "program": each.program or None,
        "is_abandoned": each.is_abandoned,
        "entries": entries,
        "disk_bytes": each.disk_bytes,
        "used_at": datetime.fromtimestamp(each.used_at, UTC).isoformat(timespec="seconds"),
    }


def named_cache(name: str) -> EmbeddedCache:
    """Return the embedded cache of this name, of the program at this path, or of a folder of this name.

    Raises:
        UsageError: there is none, or there are several.
    """
    everyone = list(embedded_caches())
    found = [each for each in everyone if name in _names(each)]
    exact = [each for each in found if name in {each.name, each.directory}]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        names = ", ".join(repr(each.name) for each in found)
        raise UsageError(f"--program is {name!r}, which several have: {names}. Pass one of these names.")
    known = [each.name for each in everyone]
    raise UsageError(
        f"There is no embedded cache {name!r}.{nearest(name, known)} `storeroom list` shows those there are."
    )


def _names(each: EmbeddedCache) -> set[str]:
    path = each.program.partition(" ")[2]
    return {each.name, each.directory, each.name.rpartition("-")[0], path, Path(path).name} - {""}
