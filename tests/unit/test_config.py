"""Reading one alias: the forms accepted, and the message for each mistake."""

import math
import re
from datetime import timedelta

import pytest

from storeroom import config, keys
from storeroom.config import Option, read_params
from storeroom.exceptions import ConfigurationError
from storeroom.wording import shown

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


def options_of(**written):
    return read_params({"OPTIONS": written}, OPTIONS).options


# One alias ----------------------------------------------------------------------------------------


def test_empty_alias_has_the_defaults_of_django():
    """An alias without settings has Django's defaults: 300 seconds, no prefix, version 1, 300 entries."""
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
    """Each accepted form of a setting is read as its value."""
    assert getattr(read_params(params, OPTIONS), field) == value


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("MAX_ENTRIES", 10, 10),
        ("max_entries", "10", 10),
        ("MAX_ENTRIES", 10e9, 10_000_000_000),  # as django-cachalot's settings write it
        ("max_bytes", 1e6, 1_000_000),
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
    """An option is read in either case, from text as in a URL, and noted as given."""
    settings = read_params({"OPTIONS": {name: written}}, OPTIONS)
    assert settings.options[name.lower()] == value
    assert settings.given == {name.lower()}


def test_options_beside_options_are_accepted_as_in_django():
    """An option at the top level of an alias counts like one within OPTIONS."""
    settings = read_params({"max_entries": 5, "OPTIONS": {"CULL_FREQUENCY": 2}}, OPTIONS)
    assert (settings.options["max_entries"], settings.options["cull_frequency"]) == (5, 2)


def test_options_of_a_class_that_declares_none_are_passed_through():
    """For a class that declares no options, OPTIONS are kept as written."""
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
        ({"OPTIONS": {"MAX_ENTRIES": 2.5}}, r"['MAX_ENTRIES'] is 2.5; expected a whole number, at least 1"),
        ({"OPTIONS": {"MAX_ENTRIES": math.inf}}, r"['MAX_ENTRIES'] is inf; expected a whole number, at least 1"),
        ({"OPTIONS": {"qqq": 9}}, r"['OPTIONS']['qqq'] is not an option of Keyed. Its options are: advise, copy, cul"),
        ({"OPTIONS": {"MAX_ENTRIES": 1, "max_entries": 2}}, r"['max_entries'] is given twice, in two spellings"),
        ({"OPTIONS": {"max_entries": 1}, "max_entries": 2}, r"has 'max_entries' twice, in OPTIONS and beside it"),
        ({"OPTIONS": {"max_entries": -1}}, r"['max_entries'] is -1; expected a whole number, at least 1, or None"),
        ({"OPTIONS": {"max_entries": "many"}}, r"['max_entries'] is 'many'; expected a whole number, at least 1"),
        ({"OPTIONS": {"max_bytes": 0}}, r"""['max_bytes'] is 0; expected a size in bytes, such as 1048576, "64MB" """),
        ({"OPTIONS": {"max_bytes": "64 quid"}}, r"['max_bytes'] is '64 quid'; expected a size in bytes"),
        ({"OPTIONS": {"advise": "now"}}, r"""['advise'] is 'now'; expected True, False or "always" """),
        ({"OPTIONS": {"copy": "maybe"}}, r"['copy'] is 'maybe'; expected True or False"),
        ({"OPTIONS": {"ratio": "half"}}, r"['ratio'] is 'half'; expected a number, at least 0"),
        ({"OPTIONS": {"ratio": True}}, r"['ratio'] is True; expected a number"),
        ({"OPTIONS": {"delay": -0.5}}, r"['delay'] is -0.5; expected seconds, at least 0"),
        ({"OPTIONS": {"name": 3}}, r"['name'] is 3; expected a string"),
        ({"OPTIONS": {"mode": "wirte"}}, r"['mode'] is 'wirte'; expected one of 'read', 'write'."),
    ],
)
def test_mistake_in_an_alias_names_alias_key_value_and_expectation(params, message):
    """A wrong setting raises ConfigurationError with its alias, key, value and expectation."""
    with pytest.raises(ConfigurationError, match=re.escape(message.strip())) as caught:
        read_params(params, OPTIONS, alias="sessions", backend="Keyed")
    assert str(caught.value).startswith("CACHES['sessions']")


# Secrets --------------------------------------------------------------------------------------------


def test_value_of_a_secret_option_is_never_shown():
    """The error for a wrong secret hides the value and still gives the expectation."""
    with pytest.raises(ConfigurationError) as caught:
        options_of(secret=b"hunter2")
    assert "hunter2" not in str(caught.value)
    assert "['secret'] is hidden here; expected a string" in str(caught.value)


def test_alias_named_like_a_secret_hides_nothing():
    """An alias called 'secrets' does not hide the values of its other settings."""
    with pytest.raises(ConfigurationError, match=r"CACHES\['secrets'\]\['VERSION'\] is 'x'"):
        read_params({"VERSION": "x"}, OPTIONS, alias="secrets")


def test_repr_of_settings_hides_secrets():
    """The repr of settings masks secret values at any depth, and the settings keep them."""
    settings = read_params({"OPTIONS": {"secret": "hunter2", "hook": {"PASSWORD": "hunter3", "a": 1}}}, OPTIONS)
    assert "hunter" not in repr(settings)
    assert "'a': 1" in repr(settings)
    assert settings.options["secret"] == "hunter2"
