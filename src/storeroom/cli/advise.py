"""``storeroom advise``: the numbers to write into CACHES, from traffic."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any, Final

from storeroom import timeouts
from storeroom.advice import Advice, Simulation, Subject, Trace, advise, ladder, near_sizes, read_trace
from storeroom.advice.traces import FORMATS
from storeroom.cli.configuration import find, open_alias, read_alias
from storeroom.cli.exits import NO, YES, UsageError
from storeroom.cli.output import count_of, plain, print_json
from storeroom.cli.progress import progress
from storeroom.recording.left import left
from storeroom.registry.aliases import Alias
from storeroom.wording import masked

__all__ = ["add_arguments", "run"]

_OWN_POLICY: Final = frozenset({"storeroom.backends.locmem", "storeroom.backends.filebased"})
"""Modules of the classes that evict by Storeroom's policy, which is what is replayed, and whose reads leave for no
server."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of advise."""
    parser.epilog = """\
Replays a trace on copies of the cache of many sizes, and prints the hit ratio
of each, and the settings to write. A trace is a file with a key on each line, a
log of Redis (redis-cli monitor) or of Memcached (memcached -vv), as it is or
compressed (.gz, .xz). Exits 1 if there was not enough traffic for an answer.

Without a trace it prints what a program has left in a storage that processes
share, where OPTIONS["advise"] is True.

examples:
  storeroom advise --alias pages
  storeroom advise --trace keys.txt
  redis-cli monitor | head -n 1000000 > trace.log
  storeroom advise --trace trace.log
  storeroom advise --trace trace.log.gz --svg curve.svg --json
"""
    parser.add_argument("--trace", metavar="FILE", help="the traffic; - for standard input")
    parser.add_argument("--format", choices=sorted(FORMATS), help="of the trace (default: told by its lines)")
    milliseconds = "milliseconds of a read, for what a near tier saves"
    parser.add_argument("--round-trip", type=float, metavar="MS", help=milliseconds)
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--svg", metavar="FILE", help="write the curves to this image, too")


def run(args: argparse.Namespace) -> int:
    """Print the advice for the cache that the arguments name."""
    alias = read_alias(args)
    if args.trace is None:
        return _print_left(alias, args)
    subject = _subject(alias, find(args.config).source.caches[alias.name], args.round_trip)
    with progress("Replaying"):
        trace = read_trace(args.trace, args.format)
        advice = _replayed(trace, subject)
    if args.svg:
        _write(args.svg, advice.svg())
    if args.json:
        print_json(advice.as_dict())
    else:
        print(plain(advice.text()))
    return NO if advice.missing_keys else YES


def _print_left(alias: Alias, args: argparse.Namespace) -> int:
    """Print the answer that a running program has left."""
    cache = open_alias(alias, needs="advice")
    note = left(cache) if cache.is_shared else None
    if note is None:
        raise UsageError(
            f"No program has left advice in cache {alias.name!r}. Set OPTIONS['advise'] to True and let it run on a "
            "storage that processes share; call cache.advice() in it; or pass --trace FILE."
        )
    if args.json:
        print_json({name: value for name, value in note.items() if name != "text"})
        return YES
    print(f"Left by process {note['process']}, {max(0.0, timeouts.now() - note['written_at']):,.0f} s ago.\n")
    print(plain(note["text"]))
    return NO if note["missing_keys"] else YES


def _subject(alias: Alias, written: Any, round_trip_ms: float | None) -> Subject:
    settings, classes = alias.settings, {each.__module__ for each in alias.backend.__mro__}
    options = {} if settings is None else settings.options
    timeout = None if settings is None else settings.timeout
    return Subject(
        alias.name,
        masked(dict(written)),
        options.get("max_entries") if classes & _OWN_POLICY else None,
        math.inf if timeout is None else timeout,
        not classes & _OWN_POLICY,
        None if round_trip_ms is None else round_trip_ms / 1e3,
        options.get("cull_frequency"),
        options.get("max_bytes"),
    )


def _replayed(trace: Trace, subject: Subject) -> Advice:
    keys = len(trace.keys)
    timeout = subject.timeout if trace.has_times else math.inf
    simulation = Simulation(
        ladder(subject.size, keys, near_sizes),
        size=subject.size,
        timeouts=subject.timeouts if trace.has_times else (),
        timeout=timeout,
        cull_frequency=subject.cull_frequency,
    )
    trace.replay(simulation)
    return advise(simulation, subject, scope=_scope(trace), notes=_notes(trace, subject))


def _scope(trace: Trace) -> str:
    return f"All of {trace.name}, each request replayed."


def _notes(trace: Trace, subject: Subject) -> list[str]:
    notes = ["A read that misses is taken to be followed by a write, as by get_or_set()."]
    if not trace.has_times:
        notes.append("The trace has no times, so that it says nothing about TIMEOUT.")
    if subject.size is None:
        notes.append("This storage has no bound in entries that Storeroom keeps, so that none is looked at.")
    if trace.left_out:
        notes.append(f"{count_of(trace.left_out, 'line')} say nothing about reads, writes or deletes of keys.")
    return notes


def _write(path: str, svg: str) -> None:
    try:
        Path(path).write_text(svg, "utf-8")
    except OSError as error:
        raise UsageError(f"--svg is {path!r}, which cannot be written: {error.strerror}.") from error
    print(f"The curves are in {plain(path)}.", file=sys.stderr)
