"""The front door: configure(), caches and cache."""

import gc
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

import storeroom
from storeroom import cache, caches, configure
from storeroom.backends.dummy import DummyCache
from storeroom.backends.locmem import LocMemCache
from storeroom.base import BaseCache
from storeroom.exceptions import ConfigurationError, InvalidCacheBackendError
from storeroom.registry.aliases import backend_class
from storeroom.registry.configuration import OwnConfiguration
from storeroom.registry.source import Source

LOCMEM = "storeroom.backends.locmem.LocMemCache"
DUMMY = "storeroom.backends.dummy.DummyCache"
SOURCE = Path(storeroom.__file__).parents[1]


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """Without a configuration, in an empty directory that is also the user's cache directory."""
    for name in [name for name in os.environ if name.startswith(("CACHE_URL", "STOREROOM_", "DJANGO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = caches.swap(None)
    yield
    caches.swap(before)


def named(location="", **params):
    return {"BACKEND": LOCMEM, "LOCATION": location, **params}


class Counted:
    """A foreign class that counts how often it is built and closed."""

    built = closed = 0

    def __init__(self, location, params):
        Counted.built += 1

    def close(self):
        Counted.closed += 1


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(Counted, "built", 0)
    monkeypatch.setattr(Counted, "closed", 0)
    return Counted


# caches ---------------------------------------------------------------------------------------------


def test_alias_gives_its_cache():
    """caches[alias] is a cache of the configured class with its settings."""
    configure({"default": named("test-a"), "b": {"BACKEND": DUMMY, "TIMEOUT": 60}})
    assert isinstance(caches["default"], LocMemCache)
    assert isinstance(caches["b"], DummyCache)
    assert caches["b"].default_timeout == 60


def test_aliases_are_isolated():
    """Aliases with other locations or prefixes do not see the entries of each other."""
    configure({"default": named("test-b"), "b": named("test-c"), "c": named("test-b", KEY_PREFIX="c")})
    for alias in caches:
        caches[alias].set("key", alias)
    assert [caches[alias].get("key") for alias in caches] == ["default", "b", "c"]
    for handle in caches.all():
        handle.clear()


def test_alias_gives_the_same_handle_to_all_threads():
    """16 threads that ask for an alias at once get the same handle."""
    configure({"default": named("test-d")})
    barrier = threading.Barrier(16)
    handles = []

    def use():
        barrier.wait()
        handles.append(caches["default"])

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 16
    assert all(handle is caches["default"] for handle in handles)


def test_threads_that_come_first_agree_on_one_configuration():
    """Threads that look for a configuration at once all use the same one."""
    barrier = threading.Barrier(8)
    found = []

    def use():
        barrier.wait()
        found.append(caches.configuration)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(configuration is caches.configuration for configuration in found)


def test_configuration_given_while_one_is_looked_for_stays(monkeypatch):
    """A configure() during the search for a configuration counts before the found one."""

    def find_source():
        configure({"default": {"BACKEND": DUMMY}})
        return Source("found", "", {"default": named("test-e")})

    monkeypatch.setattr("storeroom.registry.sources.find_source", find_source)
    assert isinstance(caches["default"], DummyCache)
    assert isinstance(caches["default"], DummyCache)


def test_handle_is_built_on_first_use(counted):
    """A handle is built once, at its first use, and not by configure()."""
    configure({"default": {"BACKEND": Counted}, "b": {"BACKEND": Counted}})
    assert counted.built == 0
    assert caches["b"] is caches["b"]
    assert counted.built == 1


def test_backend_may_use_another_cache_while_it_is_built():
    """A backend's __init__ may use another alias."""

    class Outer(DummyCache):
        def __init__(self, location, params):
            super().__init__(location, params)
            self.inner = caches["inner"]

    configure({"default": {"BACKEND": Outer}, "inner": {"BACKEND": DUMMY}})
    assert caches["default"].inner is caches["inner"]


def test_caches_are_like_a_mapping():
    """The object caches iterates over its aliases, tells membership and length, and has its settings and source."""
    configure({"default": {"BACKEND": DUMMY}, "b": {"BACKEND": DUMMY}})
    assert (list(caches), len(caches)) == (["default", "b"], 2)
    assert "b" in caches
    assert "c" not in caches
    assert caches.settings == {"default": {"BACKEND": DUMMY}, "b": {"BACKEND": DUMMY}}
    assert caches.source.name == "storeroom.configure()"


def test_all_gives_every_cache_or_those_in_use():
    """all() returns every cache, and with initialized_only those already built."""
    configure({"default": {"BACKEND": DUMMY}, "b": {"BACKEND": DUMMY}})
    assert caches.all(initialized_only=True) == []
    used = caches["b"]
    assert caches.all(initialized_only=True) == [used]
    assert caches.all() == [caches["default"], used]


def test_close_all_closes_the_caches_in_use(counted):
    """close_all() closes the built caches and builds none, without a configuration as well."""
    caches.close_all()  # none is: nothing happens, and no configuration is looked for
    configure({"default": {"BACKEND": Counted}, "b": {"BACKEND": Counted}})
    assert caches["b"]
    caches.close_all()
    assert (counted.built, counted.closed) == (1, 1)


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("sesions", "There is no cache 'sesions' in CACHES; the aliases are 'default', 'sessions'. Did you mean 'sess"),
        ("zzz", "There is no cache 'zzz' in CACHES; the aliases are 'default', 'sessions'. (The configuration is that"),
        (5, "There is no cache 5 in CACHES; the aliases are 'default', 'sessions'. (The configuration is that"),
    ],
)
def test_unknown_alias_is_told_with_the_aliases_there_are(alias, message):
    """An unknown alias raises with the aliases there are and the nearest one."""
    configure({"default": {"BACKEND": DUMMY}, "sessions": {"BACKEND": DUMMY}})
    with pytest.raises(InvalidCacheBackendError, match=re.escape(message)):
        caches[alias]


# configure() -----------------------------------------------------------------------------------------------


def test_configure_replaces_all_aliases():
    """configure() replaces all aliases, and a handle of the old configuration goes on working."""
    configure({"default": named("test-f"), "b": {"BACKEND": DUMMY}})
    old = caches["default"]
    configure({"default": {"BACKEND": DUMMY}})
    assert isinstance(caches["default"], DummyCache)
    assert "b" not in caches
    old.set("key", 1)  # a caller that holds it can go on
    assert old.delete("key")


def test_configure_works_after_a_first_use():
    """configure() takes effect after the embedded default has been used."""
    assert caches["default"].settings.options["max_entries"] == 100_000  # the embedded default
    configure({"default": {"BACKEND": DUMMY}})
    assert isinstance(caches["default"], DummyCache)


def test_wrong_configuration_changes_nothing():
    """A refused configuration leaves the one in force and its handles as they are."""
    configure({"default": {"BACKEND": DUMMY}})
    handle = caches["default"]
    with pytest.raises(ConfigurationError, match=r"^CACHES\['default'\]\['VERSION'\] is -1; expected") as caught:
        configure({"default": {"BACKEND": DUMMY, "VERSION": -1}})
    assert caches["default"] is handle
    assert "configuration is that of" not in str(caught.value)  # the traceback shows the caller


def test_later_changes_of_the_dict_change_no_cache():
    """Changing the dict given to configure() changes no cache."""
    written = {"default": {"BACKEND": DUMMY, "TIMEOUT": 60}}
    configure(written)
    written["default"]["TIMEOUT"] = 1
    assert caches["default"].default_timeout == 60


def test_configuration_that_was_found_is_checked_on_first_use(monkeypatch):
    """A mistake in a found configuration raises at first use with its source, and may be put right."""
    monkeypatch.setenv("CACHE_URL", "locmem://?timeout=soon")
    with pytest.raises(ConfigurationError) as caught:
        caches["default"]
    assert str(caught.value).startswith("CACHES['default']['TIMEOUT'] is 'soon'; expected seconds")
    assert str(caught.value).endswith("(The configuration is that of environment variables (CACHE_URL).)")
    monkeypatch.setenv("CACHE_URL", "dummy://")
    assert isinstance(caches["default"], DummyCache)


def test_swap_puts_a_configuration_in_force_and_back():
    """swap() puts a configuration in force and returns the former, handles included, for a test to restore."""
    configure({"default": {"BACKEND": DUMMY}})
    outer = caches["default"]
    before = caches.swap(OwnConfiguration(Source("a test", "", {"default": named("test-g")})))
    assert isinstance(caches["default"], LocMemCache)
    assert isinstance(caches.swap(before), OwnConfiguration)
    assert caches["default"] is outer


def test_replaced_configuration_is_not_kept():
    """The handles of a replaced configuration are garbage-collected."""
    configure({"default": {"BACKEND": DUMMY}})
    handle = weakref.ref(caches["default"])
    configure({"default": {"BACKEND": DUMMY}})
    gc.collect()
    assert handle() is None


def test_backend_class_resolves_an_alias():
    """backend_class() resolves the class of an alias, and names the alias without BACKEND."""
    assert backend_class("default", named()) is LocMemCache
    with pytest.raises(ConfigurationError, match=r"CACHES\['a'\] has no BACKEND"):
        backend_class("a", {})


# cache ---------------------------------------------------------------------------------------------------


def test_cache_is_the_default_alias_of_the_moment():
    """The object cache acts on the default alias, and on its successor after configure()."""
    configure({"default": named("test-h")})
    cache.set("key", "value")
    assert cache.get("key") == caches["default"].get("key") == "value"
    assert "key" in cache
    assert cache == caches["default"]
    assert hash(cache) == hash(caches["default"])
    cache.clear()
    configure({"default": {"BACKEND": DUMMY}})
    cache.set("key", "value")
    assert cache.get("key") is None


def test_cache_passes_attributes_on():
    """Setting, reading and deleting an attribute of cache acts on the default handle."""
    configure({"default": {"BACKEND": DUMMY, "VERSION": 1}})
    cache.version = 7
    assert caches["default"].version == 7
    assert cache.make_key("a") == ":7:a"
    cache.note = "x"
    del cache.note
    assert not hasattr(caches["default"], "note")
    with pytest.raises(AttributeError, match="no_such_method"):
        cache.no_such_method()


def test_cache_passes_for_a_base_cache():
    """For isinstance() and dir(), cache is a BaseCache."""
    assert isinstance(cache, BaseCache)
    assert not isinstance(cache, type)
    assert "get_or_set" in dir(cache)


def test_inspecting_the_front_door_chooses_no_configuration():
    """repr, dir and attribute tests, as of test runners and debuggers, look for no configuration."""
    for thing in (cache, caches):
        repr(thing)
        dir(thing)
        assert not hasattr(thing, "__wrapped__")
        assert not callable(thing)
    assert repr(cache) == "<storeroom.cache: not used yet>"
    assert repr(caches) == "<storeroom.caches: not used yet>"
    configure({"default": {"BACKEND": DUMMY}})
    assert repr(cache) == "<storeroom.cache: storeroom.configure()>"


def test_cache_is_pickled_as_a_name():
    """The object cache unpickles to itself."""
    assert pickle.loads(pickle.dumps(cache)) is cache


# The package ------------------------------------------------------------------------------------------------


def run_python(code, **environ):
    """Run code in an interpreter of its own; return the JSON that it prints."""
    environ = os.environ | {"PYTHONPATH": str(SOURCE)} | environ
    run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_every_public_name_is_there():
    """Each name of __all__ exists, dir() lists it, and a misspelt one raises AttributeError."""
    for name in storeroom.__all__:
        assert getattr(storeroom, name) is not None
    assert set(storeroom.__all__) <= set(dir(storeroom))
    with pytest.raises(AttributeError, match="module 'storeroom' has no attribute 'chaches'"):
        storeroom.chaches  # noqa: B018 -- the error is the subject


def test_every_error_is_public():
    """The package offers all errors of storeroom.exceptions."""
    from storeroom import exceptions

    assert set(exceptions.__all__) <= set(storeroom.__all__)


def test_importing_the_package_loads_nothing_else():
    """Importing storeroom loads no other module of the package."""
    code = "import sys, json, storeroom; print(json.dumps([name for name in sys.modules if 'storeroom' in name]))"
    assert run_python(code) == ["storeroom"]


def test_importing_the_caches_loads_neither_backends_nor_the_framework():
    """Importing cache, caches and configure loads the registry, exceptions and what loads the rest later."""
    code = "import sys, json\nfrom storeroom import cache, caches, configure\nprint(json.dumps([*sys.modules]))"
    loaded = {name for name in run_python(code) if name.startswith("storeroom")}
    assert loaded == {
        "storeroom",
        *(f"storeroom.{name}" for name in ("exceptions", "late", "registry", "registry.handler")),
    }


# A running Django ------------------------------------------------------------------------------------------------

DJANGO = """
import json
from django.conf import settings
settings.configure(CACHES={
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "ours": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "ours", "TIMEOUT": 60},
})
import django.core.cache
import storeroom
from storeroom import cache, caches
"""


def test_running_django_gives_its_own_handles():
    """In a running Django, caches are Django's own handles, and the source is named after it."""
    code = DJANGO + (
        "print(json.dumps([all(caches[alias] is django.core.cache.caches[alias] for alias in caches),"
        " type(caches['default']).__module__, type(caches['ours']).__module__, str(caches.source), list(caches)]))"
    )
    assert run_python(code) == [
        True,
        "django.core.cache.backends.locmem",
        "storeroom.backends.locmem",
        "Django's settings.CACHES (settings.configure())",
        ["default", "ours"],
    ]


def test_running_django_shares_its_entries_and_closes_its_caches():
    """In a running Django, entries are those of Django's caches, and close_all() closes these."""
    code = DJANGO + (
        "caches['ours'].set('key', 1); cache.set('key', 2); caches.close_all()\n"
        "print(json.dumps([django.core.cache.caches['ours'].get('key'), django.core.cache.cache.get('key'),"
        " len(caches.all(initialized_only=True)), repr(cache)]))"
    )
    assert run_python(code) == [1, 2, 2, "<storeroom.cache: Django's settings.CACHES (settings.configure())>"]


def test_settings_that_a_django_test_overrides_are_followed():
    """Within override_settings, cache and caches follow the overriding CACHES."""
    code = DJANGO + (
        "from django.test import override_settings\n"
        "seen = [cache.default_timeout]\n"
        "other = {'BACKEND': 'storeroom.backends.dummy.DummyCache', 'TIMEOUT': 9}\n"
        "with override_settings(CACHES={'default': other}):\n"
        "    seen += [cache.default_timeout, list(caches)]\n"
        "print(json.dumps([*seen, cache.default_timeout]))"
    )
    assert run_python(code) == [300, 9, ["default"], 300]


def test_unknown_alias_in_a_running_django_is_told_as_ever():
    """In a running Django, an unknown alias raises with the nearest one."""
    code = DJANGO + (
        "try: caches['oars']\nexcept storeroom.InvalidCacheBackendError as error: print(json.dumps(str(error)))"
    )
    message = "There is no cache 'oars' in CACHES; the aliases are 'default', 'ours'. Did you mean 'ours'?"
    assert run_python(code).startswith(message)


def test_configure_wins_over_a_running_django():
    """configure() counts before a running Django, and Django's paths then stand for Storeroom's classes."""
    code = DJANGO + (
        "storeroom.configure({'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}})\n"
        "print(json.dumps(type(caches['default']).__module__))"
    )
    assert run_python(code) == "storeroom.backends.locmem"


def test_django_is_never_imported():
    """A cache used without a Django imports none."""
    code = "import json, sys, storeroom\nstoreroom.cache.get('key')\nprint(json.dumps('django' in sys.modules))"
    assert run_python(code, CACHE_URL="locmem://") is False


def test_typed_returns_the_cache_of_that_class() -> None:
    """typed() gives the alias's handle, and refuses one of another class; names that stand for a class count, too."""
    configure({"default": named("typed")})
    assert caches.typed("default", LocMemCache) is caches["default"]
    assert caches.typed("default", storeroom.LocMemCache) is caches["default"]
    with pytest.raises(TypeError, match=r"CACHES\['default'\]\['BACKEND'\] is '.*LocMemCache', which is no RedisCache"):
        caches.typed("default", storeroom.RedisCache)
    with pytest.raises(InvalidCacheBackendError, match="There is no cache 'nowhere'"):
        caches.typed("nowhere", LocMemCache)
