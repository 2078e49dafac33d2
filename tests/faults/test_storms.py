"""A short storm over each group of servers. ``python -m tests.storms`` lets long ones break."""

import secrets

import pytest

from tests.storms.groups import GROUPS
from tests.storms.history import Fault, History, Read, Write
from tests.storms.storm import storm

#: Seconds: one or two faults.
SHORT = 2.5


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_answer_in_a_storm_is_explained(group: str) -> None:
    """No write is lost that Redis may not lose, nothing that is too old is read, and no server that is well fails."""
    seed = secrets.randbelow(2**32)
    history = storm(group, SHORT, seed, tell=print)
    assert history.faults
    assert sum(write.is_acknowledged for write in history.writes) > 1000
    assert history.unexplained() == [], f"with the seed {seed}"


def test_history_tells_what_is_wrong() -> None:
    """A lost write, an old read and a failure without a fault are told; those that a fault explains are not."""
    history = History()
    history.writes = [Write("k", 1, 0.0, 1.0, True), Write("k", 2, 2.0, 3.0, True), Write("l", 1, 2.0, 3.0, False)]
    reads = [(2, 4.0, 0.0), (1, 4.0, 0.0), (0, 9.0, 0.0), (1, 3.5, 1.0)]
    history.reads = [Read("k", version, at, at, bound) for version, at, bound in reads]
    assert len(history.unexplained()) == 3
    history.faults = [Fault("kill", lambda _: True, 2.5, 2.9, [(2.4, 3.1)])]
    assert history.unexplained() == []
    history.reads.append(Read("k", 0, 1.5, 1.5, 0.0))
    assert len(history.unexplained()) == 1
