"""Flask: the page cache around an application, with its configuration and its endpoints.

    pages = PageCache()

    def create_app():
        app = Flask(__name__)
        app.config["STOREROOM_PAGES_TIMEOUT"] = "5m"
        pages.init_app(app)
        return app

    pages.invalidate(view="item", item_id=7)

The options are those of ``storeroom.pages.Pages``: given here, or in the configuration as STOREROOM_PAGES_ and the name
in capitals, as from ``app.config.from_prefixed_env()``. Those that are given here count first.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from flask import Flask, current_app, has_app_context
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, Rule

from storeroom.integrations import wsgi
from storeroom.integrations.wsgi import Environ
from storeroom.pages.options import parsed
from storeroom.pages.views import options_of

__all__ = ["PageCache", "paths_of"]

_NAMESPACE: Final = "STOREROOM_PAGES_"

_WHOLE: Final = frozenset({"cache", "hosts", "rules", "cache_status", "urls"})
"""Options that ``storeroom.pages.Pages`` reads itself."""


class PageCache:
    """The extension.

    Args:
        app: the application; or call init_app() later, once for each.
        **options: `cache`, an alias or a cache, and those of ``storeroom.pages.Pages``.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self._options = options
        self._last: wsgi.PageCache | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the page cache around ``app.wsgi_app``: around all middleware that is there by now.

        Raises:
            ConfigurationError: an option is unknown, or its value means nothing.
            RuntimeError: it is there already.
        """
        if "storeroom" in app.extensions:
            raise RuntimeError(f"init_app(): {app!r} has a page cache already.")
        options = {**_configured(app), **self._options}
        self._last = app.extensions["storeroom"] = _Door(app, options.pop("cache", "default"), options)
        vars(app)["wsgi_app"] = self._last

    @property
    def pages(self) -> wsgi.PageCache:
        """The page cache of the current application; outside of one's context, of that which was given last.

        Raises:
            RuntimeError: none was given.
        """
        found: wsgi.PageCache | None = current_app.extensions.get("storeroom") if has_app_context() else self._last
        if found is None:
            raise RuntimeError("PageCache knows no application; call init_app(app) first.")
        return found

    def invalidate(self, **given: Any) -> None:
        """Make pages absent, for all processes: by `view` with its arguments, `url`, `prefix` or `tags`.

        A view is an endpoint, as in ``url_for()``. See ``storeroom.pages.Pages.invalidate()``.
        """
        self.pages.invalidate(**given)

    async def ainvalidate(self, **given: Any) -> None:
        """See invalidate()."""
        await self.pages.ainvalidate(**given)


def _configured(app: Flask) -> dict[str, Any]:
    """Return the options in an application's configuration."""
    options = app.config.get_namespace(_NAMESPACE)
    for name, value in options.items():
        if name not in _WHOLE:
            parsed(name, value, f"app.config[{_NAMESPACE + name.upper()!r}]: ")
    return options


class _Door(wsgi.PageCache):
    """The page cache itself, which knows the application's endpoints."""

    def __init__(self, app: Flask, cache: Any, options: Mapping[str, Any]) -> None:
        super().__init__(app.wsgi_app, cache, **{"urls": paths_of(app), **options})
        self._flask = app

    def foreseen(self, environ: Environ) -> tuple[Mapping[str, Any] | None, Iterable[str]]:
        """Return the options of the view that the URL map leads to: those of a class's get()."""
        try:
            adapter = self._flask.create_url_adapter(self._flask.request_class(environ))
            endpoint = adapter.match()[0] if adapter is not None else ""
        except HTTPException:  # there is none, or a redirect
            return None, ()
        view = self._flask.view_functions.get(endpoint)
        return options_of(getattr(getattr(view, "view_class", None), "get", view)), ()


def paths_of(app: Flask) -> Callable[[str, Sequence[Any], Mapping[str, Any]], list[str]]:
    """Return the function that tells the paths of an application's endpoints: for ``Pages(urls=...)``.

    A star stands for an argument that is not given. The paths begin with APPLICATION_ROOT.

    Raises:
        BuildError: when it is called: no rule of that endpoint has those arguments.
    """

    def paths(view: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
        if args:
            raise TypeError(f"Endpoint {view!r} has got {list(args)!r} by position; its arguments have names.")
        root = quote(app.config["APPLICATION_ROOT"].rstrip("/"))
        found = [root + _filled(rule, kwargs) for rule in app.url_map.iter_rules() if _fits(rule, view, kwargs)]
        if not found:
            raise BuildError(view, kwargs, None)
        return found

    return paths


def _fits(rule: Rule, view: str, given: Mapping[str, Any]) -> bool:
    defaults = rule.defaults or {}
    is_own = all(given.get(name, value) == value for name, value in defaults.items())
    return rule.endpoint == view and given.keys() <= rule.arguments and is_own and not rule.websocket


def _filled(rule: Rule, given: Mapping[str, Any]) -> str:
    """Return a rule's path with its arguments as they are sent; a star for each that is not given."""
    parts = rule._trace[rule._trace.index((False, "|")) + 1 :]  # behind the host's
    return "".join(_part(rule, name, given) if is_variable else quote(name) for is_variable, name in parts)


def _part(rule: Rule, name: str, given: Mapping[str, Any]) -> str:
    return rule._converters[name].to_url(given[name]) if name in given else "*"
