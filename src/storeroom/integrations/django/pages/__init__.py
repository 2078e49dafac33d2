"""Django's page cache, with its names, on the rules of ``storeroom.http``.

    from storeroom.integrations.django.pages import cache_page

    @cache_page(60 * 15, stale_while_revalidate="1m", tags=["news"])
    def news(request): ...

``CacheMiddleware``, first in MIDDLEWARE, does it for the whole site, and answers a hit before the URL is resolved.
``invalidate(view="news:detail", pk=7)`` makes pages absent. All of it is native in async views, too.
"""

from django.views.decorators.cache import never_cache

from storeroom.integrations.django.pages.views import CacheMiddleware, ainvalidate, cache_page, invalidate

__all__ = ["CacheMiddleware", "ainvalidate", "cache_page", "invalidate", "never_cache"]
