"""Groups whose primary is named by others, Sentinels or an endpoint, and the faults of each."""

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import hiredis

from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_groups import (
    SERVICE,
    ReplicaPair,
    Sentinels,
    eventually,
    is_following,
    replica_pair,
    sentinels,
)
from tests.storms.history import GRACE, Fault

__all__ = ["UNREPLICATED", "Group", "of_an_endpoint", "of_sentinels"]

#: Seconds before a primary's end in which writes may not have reached its replicas, and after a return as an old one.
UNREPLICATED = 1.0

#: Seconds from the moment in which another primary is named to that in which nobody writes to the old one.
SWITCHED = 1.5


#: Seconds after which a failover that was asked for has come to nothing.
RETRY = 10.0

#: Seconds after a name has moved in which operations may fail.
MOVED = 2.0


class Group(Protocol):
    """Servers, and their faults by name: each lasts until all is well again, and notes what it does."""

    location: str
    lag: float
    servers: Sequence[RedisServer]
    faults: dict[str, Callable[[random.Random, list[Fault]], None]]


class SentinelGroup:
    """Three Sentinels, which clients reach by links that can be cut, and a primary with two replicas."""

    lag = 0.0

    def __init__(self, group: Sentinels, links: Sequence[Proxy]) -> None:
        self._group, self._links = group, links
        self.servers = group.servers
        hosts = ",".join(f"127.0.0.1:{link.port}" for link in links)
        self.location = f"redis+sentinel://{hosts}/{SERVICE}"
        self.faults = {
            "kill": self._kill,
            "stop": self._stop,
            "fail over": self._fail_over,
            "cut off a Sentinel": self._cut_off,
            "cut links to Sentinels": self._cut_links,
            "stop a Sentinel": self._stop_sentinel,
        }

    def _begin(self, what: str, faults: list[Fault], *, is_felt: bool = True) -> Fault:
        fault = Fault(what, lambda _: True, time.monotonic(), grace=GRACE if is_felt else -math.inf)
        faults.append(fault)
        return fault

    def _kill(self, chance: random.Random, faults: list[Fault]) -> None:
        old = self._group.primary()
        fault = self._begin(f"kill {old.port}", faults)
        old.process.kill()
        self._wait_for_another(old)
        time.sleep(chance.random())
        old.start()
        self._settle(fault)
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))

    def _stop(self, chance: random.Random, faults: list[Fault]) -> None:
        """The old primary takes writes when it goes on: of those who have asked it before."""
        old = self._group.primary()
        fault = self._begin(f"stop {old.port}", faults)
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        old.process.pause()
        time.sleep(chance.choice([0.3, 1.0, 4.0]))
        resumed = time.monotonic()
        old.process.resume()
        self._settle(fault)
        fault.losses.append((resumed, resumed + 2 * UNREPLICATED))

    def _fail_over(self, _: random.Random, faults: list[Fault]) -> None:
        self._settle(self._switch("fail over", faults))

    def _switch(self, name: str, faults: list[Fault]) -> Fault:
        """Nothing fails. Writes to the old primary are lost from the promotion on until all know of it."""
        old = self._group.primary()
        fault = self._begin(f"{name} from {old.port}", faults, is_felt=False)
        others = [server for server in self.servers if server is not old]
        promotions: list[float] = []
        asked_at = -math.inf

        def is_done() -> bool:
            nonlocal asked_at
            if time.monotonic() > asked_at + RETRY and self._asked_for_failover():  # again, if it comes to nothing
                asked_at = time.monotonic()
            if any(server.ask("ROLE")[0] == "master" for server in others):
                promotions.append(time.monotonic())
            return self._group.primary() is not old

        try:
            eventually(is_done, "no other primary is named", patience=90.0)
        except AssertionError as error:
            error.add_note(self._group.sentinels[0].process.log())
            raise
        fault.losses.append((promotions[0] - UNREPLICATED, time.monotonic() + SWITCHED))
        return fault

    def _asked_for_failover(self) -> bool:
        with contextlib.suppress(hiredis.ReplyError):  # one is under way, or no replica is good enough yet
            return bool(self._group.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE))
        return False

    def _cut_off(self, chance: random.Random, faults: list[Fault]) -> None:
        """One Sentinel goes on to name the old primary, and clients reach it."""
        with cut_off(self._group, chance.choice(self._group.sentinels[1:])):
            fault = self._switch("cut off a Sentinel, and fail over", faults)
            time.sleep(3 * chance.random())
        self._settle(fault)

    def _cut_links(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = self._begin("cut links to Sentinels", faults, is_felt=False)
        cut = chance.sample(self._links, chance.choice([1, 2, 3]))
        for link in cut:
            link.cut_off()
        time.sleep(3 * chance.random())
        for link in cut:
            link.is_refusing = False
        self._settle(fault)

    def _stop_sentinel(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = self._begin("stop a Sentinel", faults, is_felt=False)
        sentinel = chance.choice(self._group.sentinels)
        sentinel.process.pause()
        time.sleep(3 * chance.random())
        sentinel.process.resume()
        self._settle(fault)

    def _wait_for_another(self, old: RedisServer) -> None:
        eventually(lambda: self._group.primary() is not old, "no other primary is named")

    def _settle(self, fault: Fault) -> None:
        eventually(self._is_well, "the group is not well again", patience=60.0)
        fault.ended = time.monotonic()

    def _is_well(self) -> bool:
        named = {tuple(it.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)) for it in self._group.sentinels}
        primary = self._group.primary()
        followers = [server for server in self.servers if server is not primary]
        return (
            len(named) == 1
            and primary.ask("ROLE")[0] == "master"
            and all(server.ask("ROLE")[2] == primary.port for server in followers if server.ask("ROLE")[0] == "slave")
            and all(map(is_following, followers))
            and self._group.is_complete()
        )


@contextlib.contextmanager
def cut_off(group: Sentinels, sentinel: RedisServer) -> Iterator[None]:
    """Let neither servers nor other Sentinels tell a Sentinel anything; clients reach it."""
    for server in group.servers:
        server.ask("ACL", "SETUSER", "nobody", "on", ">secret", "-@all")
    sentinel.ask("ACL", "SETUSER", "default", "-publish")
    sentinel.ask("SENTINEL", "SET", SERVICE, "auth-user", "nobody", "auth-pass", "secret")
    try:
        yield
    finally:
        sentinel.ask("SENTINEL", "SET", SERVICE, "auth-user", "", "auth-pass", "")
        sentinel.ask("ACL", "SETUSER", "default", "+publish")


class EndpointGroup:
    """A primary and its replica, which take each other's part; clients know the primary by a name that moves."""

    lag = 0.0

    def __init__(self, pair: ReplicaPair, proxy: Proxy) -> None:
        self._pair, self._proxy = pair, proxy
        self.servers = [pair.primary, pair.replica]
        self.location = f"redis://127.0.0.1:{proxy.port}"
        self.faults = {"move": self._move, "kill": self._kill, "stop": self._stop, "cut links": self._cut_links}

    def _swap(self) -> None:
        """Let the replica be the primary, and the name lead to it."""
        pair = self._pair
        pair.primary, pair.replica = pair.replica, pair.primary
        pair.primary.ask("REPLICAOF", "NO", "ONE")
        self._proxy.target = pair.primary.port

    def _follow(self) -> None:
        self._pair.replica.ask("REPLICAOF", "127.0.0.1", self._pair.primary.port)

    def _move(self, chance: random.Random, faults: list[Fault]) -> None:
        """As a managed service scales: the old one is a replica, and then the name moves."""
        fault = Fault("move", lambda _: True, time.monotonic(), grace=MOVED)
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        faults.append(fault)
        self._swap()
        self._follow()
        self._settle(fault)

    def _kill(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = Fault("kill", lambda _: True, time.monotonic())
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        faults.append(fault)
        self._pair.primary.process.kill()
        time.sleep(chance.random())
        self._swap()
        self._pair.replica.start()
        self._follow()
        self._settle(fault)

    def _stop(self, chance: random.Random, faults: list[Fault]) -> None:
        """The old primary hangs while the name moves, and takes writes of open connections when it goes on."""
        fault = Fault("stop", lambda _: True, time.monotonic())
        fault.losses.append((fault.begun - UNREPLICATED, fault.begun + UNREPLICATED))
        faults.append(fault)
        self._pair.primary.process.pause()
        time.sleep(3 * chance.random())
        self._swap()
        resumed = time.monotonic()
        self._pair.replica.process.resume()
        self._follow()
        self._settle(fault)
        fault.losses.append((resumed, resumed + 2 * UNREPLICATED))

    def _cut_links(self, chance: random.Random, faults: list[Fault]) -> None:
        fault = Fault("cut links", lambda _: True, time.monotonic())
        faults.append(fault)
        self._proxy.cut_off()
        time.sleep(chance.random())
        self._proxy.is_refusing = False
        self._settle(fault)

    def _settle(self, fault: Fault) -> None:
        eventually(lambda: is_following(self._pair.replica), "the replica does not follow again")
        self._pair.catch_up()
        fault.ended = time.monotonic()


@contextlib.contextmanager
def of_sentinels(directory: Path) -> Iterator[Group]:
    """Yield a group of Sentinels."""
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(sentinels(directory))
        yield SentinelGroup(group, [stack.enter_context(Proxy(it.port)) for it in group.sentinels])


@contextlib.contextmanager
def of_an_endpoint(directory: Path) -> Iterator[Group]:
    """Yield a pair behind a name."""
    with replica_pair(directory) as pair, Proxy(pair.primary.port) as proxy:
        yield EndpointGroup(pair, proxy)
