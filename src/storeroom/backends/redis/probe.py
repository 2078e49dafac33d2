"""What the servers of a Redis cache say of themselves: see probes.py.

Of a single server, and of a primary with replicas, each is asked that LOCATION names. Sentinels
are asked for their primary, and servers of a cluster for all its primaries, which are asked too.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from storeroom.backends.redis.engine import RedisEngine
from storeroom.backends.redis.errors import checked
from storeroom.backends.redis.location import Server, Target
from storeroom.backends.redis.pool import Pool
from storeroom.backends.redis.requests import Command, Use
from storeroom.exceptions import StorageError
from storeroom.storage.probes import Endpoint, Memory, Probe, ServerProbe, measure, together

__all__ = ["endpoints", "probe"]

_OLDEST: Final = "6.0"
"""SET with KEEPTTL came with it: https://redis.io/docs/latest/commands/set/"""

_ROLES: Final = {b"master": "primary", b"slave": "replica", b"sentinel": "Sentinel"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A server's probe, and its replies to what else it was asked."""

    probe: ServerProbe
    replies: Sequence[Any] = ()


def endpoints(target: Target) -> tuple[Endpoint, ...]:
    """Return what is known of the servers without asking: of Sentinel, that the primary is beside them."""
    options = dict(target.options)
    if target.kind == "sentinel":
        (primary,) = target.servers
        beside = (replace(primary, host=sentinel.host, port=sentinel.port) for sentinel in target.sentinels)
        return tuple(_endpoint(server, options) for server in beside)
    return tuple(_endpoint(server, options) for server in target.servers)


def _endpoint(server: Server, options: Mapping[str, Any]) -> Endpoint:
    has_password: bool | None = bool(server.password or options["credential_provider"])
    if server.tls and options["ssl_certfile"] and not has_password:
        has_password = None  # a certificate of the client may be asked for in its place
    return Endpoint(server.name, server.host, server.tls, has_password)


def probe(engine: RedisEngine, seconds: float) -> Probe:
    """Ask the servers of an engine."""
    look = {"server": _look_at_servers, "sentinel": _look_by_sentinels, "cluster": _look_at_cluster}
    return Probe(tuple(look[engine.target.kind](engine, seconds)))


# Which servers ----------------------------------------------------------------------------


def _look_at_servers(engine: RedisEngine, seconds: float) -> list[ServerProbe]:
    servers = engine.target.servers
    expected = ["primary", *["replica"] * (len(servers) - 1)]
    first, *others = (answer.probe for answer in _ask_all(engine, servers, expected, seconds))
    if first.role == "replica" and not first.failure:
        first = replace(first, failure="it is a replica, which takes no writes", is_refusal=True)
    return [first, *others]


def _look_by_sentinels(engine: RedisEngine, seconds: float) -> list[ServerProbe]:
    target = engine.target
    (primary,) = target.servers
    roles = ["Sentinel"] * len(target.sentinels)
    question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service)
    sentinels = _ask_all(engine, target.sentinels, roles, seconds, question)
    named = dict.fromkeys(
        (host.decode(), int(port)) for answer in sentinels for host, port in filter(_is_address, answer.replies)
    )
    if not named:
        unknown = f"no Sentinel names the primary {target.service!r}"
        lost = ServerProbe(Endpoint(target.name), "primary", unknown, is_refusal=any(map(_has_answered, sentinels)))
        return [*(answer.probe for answer in sentinels), lost]
    primaries = [replace(primary, host=host, port=port) for host, port in named]
    asked = _ask_all(engine, primaries, ["primary"] * len(primaries), seconds)
    return [answer.probe for answer in (*sentinels, *asked)]


def _is_address(reply: Any) -> bool:
    return isinstance(reply, list) and len(reply) == 2  # noqa: PLR2004 -- host and port


def _has_answered(answer: _Answer) -> bool:
    return not answer.probe.failure


