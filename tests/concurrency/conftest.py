"""Caches to race on; and a test that deadlocks fails instead of hanging the run."""

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.testing.concurrency import in_threads


class Leased(LocMemCache):
    """Local memory whose computations compete for a lease, as if other processes shared it."""

    is_shared = True


@pytest.fixture(params=[LocMemCache, Leased])
def cache(request, tmp_path):
    return request.param(str(tmp_path), {})


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run each test of this folder in a thread of its own, and wait for it as long as a test may take."""
    fixtures = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    in_threads(1, lambda _: pyfuncitem.obj(**fixtures))
    return True
