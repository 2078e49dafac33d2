"""A name that leads to another server after a failover, while the old one lives on as its replica."""

import asyncio
import contextlib
import contextvars
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from storeroom.backends.redis import RedisCache
from storeroom.testing.contract.suite import Driver
from tests.faults.kinds import PATIENT
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer, redis_binary
from tests.servers.redis_groups import REPLICATION, ReplicaPair, eventually, is_following, replica_pair, start_all

MODES = pytest.mark.parametrize("mode", ["sync", "async"])

#: Seconds within which everything is well again: two, and a margin for a machine that is busy.
RECOVERED = 8.0

_numbers = itertools.count()


@pytest.fixture(scope="module")
def kind() -> str:
    """Redis alone."""
    return "redis"


class Endpoint:
    """The name of a pair's primary: connections made from now on lead there, and open ones stay."""

    def __init__(self, pair: ReplicaPair, proxy: Proxy) -> None:
        self.pair, self.proxy = pair, proxy
        self.url = f"redis://127.0.0.1:{proxy.port}/0"

    def promote(self) -> None:
        """Let the replica be the primary of the old one, which the name still leads to."""
        self.pair.catch_up()
        pair = self.pair
        pair.primary, pair.replica = pair.replica, pair.primary
        pair.primary.ask("REPLICAOF", "NO", "ONE")
        pair.replica.ask("REPLICAOF", "127.0.0.1", pair.primary.port)
        eventually(lambda: is_following(pair.replica), "the old primary does not follow")

    def move(self) -> None:
        """Let the name lead to the primary."""
        self.proxy.target = self.pair.primary.port

    def fail_over(self) -> None:
        """Let both happen."""
        self.promote()
        self.move()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicaPair]:
    with replica_pair(tmp_path_factory.mktemp("endpoint")) as pair:
        yield pair


@pytest.fixture
def endpoint(pair: ReplicaPair) -> Iterator[Endpoint]:
    with Proxy(pair.primary.port) as proxy:
        yield Endpoint(pair, proxy)
    pair.replica.ask("REPLICAOF", "127.0.0.1", pair.primary.port)
    for name, value in (("replica-read-only", "yes"), ("replica-serve-stale-data", "yes")):
        pair.replica.ask("CONFIG", "SET", name, value)
    eventually(lambda: is_following(pair.replica), "the old primary does not follow")


def made(location: str, mode: str, **options: Any) -> Any:
    """Return a cache that is asked in one of both ways, which raises where it is not answered."""
    own = {"client_name": f"endpoint-{mode}-{next(_numbers)}", "on_error": "raise", **options}
    own = {"socket_timeout": PATIENT, "socket_connect_timeout": PATIENT, **own}
    return Driver(RedisCache(location, {"TIMEOUT": None, "KEY_PREFIX": own["client_name"], "OPTIONS": own}), mode)


async def locked(driver: Any, name: str) -> bool:
    lock = driver.cache.lock(name, blocking_timeout=0)
    return bool(await lock.aacquire()) if driver.is_async else bool(lock.acquire())


async def unlocked(driver: Any, lock: Any) -> None:
    await lock.arelease() if driver.is_async else lock.release()


