"""The engine of a Redis cache: its connections in this process, and who carries requests on them."""

import inspect
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis.connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from storeroom.backends.network import NetworkEngine
from storeroom.backends.redis import options as known
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.pool import Pool
from storeroom.backends.redis.requests import PRIMARIES, Request, Steps
from storeroom.backends.redis.topology import Batch, Outcome, Route, topology_of

if TYPE_CHECKING:
    import asyncio

    from storeroom.backends.redis.stream import Login, Stream
    from storeroom.backends.redis.tracking import Tracker

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

    def __init__(self, target: Target, read_own_writes: float, sentinel_options: dict[str, Any]) -> None:
        super().__init__(target.name)
        self.target = target
        self._options = dict(target.options)
        self._sentinels = frozenset(target.sentinels)
        self._sentinel_options = sentinel_options
        self._topology = topology_of(target, read_own_writes)
        self._pools: dict[Server, Pool] = {}
        self._streams: dict[asyncio.AbstractEventLoop, dict[Server, Stream]] = {}
        self._inherited: list[Any] = []
        self.timeout: float = self._options["socket_timeout"]
        self.is_cluster = target.kind == "cluster"
        self._tracker: Tracker | None = None

    # Synchronous ----------------------------------------------------------------------------

    def run(self, steps: Steps[T]) -> T:
        """Carry an operation's requests; return its result."""
        try:
            request = next(steps)
            while True:
                request = steps.send(self.call(request))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def call(self, request: Request) -> list[Any]:
        """Carry one request; return its replies."""
        server = self._topology.only
        if server is not None and request is not PRIMARIES:
            return self._pool(server).exchange(request.commands, request.use)
        return self._follow(self._topology.route(request))

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
        sent = [_outcome(self._pool(batch.server).send, batch.commands, batch.use) for batch in batches]
        return [
            talk if isinstance(talk, Exception) else _outcome(self._pool(batch.server).receive, talk, batch.use)
            for batch, talk in zip(batches, sent, strict=True)
        ]

    def pool_apart(self, server: Server) -> Pool:
        """Return connections that no operation uses."""
        return self._make_pool(server)

    def _pool(self, server: Server) -> Pool:
        pool = self._pools.get(server)
        if pool is None:
            with self.lock:
                pool = self._pools.setdefault(server, self._make_pool(server))
        return pool

    def _make_pool(self, server: Server) -> Pool:
        return Pool(
            self._connection_maker(server),
            self._options["max_connections"],
            self._options_for(server)["socket_timeout"],
            must_be_primary=server.must_be_primary,
        )

    def _connection_maker(self, server: Server) -> Callable[[], Any]:
        settings = self._connection_settings(server)
        kind: Callable[..., Any] = redis.connection.Connection
        if server.path:
            kind = redis.connection.UnixDomainSocketConnection
        elif server.tls:
            kind = redis.connection.SSLConnection
        return lambda: kind(**settings)

    def _connection_settings(self, server: Server) -> dict[str, Any]:
        """Return the arguments of redis-py's connection."""
        options = self._options_for(server)
        settings: dict[str, Any] = {
            "db": server.db,
            "client_name": options["client_name"],
            "socket_timeout": options["socket_timeout"],
            "socket_connect_timeout": options["socket_connect_timeout"],
            "retry": _RETRIES,
            "protocol": 2,
            **_NO_INTRODUCTION,
        }
        provider = self._options["credential_provider"]
        if provider is not None and server not in self._sentinels:
            settings["credential_provider"] = provider
        else:
            settings |= {"username": server.username, "password": server.password}
        if server.path:
            return settings | {"path": server.path}
        settings |= {"host": server.host, "port": server.port, "socket_keepalive": options["socket_keepalive"]}
        return settings | (self._tls_settings(server) if server.tls else {})

    def _options_for(self, server: Server) -> dict[str, Any]:
        return self._options | self._sentinel_options if server in self._sentinels else self._options

    def _tls_settings(self, server: Server) -> dict[str, Any]:
        options = self._options_for(server)
        return {name: options[name] for name in known.TLS if options[name] is not None}

    # For near tiers -------------------------------------------------------------------------

    def tracker(self) -> "Tracker":
        """Return what tells of changes in the servers."""
        tracker = self._tracker
        if tracker is None:
            from storeroom.backends.redis.tracking import Tracker  # noqa: PLC0415 -- few programs need it

            with self.lock:
                tracker = self._tracker = self._tracker or Tracker(self, self.breaker.name)
        return tracker

    def sources(self) -> list[Server]:
        """See tracking.Source."""
        return self._follow(self._topology.sources())

    def connection(self, server: Server) -> Any:
        """See tracking.Source."""
        return self._connection_maker(server)()

    # Asynchronous ---------------------------------------------------------------------------

    async def arun(self, steps: Steps[T]) -> T:
        """See run()."""
        try:
            request = next(steps)
            while True:
                request = steps.send(await self.acall(request))
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def acall(self, request: Request) -> list[Any]:
        """See call()."""
        server = self._topology.only
        if server is not None and request is not PRIMARIES:
            return await self._stream(server).exchange(request.commands, request.use)
        route = self._topology.route(request)
        try:
            batches = next(route)
            while True:
                batches = route.send(await self._aexchange(batches))
        except StopIteration as stop:
            replies: list[Any] = stop.value
            return replies

    async def _aexchange(self, batches: Sequence[Batch]) -> list[Outcome]:
        import asyncio  # noqa: PLC0415 -- a synchronous program need not load it

        exchanges = (self._stream(batch.server).exchange(batch.commands, batch.use) for batch in batches)
        outcomes = await asyncio.gather(*exchanges, return_exceptions=True)
        return [_or_raise(outcome) for outcome in outcomes]

    def _stream(self, server: Server) -> "Stream":
        import asyncio  # noqa: PLC0415 -- as above

        loop = asyncio.get_running_loop()
        streams = self._streams.get(loop)
        if streams is None:
            with self.lock:
                for closed in [other for other in self._streams if other.is_closed()]:
                    del self._streams[closed]
                streams = self._streams[loop] = {}
        stream = streams.get(server)
        if stream is None:
            from storeroom.backends.redis.stream import Stream  # noqa: PLC0415 -- as above

            stream = streams[server] = Stream(server, self._login(server))
        return stream

    def _login(self, server: Server) -> "Login":
        from storeroom.backends.redis.stream import Login  # noqa: PLC0415 -- as above

        options, provider = self._options_for(server), self._options["credential_provider"]
        return Login(
            connect_timeout=options["socket_connect_timeout"],
            timeout=options["socket_timeout"],
            client_name=options["client_name"],
            credentials=None if provider is None or server in self._sentinels else provider.get_credentials,
            tls=lambda: self._tls_context(server),
        )

    def _tls_context(self, server: Server) -> ssl.SSLContext:
        """Return the context by which redis-py's own connection would be made."""
        from redis.asyncio.connection import SSLConnection  # noqa: PLC0415 -- as above

        context: ssl.SSLContext = SSLConnection(**self._tls_settings(server)).ssl_context.get()
        return context

    # Life -----------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections alone: two processes cannot talk on one."""
        super().after_fork_in_child()
        # Kept, as a loop of the parent would be told if its streams were collected here.
        self._inherited.append(self._streams)
        self._pools, self._streams = {}, {}
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.abandon()

    def close(self) -> None:
        """Close all connections that nobody uses; those of running loops are closed with their loops."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close()
        for pool in list(self._pools.values()):
            pool.close()


def _outcome(work: Callable[..., Any], *args: Any) -> Any:
    try:
        return work(*args)
    except redis.exceptions.RedisError as error:
        return error


def _or_raise(outcome: Any) -> Any:
    """Return what came of a batch, unless it is no failure of the server."""
    if isinstance(outcome, BaseException) and not isinstance(outcome, redis.exceptions.RedisError):
        raise outcome
    return outcome
