"""Each rule of `storeroom check`, both ways: a configuration that breaks it, and one close to it that does not."""

import pytest

from storeroom import checks
from tests.unit.checks.configurations import CASES, IN_DIRECTORIES, answers_of, ids, placed


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_finds_its_mistake_alone(case, tmp_path):
    """A rule finds the configuration that breaks it, and passes one that is close to it."""
    found = ids(placed(case.caches, tmp_path), case.context, probes=answers_of(case))
    assert (case.id in found) is case.fires, f"found {sorted(found)}"


def test_every_rule_is_tested_both_ways():
    """Each rule has a case that breaks it and a case that keeps it."""
    for fires in (True, False):
        tested = {case.id for case in CASES if case.fires is fires}
        assert tested | IN_DIRECTORIES == set(checks.RULES)
