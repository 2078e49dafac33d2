"""The commands about single keys: get, set, delete, incr, ttl."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from storeroom.base import BaseCache
from storeroom.cli.configuration import explain_default, open_cache
from storeroom.cli.exits import NO, YES, UsageError
from storeroom.cli.output import count_of, print_json, print_text
from storeroom.cli.progress import progress
from storeroom.late import pattern
from storeroom.timeouts import DEFAULT_TIMEOUT

__all__ = [
    "add_delete_arguments", "add_get_arguments", "add_incr_arguments", "add_set_arguments", "add_ttl_arguments",
    "delete", "get", "incr", "set_value", "ttl",
]  # fmt: skip

_ABSENT: Final = object()

# A number that is printed as it was typed: "007", "+5" and "1_000" are not.
_WHOLE_NUMBER: Final = pattern(r"0|-?[1-9][0-9]*")


def _add_key(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    parser.add_argument("key", metavar="KEY", nargs="+" if many else None, help="as the program types it")
    parser.add_argument("--key-version", type=int, metavar="N", help="version of the key (default: VERSION)")


def _no_such_key(args: argparse.Namespace, cache: BaseCache) -> int:
    is_there = cache.has_key(args.key, version=args.key_version)
    why = "is there, but its value cannot be read here" if is_there else "is not in the cache"
    print(f"Key {args.key!r} {why}.{explain_default(args)}", file=sys.stderr)
    return NO


def add_get_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of get."""
    parser.epilog = """\
A string is printed as it is; any other value as JSON, or as Python shows it
where JSON cannot hold it; bytes are written as they are, unless to a terminal.
To a terminal, characters that would make it do something are escaped.
With --json every value is JSON, or the command fails.

examples:
  storeroom get greeting
  storeroom get user:7 --json | jq .name
"""
    _add_key(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the value as JSON, strings too")
    form.add_argument("--raw", action="store_true", help="print it as it is to a terminal, too, whatever that does")


def get(args: argparse.Namespace) -> int:
    """Print the value of a key."""
    cache = open_cache(args, needs="get")
    value: Any = cache.get(args.key, _ABSENT, version=args.key_version)
    if value is _ABSENT:
        return _no_such_key(args, cache)
    if isinstance(value, bytes) and not args.json and (args.raw or not sys.stdout.isatty()):
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        return YES
    is_text = isinstance(value, str) and not args.json
    print_text(value if is_text else _dumped(args, value), raw=args.raw)
    return YES


def _dumped(args: argparse.Namespace, value: Any) -> str:
    try:
        text: str = import_module("json").dumps(value, ensure_ascii=args.json and sys.stdout.isatty())
    except (TypeError, ValueError) as error:
        if not args.json:
            return repr(value)
        wrong = f"The value of key {args.key!r} is not JSON ({error}); without --json it is printed."
        raise UsageError(wrong) from error
    return text


def add_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of set."""
    parser.epilog = """\
Without --type a whole number is stored as an int, so that incr works on it, and
everything else as a string. get prints both as they were typed.

examples:
  storeroom set greeting hello --timeout 5m
  storeroom set visits 0 --timeout forever
  storeroom set user:7 '{"name": "Ada"}' --type json
  curl -s https://example.org | storeroom set page -
"""
    _add_key(parser)
    parser.add_argument("value", metavar="VALUE", help='the value, or "-" to read it from standard input')
    timeout = 'seconds, or words such as "90s", "5m", "1h30m", "forever" (default: TIMEOUT)'
    parser.add_argument("--timeout", "-t", default=DEFAULT_TIMEOUT, metavar="T", help=timeout)
    parser.add_argument("--type", choices=tuple(_TYPES), default="auto", help="what VALUE is (default: auto)")
    parser.add_argument("--json", action="store_true", help='print {"stored": KEY}')


def set_value(args: argparse.Namespace) -> int:
    """Store a value."""
    # The newline at the end belongs to the pipe, not to the value.
    text = sys.stdin.read().removesuffix("\n") if args.value == "-" else args.value
    try:
        value = _TYPES[args.type](text)
    except ValueError as error:
        raise UsageError(f"VALUE is {text!r}, which is not of type {args.type} ({error}).") from error
    open_cache(args, needs="set").set(args.key, value, timeout=args.timeout, version=args.key_version)
    if args.json:
        print_json({"stored": args.key})
    return YES


_TYPES: Final[dict[str, Callable[[str], Any]]] = {
    "auto": lambda text: int(text) if _WHOLE_NUMBER.fullmatch(text) else text,
    "str": str,
    "int": int,
    "float": float,
    "json": lambda text: import_module("json").loads(text),
}


def add_delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of delete."""
    parser.epilog = "The exit code is 1 if none of the keys was there.\n"
    _add_key(parser, many=True)
    parser.add_argument("--json", action="store_true", help='print {"removed": ...}')


def delete(args: argparse.Namespace) -> int:
    """Remove keys."""
    cache = open_cache(args, needs="delete")
    with progress("Removing"):
        removed = sum(bool(cache.delete(key, version=args.key_version)) for key in args.key)
    if args.json:
        print_json({"removed": removed})
    else:
        print(f"Removed {count_of(removed, 'entry', 'entries')}.")
    return YES if removed else NO


def add_incr_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of incr."""
    parser.epilog = """\
Prints the new number. The key must be there, with a number; its timeout stays.

examples:
  storeroom incr visits
  storeroom incr stock:7 -3
"""
    _add_key(parser)
    parser.add_argument("delta", metavar="DELTA", nargs="?", type=_number, default=1, help="how much (default: 1)")
    parser.add_argument("--json", action="store_true", help="print a JSON number, as it does anyway")


def _number(text: str) -> float:
    return int(text) if _WHOLE_NUMBER.fullmatch(text) else float(text)


def incr(args: argparse.Namespace) -> int:
    """Add to a number."""
    print(open_cache(args, needs="incr").incr(args.key, args.delta, version=args.key_version))
    return YES


def add_ttl_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ttl."""
    parser.epilog = 'Prints seconds, or "forever" (with --json, null) for a key that never expires.\n'
    _add_key(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON number, or null")


def ttl(args: argparse.Namespace) -> int:
    """Print the seconds that a key has left."""
    cache = open_cache(args, needs="ttl")
    seconds = cache.ttl(args.key, version=args.key_version)
    if seconds == 0:
        return _no_such_key(args, cache)
    if args.json:
        print_json(seconds)
    else:
        print("forever" if seconds is None else f"{seconds:.1f}")
    return YES
