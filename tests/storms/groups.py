"""The groups of servers that storms break over, and the faults of each."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.crc import key_slot

from tests.servers.redis import RedisServer
from tests.servers.redis_groups import Cluster, Replicas, cluster, eventually, is_following, replicas
from tests.storms.history import Fault
from tests.storms.load import PREFIX
from tests.storms.named import UNREPLICATED, Group, of_an_endpoint, of_sentinels

__all__ = ["GROUPS"]


class ClusterGroup:
    """A cluster of three primaries with a replica each. Without one of them the others answer."""

    lag = 0.0

    def __init__(self, group: Cluster) -> None:
        self._group = group
        self.servers = group.servers
        self.location = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in group.servers)
        self.faults = {
            "kill": self._kill,
            "stop": self._stop,
            "fail over": self._fail_over,
            "reshard": self._reshard,
            "kill a replica": self._kill_replica,
        }

    def _pick(self, chance: random.Random) -> RedisServer:
        return chance.choice(self._group.primaries())

    def _fault(self, what: str, server: RedisServer) -> Fault:
        slots = [slot for slot in self._slots() if slot[2] == server.port]

        def concerns(key: str) -> bool:
            slot = key_slot(f"{PREFIX}:1:{key}".encode())
            return any(begin <= slot <= end for begin, end, _ in slots)

        return Fault(f"{what} {server.port}", concerns, time.monotonic())

    def _slots(self) -> list[tuple[int, int, int]]:
        for server in self._group.servers:
            if server.answers():
                return [(begin, end, primary[1]) for begin, end, primary, *_ in server.ask("CLUSTER", "SLOTS")]
        return []

    def _kill(self, chance: random.Random, faults: list[Fault]) -> None:
        server = self._pick(chance)
        fault = self._fault("kill", server)
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        faults.append(fault)
        server.process.kill()
        eventually(lambda: all(port != server.port for *_, port in self._slots()), "no replica takes over")
        time.sleep(chance.random())
        server.start()
        self._settle(fault)

    def _stop(self, chance: random.Random, faults: list[Fault]) -> None:
        server = self._pick(chance)
        fault = self._fault("stop", server)
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        faults.append(fault)
        server.process.pause()
        time.sleep(chance.choice([0.3, 1.0, 4.0]))
        resumed = time.monotonic()
        server.process.resume()
        self._settle(fault)
        fault.losses.append((resumed, resumed + 2 * UNREPLICATED))

    def _fail_over(self, chance: random.Random, faults: list[Fault]) -> None:
        replica = chance.choice([server for server in self._group.servers if server.ask("ROLE")[0] == "slave"])
        fault = Fault(f"fail over to {replica.port}", lambda _: False, time.monotonic())
        faults.append(fault)
        self._group.fail_over(replica)
        self._settle(fault)

    def _reshard(self, chance: random.Random, faults: list[Fault]) -> None:
        source, target = chance.sample(self._group.primaries(), 2)
        fault = Fault(f"reshard {source.port} to {target.port}", lambda _: False, time.monotonic())
        faults.append(fault)
        ranges = [range(begin, end + 1) for begin, end, port in self._slots() if port == source.port]
        slots = [slot for part in ranges for slot in part]
        self._group.move(source, target, chance.sample(slots, min(200, len(slots) // 2)))
        self._settle(fault)

    def _kill_replica(self, chance: random.Random, faults: list[Fault]) -> None:
        server = chance.choice([server for server in self._group.servers if server.ask("ROLE")[0] == "slave"])
        fault = Fault(f"kill replica {server.port}", lambda _: False, time.monotonic())
        faults.append(fault)
        server.process.kill()
        time.sleep(chance.random())
        server.start()
        self._settle(fault)

    def _settle(self, fault: Fault) -> None:
        eventually(self._is_well, "the cluster is not whole again")
        fault.ended = time.monotonic()

    def _is_well(self) -> bool:
        tables = [server.ask("CLUSTER", "SLOTS") for server in self._group.servers]
        owners = {tuple((begin, end, primary[1]) for begin, end, primary, *_ in sorted(table)) for table in tables}
        replicas_of = [server for server in self._group.servers if server.ask("ROLE")[0] == "slave"]
        return (
            self._group.is_whole()
            and len(owners) == 1
            and len(replicas_of) == 3
            and all(map(is_following, replicas_of))
        )


class ReplicaGroup:
    """A primary with two replicas, whose links can be cut."""

    lag = 1.0

    def __init__(self, group: Replicas) -> None:
        self._group = group
        self.servers = [group.primary, *group.replicas]
        self.location = ",".join(f"redis://127.0.0.1:{it.port}" for it in (group.primary, *group.replicas))
        self.faults = {
            "cut": self._cut,
            "kill a replica": self._kill_replica,
            "stop a replica": self._stop_replica,
            "stop the primary": self._stop_primary,
            "restart the primary": self._restart_primary,
        }

    def _cut(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = Fault("cut links", lambda _: False, time.monotonic())
        faults.append(fault)
        cut = chance.sample(self._group.links, chance.choice([1, 2]))
        for link in cut:
            link.cut_off()
        time.sleep(3 * chance.random())
        for link in cut:
            link.is_refusing = False
        self._settle(fault)

    def _kill_replica(self, chance: random.Random, faults: list[Fault]) -> None:
        server = chance.choice(self._group.replicas)
        fault = Fault(f"kill replica {server.port}", lambda _: False, time.monotonic())
        faults.append(fault)
        server.process.kill()
        time.sleep(2 * chance.random())
        server.start()
        self._settle(fault)

    def _stop_replica(self, chance: random.Random, faults: list[Fault]) -> None:
        server = chance.choice(self._group.replicas)
        fault = Fault(f"stop replica {server.port}", lambda _: False, time.monotonic())
        faults.append(fault)
        server.process.pause()
        time.sleep(2 * chance.random())
        server.process.resume()
        self._settle(fault)

    def _stop_primary(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = Fault("stop the primary", lambda _: True, time.monotonic())
        faults.append(fault)
        self._group.primary.process.pause()
        time.sleep(3 * chance.random())
        self._group.primary.process.resume()
        self._settle(fault)

    def _restart_primary(self, chance: random.Random, faults: list[Fault]) -> None:
        """Without persistence it comes back empty, and its replicas follow it in that."""
        fault = Fault("restart the primary", lambda _: True, time.monotonic())
        faults.append(fault)
        self._group.primary.process.kill()
        time.sleep(chance.random())
        self._group.primary.start()
        self._settle(fault)
        fault.losses.append((float("-inf"), fault.ended))

    def _settle(self, fault: Fault) -> None:
        eventually(lambda: all(map(is_following, self._group.replicas)), "the replicas do not follow again")
        self._group.catch_up()
        fault.ended = time.monotonic()


@contextmanager
def _of_a_cluster(directory: Path) -> Iterator[Group]:
    with cluster(directory, full_coverage="no") as group:
        yield ClusterGroup(group)


@contextmanager
def _of_replicas(directory: Path) -> Iterator[Group]:
    with replicas(directory, 2) as group:
        yield ReplicaGroup(group)


GROUPS = {"cluster": _of_a_cluster, "replicas": _of_replicas, "sentinel": of_sentinels, "endpoint": of_an_endpoint}
