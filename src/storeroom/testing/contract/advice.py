"""advice(): the traffic that is recorded, on each storage; a record changes no answer."""

from collections.abc import Callable
from typing import Any

import pytest

from storeroom.exceptions import NotSupportedError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite

__all__ = ["AdviceContract"]


@needs("store")
class AdviceContract(Suite):
    """OPTIONS["advise"], and what it tells."""

    def recording(self) -> dict[str, Any]:
        """Return OPTIONS by which all traffic is recorded."""
        return {**self.room_for(1_000), "advise": "always"}

    async def test_advice_tells_of_all_reads_of_a_small_cache(self, drive: Callable[..., Driver]) -> None:
        """All keys of a small cache are replayed: reads, keys and the hit ratio are those of stats()."""
        cache = drive(OPTIONS=self.recording())
        for number in range(60):
            await cache.get_or_set(f"k{number % 20}", number)
        await cache.get_many(["k1", "k2", "absent"])
        stats, advice = await cache.stats(), await cache.advice()
        assert (advice.reads, advice.sampled_keys, advice.rate) == (stats.hits + stats.misses, 21, 1.0)
        assert advice.hit_ratio == stats.hit_ratio
        assert advice.missing_keys == 0
        assert "this process" in advice.scope

    async def test_advice_tells_writes_that_nobody_reads(self, drive: Callable[..., Driver]) -> None:
        """Values that are written and not read are counted, whatever has written them."""
        cache = drive(OPTIONS=self.recording())
        await cache.set("a", 1)
        await cache.set("a", 2)
        await cache.set_many({"b": 1, "c": 2})
        await cache.add("d", 1)
        await cache.get_many(["b", "c", "d"])
        assert (await cache.advice()).unread_writes == pytest.approx(2 / 5)

    async def test_advice_needs_its_option(self, drive: Callable[..., Driver]) -> None:
        """Without OPTIONS["advise"] the error names it, and nothing is recorded."""
        cache = drive(OPTIONS={"advise": False})
        await cache.get("k")
        with pytest.raises(NotSupportedError, match="advise"):
            await cache.advice()

    async def test_a_record_changes_no_answer(self, drive: Callable[..., Driver]) -> None:
        """Every operation answers as without a record, tags and stale values included."""
        cache = drive(OPTIONS=self.recording())
        await cache.set("k", [1], 100)
        assert await cache.get("k") == [1]
        assert await cache.add("k", 2) is False
        assert await cache.touch("k", 200) is True
        assert 150 < await cache.ttl("k") <= 200
        assert await cache.get_or_set("n", 1) == 1
        assert await cache.incr("n") == 2
        assert await cache.incr_version("n") == 2
        assert await cache.get("n", version=2) == 2
        await cache.set("t", "tagged", tags=["tag"])
        assert await cache.get_many(["k", "t", "x"]) == {"k": [1], "t": "tagged"}
        await cache.invalidate_tags("tag")
        assert await cache.get("t") is None
        assert await cache.refresh("k", lambda: 5) == 5
        assert await cache.delete("k") is True
        assert await cache.has_key("k") is False
        await cache.clear()
        assert await cache.get("n", version=2) is None
        assert (await cache.advice()).reads == 8
