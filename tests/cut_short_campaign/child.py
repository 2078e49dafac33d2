"""One row of the campaign: a job on a cache, in a process of its own. Its last line on stdout is the counts."""

import asyncio
import faulthandler
import json
import random
import signal
import sys
import time
from typing import Any

if __name__ == "__main__" and '"gevent"' in sys.argv[1]:
    from gevent import monkey

    monkey.patch_all()  # before anything else is imported

import storeroom
from tests.cut_short_campaign.counts import WATCH, Counts

_told = [0.0]


def tell(doing: str) -> None:
    """Say now and then what is under way: a process that says nothing is taken for one that hangs."""
    if time.monotonic() - _told[0] > 1:
        _told[0] = time.monotonic()
        print(doing, flush=True)


def count(job: dict[str, Any]) -> Counts:
    """Do the job."""
    from tests.cut_short_campaign import cancelling, loops, raising

    random.seed(job["seed"])
    chance, cache = random.Random(job["seed"]), storeroom.caches["default"]
    part, operation, way, cases = job["part"], job["operation"], job["way"], job["count"]
    if part == "cancel":
        return asyncio.run(cancelling.cancel(cache, operation, way, cases, chance, tell))
    if part == "interrupt":
        return raising.interrupt(cache, operation, way, cases, chance, tell)
    if part == "loops":
        return loops.SITUATIONS[operation](cache, cases, chance, tell)
    if part == "commits":
        return asyncio.run(cancelling.cancel_commits(cache, way, cases, chance, tell))
    if way == "gevent":
        return raising.interrupt_mixed_by_gevent(cache, way, cases, chance, tell)
    return raising.interrupt_mixed(cache, way, cases, chance, tell)


def main() -> None:
    """Print the counts of the job that is given as JSON."""
    job = json.loads(sys.argv[1])
    faulthandler.register(signal.SIGUSR1)  # the parent asks where it hangs
    WATCH.start()
    storeroom.configure({"default": {**job["alias"], "KEY_PREFIX": job["prefix"]}})
    print(json.dumps(vars(count(job))), flush=True)


if __name__ == "__main__":
    main()
