"""The contract suite catches each fault, skips the tests of lacks and no others; the fake clock obeys."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from datetime import timedelta
from pickle import dumps, loads

import pytest

from storeroom import timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.storage.hooks import MISSING
from storeroom.testing import CacheContract, FakeClock, concurrency
from storeroom.testing.capabilities import CAPABILITIES, needs, what_it_needs
from storeroom.testing.concurrency import eventually, in_threads
from storeroom.testing.contract.suite import Suite
from storeroom.testing.processes import Child
from storeroom.timeouts import NEVER
from tests.contract import test_custom, test_dummy, test_filebased, test_locmem

pytest_plugins = ["pytester"]

# By module, as pytest would collect and run here a suite that is imported by its name.
DictCache = test_custom.DictCache
SUITES = {
    suite.__name__: suite
    for suite in (
        test_custom.TestDictCache,
        test_dummy.TestDummyCache,
        test_filebased.TestFileBasedCache,
        test_locmem.TestLocMemCache,
        test_locmem.TestLocMemCacheWithoutCopies,
    )
}


# Broken backends --------------------------------------------------------------------------


class AddOverwrites(DictCache):
    def _add(self, storage_key, value, expires_at):
        super()._set_many({storage_key: value}, expires_at)
        return True


class ShowsExpired(DictCache):
    def _live(self, storage_key):
        return self._entries.get(storage_key)


class TouchRevives(DictCache):
    sees_envelopes = True

    def _touch(self, storage_key, expires_at):
        entry = self._entries.get(storage_key)
        if entry:
            self._entries[storage_key] = (entry[0], expires_at)
        return entry is not None


class TakesWholeSeconds(DictCache):
    def _set_many(self, values, expires_at):
        now = timeouts.now()
        return super()._set_many(values, expires_at if expires_at == NEVER else now + int(expires_at - now))


class GivesIncrementsANewTimeout(DictCache):
    def _incr(self, storage_key, delta):
        number = super()._incr(storage_key, delta)
        self._entries[storage_key] = (dumps(number), NEVER)
        return number


class LosesIncrements(DictCache):
    def _incr(self, storage_key, delta):
        number = loads(self._entries[storage_key][0])
        time.sleep(0)
        self._entries[storage_key] = (dumps(number + delta), self._entries[storage_key][1])
        return number + delta


class CountsInText(DictCache):
    def _incr(self, storage_key, delta):
        with self._lock:
            if not self._live(storage_key):
                raise KeyError(storage_key)
            number = int(loads(self._entries[storage_key][0])) + delta
            self._entries[storage_key] = (dumps(str(number)), self._entries[storage_key][1])
            return number


class GivesAnybodysLockBack(DictCache):
    def _compare_delete(self, storage_key, expected):
        return self._delete(storage_key)


class SwapsWithoutComparing(DictCache):
    def _swap(self, storage_key, swap):
        if swap.value is MISSING:
            return self._delete(storage_key)
        return self._set(storage_key, swap.value, swap.expires_at)


class StoresLateResults(DictCache):
    def _compare_set(self, storage_key, expected, value, expires_at):
        return self._set(storage_key, value, expires_at)


class DropsOldValueBeforeRefusing(DictCache):
    def _set_many(self, values, expires_at):
        self._delete_many(list(values))
        return super()._set_many(values, expires_at)


class TakesNoneForAbsent(DictCache):
    def _get(self, storage_key):
        value = super()._get(storage_key)
        return MISSING if value is None else value


class ClearsEverything(DictCache):
    def _clear(self):
        self._entries.clear()


class IgnoresVersions(DictCache):
    def make_key(self, key, version=None):
        return f"{self.key_prefix}:{key}"


class CutsLongKeys(DictCache):
    def make_key(self, key, version=None):
        return super().make_key(key, version)[:250]


class ReturnsStorageKeys(DictCache):
    def get_many(self, keys, version=None):
        return {str(key): value for key, value in super().get_many(keys, version).items()}


class RenamesWithoutTimeout(DictCache):
    def _rename(self, storage_key, new_storage_key):
        return super()._rename(storage_key, new_storage_key) and self._touch(new_storage_key, NEVER)


class AnswersOnlySynchronously(DictCache):
    async def aget(self, key, default=None, version=None):
        return default


class ComputesEachTime(DictCache):
    def get_or_set(self, key, default, timeout=300, version=None):
        value = self.get(key, MISSING, version)
        if value is MISSING:
            value = default() if callable(default) else default
            self.set(key, value, timeout, version)
        return value


class CountsOneTooMany(LocMemCache):
    def count(self, version=None):
        return super().count(version) + 1


class ListsTheExpired(LocMemCache):
    def _scan(self, start):
        return (key for key in list(self._entries) if key.startswith(start))


class ChecksItself(LocMemCache):
    def _check_invariants(self):
        raise AssertionError("it is never content")


class KnowsNoBounds(LocMemCache):
    def __init__(self, location, params):
        super().__init__(location, {**params, "OPTIONS": {}})
        self._max_entries = None


class EvictsWhenOverwriting(LocMemCache):
    def set(self, key, value, timeout=300, version=None):
        if self._max_entries and len(self._entries) >= self._max_entries:
            self._delete(random.Random(7).choice(sorted(self._entries)))
        super().set(key, value, timeout, version)


class EvictsTheNewest(LocMemCache):
    def set(self, key, value, timeout=300, version=None, *, tags=()):
        if self._max_entries and len(self._entries) >= self._max_entries:
            self._delete(list(self._entries)[-1])
        super().set(key, value, timeout, version)


# The broken backend -> the part of the contract that is run on it, and its tests that have to fail.
BROKEN = {
    AddOverwrites: (
        "values.ValuesContract",
        {"test_add_keeps_the_first_value", "test_get_tells_a_stored_none_from_absence"},
    ),
    ShowsExpired: (
        "expiry.ExpiryContract",
        {
            "test_a_fraction_of_a_second_counts",
            "test_add_stores_over_an_expired_entry",
            "test_an_entry_lives_until_its_timeout",
            "test_counting_an_expired_entry_is_an_error",
            "test_entries_of_one_set_many_expire_together",
            "test_expire_at_never_revives",
            "test_expire_at_takes_a_point_in_time",
            "test_get_or_set_computes_over_an_expired_entry",
            "test_touch_gives_a_new_timeout",
            "test_touch_never_revives",
        },
    ),
    TouchRevives: ("expiry.ExpiryContract", {"test_touch_never_revives", "test_expire_at_never_revives"}),
    TakesWholeSeconds: ("expiry.ExpiryContract", {"test_a_fraction_of_a_second_counts"}),
    GivesIncrementsANewTimeout: (
        "counting.CountingContract",
        {"test_incr_keeps_the_timeout", "test_a_number_that_is_created_has_the_timeout"},
    ),
    CountsInText: (
        "counting.CountingContract",
        {
            "test_a_counter_can_be_made_by_any_write",
            "test_a_default_does_not_replace_what_is_no_number",
            "test_a_number_that_would_expire_at_once_is_not_created",
            "test_a_number_whose_tag_was_invalidated_is_created_anew",
            "test_an_int_stays_an_int",
            "test_counting_what_is_no_number_is_an_error",
            "test_decr_subtracts_and_returns_the_new_number",
            "test_incr_adds_and_returns_the_new_number",
            "test_incr_keeps_the_timeout",
            "test_incr_with_a_default_creates_the_number",
            "test_numbers_have_no_bound",
        },
    ),
    LosesIncrements: (
        "threads.ThreadsContract",
        {"test_threads_count_exactly", "test_threads_create_a_counter_once"},
    ),
    GivesAnybodysLockBack: ("locks.LocksContract", {"test_lock_is_free_when_its_time_is_over"}),
    SwapsWithoutComparing: (
        "swaps.SwapsContract",
        {
            "test_a_swap_is_made_where_the_entry_is_as_expected",
            "test_an_entry_is_removed_where_it_is_as_expected",
            "test_of_many_who_want_the_same_each_entry_has_one_winner",
        },
    ),
    StoresLateResults: (
        "batches.BatchesContract",
        {
            "test_those_who_ask_after_a_delete_get_no_old_value",
            "test_what_is_changed_meanwhile_is_not_overwritten",
            "test_what_is_invalidated_meanwhile_is_not_put_back",
        },
    ),
    DropsOldValueBeforeRefusing: ("values.ValuesContract", {"test_set_refuses_what_could_not_be_read_back"}),
    TakesNoneForAbsent: (
        "values.ValuesContract",
        {
            "test_get_returns_an_equal_value_of_the_same_type",
            "test_get_tells_a_stored_none_from_absence",
            "test_set_overwrites",
        },
    ),
    ClearsEverything: ("keys.KeysContract", {"test_clear_removes_only_the_caches_own_keys"}),
    CutsLongKeys: ("keys.KeysContract", {"test_long_keys_that_share_a_start_are_different_keys"}),
    IgnoresVersions: (
        "keys.KeysContract",
        {
            "test_a_version_is_a_whole_number",
            "test_any_key_works_in_every_operation",
            "test_clear_removes_every_version",
            "test_clear_removes_everything",
            "test_clear_removes_only_the_caches_own_keys",
            "test_incr_version_keeps_the_timeout",
            "test_incr_version_moves_an_entry",
            "test_incr_version_replaces_what_is_there",
            "test_key_function_makes_the_keys",
            "test_the_setting_version_is_the_default_version",
            "test_versions_keep_entries_apart",
        },
    ),
    RenamesWithoutTimeout: (
        "keys.KeysContract",
        {"test_incr_version_keeps_the_timeout", "test_incr_version_replaces_what_is_there"},
    ),
    ListsTheExpired: ("keys.KeysContract", {"test_keys_and_count_pass_over_what_is_not_live"}),
    ReturnsStorageKeys: (
        "many.ManyContract",
        {
            "test_results_have_the_keys_that_the_caller_typed",
            "test_set_many_stores_and_returns_the_keys_that_failed",
        },
    ),
    EvictsTheNewest: (
        "eviction.EvictionContract",
        {
            "test_an_entry_is_found_half_a_turnover_later",
            "test_an_entry_just_written_is_found",
            "test_sessions_stay_while_they_live",
        },
    ),
    KnowsNoBounds: (
        "bounds.BoundsContract",
        {
            "test_a_value_larger_than_everything_is_refused",
            "test_cull_frequency_evicts_a_part_at_once",
            "test_max_bytes_holds",
            "test_max_bytes_holds_when_entries_grow",
            "test_max_entries_holds",
            "test_max_entries_holds_within_get_or_set_many",
            "test_max_entries_holds_within_set_many",
            "test_max_entries_may_be_one",
            "test_prefixes_share_the_bound_of_their_storage",
            "test_without_a_setting_it_is_300",
        },
    ),
    EvictsWhenOverwriting: (
        "bounds.BoundsContract",
        {"test_overwriting_evicts_nothing", "test_cull_frequency_evicts_a_part_at_once"},
    ),
}

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
        from tests.unit.test_testing_kit import TakesNoneForAbsent

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


# Capabilities -----------------------------------------------------------------------------


def all_tests(suite):
    return {name: test for name in dir(suite) if name.startswith("test_") and (test := getattr(suite, name))}


def test_each_capability_is_needed_by_some_test():
    """Each capability that a backend may lack is needed by a test, but for the fake clock, whose lack skips none."""
    used = frozenset().union(*(what_it_needs(test) for test in all_tests(CacheContract).values()))
    # Its lack does not skip a test where real time does as well.
    assert used | {"fake_clock"} == set(CAPABILITIES)


@pytest.mark.parametrize("name", SUITES)
def test_the_projects_own_skips_are_exactly_the_lacks_of_its_backends(name):
    """Each lack of the project's backends skips a test, and each skip is of a lack."""
    suite = SUITES[name]
    own, whole = all_tests(suite), all_tests(CacheContract)
    skipped = {test.stands_for for test in own.values() if hasattr(test, "stands_for")}
    lacking = {whole[name] for name in own.keys() & whole.keys() if what_it_needs(whole[name]) & suite.lacks.keys()}
    assert skipped == lacking
    for capability in suite.lacks if own.keys() >= whole.keys() else ():
        assert any(capability in what_it_needs(test) for test in skipped), f"{capability} skips nothing"


