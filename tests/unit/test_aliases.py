"""CACHES as a whole: the aliases read from it, and the message for each mistake."""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from storeroom import config
from storeroom.backends import network
from storeroom.backends.dummy import DummyCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.config import Option
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import DEFAULT_ALIAS, read_caches

LOCMEM = "storeroom.backends.locmem.LocMemCache"
FILE = "storeroom.backends.filebased.FileBasedCache"
DUMMY = "storeroom.backends.dummy.DummyCache"


class Keyed(DummyCache):
    """A backend class for tests that open nothing: it notes how it was built."""

    keeps_entries = True
    options = {**config.ENTRY_BOUNDS, "secret": Option(config.text, None, "…")}  # noqa: RUF012 -- as backends write it

    def __init__(self, location, params):
        super().__init__(location, params)
        self.location, self.params = location, params


class OnDisk(Keyed):
    location_is_path = True


class Foreign:
    """A class that knows nothing of Storeroom."""

    def __init__(self, location, params):
        self.location, self.params = location, params


def same(key, key_prefix, version):
    return f"v{version}.{key}"


def message_of(caches):
    with pytest.raises(ConfigurationError) as caught:
        read_caches(caches)
    return str(caught.value)


# CACHES as a whole -------------------------------------------------------------------------------------


def test_alias_is_read_and_built():
    """An alias builds a handle with its location, params and settings as written."""
    written = {"BACKEND": Keyed, "LOCATION": "here", "TIMEOUT": "5m", "OPTIONS": {"MAX_ENTRIES": 5}}
    alias = read_caches({"default": written})["default"]
    handle = alias.build()
    assert (handle.location, handle.default_timeout) == ("here", 300)
    assert handle.params == {"TIMEOUT": "5m", "OPTIONS": {"MAX_ENTRIES": 5}}
    assert alias.settings == handle.settings


def test_each_handle_gets_a_dict_of_its_own():
    """A class that takes items out of its params, as some of Django's do, changes nothing for the next handle."""
    written = {"BACKEND": Foreign, "OPTIONS": {"a": 1}}
    alias = read_caches({"default": written})["default"]
    alias.build().params["OPTIONS"].clear()
    written["OPTIONS"].clear()
    assert alias.build().params == {"OPTIONS": {"a": 1}}


def test_settings_of_a_foreign_class_are_its_own_business():
    """Unknown keys and odd values reach a class not of Storeroom unchecked, and the alias has no settings."""
    alias = read_caches({"default": {"BACKEND": Foreign, "whatever": 1, "TIMEOUT": "x"}})["default"]
    assert alias.settings is None
    assert alias.build().params == {"whatever": 1, "TIMEOUT": "x"}


GOOD = {"BACKEND": DUMMY}


@pytest.mark.parametrize(
    ("caches", "message"),
    [
        (None, "CACHES is None; expected a dict of aliases"),
        ([GOOD], "CACHES is a list; expected a dict of aliases"),
        ("redis://u:pw@h", "CACHES is 'redis://***@h'; expected a dict of aliases"),
        ({}, "CACHES has no alias 'default': there is no alias at all. Add it"),
        ({"other": GOOD}, "CACHES has no alias 'default': there is only 'other'. Add it"),
        ({"defualt": GOOD}, "CACHES has no alias 'default': there is only 'defualt'. Is it 'defualt'? Add it"),
        ({"default": GOOD, 5: GOOD}, "CACHES has an alias that is 5; expected a string"),
        ({"default": "dummy://"}, "CACHES['default'] is 'dummy://'; expected a dict with BACKEND in it. A URL becomes"),
        ({"default": None}, "CACHES['default'] is None; expected a dict with BACKEND in it"),
        (
            {"default": {}},
            f"CACHES['default'] has no BACKEND. Add it: the dotted path of a class; Storeroom has: {FILE}",
        ),
        ({"default": {"BACKND": DUMMY}}, "CACHES['default'] has no BACKEND. Is it 'BACKND'? Add it"),
        ({"default": {"BACKEND": Keyed, "LOCATION": 5}}, "CACHES['default']['LOCATION'] is 5; expected a string"),
        (
            {"default": {"BACKEND": Keyed, "LOCATION": ["a", 1]}},
            "CACHES['default']['LOCATION'] is a list; expected a st",
        ),
        ({"default": GOOD, "b": {"BACKEND": Keyed, "VERSION": -1}}, "CACHES['b']['VERSION'] is -1; expected a whole"),
        ({"default": {**GOOD, "TIMOUT": 5}}, "CACHES['default'] has the key 'TIMOUT', which does not exist. Did you"),
    ],
)
def test_mistake_in_caches_is_told(caches, message):
    """A mistake in CACHES raises ConfigurationError that names the alias, the key and the expectation."""
    assert message_of(caches).startswith(message)


