"""``storeroom stats``: the counts of all processes of a project, for each alias and each family of keys."""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from storeroom.backends.kept_bounds import KeptBounds
from storeroom.base import BaseCache, sharing
from storeroom.cli.arguments import Unnamed
from storeroom.cli.configuration import Named, enter, find, read_aliases, title
from storeroom.cli.contents import ask
from storeroom.cli.exits import NO, YES, exit_code
from storeroom.cli.output import columns, count_of, paragraph, plain, print_json, size, styled
from storeroom.cli.progress import progress
from storeroom.engines import CacheStats
from storeroom.exceptions import NotSupportedError, StoreroomError
from storeroom.registry import caches
from storeroom.registry.aliases import Alias
from storeroom.registry.configuration import OwnConfiguration
from storeroom.storage.probes import ServerProbe

__all__ = ["add_arguments", "run"]

_WATCH_SECONDS: Final = 2.0

_MOST_FAMILIES: Final = 15
"""Families that are shown; JSON has them all."""

_ALWAYS: Final = frozenset({"hits", "misses", "sets", "deletes", "evictions", "expirations", "errors"})
"""Counts that are shown, also if they are zero."""

_OWN: Final = "No counts: it {where}, and each process counts for itself."
_APART: Final = "No counts: its processes count for themselves. OPTIONS['shared_stats'] True brings them together."
_WHOSE: Final = {
    "machine": "Counted by all processes of this machine, since the cache was made or its counts were begun anew.",
    "all": "Counted by {processes}, on all hosts, since each began or the counts were begun anew, a day at most.",
}
"""Scope to whose numbers these are."""

_PATIENCE_SECONDS: Final = 3.0
"""For how long a server is asked about itself."""

_NONE_YET: Final = "No counts: no process has left any within a day."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of stats."""
    parser.epilog = """\
Shows the sum of what all processes have counted, of all caches of the
configuration or of the one that --alias names. Files keep it by themselves;
servers and databases do with OPTIONS["shared_stats"]. Where nobody has left
any counts it says so: this command has none of its own to show.

examples:
  storeroom stats
  storeroom stats --alias pages --watch
  storeroom stats --json | jq .families
"""
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        type=_seconds,
        nargs="?",
        const=_WATCH_SECONDS,
        help=f"show them again and again, with the growth per second (default: every {_WATCH_SECONDS:g} s)",
    )
    parser.add_argument("--reset", action="store_true", help="let all counts begin at zero, and show nothing")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than 0, not {text!r}")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Show the counts and the size of the caches."""
    named = find(args.config)
    is_named = type(args.alias) is not Unnamed
    aliases = read_aliases(named, [args.alias] if is_named else [])
    chosen = [aliases[args.alias]] if is_named else _countable(named, aliases)
    for alias in chosen:
        enter(named, alias)
    # Tiers and fallbacks of the aliases are looked up there.
    caches.swap(OwnConfiguration(named.source))
    views = [_View(alias, is_only=len(chosen) == 1) for alias in chosen]
    if args.reset:
        return _reset(views)
    if args.watch is not None:
        _watch(views, args, is_named=is_named)
    return _show(views, args, is_named=is_named)


def _countable(named: Named, aliases: Mapping[str, Alias]) -> list[Alias]:
    """Return those of a configuration that count; a Django project may have others."""
    chosen = [alias for alias in aliases.values() if issubclass(alias.backend, BaseCache)]
    if not chosen:
        raise NotSupportedError(f"No cache of {named.source} is on one of Storeroom's classes.")
    return chosen


def _reset(views: "list[_View]") -> int:
    """Let the counts begin at zero, where there are any; NO if there are none at all."""
    lacks = [lack for view in views if (lack := view.reset())]
    if len(lacks) < len(views):
        return YES
    print("\n".join(lacks))
    return NO


def _show(views: "list[_View]", args: argparse.Namespace, *, is_named: bool) -> int:
    with progress("Asking the caches"):
        code = max(view.look() for view in views)
    if args.json:
        found = {view.alias.name: view.as_dict() for view in views}
        first = found.get(args.alias, {})
        shown = first if is_named else {**first, "aliases": found}
        print_json(shown) if args.watch is None else print(json.dumps(shown, default=str), flush=True)
    else:
        print("\n\n".join(view.text() for view in views))
    return code


def _watch(views: "list[_View]", args: argparse.Namespace, *, is_named: bool) -> None:
    """Show the counts until somebody interrupts it."""
    while True:
        if sys.stdout.isatty() and not args.json:
            print("\033[H\033[2J", end="")
        _show(views, args, is_named=is_named)
        if not args.json:
            print(flush=True)
        time.sleep(args.watch)


