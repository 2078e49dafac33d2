"""Serializers, compressors and secrets on real servers: values written by one configuration and read by another."""

import asyncio
import datetime as dt
import decimal
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.base import BaseCache
from storeroom.exceptions import SerializationError
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.memcached import memcached, needs_pylibmc
from tests.servers.redis import redis_databases
from tests.wire_formats.classes import Point

__all__ = ["memcached", "redis_databases"]

Open: TypeAlias = Callable[..., BaseCache]

OLD, NEW = "the old secret of this test", "the new secret of this test"


@pytest.fixture(params=["redis", "pymemcache", pytest.param("pylibmc", marks=needs_pylibmc)])
def open_cache(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Make handles of one storage, each with OPTIONS of its own."""
    backend: Any = {"redis": RedisCache, "pymemcache": PyMemcacheCache, "pylibmc": PyLibMCCache}[request.param]
    if request.param == "redis":
        location = request.getfixturevalue("redis_databases").url()
    else:
        location = request.getfixturevalue("memcached").location()
    with engines_of_its_own():
        yield lambda **options: backend(location, {"TIMEOUT": None, "OPTIONS": options})


REVERSED = "tests.wire_formats.classes.Reversed"


class Backwards:
    """A serializer, and a compressor, of a program's own: text, from its end to its beginning."""

    def __repr__(self) -> str:
        return "Backwards()"  # in the names of tests, which are to be the same in each process

    def dumps(self, value: Any) -> bytes:
        return repr(value)[::-1].encode()

    def loads(self, data: bytes) -> Any:
        import ast

        return ast.literal_eval(data.decode()[::-1])

    def compress(self, data: bytes) -> bytes:
        return data.replace(b"again " * 50, b"\xfe\xff")

    def decompress(self, data: bytes) -> bytes:
        return data.replace(b"\xfe\xff", b"again " * 50)


PLAIN = {"a": [1, 2.5, None, True, "Grüße"], "b": {"c": "again " * 1000}}

CODECS: list[dict[str, Any]] = [
    *(
        {"serializer": name}
        for name in ("pickle", "json", "msgpack", Backwards(), "tests.wire_formats.classes.Reversed")
    ),
    *({"compressor": name, "compress_min_bytes": 64} for name in ("zlib", "lzma", "zstd", "lz4", Backwards())),
    {"serializer": "json", "compressor": "zstd", "secret": [NEW, OLD]},
]


@pytest.mark.parametrize("secret", [None, NEW])
@pytest.mark.parametrize("options", CODECS, ids=str)
def test_value_comes_back_under_every_codec(open_cache: Open, options: Any, secret: str | None) -> None:
    """Under every serializer, compressor and secret values come back by all operations, and numbers count."""
    cache = open_cache(**{"secret": secret, **options})
    cache.set("set", PLAIN)
    cache.set_many({"many": PLAIN, "n": 41, "f": 0.5})
    assert cache.add("add", PLAIN)
    cache.set("tagged", PLAIN, tags=["red"])
    assert cache.get_or_set("stale", lambda: PLAIN, stale_while_revalidate=60) == PLAIN
    asyncio.run(cache.aset("async", PLAIN))
    keys = ["set", "many", "add", "tagged", "stale", "async"]
    assert [cache.get(key) for key in keys] == [PLAIN] * 6
    assert cache.get_many(keys) == dict.fromkeys(keys, PLAIN)
    assert asyncio.run(cache.aget_many(keys)) == dict.fromkeys(keys, PLAIN)
    assert (cache.incr("n"), cache.incr("f"), cache.get("n"), cache.get("f")) == (42, 1.5, 42, 1.5)
    for key in ("set", "tagged", "n"):
        assert cache.incr_version(key) == 2
        assert cache.get(key, version=2) == (42 if key == "n" else PLAIN)
    assert cache.stats().errors == 0


@pytest.mark.parametrize("first", CODECS[:3] + CODECS[5:9], ids=str)
def test_other_serializer_and_compressor_read_earlier_entries(open_cache: Open, first: Any) -> None:
    """After another serializer and compressor were chosen, entries from before are read: read_compressors names it."""
    before = open_cache(**first)
    before.set("k", PLAIN)
    before.set("tagged", PLAIN, tags=["red"])
    former = [first["compressor"]] if "compressor" in first else []
    after = open_cache(serializer="msgpack", compressor="lz4", read_compressors=former)
    assert after.get("k") == PLAIN
    assert after.get("tagged") == PLAIN
    assert after.get_or_set("k", lambda: "computed") == PLAIN


@pytest.mark.parametrize("name", ["zlib", "lzma", "zstd"])
def test_compressed_entries_are_read_where_the_options_say_so(open_cache: Open, name: str) -> None:
    """Unsigned entries of a compressor that no option names are counted misses; signed ones are read."""
    for secret, found in ((None, None), (NEW, PLAIN)):
        open_cache(compressor=name, compress_min_bytes=64, secret=secret).set("k", PLAIN)
        after = open_cache(secret=secret)
        errors = after.stats().errors
        assert after.get("k") == found
        assert after.stats().errors - errors == (found is None)


def test_program_of_another_serializer_of_its_own_reads_none_of_it(open_cache: Open) -> None:
    """An entry of one custom serializer is a counted miss to another, which might misread its bytes."""
    open_cache(serializer=Backwards()).set("k", PLAIN)
    other = open_cache(serializer=REVERSED)
    assert other.get("k") is None
    assert other.stats().errors == 1


def test_secrets_rotate(open_cache: Open) -> None:
    """The first of several secrets signs and all of them are read, until the old one is taken away."""
    old, both, new = open_cache(secret=OLD), open_cache(secret=[NEW, OLD]), open_cache(secret=NEW)
    point = Point(1, 2)
    old.set_many({"kept": point, "renewed": point})
    old.set("tagged", point, tags=["red"])
    assert both.get_many(["kept", "renewed", "tagged"]) == dict.fromkeys(["kept", "renewed", "tagged"], point)
    assert both.touch("kept", 100)
    both.set("renewed", both.get("renewed"))
    both.set("of both", point, tags=["red"])
    assert old.get("renewed", "a miss") == "a miss"
    assert new.get("kept", "a miss") == "a miss"
    assert new.get("renewed") == point
    assert both._compare_delete(both.make_key("kept"), point), "equal values, though their bytes differ"
    assert both.invalidate_tags("red") == 1
    assert both.get("of both") is both.get("tagged") is None


def test_number_stays_a_number_under_any_secret(open_cache: Open) -> None:
    """A number, which the server increments, is the one value that is not signed."""
    open_cache(secret=OLD).set("n", 1)
    assert open_cache(secret=NEW).incr("n") == 2


@pytest.mark.parametrize(
    ("value", "options", "told"),
    [
        (Point(1, 2), {}, "tests.wire_formats.classes.Point"),
        ({"a": [Point(1, 2)]}, {}, "OPTIONS['allowed_types']"),
        (lambda: 0, {"secret": NEW}, "function"),
        ((1, 2), {"serializer": "json"}, "tuple"),
        ({1: 2}, {"serializer": "json"}, "int"),
        (dt.date(2024, 1, 2), {"serializer": "msgpack"}, "datetime.date"),
    ],
)
def test_value_that_could_not_be_read_back_raises_when_it_is_stored(
    open_cache: Open, value: Any, options: dict[str, Any], told: str
) -> None:
    """Every operation refuses to store a value that could not be read back, names its type, and keeps the old entry."""
    cache = open_cache(**options, on_unstorable="raise")
    cache.set("k", "before")
    stores: list[Callable[[], Any]] = [
        lambda: cache.set("k", value),
        lambda: cache.set_many({"k": value}),
        lambda: cache.add("new", value),
        lambda: cache.set("k", value, tags=["red"]),
        lambda: cache.get_or_set("new", lambda: value),
        lambda: asyncio.run(cache.aset("k", value)),
        lambda: asyncio.run(cache.aget_or_set("new", lambda: value)),
    ]
    for store in stores:
        with pytest.raises(SerializationError) as caught:
            store()
        assert told in str(caught.value)
    assert cache.get("k") == "before"
    assert cache.get("new") is None
    assert cache.add("new", "after") is True, "no lease is left behind"


def test_plain_data_needs_no_secret(open_cache: Open) -> None:
    """Plain data is stored without a secret, and an allowed class is read where it is allowed only."""
    values = [dt.datetime(2024, 1, 2, tzinfo=dt.UTC), decimal.Decimal("1.10"), {1, 2}, (1, (2,)), b"raw"]
    cache = open_cache()
    cache.set_many(dict(enumerate(values)))
    assert list(cache.get_many(range(5)).values()) == values
    allowed = open_cache(allowed_types=[Point])
    allowed.set("point", Point(1, 2))
    assert allowed.get("point") == Point(1, 2)
    assert cache.get("point") is None
