"""The URLs that a request changes, by its method: RFC 9111 §4.4."""

from typing import Final
from urllib.parse import urljoin, urlsplit

from storeroom.http.fields import Headers, joined
from storeroom.http.requests import Request

__all__ = ["changed"]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""

MOST: Final = 400
"""Statuses from here on are errors: nothing was changed."""


def changed(request: Request, status: int, headers: Headers) -> list[str]:
    """Return the paths, with their queries, whose stored answers an answer has made invalid; of the request's host.

    The target, and the URLs of Location and Content-Location if they are of the same origin; none of a safe method,
    or of an error.
    """
    if request.method in _SAFE or not 200 <= status < MOST:  # "non-error" (§4.4)
        return []
    target = f"{request.path}?{request.query}" if request.query else request.path
    base = f"{request.scheme}://{request.host.decode('latin-1').lower()}{target}"
    found = [target]
    for name in (b"location", b"content-location"):
        value = joined(headers, name)
        if value is not None:
            found += _of_same_origin(base, value.decode("latin-1"))
    return list(dict.fromkeys(found))


def _of_same_origin(base: str, location: str) -> list[str]:
    try:
        ours, theirs = urlsplit(base), urlsplit(urljoin(base, location))
    except ValueError:  # no URL
        return []
    if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc.lower()):
        return []
    return [f"{theirs.path or '/'}?{theirs.query}" if theirs.query else theirs.path or "/"]
