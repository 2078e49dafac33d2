"""From LOCATION and OPTIONS to servers, drivers and the servers of keys; nothing is connected to."""

import random
import re
import ssl
import time
from collections import Counter
from typing import Any

import pytest

from storeroom import config
from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.memcached.clients import BATCH, batches, batches_of_values
from storeroom.backends.memcached.entries import exptime, packed
from storeroom.backends.memcached.location import Address, parse
from storeroom.backends.memcached.options import PYLIBMC, PYMEMCACHE, settled
from storeroom.backends.memcached.ring import Ring
from storeroom.backends.memcached.server_keys import generation_key, is_token, new_token, server_key, server_keys
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import read_caches
from storeroom.testing import FakeClock
from storeroom.timeouts import NEVER

DJANGO = "django.core.cache.backends.memcached."


# LOCATION -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "servers"),
    [
        ("127.0.0.1:11212", [Address("127.0.0.1", 11212)]),
        ("cache.example", [Address("cache.example", 11211)]),
        ("memcached://h:1", [Address("h", 1)]),
        ("[::1]:11212", [Address("::1", 11212)]),
        ("[::1]", [Address("::1", 11211)]),
        ("unix:/run/memcached.sock", [Address(path="/run/memcached.sock")]),
        ("unix:///run/memcached.sock", [Address(path="/run/memcached.sock")]),
        ("/run/memcached.sock", [Address(path="/run/memcached.sock")]),
        ("a:1,b:2", [Address("a", 1), Address("b", 2)]),
        ("a:1; b:2 ;", [Address("a", 1), Address("b", 2)]),
        (["a:1", "/s"], [Address("a", 1), Address(path="/s")]),
        (("a", "a:11211", "a"), [Address("a")]),
    ],
)
def test_location_names_servers(location: Any, servers: list[Address]) -> None:
    """LOCATION gives hosts, ports and sockets, from a list or a text with separators, each once."""
    assert parse(location) == tuple(servers)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "LOCATION is empty"),
        ([], "LOCATION is empty"),
        ("a:0", "names the server 'a:0'"),
        ("a:70000", "names the server 'a:70000'"),
        ("a:port", "names the server 'a:port'"),
        ("redis://a", "names the server 'redis://a'"),
        ("::1", "names the server '::1'"),
        ("two words", "names the server 'two words'"),
        ([1], "in a list"),
    ],
)
def test_mistake_in_location_is_told(location: Any, message: str) -> None:
    """A server without meaning raises ConfigurationError with its text and the forms expected."""
    with pytest.raises(ConfigurationError, match=r"^LOCATION .*expected a host such as") as caught:
        parse(location)
    assert message in str(caught.value)


# OPTIONS --------------------------------------------------------------------------------------


def test_configuration_of_djangos_documentation_is_understood() -> None:
    """The example for PyMemcacheCache in Django's documentation is read to its meaning."""
    (alias,) = read_caches(
        {
            "default": {
                "BACKEND": f"{DJANGO}PyMemcacheCache",
                "LOCATION": "127.0.0.1:11211",
                "OPTIONS": {"no_delay": True, "ignore_exc": True, "max_pool_size": 4, "use_pooling": True},
            }
        }
    ).values()
    options = alias.build().settings.options
    assert alias.backend is PyMemcacheCache
    assert (options["on_error"], options["max_connections"]) == ("miss", 4)


def test_configuration_of_pylibmc_in_djangos_documentation_is_understood() -> None:
    """The example for PyLibMCCache in Django's documentation is read to its meaning, the password hidden."""
    pytest.importorskip("pylibmc")
    (alias,) = read_caches(
        {
            "default": {
                "BACKEND": f"{DJANGO}PyLibMCCache",
                "LOCATION": "127.0.0.1:11211",
                "OPTIONS": {
                    "binary": True,
                    "username": "user",
                    "password": "pass",
                    "behaviors": {"ketama": True, "connect_timeout": 500, "receive_timeout": 250_000},
                },
            }
        }
    ).values()
    options = alias.build().settings.options
    assert alias.backend is PyLibMCCache
    assert (options["socket_connect_timeout"], options["socket_timeout"]) == (0.5, 0.25)
    assert "pass'" not in repr(alias)


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"timeout": 3}, "socket_timeout", 3.0),
        ({"timeout": 3, "socket_timeout": 2}, "socket_timeout", 2.0),
        ({"connect_timeout": 0.5}, "socket_connect_timeout", 0.5),
        ({"ignore_exc": False}, "on_error", "raise"),
        ({"ignore_exc": False, "on_error": "miss"}, "on_error", "miss"),
        ({"default_noreply": False}, "max_connections", 64),
        ({"retry_attempts": 2, "dead_timeout": 60}, "max_connections", 64),
    ],
)
def test_spellings_of_pymemcache_are_understood(options: dict[str, Any], name: str, value: Any) -> None:
    """Options of pymemcache set those of Storeroom, which count first if both are given."""
    assert settled(config.read_params({"OPTIONS": options}, PYMEMCACHE))[name] == value


