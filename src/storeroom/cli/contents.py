"""The commands about a cache as a whole: keys, clear, prune."""

import argparse
import sys

from storeroom.base import BaseCache
from storeroom.cli.configuration import open_alias, open_cache, read_alias, title
from storeroom.cli.exits import NO, YES, UsageError
from storeroom.cli.output import count_of, one_line, print_json, size
from storeroom.exceptions import NotSupportedError

__all__ = [
    "add_clear_arguments", "add_keys_arguments", "add_prune_arguments", "ask", "clear", "keys", "prune",
]  # fmt: skip


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
    found = sorted(open_cache(args, needs="keys").keys(args.prefix, version=args.key_version))
    if args.json:
        print_json(found)
    elif args.null:
        sys.stdout.writelines(f"{key}\0" for key in found)
    else:
        sys.stdout.writelines(f"{key if args.raw else one_line(key)}\n" for key in found)
    return YES


def add_clear_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of clear."""
    parser.epilog = "Removes the entries of this alias's KEY_PREFIX, in every version, and no others.\n"
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")


def clear(args: argparse.Namespace) -> int:
    """Remove all entries, if that is confirmed."""
    alias = read_alias(args)
    cache = open_alias(alias, needs="clear")
    if not args.yes and not _is_confirmed(f"{title(alias)}\nRemove {_amount(cache)}? [y/N] "):
        print("Nothing was removed.")
        return NO
    cache.clear()
    print(f"The cache {args.alias!r} is empty.")
    return YES


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
    parser.epilog = "Expired entries never show, and go as room is needed; this frees it now.\n"
    parser.add_argument("--json", action="store_true", help='print {"entries": ..., "bytes": ...}')


def prune(args: argparse.Namespace) -> int:
    """Remove expired entries now; print their number and size."""
    cache = open_cache(args, needs="prune")
    ask(cache)
    before = cache.stats().bytes
    removed = cache.prune()
    after = cache.stats().bytes
    freed = None if before is None or after is None else max(0, before - after)
    if args.json:
        print_json({"entries": removed, "bytes": freed})
    else:
        room = "" if freed is None else f", {size(freed)}"
        print(f"Removed {count_of(removed, 'expired entry', 'expired entries')}{room}.")
    return YES
