"""Puts Storeroom's page cache in the places of Django's, before Django's tests are imported.

Django's tests call the two halves of its middleware, and give it arguments: here these become settings, and each half
is one way through the whole.
"""

import django.middleware.cache
import django.views.decorators.cache
import storeroom_suite_touches
from django.conf import settings
from django.core.cache import caches
from django.test.utils import override_settings

from storeroom.integrations.django import pages
from storeroom.integrations.django.pages.doors import Door

_SETTINGS = {
    "cache_alias": ("CACHE_MIDDLEWARE_ALIAS", "default"),
    "key_prefix": ("CACHE_MIDDLEWARE_KEY_PREFIX", ""),
    "cache_timeout": ("CACHE_MIDDLEWARE_SECONDS", None),
}


class _MissingError(Exception):
    """There is no page."""


class CacheMiddleware(pages.CacheMiddleware):
    """Storeroom's, with the halves of Django's."""

    page_timeout = None

    def __init__(self, get_response, **arguments):
        given = {
            _SETTINGS[name][0]: _SETTINGS[name][1] if value is None else value for name, value in arguments.items()
        }
        with override_settings(**given):
            super().__init__(get_response)

    def process_request(self, request):
        def get_response(_):
            raise _MissingError

        try:
            return self.respond(request, get_response)
        except _MissingError:
            return None

    def process_response(self, request, response):
        return self.respond(request, lambda _: response)


def install():
    """Let Django's names lead to Storeroom's, and the middleware be the first of all."""
    for name in ("CacheMiddleware", "UpdateCacheMiddleware", "FetchFromCacheMiddleware"):
        setattr(django.middleware.cache, name, CacheMiddleware)
    for name in ("cache_page", "never_cache"):
        setattr(django.views.decorators.cache, name, getattr(pages, name))
    settings.MIDDLEWARE = ["storeroom.integrations.django.pages.CacheMiddleware", *settings.MIDDLEWARE]
    for name in ("respond", "arespond"):
        setattr(Door, name, storeroom_suite_touches.noted(getattr(Door, name)))


def clear():
    """Let no page be left from the test before."""
    caches["default"].clear()
