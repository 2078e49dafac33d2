"""The command: prepares both Djangos, runs the phases of their suites side by side, prints the results."""

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

import pytest

from tests.django_suite import checkout, exclusions, interpreters
from tests.django_suite.checkout import Checkout, Pair
from tests.django_suite.exclusions import ExclusionError, Exclusions
from tests.servers import databases, memcached, redis
from tests.servers.databases import PostgreSQLServer
from tests.servers.folders import new_folder, remove_leftovers
from tests.servers.redis import RedisServer, redis_binary

INSIDE = Path(__file__).parent / "inside"
STOREROOM = "storeroom.backends"
DJANGO = "django.core.cache.backends"
OPTIONS = ("--settings=storeroom_suite_settings", "--parallel=1", "--verbosity=0")

#: Phases that run at once: most of a phase is waiting, for entries to expire and for its server.
JOBS = 4 * (os.cpu_count() or 1)

_FRAGMENTS = "template_tests.syntax_tests.test_cache"
_REDIS_TESTS = "cache.tests.RedisCacheTests"
_DATABASE_TESTS = ("cache.tests.DBCacheTests", "cache.tests.CreateCacheTableForDBCacheTests")
_TIME_ZONE_TESTS = ("cache.tests.DBCacheWithTimeZoneTests",)
_PYMEMCACHE_TESTS = "cache.tests.PyMemcacheCacheTests"
_PYLIBMC_TESTS = "cache.tests.PyLibMCCacheTests"
_PAGES_TESTS = tuple(
    f"cache.tests.{name}" for name in ("CacheMiddlewareTest", "CacheI18nTest", "TestWithTemplateResponse")
)
_SESSION_TESTS = (
    "sessions_tests.tests.CacheSessionTests",
    "sessions_tests.tests.SessionMiddlewareTests",
    "sessions_tests.tests.SessionBaseTests",
)


@dataclass(frozen=True, slots=True)
class Phase:
    """One call of ``runtests.py``, which has a server of its own.

    Attributes:
        storage: the module whose class is the default cache, "sqlite" for a database of that kind, "pages" for
            Storeroom's page cache on local memory; the cache suite names the others by itself.
        labels: the suites and classes that ``runtests.py`` is asked for.
        minimum: fewer tests passed that call a cache than this mean that something was not found, whatever the exit
            code. It is a little under the number of Django 5.2.19.
        only_excluded: run the tests that are left out, to see that none of them would pass.
        engine: whether Storeroom's session engine stands for Django's that keeps sessions in a cache.
    """

    name: str
    storage: str
    labels: tuple[str, ...]
    minimum: int
    only_excluded: bool = False
    engine: bool = False

    @property
    def kind(self) -> str:
        """The word by which exclusions.toml names what is tested."""
        return "sessions" if self.engine else self.storage

    @property
    def module(self) -> str:
        """The module whose class is the default cache."""
        return {"sqlite": "db", "pages": "locmem"}.get(self.storage, self.storage)


#: Those that take longest begin first, so that a run does not end with one of them alone.
PHASES = (
    Phase("cache and fragments, database", "db", (*_DATABASE_TESTS, _FRAGMENTS), 65),
    Phase("cache with time zones, database", "db", _TIME_ZONE_TESTS, 48),
    Phase("cache and fragments, database on SQLite", "sqlite", (*_DATABASE_TESTS, *_TIME_ZONE_TESTS, _FRAGMENTS), 110),
    Phase("cache, sessions and fragments, local memory", "locmem", ("cache", "sessions_tests", _FRAGMENTS), 340),
    Phase("sessions and fragments, files", "filebased", ("sessions_tests", _FRAGMENTS), 94),
    Phase("cache, sessions and fragments, Redis", "redis", (_REDIS_TESTS, "sessions_tests", _FRAGMENTS), 140),
    Phase("sessions on Storeroom's engine, files", "filebased", _SESSION_TESTS, 70, engine=True),
    Phase("cache and fragments, Memcached by pymemcache", "pymemcache", (_PYMEMCACHE_TESTS, _FRAGMENTS), 60),
    Phase("cache and fragments, Memcached by pylibmc", "pylibmc", (_PYLIBMC_TESTS, _FRAGMENTS), 60),
    Phase("pages", "pages", (*_PAGES_TESTS, "decorators", "conditional_processing"), 40),
)
COUNTERCHECKS = (
    Phase("tests left out that would pass", "locmem", ("cache", "sessions_tests"), 0, only_excluded=True),
    Phase("tests left out that would pass, Redis", "redis", (_REDIS_TESTS,), 0, only_excluded=True),
    Phase("tests left out that would pass, engine", "filebased", _SESSION_TESTS, 0, only_excluded=True, engine=True),
    Phase(
        "tests left out that would pass, database", "db", (*_DATABASE_TESTS, *_TIME_ZONE_TESTS), 0, only_excluded=True
    ),
    Phase(
        "tests left out that would pass, database on SQLite",
        "sqlite",
        (*_DATABASE_TESTS, *_TIME_ZONE_TESTS),
        0,
        only_excluded=True,
    ),
    Phase("tests left out that would pass, pymemcache", "pymemcache", (_PYMEMCACHE_TESTS,), 0, only_excluded=True),
    Phase("tests left out that would pass, pylibmc", "pylibmc", (_PYLIBMC_TESTS,), 0, only_excluded=True),
    Phase(
        "tests left out that would pass, pages",
        "pages",
        (*_PAGES_TESTS, "conditional_processing"),
        0,
        only_excluded=True,
    ),
)


