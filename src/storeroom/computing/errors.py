"""Errors of computations that are kept, and raised again: see `error_timeout`.

An error that is raised again and again grows by the frames of every caller, and keeps alive all that these hold. So
each caller but the first gets a copy.
"""

from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

from storeroom.storage.unstored import Caught

__all__ = ["copy_of"]

_LONGEST_CHAIN: Final = 20
"""Errors behind an error that are copied, too."""


def copy_of(error: Exception, left: int = _LONGEST_CHAIN) -> Exception:
    """Return a copy of an error and its causes, without tracebacks; the error itself if it cannot be copied.

    Its class is not called: a constructor of the program's may take other arguments than `args`, or do something.
    """
    copied: Any = None
    with Caught() as caught:
        copied = type(error).__new__(type(error), *error.args)
        copied.args = error.args
        _copy_attributes(error, copied)
        for link in ("__cause__", "__context__"):
            behind = getattr(error, link)
            setattr(copied, link, copy_of(behind, left - 1) if left and isinstance(behind, Exception) else None)
        copied.__suppress_context__ = error.__suppress_context__
    return error if caught.error is not None or type(copied) is not type(error) else copied


def _copy_attributes(error: Exception, copied: Exception) -> None:
    """Copy the instance's own attributes, and those that its classes keep in slots, as OSError does `errno`."""
    for kind in type(error).__mro__:
        for name, attribute in vars(kind).items():
            is_kept = isinstance(attribute, MemberDescriptorType | GetSetDescriptorType) and not name.startswith("__")
            if is_kept and name != "exceptions":
                with suppress(AttributeError, TypeError):  # one that is not set, or cannot be
                    value = getattr(error, name)
                    if value is not getattr(copied, name, None):  # OSError tells None from one that is not set
                        setattr(copied, name, value)
    vars(copied).update(vars(error))
