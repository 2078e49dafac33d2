"""One server of each kind, in the state that a test asks for."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from storeroom import caches, configure
from storeroom.base import BaseCache
from storeroom.testing.isolation import engines_of_its_own
from tests.faults.away import Away
from tests.faults.kinds import KINDS, MEMCACHED, SITES, Site
from tests.servers.proxy import Proxy
from tests.servers.shared import shared

_numbers = itertools.count()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of server in turn; ``@kinds(…)`` chooses some."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared_site(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The server of a kind that all tests of this process share, in the state that the last one left it in."""
    start = contextmanager(SITES[kind].servers)
    server = shared(f"{kind} to be mistreated", lambda: start(tmp_path_factory.mktemp(kind)))
    return SITES[kind](server)


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """A server that runs, and caches without entries."""
    shared_site.start()
    shared_site.prefix = f"test{next(_numbers)}"  # so that entries of the tests before are not found
    with engines_of_its_own():
        yield shared_site


@pytest.fixture
def down(shared_site: Site) -> Iterator[Site]:
    """A server that was killed before any cache has asked it."""
    shared_site.kill()
    shared_site.prefix = ""
    with engines_of_its_own():
        yield shared_site


@pytest.fixture(scope="module", params=["redis", *MEMCACHED, "postgresql", "mysql"])
def away(request: pytest.FixtureRequest) -> Iterator[Away]:
    """Caches of each kind in turn, at a port that nobody listens on."""
    with engines_of_its_own():
        yield Away(request.param)


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """A way to the site's server that a test can cut and slow down."""
    with Proxy(site.server.port) as proxy:
        yield proxy


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """Each of the two APIs in turn."""
    return str(request.param)


@pytest.fixture
def memory() -> Iterator[BaseCache]:
    """The cache of the alias "memory", for others to fall back to."""
    before = caches.swap(None)
    backend = "storeroom.backends.locmem.LocMemCache"
    aliases = {name: {"BACKEND": backend, "LOCATION": f"{name} {next(_numbers)}"} for name in ("default", "memory")}
    configure(aliases)
    try:
        yield caches["memory"]
    finally:
        caches.swap(before)
