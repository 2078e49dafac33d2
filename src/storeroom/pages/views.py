"""@page: options of one view's pages, written where it is.

    @page(timeout="5m", tags=lambda request: ["news"])
    async def news(): ...

The options are learnt when the view begins, and the versions of its tags then, too: a tag that is invalidated while
the view works makes its page absent. Without a page cache around the application it does nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, Final, ParamSpec, TypeVar, cast

from storeroom.exceptions import ConfigurationError
from storeroom.pages.making import Making
from storeroom.pages.options import parsed
from storeroom.storage import tags, unstored
from storeroom.storage.steps import Steps, arun, run

__all__ = ["current", "foreseeing", "options_of", "page"]

P = ParamSpec("P")
T = TypeVar("T")

current: ContextVar[Making | None] = ContextVar("storeroom_page", default=None)
"""The run of the application that this code is part of."""

OPTIONS: Final = frozenset({
    "timeout", "browser_timeout", "stale_while_revalidate", "stale_if_error", "revalidate_for", "max_body", "vary_on",
    "tags", "early",
})  # fmt: skip
"""Those of a view: the others decide about a page before its view is known."""


_OWN: Final = "storeroom_page"
"""The attribute of a view that has its options; decorators that are put on top of it copy it."""


def options_of(view: object) -> Mapping[str, Any] | None:
    """Return the options that @page has given to a view; None if it has none of its own."""
    found: Mapping[str, Any] | None = getattr(view, _OWN, None)
    return found


def foreseeing(making: Making, options: Mapping[str, Any] | None, headers: Iterable[str]) -> Steps[None]:
    """Let a making know of the view that is likely to answer, before the application runs.

    Data may be read before the view begins, and the versions of its tags are to be older.

    Args:
        making: the run.
        options: of the view.
        headers: those that it has said to read.
    """
    making.declared = [name.lower().encode("latin-1") for name in headers]
    if options and "tags" in options:
        keys = making.task.cache._tag_keys(making.plan.but(options).tags_of(making.request))
        making.foreseen = yield from _versions(making, keys)


def _learning(making: Making, options: Mapping[str, Any]) -> Steps[None]:
    """Let a making take the options of the view that begins now, and the versions of its tags."""
    before = making.plan
    making.plan = before.but(options)
    if making.plan.tags is not before.tags:
        keys = making.task.cache._tag_keys(making.plan.tags_of(making.request))
        making.learnt = yield from _versions(making, keys)


def _versions(making: Making, keys: Sequence[str]) -> Steps[tags.Versions | None]:
    """Return the versions of tags as they were first read for this page; None if they could not be."""
    if making.foreseen is None:
        return None
    known = {key: making.foreseen[key] for key in keys if key in making.foreseen}
    rest = [key for key in keys if key not in known]
    if not rest:
        return known
    with unstored.Caught() as caught:
        read = yield from tags.current_versions(making.hooks, rest)
    return None if caught.error is not None or read is None else {**known, **read}


def page(**options: Any) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Give a view options of its own: they differ from those of the page cache.

    Args:
        **options: timeout, browser_timeout, stale_while_revalidate, stale_if_error, revalidate_for, max_body, vary_on,
            tags, early: see ``storeroom.http.Policy``. `tags` may be a function of the request.

    Raises:
        ConfigurationError: an option is unknown, or not of a view, or its value means nothing.
    """
    for name, value in options.items():
        parsed(name, value, "@page: ")
        if name not in OPTIONS:
            raise ConfigurationError(
                f"@page: {name} decides about a page before its view is known; give it to the page cache."
            )

    def decorate(view: Callable[P, T]) -> Callable[P, T]:
        if iscoroutinefunction(view):

            @wraps(view)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                making = current.get()
                if making is not None:
                    await arun(_learning(making, options))
                return await view(*args, **kwargs)

            setattr(awaited, _OWN, options)
            return cast("Callable[P, T]", awaited)

        @wraps(view)
        def called(*args: P.args, **kwargs: P.kwargs) -> T:
            making = current.get()
            if making is not None:
                run(_learning(making, options))
            return view(*args, **kwargs)

        setattr(called, _OWN, options)
        return called

    return decorate
