"""The commands about a cache as a whole: keys, clear, prune."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from storeroom.base import BaseCache
from storeroom.cli.configuration import open_alias, open_cache, read_alias, title
from storeroom.cli.embedded import alias_of, named_cache
from storeroom.cli.exits import NO, YES, UsageError
from storeroom.cli.output import count_of, one_line, plain, print_json, size
from storeroom.cli.progress import progress
from storeroom.exceptions import NotSupportedError
from storeroom.registry.embedded import embedded_caches

__all__ = [
    "add_clear_arguments", "add_keys_arguments", "add_prune_arguments", "ask", "clear", "give_back", "keys", "prune",
]  # fmt: skip


_WORTH_TELLING: Final = 2**20
"""Bytes on the disk: less is the coming and going of the bookkeeping."""


def add_keys_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of keys."""
    parser.epilog = """\
Prints the keys as the program types them, one a line, sorted. A key that has
lines of its own is quoted as in Python, and on a terminal any that it would not
show as it is; --raw and --null print all as they are.

examples:
  storeroom keys
  storeroom keys user: | wc -l
  storeroom keys --null user: | xargs -0 storeroom delete
"""
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin with this")
    parser.add_argument("--key-version", type=int, metavar="N", help="version of the keys (default: VERSION)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list")
    form.add_argument("--raw", action="store_true", help="quote no key")
    form.add_argument("--null", "-0", action="store_true", help="quote no key, and end each with NUL, for xargs -0")


def keys(args: argparse.Namespace) -> int:
    """List the keys."""
    cache = open_cache(args, needs="keys")
    with progress("Listing keys"):
        found = sorted(cache.keys(args.prefix, version=args.key_version))
    if args.json:
        print_json(found)
    elif args.null:
        sys.stdout.writelines(f"{key}\0" for key in found)
    else:
        sys.stdout.writelines(f"{key if args.raw else one_line(key)}\n" for key in found)
    return YES


def add_clear_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of clear."""
    parser.epilog = """\
Removes the entries of this alias's KEY_PREFIX, in every version, and no others.
The disk space of a file cache, and of a file of SQLite, is given back.

examples:
  storeroom clear
  storeroom clear --program shop
"""
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    program = "the embedded cache of this name, program or folder: see storeroom list"
    parser.add_argument("--program", metavar="NAME", help=program)
    parser.add_argument("--json", action="store_true", help='print {"cleared": ..., "disk_bytes": ...}')


def clear(args: argparse.Namespace) -> int:
    """Remove all entries, if that is confirmed."""
    embedded = None if args.program is None else named_cache(args.program)
    alias = read_alias(args) if embedded is None else alias_of(embedded)
    cache = open_alias(alias, needs="clear")
    if not args.yes and not _is_confirmed(f"{title(alias)}\nRemove {_amount(cache)}? [y/N] "):
        print("Nothing was removed.")
        return NO
    with progress("Clearing"):
        cache.clear()
        freed = give_back(cache)
    name = args.alias if embedded is None else embedded.name
    if args.json:
        print_json({"cleared": name, "disk_bytes": freed})
    else:
        print(f"The cache {str(name)!r} is empty.{_freed_disk(freed)}")
    return YES


def give_back(cache: BaseCache) -> int | None:
    """Give disk space back; return the bytes, or None where the storage has none of its own."""
    found: Any = getattr(cache, "give_back", lambda: None)
    given: int | None = found()
    return given


def _freed_disk(freed: int | None) -> str:
    return f" {size(freed)} on the disk are free again." if freed and freed >= _WORTH_TELLING else ""


def _is_confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("clear removes all entries and asks before it does; where nobody can answer, pass --yes.")
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def _amount(cache: BaseCache) -> str:
    """Return the number of entries, where the storage can count those of this alias."""
    try:
        return f"all entries, {cache.count():,} of the current version"
    except (AttributeError, NotSupportedError):
        return "all entries"


def ask(cache: BaseCache) -> None:
    """Raise StorageError if a server is out of reach, also where the command itself has nothing to ask it."""
    cache.has_key("")


def add_prune_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of prune."""
    parser.epilog = """\
Expired entries never show, and go as room is needed; this frees it now, on the
disk, too.
"""
    parser.add_argument("--all", action="store_true", help="those of all embedded caches of this user")
    parser.add_argument("--json", action="store_true", help='print {"entries": ..., "bytes": ..., "disk_bytes": ...}')


def prune(args: argparse.Namespace) -> int:
    """Remove expired entries now; print their number and size."""
    if args.all:
        return _prune_all(args)
    cache = open_cache(args, needs="prune")
    ask(cache)
    with progress("Removing expired entries"):
        found = _pruned(cache)
    if args.json:
        print_json(found)
    else:
        print(_told(found))
    return YES


def _prune_all(args: argparse.Namespace) -> int:
    found: dict[str, Any] = {}
    for each in embedded_caches():
        with progress(f"Removing expired entries of {plain(each.name)}"):
            found[each.name] = _pruned(open_alias(alias_of(each), needs="prune"))
        if not args.json:
            print(f"{plain(each.name)}: {_told(found[each.name])}")
    if args.json:
        print_json(found)
    elif not found:
        print("This user has no embedded caches.")
    return YES


def _pruned(cache: BaseCache) -> dict[str, int | None]:
    before = cache.stats().bytes
    removed = cache.prune()
    after = cache.stats().bytes
    freed = None if before is None or after is None else max(0, before - after)
    return {"entries": removed, "bytes": freed, "disk_bytes": give_back(cache)}


def _told(found: Mapping[str, int | None]) -> str:
    room = "" if found["bytes"] is None else f", {size(found['bytes'])}"
    removed = count_of(found["entries"] or 0, "expired entry", "expired entries")
    return f"Removed {removed}{room}.{_freed_disk(found['disk_bytes'])}"
