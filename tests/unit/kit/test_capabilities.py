"""What a backend lacks is skipped with its reason, and no other test is."""

import pytest

from storeroom.testing import CacheContract
from storeroom.testing.capabilities import CAPABILITIES, needs, what_it_needs
from storeroom.testing.contract.suite import Suite
from tests.contract import test_custom, test_dummy, test_filebased, test_locmem

pytest_plugins = ["pytester"]

# By module, as pytest would collect and run here a suite that is imported by its name.
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
