"""Answers of a Memcached cache's servers about themselves: see probes.py."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from storeroom.backends.memcached.clients import Client
from storeroom.backends.memcached.engine import Server
from storeroom.backends.memcached.location import Address
from storeroom.storage.probes import Endpoint, Memory, Probe, ServerProbe, measure, together

__all__ = ["endpoints", "probe"]

_OLDEST: Final = "1.4"
"""Of 2009. The commands in use are older than any server that still runs."""

_MIDDLE: Final = 0.5
"""Seconds. The server tells whole ones, and so is this much later on average."""


def endpoints(addresses: Sequence[Address], options: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    """Return the servers as known without asking."""
    # A context may hold a certificate of the client, for a server that asks for one, and does not tell.
    is_encrypted = options.get("tls_context") is not None
    has_password = None if is_encrypted else bool(options.get("password"))
    return tuple(Endpoint(str(address), address.host, is_encrypted, has_password) for address in addresses)


def probe(
    servers: Sequence[Server], found: Sequence[Endpoint], outages: tuple[type[BaseException], ...], seconds: float
) -> Probe:
    """Ask the servers of a group."""
    works = [partial(_ask, server, endpoint, outages) for server, endpoint in zip(servers, found, strict=True)]
    answers = zip(found, together(works, seconds), strict=True)
    silent = f"no answer within {seconds:g} s"
    return Probe(
        tuple(answer or ServerProbe(endpoint, failure=silent, seconds=seconds) for endpoint, answer in answers)
    )


def _ask(server: Server, endpoint: Endpoint, outages: tuple[type[BaseException], ...]) -> ServerProbe:
    begun = time.monotonic()
    client = server.make()
    try:
        stats = client.stats()
        seconds = time.monotonic() - begun
        settings = client.stats(b"settings")
        round_trips, clock_ahead = measure(client.stats, lambda: _time(client))
    except outages as error:
        # libmemcached tells a refused login by its number 40.
        is_refusal = "AUTHENTICATION" in str(error).upper()
        return ServerProbe(endpoint, failure=str(error), is_refusal=is_refusal, seconds=time.monotonic() - begun)
    finally:
        client.close()
    version = stats.get(b"version", b"").decode("utf-8", "replace")
    found = ServerProbe(endpoint, seconds=seconds, round_trips=round_trips, clock_ahead=clock_ahead)
    return replace(found, product="Memcached", version=version, oldest=_OLDEST, memory=_memory(stats, settings))


def _time(client: Client) -> float | None:
    told = client.stats().get(b"time")
    return None if told is None else int(told) + _MIDDLE


def _memory(stats: Mapping[bytes, Any], settings: Mapping[bytes, Any]) -> Memory | None:
    """Return the server's bound. Source: https://github.com/memcached/memcached/blob/master/doc/protocol.txt."""
    if b"limit_maxbytes" not in stats:
        return None
    # pylibmc cannot ask for settings, and tells general facts instead: a number of evictions.
    evicts_nothing = settings.get(b"evictions") == b"off"
    policy = "started with -M" if evicts_nothing else "least recently used first"
    return Memory(int(stats[b"limit_maxbytes"]) or None, "nothing" if evicts_nothing else "any", policy)
