"""``storeroom bench``: the speed of the configured cache on this machine.

For a first idea and for comparing two configurations. It works on keys of its own, which it removes. Comparisons of
Storeroom with other caches are in benchmarks/.
"""

import argparse
import itertools
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

from storeroom.base import BaseCache
from storeroom.cli.configuration import open_alias, read_alias, title
from storeroom.cli.exits import YES, UsageError
from storeroom.cli.output import columns, count_of, print_json, styled
from storeroom.cli.progress import progress
from storeroom.engines import Counters
from storeroom.exceptions import KeyNotFoundError
from storeroom.registry.aliases import Alias

__all__ = ["add_arguments", "run"]

KEYS: Final = 100  # those of one get_many(), and few enough to fit into a small cache
ROUNDS: Final = 5  # at least, each operation in turns with the others; the median counts
ROUND_SECONDS: Final = 0.1  # at most: Ctrl-C may have to wait for the end of a round
TIMEOUT_SECONDS: Final = 300  # should this process be killed, its entries expire
_ENTRY_BYTES: Final = 300  # the room of an entry beside its value, generously: key, expiry, index

Operation = Callable[[str], object]


class Figure(NamedTuple):
    """The time of one operation: its seconds for one caller are the median of the rounds."""

    operation: str
    seconds: float
    calls_per_second: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's options."""
    parser.epilog = """\
Works on keys of its own in the configured cache, and removes them at the end.
In a cache that is nearly full others would be evicted: then it wants --yes.

examples:
  storeroom bench
  storeroom bench --threads 4 --size 10000
  storeroom bench --config file:///dev/shm/cache
"""
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads at once (default: 1)")
    parser.add_argument("--size", type=_positive, default=100, metavar="BYTES", help="of each value (default: 100)")
    seconds = "time for each operation (default: 0.5)"
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help=seconds)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--yes", "-y", action="store_true", help="go on even if other entries get evicted")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace) -> int:
    """Time the cache that the arguments name."""
    alias = read_alias(args)
    cache = open_alias(_without_traces(alias), needs="get_many")
    if not args.yes:
        _require_room(alias, cache, KEYS * (args.size + _ENTRY_BYTES))
    keys = [f"storeroom-bench-{os.getpid()}-{number}" for number in range(KEYS)]
    with _uncounted(cache):
        try:
            with progress("Timing"):
                figures = _figures(cache, keys, args)
        finally:
            # Not clear(): with a KEY_FUNCTION of its own, a cache may take every key for one of its own.
            cache.delete_many([*keys, *map(_number_key, keys)])
    if args.json:
        print_json({"threads": args.threads, "value_bytes": args.size, "figures": list(map(_as_dict, figures))})
    else:
        _print(alias, figures, args)
    return YES


def _without_traces(alias: Alias) -> Alias:
    """Return the alias with a prefix of its own, and no record of its traffic, which is nobody's."""
    prefix = f"{alias.params.get('KEY_PREFIX') or ''}storeroom-bench"
    options = {name: value for name, value in (alias.params.get("OPTIONS") or {}).items() if name.lower() != "advise"}
    return replace(alias, params={**alias.params, "KEY_PREFIX": prefix, "OPTIONS": options})


@contextmanager
def _uncounted(cache: BaseCache) -> Iterator[None]:
    """Keep the counts of this process out of the cache's statistics."""
    cache.engine.add_counts()
    Counters.are_kept = False
    try:
        yield
    finally:
        cache.engine.counters.reset()
        Counters.are_kept = True


def _as_dict(figure: Figure) -> dict[str, Any]:
    microseconds, calls = round(figure.seconds * 1e6, 3), round(figure.calls_per_second)
    return {"operation": figure.operation, "microseconds": microseconds, "calls_per_second": calls}


def _number_key(key: str) -> str:
    return f"{key}-number"


def _require_room(alias: Alias, cache: BaseCache, size_bytes: int) -> None:
    options = alias.settings.options if alias.settings is not None else {}
    held = cache.stats()
    bounds = (("max_entries", "entries", held.entries, 2 * KEYS), ("max_bytes", "bytes", held.bytes, size_bytes))
    for option, unit, now, more in bounds:
        bound = options.get(option)
        if bound is not None and now is not None and now + more > bound:
            raise UsageError(
                f"The cache {alias.name!r} holds {now:,} of {bound:,} {unit}, and the benchmark adds up to {more:,}: "
                "other entries would be evicted. Pass --yes if they may be."
            )


def _figures(cache: BaseCache, keys: list[str], args: argparse.Namespace) -> list[Figure]:
    value = "x" * args.size
    many = dict.fromkeys(keys, value)
    cache.set_many(many, TIMEOUT_SECONDS)
    operations = dict(_operations(cache, keys, many, value))
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in operations}
    rounds = _rounds(args.seconds)
    for _ in range(rounds):
        for name, operation in operations.items():
            timed[name].append(_time(operation, keys, args.threads, args.seconds / rounds))
    return [Figure(name, *map(statistics.median, zip(*figures, strict=True))) for name, figures in timed.items()]


def _rounds(seconds: float) -> int:
    return max(ROUNDS, math.ceil(seconds / ROUND_SECONDS))


def _operations(
    cache: BaseCache, keys: list[str], many: Mapping[str, str], value: str
) -> Iterator[tuple[str, Operation]]:
    yield "get", cache.get
    yield "set", lambda key: cache.set(key, value, TIMEOUT_SECONDS)
    yield f"get_many of {KEYS}", lambda _: cache.get_many(keys)
    yield f"set_many of {KEYS}", lambda _: cache.set_many(many, TIMEOUT_SECONDS)
    numbers = {key: _number_key(key) for key in keys}
    cache.set_many(dict.fromkeys(numbers.values(), 0), TIMEOUT_SECONDS)
    try:
        cache.incr(numbers[keys[0]])
    except KeyNotFoundError:
        return  # it stores nothing, as the dummy cache
    yield "incr", lambda key: cache.incr(numbers[key])


def _time(operation: Operation, keys: list[str], threads: int, seconds: float) -> tuple[float, float]:
    """Call the operation for some seconds in some threads; return seconds per call and calls per second."""
    gate = threading.Barrier(threads)

    def work() -> tuple[int, float]:
        gate.wait()
        calls, begun = 0, time.perf_counter()
        for key in itertools.cycle(keys):
            operation(key)
            calls += 1
            if (elapsed := time.perf_counter() - begun) >= seconds:
                break
        return calls, elapsed

    # Each of these waits for all of them at the gate, so that none takes the thread of another.
    with ThreadPoolExecutor(threads) as pool:
        results = [future.result() for future in [pool.submit(work) for _ in range(threads)]]
    per_call = statistics.mean(elapsed / calls for calls, elapsed in results)
    return per_call, sum(calls / elapsed for calls, elapsed in results)


def _print(alias: Alias, figures: list[Figure], args: argparse.Namespace) -> None:
    print(styled(title(alias), "strong"))
    rounds = _rounds(args.seconds)
    print(f"Values of {count_of(args.size, 'byte')}, {count_of(args.threads, 'thread')}; median of {rounds} rounds\n")
    rows = ((each.operation, f"{each.seconds * 1e6:,.2f}", f"{each.calls_per_second:,.0f}") for each in figures)
    print(columns([("", "µs per call", "calls per second"), *rows], right=(1, 2)))
