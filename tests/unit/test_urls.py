"""A cache as a URL."""

import re

import pytest

from storeroom import config_from_url
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import read_caches
from storeroom.registry.urls import SCHEMES

MEMCACHED = "storeroom.backends.memcached.PyMemcacheCache"
LOCMEM = "storeroom.backends.locmem.LocMemCache"
PYLIBMC = "storeroom.backends.memcached.PyLibMCCache"
REDIS = "storeroom.backends.redis.RedisCache"
DATABASE = "storeroom.backends.db.DatabaseCache"
FILE = "storeroom.backends.filebased.FileBasedCache"
DUMMY = "storeroom.backends.dummy.DummyCache"


@pytest.mark.parametrize(
    ("url", "alias"),
    [
        ("file:///var/cache/app", {"BACKEND": FILE, "LOCATION": "/var/cache/app"}),
        ("FILE://localhost/var/cache", {"BACKEND": FILE, "LOCATION": "/var/cache"}),
        ("file:///a%20b/%C3%A9%23%3F", {"BACKEND": FILE, "LOCATION": "/a b/é#?"}),
        ("file:///a+b", {"BACKEND": FILE, "LOCATION": "/a+b"}),
        ("locmem://", {"BACKEND": LOCMEM, "LOCATION": ""}),
        ("locmem://Name", {"BACKEND": LOCMEM, "LOCATION": "Name"}),
        ("locmem://a%2Fb/", {"BACKEND": LOCMEM, "LOCATION": "a/b"}),
        ("dummy://", {"BACKEND": DUMMY, "LOCATION": ""}),
        ("dummy://u:pw@host:6379/0", {"BACKEND": DUMMY, "LOCATION": ""}),
        ("locmem://?timeout=5m", {"BACKEND": LOCMEM, "LOCATION": "", "TIMEOUT": "5m"}),
        (
            "locmem://x?TIMEOUT=1&key_prefix=&version=2&key_function=a.b&MAX_ENTRIES=10&copy=no",
            {
                "BACKEND": LOCMEM,
                "LOCATION": "x",
                "TIMEOUT": "1",
                "KEY_PREFIX": "",
                "VERSION": "2",
                "KEY_FUNCTION": "a.b",
                "OPTIONS": {"max_entries": "10", "copy": "no"},
            },
        ),
        (
            "memcached://one:11211,[::1]?timeout=1",
            {"BACKEND": MEMCACHED, "LOCATION": "one:11211,[::1]", "TIMEOUT": "1"},
        ),
        ("memcached+unix:///run/a%20b", {"BACKEND": MEMCACHED, "LOCATION": "/run/a b"}),
        ("pylibmc://one,two", {"BACKEND": PYLIBMC, "LOCATION": "one,two"}),
        ("pylibmc+unix:///run/a", {"BACKEND": PYLIBMC, "LOCATION": "/run/a"}),
        ("redis://u:p%40@h:1/2?timeout=1", {"BACKEND": REDIS, "LOCATION": "redis://u:p%40@h:1/2", "TIMEOUT": "1"}),
        ("valkeys+cluster://a,b", {"BACKEND": REDIS, "LOCATION": "valkeys+cluster://a,b"}),
        ("unix:///r?db=1", {"BACKEND": REDIS, "LOCATION": "unix:///r", "OPTIONS": {"db": "1"}}),
        ("sqlite:////a/b?table=t", {"BACKEND": DATABASE, "LOCATION": "sqlite:////a/b", "OPTIONS": {"table": "t"}}),
        (
            "postgresql://u:p@/d?host=/run/a%20b&table=t&sslmode=require&timeout=5m",
            {
                "BACKEND": DATABASE,
                "LOCATION": "postgresql://u:p@/d?host=/run/a%20b&sslmode=require",
                "TIMEOUT": "5m",
                "OPTIONS": {"table": "t"},
            },
        ),
        ("mariadb://h/d?ssl_ca=/x", {"BACKEND": DATABASE, "LOCATION": "mariadb://h/d?ssl_ca=/x"}),
        ("redis://h?secret=a", {"BACKEND": REDIS, "LOCATION": "redis://h", "OPTIONS": {"secret": ["a"]}}),
        (
            "redis://h?secret=a&secret=b&allowed_types=x.Y",
            {"BACKEND": REDIS, "LOCATION": "redis://h", "OPTIONS": {"secret": ["a", "b"], "allowed_types": ["x.Y"]}},
        ),
        ("locmem://?key_prefix=a%26b%3Dc+d", {"BACKEND": LOCMEM, "LOCATION": "", "KEY_PREFIX": "a&b=c d"}),
    ],
)
def test_url_becomes_an_alias(url, alias):
    """A URL of each scheme becomes an alias with class, location, settings and options."""
    assert config_from_url(url) == alias


@pytest.mark.parametrize("scheme", SCHEMES)
def test_example_of_each_scheme_is_a_valid_configuration(scheme):
    """The example of a scheme begins with it and is a valid configuration."""
    example = SCHEMES[scheme].example
    assert example.startswith(f"{scheme}://")
    assert read_caches({"default": config_from_url(example)})["default"].settings is not None


