"""django-redis's class, side by side with ours: its members, its bytes in both directions, and its answers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.process import free_port
from tests.servers.redis import RedisServer, redis_binary

OURS, THEIRS = "storeroom.integrations.django_redis.RedisCache", "django_redis.cache.RedisCache"

PROGRAM = """
import datetime, decimal, json, sys
import django
from django.conf import settings
settings.configure(SECRET_KEY="for tests only" * 2, USE_TZ=False, **json.loads(sys.argv[1]))
django.setup()
from django.core.cache import caches
ours, theirs = caches["default"], caches["theirs"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(redis_binary(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


def run(program: str, directory: Path, port: int, *, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run a program in a Django project that has one database of a server by both classes; return its `result`."""
    alias = {"LOCATION": f"redis://127.0.0.1:{port}/1", "KEY_PREFIX": "p", "OPTIONS": options}
    caches = {"default": {**alias, "BACKEND": OURS}, "theirs": {**alias, "BACKEND": THEIRS}}
    written = json.dumps({"CACHES": caches, **(settings or {})})
    ran = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}{program}\nprint(json.dumps(result))", written],
        cwd=directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


MEMBERS = """
import inspect
from django_redis.client.default import DefaultClient
def members(cls):
    return {name for name, member in inspect.getmembers(cls) if not name.startswith("_")}
def parameters(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]
result = {
    "missing": sorted(members(type(theirs)) - members(type(ours))),
    "of the client": sorted(members(DefaultClient) - members(type(ours.client))),
    "unlike": {
        name: [parameters(getattr(DefaultClient, name)), parameters(getattr(type(ours.client), name))]
        for name in sorted(members(DefaultClient))
        if callable(getattr(DefaultClient, name)) and name not in {"reverse_key"}
        and parameters(getattr(type(ours.client), name, len))[:len(parameters(getattr(DefaultClient, name)))]
        != parameters(getattr(DefaultClient, name))
    },
    "of the cache": sorted(
        name for name in members(type(ours)) & members(DefaultClient) - {"make_key", "close"}
        if not set(parameters(getattr(DefaultClient, name))) <= set(parameters(getattr(type(ours), name)))
    ),
}
"""


@pytest.mark.slow
def test_every_member_is_there_with_its_arguments(server: RedisServer, tmp_path: Path) -> None:
    """The public members of django-redis's class and client, and the names and order of their arguments."""
    found = run(MEMBERS, tmp_path, server.port)
    assert found == {"missing": [], "of the client": [], "unlike": {}, "of the cache": []}


BOTH_WAYS = """
now = datetime.datetime(2024, 5, 1, 12, 30, 15, 7)
values = {
    "text": "héllo", "long": "x" * 5000, "bytes": "text", "int": 7, "big": 2**70, "float": 1.5, "bool": True,
    "none": None, "list": [1, "a", None, {"k": [2]}],
}
if not sys.argv[1].count("JSONSerializer") and not sys.argv[1].count("MSGPack"):
    values |= {"date": now, "tuple": (1, (2,)), "set": {1, 2}, "decimal": decimal.Decimal("1.25"), "day": now.date()}
if sys.argv[1].count("MSGPack"):
    del values["big"]
theirs.clear()
for key, value in values.items():
    ours.set(f"ours {key}", value)
    theirs.set(f"theirs {key}", value)
theirs.set("counter", 1)
ours.incr("counter", 2)
theirs.incr("counter", 3)
ours.sadd("s", "a", 1)
theirs.sadd("s", "a", "b")
ours.zadd("z", {"m": 1.5})
theirs.hset("h", "f", "v")
lock = theirs.lock("door")
lock.acquire()
result = [
    [key for key, value in values.items() if theirs.get(f"ours {key}") != value],
    [key for key, value in values.items() if ours.get(f"theirs {key}") != value],
    ours.get("counter") == theirs.get("counter") == 6,
    sorted(map(str, ours.smembers("s"))), ours.smembers("s") == theirs.smembers("s"),
    theirs.zscore("z", "m"), ours.hkeys("h"),
    ours.lock("door").acquire(blocking=False), ours.has_key("door"), ours.ttl("door"),
    sorted(ours.keys("ours t*")) == sorted(theirs.keys("ours t*")),
    ours.get_many(["theirs text", "ours int"]) == theirs.get_many(["theirs text", "ours int"]),
]
lock.release()
"""

KINDS = {
    "pickle": {},
    "json": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
    "msgpack": {"SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"},
    "zlib": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"},
    "gzip": {"COMPRESSOR": "django_redis.compressors.gzip.GzipCompressor"},
    "lzma": {"COMPRESSOR": "django_redis.compressors.lzma.LzmaCompressor"},
    "lz4": {"COMPRESSOR": "django_redis.compressors.lz4.Lz4Compressor"},
    "protocol 5": {"PICKLE_VERSION": 5},
    "highest protocol": {"PICKLE_VERSION": -1},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_reads_what_the_other_writes(server: RedisServer, tmp_path: Path, kind: str) -> None:
    """Values, counters, sets, hashes, locks and patterns, during a deployment in which both run."""
    found = run(BOTH_WAYS, tmp_path, server.port, **KINDS[kind])
    # A gzip file holds the time at which it was made: no member of the one is found by the other's bytes.
    score = None if kind == "gzip" else 1.5
    assert found == [[], [], True, ["1", "a", "b"], True, score, ["f"], False, True, None, True, True]


SAFE = """
import os
class Bomb:
    def __reduce__(self):
        return os.mkdir, ("bomb",)
theirs.set("bomb", Bomb())
ours.set("object", (1, datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)))
class Own:
    def __init__(self, x): self.x = x
ours.set("own", Own(7))
before = ours.get("bomb", "default"), os.path.exists("bomb")
result = [*before, ours.get("own").x, ours.get("object")[0]]
"""


@pytest.mark.slow
def test_no_pickle_runs_code(server: RedisServer, tmp_path: Path) -> None:
    """One that would is a miss; objects of the program's own classes are signed with Django's secret, and are read."""
    assert run(SAFE, tmp_path, server.port) == ["default", False, 7, 1]


ANSWERS = """
from django_redis import get_redis_connection
ours.clear()
client = get_redis_connection("default")
client.set("raw", 1)
ours.set("user:1", 1, 100)
ours.set("user:2", 2, None)
result = [
    type(client).__module__, client.get("raw").decode(), ours.client.get_client(write=False) is client,
    sorted(ours.iter_keys("user:*", 1000)), sorted(ours.keys("*")), ours.set("a", 1), ours.set("a", 2, nx=True),
    ours.set("b", 1, xx=True), ours.set("a", 3, xx=True), ours.delete_many(["a", "b"]), ours.ttl("user:1"),
    ours.ttl("user:2"),
    ours.expire_at("user:1", datetime.datetime.now() + datetime.timedelta(hours=1)), 3590 < ours.ttl("user:1") <= 3600,
    ours.incr("new", 5, ignore_key_check=True), ours.ttl("new"), ours.pexpire("new", 5000),
    ours.delete_pattern("user:*"),
    ours.get_or_set("g", lambda: 4), ours.set("q", 1, -1), ours.set("nothing", None), ours.get("nothing", "default"),
]
ours.clear()
result.append(client.dbsize())
"""


@pytest.mark.slow
def test_answers_are_django_rediss(server: RedisServer, tmp_path: Path) -> None:
    """The arguments in their order, what is returned, and redis-py's client on the alias's own settings."""
    found = run(ANSWERS, tmp_path, server.port)
    assert found == [
        "redis.client", "1", True, ["user:1", "user:2"], ["user:1", "user:2"], True, False,
        False, True, 1, 100, None,
        True, True,
        5, None, True, 2,
        4, False, True, None,
        0,
    ]  # fmt: skip


AWAY = """
import redis
def answer(call):
    try:
        return call()
    except redis.exceptions.ConnectionError as error:
        return "ConnectionError"
result = [answer(call) for call in (
    lambda: ours.get("k", "default"), lambda: ours.set("k", 1), lambda: ours.incr("n"), lambda: ours.clear(),
    lambda: ours.delete_pattern("*"), lambda: ours.get_many(["a"]), lambda: ours.keys("*"),
    lambda: ours.get_or_set("k", lambda: 5),
)]
"""


@pytest.mark.slow
@pytest.mark.parametrize("ignores", [True, False])
def test_an_outage_is_answered_as_there(tmp_path: Path, ignores: bool) -> None:
    """IGNORE_EXCEPTIONS lets counters, patterns and clear() return None; without it redis-py's error is raised."""
    found = run(AWAY, tmp_path, free_port(), IGNORE_EXCEPTIONS=ignores)
    if ignores:
        assert found == ["default", None, None, None, None, {}, None, 5]
    else:
        assert found == ["ConnectionError"] * 8


FULL = """
client = ours.client.get_client()
def answers(cache):
    client.config_set("maxmemory", "1")
    try:
        return [cache.set("k", 1), cache.add("k", 1), cache.set("k", 1, nx=True), cache.get("k")]
    finally:
        client.config_set("maxmemory", "0")
result = [answers(ours), answers(theirs)]
"""


@pytest.mark.slow
def test_a_full_server_is_ignored_as_there(server: RedisServer, tmp_path: Path) -> None:
    """IGNORE_EXCEPTIONS is also of writes for which the server has no room."""
    found, expected = run(FULL, tmp_path, server.port, IGNORE_EXCEPTIONS=True)
    assert found == expected == [None] * 4


@pytest.mark.slow
def test_shard_client_is_refused_by_name(server: RedisServer, tmp_path: Path) -> None:
    """Its keys are spread by a ring of hashes of its own: Redis Cluster is the way."""
    options = {"CLIENT_CLASS": "django_redis.client.ShardClient"}
    alias = {"BACKEND": OURS, "LOCATION": f"redis://127.0.0.1:{server.port}/1", "OPTIONS": options}
    failed = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps({"CACHES": {"default": alias}})],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "CLIENT_CLASS" in failed.stderr
    assert "redis+cluster://" in failed.stderr
