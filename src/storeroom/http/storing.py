"""Whether an answer may be stored, and for how long it is of use: RFC 9111 §3, §4.2, RFC 5861, RFC 9213.

Nothing is guessed: an answer that does not say how long it is fresh is stored only by the configured timeout (there is
no heuristic freshness, RFC 9111 §4.2.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from storeroom.http.fields import Headers, date_of, directives, http_date, joined, names, seconds, surrogate, targeted
from storeroom.http.policy import CSRF_HEADERS, CSRF_SIGNS, Policy
from storeroom.http.records import Record
from storeroom.http.requests import Request, are_strange, cloaked_cookies, has_credentials

__all__ = ["Lifetimes", "Refusal", "control", "freshened", "made", "storable", "unfit"]

IMPLICIT_STATUSES: Final = frozenset({200, 203, 301, 308})
"""Statuses of answers that are stored by the configured timeout: no error is, unless it says so itself."""

_UNDERSTOOD: Final = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501})
"""Statuses whose caching this cache knows all about (RFC 9111 §5.2.2.3)."""

_POLICIES: Final = frozenset({b"content-security-policy", b"content-security-policy-report-only"})

_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization",
    b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields of one connection (RFC 9111 §3.1)."""

_UNCHANGED: Final = frozenset({b"content-encoding", b"content-length", b"content-md5", b"content-range", b"etag"})
"""Fields that describe the stored content, which an answer of 304 does not change (RFC 9111 §3.2)."""


class Refusal(Enum):
    """The reason for which an answer is not stored; the value names its section."""

    METHOD = "only answers to GET are stored (RFC 9111 §3)"
    STATUS = "the status is not final, or that of a part (RFC 9111 §3, §3.4)"
    NO_STORE = "no-store (RFC 9111 §5.2.2.5)"
    REQUEST_NO_STORE = "no-store in the request (RFC 9111 §5.2.1.5)"
    PRIVATE = "private (RFC 9111 §5.2.2.7)"
    AUTHORIZATION = "the request tells who asks, and the answer does not allow it (RFC 9111 §3.5)"
    UNDERSCORE = "the request has a header that some applications take for another, with a hyphen"
    SET_COOKIE = "Set-Cookie (RFC 9111 §7.3)"
    VARY_ALL = "Vary: * (RFC 9111 §4.1)"
    COOKIE = "the request has cookies that nobody has named, and the answer does not say that it is fresh"
    NO_LIFETIME = "it does not say for how long it is fresh (RFC 9111 §3)"
    STALE = "it is stale already, and of no use (RFC 9111 §4.2)"
    CSRF = "it has a token against forged requests in it"
    SETTING = "its language or time zone is not the usual one, and nothing tells by what it differs"
    REFLECTED = "it has the value of a cookie in it that no page is to differ by"
    NONCE = "its Content-Security-Policy has a nonce, which is for one answer"
    TOO_LARGE = "it is larger than max_body"
    STREAMED = "it is a stream of events, or was not complete"
    HEADER = "a header has a line end in it (RFC 9110 §5.5)"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The times of an answer that may be stored, in seconds from now.

    Attributes:
        age: when it came (RFC 9111 §4.2.3).
        fresh: for how long it is fresh; less than 0 if it is stale already.
        stale_while_revalidate: for how long after that it is served while it is made anew.
        stale_if_error: for how long after that it is served if it cannot be made anew.
        kept: for how long it is of any use.
        is_implicit: whether it is fresh by the configured timeout.
        validates: whether each use needs the application's word.
        vary: the headers that it differs by.
    """

    age: float
    fresh: float
    stale_while_revalidate: float
    stale_if_error: float
    kept: float
    is_implicit: bool
    validates: bool
    vary: tuple[bytes, ...]


def control(headers: Headers, policy: Policy) -> tuple[Mapping[str, str | None], bool]:
    """Return the directives that count for this cache, and whether a targeted field's (RFC 9213 §2.2)."""
    for name in policy.targeted_names:
        value = joined(headers, name)
        found = surrogate(value) if name == b"surrogate-control" else targeted(value)
        if found is not None:
            return found, True
    return directives(joined(headers, b"cache-control")), False


