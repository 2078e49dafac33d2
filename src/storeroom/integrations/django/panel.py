"""A panel of django-debug-toolbar: ``"storeroom.integrations.django.panel.StoreroomPanel"`` in DEBUG_TOOLBAR_PANELS.

It tells of each call of a cache of Storeroom's within a request, asynchronous ones too: its keys and tags, its time,
its outcome (hit, miss, stale, computed, waited), and whether memory before the storage had the value. It tells no
values. The toolbar stores plain JSON of it.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

from debug_toolbar.panels import Panel
from debug_toolbar.utils import get_stack_trace, render_stacktrace
from django.apps import apps
from django.core.checks import CheckMessage, Error

from storeroom.integrations.django.handles import follow, replace
from storeroom.integrations.django.outcomes import METHODS, Outcome, Watched

__all__ = ["StoreroomPanel"]

_APP: Final = "storeroom.integrations.django"

_HERE: Final = str(Path(__file__).parent)

_panel: Final[ContextVar["StoreroomPanel | None"]] = ContextVar("storeroom_panel", default=None)
"""The panel of the request in this context; None within a call, which may consist of others."""


class StoreroomPanel(Panel):
    """The calls of one request."""

    is_async = True
    template = "storeroom/panel.html"
    nav_icon = "debug_toolbar/img/cache.svg"
    nav_title = "Storeroom"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._outcomes: list[tuple[Outcome, str]] = []

    @classmethod
    def ready(cls) -> None:
        """Watch all handles from now on."""
        follow(_watch)

    @classmethod
    def run_checks(cls) -> list[CheckMessage]:
        """Tell of the app that is missing: it has the panel's template."""
        if apps.is_installed(_APP):
            return []
        what = f"DEBUG_TOOLBAR_PANELS has {cls.__module__}.{cls.__qualname__}, and INSTALLED_APPS lacks {_APP!r}."
        return [Error(what, hint=f"Add {_APP!r} to INSTALLED_APPS.", id="storeroom.panel.E001")]

    @property
    def nav_subtitle(self) -> str:
        """The number of calls, and their time."""
        stats = self.get_stats()
        number = stats.get("total", {}).get("calls", 0)
        return f"{number} call{'' if number == 1 else 's'} in {stats.get('total', {}).get('milliseconds', 0):.2f} ms"

    @property
    def title(self) -> str:
        """The heading."""
        number = len(self.get_stats().get("aliases", []))
        return f"Calls of {number} cache{'' if number == 1 else 's'} of Storeroom"

    def enable_instrumentation(self) -> None:
        """Begin to note calls of this thread or task, and of those that it starts."""
        _panel.set(self)

    def disable_instrumentation(self) -> None:
        """Note no more."""
        _panel.set(None)

    def note(self, outcome: Outcome, trace: Any) -> None:
        """Note a call, and the lines of code that it came from."""
        self._outcomes.append((outcome, render_stacktrace(trace)))

    def generate_stats(self, request: Any, response: Any) -> None:
        """Store the calls, and their sums by alias."""
        names = dict.fromkeys(outcome.alias for outcome, _ in self._outcomes)
        outcomes = [outcome for outcome, _ in self._outcomes]
        sums = [_sums(alias, [each for each in outcomes if each.alias == alias]) for alias in names]
        calls = [{**asdict(outcome), "trace": str(trace)} for outcome, trace in self._outcomes]
        self.record_stats({"calls": calls, "aliases": sums, "total": _sums("", outcomes)})

    def generate_server_timing(self, request: Any, response: Any) -> None:
        """Tell the browser the time."""
        total = self.get_stats()["total"]
        self.record_server_timing("calls", f"Storeroom {total['calls']} calls", total["milliseconds"])


def _sums(alias: str, outcomes: list[Outcome]) -> Mapping[str, Any]:
    counts = ("hits", "misses", "stale", "computed", "waited", "near")
    return {
        "alias": alias,
        "backend": outcomes[0].backend if outcomes else "",
        "calls": len(outcomes),
        "milliseconds": sum(outcome.milliseconds for outcome in outcomes),
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in counts},
    }


# The watched methods --------------------------------------------------------------------------------


def _watch(cache: Any, alias: str) -> None:
    for name in METHODS:
        replace(cache, name, lambda method: _noting(cache, alias, method))
        replace(cache, f"a{name}", lambda method: _noting_awaited(cache, alias, method))


class _Noted:
    """The block of one call that a panel notes."""

    def __init__(self, panel: StoreroomPanel, watched: Watched) -> None:
        self._panel, self.watched = panel, watched
        self.args, self.kwargs = watched.call.args, watched.call.kwargs
        self.value: Any = None

    def __enter__(self) -> Self:
        self._trace = [frame for frame in get_stack_trace(skip=2) if not frame[0].startswith(_HERE)]
        self._token, self._begun = _panel.set(None), perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        seconds = perf_counter() - self._begun
        _panel.reset(self._token)
        self._panel.note(self.watched.outcome(self.value, seconds, "" if kind is None else kind.__name__), self._trace)


def _noting(cache: Any, alias: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def noting(*args: Any, **kwargs: Any) -> Any:
        if (panel := _panel.get()) is None:
            return method(*args, **kwargs)
        with _Noted(panel, Watched(cache, alias, method, args, kwargs)) as noted:
            noted.value = method(*noted.args, **noted.kwargs)
        return noted.watched.answer(noted.value)

    return noting


def _noting_awaited(cache: Any, alias: str, method: Callable[..., Any]) -> Callable[..., Any]:
    async def noting(*args: Any, **kwargs: Any) -> Any:
        if (panel := _panel.get()) is None:
            return await method(*args, **kwargs)
        with _Noted(panel, Watched(cache, alias, method, args, kwargs)) as noted:
            noted.value = await method(*noted.args, **noted.kwargs)
        return noted.watched.answer(noted.value)

    return noting
