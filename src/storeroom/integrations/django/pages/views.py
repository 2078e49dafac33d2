"""The names that a project uses: the decorator, the middleware, invalidate()."""

from collections.abc import Callable
from functools import cache as once
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django import conf

from storeroom.integrations.django.pages.doors import Door, site_options
from storeroom.pages.options import parsed

__all__ = ["CacheMiddleware", "ainvalidate", "cache_page", "invalidate"]

V = TypeVar("V", bound=Callable[..., Any])


def cache_page(
    timeout: Any, *, cache: str | None = None, key_prefix: str | None = None, **options: Any
) -> Callable[[V], V]:
    """Answer requests for a view by a stored page; its first three arguments are those of Django's own decorator.

    Args:
        timeout: lifetime of a page: seconds, a timedelta, or words such as "5m". It counts before those in the
            response's headers. None: they count, or else CACHE_MIDDLEWARE_SECONDS.
        cache: an alias; None for "default".
        key_prefix: of pages that others shall not share.
        **options: tags, or a function of Django's request that returns them; vary_on, vary_on_cookies,
            stale_while_revalidate, stale_if_error, browser_timeout and the others of ``storeroom.pages.Pages``. Those
            that are not given are as in STOREROOM_PAGES.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """
    for name, value in {"timeout": timeout, **options}.items():
        parsed(name, value, "cache_page(): ")

    def decorate(view: V) -> V:
        @once
        def door() -> Door:
            given = {"timeout": conf.settings.CACHE_MIDDLEWARE_SECONDS if timeout is None else timeout, **options}
            site = {"overrides_lifetimes": timeout is not None, **site_options()}
            return Door(cache or "default", is_part=True, **{**site, **given, "key_prefix": key_prefix or ""})

        if iscoroutinefunction(view):

            @wraps(view)
            async def awaited(request: Any, *args: Any, **kwargs: Any) -> Any:
                _check(request)
                return await door().arespond(request, lambda asked: view(asked, *args, **kwargs))

            return cast("V", awaited)

        @wraps(view)
        def called(request: Any, *args: Any, **kwargs: Any) -> Any:
            _check(request)
            return door().respond(request, lambda asked: view(asked, *args, **kwargs))

        return cast("V", called)

    return decorate


def _check(request: Any) -> None:
    if not hasattr(request, "META"):
        raise TypeError(
            f"cache_page() has got {type(request).__qualname__} in place of a request; to decorate a method, use "
            "@method_decorator(cache_page(...))."
        )


class CacheMiddleware(Door):
    """The page cache of a site: first in MIDDLEWARE, it answers a hit before everything else.

    Settings: CACHE_MIDDLEWARE_ALIAS, CACHE_MIDDLEWARE_SECONDS and CACHE_MIDDLEWARE_KEY_PREFIX as for Django's own, and
    STOREROOM_PAGES with the options of ``storeroom.pages.Pages``.

    Attributes:
        cache_alias: the alias.
        cache_timeout: the lifetime of a page that says none itself.
        key_prefix: of the pages.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    sync_capable: ClassVar[bool] = True
    async_capable: ClassVar[bool] = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self.cache_alias = conf.settings.CACHE_MIDDLEWARE_ALIAS
        self.cache_timeout = conf.settings.CACHE_MIDDLEWARE_SECONDS
        self.key_prefix = conf.settings.CACHE_MIDDLEWARE_KEY_PREFIX
        options = {"timeout": self.cache_timeout, "key_prefix": self.key_prefix, **site_options()}
        super().__init__(self.cache_alias, is_part=False, **options)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Return the response to a request, or a coroutine that does."""
        respond = self.arespond if self._is_async else self.respond
        return respond(request, self.get_response)


def invalidate(*, cache: str | None = None, key_prefix: str | None = None, **which: Any) -> None:
    """Make pages absent, for all processes, at once: ``invalidate(view="news:detail", pk=7)``.

    Args:
        cache: their alias; None for that of the middleware.
        key_prefix: of pages that go by their whole URL; None for that of the middleware. Others go by any.
        **which: url, prefix, tags, or view with its arguments: see ``storeroom.pages.Pages.invalidate()``.

    Raises:
        NoReverseMatch: no route has this name and these arguments.
        StorageError: the server is out of reach, and the pages are live still.
        TypeError: arguments are given without a view.
        ValueError: the URL or the prefix is none.
    """
    _door(cache, key_prefix).invalidate(**which)


async def ainvalidate(*, cache: str | None = None, key_prefix: str | None = None, **which: Any) -> None:
    """See invalidate()."""
    await _door(cache, key_prefix).ainvalidate(**which)


def _door(cache: str | None, key_prefix: str | None) -> Door:
    prefix = conf.settings.CACHE_MIDDLEWARE_KEY_PREFIX if key_prefix is None else key_prefix
    return Door(
        cache or conf.settings.CACHE_MIDDLEWARE_ALIAS, is_part=False, **{**site_options(), "key_prefix": prefix}
    )