def test_several_mistakes_are_told_at_once():
    """All mistakes of CACHES stand in one error, one a line."""
    message = message_of({"a": {"BACKEND": Keyed, "VERSION": -1}, "b": {}, "c": GOOD})
    assert message.startswith("CACHES has 3 mistakes:\n- CACHES has no alias 'default'")
    assert "\n- CACHES['a']['VERSION'] is -1" in message
    assert "\n- CACHES['b'] has no BACKEND" in message


def test_class_that_cannot_be_built_is_refused():
    """A class whose __init__ does not take location and params is refused when CACHES is read."""

    class Wrong:
        def __init__(self, location):
            pass

    message = message_of({"default": {"BACKEND": Wrong}})
    assert "cannot be built as" in message
    assert message.endswith("Expected a class whose __init__ takes these two.")


def test_repr_of_an_alias_hides_passwords():
    """An alias's repr masks passwords in URLs and secret options, and keeps the rest of the location."""
    written = {
        "BACKEND": Foreign,
        "LOCATION": ["redis://u:hunter2@h/0", "redis://h/1"],
        "OPTIONS": {"token": "hunter2"},
    }
    alias = read_caches({"default": written})["default"]
    assert "hunter2" not in repr(alias)
    assert "redis://h/1" in repr(alias)


# LOCATION ------------------------------------------------------------------------------------------------


def test_relative_path_is_relative_to_the_directory_given():
    """A relative LOCATION is joined to the given directory if the class takes a path, and kept if it takes a name."""
    caches = {"default": {"BACKEND": OnDisk, "LOCATION": "var/cache"}, "b": {"BACKEND": Keyed, "LOCATION": "var"}}
    read = read_caches(caches, "/srv/app")
    assert read["default"].location == "/srv/app/var/cache"
    assert read["b"].location == "var"  # a name


def test_relative_path_is_else_relative_to_the_current_directory(tmp_path, monkeypatch):
    """Without a directory, a relative path is settled when CACHES is read: chdir() does not move a cache."""
    monkeypatch.chdir(tmp_path)
    alias = read_caches({"default": {"BACKEND": OnDisk, "LOCATION": Path("cache")}})["default"]
    monkeypatch.chdir("/")
    assert alias.build().location == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("location", "expected"),
    [("/abs", "/abs"), ("~/c", str(Path.home() / "c")), ("", "")],
    ids=["absolute", "~", "empty"],
)
def test_other_paths_are_kept(location, expected):
    """An absolute or empty path stays as it is, and ~ is expanded."""
    read = read_caches({"default": {"BACKEND": OnDisk, "LOCATION": location}}, "/srv/app")
    assert read["default"].location == expected


def test_class_checks_its_location():
    """The error of a class's check_location() is reported under the alias and LOCATION."""

    class Picky(Keyed):
        @classmethod
        def check_location(cls, location, settings):
            raise ConfigurationError(f"LOCATION is {location!r} with {settings.key_prefix!r}; expected another.")

    message = message_of({"default": {"BACKEND": Picky, "LOCATION": "x", "KEY_PREFIX": "p"}})
    assert message == "CACHES['default']['LOCATION'] is 'x' with 'p'; expected another."


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "CACHES['default']['LOCATION'] is empty"),
        ("{file}", "is not a directory"),
        ("{file}/deeper", "is not a directory"),
    ],
)
def test_directory_of_a_file_cache_is_checked_at_start(location, message, tmp_path):
    """A file cache with an empty LOCATION, or one through a file, is refused when CACHES is read."""
    (tmp_path / "file").touch()
    text = message_of({"default": {"BACKEND": FILE, "LOCATION": location.format(file=tmp_path / "file")}})
    assert text.startswith("CACHES['default']['LOCATION'] is ")
    assert message in text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the permissions in question are those of POSIX")
