"""What the tests of compiled forms share."""

import gc
import itertools
import os
import sys
from collections.abc import Callable, Sequence

import pytest

ENOUGH = 50
"""Fewer blocks and references than what a loss in each call would leave behind: see left_behind()."""

_CALLS = 150


def where_built(is_built: bool) -> pytest.MarkDecorator:
    """Skip where there is no compiler, or STOREROOM_PURE asks for none. In CI there is one."""
    is_off = os.environ.get("STOREROOM_PURE", "0") not in {"", "0"}
    may_lack = is_off or not os.environ.get("CI")
    return pytest.mark.skipif(not is_built and may_lack, reason="nothing compiled was built, or it is switched off")


def left_behind(call: Callable[[], object], held: Sequence[object]) -> int:
    """Return the blocks of memory, or the references to an object, that each of some rounds of calls leaves behind."""
    gc.freeze()  # each look would go through all that other tests have left

    def used() -> list[int]:
        for _ in range(_CALLS):
            call()
        gc.collect()
        return [sys.getallocatedblocks(), *map(sys.getrefcount, held)]

    _, *looks = [used() for _ in range(5)]
    rounds = [[now - then for then, now in zip(*pair, strict=True)] for pair in itertools.pairwise(looks)]
    # Another thread of the process allocates in some rounds.
    return max(min(each) for each in zip(*rounds, strict=True))
