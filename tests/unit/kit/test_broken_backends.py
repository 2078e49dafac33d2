"""The contract suite catches each fault, and nothing but it."""

from collections import defaultdict

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.testing import CacheContract, concurrency
from tests.unit.kit.broken_backends import (
    BROKEN,
    AnswersOnlySynchronously,
    ChecksItself,
    ComputesEachTime,
    CountsOneTooMany,
)

pytest_plugins = ["pytester"]

DICT_LACKS = ("enumerate", "statistics", "bounds", "byte_bounds", "atomic_rename")


@pytest.fixture
def outcomes(pytester, monkeypatch):
    """Run a part of the contract on a backend; return outcome and phase -> names of tests, modes included."""

    def outcomes(backend, part, select="not async", patience=concurrency.PATIENCE):
        monkeypatch.setattr(concurrency, "PATIENCE", patience)
        module, suite = part.split(".")
        lacks = () if issubclass(backend, LocMemCache) else DICT_LACKS
        pytester.makepyfile(f"""
            from storeroom.testing.contract.{module} import {suite}
            from {backend.__module__} import {backend.__name__}

            class TestIt({suite}):
                lacks = {dict.fromkeys(lacks, "not the subject")!r}

                def make_cache(self, location, params):
                    return {backend.__name__}(location, params)
        """)
        run = pytester.inline_run("-q", "-p", "no:cacheprovider", "--tb=no", "-k", select)
        found = defaultdict(set)
        for report in run.getreports("pytest_runtest_logreport"):
            found[report.outcome, report.when].add(report.nodeid.partition("::TestIt::")[2])
        return found

    return outcomes


def functions(names):
    """The names without parameters."""
    return {name.partition("[")[0] for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BROKEN, ids=lambda backend: backend.__name__)
def test_the_contract_catches_a_broken_backend(outcomes, backend):
    """Exactly the tests about the broken behaviour fail on a broken backend."""
    part, expected = BROKEN[backend]
    assert functions(outcomes(backend, part)["failed", "call"]) == expected


def test_the_contract_catches_a_twin_that_differs(outcomes):
    """A wrong async method fails the contract in the mode "async" alone."""
    failed = outcomes(AnswersOnlySynchronously, "counting.CountingContract", select="incr")["failed", "call"]
    assert "test_incr_adds_and_returns_the_new_number[async]" in failed
    assert all("[async" in name for name in failed)


def test_the_contract_checks_the_cache_left_behind(outcomes):
    """A passing test errs at teardown if its cache does not agree with itself afterwards."""
    found = outcomes(CountsOneTooMany, "computing.ComputingContract")
    left = "test_get_or_set_computes_stores_and_returns[sync]"
    assert left in found["passed", "call"]
    assert left in found["failed", "teardown"]


def test_the_contract_catches_a_stampede(outcomes):
    """A get_or_set() that computes each time fails the contract, without waiting for followers that never come."""
    failed = outcomes(ComputesEachTime, "stampede.StampedeContract", patience=1.0)["failed", "call"]
    assert failed >= {
        "test_fifty_threads_compute_a_cold_key_once",
        "test_handles_of_one_storage_compute_a_cold_key_once",
        "test_threads_that_wait_get_the_leaders_error",
        "test_threads_whose_computations_wait_for_each_other_get_an_error",
    }


def test_a_backends_own_check_is_called(outcomes):
    """A backend's _check_invariants() runs after each test and fails its teardown."""
    found = outcomes(ChecksItself, "many.ManyContract")
    assert found["passed", "call"] == found["failed", "teardown"] != set()


def test_a_failure_shows_the_values(pytester):
    """A failed assert of the contract shows its values, as one in a test's own file does."""
    pytester.makepyfile("""
        from storeroom.testing import CacheContract
        from tests.unit.kit.broken_backends import TakesNoneForAbsent

        class TestIt(CacheContract):
            def make_cache(self, location, params):
                return TakesNoneForAbsent(location, params)
    """)
    run = pytester.runpytest_inprocess("-q", "-k", "test_get_tells_a_stored_none and sync")
    run.stdout.fnmatch_lines(["E*assert 'default' is None"])


def test_a_suite_without_a_factory_names_the_missing_method():
    """A suite without make_cache() raises NotImplementedError with the signature."""

    class Unfinished(CacheContract):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished must define make_cache\(self, location, params\)"):
        Unfinished().make_cache("", {})
