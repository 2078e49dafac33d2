"""One cache of a machine, used by one to eight processes at once: files, SQLite, a Redis server, and diskcache."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from benchmarks.scale.cluster import look_at
from benchmarks.scale.contenders import CONTENDERS, Contender, located
from benchmarks.scale.loads import ByCount, Load, LoadEffort, Spent, Target, clients, median_of
from benchmarks.scale.measuring import key_of, value_of

__all__ = ["CACHES", "MIXES", "measure"]

CACHES: Final = ("files", "SQLite", "Redis", "diskcache")

MIXES: Final = {
    "reads only": Load(writes=0),
    "nine reads to one write": Load(writes=10),
    "writes only": Load(writes=100),
}

Announce = Callable[[str, str, int, Mapping[str, float]], None]


def measure(effort: LoadEffort, announce: Announce) -> dict[str, ByCount]:
    """Return mix to cache to number of processes to figures; caches that are not installed are left out."""
    measured: dict[str, ByCount] = {mix: {} for mix in MIXES}
    for name in CACHES:
        if not CONTENDERS[name].lacks:
            _measure_into(measured, CONTENDERS[name], effort, announce)
    return measured


def _measure_into(measured: dict[str, ByCount], contender: Contender, effort: LoadEffort, announce: Announce) -> None:
    with located(contender) as location:
        opening = partial(contender.open, location, 2 * effort.entries)  # nothing is evicted
        cache = opening()
        contender.fill(cache, {key_of(number): value_of(number, effort.entries) for number in range(effort.entries)})
        contender.close(cache)
        target = Target(opening, contender.close, contender.statements, effort.entries)
        look: Callable[[], Sequence[Spent]] = partial(look_at, [location]) if contender.name == "Redis" else tuple
        for count in effort.counts:
            with clients(target, count, effort.seconds) as started:
                rounds = [{mix: started.run(load, look) for mix, load in MIXES.items()} for _ in range(effort.rounds)]
            for mix in MIXES:
                figures = median_of([each[mix] for each in rounds])
                measured[mix].setdefault(contender.name, {})[count] = figures
                announce(mix, contender.name, count, figures)
