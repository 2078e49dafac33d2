"""Reading one alias, and CACHES as a whole: what is accepted, and what each mistake is told."""

import math
import os
import re
import warnings
from datetime import timedelta
from pathlib import Path

import pytest

from storeroom import aliases, backend_paths, config, keys
from storeroom.aliases import read_caches
from storeroom.backends.dummy import DummyCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.config import Option, read_params
from storeroom.exceptions import ConfigurationError, DeprecatedBackendWarning, InvalidCacheBackendError
from storeroom.masking import mask_url, masked, shown

LOCMEM = "storeroom.backends.locmem.LocMemCache"
FILE = "storeroom.backends.filebased.FileBasedCache"
DUMMY = "storeroom.backends.dummy.DummyCache"

OPTIONS = {
    **config.ENTRY_BOUNDS,
    "copy": Option(config.boolean, True, "…"),
    "ratio": Option(config.number(), 0.5, "…"),
    "delay": Option(config.seconds, 1.0, "…"),
    "name": Option(config.text, "", "…"),
    "mode": Option(config.one_of(["read", "write"]), "read", "…"),
    "hook": Option(config.unchecked, None, "…"),
    "secret": Option(config.text, None, "…"),
}


class Keyed(BaseCache):
    """A backend class for tests that open nothing: it notes how it was built."""

    options = OPTIONS

    def __init__(self, location, params):
        super().__init__(params)
        self.location, self.params = location, params


class Foreign:
    """A class that knows nothing of Storeroom."""

    def __init__(self, location, params):
        self.location, self.params = location, params


def options_of(**written):
    return read_params({"OPTIONS": written}, OPTIONS).options


def message_of(caches, error=ConfigurationError):
    with pytest.raises(error) as caught:
        read_caches(caches)
    return str(caught.value)


# One alias ----------------------------------------------------------------------------------------


def test_empty_alias_has_the_defaults_of_django():
    settings = read_params({}, OPTIONS)
    assert (settings.timeout, settings.key_prefix, settings.version) == (300.0, "", 1)
    assert settings.key_function is keys.default_key_func
    assert settings.options["max_entries"] == 300
    assert settings.given == frozenset()


@pytest.mark.parametrize(
    ("params", "field", "value"),
    [
        ({"TIMEOUT": None}, "timeout", None),
        ({"TIMEOUT": 0}, "timeout", 0),
        ({"TIMEOUT": "5 minutes"}, "timeout", 300),
        ({"TIMEOUT": timedelta(hours=1)}, "timeout", 3600),
        ({"timeout": 7}, "timeout", 7),
        ({"KEY_PREFIX": "shop"}, "key_prefix", "shop"),
        ({"KEY_PREFIX": None}, "key_prefix", ""),
        ({"VERSION": 4}, "version", 4),
        ({"VERSION": "4"}, "version", 4),
        ({"KEY_FUNCTION": None}, "key_function", keys.default_key_func),
        ({"KEY_FUNCTION": "storeroom.keys.default_key_func"}, "key_function", keys.default_key_func),
        ({"KEY_FUNCTION": shown}, "key_function", shown),
    ],
)
def test_setting_is_read(params, field, value):
    assert getattr(read_params(params, OPTIONS), field) == value


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("MAX_ENTRIES", 10, 10),
        ("max_entries", "10", 10),
        ("max_entries", None, None),
        ("max_entries", "none", None),  # a URL and a TOML file have no None
        ("CULL_FREQUENCY", 0, 0),
        ("max_bytes", 4096, 4096),
        ("max_bytes", "64MB", 64 * 1024**2),
        ("max_bytes", "1.5 GiB", 1536 * 1024**2),
        ("max_bytes", "100", 100),
        ("max_bytes", "None", None),
        ("copy", False, False),
        ("copy", "off", False),
        ("ratio", "0.25", 0.25),
        ("delay", "90s", 90.0),
        ("mode", "write", "write"),
        ("hook", OPTIONS, OPTIONS),
    ],
)
def test_option_is_read(name, written, value):
    settings = read_params({"OPTIONS": {name: written}}, OPTIONS)
    assert settings.options[name.lower()] == value
    assert settings.given == {name.lower()}