def test_home_of_a_user_that_is_not_there_is_told_at_start():
    """The error names the setting and the location, and says how a name with a tilde is written."""
    text = message_of({"default": {"BACKEND": FILE, "LOCATION": "~nobody-here/cache"}})
    assert text.startswith("CACHES['default']['LOCATION'] is '~nobody-here/cache', and there is no such user; expected")


def test_unwritable_directory_is_told_at_start(tmp_path):
    """A directory that the user cannot write to is refused when CACHES is read."""
    tmp_path.chmod(0o500)
    text = _as_nobody(lambda: message_of({"default": {"BACKEND": FILE, "LOCATION": str(tmp_path / "cache")}}))
    assert text.startswith(f"CACHES['default']['LOCATION'] is '{tmp_path}/cache', but this user cannot write to ")


def _as_nobody(call):
    """Return what `call` returns in a child without root's privilege to write anywhere."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside the threads of other tests
        child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            os.write(writer, call().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    os.waitpid(child, 0)
    return text


def test_reading_opens_no_storage(tmp_path):
    """Reading CACHES creates nothing on disk."""
    read_caches({"default": {"BACKEND": FILE, "LOCATION": str(tmp_path / "cache")}})
    assert list(tmp_path.iterdir()) == []


# Aliases that get into each other's way -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "one", "other", "differing"),
    [
        (LOCMEM, {}, {"TIMEOUT": 60}, "TIMEOUT"),
        (LOCMEM, {"LOCATION": "a"}, {"LOCATION": "a", "OPTIONS": {"MAX_ENTRIES": 9}}, "OPTIONS['max_entries']"),
        (OnDisk, {"LOCATION": "/a"}, {"LOCATION": "/a/../a", "TIMEOUT": 60}, "TIMEOUT"),
        (Keyed, {"LOCATION": ["a", "b"]}, {"LOCATION": ["a", "b"], "TIMEOUT": 60}, "TIMEOUT"),
        (Keyed, {"OPTIONS": {"secret": "hunter2" * 3}}, {"OPTIONS": {"secret": "hunter3" * 3}}, "OPTIONS['secret']"),
    ],
)
def test_aliases_that_share_keys_under_different_settings_are_refused(backend, one, other, differing):
    """Two aliases of one location and prefix that differ in a setting are refused, and the setting is named."""
    message = message_of({"default": {"BACKEND": backend, **one}, "b": {"BACKEND": backend, **other}})
    assert message.startswith("CACHES['default'] and CACHES['b'] have the same LOCATION ")
    assert f"differ in {differing}. Give one of them another LOCATION or KEY_PREFIX" in message
    assert "hunter" not in message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"KEY_PREFIX": "a"}, {"KEY_PREFIX": "a:1"}),
        ({"KEY_PREFIX": "a:12:b"}, {"KEY_PREFIX": "a"}),
        ({"KEY_PREFIX": ""}, {"KEY_PREFIX": ":7"}),
        ({"KEY_PREFIX": "a", "KEY_FUNCTION": same}, {"KEY_PREFIX": "b", "KEY_FUNCTION": same}),
    ],
)
def test_aliases_whose_prefixes_overlap_are_refused(one, other):
    """Two aliases of one location of which one takes the other's keys for its own are refused."""
    message = message_of({"default": {"BACKEND": LOCMEM, **one}, "b": {"BACKEND": LOCMEM, **other}})
    assert "have the same LOCATION " in message
    assert all(f"KEY_PREFIX {written['KEY_PREFIX']!r}" in message for written in (one, other))
    assert read_caches({"default": {"BACKEND": LOCMEM, **one}, "b": {"BACKEND": LOCMEM, **other, "LOCATION": "x"}})


@pytest.mark.parametrize(
    ("backend", "one", "other"),
    [
        (LOCMEM, {"KEY_PREFIX": "a"}, {"KEY_PREFIX": "a:b"}),
        (LOCMEM, {"KEY_PREFIX": "a"}, {"KEY_PREFIX": "a1"}),
        (LOCMEM, {}, {}),  # two names for one cache
        (LOCMEM, {"TIMEOUT": 60}, {"TIMEOUT": "1m"}),
        (LOCMEM, {}, {"TIMEOUT": 60, "LOCATION": "other"}),
        (LOCMEM, {}, {"TIMEOUT": 60, "KEY_PREFIX": "other"}),
        (LOCMEM, {}, {"TIMEOUT": 60, "VERSION": 2}),
        (LOCMEM, {}, {"TIMEOUT": 60, "KEY_FUNCTION": "storeroom.keys.shorten"}),
        (DUMMY, {}, {"TIMEOUT": 60}),  # it keeps nothing to be overwritten
        (Foreign, {}, {"TIMEOUT": 60}),
    ],
)
def test_aliases_that_do_not_collide_are_accepted(backend, one, other):
    """Aliases that agree in their settings, or differ in location, prefix, version or key function, are accepted."""
    caches = {"default": {"BACKEND": backend, **one}, "b": {"BACKEND": backend, **other}}
    assert list(read_caches(caches)) == ["default", "b"]


