"""The votes of Sentinels: which primary follows from them."""

import time
from typing import Any

import pytest
from redis.exceptions import ResponseError

from storeroom.backends.redis import options as known
from storeroom.backends.redis.location import Server, parse
from storeroom.backends.redis.sentinel import Sentinel, Vote, vote_of

OLD, NEW, OTHER = ("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([(1, OLD)], OLD),
        ([(1, OLD), (2, NEW)], NEW),
        ([(2, NEW), (1, OLD), (1, OLD)], NEW),
        ([(1, OLD), (1, NEW), (1, NEW)], NEW),
        ([(1, NEW), (1, OLD)], NEW),
    ],
)
def test_highest_epoch_counts_and_then_the_number_of_votes(votes: list[Any], expected: tuple[str, int]) -> None:
    """One Sentinel that knows of a later failover outvotes those that do not; of one epoch most votes count."""
    topology = topology_of_three()
    topology.settle(votes_of(votes))
    assert named(topology) == expected


def test_epoch_that_is_over_counts_only_if_a_majority_returns_to_it() -> None:
    """A minority, or an answer to a question of before, is not believed against what is known."""
    topology = topology_of_three()
    left: list[Any] = []
    topology.leave = left.append
    before = time.monotonic()
    topology.settle(votes_of([(5, NEW)]))
    late = time.monotonic() + Sentinel.SPREAD
    topology.settle(votes_of([(4, OLD)], late))
    topology.settle({})
    topology.settle(votes_of([(4, OLD)] * 3, before))
    assert (named(topology), left) == (NEW, [])
    topology.settle(votes_of([(4, OLD)] * 2, late))
    assert named(topology) == OLD
    assert [(server.host, server.port) for server in left] == [NEW]
    topology.settle(votes_of([(4, OTHER), (4, OLD)]))
    assert named(topology) == OLD, "of as many votes the known one counts"


@pytest.mark.parametrize("votes", [[(4, OLD)] * 2, [(4, OLD)] * 3, [(4, OLD), (3, OTHER)]])
def test_majority_that_has_not_heard_of_a_failover_yet_is_not_believed(votes: list[Any]) -> None:
    """In its first seconds only the Sentinel that leads it knows, and it may be the last to answer, or not at all."""
    topology = topology_of_three()
    topology.settle(votes_of([(4, OLD)] * 3))
    topology.settle(votes_of([(5, NEW), *votes[:2]]))
    topology.settle(votes_of(votes))
    topology.settle(votes_of(votes, time.monotonic() + Sentinel.SPREAD / 2))
    assert named(topology) == NEW


def test_votes_that_come_one_by_one_name_no_first_primary() -> None:
    """The first to be heard may be one that does not know yet: all are asked together before anybody is followed."""
    topology = topology_of_three()
    topology.hear(votes_of([(4, OLD)]))
    assert topology._primary is None
    topology.settle(votes_of([(4, OLD)] * 3))
    topology.hear(votes_of([(5, NEW)]))
    assert named(topology) == NEW


def topology_of_three() -> Sentinel:
    options = {name: option.default for name, option in known.OPTIONS.items()}
    return Sentinel(parse("redis+sentinel://a,b,c/name", options))


def votes_of(votes: list[Any], asked_at: float | None = None) -> dict[Server, Vote]:
    now = time.monotonic() if asked_at is None else asked_at
    return {Server(str(number)): Vote(epoch, *address, now) for number, (epoch, address) in enumerate(votes)}


def named(topology: Sentinel) -> tuple[str, int]:
    assert topology._primary is not None
    return topology._primary.host, topology._primary.port


@pytest.mark.parametrize("facts", [[b"name", b"m", b"config-epoch", b"7"], {b"name": b"m", b"config-epoch": b"7"}])
def test_vote_is_read_by_both_protocols(facts: Any) -> None:
    """A list of RESP2 and a map of RESP3 tell the same; a Sentinel that knows no such primary has no vote."""
    assert vote_of([facts, [b"host", b"6379"]], 1.0) == Vote(7, "host", 6379, 1.0)
    assert vote_of([ResponseError("No such master with that name"), None], 1.0) is None
