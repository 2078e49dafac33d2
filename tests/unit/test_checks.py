"""Each rule of `storeroom check`, both ways: a configuration that breaks it, and one close to it that does not."""

import json
import marshal
import os
import pickle
import re
import ssl
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom import checks, manual
from storeroom.backends.filebased import FileBasedCache
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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_finds_its_mistake_alone(case, tmp_path):
    """A rule finds the configuration that breaks it, and passes one that is close to it."""
    found = ids(placed(case.caches, tmp_path), case.context, probes=answers_of(case))
    assert (case.id in found) is case.fires, f"found {sorted(found)}"


def test_every_rule_is_tested_both_ways():
    """Each rule has a case that breaks it and a case that keeps it."""
    for fires in (True, False):
        tested = {case.id for case in CASES if case.fires is fires}
        assert tested | IN_DIRECTORIES == set(checks.RULES)


# Directories ------------------------------------------------------------------------------


@pytest.fixture
def cache_directory(tmp_path):
    """A directory in which a file cache has been used: the entries lie in one below it."""
    directory = tmp_path / "cache"
    FileBasedCache(str(directory), {}).set("key", "value")
    return directory


def in_files(directory: Path) -> dict[str, Any]:
    return on(FILE, str(directory), OPTIONS=ROOMY)


def test_a_directory_that_storeroom_made_has_nothing_wrong(cache_directory):
    """A directory made by a file cache yields no finding."""
    assert ids(in_files(cache_directory)) == set()


def test_a_directory_that_is_not_there_yet_has_nothing_wrong(tmp_path):
    """A directory that does not exist yet yields no finding."""
    assert ids(in_files(tmp_path / "a" / "b")) == set()


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_entries_that_others_can_read_are_found(cache_directory, mode):
    """A directory of entries with rights for others is found, with the chmod that mends it."""
    (entries,) = cache_directory.iterdir()
    entries.chmod(mode)
    (finding,) = checks.run(in_files(cache_directory), context=BARE)
    assert finding.id == "storeroom.W011"
    assert finding.command == f"chmod 700 {entries}"


def test_a_readable_location_shows_nothing_of_the_entries(cache_directory):
    """A readable LOCATION is no finding, since the entries lie in a private directory within."""
    cache_directory.chmod(0o755)
    assert ids(in_files(cache_directory)) == set()


def test_entries_of_another_user_are_found(cache_directory):
    """A directory of entries that belongs to another user is found."""
    assert ids(in_files(cache_directory), replace(BARE, user_id=os.getuid() + 1)) == {"storeroom.E005"}


def test_a_location_that_everybody_may_write_is_found(cache_directory):
    """A LOCATION that everybody may write to is found."""
    cache_directory.chmod(0o1777)
    assert ids(in_files(cache_directory)) == {"storeroom.W012"}


def test_a_location_that_a_group_may_write_is_left_alone(cache_directory):
    """A LOCATION with rights for its group is no finding: many systems give each user a group."""
    cache_directory.chmod(0o770)
    assert ids(in_files(cache_directory)) == set()


def test_modes_are_not_looked_at_where_there_are_no_users(cache_directory):
    """On a system without user ids, modes of directories yield no finding."""
    cache_directory.chmod(0o777)
    assert ids(in_files(cache_directory), Context(user_id=None)) == set()


@pytest.fixture
def work_tree(tmp_path):
    """A git work tree with a package in it."""
    (tmp_path / "shop" / ".git").mkdir(parents=True)
    (tmp_path / "shop" / "app").mkdir()
    (tmp_path / "shop" / "app" / "__init__.py").touch()
    return tmp_path / "shop"


@pytest.mark.parametrize("path", ["cache", "var/cache", "app", "app/cache"])
def test_a_directory_among_source_code_is_found(work_tree, path):
    """A cache directory within a git work tree is found."""
    assert ids(in_files(work_tree / path)) == {"storeroom.W014"}


@pytest.mark.parametrize(
    ("gitignore", "found"),
    [
        ("/var/\n", False),
        ("var\n", False),
        ("# the cache\n*.pyc\nvar/cache\n", False),
        ("cache/\n", False),
        ("*.pyc\nvariable\nar/cache\n", True),
    ],
)
def test_a_directory_that_git_ignores_is_left_alone(work_tree, gitignore, found):
    """A cache directory within a work tree is no finding if .gitignore names it or a folder above it."""
    (work_tree / ".gitignore").write_text(gitignore, "utf-8")
    assert ("storeroom.W014" in ids(in_files(work_tree / "var" / "cache"))) is found


