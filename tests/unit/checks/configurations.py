"""Configurations that break a rule of `storeroom check`, and some close to them that do not."""

import json
import marshal
import os
import pickle
import ssl
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storeroom import checks
from storeroom.backends.locmem import LocMemCache
from storeroom.checks import Context
from storeroom.exceptions import InvalidCacheBackendError, StorageError
from storeroom.storage.probes import Endpoint, Memory, Probe, ServerProbe, TableProbe

LOCMEM = "storeroom.backends.locmem.LocMemCache"
FILE = "storeroom.backends.filebased.FileBasedCache"
DUMMY = "storeroom.backends.dummy.DummyCache"
REDIS = "django.core.cache.backends.redis.RedisCache"
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"
DATABASE = "django.core.cache.backends.db.DatabaseCache"

ROOMY = {"MAX_ENTRIES": 10_000}

BARE = Context(user_id=os.getuid())
"""Nothing is known but the user."""

REDIS_SERVER = "storeroom.backends.redis.RedisCache"
MEMCACHED_SERVER = "storeroom.backends.memcached.PyMemcacheCache"
PYLIBMC_SERVER = "storeroom.backends.memcached.PyLibMCCache"
DATABASE_SERVER = "storeroom.backends.db.DatabaseCache"

FAR = "redis://cache.example.org"
NEAR = "redis://127.0.0.1"

#: As a generator makes them.
SECRET = "c0G9vEoWqX5Zl1Ruy-8hK3mTdN7sPbAf"

SEVERAL = replace(BARE, several_processes="WEB_CONCURRENCY is 4")
SESSIONS = replace(BARE, sessions_alias="default")
IN_DJANGO = replace(BARE, in_django=True, has_secret_key=True)


class SubclassedMemory(LocMemCache):
    """A program's own."""


def hashed(key, key_prefix, version):
    """A KEY_FUNCTION that cannot be turned back."""
    return str(hash((key, key_prefix, version)))


def failing(key, key_prefix, version):
    """A KEY_FUNCTION that takes numbers only."""
    return f"{key_prefix}:{version}:{key:d}"


def on(backend: object, location: object = None, **settings: Any) -> dict[str, Any]:
    """One alias."""
    written: dict[str, Any] = {"BACKEND": backend}
    if location is not None:
        written["LOCATION"] = location
    return {"default": written | settings}


