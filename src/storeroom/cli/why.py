"""``storeroom why``: all that is known of a key, and why a read would miss it."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import suppress

from storeroom.base import BaseCache
from storeroom.base.explaining import explaining
from storeroom.cli.configuration import explain_default, find, open_alias, read_alias, read_aliases
from storeroom.cli.exits import FAILED, NO, YES
from storeroom.cli.output import plain, print_json
from storeroom.exceptions import StoreroomError
from storeroom.registry.aliases import Alias
from storeroom.storage.steps import run

__all__ = ["add_arguments", "why"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of why."""
    parser.epilog = """\
Tells whether a read would find the key, and why not; each tier that has it; its
age, time left, size, serializer and signature, tags, and who computes it. The
value is never shown, nothing is counted, and no entry is moved. Exits 1 if a
read would miss it, and 3 if the server is down.

Evictions, deletions and invalidations are known to the process that made them,
under OPTIONS["removals"]: ask cache.explain(key) there.

examples:
  storeroom why user:7
  storeroom why user:7 --version 2 --alias pages
  storeroom why user:7 --json | jq .cause
"""
    parser.add_argument("key", metavar="KEY", help="as the program types it")
    version = "version of the key (default: VERSION)"
    parser.add_argument("--version", "--key-version", dest="key_version", type=int, metavar="N", help=version)
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def why(args: argparse.Namespace) -> int:
    """Explain a key."""
    alias = read_alias(args)
    cache = open_alias(alias, needs="explain")
    explanation = run(explaining(cache, args.key, args.key_version, _neighbours(args, alias)))
    if args.json:
        print_json(explanation.as_dict())
    else:
        print(plain(str(explanation)))
    if explanation.would_hit:
        return YES
    if explanation.cause == "never" and (hint := explain_default(args)):
        print(hint.strip(), file=sys.stderr)
    return FAILED if explanation.cause in {"down", "busy"} else NO


def _neighbours(args: argparse.Namespace, alias: Alias) -> Iterator[BaseCache]:
    """Yield handles of the other aliases at the same LOCATION, under whose prefixes the key may be."""
    for other in read_aliases(find(args.config), []).values():
        if other.name != alias.name and (other.backend, other.location) == (alias.backend, alias.location):
            with suppress(StoreroomError):
                yield other.build()
