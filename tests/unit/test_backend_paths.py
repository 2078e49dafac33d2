"""From BACKEND to a class, and the error where there is none."""

import tomllib
from pathlib import Path

import pytest

from storeroom.backends.dummy import DummyCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import DeprecatedBackendWarning, InvalidCacheBackendError
from storeroom.registry import backend_paths
from storeroom.registry.aliases import read_caches
from storeroom.wording import installation, shown

LOCMEM = "storeroom.backends.locmem.LocMemCache"
FILE = "storeroom.backends.filebased.FileBasedCache"
DUMMY = "storeroom.backends.dummy.DummyCache"


def message_of(caches):
    with pytest.raises(InvalidCacheBackendError) as caught:
        read_caches(caches)
    return str(caught.value)


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
    """A path of Storeroom's, its counterpart of Django's and the class itself resolve to the same class."""
    assert backend_paths.resolve(path, "CACHES['default']") is backend


def test_every_path_of_django_stands_for_a_path_of_ours():
    """Django's paths map to every backend of Storeroom but the tiered one, and django-redis's to the class for it."""
    ours_alone = {"storeroom.backends.tiered.TieredCache"}
    for_others = {"storeroom.integrations.django_redis.RedisCache"}
    assert set(backend_paths.DJANGO_PATHS.values()) == set(backend_paths.PATHS) - ours_alone | for_others


def test_custom_backend_is_found_by_its_path(tmp_path, monkeypatch):
    """A program's own class is imported from its dotted path and built."""
    (tmp_path / "custom_backend_a.py").write_text("class Custom:\n    def __init__(self, location, params): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    alias = read_caches({"default": {"BACKEND": "custom_backend_a.Custom"}})["default"]
    assert type(alias.build()).__name__ == "Custom"


NOT_YET = "storeroom.backends.tomorrow.TomorrowCache"
NO_BACKEND_YET = [
    (NOT_YET, f"{NOT_YET!r}; this version"),
    ("django.core.cache.backends.tomorrow.TomorrowCache", f"stands for {NOT_YET!r}"),
]


@pytest.mark.parametrize(("path", "message"), NO_BACKEND_YET)
def test_backend_that_this_version_lacks_is_told_from_a_wrong_one(monkeypatch, path, message):
    """A path on the list whose module does not exist yet is reported as planned, not as a typing error."""
    monkeypatch.setattr(backend_paths, "PATHS", (*backend_paths.PATHS, NOT_YET))
    monkeypatch.setattr(backend_paths, "DJANGO_PATHS", {**backend_paths.DJANGO_PATHS, NO_BACKEND_YET[1][0]: NOT_YET})
    text = message_of({"default": {"BACKEND": path}})
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
        ("storeroom.wording.shown", "is 'storeroom.wording.shown', which is a function; expected a class"),
    ],
)
def test_wrong_backend_is_refused_with_the_near_name(backend, message):
    """A wrong BACKEND raises with its value, the reason and the nearest known path."""
    text = message_of({"default": {"BACKEND": backend}})
    assert text.startswith(f"CACHES['default']['BACKEND'] is {shown(backend)}")
    assert message in text


def test_wrong_path_of_django_is_answered_with_one_of_django():
    """A misspelt path of Django's is answered with Django's nearest path, not ours."""
    text = message_of({"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCach"}})
    assert "Did you mean 'django.core.cache.backends.locmem.LocMemCache'?" in text


def test_removed_memcached_class_is_deprecated():
    """The removed MemcachedCache builds PyMemcacheCache and warns at the line that configures it."""
    path = "django.core.cache.backends.memcached.MemcachedCache"
    with pytest.warns(DeprecatedBackendWarning, match="removed in 4.1.*memcached.PyMemcacheCache") as caught:
        alias = read_caches({"default": {"BACKEND": path, "LOCATION": "127.0.0.1:11211"}})["default"]
    assert caught[0].filename == __file__
    assert type(alias.build()).__name__ == "PyMemcacheCache"


def test_missing_extra_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    """A backend whose driver is missing names the module and the pip command for its extra."""
    (tmp_path / "custom_backend_b.py").write_text("import no_such_driver.client\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(backend_paths.EXTRAS, "no_such_driver", "redis")
    text = message_of({"default": {"BACKEND": "custom_backend_b.Custom"}})
    assert "CACHES['default']['BACKEND'] is 'custom_backend_b.Custom', which needs the module 'no_such_driver'" in text
    assert 'pip install "redis[hiredis]>=' in text


def test_driver_that_a_class_requires_is_looked_for_at_start(monkeypatch):
    """A module listed in requires that is not installed is reported when CACHES is read."""

    class Remote(DummyCache):
        requires = ("no_such_driver",)

    assert "Install the package that provides the module 'no_such_driver'" in message_of(
        {"default": {"BACKEND": Remote}}
    )
    monkeypatch.setitem(backend_paths.EXTRAS, "no_such_driver", "redis")
    assert 'pip install "redis[hiredis]>=' in message_of({"default": {"BACKEND": Remote}})
    Remote.requires = ("json",)
    assert read_caches({"default": {"BACKEND": Remote}})["default"].backend is Remote


def test_error_while_importing_a_custom_backend_is_told(tmp_path, monkeypatch):
    """An ImportError within a custom backend's module is quoted in the error."""
    (tmp_path / "custom_backend_c.py").write_text("from json import no_such_name\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = message_of({"default": {"BACKEND": "custom_backend_c.Custom"}})
    assert "cannot be imported (cannot import name 'no_such_name' from 'json'" in text


def test_every_extra_is_one_of_the_project():
    """Every extra that an error recommends is declared in pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(backend_paths.EXTRAS.values()) <= set(project["optional-dependencies"])


def test_an_extra_is_told_by_the_packages_that_an_index_has():
    """An error names the packages of an extra, not Storeroom; without metadata, as in a frozen program, the extra."""
    assert installation("memcached").startswith('Install it with: python3 -m pip install "pymemcache>=')
    assert "storeroom[" not in "".join(map(installation, backend_paths.EXTRAS.values()))
    assert installation("unheard-of") == "Install the packages of Storeroom's extra 'unheard-of'."
