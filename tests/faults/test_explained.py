"""explain() while a server is out of reach, and after it came back."""

from typing import Any

import pytest

from storeroom.base import BaseCache
from storeroom.base.explanation import Explanation
from storeroom.testing.contract.suite import Driver, run_to_its_end
from tests.faults.away import Away
from tests.faults.kinds import Site


def explained(cache: Any, mode: str, key: str = "k") -> Explanation:
    """Explain a key by one of the two APIs."""
    import asyncio

    steps = Driver(cache, mode).explain(key)
    found: Explanation = asyncio.run(steps) if mode == "async" else run_to_its_end(steps)
    return found


@pytest.mark.parametrize("policy", ["miss", "raise"])
def test_a_server_that_is_down_is_told(away: Away, policy: str, mode: str) -> None:
    """Whatever the policy, nothing is raised, and the error stands in the reason."""
    cache = away.cache(policy)
    for _ in range(5):  # the breaker opens meanwhile
        found = explained(cache, mode)
        assert (found.would_hit, found.cause) == (False, "down")
        assert "is out of reach (" in found.reason
        assert [tier.state for tier in found.tiers] == ["out of reach"]


def test_a_near_copy_is_told_in_an_outage(away: Away, mode: str) -> None:
    """The tiers that can be asked are, although another one is out of reach."""
    found = explained(away.tiered("miss"), mode)
    assert (found.tiers[0].name, found.tiers[0].state) == ("near", "absent")
    assert found.tiers[-1].state == "out of reach"
    assert found.cause == "down"


def test_the_cache_that_stands_in_is_told(down: Site, memory: BaseCache, mode: str) -> None:
    """During an outage the fallback answers: by what it has."""
    cache = down.cache(on_error="fallback:memory")
    missed = explained(cache, mode)
    assert (missed.would_hit, missed.cause) == (False, "down")
    assert "Meanwhile CACHES['memory'] answers, which has none." in missed.reason
    cache.set("k", 1)
    found = explained(cache, mode)
    assert found.would_hit
    assert "Meanwhile CACHES['memory'] answers, which has it." in found.reason
    assert [(tier.name, tier.state) for tier in found.tiers][-1] == ("CACHES['memory']", "live")
    assert (memory.stats().hits, memory.stats().misses) == (0, 0)


def test_a_write_that_an_outage_has_dropped_is_told(site: Site, mode: str) -> None:
    """While the server is down it is told so; when it is back, that the value could not be stored."""
    cache = site.cache()
    cache.set("k", 1)
    assert explained(cache, mode).would_hit
    site.kill()
    cache.set("k", 2)
    assert explained(cache, mode).cause == "down"
    site.start()
    for breaker in site.breakers(cache):
        breaker.reset()
    found = explained(cache, mode)
    assert (found.would_hit, found.cause) == (False, "refused")
    assert "out of reach" in found.reason
    cache.set("k", 3)
    assert explained(cache, mode).would_hit