def storable(request: Request, status: int, headers: Headers, policy: Policy, now: float) -> Lifetimes | Refusal:
    """Return for how long an answer is of use, or the reason for which it is not stored (RFC 9111 §3).

    Args:
        request: the request that it answers.
        status: its status.
        headers: its headers, with names in lower case.
        policy: the options.
        now: epoch seconds at which it came.
    """
    found, is_targeted = control(headers, policy)
    refusal = _refusal(request, status, headers, found)
    if refusal is not None:
        return refusal
    if not policy.stores_tokens and any(b"'nonce-" in value for name, value in headers if name in _POLICIES):
        return Refusal.NONCE
    lifetime = None if _is_overridden(policy) else _lifetime(headers, found, now, is_targeted=is_targeted)
    is_implicit = False
    if lifetime is None and "no-cache" in found:
        lifetime = 0.0
    if lifetime is None:
        if policy.timeout is None or status not in IMPLICIT_STATUSES:
            return Refusal.NO_LIFETIME
        if are_strange(request.headers.get(b"cookie"), policy):
            return Refusal.COOKIE
        lifetime, is_implicit = policy.timeout, True
    return _lifetimes(headers, found, policy, lifetime, now, is_implicit=is_implicit)


def _is_overridden(policy: Policy) -> bool:
    return policy.overrides_lifetimes and policy.timeout is not None


def _refusal(request: Request, status: int, headers: Headers, found: Mapping[str, str | None]) -> Refusal | None:
    sent = directives(request.headers.get(b"cache-control"))
    present = {name for name, _ in headers}
    vary = joined(headers, b"vary")
    refusals = (
        (request.method != "GET", Refusal.METHOD),
        (status < 200 or status in (206, 304), Refusal.STATUS),
        ("must-understand" in found and status not in _UNDERSTOOD, Refusal.STATUS),
        ("no-store" in found and "must-understand" not in found, Refusal.NO_STORE),
        ("no-store" in sent, Refusal.REQUEST_NO_STORE),
        ("private" in found, Refusal.PRIVATE),
        (b"set-cookie" in present or b"set-cookie2" in present, Refusal.SET_COOKIE),
        (vary is not None and b"*" in vary, Refusal.VARY_ALL),
        (
            has_credentials(request) and found.keys().isdisjoint(("public", "s-maxage", "must-revalidate")),
            Refusal.AUTHORIZATION,
        ),
        (any(b"_" in name for name in request.headers), Refusal.UNDERSCORE),
    )
    return next((refusal for holds, refusal in refusals if holds), None)


def _lifetime(headers: Headers, found: Mapping[str, str | None], now: float, *, is_targeted: bool) -> float | None:
    """Return the lifetime that an answer states (RFC 9111 §4.2.1); None if it states none."""
    for name in ("s-maxage", "max-age"):
        if name in found:
            return float(seconds(found[name]) or 0)
    if is_targeted or (expires := joined(headers, b"expires")) is None:
        return None  # a targeted field takes the place of Expires, too (RFC 9213 §2.2)
    until = http_date(expires)
    if until is None:
        return 0.0  # as "0" (RFC 9111 §5.3)
    date = http_date(joined(headers, b"date"))
    return max(0.0, until - (now if date is None else date))


def _age(headers: Headers, now: float) -> float | None:
    """Return the age of an answer that has come now (RFC 9111 §4.2.3); None if it makes no sense."""
    date = http_date(joined(headers, b"date"))
    apparent = 0.0 if date is None else max(0.0, now - date)
    value = joined(headers, b"age")
    if value is None:
        return apparent if apparent >= 1.0 else 0.0  # Date has no fractions
    stated = seconds(value.decode("latin-1"))  # of several the first might count (§5.1), or be forged
    return None if stated is None else max(apparent, float(stated))


def _lifetimes(
    headers: Headers, found: Mapping[str, str | None], policy: Policy, lifetime: float, now: float, *, is_implicit: bool
) -> Lifetimes | Refusal:
    age = _age(headers, now)
    if age is None:
        age, lifetime = 0.0, 0.0
    validates = "no-cache" in found
    fresh = 0.0 if validates else lifetime - age
    # Of these each forbids to serve it stale (RFC 9111 §4.2.4); s-maxage by its §5.2.2.10.
    is_strict = validates or not found.keys().isdisjoint(("must-revalidate", "proxy-revalidate", "s-maxage"))
    has_validator = any(name in (b"etag", b"last-modified") for name, _ in headers)
    revalidate = 0.0 if is_strict else _stale(found, "stale-while-revalidate", policy.stale_while_revalidate)
    error = 0.0 if is_strict else _stale(found, "stale-if-error", policy.stale_if_error)
    kept = max(0.0, fresh, fresh + revalidate, fresh + error)
    if has_validator and policy.revalidate_for:
        kept = max(kept, max(fresh, 0.0) + policy.revalidate_for)
    if kept <= 0:
        return Refusal.NO_LIFETIME if validates else Refusal.STALE
    vary = tuple(sorted({*names(joined(headers, b"vary")), *policy.vary_names, *_implied(headers, is_implicit)}))
    return Lifetimes(age, fresh, revalidate, error, kept, is_implicit, validates, vary)