def test_values_of_a_url_are_read_like_others():
    """Text values of a URL are read as durations, numbers, sizes and booleans."""
    written = config_from_url("locmem://?timeout=1h&version=3&max_entries=10000&max_bytes=64MB&copy=no")
    settings = read_caches({"default": written})["default"].settings
    assert (settings.timeout, settings.version) == (3600, 3)
    assert (settings.options["max_entries"], settings.options["max_bytes"]) == (10_000, 64 * 1024**2)
    assert settings.options["copy"] is False


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (
            "redis://h?socket_timeout=0.5&max_connections=8&ssl_check_hostname=no&db=3&on_error=raise&early=1.5",
            {
                "socket_timeout": 0.5,
                "max_connections": 8,
                "ssl_check_hostname": False,
                "db": 3,
                "on_error": "raise",
                "early": 1.5,
            },
        ),
        (
            "valkey://h?read_unsigned_pickles=yes&ssl_cert_reqs=none",
            {"read_unsigned_pickles": True, "ssl_cert_reqs": "none"},
        ),
        ("memcached://h?max_pool_size=3&ignore_exc=true", {"max_pool_size": 3, "ignore_exc": True}),
        ("pylibmc://h?binary=on&username=u&password=p", {"binary": True, "username": "u", "password": "p"}),
        (
            "postgresql://h/d?unlogged=1&create_table=0&max_entries=none&max_bytes=1GB&stale_if_error=1h",
            {
                "unlogged": True,
                "create_table": False,
                "max_entries": None,
                "max_bytes": 2**30,
                "stale_if_error": 3600.0,
            },
        ),
        ("sqlite:////x?busy_timeout=2&serializer=json", {"busy_timeout": 2.0, "serializer": "json"}),
        ("redis://h?secret=0123456789abcdef", {"secret": ["0123456789abcdef"]}),
    ],
)
def test_options_of_a_url_have_the_right_types(url, options):
    """Options of a URL have the values and types that the backend's options declare."""
    settings = read_caches({"default": config_from_url(url)})["default"].settings
    assert {name: settings.options[name] for name in options} == options
    assert {type(settings.options[name]) for name in options} == {type(value) for value in options.values()}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h?db=first", "CACHES['default']['OPTIONS']['db'] is 'first'; expected a whole number, at least 0"),
        ("redis://h/first", "expected the database's number after the host"),
        ("redis+sentinel://h", "expected the primary's name after the hosts"),
        ("redis+cluster://h/1", "a cluster has database 0 alone"),
        (
            "redis://h?sokcet_timeout=1",
            "['sokcet_timeout'] is not an option of RedisCache. Did you mean 'socket_timeout'?",
        ),
        ("memcached://h?max_entries=9", "Memcached bounds itself"),
        ("memcached://h:x", "LOCATION'] names the server 'h:x'; expected a host"),
        ("postgresql://h/d?unlogged=maybe", "['unlogged'] is 'maybe'; expected True or False"),
        ("postgresql://h/d?unix_socket=/x", "['unix_socket'] is not an option of DatabaseCache"),
        ("sqlite://", "expected a host after two slashes"),
        ("sqlite:///:memory:", "expected the path of a file"),
    ],
)
def test_mistake_of_a_backend_in_a_url_is_told(url, message):
    """A wrong option or location of a URL raises the backend's own ConfigurationError."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_caches({"default": config_from_url(url)})


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://h", "'ftp://h', whose scheme 'ftp' is unknown. The schemes are file, locmem, dummy"),
        ("memcached://", "'memcached://'; expected hosts alone after two slashes, such as 'memcached://one:11211,two"),
        ("memcached://h/0", "expected hosts alone"),
        ("locmen://", "'locmen://', whose scheme 'locmen' is unknown. Did you mean 'locmem'? The schemes are"),
        ("/var/cache/app", "'/var/cache/app', which does not begin with a scheme and '://'. The schemes are"),
        ("", "'', which does not begin with a scheme"),
        ("file:/var/cache", "'file:/var/cache', which does not begin with a scheme and '://'"),
        (
            "file://var/cache",
            "'file://var/cache'; expected an absolute path after three slashes, such as 'file:///var/",
        ),
        ("file://", "'file://'; expected an absolute path"),
        ("locmem://a/b", "'locmem://a/b'; expected a name alone, without a path, such as 'locmem://name"),
        ("file:///%FF", "'file:///%FF'; expected percent-encoded UTF-8"),
        ("locmem://a?timeout", "expected name=value pairs joined by '&' after the '?'"),
        ("locmem://a?timeout=%FF", "expected name=value pairs"),
        ("locmem://a?timeout=1&TIMEOUT=2", "which gives 'TIMEOUT' twice; keep one of them"),
        ("locmem://a?copy=1&Copy=2", "which gives 'Copy' twice"),
        ("locmem://a?key_prefix=x#y", "a '#' that belongs to a value is written %23"),
        ("http://[::1", "which is not a URL. The schemes are"),
    ],
)
def test_mistake_in_a_url_is_told(url, message):
    """A malformed URL raises ConfigurationError with its origin, its text and the form expected."""
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        config_from_url(url, where="CACHE_URL")
    assert str(caught.value).startswith("CACHE_URL is '")


@pytest.mark.parametrize(
    "url",
    [
        "memcached://u:hunter2@h/0",
        "redis://u:hunter2@h/0?a",
        "file://u:hunter2@h/x",
        "locmem://x?secret=hunter2&timeout",
        "locmem://x?secret=hunter2&a=1&a=2",
        "x://a:hunter2@[::1",
        "u:hunter2@h",
    ],
)
def test_password_in_a_wrong_url_is_not_told(url):
    """The error for a malformed URL contains no password or secret of it."""
    with pytest.raises(ConfigurationError) as caught:
        config_from_url(url)
    assert "hunter2" not in str(caught.value)
