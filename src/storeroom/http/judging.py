"""Whether a stored answer answers a request: RFC 9111 §4, and its conditions: RFC 9110 §13."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple

from storeroom.http.fields import directives, entity_tags, http_date, seconds
from storeroom.http.policy import Policy
from storeroom.http.records import Record
from storeroom.http.requests import Request, are_strange, has_credentials

__all__ = ["Kind", "Verdict", "cut", "is_unmodified", "judge"]


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
        is_part: whether the request's Range is of what is stored: see cut().
        reason: for a miss, the word of RFC 9211 §2.2, and of its `detail` after a semicolon; else empty.
    """

    kind: Kind
    is_not_modified: bool = False
    reason: str = ""
    is_part: bool = False


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
        if has_credentials(request):
            return _AUTHORIZED
        if are_strange(found.get(b"cookie"), policy):
            return _STRANGE
    is_part = b"range" in found and request.method == "GET"
    if is_part and not policy.serves_ranges:
        return _RANGE  # RFC 9110 §14.2: the application serves parts
    verdict = _HIT if now < record.fresh_until else _stale(record, now)
    if policy.honours_requests and b"cache-control" in found:
        verdict = _asked(record, found[b"cache-control"], now, verdict)
    if verdict.kind in (Kind.HIT, Kind.STALE) and is_unmodified(record, request):
        return Verdict(verdict.kind, is_not_modified=True)
    return verdict._replace(is_part=True) if is_part and _holds_if_range(record, found) else verdict


def _holds_if_range(record: Record, found: Mapping[bytes, bytes]) -> bool:
    """Tell whether the part is wanted of this very answer: validators compare strongly (RFC 9110 §13.1.5)."""
    wanted = found.get(b"if-range")
    if wanted is None or wanted == record.etag:
        return wanted is None or not wanted.startswith(b"W/")
    moment = http_date(wanted)
    return moment is not None and moment == record.last_modified


_BYTES: Final = re.compile(rb"bytes=(\d*)-(\d*)")


def cut(record: Record, body: bytes, value: bytes) -> tuple[Record, bytes]:
    """Return the part of an answer that a Range asks for, as an answer of 206 (RFC 9110 §14, §15.3.7).

    The whole answer for several ranges, and for what is none; that of 416 for one beyond its end.
    """
    found, size = _BYTES.fullmatch(value.strip()), len(body)
    if found is None or record.status != 200 or not (found[1] or found[2]):
        return record, body
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or size), size - 1)
        if found[2] and int(found[2]) < start:
            return record, body
    else:
        start, end = max(0, size - int(found[2])), size - 1
    status, part = (206, b"bytes %d-%d/%d" % (start, end, size)) if start <= end else (416, b"bytes */%d" % size)
    body = body[start : end + 1] if status == 206 else b""
    kept = [pair for pair in record.headers if pair[0] not in (b"content-length", b"content-range")]
    headers = [*kept, (b"content-range", part), (b"content-length", b"%d" % len(body))]
    return Record(status, headers, record.born, record.fresh_until, is_restated=record.is_restated), body


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
    modified = record.date if record.last_modified is None else record.last_modified  # RFC 9111 §4.3.2
    return moment is not None and modified <= moment
