"""Several Redis servers that belong together: a primary with a replica, Sentinels, a cluster."""

import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis
import pytest

from tests.servers.process import PATIENCE, ServerProcess, free_port
from tests.servers.proxy import Proxy
from tests.servers.redis import DATABASES, RedisServer, redis_binary
from tests.servers.shared import shared

#: Milliseconds after which a server that is silent is taken for dead. Shorter, a busy machine would end living ones.
DOWN_AFTER = 1500

#: Replicas follow at once, and notice soon.
REPLICATION = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]

SERVICE = "mymaster"

#: Of a cluster: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model
SLOTS = 16_384


def eventually(is_so: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait for what servers do by themselves."""
    deadline = time.monotonic() + patience
    while True:
        with suppress(ConnectionError):  # a server drops its connections as it takes another part
            if is_so():
                return
        assert time.monotonic() < deadline, f"after {patience:g} s: {what}"
        time.sleep(0.02)


def is_following(replica: RedisServer) -> bool:
    return "master_link_status:up" in replica.ask("INFO", "replication")


def start_all(stack: ExitStack, servers: Sequence[RedisServer]) -> None:
    """Start servers side by side; each is stopped with the stack."""
    for server in servers:
        stack.callback(server.stop)
        server.process.launch()
    for server in servers:
        server.process.wait_until_ready()


class ReplicaPair:
    """A primary and its replica."""

    def __init__(self, primary: RedisServer, replica: RedisServer) -> None:
        self.primary, self.replica = primary, replica
        self._next = itertools.count(1)

    def url(self) -> str:
        """Both, with a database of the test's own."""
        db = next(self._next)
        return f"unix://{self.primary.socket}?db={db},unix://{self.replica.socket}?db={db}"

    def catch_up(self) -> None:
        """Wait until the replica has all that was written so far."""
        written = self._offset(self.primary, "master_repl_offset")
        eventually(lambda: self._offset(self.replica, "slave_repl_offset") >= written, "the replica is behind")

    def _offset(self, server: RedisServer, name: str) -> int:
        (offset,) = re.findall(rf"^{name}:(\d+)", server.ask("INFO", "replication"), re.MULTILINE)
        return int(offset)


class Replicas:
    """A primary and several replicas, each of which follows by a proxy."""

    def __init__(self, primary: RedisServer, replicas: Sequence[RedisServer], links: Sequence[Proxy]) -> None:
        self.primary, self.replicas, self.links = primary, list(replicas), list(links)

    def url(self, name: str) -> str:
        """All of them, by a URL that nobody else uses."""
        return ",".join(f"redis://127.0.0.1:{it.port}/0?client_name={name}" for it in (self.primary, *self.replicas))

    def catch_up(self) -> None:
        """Wait until all replicas have all that was written so far."""
        for replica in self.replicas:
            ReplicaPair(self.primary, replica).catch_up()


@contextmanager
def replicas(directory: Path, count: int) -> Iterator[Replicas]:
    with ExitStack() as stack:
        primary = RedisServer(redis_binary(), directory / "primary", *REPLICATION)
        start_all(stack, [primary])
        links = [stack.enter_context(Proxy(primary.port)) for _ in range(count)]
        servers = [
            RedisServer(redis_binary(), directory / str(number), *REPLICATION, "--replicaof", f"127.0.0.1 {link.port}")
            for number, link in enumerate(links)
        ]
        start_all(stack, servers)
        for replica in servers:
            eventually(lambda replica=replica: is_following(replica), "a replica does not follow")
        yield Replicas(primary, servers, links)


@contextmanager
def replica_pair(directory: Path) -> Iterator[ReplicaPair]:
    with ExitStack() as stack:
        options = ["--databases", str(DATABASES), *REPLICATION]
        primary = RedisServer(redis_binary(), directory / "primary", *options)
        follow = ["--replicaof", f"127.0.0.1 {primary.port}"]
        replica = RedisServer(redis_binary(), directory / "replica", *options, *follow)
        start_all(stack, [primary, replica])
        eventually(lambda: is_following(replica), "the replica does not follow")
        yield ReplicaPair(primary, replica)


@pytest.fixture(scope="session")
def redis_pair(tmp_path_factory: pytest.TempPathFactory) -> ReplicaPair:
    return shared("redis pair", lambda: replica_pair(tmp_path_factory.mktemp("redis-pair")))


class Sentinels:
    """Three Sentinels that watch a primary with two replicas."""

    def __init__(self, servers: Sequence[RedisServer], sentinels: Sequence[RedisServer]) -> None:
        self.servers, self.sentinels = list(servers), list(sentinels)
        self._next = itertools.count(1)

    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/{next(self._next)}"

    def primary(self) -> RedisServer:
        """The server that the Sentinels call the primary."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def is_complete(self) -> bool:
        replies = [sentinel.ask("SENTINEL", "MASTER", SERVICE) for sentinel in self.sentinels]
        states = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
        return all(state["num-slaves"] == "2" and state["num-other-sentinels"] == "2" for state in states)


@contextmanager
def sentinels(directory: Path) -> Iterator[Sentinels]:
    with ExitStack() as stack:
        options = ["--databases", str(DATABASES), *REPLICATION]
        servers = [RedisServer(redis_binary(), directory / "0", *options)]
        follow = ["--replicaof", f"127.0.0.1 {servers[0].port}"]
        servers += [RedisServer(redis_binary(), directory / str(n), *options, *follow) for n in (1, 2)]
        start_all(stack, servers)
        for replica in servers[1:]:
            eventually(lambda replica=replica: is_following(replica), "a replica does not follow")
        watchers = [_sentinel(directory / f"sentinel-{n}", servers[0].port) for n in range(3)]
        start_all(stack, watchers)
        group = Sentinels(servers, watchers)
        eventually(group.is_complete, "the Sentinels do not find each other")
        yield group


def _sentinel(directory: Path, primary_port: int) -> RedisServer:
    port = free_port()
    server = RedisServer(redis_binary(), directory, port=port)
    configuration = server.folder / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\nprotected-mode no\nset-proc-title no\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER}\n"
        f"sentinel failover-timeout {SERVICE} {4 * DOWN_AFTER}\n"
    )
    command = [redis_binary(), str(configuration), "--sentinel"]
    server.process = ServerProcess(command, server.folder, server.answers, server.folder)
    return server


@pytest.fixture(scope="session")
def redis_sentinels(tmp_path_factory: pytest.TempPathFactory) -> Sentinels:
    return shared("redis sentinels", lambda: sentinels(tmp_path_factory.mktemp("redis-sentinel")))


class Cluster:
    """Three primaries that share the slots, each with a replica."""

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.servers = list(servers)
        self._next = itertools.count(1)

    def url(self) -> str:
        """All servers, emptied, by a URL that no test before has used."""
        for server in self.primaries():
            server.ask("FLUSHALL")
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"redis+cluster://{hosts}?client_name=test{next(self._next)}"

    def primaries(self) -> list[RedisServer]:
        return [server for server in self.servers if server.ask("ROLE")[0] == "master"]

    def is_whole(self) -> bool:
        return all(_cluster_state(server) == ("ok", str(len(self.servers))) for server in self.servers)

    def owner(self, key: str) -> RedisServer:
        """The server that keeps a storage key now, as all of them say."""
        slot = self.servers[0].ask("CLUSTER", "KEYSLOT", key)
        for begin, end, (_, port, *_rest), *_replicas in self.servers[0].ask("CLUSTER", "SLOTS"):
            if begin <= slot <= end:
                return next(server for server in self.servers if server.port == port)
        raise LookupError(key)

    def fail_over(self, replica: RedisServer) -> RedisServer:
        """Let a replica take its primary's part, as an administrator would; return the old primary."""
        eventually(lambda: is_following(replica), "the replica does not follow")
        (old,) = (server for server in self.servers if server.port == replica.ask("ROLE")[2])
        asked_at = 0.0

        def is_done() -> bool:
            nonlocal asked_at
            if time.monotonic() > asked_at + 2 * DOWN_AFTER / 1000 and replica.ask("ROLE")[0] == "slave":
                asked_at = time.monotonic()  # a failover that is not voted for in time is asked for again
                with suppress(hiredis.ReplyError):  # it was promoted between the two questions
                    replica.ask("CLUSTER", "FAILOVER")
            tables = [server.ask("CLUSTER", "SLOTS") for server in self.servers]
            return old.port not in {primary[1] for table in tables for _, _, primary, *_ in table}

        eventually(is_done, "the replica is not promoted")
        return old

    def join(self, server: RedisServer) -> None:
        """Let another server, which runs, become a member without slots."""
        meet(self.servers[0], server)
        self.servers.append(server)
        eventually(self.is_whole, "the new server is not known to all")

    def move(self, source: RedisServer, target: RedisServer, slots: Sequence[int]) -> None:
        """Move slots with their keys, as ``redis-cli --cluster reshard`` does."""
        names = {server: server.ask("CLUSTER", "MYID") for server in (source, target)}
        owners = self.primaries()
        for slot in slots:
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
            while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            for server in (target, source, *(it for it in owners if it not in (target, source))):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])


