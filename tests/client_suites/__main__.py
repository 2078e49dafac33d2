"""The command: prepares the clients, runs their tests on Django's classes and on ours, compares them test by test."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.client_suites import checkout, clients, runs
from tests.client_suites.checkout import Checkout
from tests.client_suites.clients import Client, ClientsError
from tests.client_suites.runs import Outcome
from tests.django_suite import interpreters
from tests.servers.folders import remove_leftovers


@dataclass(slots=True)
class Comparison:
    """The two runs of a client on a storage.

    Attributes:
        explained: the tests whose results differ -> the reason that clients.toml gives.
        unexplained: the tests whose results differ without a reason.
        unsteady: those that differed once, and not when they were run again on both.
        problems: everything that has to be looked into, a sentence each.
    """

    client: Client
    storage: str
    theirs: Outcome
    ours: Outcome
    explained: dict[str, str] = field(default_factory=dict)
    unexplained: set[str] = field(default_factory=set)
    unsteady: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Run; return the exit code."""
    try:
        listed = clients.load()
    except ClientsError as error:
        print(f"clients.toml: {error}")
        return 1
    options = _arguments(listed)
    remove_leftovers()
    interpreter = interpreters.find(sys.version_info[1]) or interpreters.newest()
    chosen = [listed[name] for name in options.clients or listed]
    with ThreadPoolExecutor(len(chosen)) as pool:
        ready = pool.map(lambda client: checkout.prepare(client, interpreter, refresh=options.refresh), chosen)
        comparisons = []
        for client, done in zip(chosen, ready, strict=True):
            for comparison in _compared(client, done, options.storages or client.storages):
                _print_comparison(comparison, done)
                comparisons.append(comparison)
    _print_reasons(comparisons)
    return _close(comparisons)