def test_the_file_cache_lacks_nothing():
    """The file cache runs the contract without a lack."""
    assert SUITES["TestFileBasedCache"].lacks == {}


def test_a_test_of_a_lack_is_skipped_with_its_reason(pytester):
    """A test that needs a lacking capability is skipped with its reason; a subclass without the lack runs it."""
    pytester.makepyfile("""
        from storeroom.backends.locmem import LocMemCache
        from storeroom.testing.capabilities import needs
        from storeroom.testing.contract.suite import Suite

        class Own(Suite):
            @needs("bounds")
            async def test_needing(self, cache):
                assert False

            async def test_free(self, cache):
                await cache.set("k", 1)

        class TestLacking(Own):
            lacks = {"bounds": "it is too small to be bounded"}

            def make_cache(self, location, params):
                return LocMemCache(location, params)

        class TestComplete(TestLacking):
            lacks = {}
    """)
    run = pytester.runpytest_inprocess("-rs")
    # Without parameters where it is skipped; again in both modes where a subclass takes the lack back.
    run.assert_outcomes(passed=4, skipped=1, failed=2)
    run.stdout.fnmatch_lines(["SKIPPED*lacks 'bounds': it is too small to be bounded"])


def test_an_unknown_capability_is_an_error_with_the_nearest_name():
    """An unknown name in lacks or needs() raises TypeError with the nearest name."""
    with pytest.raises(TypeError, match=r"'bound', which does not exist. Did you mean 'bounds'"):
        type("TestIt", (Suite,), {"lacks": {"bound": "none"}})
    with pytest.raises(TypeError, match="'enumeration'"):
        needs("enumeration")


