"""The project's routes; each view answers by the script of the test, and notes its runs."""

import zoneinfo
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.urls import include, path
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from rest_framework.views import APIView

from storeroom.integrations.django.pages import cache_page, never_cache


class Site:
    """The script of a test, and the runs of it.

    Attributes:
        script: makes the response to a request.
        runs: the requests of all runs.
        methods: of the requests, while they were run.
        seen: the paths that have come to the last middleware.
    """

    script: Callable[[Any], Any]
    runs: list[Any]
    methods: list[str]
    seen: list[str]

    def begin(self) -> None:
        self.script = lambda _: HttpResponse(f"run {len(self.runs)}")
        self.runs, self.methods, self.seen = [], [], []

    def answer(self, request: Any) -> Any:
        self.runs.append(request)
        self.methods.append(request.method)
        return self.script(request)


site = Site()


class Middleware:
    """A middleware without thread hops."""

    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        self.see(request)
        return self.get_response(request)


class SeenMiddleware(Middleware):
    """Notes the requests that come so far."""

    def see(self, request):
        site.seen.append(request.path)


class ZoneMiddleware(Middleware):
    """Activates the time zone of a cookie, as Django's documentation shows it."""

    def see(self, request):
        name = request.COOKIES.get("zone")
        timezone.activate(zoneinfo.ZoneInfo(name)) if name else timezone.deactivate()


class MenuMiddleware(Middleware):
    """Adds to the context of all templates."""

    def see(self, request):
        pass

    def process_template_response(self, _request, response):
        response.context_data = {**(response.context_data or {}), "menu": "the menu"}
        return response


@csrf_exempt
def view(request, **_):
    return site.answer(request)


@csrf_exempt
async def aview(request, **_):
    answer = site.answer(request)
    return await answer if hasattr(answer, "__await__") else answer


class ApiView(APIView):
    @method_decorator(cache_page(300))
    def get(self, request):
        return site.answer(request)


cached = cache_page(
    300, stale_while_revalidate=60, stale_if_error=600, tags=lambda request: [f"tag:{request.resolver_match.route}"]
)

news = [
    path("", view, name="list"),
    path("<int:pk>/", cached(view), name="detail"),
    path("<int:pk>/<slug:part>/", view, name="part"),
]
urlpatterns = [
    path("plain/", view),
    path("aplain/", aview),
    path("view/", cached(view)),
    path("aview/", cached(aview)),
    path("never/", never_cache(view)),
    path("prefixed/", cache_page(300, key_prefix="site2", cache="other")(view)),
    path("api/", ApiView.as_view()),
    path("api/whole/", cache_page("5m")(ApiView.as_view())),
    path("news/", include((news, "news"))),
    *i18n_patterns(path("about/", view, name="about")),
]