@MODES
@pytest.mark.slow
def test_every_write_to_a_name_that_has_moved_is_carried_out_once(endpoint: Endpoint, mode: str) -> None:
    """Of each kind of write the first after the failover succeeds, and counts once; reads show it."""
    driver = made(endpoint.url, mode)
    writes: dict[str, Any] = {
        "set": lambda: driver.set("k", "new"),
        "set_many": lambda: driver.set_many({"k": "new", "l": "new"}),
        "add": lambda: driver.add("added", 1),
        "incr": lambda: driver.incr("n", 3),
        "incr by a fraction": lambda: driver.incr("n", 0.5),
        "delete": lambda: driver.delete("gone"),
        "delete_many": lambda: driver.delete_many(["gone", "never"]),
        "touch": lambda: driver.touch("k", 1000),
        "incr_version": lambda: driver.incr_version("moved"),
        "get_or_set": lambda: driver.get_or_set("computed", lambda: "value"),
        "set with tags": lambda: driver.set("tagged", "v", tags=["t"]),
        "invalidate_tags": lambda: driver.invalidate_tags("t"),
        "lock": lambda: locked(driver, "door"),
        "unlock": lambda: unlocked(driver, held[-1]),
        "clear": driver.clear,
    }
    held: list[Any] = []
    told = {
        "set": None, "set_many": [], "add": True, "incr": 8, "incr by a fraction": 5.5, "delete": True,
        "touch": True, "incr_version": 2, "get_or_set": "value", "set with tags": None,
        "lock": True, "unlock": None, "clear": None,
    }  # fmt: skip

    async def work() -> None:
        for name, write in writes.items():
            await driver.set_many({"k": "old", "n": 5, "gone": 1, "moved": 1})
            await driver.delete_many(["added", "computed"])
            held.append(driver.cache.lock(f"held before {name}"))
            assert await (held[-1].aacquire() if driver.is_async else asyncio.to_thread(held[-1].acquire))
            endpoint.fail_over()
            result = await write()
            if name in told:
                assert result == told[name], name
            assert endpoint.pair.primary.ask("ROLE")[0] == "master"
        assert await driver.get_many(["k", "n"]) == {}

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_threads_and_tasks_count_every_increment_once_while_a_name_moves(endpoint: Endpoint, mode: str) -> None:
    """Acknowledged increments of many callers at once add up, but for those that the old primary alone had taken."""
    driver = made(endpoint.url, mode, max_connections=16)

    async def count(times: int) -> int:
        done = 0
        for _ in range(times):
            await driver.incr("n")
            done += 1
            await asyncio.sleep(0)
        return done

    def counted(times: int) -> int:
        async def all_of_them() -> int:
            return sum(await asyncio.gather(*(count(times) for _ in range(8))))

        return asyncio.run(all_of_them())

    def in_threads(times: int) -> int:
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(counted(times))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == len(threads)
        return sum(results)

    async def begin() -> None:
        await driver.set("n", 0)

    asyncio.run(begin())
    expected = in_threads(5)
    for _ in range(3):
        endpoint.fail_over()
        expected += in_threads(5)
        assert int(endpoint.pair.primary.ask("GET", driver.cache.make_key("n"))) == expected


@MODES
@pytest.mark.slow
def test_a_cache_recovers_soon_after_its_name_moves(endpoint: Endpoint, mode: str) -> None:
    """While the name leads to the replica writes raise; as soon as it leads to the primary they succeed."""
    driver = made(endpoint.url, mode, on_error="miss")

    async def work() -> None:
        assert await driver.set_many({"k": 0}) == []
        endpoint.promote()
        for turn in range(10):
            assert await driver.set_many({"k": turn}) == ["k"]
        endpoint.move()
        begun = time.monotonic()
        while await driver.set_many({"k": "new"}):
            assert time.monotonic() < begun + RECOVERED
            await asyncio.sleep(0.01)
        assert await driver.get("k") == "new"
        assert endpoint.pair.primary.ask("EXISTS", driver.cache.make_key("k")) == 1

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_reads_alone_notice_that_a_name_has_moved(endpoint: Endpoint, mode: str) -> None:
    """A program that writes nothing leaves a server which has become a replica, though that answers its reads."""
    driver = made(endpoint.url, mode)
    topology = driver.cache.engine._topology

    async def work() -> None:
        await driver.set("k", "old")
        endpoint.fail_over()
        endpoint.pair.replica.ask("CONFIG", "SET", "replica-read-only", "no")
        endpoint.pair.replica.ask("SET", driver.cache.make_key("k"), "7")  # tells who answers
        assert await driver.get("k") == 7
        topology.look_at = 0.0
        assert await driver.get_many(["k"]) == {"k": "old"}
        assert topology.look_at > time.monotonic()

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_server_that_lacks_its_primary_is_left(endpoint: Endpoint, mode: str) -> None:
    """MASTERDOWN closes the connection: the next one leads to the server that the name stands for now."""
    driver = made(endpoint.url, mode)
    pair = endpoint.pair

    async def work() -> None:
        await driver.set("k", "v")
        endpoint.promote()
        pair.replica.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        pair.replica.ask("REPLICAOF", "127.0.0.1", pair.replica.port)  # nobody answers it there
        endpoint.move()
        assert await driver.get("k") == "v"
        assert await driver.get_many(["k"]) == {"k": "v"}

    asyncio.run(work())