def test_options_beside_options_are_accepted_as_in_django():
    settings = read_params({"max_entries": 5, "OPTIONS": {"CULL_FREQUENCY": 2}}, OPTIONS)
    assert (settings.options["max_entries"], settings.options["cull_frequency"]) == (5, 2)


def test_options_of_a_class_that_does_not_tell_are_passed_through():
    assert read_params({"OPTIONS": {"Anything": 1}}, None).options == {"Anything": 1}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"TIMEOUT": "5 parsecs"}, r"['TIMEOUT'] is '5 parsecs'; expected seconds, at least 0"),
        ({"TIMEOUT": -1}, r"['TIMEOUT'] is -1; expected seconds, at least 0"),
        ({"TIMEOUT": math.nan}, r"['TIMEOUT'] is nan; expected seconds"),
        ({"TIMEOUT": [300]}, r"['TIMEOUT'] is a list; expected seconds"),
        ({"TIMEOUT": 1, "timeout": 2}, r"has TIMEOUT twice, in two spellings; keep one"),
        ({"KEY_PREFIX": 7}, r"['KEY_PREFIX'] is 7; expected a string"),
        ({"VERSION": -1}, r"['VERSION'] is -1; expected a whole number, at least 0"),
        ({"VERSION": 1.5}, r"['VERSION'] is 1.5; expected a whole number"),
        ({"VERSION": True}, r"['VERSION'] is True; expected a whole number"),
        ({"KEY_FUNCTION": 5}, r"['KEY_FUNCTION'] is 5; expected a callable f(key, key_prefix, version)"),
        ({"KEY_FUNCTION": "app.nope"}, r"KEY_FUNCTION is 'app.nope', which cannot be imported"),
        ({"TIMOUT": 5}, r"has the key 'TIMOUT', which does not exist. Did you mean 'TIMEOUT'?"),
        ({"key_prefix": "x"}, r"has the key 'key_prefix', which does not exist. Did you mean 'KEY_PREFIX'?"),
        ({"zzz": 5}, r"has the key 'zzz', which does not exist. The keys are BACKEND, LOCATION, TIMEOUT"),
        ({"OPTIONS": [1]}, r"['OPTIONS'] is a list; expected a dict"),
        ({"OPTIONS": [1], "max_entries": 1}, r"['OPTIONS'] is a list; expected a dict"),
        ({"OPTIONS": {"MAX_ENTRYS": 9}}, r"['OPTIONS']['MAX_ENTRYS'] is not an option of Keyed. Did you mean 'max_en"),
        ({"OPTIONS": {"qqq": 9}}, r"['OPTIONS']['qqq'] is not an option of Keyed. Its options are: copy, cull_f"),
        ({"OPTIONS": {"MAX_ENTRIES": 1, "max_entries": 2}}, r"['max_entries'] is given twice, in two spellings"),
        ({"OPTIONS": {"max_entries": 1}, "max_entries": 2}, r"has 'max_entries' twice, in OPTIONS and beside it"),
        ({"OPTIONS": {"max_entries": -1}}, r"['max_entries'] is -1; expected a whole number, at least 1, or None"),
        ({"OPTIONS": {"max_entries": "many"}}, r"['max_entries'] is 'many'; expected a whole number, at least 1"),
        ({"OPTIONS": {"max_bytes": 0}}, r"""['max_bytes'] is 0; expected a size in bytes, such as 1048576, "64MB" """),
        ({"OPTIONS": {"max_bytes": "64 quid"}}, r"['max_bytes'] is '64 quid'; expected a size in bytes"),
        ({"OPTIONS": {"copy": "maybe"}}, r"['copy'] is 'maybe'; expected True or False"),
        ({"OPTIONS": {"ratio": "half"}}, r"['ratio'] is 'half'; expected a number, at least 0"),
        ({"OPTIONS": {"ratio": True}}, r"['ratio'] is True; expected a number"),
        ({"OPTIONS": {"delay": -0.5}}, r"['delay'] is -0.5; expected seconds, at least 0"),
        ({"OPTIONS": {"name": 3}}, r"['name'] is 3; expected a string"),
        ({"OPTIONS": {"mode": "wirte"}}, r"['mode'] is 'wirte'; expected one of 'read', 'write'."),
    ],
)
def test_mistake_in_an_alias_names_alias_key_value_and_expectation(params, message):
    with pytest.raises(ConfigurationError, match=re.escape(message.strip())) as caught:
        read_params(params, OPTIONS, alias="sessions", backend="Keyed")
    assert str(caught.value).startswith("CACHES['sessions']")


