"""Objects that Python's garbage collector passes by.

A full collection looks at every object with slots: 0.35 s for a million entries. Nothing in a map can be garbage while
the map is there, which is as long as the process lives, so the collector need not look.

Source: PyObject_GC_UnTrack(), https://docs.python.org/3/c-api/gcsupport.html. An object that is not tracked is freed as
others are: ``subtype_dealloc()`` in CPython's Objects/typeobject.c.
"""

import sys
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Untrack", "untracker"]

Untrack: TypeAlias = Callable[[int], object]
"""Takes an object, which must be alive, by its id() out of the collector's sight."""


def untracker() -> Untrack:
    """Return the function that takes an object out of the collector's sight; one that does nothing where none is known.

    None is for builds without the GIL, where it is not tried.
    """
    import sysconfig  # noqa: PLC0415 -- only large maps ask

    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        return bool
    try:
        import ctypes  # noqa: PLC0415 -- only large maps need it, and a Python may be built without it
    except ImportError:
        return bool
    # A prototype of its own, as those of ctypes.pythonapi are everybody's; py_object takes 1.6 times as long as an id.
    untrack: Untrack = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyObject_GC_UnTrack", ctypes.pythonapi))
    return untrack