@pytest.mark.parametrize("reason", ["", "  ", None, True])
def test_a_lack_has_a_reason(reason):
    """A lack without text as its reason raises TypeError."""
    with pytest.raises(TypeError, match="expected the reason"):
        type("TestIt", (Suite,), {"lacks": {"bounds": reason}})


def test_a_test_that_waits_for_something_else_is_told_so_in_the_mode_without_a_loop(pytester):
    """In the mode without a loop, a test that awaits something but its driver fails and is told why."""
    pytester.makepyfile("""
        import asyncio
        from storeroom.backends.locmem import LocMemCache
        from storeroom.testing.contract.suite import Suite

        class TestIt(Suite):
            def make_cache(self, location, params):
                return LocMemCache(location, params)

            async def test_sleeping(self, cache):
                await asyncio.sleep(0)
    """)
    run = pytester.runpytest_inprocess()
    run.assert_outcomes(passed=1, failed=1)
    run.stdout.fnmatch_lines(["*waited for something else than its driver*"])


# Tools ------------------------------------------------------------------------------------


def test_threads_that_do_not_end_fail_the_test(monkeypatch):
    """Threads or conditions that do not come to their end within PATIENCE raise AssertionError."""
    monkeypatch.setattr(concurrency, "PATIENCE", 0.1)
    for_ever = threading.Event()
    with pytest.raises(AssertionError, match="1 of 3 threads did not end"):
        in_threads(3, lambda number: number or for_ever.wait())
    for_ever.set()
    with pytest.raises(AssertionError, match="did not happen"):
        eventually(lambda: False)


