import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.testing import FakeClock
from tests.integrations.pages.site import AsgiSite, WsgiSite


@pytest.fixture(params=[AsgiSite, WsgiSite], ids=["asgi", "wsgi"])
def site(request):
    """A site whose door is not there yet: see begin()."""
    site = request.param()
    yield site
    site.end()


@pytest.fixture
def clock():
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def cache(request):
    """A cache in memory, of this test alone."""
    return LocMemCache(request.node.nodeid, {})


@pytest.fixture(params=["memory", "files"])
def any_cache(request, tmp_path):
    if request.param == "memory":
        return LocMemCache(request.node.nodeid, {})
    return FileBasedCache(tmp_path / "cache", {})
