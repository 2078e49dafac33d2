"""A request as the rules see it, and the keys of its answers (RFC 9111 §2, §4.1)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from storeroom.http.fields import cookies
from storeroom.http.policy import Policy

__all__ = [
    "FORWARDED", "LOOKED_AT", "REMOTE_USER", "Request", "are_strange", "bypass", "cloaked_cookies", "counted_query",
    "counted_text", "forwarded", "has_credentials", "key", "variant",
]  # fmt: skip

_HOST: Final = re.compile(rb"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": b":80", "https": b":443"}

_OVERRIDES: Final = (
    b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url",
)  # fmt: skip
"""Headers by which some applications take a request for another one than it is."""

FORWARDED: Final = (
    b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-protocol", b"x-forwarded-scheme", b"x-forwarded-port",
    b"x-forwarded-prefix", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-ssl", b"x-forwarded-server",
    b"forwarded", b"front-end-https", b"x-host", b"x-http-host-override", b"x-original-host", b"x-original-uri",
    b"x-scheme", b"x-script-name", b"x-url-scheme", b"datastar-request", b"hx-boosted", b"hx-history-restore-request",
    b"hx-request", b"hx-target", b"turbo-frame", b"x-alpine-request", b"x-inertia", b"x-inertia-partial-data",
    b"x-pjax", b"x-requested-with", b"x-up-target", b":language", b":time-zone",
)  # fmt: skip
"""Headers by which some applications learn their own address, which is then in their pages, or answer with a part of a
page: an answer differs by those that are sent, so that nobody's forged address, and no part, is in another's page.
Those with a colon are a door's own: a framework's settings for this request, where they are not the usual ones."""

REMOTE_USER: Final = b"remote-user"
"""The header under which a door tells that a server, or an application around it, knows who asks."""

_CREDENTIALS: Final = frozenset({
    b"authorization", REMOTE_USER, b"api-key", b"apikey", b"cf-access-jwt-assertion", b"proxy-authorization",
    b"x-access-token", b"x-amzn-oidc-data", b"x-amzn-oidc-identity", b"x-api-key", b"x-api-token", b"x-apikey",
    b"x-auth-request-email", b"x-auth-request-user", b"x-auth-token", b"x-authenticated-user", b"x-forwarded-email",
    b"x-forwarded-user", b"x-goog-authenticated-user-email", b"x-goog-iap-jwt-assertion", b"x-ms-client-principal",
    b"x-remote-user", b"x-session-token", b"x-token", b"x-user", b"x-user-id", b"x-webauth-user",
})  # fmt: skip
"""Headers by which applications know who asks: those of keys to an API, and those that proxies add after a login."""

_LISTS: Final = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
"""Headers in which neither case nor space means anything (RFC 9111 §4.1, RFC 9110 §12.5)."""

_SPACE: Final = re.compile(rb"[ \t]+")

_FOR: Final = re.compile(rb"(?i:\b(?:for|by)=[^;,]*)[;,]?")
"""The parts of Forwarded that tell the client, and not the address that it asked for (RFC 7239 §5)."""

LOOKED_AT: Final = frozenset({
    *_OVERRIDES, *FORWARDED, *_CREDENTIALS, b"cache-control", b"content-length", b"cookie", b"expect",
    b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"range",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Headers that decide about the answer, whatever the page differs by: a request without them is a plain one."""


class Request:
    """A request: nothing is read of it that is not here.

    Attributes:
        method: in capitals.
        scheme: "http" or "https".
        host: the Host header, as the framework or the server has accepted it.
        path: as it was sent, percent-encoded.
        query: as it was sent, without the question mark.
        headers: by lower-case name; the lines of a name joined by commas.
        is_plain: whether it has none of LOOKED_AT; None to find out.
    """

    __slots__ = ("headers", "host", "is_plain", "method", "path", "query", "scheme")

    def __init__(
        self, method: str, scheme: str, host: bytes, path: str, query: str, headers: Mapping[bytes, bytes],
        is_plain: bool | None = None,
    ) -> None:  # fmt: skip
        self.method, self.scheme = method, scheme
        self.host, self.path = host, path
        self.query, self.headers = query, headers
        if is_plain is None:
            is_plain = all(name not in headers for name in LOOKED_AT)
        self.is_plain = is_plain


def bypass(request: Request) -> str | None:
    """Return the reason for which a request is none of the cache's business; None if it is.

    The words are those of RFC 9211 §2.2, and of its `detail` after a semicolon.
    """
    if request.method not in ("GET", "HEAD"):
        return "method"
    if request.is_plain:
        return None
    found = request.headers
    has_body = found.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in found
    reasons = (
        (any(name in found for name in _OVERRIDES), "bypass;override"),
        (b"upgrade" in found or b"expect" in found, "bypass;upgrade"),
        (has_body, "bypass;body"),  # it means nothing (RFC 9110 §9.3.1), but to some applications
        # The origin's to evaluate (RFC 9111 §4.3.2).
        (b"if-match" in found or b"if-unmodified-since" in found, "request;precondition"),
    )
    return next((reason for holds, reason in reasons if holds), None)


