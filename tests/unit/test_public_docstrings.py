"""The docstrings of the public API, as an editor shows them: each can be read alone."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import storeroom
from storeroom import checks
from storeroom.backends.db import DatabaseCache
from storeroom.backends.dummy import DummyCache
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.memcached import PyLibMCCache, PyMemcacheCache
from storeroom.backends.redis import RedisCache
from storeroom.backends.tiered import TieredCache
from storeroom.base import BaseCache, Lock
from storeroom.base.explanation import Explanation
from storeroom.engines import CacheStats
from storeroom.functions.cached_function import BoundFunction, CachedCoroutineFunction, CachedFunction
from storeroom.functions.results import CacheInfo
from storeroom.registry.handler import CacheHandler

CLASSES = (
    BaseCache, LocMemCache, FileBasedCache, RedisCache, DatabaseCache, PyMemcacheCache, PyLibMCCache, TieredCache,
    DummyCache, Lock, CacheHandler, CachedFunction, CachedCoroutineFunction, BoundFunction, CacheStats, CacheInfo,
    Explanation,
)  # fmt: skip

IN_SECONDS = {"timeout", "seconds", "sleep", "blocking_timeout", "soft_timeout", "hard_timeout", "max_lag"}
"""Parameters that are durations."""


UNDERSTOOD = {
    *("self", "cls", "args", "kwargs", "key", "keys", "version", "value", "location", "params", "timeout", "alias"),
    *("settings", "name", "aliases"),
}
"""Parameters of one meaning everywhere, which the page on the API tells once."""


def public() -> Iterator[tuple[str, Any]]:
    """Yield each public function and method, and its name; one that several classes share once."""
    seen = set()
    for kind in CLASSES:
        for base in kind.__mro__:
            for name, member in vars(base).items():
                function = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
                is_ours = (getattr(function, "__module__", "") or "").startswith("storeroom.")
                if is_ours and inspect.isfunction(function) and not name.startswith("_") and function not in seen:
                    seen.add(function)
                    yield f"{base.__qualname__}.{name}", function
    for name in storeroom.__all__:
        if inspect.isfunction(value := getattr(storeroom, name)):
            yield name, value
    yield from ((f"checks.{each.__name__}", each) for each in (checks.run, checks.probe))


PUBLIC = dict(public())


def test_the_walk_finds_the_api() -> None:
    """Methods of caches of every storage, of functions, locks and the registry are looked at."""
    assert len(PUBLIC) > 100
    assert {
        "BaseCache.get",
        "RedisCache.delete_pattern",
        "CacheHandler.typed",
        "Lock.extend",
        "cached",
    } <= PUBLIC.keys()


def faults_of_summary(function: Any) -> Iterator[str]:
    first = inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0]
    if len(first.split()) < 4:
        yield "is too short"
    if first.startswith("See "):
        yield "refers to another"
    if not first.rstrip().endswith((".", ":")):
        yield "is no sentence"


def test_a_docstring_can_be_read_alone() -> None:
    """It begins with a sentence that says what is done, rather than with a reference to another method."""
    found = {name: list(faults_of_summary(function)) for name, function in PUBLIC.items()}
    assert {name: faults for name, faults in found.items() if faults} == {}


def faults_of_parameters(function: Any) -> Iterator[str]:
    text = inspect.cleandoc(function.__doc__ or "")
    if re.search(r"\b[Ss]ee \w+|as get_or_set|those of \w+", text):  # of the method that has the same ones
        return
    parameters = inspect.signature(function).parameters
    yield from (each for each in parameters if each not in UNDERSTOOD and not re.search(rf"\b{each}s?\b", text))
    if IN_SECONDS & set(parameters) and not re.search(r"second|timeout", text):
        yield "no unit"


def test_a_docstring_names_its_parameters_and_units() -> None:
    """Each parameter is named, or the method that has the same ones is; durations are told with their unit."""
    found = {name: list(faults_of_parameters(function)) for name, function in PUBLIC.items()}
    assert {name: faults for name, faults in found.items() if faults} == {}


#: Errors that a call of a method may well meet, by the word in its name or its behaviour, and that callers catch.
RAISED = {
    "BaseCache.set": ("SerializationError", "ValueTooLargeError", "InvalidTimeoutError"),
    "ComputedCache.get_or_set": ("ComputationCycleError", "ComputationTimeoutError"),
    "CountingCache.incr": ("KeyNotFoundError", "ValueTypeError"),
    "BaseCache.incr_version": ("KeyNotFoundError",),
    "ListingCache.keys": ("NotSupportedError",),
    "ListingCache.stats": ("NotSupportedError", "StorageError"),
    "FileBasedCache.give_back": ("StorageError",),
    "CacheHandler.typed": ("TypeError", "InvalidCacheBackendError"),
    "CacheHandler.configure": ("ConfigurationError",),
    "WithResults.clear": ("NotSupportedError",),
    "cached": ("ConfigurationError", "TypeError"),
}


@pytest.mark.parametrize("name", sorted(RAISED))
def test_a_docstring_names_the_errors_to_catch(name: str) -> None:
    """A method that fails in ways which a caller may want to tell apart says so."""
    function = PUBLIC.get(name) or PUBLIC["TransactingCache.give_back"]
    assert [error for error in RAISED[name] if error not in (function.__doc__ or "")] == []