def test_serde_of_pymemcache_is_accepted_and_of_a_program_is_not() -> None:
    """The serde of pymemcache is accepted, another refused with the two options that replace it."""
    pymemcache = pytest.importorskip("pymemcache.serde")
    config.read_params({"OPTIONS": {"serde": pymemcache.pickle_serde}}, PYMEMCACHE)
    with pytest.raises(ConfigurationError, match=r"OPTIONS\['serializer'\] and OPTIONS\['compressor'\]"):
        config.read_params({"OPTIONS": {"serde": object()}}, PYMEMCACHE)


@pytest.mark.parametrize("known", [PYMEMCACHE, PYLIBMC])
@pytest.mark.parametrize("name", ["MAX_ENTRIES", "CULL_FREQUENCY", "max_bytes"])
def test_bounds_are_refused_with_the_reason(known: Any, name: str) -> None:
    """Bounds on entries or bytes are refused: they would seem to hold, but Memcached bounds itself."""
    with pytest.raises(ConfigurationError, match=r"Memcached bounds itself, by the memory \(-m\)") as caught:
        config.read_params({"OPTIONS": {name: 1000}}, known)
    assert name.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("options", "known", "message"),
    [
        ({"key_prefix": "x"}, PYMEMCACHE, "KEY_PREFIX beside OPTIONS"),
        ({"deserializer": print}, PYMEMCACHE, "OPTIONS['serializer'] alone"),
        ({"hasher": object}, PYMEMCACHE, "by consistent hashing"),
        ({"default_noreply": True}, PYMEMCACHE, "a write that nobody answers for"),
        ({"socket_timeout": 0}, PYMEMCACHE, "at least 0.001"),
        ({"max_connections": 0}, PYMEMCACHE, "at least 1"),
        ({"eject": 0}, PYLIBMC, "seconds, more than 0"),
        ({"eject": "forever"}, PYMEMCACHE, "seconds, more than 0"),
        ({"behaviors": {"no_such": 1}}, PYLIBMC, "a dict of behaviours among"),
        ({"behaviors": {"receive_timeout": "soon"}}, PYLIBMC, "a dict whose 'receive_timeout' is a number"),
        ({"on_error": "fallback:"}, PYLIBMC, '"miss", "raise", "fallback:<alias>" or a dict'),
        ({"on_eror": "miss"}, PYLIBMC, "Did you mean 'on_error'?"),
    ],
)
def test_option_without_meaning_here_is_refused_with_the_remedy(options: Any, known: Any, message: str) -> None:
    """An option that Memcached cannot honour raises ConfigurationError with the remedy."""
    with pytest.raises(ConfigurationError) as caught:
        config.read_params({"OPTIONS": options}, known, backend="the cache")
    assert message in str(caught.value)


def test_login_needs_the_binary_protocol() -> None:
    """A username without binary=True raises ConfigurationError."""
    pytest.importorskip("pylibmc")
    with pytest.raises(ConfigurationError, match=r"needs OPTIONS\['binary'\] True"):
        PyLibMCCache("h", {"OPTIONS": {"username": "me", "password": "pw"}})


# Engines --------------------------------------------------------------------------------------


def test_handles_of_one_server_share_its_connections() -> None:
    """Handles of one server share its connections under any prefix, unless settings of connections differ."""
    one, other = PyMemcacheCache("h:1", {}), PyMemcacheCache("h:1", {"KEY_PREFIX": "x"})
    both = PyMemcacheCache("h:1,h:2", {})
    assert one._group.servers[0] is other._group.servers[0] is both._group.servers[0]
    assert PyMemcacheCache("h:1", {"OPTIONS": {"socket_timeout": 9}})._group is not one._group
    context = ssl.create_default_context()
    assert PyMemcacheCache("h:1", {"OPTIONS": {"tls_context": context}})._group is not one._group


# Servers of keys ------------------------------------------------------------------------------


def test_ring_shares_the_keys_out_evenly() -> None:
    """Of ten servers, each gets a tenth of the keys, give or take a fifth of that."""
    ring = Ring(f"10.0.0.{number}:11211" for number in range(10))
    shares = Counter(ring.owner(f"prefix:1:key {number}") for number in range(50_000))
    assert len(shares) == 10
    assert all(4000 < share < 6000 for share in shares.values())


