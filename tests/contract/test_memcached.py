"""The Memcached caches keep the contract on real servers: one and three, by both drivers.

One server runs through all of it by the default driver. The other variants run in full what they change, and what is
picked of the other parts (see parts.py): TestPyMemcache has the rest, by the same code.
"""

from typing import ClassVar

import pytest

from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.testing import CacheContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.foreign import ForeignCodeContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.values import ValuesContract
from tests.contract.parts import contract_of
from tests.servers.memcached import Servers, memcached, needs_pylibmc, three_memcached

__all__ = ["memcached", "three_memcached"]

LACKS = {
    "objects": "a server's values may come from anybody, so without a secret only plain data is stored",
    "enumerate": "Memcached has no command that lists keys",
    "statistics": "a server shares its memory among all its users, and expires entries unseen",
    "bounds": "the server bounds its memory as a whole",
    "byte_bounds": "the server bounds its memory as a whole",
}


#: The machine may be busy with other tests; a server that is down has tests of its own.
PATIENT = {"socket_timeout": 20}


class Memcached:
    """A driver and its servers; each test begins with empty ones."""

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
        """See SequencesContract: each sequence has a prefix of its own on the servers."""
        self.servers = location
        super().test_any_sequence_of_operations_agrees_with_a_dict(tmp_path, mode)


#: Keys that lie on several servers.
SpreadKeys = contract_of("SpreadKeys", FinalizersContract, ManyContract, BatchesContract, SwapsContract, TagsContract)
#: What is signed when it is written, and again when it moves.
SignedValues = contract_of(
    "SignedValues", ValuesContract, ForeignCodeContract, KeysContract, CountingContract, SwapsContract
)
#: The same commands, by another library.
AnotherDriver = contract_of(
    "AnotherDriver", ValuesContract, FinalizersContract, ManyContract, CountingContract, SwapsContract
)
#: The same commands, written in another way.
AnotherProtocol = contract_of("AnotherProtocol", ManyContract, CountingContract)


class OneServer(Memcached):
    """All keys on one server."""

    @pytest.fixture
    def location(self, memcached: Servers) -> str:
        return memcached.location()


class ThreeServers(Memcached):
    """Keys are spread over three servers."""

    @pytest.fixture
    def location(self, three_memcached: Servers) -> str:
        return three_memcached.location()


class TestPyMemcache(OneServer, CacheContract):
    """The default driver."""

    sequences = 10  # of the same operations on local memory and files there are more


class TestPyMemcacheThreeServers(ThreeServers, SpreadKeys):
    """The default driver, and several servers."""


class TestPyMemcacheWithSecret(OneServer, SignedValues):
    """Values are signed for their keys, and anything may be stored."""

    lacks: ClassVar = {name: reason for name, reason in LACKS.items() if name != "objects"}
    own_options: ClassVar = {"secret": "a secret of this test alone"}


@needs_pylibmc
class TestPyLibMC(OneServer, AnotherDriver):
    """The driver in C."""

    backend = PyLibMCCache


@needs_pylibmc
class TestPyLibMCThreeServers(ThreeServers, SpreadKeys):
    """The driver in C, and several servers."""

    backend = PyLibMCCache


@needs_pylibmc
class TestPyLibMCBinary(OneServer, AnotherProtocol):
    """The binary protocol, as SASL needs it."""

    backend = PyLibMCCache
    own_options: ClassVar = {"binary": True}
