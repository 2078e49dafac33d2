"""Settings in messages and reprs."""

from pathlib import Path

import pytest

from storeroom.backends.db.location import parse
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.memcached import PyMemcacheCache
from storeroom.exceptions import ConfigurationError, StorageError
from storeroom.registry.aliases import read_caches
from storeroom.wording import is_secret, mask_url, masked, shown


@pytest.mark.parametrize("name", ["secret", "SECRET_KEY", "redis_password", "passwd", "auth_token", "api_key"])
def test_name_tells_a_secret(name):
    """Names such as redis_password, auth_token and api_key are those of secrets."""
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_entries", "key_prefix", "KEY_FUNCTION", "serializer"])
def test_other_names_tell_none(name):
    """Names of ordinary settings, even with key in them, are not those of secrets."""
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown_text"),
    [
        ("redis://user:pw@host:1/0", "redis://***@host:1/0"),
        ("redis://:p@ss/w?rd@host/0", "redis://***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("x://h/?password=pw&db=1", "x://h/?password=***&db=1"),
        ("x://h/?a=b&redis_TOKEN=pw#f", "x://h/?a=b&redis_TOKEN=***"),  # the "#" may be the password's
        ("redis:/u:pw@h", "redis:/***@h"),
        ("redis:u:pw@h", "***@h"),
        (" redis://u:pw@h", " redis://***@h"),
        ("redis://u:p?pw@h", "redis://***@h"),
        ("redis://u:p#pw@h/0", "redis://***@h/0"),
        ("u:p/w@h", "***@h"),
        ("redis://u:pw@a,redis://u:pw@b;redis://u:pw@c/0", "redis://***@a,redis://***@b;redis://***@c/0"),
        ("redis://h?ssl_password=p#w&db=1", "redis://h?ssl_password=***&db=1"),
        ("redis://u:pw@h,i/0?sentinel_password=pw", "redis://***@h,i/0?sentinel_password=***"),
        ("file:///x?secrt=pw&pwd=pw", "file:///x?secrt=***&pwd=***"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        (r"password = 'a \' pw' host=h", "password = *** host=h"),
        ("sslpassword=pw", "sslpassword=***"),
        ("C:\\a:b@c", "C:\\a:b@c"),
        ("user:pw@host", "***@host"),
        ("/var/cache/app", "/var/cache/app"),
        ("/srv/a:b@c", "/srv/a:b@c"),
    ],
)
def test_mask_url_hides_credentials(text, shown_text):
    """Credentials before the host and secret parameters of the query are replaced by ***."""
    assert mask_url(text) == shown_text


def test_masked_leaves_other_values_alone():
    """Numbers and None stay as they are; secrets and URLs are masked within containers."""
    assert masked(7) == 7
    assert masked(None, "secret") is None
    assert masked({"secret": "x", "n": ("redis://a:b@c", 1)}) == {"secret": "***", "n": ["redis://***@c", 1]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(Path("a"), "'a'"), (int, "the class int"), (object(), "an object"), ({}, "a dict"), (None, "None"), (1.5, "1.5")],
)
def test_shown_tells_a_value(value, text):
    """A short value is shown as it is, a container or object by its type."""
    assert shown(value) == text


@pytest.mark.parametrize("location", ["redis://u:CANARY@h/0", "redis:/u:CANARY@h", "file:///x?secret=CANARY"])
def test_file_cache_takes_no_url_and_shows_no_password(location, tmp_path, monkeypatch):
    """A URL is no directory of a file cache: the error says so without the password, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    backend = "storeroom.backends.filebased.FileBasedCache"
    for build in (
        lambda: read_caches({"default": {"BACKEND": backend, "LOCATION": location}}),
        lambda: FileBasedCache(location, {}),
    ):
        with pytest.raises(ConfigurationError, match="a URL; a file cache needs a directory") as caught:
            build()
        assert "CANARY" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "location",
    ["host=h password=CANARY dbname=d", "mysql://u:CANARY@h/a;mysql://u:CANARY@h/b", ["mysql://u:CANARY@h/a"]],
)
def test_database_shows_no_password(location):
    """A LOCATION that names no table and no single database is refused, without its password."""
    with pytest.raises(ConfigurationError) as caught:
        parse(location, {"url": None, "table": None})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("password", ["p?CANARY", "p?CANARY&more", "p?x=CANARY&y", "p?db=1&CANARY"])
def test_redis_shows_no_rest_of_a_password_behind_a_question_mark(password):
    """What looks like a query and ends with an "@" is part of the password: the error says what to write instead."""
    backend = "storeroom.backends.redis.RedisCache"
    with pytest.raises(ConfigurationError, match="%3F") as caught:
        read_caches({"default": {"BACKEND": backend, "LOCATION": f"redis://user:{password}@127.0.0.1:1/0"}})
    assert "CANARY" not in str(caught.value)


def test_memcached_shows_no_password_of_a_socket(caplog):
    """The name of a server in messages and logs has no password in it, though Memcached's sockets take none."""
    cache = PyMemcacheCache("unix:///nowhere.sock?password=CANARY", {"OPTIONS": {"on_error": "raise"}})
    with pytest.raises(StorageError, match="out of reach") as caught:
        cache.get("k")
    assert "CANARY" not in f"{caught.value} {cache!r} {caplog.text}"