def test_an_error_in_a_thread_is_the_callers():
    """An exception in a thread is raised by in_threads()."""
    with pytest.raises(ZeroDivisionError):
        in_threads(3, lambda number: 1 // number)


def test_an_error_in_a_process_is_told_with_its_traceback(tmp_path):
    """An exception in a child process raises AssertionError with its traceback."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, fail)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        child.result()


def test_a_process_that_dies_fails_the_test(tmp_path):
    """A child process that exits raises AssertionError with its exit code."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, die)
    with pytest.raises(AssertionError, match="exit code 7"):
        child.result()


def test_a_process_that_does_not_end_fails_the_test_and_is_ended(tmp_path):
    """A child process that does not end raises AssertionError and is terminated."""
    child = Child(test_dummy.TestDummyCache, str(tmp_path), {}, sleep_for_ever)
    with pytest.raises(AssertionError, match="did not end within"):
        child.result(patience=0.1)
    assert not child._process.is_alive()


def fail(cache):
    return 1 // 0


def die(cache):
    os._exit(7)


def sleep_for_ever(cache):
    threading.Event().wait()


def test_the_kit_is_loaded_by_tests_alone():
    """A program that imports storeroom loads no test kit, and FakeClock works without pytest."""
    code = (
        "import sys; sys.modules['pytest'] = None; import storeroom, storeroom.base\n"
        "assert not any(name.startswith('storeroom.testing') for name in sys.modules)\n"
        "from storeroom.testing import FakeClock\n"
        "import storeroom.testing\n"
        "try: storeroom.testing.CacheContract\n"
        "except ImportError: pass\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The fake clock ---------------------------------------------------------------------------


def test_the_fake_clock_starts_at_the_real_time_and_stands_still():
    """A fake clock shows the time at its start until it is advanced."""
    with FakeClock() as clock:
        assert clock.now() == pytest.approx(time.time(), abs=5)
        assert timeouts.now() == clock.now() == timeouts.now()


def test_the_fake_clock_advances_by_seconds_timedelta_or_words():
    """advance() takes seconds, a timedelta or words, zero included."""
    with FakeClock() as clock:
        start = clock.now()
        clock.advance(1.5)
        clock.advance(timedelta(minutes=1))
        clock.advance("1h30m")
        clock.advance(0)
        assert timeouts.now() == pytest.approx(start + 1.5 + 60 + 5400)


@pytest.mark.parametrize("duration", [-1, None, "forever", "soon", float("inf"), float("nan")])
def test_the_fake_clock_refuses_a_value_that_is_no_duration(duration):
    """advance() raises ValueError for a negative, endless or meaningless duration."""
    with FakeClock() as clock, pytest.raises(ValueError, match=r"timeout|advance"):
        clock.advance(duration)


def test_the_fake_clock_gives_the_real_one_back():
    """Leaving a fake clock restores the clock before it, nested and after an error."""
    real = timeouts.now
    with FakeClock() as outer:
        with pytest.raises(ZeroDivisionError), FakeClock() as inner:
            inner.advance(1 / (inner.now() - timeouts.now()))
        assert timeouts.now() == outer.now()
    assert timeouts.now is real


def test_the_fake_clock_is_a_fixture(pytester):
    """The plugin storeroom.testing.fixtures offers the clock as fixture fake_clock."""
    pytester.makeconftest('pytest_plugins = ["storeroom.testing.fixtures"]')
    pytester.makepyfile("""
        from storeroom.backends.locmem import LocMemCache

        def test_expiry(fake_clock, tmp_path):
            cache = LocMemCache(str(tmp_path), {})
            cache.set("k", 1, timeout="5m")
            fake_clock.advance("4m59s")
            assert cache.get("k") == 1
            fake_clock.advance(1)
            assert cache.get("k") is None
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
