"""Local memory keeps the contract."""

from typing import ClassVar

from storeroom.backends.locmem import LocMemCache
from storeroom.testing import CacheContract
from storeroom.testing.contract.advice import AdviceContract
from storeroom.testing.contract.arguments import ArgumentsContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.expiry import ExpiryContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.odd_values import OddValuesContract
from storeroom.testing.contract.statistics import StatisticsContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.values import ValuesContract
from tests.contract.parts import contract_of
from tests.handles import InPython

#: Values as they are given back. The rest is the same with copies.
Values = contract_of("Values", ValuesContract, ManyContract, ComputingContract, SwapsContract)


class TestLocMemCache(CacheContract):
    """Entries are copied in and out."""

    lacks: ClassVar = {
        "processes": "each process has its own memory",
        "persistence": "memory ends with its process",
    }

    def make_cache(self, location, params):
        return LocMemCache(location, params)


class TestLocMemCacheInPython(
    contract_of("InPython", ValuesContract, OddValuesContract, ArgumentsContract, ExpiryContract, StatisticsContract)
):
    """The methods in Python, which have compiled forms where there is a compiler, do all by themselves."""

    lacks: ClassVar = TestLocMemCache.lacks

    def make_cache(self, location, params):
        return InPython(location, params)


class TestLocMemCacheThatRecords(
    contract_of("Recording", ValuesContract, FinalizersContract, ManyContract, AdviceContract)
):
    """OPTIONS["advise"] changes no answer: all goes through an overlay."""

    lacks: ClassVar = TestLocMemCache.lacks

    def make_cache(self, location, params):
        return LocMemCache(location, {**params, "OPTIONS": {"advise": "always", **params.get("OPTIONS", {})}})


class TestLocMemCacheWithoutCopies(Values):
    """OPTIONS["copy"] = False gives up isolation, and nothing else."""

    lacks: ClassVar = {
        **TestLocMemCache.lacks,
        "isolation": "it was asked to share the very objects",
        "refusal": "an object that is kept as it is need not be pickled",
    }

    def make_cache(self, location, params):
        return LocMemCache(location, {**params, "OPTIONS": {**params.get("OPTIONS", {}), "copy": False}})
