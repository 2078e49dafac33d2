"""A cache as a URL."""

import re

import pytest

from storeroom import config_from_url
from storeroom.aliases import read_caches
from storeroom.exceptions import ConfigurationError
from storeroom.urls import SCHEMES

MEMCACHED = "storeroom.backends.memcached.PyMemcacheCache"
LOCMEM = "storeroom.backends.locmem.LocMemCache"
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
        ("locmem://?key_prefix=a%26b%3Dc+d", {"BACKEND": LOCMEM, "LOCATION": "", "KEY_PREFIX": "a&b=c d"}),
    ],
)
def test_url_is_an_alias(url, alias):
    assert config_from_url(url) == alias


@pytest.mark.parametrize("scheme", SCHEMES)
def test_example_of_each_scheme_is_a_valid_configuration(scheme):
    example = SCHEMES[scheme].example
    assert example.startswith(f"{scheme}://")
    assert read_caches({"default": config_from_url(example)})["default"].settings is not None


def test_values_of_a_url_are_read_like_others():
    written = config_from_url("locmem://?timeout=1h&version=3&max_entries=10000&max_bytes=64MB&copy=no")
    settings = read_caches({"default": written})["default"].settings
    assert (settings.timeout, settings.version) == (3600, 3)
    assert (settings.options["max_entries"], settings.options["max_bytes"]) == (10_000, 64 * 1024**2)
    assert settings.options["copy"] is False


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
    with pytest.raises(ConfigurationError) as caught:
        config_from_url(url)
    assert "hunter2" not in str(caught.value)
