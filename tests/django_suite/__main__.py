"""The command: prepares both Djangos, runs their suites side by side, prints what ran and what was left out."""

import argparse
import collections
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.django_suite import checkout, exclusions, interpreters
from tests.django_suite.checkout import Checkout, Pair
from tests.django_suite.exclusions import ExclusionError, Exclusions
from tests.servers.databases import PostgreSQLServer
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer, redis_binary

INSIDE = Path(__file__).parent / "inside"
STOREROOM = "storeroom.backends"
DJANGO = "django.core.cache.backends"

_FRAGMENTS = "template_tests.syntax_tests.test_cache"
_REDIS_TESTS = "cache.tests.RedisCacheTests"
_DATABASE_TESTS = (
    "cache.tests.DBCacheTests",
    "cache.tests.DBCacheWithTimeZoneTests",
    "cache.tests.CreateCacheTableForDBCacheTests",
)
_PYMEMCACHE_TESTS = "cache.tests.PyMemcacheCacheTests"
_PYLIBMC_TESTS = "cache.tests.PyLibMCCacheTests"


@dataclass(frozen=True, slots=True)
class Phase:
    """One call of ``runtests.py``.

    Attributes:
        storage: the module whose class is the default cache; the cache suite names the others by itself.
        labels: what ``runtests.py`` is asked for.
        minimum: fewer tests passed than this mean that something was not found, whatever the exit code. It is a
            little under what Django 5.2.19 has.
        only_excluded: run the tests that are left out, to see that none of them would pass.
    """

    name: str
    storage: str
    labels: tuple[str, ...]
    minimum: int
    only_excluded: bool = False


PHASES = (
    Phase("cache, sessions and fragments, local memory", "locmem", ("cache", "sessions_tests", _FRAGMENTS), 880),
    Phase("sessions and fragments, files", "filebased", ("sessions_tests", _FRAGMENTS), 640),
    Phase("cache, sessions and fragments, Redis", "redis", (_REDIS_TESTS, "sessions_tests", _FRAGMENTS), 700),
    Phase("cache and fragments, database", "db", (*_DATABASE_TESTS, _FRAGMENTS), 110),
    Phase("cache and fragments, Memcached by pymemcache", "pymemcache", (_PYMEMCACHE_TESTS, _FRAGMENTS), 60),
    Phase("cache and fragments, Memcached by pylibmc", "pylibmc", (_PYLIBMC_TESTS, _FRAGMENTS), 60),
)
COUNTERCHECKS = (
    Phase("tests left out that would pass", "locmem", ("cache", "sessions_tests"), 0, only_excluded=True),
    Phase("tests left out that would pass, Redis", "redis", (_REDIS_TESTS,), 0, only_excluded=True),
    Phase("tests left out that would pass, database", "db", _DATABASE_TESTS, 0, only_excluded=True),
    Phase("tests left out that would pass, pymemcache", "pymemcache", (_PYMEMCACHE_TESTS,), 0, only_excluded=True),
    Phase("tests left out that would pass, pylibmc", "pylibmc", (_PYLIBMC_TESTS,), 0, only_excluded=True),
)


@dataclass(slots=True)
class Outcome:
    """What one phase did."""

    phase: Phase
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    seconds: float = 0.0


def main() -> int:
    """Run; return the exit code."""
    options = _arguments()
    try:
        listed = exclusions.load()
    except ExclusionError as error:
        print(f"exclusions.toml: {error}")
        return 1
    pairs = _pairs()
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda pair: _run_pair(pair, listed, options), pairs))
    for (ready, outcomes), pair in zip(runs, pairs, strict=True):
        _print_outcomes(ready, pair, outcomes)
    if not options.control:
        _print_exclusions(listed)
    outcomes = list(itertools.chain.from_iterable(outcomes for _, outcomes in runs))
    return _close([outcome for outcome in outcomes if not outcome.phase.only_excluded], outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="download the newest releases again")
    parser.add_argument("--control", action="store_true", help="run Django's own classes, with nothing left out")
    parser.add_argument("--jobs", type=int, default=2, help="how many Djangos at once (default: %(default)s)")
    return parser.parse_args()


def _pairs() -> list[Pair]:
    """The long-term release on the oldest Python, the newest release on the newest Python."""
    newest = interpreters.newest()
    oldest = interpreters.find(min(interpreters.SUPPORTED)) or newest
    return [Pair(oldest, "Django==5.2.*"), Pair(newest, "Django")]


def _run_pair(pair: Pair, listed: Exclusions, options: argparse.Namespace) -> tuple[Checkout, list[Outcome]]:
    ready = checkout.prepare(pair, refresh=options.refresh)
    backends = DJANGO if options.control else STOREROOM
    tests = ready.unpack_tests(backends)
    phases = PHASES if options.control else (*PHASES, *COUNTERCHECKS)
    if options.control:
        listed = Exclusions({}, {}, listed.other_storages, isolation="")
    listed = listed.of(ready.version)
    with _servers(ready) as servers:
        possible = [phase for phase in phases if servers.get(phase.storage) != ""]
        return ready, [_run_phase(phase, ready, tests, backends, listed, servers) for phase in possible]


