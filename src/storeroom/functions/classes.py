"""Keys of methods that a program writes itself: one template in several classes makes several keys.

An inherited method may come to another result in each class, and a method that overrides a cached one calls it by
super(), for the same instance. So a template's keys are as written for instances of the class that defines the method.
They end in ``#shop.Savings`` for those of a class derived from it, and in ``#shop.Savings.interest()`` where the method
overrides a cached one.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["ClassEndings", "takes_instance_or_class"]

_MANY: Final = 1000
"""Classes whose endings are remembered: more are made, and forgotten, by programs that make classes as they run."""


def takes_instance_or_class(function: Callable[..., Any], first: str | None, binds: str) -> bool:
    """Tell whether a function's first parameter is the instance or the class that it is found in."""
    return binds == "class" or (binds == "instance" and first in {"self", "cls"} and inspect.isroutine(function))


class ClassEndings(dict[Any, str]):
    """Class -> the end of the keys of a method's calls for its instances.

    Args:
        function: the method.
        depends: whether the result depends on the instance, which the option `ignore` may deny.
    """

    def __init__(self, function: Callable[..., Any], *, depends: bool) -> None:
        super().__init__()
        self._function, self._depends = inspect.unwrap(function), depends

    def __missing__(self, kind: Any) -> str:
        if not isinstance(kind, type):  # an instance, in the position of a class
            return self[type(kind)]
        owner = self._owner(kind)
        ending = "" if owner is None else self._ending(kind, owner)
        if len(self) >= _MANY:
            self.clear()
        self[kind] = ending
        return ending

    def _ending(self, kind: type, owner: type) -> str:
        name = self._function.__name__
        overrides = any(_is_cached(vars(base).get(name)) for base in owner.__mro__[1:])
        return (f"#{_name(owner)}.{name}()" if overrides else "") + (
            f"#{_name(kind)}" if self._depends and kind is not owner else ""
        )

    def _owner(self, kind: type) -> type | None:
        """Return the class that defines the method; None if it is none of the class's own."""
        function = self._function
        defining = (base for base in kind.__mro__ if function in _layers(vars(base).get(function.__name__)))
        named = (base for base in kind.__mro__ if f"{_name(base)}.{function.__name__}" == _name(function))
        return next(defining, None) or next(named, None)


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _layers(attribute: Any) -> Iterator[Any]:
    """Yield what an attribute of a class wraps, from the outside in: a property, a cached function, the function."""
    while attribute is not None:
        yield attribute
        inner = (getattr(attribute, name, None) for name in ("__wrapped__", "fget", "func"))
        attribute = next(filter(None, inner), None)


def _is_cached(attribute: Any) -> bool:
    return any(hasattr(type(layer), "uncached") for layer in _layers(attribute))
