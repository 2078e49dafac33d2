"""The comparison of a client's suite on Django's class with the same on ours: nothing that differs goes unseen."""

from dataclasses import replace

import pytest

from tests.client_suites import clients
from tests.client_suites.__main__ import compare
from tests.client_suites.runs import STORAGES, Outcome

CLIENT = replace(
    clients.load()["ratelimit"], minimum=2, touching=1, differences={"known": "a reason"}, only_on={"known": {"redis"}}
)


def outcome(**results: str) -> Outcome:
    return Outcome(results=results, touching={"one"})


@pytest.mark.parametrize(
    ("storage", "theirs", "ours", "told"),
    [
        ("locmem", outcome(one="passed", two="failed"), outcome(one="passed", two="failed"), []),
        ("locmem", outcome(one="passed", two="passed"), outcome(one="passed", two="failed"), ["two: passed on Django"]),
        ("locmem", outcome(one="passed", two="failed"), outcome(one="passed", two="passed"), ["two: failed on Django"]),
        ("locmem", outcome(one="passed", two="passed"), outcome(one="passed", tow="passed"), ["tow: absent", "two: "]),
        ("locmem", outcome(one="passed"), outcome(one="passed", two="passed"), ["on Django's class only 1 tests"]),
        ("locmem", Outcome({"one": "passed", "two": "passed"}), outcome(one="passed", two="passed"), ["on Django"]),
        ("locmem", outcome(one="passed", two="passed"), Outcome(problem="no server"), ["on ours: no server"]),
        ("redis", outcome(one="passed", known="passed"), outcome(one="passed", known="failed"), []),
        ("redis", outcome(one="passed", known="failed"), outcome(one="passed", known="failed"), ["known: failed"]),
        ("locmem", outcome(one="passed", known="passed"), outcome(one="passed", known="failed"), ["known: passed"]),
    ],
)  # fmt: skip
def test_a_difference_is_a_problem_unless_it_has_a_reason(
    storage: str, theirs: Outcome, ours: Outcome, told: list[str]
) -> None:
    """A test that differs, is absent, is explained in vain or did not run is told, and nothing else is."""
    problems = compare(CLIENT, storage, theirs, ours).problems
    assert len(problems) == len(told)
    assert all(problem.startswith(begin) for problem, begin in zip(problems, told, strict=True)), problems


def test_only_some_tests_were_asked_for() -> None:
    """Where only the tests that use a cache are run, all of these have to be there, and no others."""
    one = outcome(one="passed")
    assert compare(CLIENT, "locmem", one, one, {"one"}).problems == []
    assert len(compare(CLIENT, "locmem", one, one, {"one", "two"}).problems) == 2


@pytest.mark.parametrize("client", clients.load().values(), ids=lambda client: client.name)
def test_each_client_is_run_on_storages_that_there_are(client: clients.Client) -> None:
    """A storage is one of the runner's, unless the client's own settings choose it; each has its numbers."""
    assert client.storages
    assert client.choice or set(client.storages) <= STORAGES.keys()
    assert client.minimum >= client.touching > 0
