"""A small run whose counts are known, for those who tell of them."""

import pytest

from storeroom import caches


def fail() -> str:
    raise RuntimeError("no value")


def small_run(alias: str) -> None:
    """Two hits and two misses of reads, two sets, one delete, a computation that is saved once, and one that fails."""
    cache = caches[alias]
    cache.set("user:1", "Ada")
    assert cache.get("user:1") == "Ada"
    assert cache.get("nothing") is None
    assert [cache.get_or_set("page:7", lambda: "<html>") for _ in range(2)] == ["<html>"] * 2
    with pytest.raises(RuntimeError):
        cache.get_or_set("page:8", fail)
    cache.delete("user:1")
