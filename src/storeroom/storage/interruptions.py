"""Errors that come into a piece of work from outside, and belong to its caller.

A signal's handler may raise any exception at any moment, as Celery's soft limits do, and a thread may set one for
another. Where that happens while a value is made into bytes, or made of them, it looks like an error of the value's
own: a class may raise anything there. Three things tell them apart. The traceback leads through the handler. An error
that a ``raise`` statement has raised elsewhere was not set by another thread. And work that has failed by itself fails
again, in the same way; where it cannot be done again, an error that only a thread can have set has a class of a
program's, and no arguments: a thread sets a class, and drivers written in C say what has failed. Some drivers make an
error of their own of whatever they meet: then Python keeps the one from outside as its context.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any, TypeVar

__all__ = ["is_from_outside", "raise_if_foreign", "raise_met", "value_or"]

T = TypeVar("T")


def raise_if_foreign(error: Exception, work: Callable[..., object], *args: Any) -> None:
    """Raise an error that was not the work's own; the work is done once more where nothing else tells.

    Args:
        error: as it was caught.
        work: changes nothing.
        args: its arguments.
    """
    if _is_of_handler(error):
        raise error
    if isinstance(error, MemoryError | RecursionError) or _is_of_statement(error):
        return
    try:
        work(*args)
    except type(error):
        return
    except Exception as another:
        raise error from another
    raise error


def value_or(default: T, work: Callable[..., T], *args: Any) -> T:
    """Return the result of some work that changes nothing; `default` if it fails by itself."""
    try:
        return work(*args)
    except Exception as error:  # noqa: BLE001 -- a class can fail in any way
        raise_if_foreign(error, work, *args)
        return default


def is_from_outside(error: BaseException) -> bool:
    """Tell whether the handler of a signal has raised an error, or another thread has set it: a class of its own."""
    return _is_set(error) or _is_of_handler(error)


def raise_met(error: BaseException) -> None:
    """Raise the exception from outside that a driver has met, and made this error of, if there is one.

    One that a caller further out handles right now, so that Python calls it the context of all errors, is none.
    """
    running, frame = set[FrameType](), sys._getframe().f_back
    while frame is not None:
        running.add(frame)
        frame = frame.f_back
    seen, to_do = [error], [error]
    while to_do:
        made = to_do.pop()
        for met in (made.__cause__, made.__context__):
            if met is None or met in seen or (met.__traceback__ and met.__traceback__.tb_frame in running):
                continue
            if _is_of_handler(met) or (_is_set(met) and _package(made) not in {"storeroom", _package(met)}):
                raise met from None
            seen.append(met)
            to_do.append(met)


def _is_set(error: BaseException) -> bool:
    """Tell whether another thread may have set an error: a class of a program's, without arguments."""
    return not error.args and _package(error) not in sys.stdlib_module_names and not _is_of_statement(error)


def _package(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _is_of_handler(error: BaseException) -> bool:
    """Tell whether the handler of a signal has raised an error."""
    signal = sys.modules.get("signal")  # loaded by the code that has set a handler
    numbers = () if signal is None else signal.valid_signals()
    codes = {_code(signal.getsignal(number)) for number in numbers if signal} - {None}
    frames = error.__traceback__ if codes else None
    while frames is not None:
        if frames.tb_frame.f_code in codes:
            return True
        frames = frames.tb_next
    return False


def _code(handler: Any) -> Any:
    """Return the code that a handler runs first; None for no function of Python's."""
    function = getattr(handler, "func", handler)  # of a partial one
    return getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)


def _is_of_statement(error: BaseException) -> bool:
    """Tell whether a ``raise`` statement has raised an error; an asynchronous one comes after a call, or in a loop."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    statement = import_module("opcode").opmap["RAISE_VARARGS"]
    return frames is not None and frames.tb_frame.f_code.co_code[frames.tb_lasti] == statement