def test_configuration_of_a_tutorial_is_read_without_a_warning():
    """The file-cache example of Django's documentation is read without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_caches(
            {
                "default": {
                    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                    "LOCATION": "/var/tmp/django_cache",
                    "TIMEOUT": 60,
                    "OPTIONS": {"MAX_ENTRIES": 1000},
                }
            }
        )
    assert read[DEFAULT_ALIAS].backend is FileBasedCache


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"secret": "short"}, "secret"),
        ({"serializer": "picle"}, "pickle"),
        ({"compressor": "zip"}, "zlib"),
        ({"max_value_bytes": None}, "max_value_bytes"),
    ],
)
def test_codec_options_are_checked_at_start(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    """A secret that is too short, or a serializer that does not exist, is told when the configuration is read."""
    caches = {"default": {"BACKEND": FILE, "LOCATION": str(tmp_path), "OPTIONS": options}}
    with pytest.raises(ConfigurationError, match=r"CACHES\['default'\]\['OPTIONS'\]") as caught:
        read_caches(caches)
    assert told in str(caught.value)
    assert "short" not in str(caught.value).replace("shorter", "")


class Networked(Keyed):
    options = {**network.NETWORK_OPTIONS}  # noqa: RUF012 -- as backends write it


@pytest.mark.parametrize(
    ("fallbacks", "told"),
    [
        ({"a": "memroy"}, "'fallback:memroy'; expected one of the aliases .* Did you mean 'memory'?"),
        ({"a": "a"}, "a -> a"),
        ({"a": "b", "b": "a"}, r"a -> b -> a\. Give one of them"),
        ({"a": "foreign"}, "expected a cache of Storeroom's, and its BACKEND is Foreign"),
    ],
)
def test_fallback_that_cannot_answer_is_told_at_start(fallbacks: dict[str, str], told: str) -> None:
    """A fallback that is unknown, circular or foreign is refused at start, not during the first outage."""
    caches: dict[str, Any] = {
        "default": {"BACKEND": LOCMEM},
        "memory": {"BACKEND": LOCMEM, "LOCATION": "memory"},
        "foreign": {"BACKEND": Foreign},
    }
    for name, fallback in fallbacks.items():
        caches[name] = {
            "BACKEND": Networked,
            "LOCATION": name,
            "OPTIONS": {"on_error": f"fallback:{fallback}"},
        }
    with pytest.raises(ConfigurationError, match=told):
        read_caches(caches)
    caches |= {name: {**caches[name], "OPTIONS": {"on_error": "fallback:memory"}} for name in fallbacks}
    assert list(read_caches(caches)) == list(caches)


def test_fallback_among_tiers_is_told_at_start() -> None:
    """A tier that falls back on the cache it is a tier of leads in a circle, with an alias of its own and without."""
    tiered = {"BACKEND": "storeroom.backends.tiered.TieredCache"}
    server = {"BACKEND": Networked, "LOCATION": "s", "OPTIONS": {"on_error": "fallback:default"}}
    caches: dict[str, Any] = {"memory": {"BACKEND": LOCMEM}, "server": server}
    named = caches | {"default": {**tiered, "OPTIONS": {"tiers": ["memory", "server"]}}}
    with pytest.raises(ConfigurationError, match=r"CACHES\['server'\].*server -> default -> server"):
        read_caches(named)
    del caches["server"]
    written = caches | {"default": {**tiered, "OPTIONS": {"tiers": ["memory", server]}}}
    with pytest.raises(ConfigurationError, match=r"\['default'\]\['OPTIONS'\]\['tiers'\]\[1\].*default -> default"):
        read_caches(written)
    server["OPTIONS"] = {"on_error": "fallback:memory"}
    assert list(read_caches(written)) == list(written)
