"""Answers of a Redis cache's servers about themselves: see probes.py.

All servers that LOCATION names are asked, and the primaries that Sentinels and servers of a cluster name.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from storeroom.backends.redis.engine import RedisEngine
from storeroom.backends.redis.location import Server
from storeroom.backends.redis.pool import Pool
from storeroom.backends.redis.replicas import facts_of
from storeroom.backends.redis.requests import Command, Use, checked, is_forbidden
from storeroom.backends.redis.rights import Rights
from storeroom.exceptions import StorageError
from storeroom.storage.probes import Endpoint, Memory, Probe, ServerProbe, measure, together

__all__ = ["probe"]

_OLDEST: Final = "6.0"
"""SET with KEEPTTL came with it: https://redis.io/docs/latest/commands/set/"""

_ROLES: Final = {b"master": "primary", b"slave": "replica", b"sentinel": "Sentinel"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """A server's probe, and its replies to the further questions."""

    probe: ServerProbe
    replies: Sequence[Any] = ()


def probe(engine: RedisEngine, rights: Rights, seconds: float) -> Probe:
    """Ask the servers of an engine; try the rights that a cache needs there."""
    look = {"server": _look_at_servers, "sentinel": _look_by_sentinels, "cluster": _look_at_cluster}
    return Probe(tuple(look[engine.target.kind](engine, rights, seconds)))


def _look_at_servers(engine: RedisEngine, rights: Rights, seconds: float) -> list[ServerProbe]:
    servers = engine.target.servers
    expected = ["primary", *["replica"] * (len(servers) - 1)]
    answers = _ask_all(engine, rights, servers, expected, seconds, ("INFO", "replication"), ("CLUSTER", "SLOTS"))
    first, *others = answers[0].probe, *(_judged(answer, engine.max_lag) for answer in answers[1:])
    if not first.failure and _is_of_cluster(answers[0]):
        failure = f"it holds a part of a cluster's keys alone.{engine.target.cluster_remedy()}"
        first = replace(first, failure=failure, is_refusal=True)
    elif first.role == "replica" and not first.failure:
        first = replace(first, failure="it is a replica, which takes no writes", is_refusal=True)
    return [first, *others]


def _is_of_cluster(answer: _Answer) -> bool:
    """Tell whether others than this server have a part of the slots."""
    slots = answer.replies[1] if len(answer.replies) > 1 else None
    return isinstance(slots, list) and len({tuple(primary[:2]) for _, _, primary, *_ in slots}) > 1


def _judged(answer: _Answer, max_lag: float | None) -> ServerProbe:
    """Return the probe of a server, which has failed as a replica whose link to its primary is broken."""
    facts = facts_of(answer.replies[0]) if answer.replies else {}
    if facts.get("master_link_status") != "down":
        return answer.probe
    read = "is read from, however old its entries are" if max_lag is None else "is left alone"
    return replace(answer.probe, failure=f"its link to its primary is broken (master_link_status:down): it {read}")


def _look_by_sentinels(engine: RedisEngine, rights: Rights, seconds: float) -> list[ServerProbe]:
    target = engine.target
    (primary,) = target.servers
    question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", target.service)
    sentinels = _ask_all(engine, rights, target.sentinels, ["Sentinel"] * len(target.sentinels), seconds, question)
    replies = (reply for answer in sentinels for reply in answer.replies if isinstance(reply, list))
    named = dict.fromkeys((host.decode(), int(port)) for host, port in replies)
    if not named:
        unknown = f"no Sentinel names the primary {target.service!r}"
        has_answered = any(not answer.probe.failure for answer in sentinels)
        lost = ServerProbe(Endpoint(target.name), "primary", unknown, is_refusal=has_answered)
        return [*(answer.probe for answer in sentinels), lost]
    primaries = [replace(primary, host=host, port=port) for host, port in named]
    asked = _ask_all(engine, rights, primaries, ["primary"] * len(primaries), seconds)
    return [answer.probe for answer in (*sentinels, *asked)]


def _look_at_cluster(engine: RedisEngine, rights: Rights, seconds: float) -> list[ServerProbe]:
    seeds = engine.target.servers
    asked = _ask_all(engine, rights, seeds, [""] * len(seeds), seconds, ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
    told = [
        engine.target.named(host.decode(), port) if host else replace(seed, port=port)
        for seed, answer in zip(seeds, asked, strict=True)
        if answer.replies and isinstance(answer.replies[1], list)
        for _, _, (host, port, *_), *_ in answer.replies[1]
    ]
    found = dict.fromkeys((server.host, server.port) for server in told)
    probes = [
        _seed_probe(answer, is_needed=not found or (seed.host, seed.port) in found)
        for seed, answer in zip(seeds, asked, strict=True)
    ]
    known = {(seed.host, seed.port) for seed in seeds}
    primaries = [replace(seeds[0], host=host, port=port) for host, port in found if (host, port) not in known]
    others = _ask_all(engine, rights, primaries, ["primary"] * len(primaries), seconds)
    return [*probes, *(answer.probe for answer in others)]


def _seed_probe(answer: _Answer, *, is_needed: bool) -> ServerProbe:
    """Return the probe of a server that LOCATION names, which has failed if its cluster has.

    It may be down, as a replica, where the others tell of the cluster.
    """
    probe, state = answer.probe, answer.replies[0] if answer.replies else b""
    if isinstance(state, ResponseError) and not is_forbidden(state):
        probe = replace(probe, failure=f"it is in no cluster ({state})", is_refusal=True)
    elif isinstance(state, bytes) and state and b"cluster_state:ok" not in state:
        probe = replace(probe, failure="it says that the cluster is down (cluster_state:fail)", is_refusal=True)
    if probe.failure and not probe.role:
        return replace(probe, role="primary" if is_needed else "replica")
    return probe


def _ask_all(
    engine: RedisEngine, rights: Rights, servers: Sequence[Server], roles: Sequence[str], seconds: float, *more: Command
) -> list[_Answer]:
    works = [partial(_ask, engine, rights, server, role, more) for server, role in zip(servers, roles, strict=True)]
    silent = f"no answer within {seconds:g} s"
    return [
        answer or _Answer(ServerProbe(engine.target.endpoint(server), role, silent, seconds=seconds))
        for server, role, answer in zip(servers, roles, together(works, seconds), strict=True)
    ]


def _ask(engine: RedisEngine, rights: Rights, server: Server, role: str, more: Sequence[Command]) -> _Answer:
    begun = time.monotonic()
    unknown = ServerProbe(engine.target.endpoint(server), role)
    pool = engine.new_pool(server)
    try:
        info, told_role, *replies = pool.exchange([("INFO",), ("ROLE",), *more], Use.READ)
        if isinstance(info, AuthenticationError):
            raise info
        seconds = time.monotonic() - begun
        if role != "Sentinel":
            lacks = rights.lacking(_role(told_role, role), partial(pool.exchange, use=Use.READ))
            unknown = replace(unknown, lacks=lacks, rights=rights.least())
        round_trips, clock_ahead = measure(lambda: _ping(pool), lambda: _time(pool))
    except (RedisError, StorageError) as error:
        seconds = time.monotonic() - begun
        return _Answer(replace(unknown, failure=str(error), is_refusal=_is_refusal(error), seconds=seconds))
    finally:
        pool.close()
    found = replace(unknown, seconds=seconds, round_trips=round_trips, clock_ahead=clock_ahead)
    return _Answer(_described(found, facts_of(info), told_role), replies)


def _described(found: ServerProbe, facts: Mapping[str, str], told_role: Any) -> ServerProbe:
    """Add the server's own facts to its probe."""
    role = _role(told_role, found.role)
    return replace(
        found,
        role=role,
        product="Valkey" if facts.get("server_name") == "valkey" or "valkey_version" in facts else "Redis",
        version=facts.get("valkey_version") or facts.get("redis_version", ""),
        oldest=_OLDEST,
        memory=_memory(facts) if role in {"", "primary"} else None,
    )


def _role(told: Any, expected: str) -> str:
    return _ROLES.get(told[0], expected) if isinstance(told, list) and told else expected


def _ping(pool: Pool) -> None:
    (reply,) = pool.exchange([("PING",)], Use.READ)
    if not is_forbidden(reply):  # that is a reply, too
        checked(reply)


def _time(pool: Pool) -> float | None:
    (reply,) = pool.exchange([("TIME",)], Use.READ)
    return None if isinstance(reply, Exception) else int(reply[0]) + int(reply[1]) / 1e6


def _is_refusal(error: BaseException) -> bool:
    """Tell whether the server itself said no: to the password, the database, or a command."""
    said_no = (AuthenticationError, ResponseError, StorageError)
    return isinstance(error, said_no) or isinstance(error.__cause__, said_no)


def _memory(facts: Mapping[str, str]) -> Memory | None:
    """Return the server's bound and its policy. Source: https://redis.io/docs/latest/develop/reference/eviction/."""
    if "maxmemory" not in facts:
        return None
    policy = facts.get("maxmemory_policy", "")
    evicts: Literal["any", "expiring", "nothing"] = "expiring" if policy.startswith("volatile") else "any"
    return Memory(int(facts["maxmemory"]) or None, "nothing" if policy == "noeviction" else evicts, policy)
