"""A request of Django's as the rules see it, and the settings for it that its headers do not tell."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from django import conf
from django.core.exceptions import DisallowedHost
from django.utils import timezone, translation
from django.utils.module_loading import import_string

from storeroom.http import Request
from storeroom.integrations.wsgi import EnvironHeaders, is_plain

__all__ = ["LANGUAGE", "ZONE", "Asked", "asked_of", "has_middleware", "in_force"]

LANGUAGE: Final = b":language"
ZONE: Final = b":time-zone"
"""Names that no client can send: a page differs by them as by headers, where they are not the usual ones."""


class _Headers(EnvironHeaders):
    """The headers in META, and this request's own settings."""

    def __init__(self, meta: dict[str, Any], own: Mapping[bytes, bytes]) -> None:
        super().__init__(meta)
        self._own = own

    def __getitem__(self, name: bytes) -> bytes:
        return self._own[name] if name in self._own else super().__getitem__(name)

    def __contains__(self, name: Any) -> bool:
        return name in self._own or super().__contains__(name)


class Asked(Request):
    """A request.

    Attributes:
        django: Django's.
        own: its language and time zone, where they are not the usual ones.
        is_before_locale: whether Django's LocaleMiddleware is yet to choose the language.
    """

    __slots__ = ("django", "is_before_locale", "own")

    django: Any
    is_before_locale: bool
    own: Mapping[bytes, bytes]


@lru_cache(maxsize=4096)
def _quoted(path: str) -> str:
    return quote(path, safe="/:;@!$&'()*+,=~")


def has_middleware(path: str) -> bool:
    """Tell whether the project has a middleware, or one that derives from it."""
    return _has_middleware(path, tuple(conf.settings.MIDDLEWARE))


@lru_cache(maxsize=64)
def _has_middleware(path: str, installed: tuple[str, ...]) -> bool:
    wanted = import_string(path)
    found = map(import_string, installed)
    return any(isinstance(kind, type) and issubclass(kind, wanted) for kind in found)


def in_force(*, is_part: bool = True) -> dict[bytes, bytes]:
    """Return the language and the time zone in force, if they are not those of the project's settings.

    Before all middlewares the time zone is that of the thread's request before.
    """
    found = {}
    if conf.settings.USE_I18N and (language := translation.get_language()) != conf.settings.LANGUAGE_CODE:
        found[LANGUAGE] = str(language).encode("latin-1", "replace")
    if is_part and conf.settings.USE_TZ and timezone.get_current_timezone() is not timezone.get_default_timezone():
        found[ZONE] = timezone.get_current_timezone_name().encode("latin-1", "replace")
    return found


def _chosen(request: Any) -> dict[bytes, bytes]:
    """Return the language of the cookie by which Django's LocaleMiddleware, which is yet to come, chooses it."""
    name = conf.settings.LANGUAGE_COOKIE_NAME
    if name in request.META.get("HTTP_COOKIE", "") and name in request.COOKIES:
        return {LANGUAGE: request.COOKIES[name].encode("latin-1", "replace")}
    return {}


def asked_of(request: Any, *, is_part: bool, is_changing: bool = False) -> Asked | None:
    """Return a request as the rules see it; None if its host is none of the project's.

    Args:
        request: Django's.
        is_part: whether the middlewares have seen it.
        is_changing: whether its host counts, also if its method is none that pages answer.
    """
    is_before_locale = not is_part and has_middleware("django.middleware.locale.LocaleMiddleware")
    own = _chosen(request) if is_before_locale else in_force(is_part=is_part)
    method, meta, host = request.method or "", request.META, b""
    if method in ("GET", "HEAD") or is_changing:
        try:
            host = request.get_host().encode("latin-1", "replace")
        except DisallowedHost:
            return None
    path, query = _quoted(request.path) or "/", meta.get("QUERY_STRING", "")
    headers, is_usual = _Headers(meta, own), not own and is_plain(meta)
    asked = Asked(method, request.scheme or "http", host, path, query, headers, is_usual)
    asked.django, asked.own, asked.is_before_locale = request, own, is_before_locale
    return asked