@contextmanager
def _servers(ready: Checkout) -> Iterator[dict[str, str]]:
    """Start the servers of one pair; yield storage to LOCATION, which is "" where something is not installed."""
    found = {
        "redis": lambda: _started(
            stack, RedisServer(redis_binary(), ready.home / "redis"), "redis://127.0.0.1:{0.port}/0"
        ),
        "db": lambda: _started(stack, PostgreSQLServer(), "{0.port}"),
        "pymemcache": lambda: _started(stack, MemcachedServer(ready.home / "memcached", by_port=True), "{0.location}"),
        "pylibmc": lambda: _started(stack, MemcachedServer(ready.home / "pylibmc", by_port=True), "{0.location}"),
    }
    with ExitStack() as stack:
        locations = {}
        for storage, start in found.items():
            try:
                locations[storage] = start() if storage != "pylibmc" or ready.has("pylibmc") else ""
            except pytest.skip.Exception as reason:
                locations[storage] = ""
                print(f"left out: Django's suites on {storage}: {reason}")
            except pytest.fail.Exception as reason:
                sys.exit(str(reason))
        yield locations


def _started(stack: ExitStack, server: Any, location: str) -> str:
    if isinstance(server, PostgreSQLServer):
        stack.callback(server.remove)
    server.start()
    stack.callback(server.stop)
    return location.format(server)


def _run_phase(
    phase: Phase, ready: Checkout, tests: Path, backends: str, listed: Exclusions, servers: dict[str, str]
) -> Outcome:
    """Call ``runtests.py`` and read the runner's report of it."""
    plan, report = ready.home / "plan.json", ready.home / "report.json"
    report.unlink(missing_ok=True)
    others = {name: storage for name, storage in listed.other_storages.items() if storage != phase.storage}
    listed = replace(listed, other_storages=others)
    plan.write_text(json.dumps({**asdict(listed), "only_excluded": phase.only_excluded, "report": str(report)}))
    environment = os.environ | {
        "PYTHONPATH": str(INSIDE),
        "STOREROOM_SUITE_PLAN": str(plan),
        "STOREROOM_SUITE_BACKENDS": backends,
        "STOREROOM_SUITE_STORAGE": phase.storage,
        "STOREROOM_SUITE_LOCATION": servers.get(phase.storage, ""),
    }
    command = [ready.python, "runtests.py", "--settings=storeroom_suite_settings", "--parallel=1", "--verbosity=0"]
    begun = time.monotonic()
    run = subprocess.run(
        [*command, *phase.labels],
        cwd=tests,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outcome = Outcome(phase, seconds=time.monotonic() - begun)
    if not report.exists():
        outcome.problem = run.stdout
        return outcome
    result = json.loads(report.read_text())
    outcome.passed, outcome.failed, outcome.skipped = result["passed"], result["failed"], result["skipped"]
    _judge(outcome, run)
    return outcome


def _judge(outcome: Outcome, run: subprocess.CompletedProcess[str]) -> None:
    """Say what is wrong, if anything: of the tests left out, each that passes is one too many."""
    if outcome.phase.only_excluded:
        needless = "".join(f"  {test}\n" for test in outcome.passed)
        outcome.problem = f"these pass, and need not be left out:\n{needless}" if needless else ""
    elif outcome.failed or run.returncode:
        outcome.problem = run.stdout
    elif len(outcome.passed) < outcome.phase.minimum:
        outcome.problem = f"only {len(outcome.passed)} tests passed; expected {outcome.phase.minimum} at least\n"


def _print_outcomes(ready: Checkout, pair: Pair, outcomes: list[Outcome]) -> None:
    print(f"\nDjango {ready.version} on {pair.interpreter}")
    for outcome in outcomes:
        if outcome.phase.only_excluded:
            print(f"  {outcome.phase.name}: {len(outcome.passed)} of {len(outcome.passed) + len(outcome.failed)}")
        else:
            print(f"  {outcome.phase.name}: {_counts([outcome])} ({outcome.seconds:.0f} s)")
        if outcome.problem:
            print(outcome.problem)
    skipped = collections.Counter(why for outcome in outcomes for why in outcome.skipped.values())
    for why, count in skipped.items():
        print(f"  skipped by Django itself: {count}: {why}")


def _print_exclusions(listed: Exclusions) -> None:
    print(f"\nLeft out by name: {len(listed.tests)} tests")
    by_reason = sorted(listed.tests.items(), key=lambda item: item[1])
    for reason, group in itertools.groupby(by_reason, key=lambda item: item[1]):
        print(f"  {reason}")
        for test, _ in group:
            print(f"    {test}")
    for method, reason in listed.fixtures.items():
        print(f"  run without {method}\n    {reason}")
    print(f"  local memory is cleared after each test, all aliases of it\n    {listed.isolation}")
    for test_class, storage in listed.other_storages.items():
        print(f"  only where it is the default cache: {test_class} ({storage})")


def _close(counted: list[Outcome], outcomes: list[Outcome]) -> int:
    print(f"\ndjango: {_counts(counted)}")
    return int(any(outcome.problem for outcome in outcomes))


def _counts(outcomes: list[Outcome]) -> str:
    passed, failed, skipped = (
        sum(len(getattr(outcome, name)) for outcome in outcomes) for name in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed, {skipped} skipped"


if __name__ == "__main__":
    sys.exit(main())