def _arguments(listed: dict[str, Client]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.client_suites", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="NAME", choices=[[], *listed], help=f"of {', '.join(listed)}")
    parser.add_argument("--storage", action="append", dest="storages", help="only on this storage; may be given again")
    parser.add_argument("--refresh", action="store_true", help="download the newest releases again")
    return parser.parse_args()


def _compared(client: Client, ready: Checkout, storages: Iterable[str]) -> Iterator[Comparison]:
    """Yield the comparison for each storage: for the first with all tests, then with those that use a cache."""
    only = None
    for storage in client.storages:
        if storage not in storages:
            continue
        theirs, ours = _run_both(client, ready, storage, only)
        comparison = compare(client, storage, theirs, ours, only)
        if differing := comparison.unexplained:
            # A test that sleeps until something is over fails now and then on a busy machine, whatever the class.
            for outcome, again in zip((theirs, ours), _run_both(client, ready, storage, differing), strict=True):
                outcome.results |= again.results
                outcome.reasons |= again.reasons
            comparison = compare(client, storage, theirs, ours, only)
            comparison.unsteady = differing - comparison.unexplained
        yield comparison
        only = only or {test for test in theirs.touching if test.startswith(client.repeated or "")} or None


def _run_both(client: Client, ready: Checkout, storage: str, only: set[str] | None) -> tuple[Outcome, Outcome]:
    """Run on Django's class and on ours at the same time."""
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = (pool.submit(_run, client, ready, storage, only, is_ours) for is_ours in (False, True))
    return theirs.result(), ours.result()


def _run(client: Client, ready: Checkout, storage: str, only: set[str] | None, ours: bool) -> Outcome:
    """Run; a server that is not installed is a problem, and no reason to leave the run out."""
    try:
        return runs.run(client, ready, storage, only, ours=ours)
    except (pytest.skip.Exception, pytest.fail.Exception) as reason:
        return Outcome(problem=f"it did not run: {reason}")


def compare(client: Client, storage: str, theirs: Outcome, ours: Outcome, only: set[str] | None = None) -> Comparison:
    """Compare the results on Django's class with those on ours, test by test; `only` these tests were asked for."""
    minimum = client.minimum if only is None else len(only)
    touching = client.touching if only is None else min(client.touching, 8 * len(only) // 10)
    comparison = Comparison(client, storage, theirs, ours)
    for name, outcome in ((client.their_class, theirs), ("ours", ours)):
        if outcome.problem:
            comparison.problems.append(f"on {name}: {outcome.problem}")
        elif len(outcome.results) < minimum or len(outcome.touching) < touching:
            counted = f"{len(outcome.results)} tests, and {len(outcome.touching)} that use a cache"
            comparison.problems.append(f"on {name} only {counted}; expected {minimum} and {touching}")
    if comparison.problems:
        return comparison
    run = theirs.results.keys() | ours.results.keys()
    expected = _expected(client.explained(storage), run, only)
    for test in sorted(run | expected.keys()):
        before, after = theirs.results.get(test, "absent"), ours.results.get(test, "absent")
        if before == after and {test, test.partition("[")[0]} & client.sometimes:
            continue
        if before == after and test in expected:
            comparison.problems.append(f"{test}: {after} on both, and named in clients.toml for a difference")
        elif before != after and test in expected:
            comparison.explained[test] = expected[test]
        elif before != after:
            comparison.unexplained.add(test)
            trace = ours.reasons.get(test) or theirs.reasons.get(test, "")
            comparison.problems.append(f"{test}: {before} on {client.their_class}, {after} on ours\n{trace}")
    return comparison


def _expected(named: dict[str, str], run: set[str], only: set[str] | None) -> dict[str, str]:
    """Return the tests that are to differ, with their reasons; a name without parameters is that of all its tests."""
    expected: dict[str, str] = {}
    for name, reason in named.items():
        tests = [test for test in run if test.partition("[")[0] == name] or [name]
        expected |= {test: reason for test in tests if only is None or test in only}
    return expected


def _print_comparison(comparison: Comparison, ready: Checkout) -> None:
    print(f"\n{comparison.client.requirement} {ready.version}, {comparison.storage}", flush=True)
    for name, outcome in ((comparison.client.their_class, comparison.theirs), ("ours", comparison.ours)):
        touching = len(outcome.touching)
        print(f"  {name}: {_counts(outcome)}; {touching} use a cache ({outcome.seconds:.0f} s)")
    for test in comparison.explained:
        results = comparison.theirs.results.get(test, "absent"), comparison.ours.results.get(test, "absent")
        print(f"  differs with a reason: {test}: {' -> '.join(results)}")
    for test in sorted(comparison.unsteady):
        print(f"  differed once, and not when it was run again: {test}")
    for problem in comparison.problems:
        print(f"  {problem}")


def _print_reasons(comparisons: list[Comparison]) -> None:
    reasons: dict[str, set[str]] = {}
    for comparison in comparisons:
        for test, reason in comparison.explained.items():
            reasons.setdefault(reason, set()).add(f"{comparison.client.name}: {test}")
    print("\nTests whose results differ, and why")
    for reason, tests in reasons.items():
        print(f"  {reason}")
        for test in sorted(tests):
            print(f"    {test}")


def _counts(outcome: Outcome) -> str:
    failed = outcome.count("failed", "error")
    return f"{outcome.count('passed')} passed, {failed} failed, {outcome.count('skipped')} skipped"


def _close(comparisons: list[Comparison]) -> int:
    """Print the sum; return the exit code."""
    same = sum(
        sum(comparison.theirs.results.get(test) == result for test, result in comparison.ours.results.items())
        for comparison in comparisons
    )
    explained = sum(len(comparison.explained) for comparison in comparisons)
    problems = sum(len(comparison.problems) for comparison in comparisons)
    print(f"\nclients: {same} tests with the same result, {explained} that differ with a reason, {problems} problems")
    return int(problems > 0 or not comparisons)


if __name__ == "__main__":
    sys.exit(main())