def _cluster_state(server: RedisServer) -> tuple[str, str]:
    info = dict(line.split(":", 1) for line in server.ask("CLUSTER", "INFO").split())
    return info["cluster_state"], info["cluster_known_nodes"]


@contextmanager
def bare_cluster(directory: Path, primaries: int = 3) -> Iterator[Cluster]:
    """Primaries without replicas, each of which answers while others are down."""
    with ExitStack() as stack:
        servers = [cluster_node(directory / str(number), full_coverage="no") for number in range(primaries)]
        start_all(stack, servers)
        _join(servers, primaries)
        group = Cluster(servers)
        eventually(group.is_whole, "the cluster does not come together")
        yield group


@contextmanager
def cluster(directory: Path, *, full_coverage: str = "yes") -> Iterator[Cluster]:
    with ExitStack() as stack:
        servers = [cluster_node(directory / str(number), full_coverage=full_coverage) for number in range(6)]
        start_all(stack, servers)
        _join(servers)
        group = Cluster(servers)
        eventually(group.is_whole, "the cluster does not come together")
        for replica in servers[3:]:
            eventually(lambda replica=replica: is_following(replica), "a replica does not follow")
        yield group


def cluster_node(directory: Path, *, full_coverage: str = "yes") -> RedisServer:
    """A server that may become a member of a cluster."""
    return RedisServer(
        redis_binary(),
        directory,
        *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
        *("--cluster-node-timeout", str(DOWN_AFTER), "--cluster-replica-validity-factor", "0"),
        *("--cluster-require-full-coverage", full_coverage),
        *REPLICATION,
    )


