"""The parts of the contract that variants of a storage run."""

from storeroom.testing import CacheContract
from tests.contract.parts import IN_ANOTHER_CONTEXT, PICKED


def test_each_part_of_the_contract_is_picked_from() -> None:
    """A new part of the contract, and a test that has another name, is given a decision here."""
    assert set(PICKED) == set(CacheContract.__bases__)
    assert [test for part, picked in PICKED.items() for test in picked if not hasattr(part, test)] == []
    assert [test for test in IN_ANOTHER_CONTEXT if not hasattr(CacheContract, test)] == []