def _look_at_cluster(engine: RedisEngine, seconds: float) -> list[ServerProbe]:
    seeds = engine.target.servers
    asked = _ask_all(engine, seeds, [""] * len(seeds), seconds, ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
    found = dict.fromkeys(
        (host.decode() if host else seed.host, int(port))
        for seed, answer in zip(seeds, asked, strict=True)
        if answer.replies and isinstance(answer.replies[1], list)
        for _, _, (host, port, *_), *_ in answer.replies[1]
    )
    probes = [
        _as_seed(_with_state(answer), is_needed=not found or (seed.host, seed.port) in found)
        for seed, answer in zip(seeds, asked, strict=True)
    ]
    known = {(seed.host, seed.port) for seed in seeds}
    primaries = [replace(seeds[0], host=host, port=port) for host, port in found if (host, port) not in known]
    others = _ask_all(engine, primaries, ["primary"] * len(primaries), seconds)
    return [*probes, *(answer.probe for answer in others)]


def _with_state(answer: _Answer) -> ServerProbe:
    """Return the probe of a server, which has failed if its cluster has."""
    state = answer.replies[0] if answer.replies else b""
    if isinstance(state, ResponseError):
        return replace(answer.probe, failure=f"it is in no cluster ({state})", is_refusal=True)
    if isinstance(state, bytes) and state and b"cluster_state:ok" not in state:
        return replace(answer.probe, failure="it says that the cluster is down (cluster_state:fail)", is_refusal=True)
    return answer.probe


def _as_seed(probe: ServerProbe, *, is_needed: bool) -> ServerProbe:
    """Return the probe of a server that LOCATION names: one that is down is missed by nobody who finds the others."""
    if not probe.failure or probe.role:
        return probe
    return replace(probe, role="primary" if is_needed else "replica")


# Asking one -------------------------------------------------------------------------------


def _ask_all(
    engine: RedisEngine, servers: Sequence[Server], roles: Sequence[str], seconds: float, *more: Command
) -> list[_Answer]:
    works = [partial(_ask, engine, server, role, more) for server, role in zip(servers, roles, strict=True)]
    options = dict(engine.target.options)
    return [
        answer
        or _Answer(ServerProbe(_endpoint(server, options), role, f"no answer within {seconds:g} s", seconds=seconds))
        for server, role, answer in zip(servers, roles, together(works, seconds), strict=True)
    ]


def _ask(engine: RedisEngine, server: Server, role: str, more: Sequence[Command]) -> _Answer:
    begun = time.monotonic()
    unknown = ServerProbe(_endpoint(server, dict(engine.target.options)), role)
    pool = engine.pool_apart(server)
    try:
        info, told_role, *replies = pool.exchange([("INFO",), ("ROLE",), *more], Use.READ)
        if isinstance(info, AuthenticationError):
            raise info
        seconds = time.monotonic() - begun
        round_trips, clock_ahead = measure(lambda: checked(_one(pool, "PING")), lambda: _time(pool))
    except (RedisError, StorageError) as error:
        return _Answer(
            replace(unknown, failure=str(error), is_refusal=_is_refusal(error), seconds=time.monotonic() - begun)
        )
    finally:
        pool.close()
    facts = _facts(info)
    if isinstance(told_role, list) and told_role:
        role = _ROLES.get(told_role[0], role)
    found = replace(
        unknown,
        role=role,
        seconds=seconds,
        product="Valkey" if facts.get("server_name") == "valkey" or "valkey_version" in facts else "Redis",
        version=facts.get("valkey_version") or facts.get("redis_version", ""),
        oldest=_OLDEST,
        round_trips=round_trips,
        clock_ahead=clock_ahead,
        memory=_memory(facts) if role in {"", "primary"} else None,
    )
    return _Answer(found, replies)


def _one(pool: Pool, *command: str) -> Any:
    (reply,) = pool.exchange([command], Use.READ)
    return reply


def _time(pool: Pool) -> float | None:
    reply = _one(pool, "TIME")
    return None if isinstance(reply, Exception) else int(reply[0]) + int(reply[1]) / 1e6


def _is_refusal(error: BaseException) -> bool:
    """Tell whether the server itself said no: to the password, the database, or a command."""
    said_no = (AuthenticationError, ResponseError, StorageError)
    return isinstance(error, said_no) or isinstance(error.__cause__, said_no)


def _facts(info: Any) -> dict[str, str]:
    """Return what INFO tells; nothing where this user may not ask for it."""
    if not isinstance(info, bytes):
        return {}
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _memory(facts: Mapping[str, str]) -> Memory | None:
    """Return the server's bound and its policy. Source: https://redis.io/docs/latest/develop/reference/eviction/."""
    if "maxmemory" not in facts:
        return None
    policy = facts.get("maxmemory_policy", "")
    evicts: Literal["any", "expiring", "nothing"] = "any"
    if policy == "noeviction":
        evicts = "nothing"
    elif policy.startswith("volatile"):
        evicts = "expiring"
    return Memory(int(facts["maxmemory"]) or None, evicts, policy)