# Secrets --------------------------------------------------------------------------------------------


def test_value_of_a_secret_option_is_never_shown():
    with pytest.raises(ConfigurationError) as caught:
        options_of(secret=b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert "['secret'] is hidden here; expected a string" in str(caught.value)


def test_alias_named_like_a_secret_hides_nothing():
    with pytest.raises(ConfigurationError, match=r"CACHES\['secrets'\]\['VERSION'\] is 'x'"):
        read_params({"VERSION": "x"}, OPTIONS, alias="secrets")


def test_repr_of_settings_hides_secrets():
    settings = read_params({"OPTIONS": {"secret": "hunter2", "hook": {"PASSWORD": "hunter3", "a": 1}}}, OPTIONS)
    assert "hunter" not in repr(settings)
    assert "'a': 1" in repr(settings)
    assert settings.options["secret"] == "hunter2"


def test_repr_of_an_alias_hides_passwords():
    written = {
        "BACKEND": Foreign,
        "LOCATION": ["redis://u:hunter2@h/0", "redis://h/1"],
        "OPTIONS": {"token": "hunter2"},
    }
    alias = read_caches({"default": written})["default"]
    assert "hunter2" not in repr(alias)
    assert "redis://h/1" in repr(alias)


@pytest.mark.parametrize(
    ("text", "shown_text"),
    [
        ("redis://user:pw@host:1/0", "redis://***@host:1/0"),
        ("redis://:p@ss/w?rd@host/0", "redis://***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("x://h/?password=pw&db=1", "x://h/?password=***&db=1"),
        ("x://h/?a=b&redis_TOKEN=pw#f", "x://h/?a=b&redis_TOKEN=***#f"),
        ("/var/cache/app", "/var/cache/app"),
    ],
)
def test_mask_url_hides_credentials(text, shown_text):
    assert mask_url(text) == shown_text


def test_masked_leaves_other_values_alone():
    assert masked(7) == 7
    assert masked(None, "secret") is None
    assert masked({"secret": "x", "n": ("redis://a:b@c", 1)}) == {"secret": "***", "n": ["redis://***@c", 1]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(Path("a"), "'a'"), (int, "the class int"), (object(), "an object"), ({}, "a dict"), (None, "None"), (1.5, "1.5")],
)
def test_shown_tells_a_value(value, text):
    assert shown(value) == text


# CACHES as a whole -------------------------------------------------------------------------------------


def test_alias_is_read_and_built():
    written = {"BACKEND": Keyed, "LOCATION": "here", "TIMEOUT": "5m", "OPTIONS": {"MAX_ENTRIES": 5}}
    alias = read_caches({"default": written})["default"]
    handle = alias.build()
    assert (handle.location, handle.default_timeout) == ("here", 300)
    assert handle.params == {"TIMEOUT": "5m", "OPTIONS": {"MAX_ENTRIES": 5}}
    assert alias.settings == handle.settings


def test_each_handle_gets_a_dict_of_its_own():
    """A class may take things out of it, as Django's do; the next handle still gets them."""
    written = {"BACKEND": Foreign, "OPTIONS": {"a": 1}}
    alias = read_caches({"default": written})["default"]
    alias.build().params["OPTIONS"].clear()
    written["OPTIONS"].clear()
    assert alias.build().params == {"OPTIONS": {"a": 1}}


def test_settings_of_a_foreign_class_are_its_own_business():
    alias = read_caches({"default": {"BACKEND": Foreign, "whatever": 1, "TIMEOUT": "x"}})["default"]
    assert alias.settings is None
    assert alias.build().params == {"whatever": 1, "TIMEOUT": "x"}


@pytest.mark.parametrize(
    ("path", "backend"),
    [
        (LOCMEM, LocMemCache),
        (FILE, FileBasedCache),
        (DUMMY, DummyCache),
        ("django.core.cache.backends.locmem.LocMemCache", LocMemCache),
        ("django.core.cache.backends.filebased.FileBasedCache", FileBasedCache),
        ("django.core.cache.backends.dummy.DummyCache", DummyCache),
        (LocMemCache, LocMemCache),
    ],
)
def test_backend_is_found(path, backend):
    assert backend_paths.resolve(path, "CACHES['default']") is backend


def test_every_path_of_django_stands_for_a_path_of_ours():
    assert set(backend_paths.DJANGO_PATHS.values()) == set(backend_paths.PATHS)


def test_custom_backend_is_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "custom_backend_a.py").write_text("class Custom:\n    def __init__(self, location, params): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    alias = read_caches({"default": {"BACKEND": "custom_backend_a.Custom"}})["default"]
    assert type(alias.build()).__name__ == "Custom"


NO_BACKEND_YET = [
    ("storeroom.backends.redis.RedisCache", "'storeroom.backends.redis.RedisCache'; this version"),
    ("django_redis.cache.RedisCache", "stands for 'storeroom.backends.redis.RedisCache' outside Django"),
    ("django.core.cache.backends.redis.RedisCache", "stands for 'storeroom.backends.redis.RedisCache'"),
    ("django.core.cache.backends.db.DatabaseCache", "stands for 'storeroom.backends.db.DatabaseCache'"),
    ("django.core.cache.backends.memcached.PyLibMCCache", "stands for 'storeroom.backends.memcached.PyLibMCCache'"),
]


@pytest.mark.parametrize(("path", "message"), NO_BACKEND_YET)
def test_backend_that_this_version_lacks_is_told_from_a_wrong_one(path, message):
    text = message_of({"default": {"BACKEND": path}}, InvalidCacheBackendError)
    assert text.startswith(f"CACHES['default']['BACKEND'] is {path!r}")
    assert message in text
    assert "does not have that backend yet" in text
    assert LOCMEM in text


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("storeroom.backends.locmem.LocMemCach", f"has no 'LocMemCach'. Did you mean '{LOCMEM}'?"),
        ("storeroom.backend.locmem.LocMemCache", f"no module 'storeroom.backend'. Did you mean '{LOCMEM}'?"),
        (
            "storeroom.backends.filbased.FileBasedCache",
            f"no module 'storeroom.backends.filbased'. Did you mean '{FILE}'?",
        ),
        ("locmem.LocMemCache", f"there is no module 'locmem'. Did you mean '{LOCMEM}'?"),
        ("LocMemCache", f"expected the dotted path of a class, such as '{FILE}'. Did you mean '{LOCMEM}'?"),
        ("locmem", f"Did you mean '{LOCMEM}'?"),
        ("no_such_app.caching.Own", "there is no module 'no_such_app'. Expected the dotted path of a class; St"),
        (".relative.Path", "expected the dotted path of a class"),
        ("", "is ''; expected the dotted path of a class"),
        (42, "is 42; expected the dotted path of a class"),
        (None, "is None; expected the dotted path of a class"),
        (shown, "is a function; expected the dotted path of a class"),
        ("storeroom.masking.shown", "is 'storeroom.masking.shown', which is a function; expected a class"),
    ],
)
def test_wrong_backend_is_refused_with_the_near_name(backend, message):
    text = message_of({"default": {"BACKEND": backend}}, InvalidCacheBackendError)
    assert text.startswith(f"CACHES['default']['BACKEND'] is {shown(backend)}")
    assert message in text