def _implied(headers: Headers, is_implicit: bool) -> list[bytes]:
    """Return the headers that an answer differs by as it shows, whether it says so or not."""
    implied = []
    for name, value in headers:
        if name == b"content-encoding":
            implied.append(b"accept-encoding")
        elif name == b"content-language" and is_implicit:
            implied.append(b"accept-language")
        elif name == b"access-control-allow-origin" and value != b"*":
            implied.append(b"origin")
    return implied


def _stale(found: Mapping[str, str | None], name: str, default: float) -> float:
    return float(seconds(found[name]) or 0) if name in found else default


def unfit(request: Request, headers: Headers, body: bytes, page: bytes, policy: Policy) -> Refusal | None:
    """Return the reason for which a complete answer is not stored, as its content shows; None if there is none.

    Args:
        request: the request that it answers.
        headers: of the answer.
        body: of the answer.
        page: the body without a coding, where that can be read.
        policy: the options.
    """
    if any(value != b"%d" % len(body) for name, value in headers if name == b"content-length"):
        return Refusal.STREAMED  # cut short; its length would take in the next answer of the connection
    is_token = any(sign in page for sign in CSRF_SIGNS) or any(name in CSRF_HEADERS for name, _ in headers)
    if is_token and not policy.stores_tokens:
        return Refusal.CSRF
    values = [page, *(value for _, value in headers)]
    is_reflected = any(cookie in value for cookie in cloaked_cookies(request, policy) for value in values)
    return Refusal.REFLECTED if is_reflected else None


def made(status: int, headers: Headers, times: Lifetimes, policy: Policy, now: float, stamp: int = 0) -> Record:
    """Return the record of an answer that is storable().

    Without the fields of its connection (RFC 9111 §3.1), the targeted field of this cache and Age.
    """
    listed = set(names(joined(headers, b"connection")))
    dropped = _HOP | listed | {b"age", b"storeroom-cache-control"}
    kept = [pair for pair in headers if pair[0] not in dropped]
    is_restated = policy.browser_timeout is not None or (_is_overridden(policy) and _states(headers))
    if policy.browser_timeout is not None:
        # One for all: a page that is purged here must not live on in browsers.
        kept = [pair for pair in kept if pair[0] not in (b"cache-control", b"expires")]
        kept.append((b"cache-control", b"max-age=%d" % policy.browser_timeout))
    elif policy.tells_timeout and times.is_implicit and not _states(headers):
        told = (joined(kept, b"cache-control"), b"max-age=%d" % times.fresh)
        kept = [pair for pair in kept if pair[0] != b"cache-control"]
        kept.append((b"cache-control", b", ".join(part for part in told if part)))
        kept.append((b"expires", date_of(now + times.fresh)))
    fresh_until = now + times.fresh
    return Record(
        status, kept, now - times.age, fresh_until, revalidate_until=fresh_until + times.stale_while_revalidate,
        error_until=fresh_until + times.stale_if_error, kept_until=now + times.kept, is_implicit=times.is_implicit,
        validates=times.validates, is_restated=is_restated, stamp=stamp,
    )  # fmt: skip


def _states(headers: Headers) -> bool:
    """Tell whether an answer states a lifetime that browsers go by."""
    return "max-age" in directives(joined(headers, b"cache-control")) or joined(headers, b"expires") is not None


def freshened(record: Record, headers: Headers) -> Headers:
    """Return the headers of a stored answer after the application has said, by 304, that it is as it was.

    Fields of the new answer take the places of the stored ones (RFC 9111 §3.2, §4.3.4).
    """
    new = [(name, value) for name, value in headers if name not in _UNCHANGED]
    replaced = {name for name, _ in new}
    return [pair for pair in record.headers if pair[0] not in replaced] + new
