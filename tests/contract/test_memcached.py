"""The Memcached caches keep the contract on real servers: one and three, by both drivers."""

from typing import ClassVar

import pytest

from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.testing import CacheContract
from tests.servers.memcached import Servers, memcached, needs_pylibmc, three_memcached

__all__ = ["memcached", "three_memcached"]

LACKS = {
    "objects": "what a server holds may come from anybody, so without a secret only plain data is stored",
    "enumerate": "Memcached has no command that lists keys",
    "statistics": "a server shares its memory among all its users, and expires entries unseen",
    "bounds": "the server's memory bounds all it holds",
    "byte_bounds": "the server's memory bounds all it holds",
}


#: The machine may be busy with other tests; a server that is down has tests of its own.
PATIENT = {"socket_timeout": 20}


class MemcachedContract(CacheContract):
    lacks = LACKS

    backend = PyMemcacheCache
    own_options: ClassVar = {}

    #: The servers of a test that makes locations of its own; each of those is a prefix on them.
    servers = None

    def make_cache(self, location, params):
        params = {**params, "OPTIONS": PATIENT | self.own_options | params.get("OPTIONS", {})}
        if self.servers is not None:
            return self.backend(self.servers, {**params, "KEY_PREFIX": location})
        return self.backend(location, params)

    def test_any_sequence_of_operations_agrees_with_a_dict(self, tmp_path, mode, location):
        self.servers = location
        super().test_any_sequence_of_operations_agrees_with_a_dict(tmp_path, mode)


class OneServer(MemcachedContract):
    @pytest.fixture
    def location(self, memcached: Servers) -> str:
        return memcached.location()


class ThreeServers(MemcachedContract):
    @pytest.fixture
    def location(self, three_memcached: Servers) -> str:
        return three_memcached.location()


class TestPyMemcache(OneServer):
    pass


class TestPyMemcacheThreeServers(ThreeServers):
    pass


class TestPyMemcacheWithSecret(OneServer):
    """Values are signed for their keys, and anything may be stored."""

    lacks: ClassVar = {name: reason for name, reason in LACKS.items() if name != "objects"}
    own_options: ClassVar = {"secret": "a secret of this test alone"}


@needs_pylibmc
class TestPyLibMC(OneServer):
    backend = PyLibMCCache


@needs_pylibmc
class TestPyLibMCThreeServers(ThreeServers):
    backend = PyLibMCCache


@needs_pylibmc
class TestPyLibMCBinary(OneServer):
    """The binary protocol, as SASL needs it."""

    backend = PyLibMCCache
    own_options: ClassVar = {"binary": True}
