"""The decision about an entry: whether get_or_set() serves it, computes, or both.

An entry is *fresh* for its timeout. With `stale_while_revalidate` or `stale_if_error` it is kept for longer, and is
*stale* then: of use to get_or_set() alone, every other operation finds it absent.

The table is in docs/stale.md. "Refreshes" means there that one background worker computes, while everybody is served. A
caller starts none if the entry has a lease already, or if its own attempt failed a moment ago.

Source of `early`: A. Vattani, F. Chierichetti, K. Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", PVLDB
8(8), 2015: refresh when ``now - cost * beta * ln(rand()) >= expiry``; `early` is beta.
"""

import math
import random
from enum import Enum

from storeroom.config.freshness import Freshness
from storeroom.storage.envelope import Envelope

__all__ = ["Decision", "decide", "draw", "shortened"]


class Decision(Enum):
    """The actions of get_or_set(), given an entry."""

    SERVE = "serve"
    REFRESH = "serve, and refresh in the background"
    COMPUTE = "compute"
    RAISE = "raise the error of a moment ago"
    COMPUTE_OR_SERVE = "compute, and serve the stale value if that fails"


def decide(
    entry: Envelope | None,
    now: float,
    freshness: Freshness,
    *,
    paused: bool = False,
    failed: bool = False,
    draw: float = 1.0,
) -> Decision:
    """Return the decision, by the table in docs/stale.md.

    Args:
        entry: as it was read, with its tags current; None if there is nothing.
        now: epoch seconds.
        freshness: the options in force.
        paused: whether the computation failed within the last `retry_pause` seconds.
        failed: whether it did within the last `error_timeout` seconds.
        draw: a random number for `early`: see draw().
    """
    without_value = Decision.RAISE if failed else Decision.COMPUTE
    if entry is None:
        return without_value
    age = now - entry.fresh_until
    is_under_way = paused or entry.leased_until > now
    if age < 0:
        is_early = freshness.early > 0 and age - entry.cost * freshness.early * math.log(draw) >= 0
        return Decision.REFRESH if is_early and not is_under_way else Decision.SERVE
    if age < freshness.stale_while_revalidate:
        return Decision.SERVE if is_under_way else Decision.REFRESH
    if age < freshness.stale_if_error:
        return Decision.SERVE if paused else Decision.COMPUTE_OR_SERVE
    return without_value


def shortened(expires_at: float, now: float, jitter: float) -> float:
    """Return an expiry that is earlier at random, so that entries written together do not expire together."""
    if not jitter or not math.isfinite(expires_at):
        return expires_at
    return expires_at - (expires_at - now) * jitter * draw()


def draw() -> float:
    """Return a random number above 0, and up to 1."""
    return 1.0 - random.random()  # noqa: S311 -- nothing secret
