"""The parts of the contract that variants of a storage run."""

from storeroom.testing import CacheContract
from storeroom.testing.contract.tags import TagsContract
from tests.contract.parts import IN_ANOTHER_CONTEXT, PICKED, contract_of, is_left_out


def test_each_part_of_the_contract_is_picked_from() -> None:
    """A new part of the contract, and a test that has another name, is given a decision here."""
    assert set(PICKED) == set(CacheContract.__bases__)
    assert [test for part, picked in PICKED.items() for test in picked if not hasattr(part, test)] == []
    assert [test for test in IN_ANOTHER_CONTEXT if not hasattr(CacheContract, test)] == []


def test_a_variant_runs_each_test_in_one_mode_at_least() -> None:
    """Of what a variant changes, both modes run; of the rest one, not the same for all tests; others run all."""
    variant, modes = contract_of("Variant", TagsContract), ("sync", "async")
    names = [name for name in dir(CacheContract) if name.startswith("test_")]
    left = {name: [mode for mode in modes if is_left_out(variant, name, mode)] for name in names}
    of_tags = {name for name in dir(TagsContract) if name.startswith("test_")}
    assert {len(left[name]) for name in of_tags} == {0}
    assert {left[name][0] for name in left.keys() - of_tags} == set(modes)
    assert not any(is_left_out(CacheContract, name, mode) for name in names for mode in modes)