def test_another_server_moves_only_keys_to_itself() -> None:
    """A fifth server takes a fifth of the keys, and no key moves between the others, in any order of names."""
    names = [f"10.0.0.{number}:11211" for number in range(5)]
    few, shuffled = Ring(names[:4]), random.Random(3).sample(names, 5)
    many = Ring(shuffled)
    moved = 0
    for number in range(20_000):
        before, after = names[few.owner(f"k{number}")], shuffled[many.owner(f"k{number}")]
        if before != after:
            assert after == names[4]
            moved += 1
    assert moved == pytest.approx(4000, rel=0.2)


def test_substitute_is_the_next_server_on_the_ring() -> None:
    """The second server for a key is the first one of a ring without the first server."""
    names = ["a:11211", "b:11211", "c:11211"]
    ring = Ring(names)
    for number in range(1000):
        servers = list(ring.owners(f"k{number}"))
        assert sorted(servers) == [0, 1, 2]
        assert servers[0] == ring.owner(f"k{number}")
        left = [name for name in names if name != names[servers[0]]]
        assert names[servers[1]] == left[Ring(left).owner(f"k{number}")]


def test_server_of_a_key_never_changes() -> None:
    """The server of a key is pinned: a version that moved keys would empty every cache of several servers."""
    ring = Ring(["a:11211", "b:11211", "c:11211"])
    assert (
        "".join("abc"[ring.owner(f":1:key{number}")] for number in range(40))
        == "acabcabaaaabcaacacabbaabbbcaaacbbbaabbac"
    )
    assert [ring.owner(key) for key in ("", "Grüße 🎁", "\ud800")] == [1, 2, 0]


# Keys, times and batches ----------------------------------------------------------------------


def test_generations_are_words_that_a_key_may_hold() -> None:
    """Tokens of generations are unique and valid; the key of a generation stays under 250 bytes."""
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(is_token(token.encode()) for token in tokens)
    assert not is_token(b"")
    assert not is_token(b"a" * 13)
    assert generation_key("shop") != generation_key("shop ") != generation_key("")
    assert len(generation_key("x" * 1000)) < 250


@pytest.mark.parametrize("odd", [None, "", "a b", "#", "nul\x00", "line\nbreak", "\x7f", "Grüße", "\ud800", "x" * 201])
def test_many_keys_are_named_as_each_by_itself(odd: str | None) -> None:
    """Server keys are the same whether they are made together or one by one, and never two alike."""
    keys = [f":1:key{number}" for number in range(20)] + ["x" * 200] + ([] if odd is None else [odd])
    token = new_token()
    together = server_keys(token, keys)
    assert together == [server_key(token, key) for key in keys]
    assert bool(re.search(rb"#[0-9a-f]{32}$", together[-1])) is bool(odd)  # the hash of one that is not plain
    assert all(len(key) <= 250 and key.isascii() and b" " not in key and key.decode().isprintable() for key in together)


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [(0.001, 2), (1, 2), (59.5, 61), (86_400 * 29, 86_400 * 29 + 1), (NEVER, 0)],
)
def test_server_is_told_no_second_too_early(seconds: float, sent: int) -> None:
    """Durations are rounded up to whole seconds plus one, and no timeout is sent as 0."""
    with FakeClock() as clock:
        assert exptime(clock.now() + seconds if seconds != NEVER else NEVER) == sent


def test_more_than_thirty_days_are_a_point_in_time() -> None:
    """Durations over thirty days are sent as a Unix time, and ones beyond 32 bits as no timeout."""
    with FakeClock() as clock:
        month = 86_400 * 30
        assert exptime(clock.now() + month + 5) == pytest.approx(time.time() + month + 6, abs=5)
        assert exptime(clock.now() + 1e12) == 0


def test_header_of_an_entry_keeps_its_bytes() -> None:
    """The header of an entry keeps its bytes, so that entries of other versions stay readable."""
    assert packed(1_700_000_000.5, b"7") == bytes.fromhex("41d954fc40200000" + "37")
    assert packed(NEVER, b"\x05") == bytes.fromhex("7ff0000000000000" + "05")


def test_batches_are_bounded_in_number_and_bytes() -> None:
    """Keys are sent in batches of BATCH, values also in batches of bounded size, and huge ones alone."""
    keys = [b"%d" % number for number in range(2 * BATCH + 1)]
    assert [len(batch) for batch in batches(keys)] == [BATCH, BATCH, 1]
    assert [len(batch) for batch in batches_of_values(dict.fromkeys(keys, b"v"))] == [BATCH, BATCH, 1]
    large = dict.fromkeys(keys[:5], b"v" * 2**19)
    assert [len(batch) for batch in batches_of_values(large)] == [2, 2, 1]
    huge = {b"a": b"v", b"b": b"v" * 2**22, b"c": b"v"}
    assert [list(batch) for batch in batches_of_values(huge)] == [[b"a"], [b"b"], [b"c"]]
    assert list(batches_of_values({})) == []
