"""Caches without a CACHES dict: storeroom.FileCache("dir") and its like."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import storeroom
from storeroom import ConfigurationError, openers
from storeroom.registry.backend_paths import PATHS

NAMES = list(openers.__all__)


def test_each_backend_has_a_name() -> None:
    """Every class of Storeroom's backends can be had by a name of the package."""
    assert sorted(getattr(storeroom, name).path for name in NAMES) == sorted(PATHS)


def test_a_cache_is_of_the_backend_s_class_and_of_these_settings(tmp_path: Path, monkeypatch: Any) -> None:
    """Settings and options are those of an alias; a relative directory is in the working directory of the call."""
    monkeypatch.chdir(tmp_path)
    cache = storeroom.FileCache("here", timeout="1h", key_prefix="shop", version=2, jitter=0.1, max_entries=50)
    monkeypatch.chdir("/")
    cache.set("a", 1)
    assert (tmp_path / "here").is_dir()
    assert cache.make_key("a") == "shop:2:a"
    assert (cache.default_timeout, cache.settings.options["jitter"]) == (3600.0, 0.1)
    assert type(cache).__name__ == "FileBasedCache"
    assert isinstance(cache, storeroom.FileCache)
    assert not isinstance(cache, storeroom.LocMemCache)


def test_bounds_are_roomy_unless_they_are_given() -> None:
    """A script's cache has the room of the embedded default, rather than Django's 300 entries."""
    options = storeroom.LocMemCache("roomy").settings.options
    assert (options["max_entries"], options["max_bytes"]) == (10_000, 64 * 2**20)
    assert storeroom.LocMemCache("small", max_entries=7, max_bytes=None).settings.options["max_bytes"] is None


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: storeroom.FileCache("d", max_entires=5), "FileCache(max_entires=...) is not an option"),
        (lambda: storeroom.FileCache("d", timeout="soon"), "FileCache(timeout=...) is 'soon'; expected seconds"),
        (lambda: storeroom.RedisCache("http://x"), "RedisCache(location=...) is 'http://x'; expected a URL"),
        (lambda: storeroom.TieredCache(tiers=["a"]), "TieredCache(tiers=...) is a list; expected"),
        (lambda: storeroom.LocMemCache(serializer="json"), "LocMemCache(serializer=...) is not an option"),
    ],
)
def test_a_mistake_is_told_in_the_words_of_the_call(call: Any, told: str) -> None:
    """Errors name the argument that was passed, not an item of a CACHES dict that nobody wrote."""
    with pytest.raises(ConfigurationError, match=f"^{re.escape(told)}"):
        call()


def test_a_missing_location_is_told() -> None:
    """A file cache needs a directory."""
    with pytest.raises(TypeError, match=r"FileCache\(\): missing a required argument: 'location'"):
        storeroom.FileCache()  # type: ignore[call-arg]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_arguments(name: str) -> None:
    """Editors and help() find a docstring and the arguments."""
    opener = getattr(storeroom, name)
    assert opener.__doc__
    assert {"timeout", "key_prefix", "version", "options"} <= inspect.signature(opener).parameters.keys()


def test_a_name_is_no_class_to_derive_from() -> None:
    """A class of a program's own derives from the backend's, as the error says."""
    with pytest.raises(TypeError, match=r"derive it from storeroom\.backends\.filebased\.FileBasedCache"):
        type("Mine", (storeroom.FileCache,), {})
