"""Whether a stored answer answers a request: RFC 9111 §4, and its conditions: RFC 9110 §13."""

from enum import Enum
from typing import Final, NamedTuple

from storeroom.http.fields import directives, entity_tags, http_date, seconds
from storeroom.http.policy import Policy
from storeroom.http.records import Record
from storeroom.http.requests import Request, strange_cookies

__all__ = ["Kind", "Verdict", "is_unmodified", "judge"]


class Kind(Enum):
    """The ways that a stored answer is used."""

    HIT = "it answers"
    STALE = "it answers, and is made anew"
    MISS = "it does not answer: the application does, and the new answer takes its position"
    BYPASS = "it does not answer, and neither would another one: the application does"


class Verdict(NamedTuple):
    """The judgement of a record for a request.

    Attributes:
        kind: the way it is used.
        is_not_modified: whether 304 answers, and nothing is sent that the client has already.
        reason: for a miss, the word of RFC 9211 §2.2, and of its `detail` after a semicolon; else empty.
    """

    kind: Kind
    is_not_modified: bool = False
    reason: str = ""


_HIT: Final = Verdict(Kind.HIT)
_STALE: Final = Verdict(Kind.STALE)
_EXPIRED: Final = Verdict(Kind.MISS, reason="stale")
_VALIDATED: Final = Verdict(Kind.MISS, reason="stale;no-cache")
_ASKED: Final = Verdict(Kind.MISS, reason="request")
_STRANGE: Final = Verdict(Kind.BYPASS, reason="bypass;cookie")
_AUTHORIZED: Final = Verdict(Kind.BYPASS, reason="bypass;authorization")
_RANGE: Final = Verdict(Kind.BYPASS, reason="partial;range")


def judge(record: Record, request: Request, now: float, policy: Policy) -> Verdict:
    """Return whether a stored answer answers a request, to GET or HEAD, that has its key.

    Args:
        record: the stored answer.
        request: the request.
        now: epoch seconds.
        policy: the options.
    """
    if request.is_plain:
        return _HIT if now < record.fresh_until else _stale(record, now)
    found = request.headers
    if record.is_implicit:  # it may be another page for them, though it does not say so
        if b"authorization" in found:
            return _AUTHORIZED
        if strange_cookies(request, policy):
            return _STRANGE
    if b"range" in found and request.method == "GET":
        return _RANGE  # RFC 9110 §14.2: the application serves parts
    verdict = _HIT if now < record.fresh_until else _stale(record, now)
    if policy.honours_requests and b"cache-control" in found:
        verdict = _asked(record, found[b"cache-control"], now, verdict)
    if verdict.kind in (Kind.HIT, Kind.STALE) and is_unmodified(record, request):
        verdict = Verdict(verdict.kind, is_not_modified=True)
    return verdict


def _stale(record: Record, now: float) -> Verdict:
    if now < record.revalidate_until:
        return _STALE
    return _VALIDATED if record.validates else _EXPIRED


def _asked(record: Record, value: bytes, now: float, verdict: Verdict) -> Verdict:
    """Return the verdict that the request's own directives leave (RFC 9111 §5.2.1)."""
    asked = directives(value)
    age, left = now - record.born, record.fresh_until - now
    if "no-cache" in asked:
        return _ASKED
    if "max-age" in asked and (age > (oldest := seconds(asked["max-age"]) or 0) or oldest == 0):
        return _ASKED
    if "min-fresh" in asked and left < (seconds(asked["min-fresh"]) or 0):
        return _ASKED
    may_be_stale = record.revalidate_until > record.fresh_until or record.error_until > record.fresh_until
    if left <= 0 and "max-stale" in asked and may_be_stale:
        limit = asked["max-stale"]
        return _HIT if limit is None or -left <= (seconds(limit) or 0) else verdict
    return verdict


def is_unmodified(record: Record, request: Request) -> bool:
    """Tell whether the client has the stored answer already: its conditions are false (RFC 9110 §13.1.2, §13.1.3).

    If-None-Match takes precedence (§13.2.2); it compares weakly (§8.8.3.2).
    """
    if record.status != 200:  # conditions are evaluated where the answer would be 200 (§13.2.1)
        return False
    tags = request.headers.get(b"if-none-match")
    if tags is not None:
        if tags.strip() == b"*":
            return True
        return record.etag is not None and record.etag.removeprefix(b"W/") in entity_tags(tags)
    since = request.headers.get(b"if-modified-since")
    if since is None:
        return False
    moment = http_date(since)
    return moment is not None and record.last_modified is not None and record.last_modified <= moment