class Picky(Proxy):
    """A proxy that closes the connection on a command it does not know."""

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := client.recv(65_536)) and b"ROLE" not in data:
                server.sendall(data)
        self._end(client, server)


@MODES
@pytest.mark.slow
def test_reads_go_on_where_nobody_answers_for_the_role(pair: ReplicaPair, mode: str) -> None:
    """A proxy that does not know the question costs one read a connection, and is not asked again soon."""
    with Picky(pair.primary.port) as proxy:
        driver = made(f"redis://127.0.0.1:{proxy.port}/0", mode)
        topology = driver.cache.engine._topology

        async def work() -> None:
            await driver.set("k", "v")
            for _ in range(3):
                topology.look_at = 0.0
                assert await driver.get("k") == "v"
                assert topology.look_at > time.monotonic() + 2 * topology.ROLE_SECONDS
                assert await driver.get_many(["k"]) == {"k": "v"}
            assert driver.cache.engine.breaker.failures == 0

        asyncio.run(work())


@MODES
@pytest.mark.slow
def test_replica_that_location_names_is_seldom_asked_for_its_role(endpoint: Endpoint, mode: str) -> None:
    """It is read from, and connections to it are kept, once it has turned out to be one on new connections, too."""
    endpoint.proxy.target = endpoint.pair.replica.port
    driver = made(endpoint.url, mode)
    topology = driver.cache.engine._topology

    async def work() -> None:
        for seconds in (topology.ROLE_SECONDS, topology.SELDOM_SECONDS):
            topology.look_at = 0.0
            assert await driver.get("k") is None
            assert topology.look_at > time.monotonic() + 0.5 * seconds
        endpoint.move()
        topology.look_at = 0.0
        assert await driver.get("k") is None
        await driver.set("k", "v")
        topology.look_at = 0.0
        assert await driver.get("k") == "v"
        assert topology.look_at < time.monotonic() + 2 * topology.ROLE_SECONDS

    asyncio.run(work())


def is_loading(server: RedisServer) -> bool:
    try:
        server.ask("GET", "k")
    except hiredis.ReplyError as error:
        return str(error).startswith("LOADING")
    return False


