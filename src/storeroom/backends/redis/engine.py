"""The engine of a Redis cache: its connections in this process, and the exchanges on them."""

import asyncio
import inspect
import ssl
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any, Final, TypeVar

import redis.connection
from redis.asyncio.connection import SSLConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from storeroom.backends.redis import options as known
from storeroom.backends.redis.health import GroupBreaker
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.operations import key_bytes
from storeroom.backends.redis.pool import Pool, pack
from storeroom.backends.redis.replicas import Replicated
from storeroom.backends.redis.requests import (
    PRIMARIES,
    SUSPECTS,
    Batch,
    Command,
    Exchange,
    Outcome,
    Request,
    Use,
    any_turned_away,
)  # fmt: skip
from storeroom.backends.redis.rights import FirstLook
from storeroom.backends.redis.sentinel import Sentinel
from storeroom.backends.redis.sentinel_watch import SentinelWatch
from storeroom.backends.redis.stream import Login, Stream
from storeroom.backends.redis.topology import Cluster, Route, Single
from storeroom.backends.redis.tracking import Tracker
from storeroom.backends.redis.watching import is_watched
from storeroom.backends.served import NetworkEngine
from storeroom.backends.strangers import REDIS, TLS
from storeroom.engines.counts import total
from storeroom.exceptions import StorageError

__all__ = ["RedisEngine"]

T = TypeVar("T")

_RETRIES: Final = Retry(NoBackoff(), 0)
"""None: a server that is down is the circuit breaker's business."""

_NO_INTRODUCTION: Final = dict.fromkeys(
    {"driver_info"} & inspect.signature(redis.connection.AbstractConnection).parameters.keys()
    or {"lib_name", "lib_version"}  # as it was called before redis-py 8
)
"""Arguments that leave CLIENT SETINFO out, two round trips for each connection."""


