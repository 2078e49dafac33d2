"""The class of a backend, judged when it is made: it has the hooks that are required, and a constructor that fits."""

import functools
import itertools
import math
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any, TypeVar

from storeroom.storage.hooks import REQUIRED, StorageHooks

__all__ = ["check_class", "declared_as", "page", "seen_through"]

T = TypeVar("T")

PAGE = "docs/backends/custom.md"
PASSED = 3  # self, location, params
VARARGS = 4  # inspect.CO_VARARGS; the module is not loaded for it


def declared_as(_: T) -> Callable[[Callable[..., Any]], T]:
    """Let type checkers see a method that is written out for speed as the one that it overrides, overloads and all."""
    return _itself


def _itself(method: Any) -> Any:
    return method


def page() -> str:
    """Return the name of the page for authors of backends, for errors."""
    return str(import_module("storeroom.manual").named(PAGE))


def check_class(cls: Any) -> None:
    """Raise TypeError if a backend lacks a hook that is required, or its constructor does not fit."""
    missing = [
        f"{name}({needed})" for name, needed in REQUIRED.items() if getattr(cls, name) is vars(StorageHooks)[name]
    ]
    if missing:
        raise TypeError(f"{cls.__name__} must define {', '.join(missing)}: see {page()}.")
    owner = next(owner for owner in cls.__mro__ if "__init__" in vars(owner))
    init = getattr(vars(owner)["__init__"], "__wrapped__", None)  # all but BaseCache's own are seen through
    if init is None:
        raise TypeError(
            f"{cls.__name__} must define __init__(location, params), with super().__init__(params) in it: see {page()}."
        )
    if isinstance(init, FunctionType):
        if not _takes_both(init):
            raise TypeError(
                f"{owner.__name__}.__init__() does not take the arguments (location, params): see {page()}."
            )
        if _forgets_its_parent(init):
            raise _forgotten(owner.__name__)


def _takes_both(init: FunctionType) -> bool:
    code = init.__code__
    fewest = code.co_argcount - len(init.__defaults__ or ())
    most = math.inf if code.co_flags & VARARGS else code.co_argcount
    required_by_name = code.co_kwonlyargcount - len(init.__kwdefaults__ or ())
    return fewest <= PASSED <= most and not required_by_name


def _forgets_its_parent(init: FunctionType) -> bool:
    """Tell whether the constructor surely calls no other one: all that it does with ``self`` is to set attributes.

    Where it is not sure, `seen_through` finds out when a cache is made.
    """
    code = init.__code__
    if init.__closure__ or "__init__" in code.co_names:
        return False
    import dis  # noqa: PLC0415 -- 3 ms, for the few constructors that look as if they forgot it

    me = code.co_varnames[0]
    for instruction, following in itertools.pairwise(dis.get_instructions(init)):
        loaded = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        if me in loaded and (loaded[-1] != me or following.opname != "STORE_ATTR"):
            return False
    return True


def _forgotten(name: str) -> TypeError:
    return TypeError(f"{name}.__init__(location, params) has not called super().__init__(params): see {page()}.")


def seen_through(init: Callable[..., None], name: str) -> Callable[..., None]:
    """Return the constructor, with an error at its end if the handle has no settings then."""

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if not hasattr(self, "settings"):
            raise _forgotten(name)

    return checked
