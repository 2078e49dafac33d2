"""The backend that docs/backends/custom.md shows keeps the contract, and is as short as the page says."""

import linecache
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from storeroom.backends import base
from storeroom.backends.base import BaseCache
from storeroom.backends.locmem import LocMemCache
from storeroom.storage.hooks import REQUIRED

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
TestShelveCache.in_both_modes = frozenset()  # its async methods are its own, in a thread
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


def test_a_constructor_that_surely_forgets_its_parent_is_named_when_the_class_is_made() -> None:
    """All that these do with the instance is to set attributes, so that nothing can call the parent's."""

    def does_nothing(self, location, params):
        pass

    def sets_attributes(self, location, params):
        self.path, self.params = str(location), params
        self.shelf = self_made = dict(params)
        self_made.clear()

    for init in (does_nothing, sets_attributes):
        with pytest.raises(
            TypeError, match=r"^ForgetfulCache.__init__\(.*\) has not called super\(\).__init__\(params\)"
        ):
            type("ForgetfulCache", (LocMemCache,), {"__init__": init})


def test_a_constructor_that_may_call_its_parent_is_left_alone() -> None:
    """A function or a method that gets the instance may do it, as may what a decorator wraps."""

    def set_up(self, location, params):
        super(type(self), self).__init__(location, params)

    def by_a_function(self, location, params):
        set_up(self, location, params)

    def by_a_method(self, location, params):
        self.set_up(location, params)

    def by_another_name(self, location, params):
        this = self
        this.set_up(location, params)

    def by_a_closure(self, location, params):
        for set_up_self in (lambda: self.set_up(location, params),):
            set_up_self()

    def decorated(*args):
        return set_up(*args)

    for init in (set_up, by_a_function, by_a_method, by_another_name, by_a_closure, decorated):
        cache_class = type("DelegatingCache", (LocMemCache,), {"__init__": init, "set_up": set_up})
        assert cache_class("", {}).get("k") is None


def test_a_constructor_that_forgets_its_parent_at_times_is_named_when_it_ends() -> None:
    """The error names the class whose constructor it was, in a class that is derived from it, too."""

    class ForgetfulCache(LocMemCache):
        def __init__(self, location, params):
            if location:
                super().__init__(location, params)

    class HeirCache(ForgetfulCache):
        def __init__(self, location, params):
            super().__init__(location, params)

    for cache_class in (ForgetfulCache, HeirCache):
        with pytest.raises(TypeError, match=r"ForgetfulCache.__init__\(.*\) has not called super"):
            cache_class("", {})


def constructor(parameters: str) -> Callable[..., None]:
    """Return one that takes these parameters, and calls its parent's."""
    return eval(f"lambda {parameters}: LocMemCache.__init__(self, '', {{}})", {"LocMemCache": LocMemCache})


@pytest.mark.parametrize(
    "parameters",
    [
        "self, params",
        "self",
        "self, location, params, more",
        "self, location, params, *, more",
        "self, *, location, params",
        "self, **params",
    ],
)
def test_a_constructor_that_takes_other_arguments_is_named_when_the_class_is_made(parameters) -> None:
    """A cache is built as ``Class(location, params)``; so is one whose constructor is inherited."""
    body = {"__init__": constructor(parameters)}
    parent = type("WrongCache", (LocMemCache,), body, abstract=True)
    for bases, attributes in (((LocMemCache,), body), ((parent,), {})):
        with pytest.raises(
            TypeError, match=r"^WrongCache.__init__\(\) does not take the arguments \(location, params\)"
        ):
            type("WrongCache", bases, attributes)


@pytest.mark.parametrize(
    "parameters",
    [
        "self, location, params",
        "self, location='', params=()",
        "self, location, params, more=None, *, most=None",
        "self, *args, **kwargs",
        "self, location, *args",
    ],
)
def test_a_constructor_that_takes_location_and_params_fits(parameters) -> None:
    """Further parameters with defaults are the class's own affair."""
    cache_class = type("RightCache", (LocMemCache,), {"__init__": constructor(parameters)})
    assert cache_class("", {}).get("k") is None


def test_a_class_without_a_constructor_is_told_to_define_one() -> None:
    """The parent's takes params alone: which engine the location means, the class alone knows."""
    hooks = {name: getattr(LocMemCache, name) for name in REQUIRED}
    with pytest.raises(TypeError, match=r"^BareCache must define __init__\(location, params\)"):
        type("BareCache", (BaseCache,), hooks)


def test_attributes_of_a_handle_are_found_by_the_interpreter_alone() -> None:
    """No class of a backend has a __getattr__(), with which Python looks up every attribute the long way."""
    for cache_class in (BaseCache, LocMemCache, TestShelveCache):
        assert not hasattr(cache_class, "__getattr__")
        assert cache_class.__getattribute__ is object.__getattribute__