@lru_cache(maxsize=1024)
def _host(host: bytes, scheme: str) -> str | None:
    host = host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, b"-"))
    return host.decode("latin-1") if _HOST.fullmatch(host) else None


def key(request: Request, policy: Policy) -> str | None:
    """Return the primary key of a request's answers: its URL (RFC 9111 §2). None if its host is none.

    HEAD shares GET's. Case and default port of the host do not count (RFC 9110 §4.2.3); all of the path does. A path
    without a slash before it would read as the end of the host.
    """
    host = _host(request.host, request.scheme)
    if host is None or request.path[:1] != "/":
        return None
    query = request.query
    if query and policy.ignored_parameters:
        query = counted_query(query, policy)
    return f"{request.scheme}://{host}{request.path}?{query}" if query else f"{request.scheme}://{host}{request.path}"


def counted_query(query: str, policy: Policy) -> str:
    """Return the parameters of a query that a page may differ by."""
    return "&".join(part for part in query.split("&") if not _is_ignored(part, policy))


def _is_ignored(part: str, policy: Policy) -> bool:
    """Tell whether a parameter does not count. One with a semicolon does, as some take that for an ampersand."""
    name = part.partition("=")[0].encode("latin-1", "replace")
    return ";" not in part and policy.ignores_parameter.fullmatch(name) is not None


def has_credentials(request: Request) -> bool:
    """Tell whether an application may know by a request's headers who asks, but for cookies."""
    return not request.is_plain and any(name in request.headers for name in _CREDENTIALS)


def forwarded(request: Request) -> tuple[bytes, ...]:
    """Return the headers that an answer differs by wherever they are sent, also if it does not say so."""
    if request.is_plain:
        return ()
    return tuple(name for name in FORWARDED if name in request.headers)


def _netstring(value: bytes | None) -> str:
    """Return a value with its length before it, so that no two lists of values read alike; "-" for an absent one."""
    return "-" if value is None else f"{len(value)}:{value.decode('latin-1')}"


def variant(request: Request, names: tuple[bytes, ...], policy: Policy) -> str:
    """Return the rest of the key of an answer that differs by these headers (RFC 9111 §4.1).

    Values count as they are, but for case and space in those of Accept and its kin; absent ones apart from empty ones.
    """
    values = []
    for name in names:
        value = request.headers.get(name)
        if name == b"cookie" and value is not None:
            value = counted_text(value, policy)
        elif name == b"forwarded" and value is not None:
            value = _FOR.sub(b"", value)
        elif name in _LISTS and value is not None:
            value = _SPACE.sub(b"", value).lower()
        values.append(_netstring(value))
    return ",".join(values)


def counted_text(value: bytes, policy: Policy) -> bytes | None:
    """Return the cookies that a page may differ by, sorted by name, those of one name in their order; None if none."""
    named = policy.cookie_names
    if named is not None and not any(name in value for name in named):
        return None  # as the rest would find out
    counted = (
        pair
        for pair in cookies(value)
        if (not _ignores(pair, policy) if named is None else (pair[0] or pair[1]) in named)
    )
    return b"; ".join(b"%b=%b" % pair for pair in sorted(counted, key=lambda pair: pair[0])) or None


def are_strange(value: bytes | None, policy: Policy) -> bool:
    """Tell whether a request has cookies that nobody has said anything about, by its header."""
    if value is None or policy.allows_cookies.fullmatch(value):
        return False
    named = policy.cookie_names or frozenset()
    return any(pair[0] not in named and not _is_alone(pair, policy.allows_cookie) for pair in cookies(value))


_SEPARATORS: Final = re.compile(rb"[\s,\"]")
"""Bytes at which some applications, those with http.cookies among them, see the end of a cookie, and another one."""


def _ignores(pair: tuple[bytes, bytes], policy: Policy) -> bool:
    """Tell whether no page differs by a cookie: it is an ignored one, and hides no other."""
    return _is_alone(pair, policy.ignores_cookie)


def _is_alone(pair: tuple[bytes, bytes], names: re.Pattern[bytes]) -> bool:
    """Tell whether a cookie has one of some names, and no other cookie within its value."""
    name, value = pair
    return names.fullmatch(name) is not None and not _SEPARATORS.search(value)


_SHORTEST: Final = 8
"""Bytes of a value that is found in a page by chance no more."""


def cloaked_cookies(request: Request, policy: Policy) -> list[bytes]:
    """Return the values of a request's cookies that no page is to differ by, as sent and as read."""
    value = request.headers.get(b"cookie")
    ignored = [pair[1] for pair in cookies(value) if _ignores(pair, policy)]
    return [form for sent in ignored for form in {sent, unquote_to_bytes(sent)} if len(form) >= _SHORTEST]
