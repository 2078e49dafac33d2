"""The contract of a cache: one class to subclass, assembled from a file per subject.

See `CacheContract`. Capabilities that a storage may lack are in `capabilities`.
"""

from storeroom.testing.contract.advice import AdviceContract
from storeroom.testing.contract.arguments import ArgumentsContract
from storeroom.testing.contract.batches import BatchesContract
from storeroom.testing.contract.bounds import BoundsContract
from storeroom.testing.contract.cached import CachedContract
from storeroom.testing.contract.collected import FinalizersContract
from storeroom.testing.contract.computing import ComputingContract
from storeroom.testing.contract.counting import CountingContract
from storeroom.testing.contract.endings import EndingsContract
from storeroom.testing.contract.eviction import EvictionContract
from storeroom.testing.contract.expiry import ExpiryContract
from storeroom.testing.contract.explained import ExplainedContract
from storeroom.testing.contract.foreign import ForeignCodeContract
from storeroom.testing.contract.forks import ForkContract
from storeroom.testing.contract.freshness import FreshnessContract
from storeroom.testing.contract.handles import HandlesContract
from storeroom.testing.contract.interruption import InterruptionContract
from storeroom.testing.contract.keys import KeysContract
from storeroom.testing.contract.locks import LocksContract
from storeroom.testing.contract.many import ManyContract
from storeroom.testing.contract.memos import MemosContract
from storeroom.testing.contract.odd_values import OddValuesContract
from storeroom.testing.contract.processes import ProcessesContract
from storeroom.testing.contract.races import RacesContract
from storeroom.testing.contract.refreshing import RefreshingContract
from storeroom.testing.contract.separation import SeparationContract
from storeroom.testing.contract.sequences import SequencesContract
from storeroom.testing.contract.stampede import StampedeContract
from storeroom.testing.contract.statistics import StatisticsContract
from storeroom.testing.contract.swaps import SwapsContract
from storeroom.testing.contract.tags import TagsContract
from storeroom.testing.contract.threads import ThreadsContract
from storeroom.testing.contract.transactions import TransactionsContract
from storeroom.testing.contract.unstorable import UnstorableContract
from storeroom.testing.contract.values import ValuesContract

__all__ = ["CacheContract"]


class CacheContract(
    HandlesContract,
    ValuesContract,
    OddValuesContract,
    ForeignCodeContract,
    FinalizersContract,
    ArgumentsContract,
    KeysContract,
    SeparationContract,
    ManyContract,
    CountingContract,
    LocksContract,
    ExpiryContract,
    ComputingContract,
    BatchesContract,
    SwapsContract,
    FreshnessContract,
    RefreshingContract,
    CachedContract,
    UnstorableContract,
    TagsContract,
    TransactionsContract,
    MemosContract,
    StatisticsContract,
    ExplainedContract,
    AdviceContract,
    BoundsContract,
    EvictionContract,
    StampedeContract,
    ThreadsContract,
    InterruptionContract,
    EndingsContract,
    ForkContract,
    ProcessesContract,
    RacesContract,
    SequencesContract,
):
    """Everything that Storeroom promises of a cache, as tests.

    Subclass it under a name that pytest collects, define ``make_cache(self, location,
    params)``, and name in ``lacks`` what the storage cannot do, with the reason::

        class TestMyCache(CacheContract):
            lacks = {"enumerate": "the server cannot list its keys"}

            def make_cache(self, location, params):
                return MyCache(location, params)

    Most tests run twice, through the synchronous and the asynchronous API. After each, the
    cache's statistics, keys and values have to agree with one another; a method
    ``_check_invariants()`` of the backend is called too.
    """
