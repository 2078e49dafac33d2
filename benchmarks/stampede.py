"""What happens when a hot entry expires: 50 clients ask for one key, whose value takes a tenth of a second."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.goals import Verdict

__all__ = ["CLIENTS", "Stampede", "judge", "measure"]

CLIENTS: Final = 50
TIMEOUT: Final = 1.0
"""Seconds that the entry lives."""

COST: Final = 0.1
"""Seconds that a computation takes."""

PAUSE: Final = 0.005
"""Seconds between two requests of a client."""

BIN: Final = 0.1
"""Seconds that are one point of a chart."""

Ask = Callable[[Callable[[], str]], Any]
"""Returns the value of the hot key, computing it by that function where the library wants to."""


@dataclass(frozen=True, slots=True)
class Stampede:
    """What one library did.

    Attributes:
        computations: milliseconds since the start to the computations that began in that tenth of a second.
        latency: the same to the 99th percentile of the seconds that a request took.
        most: computations of one expiry, at most.
        longest: of all requests, in seconds.
    """

    computations: Mapping[int, float]
    latency: Mapping[int, float]
    most: int
    longest: float

    @property
    def worst(self) -> float:
        """The 99th percentile in the worst tenth of a second."""
        return max(self.latency.values())


def _storeroom(_: Path, **options: Any) -> Ask:
    from storeroom.backends.locmem import LocMemCache

    cache = LocMemCache("stampede", {"OPTIONS": options})
    cache.clear()
    return lambda compute: cache.get_or_set("hot", compute, TIMEOUT)


def _django(_: Path) -> Ask:
    from django.core.cache.backends.locmem import LocMemCache

    cache = LocMemCache("stampede", {})
    return lambda compute: cache.get_or_set("hot", compute, TIMEOUT)


def _dogpile(_: Path) -> Ask:
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=TIMEOUT)
    return lambda compute: region.get_or_create("hot", compute)


def _diskcache(directory: Path) -> Ask:
    from diskcache import DjangoCache

    cache = DjangoCache(str(directory), {})
    return lambda compute: cache.get_or_set("hot", compute, TIMEOUT)


def _memoize_stampede(directory: Path) -> Ask:
    from diskcache import Cache, memoize_stampede

    computing: list[Callable[[], str]] = []

    @memoize_stampede(Cache(str(directory)), expire=TIMEOUT)  # type: ignore[untyped-decorator]
    def hot() -> str:
        return computing[0]()

    def ask(compute: Callable[[], str]) -> Any:
        computing[:] = [compute]
        return hot()

    return ask


_LIBRARIES: Final[Mapping[str, tuple[str, Callable[[Path], Ask]]]] = {
    "Storeroom": ("storeroom", _storeroom),
    "Storeroom, stale_while_revalidate": ("storeroom", lambda path: _storeroom(path, stale_while_revalidate=60)),
    "Django": ("django", _django),
    "dogpile": ("dogpile", _dogpile),
    "diskcache": ("diskcache", _diskcache),
    "diskcache, memoize_stampede": ("diskcache", _memoize_stampede),
}


def measure(seconds: float, clients: int = CLIENTS) -> dict[str, Stampede]:
    """Let the clients ask for so long, of each library that is installed."""
    return {
        name: _measure(open_cache, seconds, clients)
        for name, (module, open_cache) in _LIBRARIES.items()
        if find_spec(module) is not None
    }


def _measure(open_cache: Callable[[Path], Ask], seconds: float, clients: int) -> Stampede:
    begun: list[float] = []
    taken: list[list[tuple[float, float]]] = [[] for _ in range(clients)]
    start = time.perf_counter() + 0.2

    def compute() -> str:
        begun.append(time.perf_counter() - start)
        time.sleep(COST)
        return "the value"

    def client(number: int, ask: Ask) -> None:
        time.sleep(max(0.0, start - time.perf_counter()) + PAUSE * number / clients)
        while (now := time.perf_counter() - start) < seconds:
            ask(compute)
            taken[number].append((now, time.perf_counter() - start - now))
            time.sleep(PAUSE)

    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True))
        ask = open_cache(Path(directory))
        ask(compute)  # the first value is there when the clients come
        threads = [threading.Thread(target=client, args=(number, ask)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(COST)  # whatever is refreshed in the background
    return _told(begun, [each for client in taken for each in client], seconds)


def _told(begun: Sequence[float], taken: Sequence[tuple[float, float]], seconds: float) -> Stampede:
    bins = [round(number * BIN * 1000) for number in range(round(seconds / BIN))]
    computations = dict.fromkeys(bins, 0.0)
    latencies: dict[int, list[float]] = defaultdict(list)
    for when in begun:
        if 0 <= when < seconds:
            computations[_bin(when)] += 1
    for when, latency in taken:
        latencies[_bin(when)].append(latency)
    return Stampede(
        computations,
        {when: _p99(latencies[when]) for when in bins if when in latencies},
        max(_bursts(begun)),
        max(latency for _, latency in taken),
    )


def _bin(when: float) -> int:
    return round(int(when / BIN) * BIN * 1000)


def _p99(latencies: Sequence[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] if len(latencies) > 1 else latencies[0]


def _bursts(begun: Sequence[float]) -> list[int]:
    """Return how many computations began together: those of one expiry are closer than half a lifetime."""
    bursts = [0]
    last = -TIMEOUT
    for when in sorted(begun):
        if when - last > TIMEOUT / 2:
            bursts.append(0)
        bursts[-1] += 1
        last = when
    return bursts


def judge(stampedes: Mapping[str, Stampede]) -> list[Verdict]:
    """Tell whether Storeroom computes once."""
    most = stampedes["Storeroom"].most
    return [
        Verdict(
            f"stampede, {CLIENTS} clients", "1 computation each time", f"{most}", most == 1, max(0.0, float(most - 1))
        )
    ]
