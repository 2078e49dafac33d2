"""``storeroom createcachetable``: make the tables of database caches before a program needs them."""

import argparse
import sys
from typing import Any

from storeroom.cli.configuration import Named, enter_site, find
from storeroom.cli.exits import NO, YES
from storeroom.cli.output import print_json
from storeroom.exceptions import InvalidCacheBackendError, NotSupportedError
from storeroom.registry.aliases import Alias, read_caches
from storeroom.wording import nearest

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
    """Make the tables; say which were there."""
    made: dict[str, bool] = {}
    named = find(args.config)
    for alias in _aliases(args, named):
        try:
            enter_site(named, alias)
        except NotSupportedError as error:
            if alias.name in args.aliases:
                raise
            print(error, file=sys.stderr)
            continue
        cache: Any = alias.build()
        if not hasattr(cache, "create_table"):
            if alias.name in args.aliases:
                raise InvalidCacheBackendError(
                    f"The cache {alias.name!r} is a {alias.backend.__qualname__}, which has no table."
                )
            continue
        if args.dry_run:
            print(f"-- {alias.name}", *(f"{statement};" for statement in cache.create_statements()), sep="\n")
            made[alias.name] = False
            continue
        made[alias.name] = cache.create_table()
        if not args.json:
            state = "created" if made[alias.name] else "is there already"
            print(f"{alias.name}: table {cache.table_name!r} {state}.")
    if args.json:
        print_json(made)
    elif not made:
        print("No cache of this configuration is in a database.")
    return YES if made else NO


def _aliases(args: argparse.Namespace, named: Named) -> list[Alias]:
    source = named.source
    aliases = read_caches(source.caches, source.directory)
    for name in args.aliases:
        if name not in aliases:
            raise InvalidCacheBackendError(
                f"There is no cache {name!r}; {source} has {', '.join(map(repr, aliases))}.{nearest(name, aliases)}"
            )
    return [alias for name, alias in aliases.items() if not args.aliases or name in args.aliases]
