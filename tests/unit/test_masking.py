"""Settings in messages and reprs."""

from pathlib import Path

import pytest

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
        ("x://h/?a=b&redis_TOKEN=pw#f", "x://h/?a=b&redis_TOKEN=***#f"),
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
