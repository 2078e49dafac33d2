"""The backend that docs/backends/custom.md shows keeps the contract, and is as short as the page says."""

import linecache
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from storeroom.backends import base
from storeroom.backends.base import BaseCache
from storeroom.backends.locmem import LocMemCache

PAGE = Path(__file__).parents[2] / "docs/backends/custom.md"
MOST_LINES = 90
MOST_NAMES = 20


def shown(name: str) -> str:
    """Return the block of the page that is a file of this name."""
    (block,) = re.findall(rf"^```python\n(# {name}\n.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return str(block)


def imported(name: str) -> ModuleType:
    """Return the block as the module that it is, with its lines known to tracebacks."""
    module, file = ModuleType(name), f"<{PAGE.name}: {name}.py>"
    sys.modules[name] = module
    code = shown(f"{name}.py")
    linecache.cache[file] = (len(code), None, code.splitlines(keepends=True), file)
    exec(compile(code, file, "exec"), vars(module))
    return module


imported("shelvecache")
TestShelveCache = imported("test_shelvecache").TestShelveCache
TestShelveCache.sequences = 10  # without a library in C, a shelf takes milliseconds for an entry


def test_the_backend_on_the_page_is_short() -> None:
    """A backend that keeps the whole contract takes few lines, and few names to learn."""
    code = shown("shelvecache.py")
    assert len(code.splitlines()[1:]) <= MOST_LINES  # the first names the file
    learnt = {name for name in base.__all__ if re.search(rf"\b{name}\b", code)}
    hooks = set(re.findall(r"def (_[a-z_]+)\(self", code)) & set(dir(BaseCache))
    assert len(learnt | hooks) <= MOST_NAMES, sorted(learnt | hooks)


def test_a_missing_hook_is_named_when_the_class_is_made() -> None:
    """The error names the class, each hook that is missing with its parameters, and the page."""
    hooks = {name: lambda *_: None for name in ("_get_many", "_set_many", "_add", "_delete_many", "_touch", "_expiry")}
    with pytest.raises(TypeError, match=r"^HalfCache must define _incr\(storage_key, delta\), _clear\(\): see docs/"):
        type("HalfCache", (BaseCache,), hooks)


def test_a_class_to_derive_from_may_lack_hooks() -> None:
    """It says so; a class that is derived from it has to define them."""

    class Unfinished(BaseCache, abstract=True):
        pass

    with pytest.raises(TypeError, match="Finished must define _get_many"):

        class Finished(Unfinished):
            pass


def test_arguments_that_the_parent_does_not_take_are_named() -> None:
    """A constructor that passes the location on, as Django's do, is told so."""

    class WrongCache(LocMemCache):
        def __init__(self, location, params):
            BaseCache.__init__(self, location, params)

    with pytest.raises(
        TypeError, match=r"WrongCache.__init__\(location, params\) calls super\(\).__init__\(\) with other"
    ):
        WrongCache("", {})


def test_a_constructor_that_forgets_its_parent_is_named() -> None:
    """The error says what was forgotten, and where to read about it."""

    class ForgetfulCache(LocMemCache):
        def __init__(self, location, params):
            pass

    class HeirCache(ForgetfulCache):
        def __init__(self, location, params):
            super().__init__(location, params)

    for cache_class in (ForgetfulCache, HeirCache):
        with pytest.raises(TypeError, match=r"ForgetfulCache.__init__\(.*\) has not called super"):
            cache_class("", {})


def test_attributes_of_a_handle_are_found_by_the_interpreter_alone() -> None:
    """No class of a backend has a __getattr__(), with which Python looks up every attribute the long way."""
    for cache_class in (BaseCache, LocMemCache, TestShelveCache):
        assert not hasattr(cache_class, "__getattr__")
        assert cache_class.__getattribute__ is object.__getattribute__
