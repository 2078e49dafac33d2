"""Where a function comes from: the name of its module in keys, and a fingerprint of its code.

A function that others can import is known by its name alone. One of a script or a notebook, of an interpreter, or
within a function is known to nobody else, and is replaced by another of its name whenever somebody edits it and runs it
again: its keys change with the code.
"""

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import blake2b
from types import CodeType, FunctionType
from typing import Any, Final

from storeroom.registry.program import main_name

__all__ = ["MAIN", "main_module", "origin_of"]

MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""The module that a program was started with; the second in a process that multiprocessing has spawned."""

_CONSTANT: Final = frozenset({str, bytes, bool, int, float, complex, slice, type(None), type(...)})


def origin_of(function: Callable[..., Any]) -> str:
    """Return the name of the function's module in keys, and a fingerprint where it cannot be imported by its name."""
    module, is_main = _module_of(function)
    code = getattr(function, "__code__", None)
    # "<locals>", and the files of an interpreter and of exec(): "<stdin>".
    is_local = "<" in f"{function.__qualname__}{getattr(code, 'co_filename', '')}"
    is_replaced = code is not None and (is_local or is_main)
    return f"{module}#{_fingerprint(function, by_names=is_main)}" if is_replaced else module


def _module_of(function: Callable[..., Any]) -> tuple[str, bool]:
    """Return the name of the function's module in keys, and whether it is none that can be imported."""
    name, names = function.__module__, getattr(function, "__globals__", None)
    module = sys.modules.get(name)
    if name in MAIN:
        names = vars(module) if names is None else names
        spec = names.get("__spec__")
        if spec is not None and spec.name not in MAIN:  # python -m package.module
            return str(spec.name), False
    elif names is None or (getattr(module, "__spec__", None) is not None and vars(module) is names):
        return name, False
    return main_name(names), True


@cache
def main_module() -> str:
    """Return the name of the module ``__main__`` in keys."""
    names = vars(sys.modules["__main__"])
    spec = names.get("__spec__")
    return main_name(names) if spec is None or spec.name in MAIN else str(spec.name)


def _fingerprint(function: Callable[..., Any], *, by_names: bool) -> str:
    """Return a text that changes with the code of a function, its defaults, and the names of the module that it reads.

    Of these names constants count, and functions of the same module. The code is the interpreter's, as there need not
    be a source; so it changes with the version of Python as well.
    """
    parts = "\0".join(_described(function, by_names=by_names, seen=set()))
    return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _described(function: Any, *, by_names: bool, seen: set[CodeType]) -> Iterator[str]:
    """Yield the parts of a function, and of those that it calls and which are not among the `seen`."""
    seen.add(function.__code__)
    yield from _code(function.__code__)
    defaults = {**dict(enumerate(function.__defaults__ or ())), **(function.__kwdefaults__ or {})}
    yield from (f"{name}={_value(value)}" for name, value in defaults.items())
    for name in sorted(_looked_up(function.__code__)) if by_names else ():
        value = function.__globals__.get(name)
        value = getattr(value, "__wrapped__", value)
        if isinstance(value, FunctionType):
            if value.__globals__ is function.__globals__ and value.__code__ not in seen:
                yield name
                yield from _described(value, by_names=True, seen=seen)
        elif name in function.__globals__:
            yield f"{name}={_value(value)}"


def _code(code: CodeType) -> Iterator[str]:
    """Yield the parts of code that decide what it does: neither names of files nor numbers of lines."""
    yield repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags))
    yield repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield _value(constant)


def _value(value: Any) -> str:
    """Write a constant; of any other value the type alone, as it may change at any time."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, frozenset):  # in an order that no hash decides
        return f"{{{', '.join(sorted(map(_value, value)))}}}"
    kind = type(value)
    return repr(value) if kind in _CONSTANT else f"<{kind.__qualname__}>"


def _looked_up(code: CodeType) -> set[str]:
    """Return the names of the module that code reads, here and in the functions within it, and never sets."""
    read, written = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            read.add(str(step.argval))
        elif step.opname in {"STORE_GLOBAL", "DELETE_GLOBAL"}:
            written.add(str(step.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            read |= _looked_up(constant)
    return {name for name in read - written if not name.startswith("__")}  # __name__ is another one in a child
