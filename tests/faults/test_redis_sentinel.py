"""Sentinels that name another primary, while the old one lives on, or while one of them is cut off."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from storeroom.backends.redis import RedisCache, sentinel_watch
from storeroom.exceptions import StorageError
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import PATIENT
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_groups import SERVICE, Sentinels, eventually, is_following, sentinels

MODES = pytest.mark.parametrize("mode", ["sync", "async"])

#: Seconds after another primary was named within which everybody has to be there: 1.5, and a margin for a machine that
#: is busy. The old primary takes writes for as long as a test lasts.
SWITCHED = 8.0

#: Seconds in which a group is well again after a test, on a machine that is busy.
SETTLED = 90.0

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with sentinels(tmp_path_factory.mktemp("sentinel")) as group:
        yield group


def made(location: str, mode: str, **options: Any) -> Any:
    """Return a cache that is asked in one of both ways, which raises where it is not answered."""
    own = {"on_error": "raise", "socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **options}
    own = {"client_name": f"sentinel-{mode}-{next(_numbers)}", **own}
    return Driver(RedisCache(location, {"TIMEOUT": None, "OPTIONS": own}), mode)


def named_by(sentinel: RedisServer) -> int:
    return int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


class Switch:
    """A failover as an administrator asks for it. The old primary goes on as one: it is told so in vain for now."""

    def __init__(self, group: Sentinels) -> None:
        self.group = group
        self.old = self.new = group.primary()

    def begin(self) -> None:
        """Let it happen, until the first Sentinel names another."""
        group = self.group
        eventually(self._is_ready, "the group is not ready for a failover", patience=SETTLED)
        self.old.ask("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
        deadline = time.monotonic() + PATIENT * 2
        while True:
            with contextlib.suppress(Exception):  # one is under way, or no replica is good enough yet
                group.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE)
                break
            assert time.monotonic() < deadline, "no failover begins"
            time.sleep(0.1)
        while True:
            for sentinel in group.sentinels:
                if (port := named_by(sentinel)) != self.old.port:
                    self.new = next(server for server in group.servers if server.port == port)
                    return
            assert time.monotonic() < deadline, "nobody is promoted"
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        replicas = [server for server in self.group.servers if server is not self.old]
        return self.group.is_complete() and all(map(is_following, replicas))

    def demote(self) -> None:
        """Let the old primary follow the new one, as Sentinels order after a while."""
        self.old.ask("ACL", "SETUSER", "default", "+replicaof", "+slaveof")
        if self.old is not self.new:
            self.old.ask("REPLICAOF", "127.0.0.1", self.new.port)

    def end(self) -> None:
        """Wait until all is well again."""
        self.demote()
        eventually(
            lambda: len({named_by(it) for it in self.group.sentinels}) == 1,
            "the Sentinels do not agree",
            patience=SETTLED,
        )
        eventually(
            lambda: self.old is self.new or is_following(self.old), "the old primary does not follow", patience=SETTLED
        )


@pytest.fixture
def switch(group: Sentinels) -> Iterator[Switch]:
    switch = Switch(group)
    yield switch
    switch.end()


def stored(server: RedisServer, driver: Any, key: str) -> Any:
    """Return a key's value at one server; 0 if it is not there."""
    with redis.Redis(port=server.port, db=driver.cache.engine.target.servers[0].db) as client:
        return int(client.get(driver.cache.make_key(key)) or 0)


def connected(server: RedisServer, driver: Any) -> int:
    name = driver.cache.settings.options["client_name"]
    return int(server.ask("CLIENT", "LIST").count(f"name={name} "))


async def follow(driver: Any, switch: Switch) -> None:
    """Wait until a cache's writes arrive at the new primary."""
    deadline = time.monotonic() + SWITCHED
    for number in itertools.count(1):
        await driver.set("followed", number)
        if stored(switch.new, driver, "followed") == number:
            return
        assert time.monotonic() < deadline, "the old primary is written to"
        await asyncio.sleep(0.05)


