"""The caches that are measured on a Redis Cluster, and redis-py's client of clusters: see ``server_libraries``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import servers
from benchmarks.libraries import TIMEOUT, Library, fill_storeroom
from benchmarks.server_libraries import API, close_engine, fresh_params, leave, redis_set_many, site

__all__ = ["CLUSTER"]


def _open_storeroom(_: Path, __: int) -> Any:
    from storeroom.backends.redis import RedisCache

    return RedisCache(servers.redis_cluster(), fresh_params())


class ClusterFactory:
    """Makes the clients of django-redis's cache: it has none for clusters, and takes a site's."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Take no option."""

    def connect(self, url: str) -> Any:
        """Return a client of the cluster."""
        from redis.cluster import RedisCluster

        return RedisCluster.from_url(url)

    def disconnect(self, connection: Any) -> None:
        """Close a client."""
        connection.close()


def _open_django_redis(_: Path, __: int) -> Any:
    site()
    from django_redis.cache import RedisCache

    factory = f"{ClusterFactory.__module__}.{ClusterFactory.__qualname__}"
    return RedisCache(_first_url(), fresh_params(CONNECTION_FACTORY=factory))


def _open_redis_py(_: Path, __: int) -> Any:
    from redis.cluster import RedisCluster

    return RedisCluster.from_url(_first_url())


def _first_url() -> str:
    """Return the URL of one server, by which redis-py finds the others."""
    return f"redis://{servers.redis_cluster().partition('://')[2].partition(',')[0]}"


_MANY: Final = {"get_many", "set_many"}

CLUSTER: Final = (
    Library("Storeroom", "redis", _open_storeroom, API, fill_storeroom, close_engine, program="redis-server"),
    Library(
        "django-redis",
        "django_redis",
        _open_django_redis,
        {operation: code for operation, code in API.items() if operation not in _MANY},  # it asks for keys of one slot
        lambda cache, entries: [cache.set(key, value) for key, value in entries.items()],
        leave,
        program="redis-server",
    ),
    Library(
        "redis-py",
        "redis",
        _open_redis_py,
        {
            "get": "cache.get(key)",
            "set": f"cache.set(key, value, ex={TIMEOUT})",
            "get_many": "cache.mget_nonatomic(keys_of_batch)",
            "set_many": "redis_set_many(cache, batch)",
        },
        redis_set_many,
        lambda client: client.close(),
        program="redis-server",
    ),
)
"""Three primaries, each with a replica, on one machine."""
