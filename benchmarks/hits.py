"""Hit ratios on the recorded traces: Storeroom's local memory, Django's, an LRU, and the limit."""

import heapq
from collections.abc import Sequence
from typing import Final

from benchmarks.goals import Verdict
from benchmarks.hit_ratio import REFERENCE, load, policies

__all__ = ["HitRatios", "judge", "measure"]

TOLERANCE: Final = 0.3
"""Points by which Storeroom may stay below the reference implementation."""

HitRatios = dict[str, dict[str, float]]
"""Trace and capacity to policy to percent."""

LIMIT: Final = "the limit"


def _name(trace: str, capacity: int) -> str:
    return f"{trace}, {capacity:,} entries"


def measure(workloads: Sequence[tuple[str, int]]) -> HitRatios:
    """Replay traces at capacities."""
    ratios: HitRatios = {}
    for trace, capacity in workloads:
        keys = load(trace)
        named = {name: policy(keys, capacity) for name, policy in reversed(policies().items())}
        ratios[_name(trace, capacity)] = {**named, LIMIT: limit(keys, capacity)}
    return ratios


def limit(keys: Sequence[str], capacity: int) -> float:
    """Return the highest hit ratio possible: whoever is needed again last is evicted, which takes clairvoyance.

    Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage
    computer", IBM Systems Journal 5 (1966).
    """
    upcoming = _next_uses(keys)
    cached: dict[str, int] = {}
    latest: list[tuple[int, str]] = []
    hits = 0
    for position, key in enumerate(keys):
        if key in cached:
            hits += 1
        elif len(cached) >= capacity:
            while True:
                use, victim = heapq.heappop(latest)
                if cached.get(victim) == -use:
                    del cached[victim]
                    break
        cached[key] = upcoming[position]
        heapq.heappush(latest, (-upcoming[position], key))
    return 100 * hits / len(keys)


def _next_uses(keys: Sequence[str]) -> list[int]:
    """Return for each position the next one with the same key; distinct positions beyond the end if there is none."""
    following: dict[str, int] = {}
    uses = [0] * len(keys)
    for position in reversed(range(len(keys))):
        uses[position] = following.get(keys[position], len(keys) + position)
        following[keys[position]] = position
    return uses


def judge(ratios: HitRatios) -> list[Verdict]:
    """Compare with the reference implementation's figures, where a workload has one."""
    verdicts = []
    for (trace, capacity), reference in REFERENCE.items():
        name = _name(trace, capacity)
        if name in ratios:
            goal, measured = reference - TOLERANCE, ratios[name]["Storeroom"]
            verdicts.append(
                Verdict(
                    f"hit ratio, {name}",
                    f"≥ {goal:.2f} %",
                    f"{measured:.2f} %",
                    measured >= goal,
                    max(0.0, 1 - measured / goal),
                )
            )
    return verdicts
