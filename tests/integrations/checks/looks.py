"""A look at the servers of one alias, as `storeroom check` takes it."""

from typing import Any

from storeroom import checks
from storeroom.checks import Context, Finding
from storeroom.storage.probes import Probe
from tests.servers.redis import RedisServer

__all__ = ["BARE", "DATABASE", "PYLIBMC", "PYMEMCACHE", "REDIS", "found", "ids", "look", "on", "url"]


REDIS = "storeroom.backends.redis.RedisCache"
PYMEMCACHE = "storeroom.backends.memcached.PyMemcacheCache"
PYLIBMC = "storeroom.backends.memcached.PyLibMCCache"
DATABASE = "storeroom.backends.db.DatabaseCache"

BARE = Context()


def on(backend: str, location: Any, **settings: Any) -> dict[str, Any]:
    """Return one alias with its other settings."""
    return {"default": {"BACKEND": backend, "LOCATION": location, "KEY_PREFIX": "shop"} | settings}


def look(caches: dict[str, Any], seconds: float = checks.PATIENCE) -> tuple[list[Finding], Probe]:
    """Return the findings, and the servers' answers."""
    probes = checks.probe(caches, context=BARE, seconds=seconds)
    return checks.run(caches, context=BARE, probes=probes), probes["default"]


def ids(caches: dict[str, Any], seconds: float = checks.PATIENCE) -> set[str]:
    """Return the findings' ids, without the name before the point."""
    return {finding.id.removeprefix("storeroom.") for finding in look(caches, seconds)[0]}


def found(identifier: str, caches: dict[str, Any], seconds: float = checks.PATIENCE) -> Finding:
    """Return the finding of an id."""
    findings, _ = look(caches, seconds)
    return next(finding for finding in findings if finding.id == f"storeroom.{identifier}")


def url(server: RedisServer, db: int = 0) -> str:
    return f"redis://127.0.0.1:{server.port}/{db}"