@MODES
@pytest.mark.slow
def test_server_that_loads_is_left(endpoint: Endpoint, mode: str) -> None:
    """LOADING on an open connection closes it; nothing was done, so that counting goes on at the new primary."""
    driver = made(endpoint.url, mode)
    pair = endpoint.pair

    async def work() -> None:
        await driver.set("n", 1)
        endpoint.promote()
        pair.primary.ask("EVAL", "for i = 1, 5000 do redis.call('SET', 'filler' .. i, i, 'EX', 60) end", 0)
        old = pair.replica
        for setting in (("loading-process-events-interval-bytes", 1024), ("key-load-delay", 2000)):
            old.ask("CONFIG", "SET", *setting)
        old.ask("REPLICAOF", "NO", "ONE")
        old.ask("SET", "another", "history")
        old.ask("REPLICAOF", "127.0.0.1", pair.primary.port)
        await asyncio.to_thread(eventually, lambda: is_loading(old), "the old primary does not load")
        try:
            endpoint.move()
            assert await driver.incr("n") == 2
            assert is_loading(old), "it is too late to tell"
        finally:
            old.ask("CONFIG", "SET", "key-load-delay", 0)
            await asyncio.to_thread(eventually, lambda: not is_loading(old), "the old primary does not end to load")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_no_connection_to_the_old_server_is_kept(endpoint: Endpoint, mode: str) -> None:
    """One refusal drops all connections that were open, those in use as soon as they come back."""
    driver = made(endpoint.url, mode, max_connections=8)
    name = driver.cache.settings.options["client_name"]

    def connected(server: RedisServer) -> int:
        return server.ask("CLIENT", "LIST").count(f"name={name} ")

    def read() -> None:
        for _ in range(20):
            driver.cache.get("k")

    async def work() -> None:
        await driver.set("k", "v")
        if not driver.is_async:
            threads = [threading.Thread(target=read) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert connected(endpoint.pair.primary)
        endpoint.fail_over()
        await driver.set("k", "w")
        await asyncio.to_thread(eventually, lambda: not connected(endpoint.pair.replica), "a connection is kept")
        assert connected(endpoint.pair.primary)

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_near_tier_hears_of_changes_at_the_server_that_its_name_leads_to_now(endpoint: Endpoint, mode: str) -> None:
    """A process that reads alone, and nearly all of that near, hears of a change at the new primary."""
    near = made(endpoint.url, mode, near={"max_staleness": PATIENT}, client_name="near")
    far = made(endpoint.url, mode, client_name="near", socket_timeout=PATIENT + 1)
    table = near.cache._overlay.table

    async def until(is_so: Any, complaint: str) -> None:
        deadline = time.monotonic() + PATIENT / 2
        while not await is_so():
            assert time.monotonic() < deadline, complaint
            await asyncio.sleep(0.02)

    async def is_tracked() -> bool:
        await near.get("k")
        return bool(table.is_tracked)

    async def work() -> None:
        await far.set("k", 0)
        await until(is_tracked, "changes are not heard of")
        endpoint.fail_over()
        endpoint.pair.replica.ask("REPLICAOF", "127.0.0.1", endpoint.pair.replica.port)  # hears of nothing
        for value in (1, 2):
            await far.set("k", value)

            async def is_read(value: int = value) -> bool:
                return bool(await near.get("k") == value)

            await until(is_read, "a change at the new primary is not heard of")

    asyncio.run(work())


@MODES
@pytest.mark.slow
def test_endpoints_of_primary_and_replica_move_together(pair: ReplicaPair, mode: str) -> None:
    """Where LOCATION has two endpoints, writes go where the first leads, and reads where either does."""
    with Proxy(pair.primary.port) as first, Proxy(pair.replica.port) as second:
        endpoint = Endpoint(pair, first)
        driver = made(f"{endpoint.url},redis://127.0.0.1:{second.port}/0", mode)

        async def work() -> None:
            await driver.set("n", 0)
            for turn in range(3):
                await driver.set("k", turn)
                endpoint.fail_over()
                second.target = pair.replica.port
                assert await driver.incr("n") == turn + 1
                pair.catch_up()
                read = asyncio.create_task(driver.get("k"), context=contextvars.Context())
                assert await read == turn
                assert pair.primary.ask("GET", driver.cache.make_key("n")) == str(turn + 1)

        asyncio.run(work())


@MODES
def test_names_are_resolved_for_each_connection(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose address changes is looked up again when the server there turns a write away."""
    resolve, addresses = socket.getaddrinfo, {"cache.example": "127.0.0.2"}

    def resolved(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve(addresses.get(host, host), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    servers = [RedisServer(redis_binary(), tmp_path / address, *REPLICATION) for address in ("127.0.0.2", "127.0.0.3")]
    with contextlib.ExitStack() as stack:
        start_all(stack, servers)
        old, new = servers
        at_old = stack.enter_context(Proxy(old.port, "127.0.0.2"))
        stack.enter_context(Proxy(new.port, "127.0.0.3", port=at_old.port))
        driver = made(f"redis://cache.example:{at_old.port}/0", mode)

        async def work() -> None:
            await driver.set("k", "old")
            old.ask("REPLICAOF", "127.0.0.1", new.port)
            addresses["cache.example"] = "127.0.0.3"
            await driver.set("n", 1)
            assert await driver.incr("n") == 2
            assert new.ask("EXISTS", driver.cache.make_key("n")) == 1

        asyncio.run(work())