@MODES
@pytest.mark.slow
def test_nothing_is_written_to_the_old_primary_soon_after_another_is_named(switch: Switch, mode: str) -> None:
    """The old one takes writes for ten seconds more, and gets none of those who wrote there before."""
    driver = made(switch.group.url(), mode)

    async def work() -> None:
        await driver.set("n", 0)
        is_over = asyncio.Event()

        async def count() -> None:
            while not is_over.is_set():
                await driver.incr("n")
                await asyncio.sleep(0.005)

        counting = asyncio.create_task(count())
        await asyncio.to_thread(switch.begin)
        await follow(driver, switch)
        lost = stored(switch.old, driver, "n")
        before = stored(switch.new, driver, "n")
        await asyncio.sleep(0.5)
        assert stored(switch.old, driver, "n") == lost, "the old primary is written to"
        assert stored(switch.new, driver, "n") > before
        assert connected(switch.old, driver) == 0, "connections to the old primary are kept"
        is_over.set()
        await counting
        assert await driver.get("n") == stored(switch.new, driver, "n")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_lock_has_one_owner_soon_after_another_primary_is_named(switch: Switch, mode: str) -> None:
    """A process that has long been at the old primary, and one that begins now, do not both get a lock."""
    location = switch.group.url()
    long_since = made(location, mode)

    async def acquires(driver: Any, name: str) -> bool:
        lock = driver.cache.lock(name, timeout=60)
        if driver.is_async:
            return bool(await lock.aacquire(blocking=False))
        return bool(lock.acquire(blocking=False))

    async def work() -> None:
        assert await acquires(long_since, "before")
        assert not await acquires(made(location, mode), "before")
        await asyncio.to_thread(switch.begin)
        await follow(long_since, switch)
        for number in range(5):
            assert await acquires(long_since, f"after {number}")
            assert not await acquires(made(location, mode), f"after {number}")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_near_tier_hears_of_changes_at_the_new_primary(switch: Switch, mode: str) -> None:
    """Entries are near again soon, and a change at the new primary shows, though the old one says nothing of it."""
    location = switch.group.url()
    near, far = made(location, mode, near={"max_staleness": PATIENT}), made(location, mode)
    table = near.cache._overlay.table

    async def until(is_so: Callable[[], Any], complaint: str) -> None:
        deadline = time.monotonic() + PATIENT / 4
        while not await is_so():
            assert time.monotonic() < deadline, complaint
            await asyncio.sleep(0.02)

    async def is_tracked() -> bool:
        await near.get("k")
        return bool(table.is_tracked)

    async def work() -> None:
        await far.set("k", 0)
        await until(is_tracked, "changes are not heard of")
        await asyncio.to_thread(switch.begin)
        await follow(far, switch)
        for value in (1, 2):
            await far.set("k", value)

            async def is_read(value: int = value) -> bool:
                return bool(await near.get("k") == value)

            await until(is_read, "a change at the new primary is not heard of")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_forked_child_listens_for_itself(switch: Switch, mode: str) -> None:
    """A child process follows the Sentinels, whose words its parent's thread hears."""
    driver = made(switch.group.url(), mode)
    asyncio.run(driver.set("n", 0))
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        status = 1
        try:
            asyncio.run(driver.set("child", 1))
            port = int(os.read(reading, 8))
            switch.new = next(server for server in switch.group.servers if server.port == port)
            asyncio.run(follow(driver, switch))
            asyncio.run(driver.set("child", 2))
            status = 0
        finally:
            os._exit(status)
    switch.begin()
    os.write(writing, str(switch.new.port).encode())
    _, status = os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    assert status == 0
    assert (stored(switch.old, driver, "child"), stored(switch.new, driver, "child")) == (1, 2)
    asyncio.run(follow(driver, switch))
    asyncio.run(driver.set("n", 5))
    assert (stored(switch.old, driver, "n"), stored(switch.new, driver, "n")) == (0, 5)


