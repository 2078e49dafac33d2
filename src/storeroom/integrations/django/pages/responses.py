"""Responses of Django's and stored pages: each from the other."""

from functools import lru_cache
from typing import Any, Final

from django import conf
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.http import HttpResponse
from django.http.response import ResponseHeaders
from django.utils import translation
from django.utils.cache import has_vary_header, patch_vary_headers

from storeroom.http import Headers, Record, Refusal
from storeroom.integrations.django.pages.requests import LANGUAGE, ZONE, Asked, in_force

__all__ = ["dress", "headers_of", "hit_of", "refusal_of", "response_of", "texts"]

_TOLD: Final = ("Cache-Control", "Expires")
"""Headers that the cache may give another value."""


def headers_of(response: Any) -> Headers:
    """Return the headers of a response, those of its cookies included."""
    pairs = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in response.items()]
    return pairs + [(b"set-cookie", b"")] * len(response.cookies)


def refusal_of(request: Any, response: Any, asked: Asked) -> Refusal | None:
    """Return the reason against storing a response that its headers do not tell, or not yet; None if there is none.

    A middleware that is to come would have made it differ by cookies, or set one: for a session, a token, a message.
    """
    session, messages = getattr(request, "session", None), getattr(request, "_messages", None)
    if request.META.get("CSRF_COOKIE_NEEDS_UPDATE") or getattr(session, "modified", False):
        return Refusal.SET_COOKIE
    if getattr(messages, "used", False) or getattr(messages, "added_new", False):
        return Refusal.SET_COOKIE
    if not getattr(request, "_cache_update_cache", True):  # by which packages tell Django's own page cache
        return Refusal.NO_STORE
    if getattr(session, "accessed", False):
        patch_vary_headers(response, ("Cookie",))
    is_told = has_vary_header(response, "Cookie") or _is_as_asked(request, asked)
    return None if is_told else Refusal.SETTING


def _is_as_asked(request: Any, asked: Asked) -> bool:
    """Tell whether the language and the time zone in force are those that such a request always comes to."""
    found = in_force()
    if found.get(ZONE) != asked.own.get(ZONE):
        return False
    if not asked.is_before_locale:
        return found.get(LANGUAGE) == asked.own.get(LANGUAGE)
    return not conf.settings.USE_I18N or translation.get_language() in _languages(request)


def _languages(request: Any) -> set[str | None]:
    """Return the languages to which Django's LocaleMiddleware may come by the path, the cookie and the header."""
    found = {translation.get_language_from_request(request), translation.get_language_from_path(request.path_info)}
    if is_language_prefix_patterns_used(conf.settings.ROOT_URLCONF) == (True, False):  # the usual one has no prefix
        found.add(conf.settings.LANGUAGE_CODE)
    return found


@lru_cache(maxsize=1024)
def _name(name: bytes) -> str:
    return "ETag" if name == b"etag" else name.decode("latin-1").title()


def texts(headers: Headers) -> dict[str, str]:
    """Return headers as Django has them: one line for each name."""
    found: dict[str, str] = {}
    for name, value in headers:
        text = value.decode("latin-1")
        key = _name(name)
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


class _KnownHeaders(ResponseHeaders):
    """Headers that have been checked before."""

    def __init__(self, known: Any) -> None:
        self._store = dict(known._store)


@lru_cache(maxsize=1024)
def _known(record: Record) -> ResponseHeaders:
    return ResponseHeaders(texts(record.headers))


def hit_of(record: Record, headers: Headers, body: bytes) -> HttpResponse:
    """Return the response of a stored page with all of its headers, and some more behind them."""
    response = HttpResponse(body, status=record.status)
    response.headers = _KnownHeaders(_known(record))
    for name, value in headers[len(record.headers) :]:
        response.headers[_name(name)] = value.decode("latin-1")
    return response


def response_of(status: int, headers: Headers, body: bytes, made: Any = None) -> HttpResponse:
    """Return a response of a stored page; with the one that it stands for, that one's clean-up is this one's."""
    found = texts(headers)
    response = HttpResponse(body, status=status, headers=found)
    if "Content-Type" not in found:
        del response.headers["Content-Type"]
    if made is not None:
        response._resource_closers.extend(made._resource_closers)
        made._resource_closers.clear()
    return response


def dress(response: Any, record: Record) -> None:
    """Let a response that was stored tell browsers the lifetime that the stored page tells them."""
    found = texts(record.headers)
    for name in _TOLD:
        if name in found:
            response.headers[name] = found[name]
        elif name in response.headers:
            del response.headers[name]
    if record.coding:
        patch_vary_headers(response, ("Accept-Encoding",))
    if "Storeroom-Cache-Control" in response.headers:
        del response.headers["Storeroom-Cache-Control"]