class RedisEngine(NetworkEngine):
    """One pool per server for threads, and one stream per server and event loop for tasks."""

    def __init__(
        self, target: Target, replication: tuple[float, float | None], sentinel_options: dict[str, Any]
    ) -> None:
        super().__init__(target.name)
        self.target = target
        asked = (*target.sentinels, *target.servers)[0]
        self.spoken = TLS if asked.tls else REDIS, asked.host, asked.port
        self._options = dict(target.options)
        self._sentinels = frozenset(target.sentinels)
        self._sentinel_options = self._options | {"credential_provider": None} | sentinel_options
        self._topology = _topology_of(target, replication)
        self._topology.leave = self.leave
        if isinstance(self._topology, Sentinel):
            self._topology.moved = self.breaker.trust
        self._health = self._topology.health
        if self._health is not None:
            self.breaker = GroupBreaker(target.name)
        self._pools: dict[Server, Pool] = {}
        self._streams: dict[asyncio.AbstractEventLoop, dict[Server, Stream]] = {}
        self._inherited: list[Any] = []
        self.max_lag = replication[1]
        self.timeout: float = self._options["socket_timeout"]
        self.is_cluster = target.kind == "cluster"
        self._tracker: Tracker | None = None
        self._watch: SentinelWatch | None = None
        self.first_look = FirstLook(self.breaker.name, self._ask_apart, (redis.exceptions.RedisError, StorageError))

    def run(self, exchange: Exchange[T]) -> T:
        """Carry out an operation; return its result."""
        try:
            request = next(exchange)
            while True:
                try:
                    replies = self.call(request)
                except redis.exceptions.RedisError as error:  # limits.py looks into it
                    request = exchange.throw(error)
                else:
                    request = exchange.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def call(self, request: Request) -> list[Any]:
        """Carry out one request; return its replies."""
        topology = self._topology
        if topology.only is None or self._needs_route(request):
            self._listen_to_sentinels()
            return self._follow(topology.route(request))
        replies = self._pool(topology.only).exchange(request.commands, request.use)
        if SUSPECTS.isdisjoint(map(type, replies)) or not any_turned_away(replies):
            return replies
        return self._follow(topology.again(request, replies))

    def _listen_to_sentinels(self) -> None:
        """See to it that their next words are heard."""
        topology = self._topology
        if self._watch is None and isinstance(topology, Sentinel):
            with self.lock:
                self._watch = self._watch or SentinelWatch(
                    self.target.sentinels, self.target.service, self.connection, topology.hear, self.timeout
                )

    def _needs_route(self, request: Request) -> bool:
        """Tell it of a request to one server alone."""
        return request is PRIMARIES or (request.use is Use.READ and time.monotonic() >= self._topology.look_at)

    def _follow(self, route: Route) -> list[Any]:
        try:
            batches = next(route)
            while True:
                batches = route.send(self._exchange(batches))
        except StopIteration as stop:
            replies: list[Any] = stop.value
            return replies

    def _exchange(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Send all batches before the first reply is read, so that the servers work at the same time."""
        pools = [self._pool(batch.server) for batch in batches]
        if is_watched(batches[0].commands):
            return [
                _outcome(pool.exchange, batch.commands, batch.use) for pool, batch in zip(pools, batches, strict=True)
            ]
        packed = [pack(batch.commands) for batch in batches]
        outcomes: list[Any] = [None] * len(batches)

        def step(number: int, work: Callable[..., Any], *args: Any) -> None:
            held, outcomes[number] = outcomes[number], None
            if isinstance(held, Exception):
                outcomes[number] = held
            else:
                outcomes[number] = _outcome(work, *(() if held is None else (held,)), *args)

        try:
            # Everybody takes connections in the same order, so that no two wait for one that the other has.
            for number in sorted(range(len(batches)), key=lambda number: batches[number].server.name):
                step(number, pools[number].take)
            for number, batch in enumerate(batches):
                step(number, pools[number].send, packed[number], len(batch.commands), batch.use)
            for number, batch in enumerate(batches):
                step(number, pools[number].receive, batch.use)
        except BaseException:
            for pool, held in zip(pools, outcomes, strict=True):
                pool.release(held)
            raise
        return outcomes

    def _pool(self, server: Server) -> Pool:
        pool = self._pools.get(server)
        if pool is None:
            with self.lock:
                pool = self._pools.setdefault(server, self.new_pool(server))
            self.first_look.begin()
        return pool

    def new_pool(self, server: Server) -> Pool:
        """Return connections that no operation uses."""
        return Pool(
            f"Redis at {server.name}",
            lambda: self.connection(server),
            self._options["max_connections"],
            self._options["pool_timeout"],
            must_be_primary=server.must_be_primary,
        )

    def _ask_apart(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands to a server that takes writes, by a connection that nobody else uses."""
        (server, _), *_ = self.call(PRIMARIES)
        pool = self.new_pool(server)
        try:
            return pool.exchange(commands, Use.READ)
        finally:
            pool.close()

    def connection(self, server: Server) -> Any:
        """Return a connection of redis-py, not open yet."""
        kind, arguments = self.arguments(server)
        return kind(**arguments)

    def arguments(self, server: Server) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return redis-py's class of connections to a server, and its arguments."""
        kind: Callable[..., Any] = redis.connection.Connection
        if server.path:
            kind = redis.connection.UnixDomainSocketConnection
        elif server.tls:
            kind = redis.connection.SSLConnection
        return kind, self._connection_settings(server)

    def _connection_settings(self, server: Server) -> dict[str, Any]:
        """Return the arguments of redis-py's connection."""
        options = self._options_for(server)
        settings: dict[str, Any] = {"db": server.db, "retry": _RETRIES, "protocol": 2, **_NO_INTRODUCTION}
        settings |= {name: options[name] for name in ("client_name", "socket_timeout", "socket_connect_timeout")}
        if options["credential_provider"] is not None:
            settings["credential_provider"] = options["credential_provider"]
        else:
            settings |= {"username": server.username, "password": server.password}
        if server.path:
            return settings | {"path": server.path}
        settings |= {"host": server.host, "port": server.port, "socket_keepalive": options["socket_keepalive"]}
        return settings | (self._tls_settings(server) if server.tls else {})

    def _options_for(self, server: Server) -> dict[str, Any]:
        return self._sentinel_options if server in self._sentinels else self._options

    def _tls_settings(self, server: Server) -> dict[str, Any]:
        options = self._options_for(server)
        return {name: options[name] for name in known.TLS if options[name] is not None}

    def tracker(self) -> Tracker:
        """Return the channel that tells of changes in the servers."""
        with self.lock:
            self._tracker = self._tracker or Tracker(self, self.breaker.name)
            return self._tracker

    def sources(self) -> list[Server]:
        """See tracking.Source."""
        return self._follow(self._topology.sources())

    def goes_on_without(self, server: Server) -> bool:
        """See tracking.Source."""
        return self._topology.goes_on_without(server)

    def note_unheard(self, servers: Collection[Server]) -> None:
        """See tracking.Source."""
        self._topology.note_unheard(servers)

    def is_well(self, server: Server) -> bool:
        """See tracking.Source."""
        return self._health is None or not self._health.breaker(server).is_open

    async def arun(self, exchange: Exchange[T]) -> T:
        """See run()."""
        try:
            request = next(exchange)
            while True:
                try:
                    replies = await self.acall(request)
                except redis.exceptions.RedisError as error:  # as above
                    request = exchange.throw(error)
                else:
                    request = exchange.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def acall(self, request: Request) -> list[Any]:
        """See call()."""
        topology = self._topology
        if topology.only is None or self._needs_route(request):
            self._listen_to_sentinels()
            return await self._afollow(topology.route(request))
        replies = await self._stream(topology.only).exchange(request.commands, request.use)
        if SUSPECTS.isdisjoint(map(type, replies)) or not any_turned_away(replies):
            return replies
        return await self._afollow(topology.again(request, replies))

    async def _afollow(self, route: Route) -> list[Any]:
        try:
            batches = next(route)
            while True:
                batches = route.send(await self._aexchange(batches))
        except StopIteration as stop:
            replies: list[Any] = stop.value
            return replies

    async def _aexchange(self, batches: Sequence[Batch]) -> list[Outcome]:
        exchanges = (self._stream(batch.server).exchange(batch.commands, batch.use) for batch in batches)
        outcomes: list[Any] = await asyncio.gather(*exchanges, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, redis.exceptions.RedisError):
                raise outcome
        return outcomes

    def _stream(self, server: Server) -> Stream:
        loop = asyncio.get_running_loop()
        streams = self._streams.get(loop)
        if streams is None:
            with self.lock:
                for closed in [other for other in self._streams if other.is_closed()]:
                    del self._streams[closed]
                streams = self._streams[loop] = {}
        stream = streams.get(server)
        if stream is None:
            stream = streams[server] = Stream(server, self._login(server))
            self.first_look.begin()
        return stream

    def _login(self, server: Server) -> Login:
        options = self._options_for(server)
        provider = options["credential_provider"]
        return Login(
            connect_timeout=options["socket_connect_timeout"],
            timeout=options["socket_timeout"],
            client_name=options["client_name"],
            credentials=None if provider is None else provider.get_credentials,
            tls=lambda: self._tls_context(server),
        )

    def _tls_context(self, server: Server) -> ssl.SSLContext:
        """Return the context by which redis-py's own connection would be made."""
        context: ssl.SSLContext = SSLConnection(**self._tls_settings(server)).ssl_context.get()
        return context

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections alone: two processes cannot talk on one."""
        super().after_fork_in_child()
        self._topology.after_fork_in_child()
        # Kept, as a loop of the parent would be told if its streams were collected here.
        self._inherited.append(self._streams)
        self._pools, self._streams = {}, {}
        for listening in (self._tracker, self._watch):
            if listening is not None:
                listening.abandon()
        self._tracker = self._watch = None

    def counted(self) -> dict[str, Any]:
        """See Engine."""
        of_servers = 0 if self._health is None else self._health.openings
        return total(super().counted(), {"breaker_openings": of_servers})

    @property
    def peer(self) -> tuple[str, int] | None:
        """See NetworkEngine."""
        return None if self._health is not None or self.target.sentinels else super().peer

    @property
    def servers_down(self) -> int:
        """See Engine."""
        return super().servers_down + (0 if self._health is None else self._health.down)

    def _waits(self) -> dict[str, float]:
        return reduce(total, (pool.waits for pool in list(self._pools.values())), {})

    def setbacks(self, storage_key: str) -> int:
        """See NetworkEngine."""
        if self._health is None:
            return super().setbacks(storage_key)
        return self.refusals + self._health.breaker(self.owner(storage_key)).failures

    def is_down_for(self, storage_key: str) -> bool:
        """See NetworkEngine."""
        if self._health is None:
            return super().is_down_for(storage_key)
        return self._health.breaker(self.owner(storage_key)).is_open

    def owner(self, storage_key: str) -> Server:
        """Return the server that a key is written to, as far as that is known."""
        (owner,) = self._topology.owners([key_bytes(storage_key)])
        return owner

    def note_removal(self) -> None:
        """See NetworkEngine."""
        self._topology.note_removal()

    def renew(self) -> None:
        """See NetworkEngine; a stream opens another connection by itself."""
        for pool in list(self._pools.values()):
            pool.close()

    def leave(self, server: Server) -> None:
        """See tracking.Source."""
        if pool := self._pools.get(server):
            pool.close()
        running = _running_loop()
        for loop, streams in list(self._streams.items()):
            if stream := streams.get(server):
                with suppress(RuntimeError):  # the loop is closed, and its connections with it
                    stream.retire() if loop is running else loop.call_soon_threadsafe(stream.retire)
        if self._tracker is not None:
            self._tracker.renew()

    def close(self) -> None:
        """Close all connections that nobody uses. Running loops close theirs when they end."""
        tracker, self._tracker = self._tracker, None
        watch, self._watch = self._watch, None
        for listening in (tracker, watch):
            if listening is not None:
                listening.close()
        self.renew()


def _topology_of(target: Target, replication: tuple[float, float | None]) -> Single:
    if target.kind == "server" and len(target.servers) > 1:
        return Replicated(target, *replication)
    return {"server": Single, "sentinel": Sentinel, "cluster": Cluster}[target.kind](target)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def _outcome(work: Callable[..., Any], *args: Any) -> Any:
    try:
        return work(*args)
    except redis.exceptions.RedisError as error:
        return error
