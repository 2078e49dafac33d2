"""How far advice is off: hit ratios estimated from a sample of the keys, beside the true ones, and beside an LRU's.

    python -m benchmarks.advice [REPETITIONS]

prints a row for each traffic and rate: the errors in points of hit ratio, the part of the intervals that hold the
truth, and the errors of a perfect LRU model, which is what other estimators aim at. Importing this module does nothing.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from statistics import mean
from typing import Final

from benchmarks.hit_ratio import load, replay_lru
from storeroom.advice import Simulation, Subject, advise
from storeroom.advice.estimate import LEAST_ENTRIES, LEAST_KEYS
from storeroom.advice.traces import mixed

RATES: Final = (0.01, 0.03, 0.1)
REPETITIONS: Final = 3


def drifting(
    requests: int, keys: int, exponent: float, *, drift: float, scans: float = 0.0, seed: int = 1
) -> list[str]:
    """Zipf, with a part of the keys changing their ranks twenty times, and scans of keys that never come back."""
    random, phases, result, scanned = Random(seed), 20, list[str](), 0
    names = list(range(keys))
    random.shuffle(names)
    weights = list(accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    for _ in range(phases):
        length = requests // phases
        scan = [f"scan-{scanned + number}" for number in range(int(length * scans))]
        scanned += len(scan)
        drawn = [str(names[rank]) for rank in random.choices(range(keys), cum_weights=weights, k=length - len(scan))]
        middle = random.randrange(len(drawn))
        result += [*drawn[:middle], *scan, *drawn[middle:]]
        for _ in range(int(keys * drift)):
            one, other = random.randrange(keys), random.randrange(keys)
            names[one], names[other] = names[other], names[one]
    return result


@dataclass(frozen=True, slots=True)
class Workload:
    """Traffic, and the sizes to look at; the hit ratio of each is known where it is the size in use."""

    name: str
    keys: Sequence[str]
    sizes: Sequence[int]


def workloads() -> Iterator[Workload]:
    """Yield the traces, and two mixes with drift of a million keys."""
    sizes = (1_000, 3_000, 10_000, 20_000, 40_000, 80_000)
    yield Workload("web07", load("web07"), (256, 512, 1_024, 2_048, 4_096, 8_192))
    yield Workload("web12", load("web12"), (256, 512, 1_024, 2_048, 4_096))
    yield Workload("Zipf 0.9 with drift", drifting(2_000_000, 1_000_000, 0.9, drift=0.02), sizes)
    yield Workload("Zipf 1.0 with drift and scans", drifting(2_000_000, 1_000_000, 1.0, drift=0.01, scans=0.2), sizes)


@dataclass
class Row:
    """The estimates of one workload at one rate: the error of each in points, and whether its interval holds."""

    workload: str
    rate: float
    sampled: list[int] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    lru_errors: list[float] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        return bool(self.errors)


def truth(workload: Workload) -> dict[int, float]:
    """Return the hit ratio of each size, by a replay of all keys."""
    simulation = Simulation(workload.sizes)
    for key in workload.keys:
        simulation.read(key, 0)
    return {each.size: 1 - sum(each.misses) / simulation.reads for each in simulation.sizes}


def sampled(workload: Workload, rate: float, salt: int) -> Simulation:
    """Replay a sample, once for all sizes that may be in use."""
    simulation = Simulation(workload.sizes, rate=rate)
    hashes = {key: mixed(key, salt) for key in set(workload.keys)}
    for key in workload.keys:
        hashed = hashes[key]
        if simulation.takes(hashed):
            simulation.read(key, hashed)
    return simulation


def measure(workload: Workload, rate: float, true: Mapping[int, float], salts: Sequence[int]) -> Row:
    """Estimate each size from each other size as the one in use, with several samples."""
    row = Row(workload.name, rate)
    lru = {size: replay_lru(workload.keys, size) / 100 for size in workload.sizes}
    for salt in salts:
        simulation = sampled(workload, rate, salt)
        row.sampled.append(simulation.keys)
        for here in [size for size in workload.sizes if size * rate >= LEAST_ENTRIES]:
            advice = advise(
                simulation, Subject("default", {}, here), scope="", reads=len(workload.keys), real_hit_ratio=true[here]
            )
            for point in advice.by_max_entries:
                size = int(point.at)
                if size != here:
                    row.errors.append(100 * (point.hit_ratio - true[size]))
                    row.held.append(point.low <= true[size] <= point.high)
                    row.lru_errors.append(100 * (lru[size] - true[size]))
    return row


def rows(repetitions: int = REPETITIONS) -> Iterator[Row]:
    """Yield a row for each workload and rate; the traces are too small for these rates, so they have a larger one."""
    for workload in workloads():
        true = truth(workload)
        rates = RATES if len(set(workload.keys)) * RATES[0] >= LEAST_KEYS else (*RATES, 0.4)
        for rate in rates:
            yield measure(workload, rate, true, range(1, repetitions + 1))


def line(row: Row) -> str:
    """Return a row of the table."""
    start = f"| {row.workload} | {row.rate:.0%} | {mean(row.sampled):,.0f} |"
    if not row.is_enough:
        return f"{start} not enough traffic yet | | | | |"
    errors, lru = list(map(abs, row.errors)), list(map(abs, row.lru_errors))
    return f"{start} {mean(errors):.2f} | {max(errors):.2f} | {mean(row.held):.0%} | {mean(lru):.2f} | {max(lru):.2f} |"


def main() -> None:
    """Print the table."""
    print("| traffic | rate | sampled keys | mean error | worst | intervals that hold | LRU: mean | LRU: worst |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    found = []
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS):
        found.append(row)
        print(line(row), flush=True)
    errors = [abs(error) for row in found for error in row.errors]
    held = [each for row in found for each in row.held]
    print(f"\nAll {len(errors)} estimates: mean {mean(errors):.2f}, worst {max(errors):.2f}, held {mean(held):.0%}.")


if __name__ == "__main__":
    main()