@MODES
@pytest.mark.slow
@pytest.mark.parametrize("way", ["messages", "questions"])
def test_switch_is_heard_of_by_messages_and_by_questions(
    switch: Switch, mode: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message tells of it at once; where there is none, as RESP3 is missing, the next question does."""
    if way == "messages":
        monkeypatch.setattr(sentinel_watch, "ASK_SECONDS", 1000.0)
    right = "+hello" if way == "messages" else "-hello"
    for sentinel in switch.group.sentinels:
        sentinel.ask("ACL", "SETUSER", "default", right)
    driver = made(switch.group.url(), mode)

    async def work() -> None:
        try:
            await driver.set("k", 1)
            await asyncio.to_thread(eventually, lambda: len(driver.cache.engine._watch._votes) == 3, "no votes")
            await asyncio.to_thread(switch.begin)
            await follow(driver, switch)
        finally:
            for sentinel in switch.group.sentinels:
                sentinel.ask("ACL", "SETUSER", "default", "+hello")

    asyncio.run(work())


# Sentinels that are cut off, hang or are dead ---------------------------------------------------


@pytest.fixture
def links(group: Sentinels) -> Iterator[list[Proxy]]:
    """The ways of clients to the Sentinels."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Proxy(sentinel.port)) for sentinel in group.sentinels]


def url_by(links: list[Proxy], group: Sentinels) -> str:
    hosts = ",".join(f"127.0.0.1:{link.port}" for link in links)
    return f"redis+sentinel://{hosts}/{SERVICE}/{group.url().rpartition('/')[2]}"


@contextlib.contextmanager
def deaf(group: Sentinels, *numbers: int) -> Iterator[None]:
    """Let clients reach some of the Sentinels, to which neither servers nor other Sentinels tell anything."""
    sentinels = [group.sentinels[number] for number in numbers]
    for server in group.servers:
        server.ask("ACL", "SETUSER", "nobody", "on", ">secret", "-@all")
    for sentinel in sentinels:
        sentinel.ask("ACL", "SETUSER", "default", "-publish")
        sentinel.ask("SENTINEL", "SET", SERVICE, "auth-user", "nobody", "auth-pass", "secret")
    yield
    for sentinel in sentinels:
        sentinel.ask("SENTINEL", "SET", SERVICE, "auth-user", "", "auth-pass", "")
        sentinel.ask("ACL", "SETUSER", "default", "+publish")
    for server in group.servers:
        server.ask("ACL", "DELUSER", "nobody")


@pytest.fixture
def cut_off(group: Sentinels, switch: Switch) -> Iterator[RedisServer]:
    """A Sentinel that hears nothing."""
    with deaf(group, 2):
        yield group.sentinels[2]


@pytest.fixture
def slow_to_hear(group: Sentinels, switch: Switch) -> Iterator[None]:
    """All but the Sentinel that leads the failover hear of it later."""
    with deaf(group, 1, 2):
        yield


@MODES
@pytest.mark.slow
def test_sentinel_that_is_cut_off_names_the_old_primary_in_vain(
    group: Sentinels, cut_off: RedisServer, switch: Switch, links: list[Proxy], mode: str
) -> None:
    """It is the first in LOCATION, and nobody follows it: a client of before does not, and a new one neither."""
    location = url_by(links[::-1], group)
    long_since = made(location, mode)

    async def work() -> None:
        await long_since.set("n", 0)
        await asyncio.to_thread(switch.begin)
        await follow(long_since, switch)
        for value, driver in enumerate((long_since, made(location, mode)), 1):
            assert named_by(cut_off) == switch.old.port
            await driver.set("n", value)
            assert (stored(switch.old, driver, "n"), stored(switch.new, driver, "n")) == (0, value)
        await asyncio.to_thread(switch.demote)
        assert named_by(cut_off) == switch.old.port
        for value, driver in enumerate((long_since, made(location, mode)), 3):
            await driver.set("n", value)
            assert stored(switch.new, driver, "n") == value

    asyncio.run(work())


@MODES
@pytest.mark.slow
@pytest.mark.usefixtures("slow_to_hear")
def test_new_primary_is_kept_though_who_named_it_is_out_of_reach(
    group: Sentinels, switch: Switch, links: list[Proxy], mode: str
) -> None:
    """The one Sentinel that knows is heard once; the others, a majority, name the old one for some seconds more."""
    driver = made(url_by(links, group), mode)

    async def work() -> None:
        await driver.set("n", 0)
        await asyncio.to_thread(switch.begin)
        await follow(driver, switch)
        links[0].cut_off()
        for number in range(1, 31):
            await driver.set("n", number)
            assert (stored(switch.old, driver, "n"), stored(switch.new, driver, "n")) == (0, number)
            await asyncio.sleep(0.1)

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_sentinel_that_hangs_keeps_nobody_from_the_new_primary(
    group: Sentinels, switch: Switch, links: list[Proxy], mode: str
) -> None:
    """The others are heard meanwhile."""
    driver = made(url_by(links, group), mode)

    async def work() -> None:
        await driver.set("n", 1)
        links[0].is_silent = True
        links[1].cut_off()
        await asyncio.to_thread(switch.begin)
        await follow(driver, switch)
        await driver.set("n", 2)
        assert (stored(switch.old, driver, "n"), stored(switch.new, driver, "n")) == (1, 2)

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_primary_that_is_well_is_used_while_sentinels_are_dead(group: Sentinels, links: list[Proxy], mode: str) -> None:
    """One Sentinel of three is enough to begin, and none to go on; without any, a new program has no primary."""
    location = url_by(links, group)
    driver = made(location, mode)

    async def work() -> None:
        for link in links[:2]:
            link.cut_off()
        await driver.set("k", 1)
        links[2].cut_off()
        await driver.set("k", 2)
        assert await driver.get("k") == 2
        with pytest.raises(StorageError, match="no Sentinel names the primary"):
            await made(location, mode).get("k")
        for link in links:
            link.is_refusing = False
        assert await made(location, mode).get("k") == 2

    asyncio.run(work())


@pytest.mark.slow
def test_thread_that_listens_ends_with_its_engine_and_begins_with_its_next_use(group: Sentinels) -> None:
    """Nobody listens before the first use and after close(); all handles of a location share one thread."""
    location = group.url()
    handles = [RedisCache(location, {}) for _ in range(3)]
    engine = handles[0].engine
    assert engine._watch is None
    for handle in handles:
        handle.set("k", 1)
    watch = engine._watch
    assert watch is not None
    assert all(handle.engine._watch is watch for handle in handles)
    engine.close()
    assert not watch._thread.is_alive()
    assert handles[0].get("k") == 1
    assert engine._watch is not watch
    assert engine._watch._thread.is_alive()
    engine.close()