def test_wrong_path_of_django_is_answered_with_one_of_django():
    text = message_of({"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCach"}})
    assert "Did you mean 'django.core.cache.backends.locmem.LocMemCache'?" in text


def test_removed_memcached_class_is_deprecated():
    """It stands for PyMemcacheCache; the warning points at the line that configures."""
    caches = {"default": {"BACKEND": "django.core.cache.backends.memcached.MemcachedCache"}}
    with pytest.warns(DeprecatedBackendWarning, match="removed in 4.1.*memcached.PyMemcacheCache") as caught:
        message = message_of(caches)
    assert caught[0].filename == __file__
    assert "storeroom.backends.memcached.PyMemcacheCache" in message


def test_missing_extra_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    (tmp_path / "custom_backend_b.py").write_text("import no_such_driver.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backend_paths.EXTRAS, "no_such_driver", "redis")
    text = message_of({"default": {"BACKEND": "custom_backend_b.Custom"}}, InvalidCacheBackendError)
    assert "CACHES['default']['BACKEND'] is 'custom_backend_b.Custom', which needs the module 'no_such_driver'" in text
    assert 'pip install "storeroom[redis]"' in text


def test_driver_that_a_class_requires_is_looked_for_at_start(monkeypatch):
    class Remote(Keyed):
        requires = ("no_such_driver",)

    assert "Install the package that provides the module 'no_such_driver'" in message_of(
        {"default": {"BACKEND": Remote}}
    )
    monkeypatch.setitem(backend_paths.EXTRAS, "no_such_driver", "redis")
    assert 'pip install "storeroom[redis]"' in message_of({"default": {"BACKEND": Remote}})
    Remote.requires = ("json",)
    assert read_caches({"default": {"BACKEND": Remote}})["default"].backend is Remote


def test_error_while_importing_a_custom_backend_is_told(tmp_path, monkeypatch):
    (tmp_path / "custom_backend_c.py").write_text("from json import no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = message_of({"default": {"BACKEND": "custom_backend_c.Custom"}}, InvalidCacheBackendError)
    assert "cannot be imported (cannot import name 'no_such_name' from 'json'" in text


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
    assert message_of(caches).startswith(message)


def test_several_mistakes_are_told_at_once():
    message = message_of({"a": {"BACKEND": Keyed, "VERSION": -1}, "b": {}, "c": GOOD})
    assert message.startswith("CACHES has 3 mistakes:\n- CACHES has no alias 'default'")
    assert "\n- CACHES['a']['VERSION'] is -1" in message
    assert "\n- CACHES['b'] has no BACKEND" in message


def test_class_that_cannot_be_built_is_refused():
    class Wrong:
        def __init__(self, location):
            pass

    message = message_of({"default": {"BACKEND": Wrong}})
    assert "cannot be built as" in message
    assert message.endswith("Expected a class whose __init__ takes these two.")


# LOCATION ------------------------------------------------------------------------------------------------


class OnDisk(Keyed):
    location_is_path = True


def test_relative_path_is_relative_to_the_directory_given():
    caches = {"default": {"BACKEND": OnDisk, "LOCATION": "var/cache"}, "b": {"BACKEND": Keyed, "LOCATION": "var"}}
    read = read_caches(caches, "/srv/app")
    assert read["default"].location == "/srv/app/var/cache"
    assert read["b"].location == "var"  # a name


def test_relative_path_is_else_relative_to_the_current_directory(tmp_path, monkeypatch):
    """It is settled when the configuration is read: chdir() does not move a cache."""
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
    read = read_caches({"default": {"BACKEND": OnDisk, "LOCATION": location}}, "/srv/app")
    assert read["default"].location == expected


def test_class_checks_its_location():
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
    (tmp_path / "file").touch()
    text = message_of({"default": {"BACKEND": FILE, "LOCATION": location.format(file=tmp_path / "file")}})
    assert text.startswith("CACHES['default']['LOCATION'] is ")
    assert message in text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can write everywhere")
def test_unwritable_directory_is_told_at_start(tmp_path):
    tmp_path.chmod(0o500)
    text = message_of({"default": {"BACKEND": FILE, "LOCATION": str(tmp_path / "cache")}})
    assert f"cannot write to {str(tmp_path)!r}" in text


def test_reading_opens_no_storage(tmp_path):
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
        (Keyed, {"OPTIONS": {"secret": "hunter2"}}, {"OPTIONS": {"secret": "hunter3"}}, "OPTIONS['secret']"),
    ],
)
def test_aliases_that_share_keys_under_different_settings_are_refused(backend, one, other, differing):
    message = message_of({"default": {"BACKEND": backend, **one}, "b": {"BACKEND": backend, **other}})
    assert message.startswith("CACHES['default'] and CACHES['b'] have the same LOCATION ")
    assert f"differ in {differing}. Give one of them another LOCATION or KEY_PREFIX" in message
    assert "hunter" not in message


@pytest.mark.parametrize(
    ("backend", "one", "other"),
    [
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
    caches = {"default": {"BACKEND": backend, **one}, "b": {"BACKEND": backend, **other}}
    assert list(read_caches(caches)) == ["default", "b"]


def test_configuration_of_a_tutorial_is_read_without_a_warning():
    """Django's documentation, word for word but for the directory."""
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
    assert read[aliases.DEFAULT_ALIAS].backend is FileBasedCache
