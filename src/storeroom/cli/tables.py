"""``storeroom createcachetable``: make the tables of database caches before a program needs them."""

import argparse
import sys
from typing import Any

from storeroom.cli.configuration import Named, enter, find, read_aliases
from storeroom.cli.exits import NO, YES
from storeroom.cli.output import print_json
from storeroom.cli.progress import progress
from storeroom.exceptions import InvalidCacheBackendError, NotSupportedError
from storeroom.registry.aliases import Alias

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of createcachetable."""
    parser.epilog = """\
A table is made on first use, too, unless OPTIONS["create_table"] is False:
then a user who may make tables runs this before the program starts. A table
that is there is left as it is. Exits 1 if there is no database cache.

examples:
  storeroom createcachetable
  storeroom createcachetable pages sessions --config mysite.settings
  storeroom createcachetable --dry-run
"""
    parser.add_argument("aliases", metavar="ALIAS", nargs="*", help="which caches (default: all in a database)")
    parser.add_argument("--dry-run", action="store_true", help="print the SQL, and do nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON object from alias to whether it was made")


def run(args: argparse.Namespace) -> int:
    """Make the tables that are missing."""
    named = find(args.config)
    made: dict[str, bool] = {}
    for name, alias in read_aliases(named, args.aliases).items():
        is_asked_for = name in args.aliases
        cache = _open(named, alias, is_asked_for=is_asked_for) if is_asked_for or not args.aliases else None
        if cache is not None:
            made[name] = _make(name, cache, args)
    if args.json:
        print_json(made)
    elif not made:
        print("No cache of this configuration is in a database.")
    return YES if made else NO


def _open(named: Named, alias: Alias, *, is_asked_for: bool) -> Any:
    """Return the cache of an alias; where it has no table of Storeroom's None, or an error if it was asked for."""
    if not is_asked_for and not hasattr(alias.backend, "create_table"):
        return None
    try:
        enter(named, alias)
    except NotSupportedError as error:
        if is_asked_for:
            raise
        print(error, file=sys.stderr)
        return None
    cache: Any = alias.build()
    if hasattr(cache, "create_table"):
        return cache
    if is_asked_for:
        raise InvalidCacheBackendError(
            f"The cache {alias.name!r} is a {alias.backend.__qualname__}, which has no table."
        )
    return None


def _make(name: str, cache: Any, args: argparse.Namespace) -> bool:
    """Make a table, or print the SQL. Return whether it was made."""
    if args.dry_run:
        print(f"-- {name}", *(f"{statement};" for statement in cache.create_statements()), sep="\n")
        return False
    with progress("Making tables"):
        made: bool = cache.create_table()
    if not args.json:
        print(f"{name}: table {cache.table_name!r} {'created' if made else 'is there already'}.")
    return made
