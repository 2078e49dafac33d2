"""The debug toolbar's own cache panel: the calls that it does not see, as they are asynchronous.

It replaces the synchronous methods of a handle. Storeroom's asynchronous ones call none of these, so they are replaced
here, and told to the panel as calls of their twins. Without the panel, or while it is off, nothing is told.
"""

from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any, Final

from debug_toolbar.panels.cache import WRAPPED_CACHE_METHODS
from debug_toolbar.utils import get_stack_trace, get_template_info

from storeroom.integrations.django.handles import calls_its_twin, follow, replace, settled

__all__ = ["watch"]

_is_within: Final[ContextVar[bool]] = ContextVar("storeroom_toolbar_within", default=False)
"""Whether a call is part of another one that is told of."""


def watch() -> None:
    """Tell the panel of the asynchronous calls of all caches from now on."""
    follow(_watch)


def _watch(cache: Any, alias: str) -> None:
    for name in WRAPPED_CACHE_METHODS:
        replace(cache, f"a{name}", _telling(cache, alias, name))


def _telling(cache: Any, alias: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(method: Callable[..., Any]) -> Callable[..., Any]:
        async def told(*args: Any, **kwargs: Any) -> Any:
            panel = vars(cache).get("_djdt_panel")
            if panel is None or _is_within.get() or calls_its_twin(cache, f"a{name}"):
                return await method(*args, **kwargs)
            args, kwargs = settled(args, kwargs)
            trace, template_info = get_stack_trace(skip=1), get_template_info()
            token, begun = _is_within.set(True), perf_counter()
            try:
                value = await method(*args, **kwargs)
                seconds = perf_counter() - begun
            finally:
                _is_within.reset(token)
            backend = f"{alias} ({type(cache).__name__}, async)"
            panel._store_call_info(name, seconds, value, args, kwargs, trace, template_info, backend)
            return value

        return told

    return make
