"""Django's admin: the caches of the site, their counts and entries, and the means to remove these.

CacheAdmin is registered with the default site; another one takes it by ``site.register(Cache, CacheAdmin)``. It reads
no table: all pages are its own, but for the history, which Django keeps.
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from storeroom.base import BaseCache
from storeroom.exceptions import StoreroomError
from storeroom.integrations.django.entries import Found, is_of_session, look, search, shown
from storeroom.integrations.django.models import Cache
from storeroom.integrations.django.overview import Overview
from storeroom.storage.outages import no_answers
from storeroom.wording import mask_url

__all__ = ["CacheAdmin"]

_PAGES: Final = ("changelist", "change", "history", "keys", "entry", "delete_entry", "invalidate", "clear")

_SESSION: Final = "of a session"
"""Stands for the key in the log, as staff may read that."""


class CacheAdmin(admin.ModelAdmin):
    """The pages about caches.

    ``storeroom.view_cache`` opens them, ``storeroom.change_cache`` allows to delete, to invalidate and to clear, and to
    superusers alone a value is shown.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Tell that nobody adds a cache: they are settings."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Cache | None = None) -> bool:
        """Tell that nobody deletes a cache."""
        return False

    def has_value_permission(self, request: HttpRequest, obj: Cache | None = None) -> bool:
        """Tell whether the user may see the values of a cache, and the keys of sessions: superusers alone."""
        return bool(request.user.is_active and getattr(request.user, "is_superuser", False))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Cache | None:
        """Return the alias, for the history."""
        return Cache(alias=object_id) if object_id in settings.CACHES else None

    def get_urls(self) -> list[Any]:
        """Return the pages, all below the list of caches."""
        found = []
        for name in _PAGES:
            route = "" if name == "changelist" else f"<path:object_id>/{name.replace('_', '-')}/"
            view = self.admin_site.admin_view(getattr(self, f"{name}_view"))
            found.append(path(route, view, name=f"storeroom_cache_{name}"))
        return found

    # Looking --------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show all aliases of CACHES."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        aliases = [alias for alias in settings.CACHES if self.has_view_permission(request, Cache(alias=alias))]
        rows = [(each, self._url("change", each.alias) if each.cache else "") for each in map(Overview.of, aliases)]
        context = {"title": "Caches", "rows": rows, **(extra_context or {})}
        return self._page(request, "change_list", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show one cache: its counts over time, its families of keys, and its advice."""
        alias, cache = self._opened(request, object_id)
        overview = Overview.of(alias)
        problem, advice = overview.problem, dict[str, str]()
        if not problem:
            try:
                advice = overview.advice()
            except StoreroomError as error:
                problem = _told(error)
        return self._page(
            request,
            "change_form",
            {
                "title": f"Cache {alias}",
                "overview": overview,
                "problem": problem,
                "advice": advice,
                "version": int(cache.version),
                "hides_sessions": not self.has_value_permission(request, Cache(alias=alias)),
                **(extra_context or {}),
            },
            alias,
        )

    def keys_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the keys that begin with a text, or match a pattern, or are of a family."""
        alias, cache = self._opened(request, object_id)
        text, family, version = request.GET.get("q", ""), request.GET.get("family", ""), _version(request, cache)
        sees_values = self.has_value_permission(request, Cache(alias=alias))
        problem = ""
        try:
            with no_answers():
                found = search(cache, text, family, version, with_sessions=sees_values)
        except StoreroomError as error:
            found, problem = Found([], 0), _told(error)
        context = {
            "title": f"Keys of cache {alias}",
            "q": text,
            "family": family,
            "shown_family": shown(family),
            "version": version,
            "found": found,
            "keys": [(shown(key), self._entry_url(alias, key, version)) for key in found.keys],
            "problem": problem or found.lack,
            "hides_sessions": not sees_values,
        }
        return self._page(request, "keys", context, alias)

    def entry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show one entry; its value to superusers alone."""
        alias, cache = self._opened(request, object_id)
        key, version = request.GET.get("key", ""), _version(request, cache)
        sees_values = self.has_value_permission(request, Cache(alias=alias))
        entry, problem = None, ""
        try:
            entry = look(cache, key, version, with_value=sees_values)
        except StoreroomError as error:
            problem = _told(error)
        context = {
            "title": f"Entry of cache {alias}",
            "key": shown(key),
            "version": version,
            "entry": entry,
            "problem": problem,
            "sees_values": sees_values,
            "tags": [] if entry is None else [(shown(tag.name), tag) for tag in entry.told.tags],
            "key_query": urlencode({"key": key, "version": version}),
        }
        return self._page(request, "entry", context, alias)

    # Changing -------------------------------------------------------------------------------

    def delete_entry_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Delete one entry."""
        alias, cache = self._opened(request, object_id, changes=True)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        key, version = request.GET.get("key", ""), _version(request, cache)
        name = _SESSION if is_of_session(key) else shown(key)
        of_version = "" if version == int(cache.version) else f" of version {version}"

        def delete() -> str:
            return f'Deleted the entry "{name}"{of_version}.' if cache.delete(key, version=version) else ""

        self._do(request, alias, delete, f'There is no entry "{name}"{of_version}.')
        return HttpResponseRedirect(self._entry_url(alias, key, version) or self._url("change", alias))

    def invalidate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Invalidate a tag."""
        alias, cache = self._opened(request, object_id, changes=True)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        tag = request.GET.get("tag") or request.POST.get("tag", "")

        def invalidate() -> str:
            if tag:
                cache.invalidate_tags(tag)
            return f'Invalidated the tag "{shown(tag)}".' if tag else ""

        self._do(request, alias, invalidate, "Name a tag.")
        back = self._entry_url(alias, request.GET["key"], _version(request, cache)) if "key" in request.GET else ""
        return HttpResponseRedirect(back or self._url("change", alias))

    def clear_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether to remove all entries; do it by POST."""
        alias, cache = self._opened(request, object_id, changes=True)
        if request.method != "POST":
            title = f"Clear cache {alias}?"
            return self._page(request, "clear_confirmation", {"title": title, "prefix": cache.key_prefix}, alias)

        def clear() -> str:
            BaseCache.clear(cache)  # of its prefix alone, for the class that stands in for django-redis's, too
            return "Cleared the cache."

        self._do(request, alias, clear)
        return HttpResponseRedirect(self._url("change", alias))

    def _do(self, request: HttpRequest, alias: str, work: Callable[[], str], nothing: str = "") -> None:
        """Change a cache, and tell the user and the log of it; work returns "" where there was nothing to do."""
        try:
            with no_answers():
                done = work()
        except StoreroomError as error:
            self.message_user(request, _told(error), messages.ERROR)
            return
        if done:
            self.log_change(request, Cache(alias=alias), done)
        self.message_user(request, done or nothing, messages.SUCCESS if done else messages.WARNING)

    # Pages ----------------------------------------------------------------------------------

    def _opened(self, request: HttpRequest, object_id: str, *, changes: bool = False) -> tuple[str, BaseCache]:
        """Return the alias of a page, and its cache.

        Raises:
            PermissionDenied: the user may not see it, or not change it.
            Http404: there is none, or its class is none of Storeroom's.
        """
        alias = unquote(object_id)
        has_permission = self.has_change_permission if changes else self.has_view_permission
        if not has_permission(request, Cache(alias=alias)):
            raise PermissionDenied
        cache = caches[alias] if alias in settings.CACHES else None
        if not isinstance(cache, BaseCache):
            raise Http404(f"CACHES has no alias {alias!r} on one of Storeroom's classes.")
        return alias, cache

    def _page(self, request: HttpRequest, name: str, context: dict[str, Any], alias: str = "") -> TemplateResponse:
        record = Cache(alias=alias)
        urls = {} if not alias else {page: self._url(page, alias) for page in _PAGES}
        request.current_app = self.admin_site.name
        return TemplateResponse(
            request,
            f"admin/storeroom/cache/{name}.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "alias": alias,
                "urls": urls,
                "may_change": self.has_change_permission(request, record),
                **context,
            },
        )

    def _url(self, page: str, alias: str) -> str:
        args = () if page == "changelist" else (quote(alias),)
        url: str = reverse(f"admin:storeroom_cache_{page}", args=args, current_app=self.admin_site.name)
        return url

    def _entry_url(self, alias: str, key: str, version: int) -> str:
        """Return the page of an entry; "" for a key that no URL can hold."""
        try:
            query = urlencode({"key": key, "version": version})
        except UnicodeEncodeError:  # a lone surrogate
            return ""
        return f"{self._url('entry', alias)}?{query}"


def _version(request: HttpRequest, cache: BaseCache) -> int:
    """Return the version that is asked for, or else the cache's own."""
    text = request.GET.get("version") or str(cache.version)
    try:
        return int(text)
    except ValueError:
        raise Http404(f"The version is {shown(text[:20])!r}; expected a number.") from None


def _told(error: Exception) -> str:
    return mask_url(str(error))


admin.site.register(Cache, CacheAdmin)
