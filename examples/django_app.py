"""Django in one file: a page cache around all of it."""

import os

import django
from django.conf import settings
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from storeroom import config_from_url
from storeroom.integrations.wsgi import PageCache
from storeroom.pages import page

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not for a site that anybody can reach",
    CACHES={"default": config_from_url(os.environ.get("CACHE_URL", "file:///var/tmp/storeroom-example"))},
)
django.setup()


@page(timeout="5m", tags=lambda request: ["items"])
def item(request: HttpRequest, item_id: int) -> HttpResponse:
    """Show an item. Among all workers this runs once in five minutes for each."""
    return HttpResponse(f"{item_id} for {cache.get(f'price:{item_id}', 9.99)}, by {os.getpid()}")


def worker(request: HttpRequest) -> HttpResponse:
    """Tell the worker that answers: without a timeout nothing is stored."""
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("items/<int:item_id>", item), path("worker", worker)]
application = PageCache(get_wsgi_application(), cache_status="Storeroom")