def _join(servers: Sequence[RedisServer], primaries: int = 3) -> None:
    """Let the first share the slots and the others follow them, as ``redis-cli --cluster create`` does."""
    bounds = [round(SLOTS * number / primaries) for number in range(primaries + 1)]
    for server, (begin, end) in zip(servers, itertools.pairwise(bounds), strict=False):
        server.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
    for number, server in enumerate(servers):
        server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        meet(servers[0], server)
    met = str(len(servers))
    eventually(lambda: all(_cluster_state(server)[1] == met for server in servers), "the servers do not meet")
    for primary, replica in zip(servers[:primaries], servers[primaries:], strict=False):
        name = primary.ask("CLUSTER", "MYID")
        eventually(lambda replica=replica, name=name: _follows(replica, name), "a replica does not know its primary")


def meet(member: RedisServer, server: RedisServer) -> None:
    """Let a member of a cluster get to know a server."""
    bus = int(server.ask("CONFIG", "GET", "cluster-port")[1])
    member.ask("CLUSTER", "MEET", "127.0.0.1", server.port, bus)


def _follows(replica: RedisServer, name: str) -> bool:
    try:
        replica.ask("CLUSTER", "REPLICATE", name)
    except hiredis.ReplyError:
        return False  # it has not heard of it yet
    return True


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return shared("redis cluster", lambda: cluster(tmp_path_factory.mktemp("redis-cluster")))