class _View:
    """One cache, as it was seen last."""

    def __init__(self, alias: Alias, *, is_only: bool) -> None:
        self.alias, self._is_only = alias, is_only
        self._cache: Any = None
        self._stats: CacheStats | None = None
        self._lack = ""
        self._told_by_servers: str | None = None
        self._before: Mapping[str, Any] = {}
        self._seen_at = self._seconds = 0.0

    def _open(self) -> Any:
        if self._cache is None:
            cache = self.alias.build()
            if not isinstance(cache, BaseCache):
                raise NotSupportedError(f"{type(cache).__qualname__} of cache {self.alias.name!r} has no stats().")
            self._cache = cache
        ask(self._cache)
        return self._cache

    def look(self) -> int:
        """Ask the cache. Return the exit code; an error is raised if this is the only cache."""
        before, seen_at = self._stats, self._seen_at
        try:
            self._stats, self._lack = _counted(self._open())
        except StoreroomError as error:
            if self._is_only:
                raise
            self._stats, self._lack = None, plain(str(error))
            return exit_code(error)
        self._seen_at = time.monotonic()
        self._before = before.as_dict() if before is not None and not self._lack else {}
        self._seconds = self._seen_at - seen_at
        return YES

    def reset(self) -> str:
        """Let the counts begin at zero; return the reason why there are none."""
        cache = self._open()
        _, lack = _counted(cache)
        if lack and lack != _NONE_YET:
            return f"{title(self.alias)}\n\n  {lack}"
        sharing.begin_anew(cache)
        print(f"The counts of the cache {self.alias.name!r} begin at zero.")
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, for JSON: of a cache without counts, its size and the reason."""
        if self._stats is None:
            return {"error": self._lack}
        if self._lack:
            return {"entries": self._stats.entries, "bytes": self._stats.bytes, "scope": None, "note": self._lack}
        return self._stats.as_dict()

    def text(self) -> str:
        """Return what is known, for people."""
        head = styled(title(self.alias), "strong")
        if self._stats is None:
            return f"{head}\n\n  {self._lack}"
        settings, cache = self.alias.settings, self._cache
        bounds = cache.bounds() if isinstance(cache, KeptBounds) else settings.options if settings is not None else {}
        rows = list(_sizes(self._stats, bounds))
        head += self._servers()
        if self._lack:
            return f"{head}\n\n{columns(rows, right=(1,))}\n\n  {self._lack}"
        rows += self._counts(self._stats.as_dict())
        parts = [head, columns(rows, right=(1,))]
        if self._stats.families:
            parts.append(columns(_families(self._stats), right=range(1, 7), yields=0))
        if self._stats.scope in _WHOSE:
            processes = count_of(self._stats.processes or 0, "process", "processes")
            parts.append(paragraph("", _WHOSE[self._stats.scope].format(processes=processes), label_width=0))
        return "\n\n".join(parts)

    def _servers(self) -> str:
        """Return a line for each server that knows something of itself, asked once."""
        if self._told_by_servers is None:
            probe = getattr(self._cache, "probe", None)
            servers = probe(_PATIENCE_SECONDS).servers if probe is not None else ()
            self._told_by_servers = "".join(f"\n  {plain(line)}" for line in map(_server, servers) if line)
        return self._told_by_servers

    def _counts(self, counted: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        for name, number in counted.items():
            if name in {"entries", "bytes", "hit_ratio"} or not isinstance(number, int | float):
                continue
            if number or name in _ALWAYS:
                yield name.replace("_", " "), _number(number), self._growth(name, number)
            if name == "misses":
                reads = counted["hits"] + number
                yield "hit ratio", f"{counted['hit_ratio']:.1%}" if reads else "none yet", ""
        for reason, number in counted["refused"].items():
            yield f"refused: {reason}", _number(number), ""
        for name, tier in counted.get("tiers", {}).items():
            yield f"{name}: hits", _number(tier["hits"]), f"of {tier['hits'] + tier['misses']:,}"

    def _growth(self, name: str, number: float) -> str:
        if not self._before or not self._seconds:
            return ""
        grown = (number - self._before.get(name, 0)) / self._seconds
        return f"{grown:+,.1f} a second" if grown else ""


def _server(server: ServerProbe) -> str:
    """Return the address, product, version and room of a server; "" for a file, which says nothing."""
    if not server.product or server.failure:
        return ""
    memory = server.memory
    room = (
        "" if memory is None else ", no bound of memory" if memory.max_bytes is None else f", {size(memory.max_bytes)}"
    )
    return f"{server.name}: {server.product} {server.version}{room}"


def _counted(cache: BaseCache) -> tuple[CacheStats, str]:
    """Return the sum of all processes, and "" ; or what else is known, and the reason why there is no sum."""
    others = sharing.stats_of_others(cache)
    if others is not None:
        return others, "" if others.processes else _NONE_YET
    stats = cache.stats()
    if stats.scope == "machine":
        return stats, ""
    if cache.is_shared:
        return stats, _APART
    is_dummy = not getattr(cache, "keeps_entries", True)
    return stats, _OWN.format(where="stores nothing" if is_dummy else "is in the memory of each process")


def _sizes(stats: CacheStats, bounds: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    max_entries, max_bytes = bounds.get("max_entries"), bounds.get("max_bytes")
    entries, held = stats.entries, stats.bytes
    yield "entries", "unknown" if entries is None else f"{entries:,}", f"of {max_entries:,}" if max_entries else ""
    yield "bytes", "unknown" if held is None else size(held), f"of {size(max_bytes)}" if max_bytes else ""


def _families(stats: CacheStats) -> Iterator[tuple[str, ...]]:
    yield "family", "hits", "hit ratio", "misses", "sets", "computed", "saved s"
    for name, family in list(stats.families.items())[:_MOST_FAMILIES]:
        hits, ratio, saved = family.hits, family.hit_ratio, family.saved_seconds
        yield (
            plain(name),
            "-" if hits is None else f"{hits:,}",
            "-" if ratio is None else f"{ratio:.1%}",
            f"{family.misses:,}",
            f"{family.sets:,}",
            f"{family.computed:,}",
            "-" if saved is None else f"{saved:,.3f}",
        )
    if (more := len(stats.families) - _MOST_FAMILIES) > 0:
        yield f"… {more} more, in --json", "", "", "", "", "", ""


def _number(number: float) -> str:
    return f"{number:,.3f}" if isinstance(number, float) else f"{number:,}"