@dataclass(slots=True)
class Outcome:
    """The results of one phase.

    Attributes:
        touching: those that passed and called a method of a cache. The others say nothing about its class.
        lacking: the reason why it did not run; "" if it did.
    """

    phase: Phase
    passed: list[str] = field(default_factory=list)
    touching: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    lacking: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A phase on one of the Djangos.

    Attributes:
        tests: the folder of Django's tests, which the phases of a Django share.
        folder: of this job alone.
        backends: the package of the classes under test.
        listed: the tests that are left out of this Django's.
        lacking: the reason why it cannot run; "" if it can.
    """

    phase: Phase
    ready: Checkout
    tests: Path
    folder: Path
    backends: str
    listed: Exclusions
    lacking: str = ""


def main() -> int:
    """Run; return the exit code."""
    options = _arguments()
    remove_leftovers()
    try:
        listed = exclusions.load()
    except ExclusionError as error:
        print(f"exclusions.toml: {error}")
        return 1
    pairs = _pairs()
    with ThreadPoolExecutor(options.jobs) as pool:
        prepared = list(pool.map(lambda pair: list(_jobs(pair, listed, options)), pairs))
        in_turn = itertools.chain.from_iterable(itertools.zip_longest(*prepared))
        futures = {job: pool.submit(_run, job) for job in in_turn if job}
        runs = [[futures[job].result() for job in jobs] for jobs in prepared]
    for pair, jobs, outcomes in zip(pairs, prepared, runs, strict=True):
        _print_outcomes(jobs[0].ready, pair, outcomes)
    if not options.control:
        _print_exclusions(listed)
    outcomes = list(itertools.chain.from_iterable(runs))
    return _close([outcome for outcome in outcomes if not outcome.phase.only_excluded], outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description=__doc__)
    parser.add_argument("--refresh", action="store_true", help="download the newest releases again")
    parser.add_argument("--control", action="store_true", help="run Django's own classes, with nothing left out")
    parser.add_argument("--storage", help="only the phases of this storage, or of sessions")
    parser.add_argument("--jobs", type=int, default=JOBS, help="phases that run at once (default: %(default)s)")
    return parser.parse_args()


def _pairs() -> list[Pair]:
    """The long-term release on the oldest Python, the newest release on the newest Python."""
    newest = interpreters.newest()
    oldest = interpreters.find(min(interpreters.SUPPORTED)) or newest
    return [Pair(oldest, "Django==5.2.*"), Pair(newest, "Django")]


def _jobs(pair: Pair, listed: Exclusions, options: argparse.Namespace) -> Iterator[Job]:
    """Prepare a Django; yield its phases."""
    ready = checkout.prepare(pair, refresh=options.refresh)
    backends = DJANGO if options.control else STOREROOM
    phases = tuple(phase for phase in PHASES if not phase.engine) if options.control else (*PHASES, *COUNTERCHECKS)
    phases = [phase for phase in phases if options.storage in {None, phase.storage, phase.kind}]
    if options.control:
        listed = Exclusions({}, {}, listed.other_storages, {})
    listed = listed.of(ready.version)
    tests = ready.unpack_tests(backends)
    lacks = "" if ready.has("pylibmc") else "pylibmc comes built for Python 3.11 and older alone"
    for phase in phases:
        lacking = lacks if phase.storage == "pylibmc" else ""
        yield Job(phase, ready, tests, new_folder(), backends, listed.on(phase.kind), lacking)


def _run(job: Job) -> Outcome:
    """Run a job on a server of its own, if that is installed."""
    if job.lacking:
        return Outcome(job.phase, lacking=job.lacking)
    try:
        with _running(job.phase.storage, job.folder) as location:
            return _run_phase(job, location)
    except pytest.skip.Exception as reason:
        return Outcome(job.phase, lacking=str(reason))
    except pytest.fail.Exception as reason:
        return Outcome(job.phase, problem=f"{reason}\n")


@contextmanager
def _running(storage: str, folder: Path) -> Iterator[str]:
    """Yield the address of a new server while it runs; "" for a storage without one."""
    with ExitStack() as stack:
        if storage == "redis":
            server = stack.enter_context(contextmanager(redis.running)(RedisServer(redis_binary(), folder)))
            yield f"redis://127.0.0.1:{server.port}/0"
        elif storage == "db":
            yield str(stack.enter_context(contextmanager(databases.running)(PostgreSQLServer())).port)
        elif storage in {"pymemcache", "pylibmc"}:
            (server,) = stack.enter_context(memcached.running(folder, by_port=True)).servers
            yield server.location
        else:
            yield ""


def _run_phase(job: Job, location: str) -> Outcome:
    """Call ``runtests.py`` and read the runner's report of it."""
    begun = time.monotonic()
    run = subprocess.run(
        [job.ready.python, "runtests.py", *OPTIONS, *job.phase.labels],
        cwd=job.tests,
        env=os.environ | _environment(job, location),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    outcome = Outcome(job.phase, seconds=time.monotonic() - begun)
    report = job.folder / "report.json"
    if not report.exists():
        outcome.problem = f"{run.stdout}\nruntests.py ended with exit code {run.returncode}, and without a report\n"
        return outcome
    result = json.loads(report.read_text())
    outcome.passed, outcome.failed, outcome.skipped = result["passed"], result["failed"], result["skipped"]
    outcome.touching = result["touching"]
    _judge(outcome, run)
    return outcome


def _environment(job: Job, location: str) -> dict[str, str]:
    """Write the plan of a job; return the variables that name it, and the class under test."""
    plan, report = job.folder / "plan.json", job.folder / "report.json"
    others = {name: storage for name, storage in job.listed.other_storages.items() if storage != job.phase.module}
    listed = asdict(replace(job.listed, other_storages=others))
    plan.write_text(json.dumps({**listed, "only_excluded": job.phase.only_excluded, "report": str(report)}))
    return {
        "PYTHONPATH": str(INSIDE),
        "STOREROOM_SUITE_PLAN": str(plan),
        "STOREROOM_SUITE_BACKENDS": job.backends,
        "STOREROOM_SUITE_STORAGE": job.phase.storage,
        "STOREROOM_SUITE_LOCATION": location,
        "STOREROOM_SUITE_ENGINE": "storeroom.integrations.django.sessions" if job.phase.engine else "",
    }


def _judge(outcome: Outcome, run: subprocess.CompletedProcess[str]) -> None:
    """Note the problem, if there is one: of the tests left out, each that passes is one too many."""
    if outcome.phase.only_excluded:
        needless = "".join(f"  {test}\n" for test in outcome.passed)
        outcome.problem = f"these pass, and need not be left out:\n{needless}" if needless else ""
    elif outcome.failed or run.returncode:
        outcome.problem = f"{run.stdout}\nruntests.py ended with exit code {run.returncode}\n"
    elif len(outcome.touching) < outcome.phase.minimum:
        found, expected = len(outcome.touching), outcome.phase.minimum
        outcome.problem = f"only {found} tests passed that call a cache; expected {expected} at least\n"


def _print_outcomes(ready: Checkout, pair: Pair, outcomes: list[Outcome]) -> None:
    print(f"\nDjango {ready.version} on {pair.interpreter}")
    for outcome in outcomes:
        if outcome.lacking:
            print(f"  {outcome.phase.name}: DID NOT RUN: {outcome.lacking}")
        elif outcome.phase.only_excluded:
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
    for test, reason in listed.isolated.items():
        print(f"  run after all aliases of local memory are cleared: {test}\n    {reason}")
    for method, reason in listed.emptied.items():
        print(f"  run with all aliases cleared in place of {method}, on {listed.only_on[method]}\n    {reason}")
    for test_class, storage in listed.other_storages.items():
        print(f"  only where it is the default cache: {test_class} ({storage})")


def _close(counted: list[Outcome], outcomes: list[Outcome]) -> int:
    numbers, _, others = _counts(counted).partition("; ")
    absent = [outcome.phase.name for outcome in counted if outcome.lacking]
    print(f"\n{others}\nphases that did not run: {', '.join(absent) or 'none'}\ndjango: {numbers}")
    return int(any(outcome.problem for outcome in outcomes))


def _counts(outcomes: list[Outcome]) -> str:
    """Return the numbers; of the tests that passed, only those count that called a cache."""
    touching, passed, failed, skipped = (
        sum(len(getattr(outcome, name)) for outcome in outcomes) for name in ("touching", "passed", "failed", "skipped")
    )
    return (
        f"{touching} passed, {failed} failed, {skipped} skipped; {passed - touching} passed without a call of a cache"
    )


if __name__ == "__main__":
    sys.exit(main())