def test_a_directory_may_ignore_itself(work_tree):
    """A cache directory with a .gitignore of its own is no finding."""
    (work_tree / "cache").mkdir()
    (work_tree / "cache" / ".gitignore").write_text("*\n", "utf-8")
    assert ids(in_files(work_tree / "cache")) == set()


def test_a_link_out_of_the_work_tree_is_followed(work_tree, tmp_path):
    """A link to a directory outside the work tree is no finding."""
    (work_tree / "cache").symlink_to(tmp_path / "elsewhere")
    assert ids(in_files(work_tree / "cache")) == set()


def test_checks_make_and_change_nothing(tmp_path):
    """Running the checks creates nothing on disk."""
    checks.run(in_files(tmp_path / "cache"), context=BARE)
    assert list(tmp_path.iterdir()) == []


# Surroundings of a configuration ----------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "processes", "evidence"),
    [
        ({}, None, ""),
        ({}, 1, ""),
        ({}, 3, "3 processes serve the site"),
        ({"WEB_CONCURRENCY": "4"}, None, "WEB_CONCURRENCY is 4"),
        ({"WEB_CONCURRENCY": "4"}, 1, ""),
        ({"WEB_CONCURRENCY": "1"}, None, ""),
        ({"WEB_CONCURRENCY": "many"}, None, ""),
        ({"UWSGI_WORKERS": "2"}, None, "UWSGI_WORKERS is 2"),
        ({"GUNICORN_CMD_ARGS": "--bind 0.0.0.0 --workers=3"}, None, "GUNICORN_CMD_ARGS asks for 3 workers"),
        ({"GUNICORN_CMD_ARGS": "-w 5"}, None, "GUNICORN_CMD_ARGS asks for 5 workers"),
        ({"GUNICORN_CMD_ARGS": "-w5 -w 1"}, None, ""),
        ({"GUNICORN_CMD_ARGS": "--worker-class gthread"}, None, ""),
    ],
)
def test_several_processes_are_known_by_evidence(environ, processes, evidence):
    """Several processes are inferred from the environment, unless the number of processes is given."""
    assert Context.here(environ, processes=processes).several_processes == evidence


def test_this_machine_tells_mounts_and_user():
    """The context of this machine has the user's id and the mount points."""
    context = Context.here({})
    assert context.user_id == os.getuid()
    if Path("/proc/self/mounts").exists():
        assert Path("/proc") in context.mounts or Path("/") in context.mounts


def test_mount_points_are_unescaped(monkeypatch, tmp_path):
    """A mount point with an escaped space is read; broken lines and a missing file are skipped."""
    mounts = tmp_path / "mounts"
    mounts.write_text("host:/export /mnt/my\\040share nfs4 rw 0 0\nbroken line\n", "utf-8")
    monkeypatch.setattr("storeroom.checks.context._MOUNTS", mounts)
    assert Context.here({}).mounts[Path("/mnt/my share")] == "nfs4"
    monkeypatch.setattr("storeroom.checks.context._MOUNTS", tmp_path / "absent")
    assert Context.here({}).mounts == {}


def test_django_settings_are_evidence():
    """Django's settings give the sessions' alias, the served folders, and the hint at several processes."""
    settings = SimpleNamespace(
        DEBUG=False,
        INSTALLED_APPS=[],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_CACHE_ALIAS="sessions",
        MEDIA_ROOT="/srv/media-files",
        STATIC_ROOT=None,
        STATICFILES_DIRS=[Path("/srv/a"), ("prefix", "/srv/b")],
    )
    context = BARE.with_settings(settings)
    assert "DEBUG is False" in context.several_processes
    assert context.sessions_alias == "sessions"
    assert context.served_folders == {
        "MEDIA_ROOT": Path("/srv/media-files"),
        "STATICFILES_DIRS[0]": Path("/srv/a"),
        "STATICFILES_DIRS[1]": Path("/srv/b"),
    }
    assert context.in_django


