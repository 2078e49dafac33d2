"""One Redis server, and Redis Clusters of three and of six, under one to eight clients: even keys and hot ones.

The servers share the machine's cores with their clients, and are never full. What they would do on cores of their own
is computed from the commands that each of them gets, and from what a full one spends on a command: see ``carries``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks import servers
from benchmarks.libraries import fill_storeroom
from benchmarks.scale import full
from benchmarks.scale.contenders import CONTENDERS, LOUD, STOREROOM, TIMEOUT
from benchmarks.scale.loads import SPREADS, ByCount, Load, LoadEffort, Spent, Target, clients, median_of
from benchmarks.scale.measuring import key_of, value_of

__all__ = ["FULL", "GROUPS", "LOADS", "NEAR", "lacks", "look_at", "measure", "named"]

GROUPS: Final = {"one server": 1, "cluster of 3": 3, "cluster of 6": 6}
"""Name to the number of servers, each of which has its part of the keys, and no replica."""

LOADS: Final = {spread: Load(writes=10, spread=spread) for spread in SPREADS}
"""Nine reads to one write."""

NEAR_SHARE: Final = 10
"""A near tier holds a tenth of the entries."""

NEAR: Final = ", near tier"

FULL: Final = "one full server"
"""Among the loads: see ``full``."""

Announce = Callable[[str, str, int, Mapping[str, float]], None]


def lacks() -> str:
    """Return what is not installed here that the measurement needs, or nothing."""
    return CONTENDERS["Redis"].lacks or ("" if which("redis-benchmark") else "redis-benchmark")


def named(group: str, *, is_near: bool) -> str:
    """Return the name of a group, or of one with a near tier before it."""
    return f"{group}{NEAR}" if is_near else group


def measure(effort: LoadEffort, announce: Announce) -> dict[str, ByCount]:
    """Return spread to group of servers, without and with a near tier, to number of clients to figures.

    Beside the spreads, FULL has the figures of commands, by the number of connections.
    """
    measured: dict[str, ByCount] = {
        spread: {named(group, is_near=is_near): {} for is_near in (False, True) for group in GROUPS} for spread in LOADS
    }
    for group, size in GROUPS.items():
        with _filled(size, effort.entries) as (url, urls):
            if size == 1:
                of_commands = full.measure(url, effort, partial(look_at, urls))
                measured[FULL] = {name: {full.CONNECTIONS: figures} for name, figures in of_commands.items()}
                for name, figures in of_commands.items():
                    announce(FULL, name, full.CONNECTIONS, figures)
            for is_near in (False, True):
                target = Target(
                    partial(_open, url, effort.entries, is_near), _close, STOREROOM, effort.entries, is_near
                )
                for count in effort.counts:
                    by_spread = _measure(target, count, effort, partial(look_at, urls))
                    for spread, figures in by_spread.items():
                        name = named(group, is_near=is_near)
                        measured[spread][name][count] = figures
                        announce(spread, name, count, figures)
    return measured


def _measure(
    target: Target, count: int, effort: LoadEffort, look: Callable[[], Sequence[Spent]]
) -> dict[str, Mapping[str, float]]:
    with clients(target, count, effort.seconds) as started:
        rounds = [{spread: started.run(load, look) for spread, load in LOADS.items()} for _ in range(effort.rounds)]
    return {spread: median_of([each[spread] for each in rounds]) for spread in LOADS}


@contextmanager
def _filled(size: int, entries: int) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the URL of a group of servers that holds all entries, and those of its servers."""
    with (
        TemporaryDirectory(prefix="storeroom-bench-", ignore_cleanup_errors=True) as directory,
        servers.redis_masters(Path(directory), size) as (url, urls),
    ):
        cache = _open(url, entries, is_near=False)
        fill_storeroom(cache, {key_of(number): value_of(number, entries) for number in range(entries)})
        _close(cache)
        yield url, urls


def _open(url: str, entries: int, is_near: bool) -> Any:
    from storeroom.backends.redis import RedisCache

    near = {"max_entries": entries // NEAR_SHARE} if is_near else False
    return RedisCache(url, {"TIMEOUT": TIMEOUT, "KEY_PREFIX": "scale", "OPTIONS": {**LOUD, "near": near}})


def _close(cache: Any) -> None:
    cache._engine.close()


def look_at(urls: Sequence[str]) -> list[Spent]:
    """Ask each server what it has done."""
    return list(map(_spent, urls))


def _spent(url: str) -> Spent:
    import redis

    with redis.Redis.from_url(url) as client:
        told = client.info("all")
    return Spent(told["used_cpu_sys"] + told["used_cpu_user"], told["total_commands_processed"])