def pair(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two aliases, "default" and "other"."""
    return {"default": one["default"], "other": other["default"]}


@dataclass(frozen=True)
class Case:
    """A configuration in its surroundings that breaks a rule or keeps it. {tmp} is an empty directory."""

    id: str
    fires: bool
    caches: Any
    context: Context = BARE
    probe: Probe | None = None

    def __str__(self) -> str:
        return f"{self.id.rpartition('.')[2]}-{'fires' if self.fires else 'passes'}"


def broken(identifier: str, caches: Any, context: Context = BARE) -> Case:
    return Case(f"storeroom.{identifier}", True, caches, context)


def kept(identifier: str, caches: Any, context: Context = BARE) -> Case:
    return Case(f"storeroom.{identifier}", False, caches, context)


def told(identifier: str, fires: bool, probe: Probe, caches: Any = None) -> Case:
    """A case of a server's answer."""
    return Case(f"storeroom.{identifier}", fires, caches or on(REDIS_SERVER, NEAR), BARE, probe)


def server(host: str = "127.0.0.1", **facts: Any) -> Probe:
    """One server's answer: one that is all right, but for these facts."""
    known = {name: facts.pop(name) for name in ("is_encrypted", "has_password") if name in facts}
    endpoint = Endpoint(f"redis://{host}:6379", host, **known)
    return Probe((ServerProbe(endpoint, **{"product": "Redis", "version": "7.2.4", "oldest": "6.0"} | facts),))


def table(state: str, *, may_create: bool | None = True, columns: tuple[str, ...] = ("cache_key", "value")) -> Probe:
    return replace(server(), table=TableProbe("pages", "PostgreSQL (h:5432/shop)", state, may_create, columns))


def tiered(memory: str, storage: Any = None) -> dict[str, Any]:
    """A tiered cache, and the aliases that are its tiers."""
    tiers = {"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {"tiers": [memory, "storage"]}}
    storage = storage or on(REDIS_SERVER, "redis://h")["default"]
    return {"default": tiers, memory: on(LOCMEM)["default"], "storage": storage, "pages": tiers}


IN_TABLE = on(DATABASE_SERVER, "pages", OPTIONS={"url": "postgresql://127.0.0.1/shop"})
MADE_BY_HAND = on(DATABASE_SERVER, "pages", OPTIONS={"url": "postgresql://127.0.0.1/shop", "create_table": False})

CASES = [
    # A setting is wrong.
    broken("E001", on(LOCMEM, TIMEOUT="5 parsecs")),
    broken("E001", on(LOCMEM, TIMEOUTS=5)),
    broken("E001", on(LOCMEM, OPTIONS={"MAX_ENTRYS": 9})),
    broken("E001", on(LOCMEM, OPTIONS=[9])),
    broken("E001", on(LOCMEM, VERSION=-1)),
    broken("E001", on(LOCMEM, TIMEOUT=-1)),
    broken("E001", {"default": {"LOCATION": "x"}}),
    broken("E001", {"default": "locmem://"}),
    broken("E001", {}),
    broken("E001", {"other": {"BACKEND": LOCMEM}}),
    broken("E001", on(FILE)),
    broken("E001", on(REDIS, "redis://h", TIMEOUT="5 parsecs")),
    broken("E001", pair(on(LOCMEM, "x", TIMEOUT=1), on(LOCMEM, "x", TIMEOUT=2))),
    kept("E001", on(LOCMEM)),
    kept("E001", on(LOCMEM, TIMEOUT="5 minutes", OPTIONS={"max_entries": 9})),
    kept("E001", on(FILE, "{tmp}/cache")),
    # BACKEND cannot be imported.
    broken("E002", on("storeroom.backends.locmem.LockMemCache")),
    broken("E002", on("no.such.Module")),
    broken("E002", on(7)),
    kept("E002", on(LOCMEM)),
    kept("E002", on(LocMemCache)),
    kept("E002", on("django.core.cache.backends.locmem.LocMemCache")),
    kept("E002", on(REDIS, "redis://h"), replace(BARE, in_django=True)),
    # LOCATION belongs to another backend.
    broken("E003", on(FILE, "redis://127.0.0.1:6379/0")),
    broken("E003", on(FILE, "127.0.0.1:11211")),
    broken("E003", on(LOCMEM, "redis://127.0.0.1:6379/0")),
    broken("E003", on(LOCMEM, "127.0.0.1:11211")),
    broken("E003", on(LOCMEM, "file:///var/cache/app")),
    broken("E003", on(FILE, "file:///var/cache/app")),
    broken("E003", on(REDIS, "127.0.0.1:6379")),
    broken("E003", on(REDIS, "/var/cache/app")),
    broken("E003", on(REDIS, ["redis://a:6379", "b:6379"])),
    broken("E003", on(MEMCACHED, "redis://127.0.0.1:6379")),
    broken("E003", on(DATABASE, "/var/cache/app")),
    broken("E003", on(DATABASE, "127.0.0.1:11211")),
    kept("E003", on(FILE, "{tmp}/cache")),
    kept("E003", on(LOCMEM, "unique-snowflake")),
    kept("E003", on(REDIS, "redis://127.0.0.1:6379/0")),
    kept("E003", on(REDIS, "rediss://h:6379,redis://i:6379")),
    kept("E003", on(REDIS, "unix:///run/redis.sock")),
    kept("E003", on(REDIS, "redis+sentinel://a:26379,b:26379/mymaster/0")),
    kept("E003", on(REDIS, "rediss+cluster://a:6379,b:6379")),
    kept("E003", on(MEMCACHED, "127.0.0.1:11211;127.0.0.1:11212")),
    kept("E003", on(MEMCACHED, ["10.0.0.1:11211", "[::1]:11211"])),
    kept("E003", on(MEMCACHED, "/run/memcached.sock")),
    kept("E003", on(DATABASE, "my_cache_table")),
    kept("E003", on(DUMMY, "redis://127.0.0.1:6379")),
    broken("E003", on(REDIS, "postgresql://h/shop")),
    kept("E003", on(DATABASE_SERVER, "postgresql://h/shop")),
    kept("E003", on(DATABASE_SERVER, "mariadb+pymysql://h/shop")),
    kept("E003", on(DATABASE_SERVER, "sqlite:////var/cache/app/cache.sqlite3")),
    # A network file system.
    broken("E004", on(FILE, "/mnt/share/cache"), replace(BARE, mounts={Path("/"): "ext4", Path("/mnt/share"): "nfs4"})),
    broken("E004", on(FILE, "/home/a/cache"), replace(BARE, mounts={Path("/home"): "fuse.sshfs"})),
    kept("E004", on(FILE, "/mnt/shared/cache"), replace(BARE, mounts={Path("/"): "ext4", Path("/mnt/share"): "nfs4"})),
    kept("E004", on(FILE, "/mnt/a/b"), replace(BARE, mounts={Path("/mnt"): "cifs", Path("/mnt/a"): "ext4"})),
    kept("E004", on(LOCMEM, "/mnt/share"), replace(BARE, mounts={Path("/"): "nfs"})),
    # Local memory, several processes.
    broken("W001", on(LOCMEM), SEVERAL),
    broken("W001", on(SubclassedMemory), SEVERAL),
    kept("W001", on(LOCMEM)),
    kept("W001", on(FILE, "{tmp}/cache"), SEVERAL),
    kept("W001", on(DUMMY), SEVERAL),
    kept("W001", tiered("memory"), SEVERAL),
    kept("W001", tiered("memory", {"BACKEND": FILE, "LOCATION": "/var/cache/app"}), SEVERAL),
    kept(
        "W001",
        {**on(REDIS, "redis://h", OPTIONS={"ON_ERROR": "fallback:memory"}), "memory": on(LOCMEM)["default"]},
        SEVERAL,
    ),
    broken("W001", {**tiered("near"), "memory": on(LOCMEM, "other")["default"]}, SEVERAL),
    broken("W001", tiered("memory"), replace(SEVERAL, sessions_alias="memory")),
    broken("W001", {**tiered("default"), "default": on(LOCMEM)["default"]}, SEVERAL),
    # A path as LOCATION of local memory.
    broken("W002", on(LOCMEM, "/var/tmp/django_cache")),
    broken("W002", on(LOCMEM, "C:\\cache")),
    broken("W002", on(SubclassedMemory, "./cache")),
    kept("W002", on(LOCMEM, "unique-snowflake")),
    kept("W002", on(LOCMEM)),
    kept("W002", on(FILE, "{tmp}/cache")),
    # A table name.
    broken("W003", on(FILE, "my_cache_table")),
    broken("W003", on(LOCMEM, "my_cache_table")),
    broken("W003", on(REDIS, "django_cache_table")),
    kept("W003", on(DATABASE, "my_cache_table")),
    kept("W003", on(FILE, "{tmp}/my_cache_table")),
    kept("W003", on(LOCMEM, "tables")),
    # A timeout of zero.
    broken("W004", on(LOCMEM, TIMEOUT=0)),
    broken("W004", on(LOCMEM, TIMEOUT="0s")),
    broken("W004", on(REDIS, "redis://h", TIMEOUT=0)),
    kept("W004", on(LOCMEM, TIMEOUT=None)),
    kept("W004", on(LOCMEM, TIMEOUT=0.5)),
    kept("W004", on(LOCMEM)),
    kept("W004", on(DUMMY, TIMEOUT=0)),
    # No bound.
    broken("W005", on(FILE, "{tmp}/c", TIMEOUT=None, OPTIONS={"MAX_ENTRIES": None})),
    broken("W005", on(LOCMEM, TIMEOUT="52w", OPTIONS={"MAX_ENTRIES": None})),
    kept("W005", on(LOCMEM, TIMEOUT=None)),
    kept("W005", on(LOCMEM, TIMEOUT=None, OPTIONS={"MAX_ENTRIES": None, "max_bytes": "1GB"})),
    kept("W005", on(LOCMEM, TIMEOUT="30d", OPTIONS={"MAX_ENTRIES": None})),
    kept("W005", on(REDIS, "redis://h", TIMEOUT=None)),
    kept("W005", on(MEMCACHED, "h:11211", TIMEOUT=None)),
    # Few entries in files.
    broken("W006", on(FILE, "{tmp}/c")),
    broken("W006", on(FILE, "{tmp}/c", OPTIONS={"CULL_FREQUENCY": 3})),
    broken("W006", on(FILE, "{tmp}/c", OPTIONS={"max_bytes": "1GB"})),
    kept("W006", on(FILE, "{tmp}/c", OPTIONS={"MAX_ENTRIES": 300})),
    kept("W006", on(FILE, "{tmp}/c", OPTIONS={"max_entries": None})),
    kept("W006", on(LOCMEM)),
    # Culling all.
    broken("W007", on(LOCMEM, OPTIONS={"CULL_FREQUENCY": 0})),
    broken("W007", on(FILE, "{tmp}/c", OPTIONS={"cull_frequency": "0"})),
    kept("W007", on(LOCMEM, OPTIONS={"CULL_FREQUENCY": 3})),
    kept("W007", on(LOCMEM)),
    kept("W007", on(DUMMY, OPTIONS={"cull_frequency": 0})),
    # The removed class.
    broken("W008", on("django.core.cache.backends.memcached.MemcachedCache", "127.0.0.1:11211")),
    kept("W008", on(MEMCACHED, "127.0.0.1:11211")),
    # Colliding aliases.
    broken("W009", pair(on(LOCMEM), on(LOCMEM))),
    broken("W009", pair(on(LOCMEM, "x"), on(LocMemCache, "x"))),
    broken("W009", pair(on(FILE, "{tmp}/c"), on(FILE, "{tmp}/d/../c"))),
    broken("W009", pair(on(LOCMEM, KEY_PREFIX="a"), on(LOCMEM, KEY_PREFIX="a:1"))),
    broken("W009", pair(on(LOCMEM, KEY_PREFIX="a:1"), on(LOCMEM, KEY_PREFIX="a"))),
    broken("W009", pair(on(LOCMEM), on(LOCMEM, VERSION=2))),
    broken("W009", pair(on(LOCMEM, KEY_FUNCTION=hashed), on(LOCMEM, KEY_PREFIX="b"))),
    broken("W009", pair(on(LOCMEM), on(LOCMEM, KEY_PREFIX="b", KEY_FUNCTION=failing))),
    broken("W009", pair(on(REDIS, "redis://h/0"), on("django_redis.cache.RedisCache", "redis://h/0"))),
    kept("W009", pair(on(LOCMEM, "x"), on(LOCMEM, "y"))),
    kept("W009", pair(on(LOCMEM, KEY_PREFIX="a"), on(LOCMEM, KEY_PREFIX="b"))),
    kept("W009", pair(on(LOCMEM, KEY_PREFIX="a"), on(LOCMEM, KEY_PREFIX="a:b"))),
    kept("W009", pair(on(LOCMEM, KEY_PREFIX="a"), on(LOCMEM, KEY_PREFIX="ab"))),
    kept("W009", pair(on(LOCMEM), on(LOCMEM, KEY_PREFIX="1"))),
    kept("W009", pair(on(LOCMEM, "{tmp}"), on(FILE, "{tmp}"))),
    kept("W009", pair(on(DUMMY), on(DUMMY))),
    kept("W009", pair(on(REDIS, "redis://h", OPTIONS={"db": 0}), on(REDIS, "redis://h", OPTIONS={"db": 1}))),
    # No prefix on a server.
    broken("W010", on(REDIS, "redis://h")),
    broken("W010", on(MEMCACHED, "h:11211", KEY_PREFIX="")),
    kept("W010", on(REDIS, "redis://h", KEY_PREFIX="shop")),
    kept("W010", on(REDIS, "redis://h", KEY_FUNCTION=hashed)),
    kept("W010", on(FILE, "{tmp}/c")),
    kept("W010", on(DATABASE, "my_cache_table")),
    # Served folders.
    broken("W013", on(FILE, "/srv/www/shop/cache")),
    broken("W013", on(FILE, "/srv/shop/Static/cache")),
    broken("W013", on(FILE, "/srv/a/b"), replace(BARE, served_folders={"MEDIA_ROOT": Path("/srv/a")})),
    kept("W013", on(FILE, "/srv/www.example.org/cache")),
    kept("W013", on(FILE, "/srv/ab"), replace(BARE, served_folders={"MEDIA_ROOT": Path("/srv/a")})),
    kept("W013", on(LOCMEM, "www")),
    # A relative path.
    broken("W015", on(FILE, "cache")),
    broken("W015", on(FILE, "var/cache")),
    broken("W015", on(FILE, "./cache")),
    kept("W015", on(FILE, "cache"), replace(BARE, directory="/srv/shop")),
    kept("W015", on(FILE, "{tmp}/cache")),
    kept("W015", on(FILE, "~/cache")),
    kept("W015", on(FILE, "my_cache_table")),
    kept("W015", on(LOCMEM, "cache")),
    # Sessions.
    broken("W016", on(LOCMEM), SESSIONS),
    broken("W016", on(DUMMY), SESSIONS),
    kept("W016", on(FILE, "{tmp}/c"), SESSIONS),
    kept("W016", on(LOCMEM), replace(SESSIONS, sessions_alias="other")),
    kept("W016", on(LOCMEM)),
    broken("E001", on(REDIS_SERVER, NEAR, OPTIONS={"on_error": {"raed": "miss"}})),
    broken("E001", on(DATABASE_SERVER, "sqlite:///c.sqlite3", OPTIONS={"on_error": {"count": "nothing"}})),
    broken("E001", on(FILE, "{tmp}/c", OPTIONS={"on_error": {"read": "fallback:other"}})),
    kept("E001", on(FILE, "{tmp}/c", OPTIONS={"on_error": {"read": "raise", "count": "none"}})),
    broken("W028", on(REDIS_SERVER, NEAR), SESSIONS),
    broken("W028", on(MEMCACHED_SERVER, "h", OPTIONS={"on_error": "raise"}), SESSIONS),
    broken("W028", on(REDIS_SERVER, NEAR, OPTIONS={"on_error": {"count": "none"}}), SESSIONS),
    kept("W028", on(REDIS_SERVER, NEAR, OPTIONS={"on_error": "fallback:other"}), SESSIONS),
    kept("W028", on(REDIS_SERVER, NEAR), replace(SESSIONS, sessions_alias="other")),
    kept("W028", on(REDIS_SERVER, NEAR)),
    # Pickles that are read as they are.
    broken("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": pickle})),
    broken("E006", on(MEMCACHED_SERVER, "h", OPTIONS={"serializer": marshal})),
    kept("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": pickle, "secret": SECRET})),
    kept("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": pickle}), IN_DJANGO),
    kept("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": "pickle"})),
    kept("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": json})),
    kept("E006", on(REDIS_SERVER, NEAR, OPTIONS={"serializer": "json"})),
    kept("E006", on(FILE, "{tmp}/c", OPTIONS={"serializer": pickle})),
    # No secret.
    broken("W017", on(REDIS_SERVER, FAR)),
    broken("W017", on(MEMCACHED_SERVER, "10.0.0.7:11211")),
    broken("W017", on(DATABASE_SERVER, "postgresql://db.example.org/shop")),
    kept("W017", on(REDIS_SERVER, FAR, OPTIONS={"secret": SECRET})),
    kept("W017", on(REDIS_SERVER, FAR), IN_DJANGO),
    kept("W017", on(REDIS_SERVER, NEAR)),
    kept("W017", on(REDIS_SERVER, "unix:///run/redis.sock")),
    kept("W017", on(MEMCACHED_SERVER, ["localhost", "[::1]"])),
    kept("W017", on(DATABASE_SERVER, "postgresql:///shop?host=/run/postgresql")),
    kept("W017", on(FILE, "{tmp}/c")),
    # A secret that can be guessed.
    broken("W018", on(REDIS_SERVER, NEAR, OPTIONS={"secret": "aaaaaaaaaaaaaaaaaaaa"})),
    broken("W018", on(REDIS_SERVER, NEAR, OPTIONS={"secret": "please change me 8f3!Xq"})),
    broken("W018", on(REDIS_SERVER, NEAR, OPTIONS={"secret": "django-insecure-" + SECRET})),
    broken("W018", on(FILE, "{tmp}/c", OPTIONS={"secret": [SECRET, b"1234567812345678"]})),
    kept("W018", on(REDIS_SERVER, NEAR, OPTIONS={"secret": [SECRET, SECRET[::-1].encode()]})),
    kept("W018", on(REDIS_SERVER, NEAR, OPTIONS={"secret": "3f9c2b7a1e8d4f60"})),
    kept("W018", on(REDIS_SERVER, NEAR)),
    # Unsigned pickles.
    broken("W019", on(REDIS_SERVER, NEAR, OPTIONS={"read_unsigned_pickles": True})),
    kept("W019", on(REDIS_SERVER, NEAR, OPTIONS={"read_unsigned_pickles": "no"})),
    kept("W019", on(REDIS_SERVER, NEAR)),
    # Not encrypted.
    broken("W020", on(REDIS_SERVER, FAR)),
    broken("W020", on(REDIS_SERVER, "redis+sentinel://10.0.0.7/mymaster")),
    broken("W020", on(REDIS_SERVER, "redis+cluster://localhost,10.0.0.7")),
    broken("W020", on(PYLIBMC_SERVER, "10.0.0.7")),
    broken("W020", on(DATABASE_SERVER, "postgresql://u:p@h/shop?sslmode=disable")),
    kept("W020", on(REDIS_SERVER, NEAR)),
    kept("W020", on(REDIS_SERVER, FAR.replace("redis", "rediss", 1))),
    kept("W020", on(REDIS_SERVER, "unix:///run/redis.sock")),
    kept("W020", on(MEMCACHED_SERVER, "h", OPTIONS={"tls_context": ssl.create_default_context()})),
    kept("W020", on(DATABASE_SERVER, "postgresql://u:p@h/shop?sslmode=verify-full")),
    kept("W020", on(DATABASE_SERVER, "postgresql://u:p@h/shop")),  # only the server tells
    told("W020", True, server("h", is_encrypted=False), on(DATABASE_SERVER, "postgresql://u:p@h/shop")),
    told("W020", False, server("h", is_encrypted=True), on(DATABASE_SERVER, "postgresql://u:p@h/shop")),
    # No password.
    broken("W021", on(REDIS_SERVER, FAR)),
    broken("W021", on(REDIS_SERVER, f"rediss{FAR[5:]}")),
    broken("W021", on(MEMCACHED_SERVER, "h")),
    broken("W021", on(DATABASE_SERVER, "mysql://u@h/shop")),
    kept("W021", on(REDIS_SERVER, "redis://:hunter2@h")),
    kept("W021", on(REDIS_SERVER, FAR, OPTIONS={"password": "hunter2"})),
    kept("W021", on(REDIS_SERVER, f"rediss{FAR[5:]}", OPTIONS={"ssl_certfile": "/etc/shop.pem"})),
    kept("W021", on(REDIS_SERVER, NEAR)),
    kept("W021", on(PYLIBMC_SERVER, "h", OPTIONS={"binary": True, "username": "u", "password": "hunter2"})),
    kept("W021", on(DATABASE_SERVER, "postgresql://u@h/shop")),  # it may be in a file of PostgreSQL's
    told("W021", True, server("h", has_password=False), on(DATABASE_SERVER, "postgresql://u@h/shop")),
    # Out of reach.
    told("E007", True, server(failure="Connection refused")),
    told("E007", True, server(failure="Connection refused", role="primary")),
    told("E007", False, server()),
    told("E007", False, server(failure="wrong password", is_refusal=True)),
    told("W022", True, server(failure="Connection refused", role="replica")),
    told("W022", True, server(failure="Connection refused", role="Sentinel")),
    told("W022", False, server(failure="Connection refused", role="primary")),
    told("W022", False, server(role="replica")),
    # It says no.
    told("E008", True, server(failure="wrong password", is_refusal=True)),
    told("E008", True, Probe(error=StorageError("Python's SQLite is 3.7."))),
    told("E008", False, server(failure="Connection refused")),
    told("E002", True, Probe(error=InvalidCacheBackendError("LOCATION leads to PostgreSQL, whose driver is missing."))),
    # Too old.
    told("E009", True, server(version="5.0.14")),
    told("E009", True, server(version="10.5.9-MariaDB", oldest="10.6")),
    told("E009", False, server(version="10.11.2-MariaDB", oldest="10.6")),
    told("E009", False, server(version="6.0")),
    told("E009", False, server(version="unstable")),
    told("E009", False, server(version="")),
    # The table.
    told("E010", True, table("absent"), MADE_BY_HAND),
    told("E010", True, table("old"), MADE_BY_HAND),
    told("E010", True, table("absent", may_create=False), IN_TABLE),
    told("E010", False, table("absent"), IN_TABLE),
    told("E010", False, table("absent", may_create=None), IN_TABLE),
    told("E010", False, table("ready", may_create=False), MADE_BY_HAND),
    told("E011", True, table("foreign"), IN_TABLE),
    told("E011", False, table("ready"), IN_TABLE),
    told("E012", True, server(lacks=("+eval",), rights=("ACL", "SETUSER", "shop", "on", "~shop:*", "+eval"))),
    told("E012", False, server(rights=("ACL", "SETUSER", "shop", "on", "~shop:*", "+eval"))),
    told("W027", True, table("old"), IN_TABLE),
    told("W027", False, table("old"), MADE_BY_HAND),
    told("W027", False, table("ready"), IN_TABLE),
    # The server's memory.
    told("W023", True, server(memory=Memory(None, "nothing", "noeviction"))),
    told("W023", False, server(memory=Memory(2**30, "any", "allkeys-lru"))),
    told("W023", False, server()),
    told("W024", True, server(memory=Memory(2**30, "nothing", "noeviction"))),
    told("W024", True, server(memory=Memory(2**30, "expiring", "volatile-lru")), on(REDIS_SERVER, NEAR, TIMEOUT=None)),
    told("W024", False, server(memory=Memory(2**30, "expiring", "volatile-lru"))),
    told("W024", False, server(memory=Memory(2**30, "any", "allkeys-lru")), on(REDIS_SERVER, NEAR, TIMEOUT=None)),
    told("W024", False, server(memory=Memory(None, "nothing", "noeviction"))),
    # Slow.
    told("W025", True, server(round_trips=(0.001, 0.02, 0.03))),
    told("W025", False, server(round_trips=(0.001, 0.002, 3.0))),
    told("W025", False, server()),
    # Clocks.
    told("W026", True, server(clock_ahead=61.0)),
    told("W026", True, server(clock_ahead=-61.0)),
    told("W026", False, server(clock_ahead=-1.5)),
    told("W026", False, server()),
]

IN_DIRECTORIES = {"storeroom.E005", "storeroom.W011", "storeroom.W012", "storeroom.W014"}
"""Rules about directories that have to be made first: they have tests of their own."""


def placed(value: Any, directory: Path) -> Any:
    """Replace {tmp} by the directory."""
    if isinstance(value, dict):
        return {key: placed(inner, directory) for key, inner in value.items()}
    return value.replace("{tmp}", str(directory)) if isinstance(value, str) else value


def ids(caches: object, context: Context = BARE, **arguments: Any) -> set[str]:
    return {finding.id for finding in checks.run(caches, context=context, **arguments)}


def answers_of(case: Case) -> dict[str, Probe]:
    return {} if case.probe is None else {"default": case.probe}