def test_a_plain_module_is_no_evidence():
    """A module with nothing but CACHES leaves the context unchanged."""
    assert BARE.with_settings(SimpleNamespace(CACHES={})) == BARE


def test_stronger_evidence_stays():
    """A number of workers in the environment is kept when settings say DEBUG is False."""
    assert SEVERAL.with_settings(SimpleNamespace(DEBUG=False)).several_processes == "WEB_CONCURRENCY is 4"


def test_other_session_engines_keep_sessions_elsewhere():
    """A session engine other than cache gives no sessions alias."""
    settings = SimpleNamespace(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
    assert BARE.with_settings(settings).sessions_alias is None


def test_in_django_its_own_classes_are_not_ours():
    """Within Django, aliases on Django's own classes yield findings only where these are certain."""
    context = replace(BARE, in_django=True, several_processes="WEB_CONCURRENCY is 4")
    theirs = "django.core.cache.backends"
    caches = {
        "default": {"BACKEND": f"{theirs}.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRYS": 9}},
        "files": {"BACKEND": f"{theirs}.filebased.FileBasedCache", "LOCATION": "relative"},
        "table": {"BACKEND": f"{theirs}.db.DatabaseCache", "LOCATION": "t", "TIMEOUT": "wrong"},
    }
    assert ids(caches, context) == {"storeroom.W001"}


# Findings ---------------------------------------------------------------------------------


def test_every_mistake_of_an_alias_is_found():
    """Four wrong settings of one alias are four findings."""
    found = checks.run(on(LOCMEM, TIMEOUT="x", VERSION="y", OPTIONS={"a": 1, "max_entries": -1}), context=BARE)
    assert len(found) == 4
    assert {finding.id for finding in found} == {"storeroom.E001"}


def test_a_wrong_location_hides_nothing_else():
    """An empty LOCATION is reported together with the other mistakes of its alias."""
    found = ids(on(FILE, "", TIMEOUT=0))
    assert found == {"storeroom.E001", "storeroom.W004", "storeroom.W006"}


def test_errors_come_first_then_the_aliases_in_their_order():
    """Errors precede warnings, and warnings follow the order of the aliases in CACHES."""
    caches = {
        "default": {"BACKEND": LOCMEM, "TIMEOUT": 0, "OPTIONS": {"CULL_FREQUENCY": 0}},
        "b": {"BACKEND": LOCMEM, "LOCATION": "/b"},
        "a": {"BACKEND": "no.such.Class"},
    }
    found = [(finding.id[10:], finding.alias) for finding in checks.run(caches, context=BARE)]
    assert found == [("E002", "a"), ("W004", "default"), ("W007", "default"), ("W002", "b")]


def test_silenced_ids_are_left_out():
    """A silenced id is left out; the others are reported."""
    assert ids(on(LOCMEM, "/x", TIMEOUT=0), silenced=["storeroom.W004"]) == {"storeroom.W002"}


