"""From misses of miniatures to hit ratios, each with an interval.

The misses of a sample are off by chance, as it has too many or too few of the keys that are read most. Those of two
sizes are off alike. So where the hit ratio of the size in use is known, another size's misses are told in relation to
the misses of that size in the same sample, and most of the error goes. Where none is known, reads that the sample has
too many or too few of count as hits: they are those of keys that every size holds.

Source: "Efficient MRC Construction with SHARDS", FAST 2015, section 3.3, for the second; the first, and the interval,
are those of a ratio estimator with groups: Cochran, "Sampling Techniques", chapter 6.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from storeroom.advice.miniature import GROUPS

__all__ = ["LEAST_ENTRIES", "LEAST_KEYS", "Known", "Point", "hit_ratio"]

LEAST_KEYS: Final = 4_000
"""Keys that a sample has at least, for an answer."""
LEAST_ENTRIES: Final = 150
"""Entries that a miniature has at least: the policy of a smaller one does otherwise."""
_DEVIATIONS: Final = 3.0
"""Standard deviations of the groups to either side: 2.13 would hold 95 % if groups did not compete for one cache."""
_FLOOR: Final = 0.003
"""A miniature's own error, which the groups have in common."""


@dataclass(frozen=True, slots=True)
class Point:
    """A hit ratio, for a number that could be written.

    Attributes:
        at: entries, or seconds; ``math.inf`` for no timeout.
        hit_ratio: 0 to 1, as estimated.
        low, high: the interval that holds the true one nine times in ten.
    """

    at: float
    hit_ratio: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the attributes for JSON, which has no infinity: None is no timeout."""
        return {**asdict(self), "at": None if math.isinf(self.at) else self.at}


@dataclass(frozen=True, slots=True)
class Known:
    """The hit ratio that the real cache has, and the misses of the miniature that stands for it, by group."""

    hit_ratio: float
    misses: Sequence[float]


def hit_ratio(at: float, misses: Sequence[float], *, reads: float, rate: float, known: Known | None = None) -> Point:
    """Return the hit ratio of a size or a timeout.

    Args:
        at: the number in question.
        misses: of its miniature, by group.
        reads: all that the real cache had, or, if that is not known, those of the sample divided by the rate.
        rate: the part of the keys that were replayed; with 1 all is known, and the interval has no width.
        known: a real hit ratio of the same traffic.
    """
    if reads <= 0:
        return Point(at, 0.0, 0.0, 1.0)
    is_known = known is not None and sum(known.misses) > 0
    base, scale = list(misses), 1 / (reads * rate)
    ratio = 0.0
    if is_known and known is not None:
        ratio = sum(misses) / sum(known.misses)
        scale = (1 - known.hit_ratio) / sum(known.misses)
        base = [each - ratio * other for each, other in zip(misses, known.misses, strict=True)]
    estimate = _bounded(1 - sum(misses) * scale)
    mean = sum(base) / GROUPS
    spread = math.sqrt(sum((each - mean) ** 2 for each in base) * GROUPS / (GROUPS - 1)) * scale
    unsure = (_DEVIATIONS * spread + (_FLOOR if any(base) else 0.0)) * math.sqrt(1 - rate)
    return Point(at, estimate, _bounded(estimate - unsure), _bounded(estimate + unsure))


def _bounded(ratio: float) -> float:
    return min(1.0, max(0.0, ratio))