def test_context_is_that_of_this_machine_by_default(monkeypatch):
    """Without a given context, the environment of this process counts."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert {finding.id for finding in checks.run(on(LOCMEM))} == {"storeroom.W001"}


@pytest.mark.parametrize(
    ("word", "identifier"),
    [("W001", "storeroom.W001"), ("storeroom.E001", "storeroom.E001"), ("w001", "storeroom.W001"), ("W999", None)],
)
def test_ids_may_be_abbreviated(word, identifier):
    """A short id, in either case, expands to the full id; an unknown one to None."""
    assert checks.full_id(word) == identifier


def test_no_finding_shows_a_password():
    """No finding quotes a password or secret from a URL or an option."""
    caches = pair(
        on(
            FILE, "redis://app:hunter2@db:6379/0?password=hunter2", OPTIONS={"secret": "hunter2", "password": "hunter2"}
        ),
        on(REDIS, ["redis://app:hunter2@db:6379/0", "/path"]),
    )
    found = checks.run(caches, context=BARE)
    assert {"storeroom.E001", "storeroom.E003"} <= {finding.id for finding in found}
    assert "hunter2" not in str([finding.as_dict() for finding in found])


@pytest.fixture
def fired(tmp_path):
    """A finding of every rule that the table breaks, and more."""
    return [
        finding
        for case in CASES
        if case.fires
        for finding in checks.run(placed(case.caches, tmp_path), context=case.context, probes=answers_of(case))
    ]


def test_every_finding_is_written_in_sentences(fired):
    """Each finding has a well-formed id, a level to match, and texts that are whole sentences."""
    for finding in fired:
        assert re.fullmatch(r"storeroom\.[EW]\d{3}", finding.id)
        assert finding.level == {"E": "error", "W": "warning"}[finding.id[10]]
        for text in (finding.what, finding.rule.why):
            assert not text[0].islower()
            assert text.endswith((".", "?", "'"))
        assert not finding.rule.title.endswith(".")
        assert finding.remedy == "" or finding.remedy[-1] in ".:?"


def test_snippets_are_valid_in_both_languages(fired):
    """The snippet of a finding parses, as Python and as TOML, to the mended settings."""
    for finding in fired:
        if finding.mended:
            assert eval("{" + finding.snippet() + "}") == finding.mended
            parsed = tomllib.loads(finding.toml_snippet())["caches"]
            if "TIMEOUT" not in str(finding.mended):
                assert parsed == finding.mended


def test_a_mended_setting_mends(tmp_path):
    """A configuration with the recommended settings no longer has the finding, and has no new one."""
    for case in CASES:
        if not case.fires:
            continue
        caches = placed(case.caches, tmp_path)
        before = checks.run(caches, context=case.context)
        for finding in before:
            if finding.id != case.id or not finding.mended:
                continue
            mended = {**caches, **{name: caches[name] | change for name, change in finding.mended.items()}}
            after = {(each.id, each.alias) for each in checks.run(mended, context=case.context)}
            assert (finding.id, finding.alias) not in after, finding.what
            # Not the fault of the remedy: a directory that this user cannot write to, a secret that the user has
            # to choose, and further mistakes about a server that could not be made out before.
            excused = {f"storeroom.{rule}" for rule in ("E001", "E002", "W010", "W017", "W018", "W020", "W021")}
            new = after - {(each.id, each.alias) for each in before}
            assert {each for each in new if each[0] not in excused} == set(), finding.what


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.sampled_from(
    [LOCMEM, FILE, DUMMY, REDIS, MEMCACHED, DATABASE, "django.core.cache.backends.x.Y", LocMemCache]
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "BACKEND": PATHS | ANYTHING,
        "LOCATION": st.sampled_from(["/a", "b", "redis://u:p@[::1]:x/0", "~nobody/x", "C:\\", "t_table"]) | ANYTHING,
        "TIMEOUT": ANYTHING,
        "KEY_PREFIX": ANYTHING,
        "VERSION": ANYTHING,
        "KEY_FUNCTION": st.sampled_from([hashed, failing, "a.b"]) | ANYTHING,
        "OPTIONS": st.dictionaries(st.sampled_from(["MAX_ENTRIES", "max_bytes", "CULL_FREQUENCY", "db"]), ANYTHING)
        | ANYTHING,
        "TIMOUT": ANYTHING,
    },
)


@settings(deadline=None, max_examples=200)
@given(
    caches=st.dictionaries(st.sampled_from(["default", "other", "a:1", ""]), SETTINGS | ANYTHING, max_size=3),
    context=st.sampled_from([BARE, SEVERAL, SESSIONS, replace(BARE, in_django=True)]),
)
def test_any_configuration_is_checked_without_a_crash(caches, context):
    """Arbitrary CACHES yield findings with known ids and printable snippets, and no exception."""
    for finding in checks.run(caches, context=context):
        assert finding.as_dict()["id"] in checks.RULES
        finding.snippet()
        finding.toml_snippet()


def test_a_finding_as_a_dict_tells_everything():
    """as_dict() of a finding holds its rule, its alias, its remedy and the mended settings."""
    (finding,) = checks.run(on(LOCMEM, TIMEOUT=0), context=BARE)
    assert finding.as_dict() == {
        "level": "warning",
        "id": "storeroom.W004",
        "title": "A TIMEOUT of 0 stores nothing",
        "why": finding.rule.why,
        "alias": "default",
        "what": "TIMEOUT is 0.",
        "remedy": finding.remedy,
        "mended": {"default": {"TIMEOUT": None}},
        "command": "",
        "docs": "docs/common-mistakes.md#w004",
        "url": manual.address("docs/common-mistakes.md#w004"),
    }
