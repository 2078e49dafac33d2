"""The values of header fields that decide about caching, read as their sections say.

Each reader takes the bytes as they came, of all lines of the field joined by commas. A value that means nothing reads
as the absence of permission: stale, no match, no date.
"""

import re
from calendar import timegm
from collections.abc import Mapping
from functools import lru_cache
from time import gmtime
from types import MappingProxyType
from typing import Final

__all__ = [
    "Headers",
    "cookies",
    "date_of",
    "directives",
    "entity_tags",
    "http_date",
    "joined",
    "names",
    "seconds",
    "surrogate",
    "targeted",
]

Headers = list[tuple[bytes, bytes]]
"""Pairs of a lower-case name and a value, as ASGI has them."""

LONGEST: Final = 2**31
"""Seconds: a larger number means the same (RFC 9111 §1.2.2)."""

_MEMBER: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_DIGITS: Final = re.compile(r"[0-9]+")


def joined(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of a field, its lines joined by commas (RFC 9110 §5.2); None if it is absent."""
    values = [value for found, value in headers if found == name]
    return b", ".join(values) if values else None


def names(value: bytes | None) -> tuple[bytes, ...]:
    """Return the names in a list of names, in lower case, sorted, each once.

    >>> names(b"Accept-Language, cookie,, COOKIE")
    (b'accept-language', b'cookie')
    """
    if not value:
        return ()
    return tuple(sorted({name.strip().lower() for name in value.split(b",")} - {b""}))


@lru_cache(maxsize=1024)
def directives(value: bytes | None) -> Mapping[str, str | None]:
    """Return the directives of Cache-Control, by name in lower case (RFC 9111 §5.2).

    Of a directive that is there twice, the shorter time counts (§4.2.1).

    >>> dict(directives(b'Max-Age="60", no-store'))
    {'max-age': '60', 'no-store': None}
    """
    found: dict[str, str | None] = {}
    for member in _MEMBER.findall((value or b"").decode("latin-1")):
        name, equals, argument = member.strip().partition("=")
        text = _unquoted(argument) if equals else None
        name = name.strip().lower()
        if name in found and (seconds(text) or 0) >= (seconds(found[name]) or 0):
            continue
        found[name] = text
    found.pop("", None)
    return MappingProxyType(found)


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def seconds(text: str | None) -> int | None:
    """Return a number of seconds (RFC 9111 §1.2.2); None if it is none.

    >>> seconds("060"), seconds("1.5"), seconds("'60'"), seconds(None)
    (60, None, None, None)
    """
    if text is None or not text.isascii() or not _DIGITS.fullmatch(text):
        return None
    return min(int(text[:12]), LONGEST) if len(text.lstrip("0")) <= 12 else LONGEST


_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES: Final = (
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<day>\d\d) (?P<month>\w{{3}}) (?P<year>\d{{4}}) {_TIME} GMT"),
    re.compile(rf"\w{{3,6}}day, (?P<day>\d\d)-(?P<month>\w{{3}})-(?P<year>\d\d) {_TIME} GMT"),
    re.compile(rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?P<month>\w{{3}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})"),
)


@lru_cache(maxsize=1024)
def http_date(value: bytes | None) -> float | None:
    """Return the epoch seconds of an HTTP date, in any of its three forms (RFC 9110 §5.6.7); None for anything else.

    >>> http_date(b"Sun, 06 Nov 1994 08:49:37 GMT"), http_date(b"Sun, 06 Nov 1994 08:49:37 UTC")
    (784111777.0, None)
    """
    text = (value or b"").decode("latin-1")
    for form in _DATES:
        if (found := form.fullmatch(text)) and found["month"] in _MONTHS:
            day, hour, minute, second = (int(found[name]) for name in ("day", "hour", "minute", "second"))
            year = int(found["year"])
            if year < 100:  # two digits: the century is that which makes it no more than 50 years ahead
                year += 2000 if year < 77 else 1900
            if 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60:
                return float(timegm((year, _MONTHS.index(found["month"]) + 1, day, hour, minute, second)))
    return None


def date_of(moment: float) -> bytes:
    """Return epoch seconds as an HTTP date (RFC 9110 §5.6.7).

    >>> date_of(784111777.0)
    b'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    time = gmtime(moment)
    day, month = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[time.tm_wday], _MONTHS[time.tm_mon - 1]
    clock = f"{time.tm_hour:02}:{time.tm_min:02}:{time.tm_sec:02}"
    return f"{day}, {time.tm_mday:02} {month} {time.tm_year} {clock} GMT".encode()


_ETAG: Final = re.compile(rb'(?:W/)?"([^"]*)"')


def entity_tags(value: bytes) -> frozenset[bytes]:
    """Return the entity tags of If-None-Match for the weak comparison: without the W/ (RFC 9110 §8.8.3.2, §13.1.2).

    >>> sorted(entity_tags(b'W/"a", "b"')), sorted(entity_tags(b'"a", nonsense'))
    ([b'"a"', b'"b"'], [])
    """
    left = _ETAG.sub(b"", value)
    if left.strip(b" \t,"):
        return frozenset()
    return frozenset(b'"' + opaque + b'"' for opaque in _ETAG.findall(value))


_SF_MEMBER: Final = re.compile(
    r"[ \t]*(?P<name>[a-z*][a-z0-9_.*-]*)"
    r'(?:=(?P<value>-?\d{1,15}(?![\d.])|-?\d{1,12}\.\d{1,3}|"(?:[ !#-\[\]-~]|\\["\\])*"|\?[01]|:[A-Za-z0-9+/=]*:'
    r"|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*))?"
    r'(?:; *[a-z*][a-z0-9_.*-]*(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*"|[!#$%&\'*+.^_`|~0-9A-Za-z:/?=-]*))?)*'
    r"[ \t]*(?:,(?!\s*$)|$)"
)


@lru_cache(maxsize=256)
def targeted(value: bytes | None) -> Mapping[str, str | None] | None:
    """Return the directives of a targeted field such as CDN-Cache-Control, a structured dictionary (RFC 9213 §2.1).

    None if it is empty or no dictionary: the field is as if it were not there (§2.2).

    >>> dict(targeted(b"max-age=60, must-revalidate"))
    {'max-age': '60', 'must-revalidate': None}
    >>> targeted(b"MAX-AGE=60"), targeted(b"max-age=60,")
    (None, None)
    """
    text, position, found = (value or b"").decode("latin-1").strip(" "), 0, dict[str, str | None]()
    while position < len(text):
        member = _SF_MEMBER.match(text, position)
        if member is None:
            return None
        position = member.end()
        name, argument = member["name"], member["value"]
        found.pop(name, None)  # the last one counts (RFC 8941 §3.2)
        if argument != "?0":
            found[name] = None if argument in (None, "?1") else argument
    return MappingProxyType(found) if found else None


@lru_cache(maxsize=256)
def surrogate(value: bytes | None) -> Mapping[str, str | None] | None:
    """Return the directives of Surrogate-Control that are for this cache; None if there are none.

    A directive may name the cache that it is for: "storeroom", by which this one makes itself known.
    Source: the W3C Note "Edge Architecture Specification", 2001, section 2.3.

    >>> dict(surrogate(b"max-age=60;storeroom, no-store;another"))
    {'max-age': '60'}
    """
    ours = []
    for member in (value or b"").split(b","):
        directive, _, target = member.partition(b";")
        if target.strip() in (b"", b"storeroom"):
            ours.append(directive)
    return directives(b",".join(ours)) or None


def cookies(value: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the cookies of a request, in order; one name may be there twice, and applications differ in which counts.

    A part without a name, or without a value, is one, too: some applications see a name in it, and others a value.

    >>> cookies(b"a=1; b=2; a=3; x; =x;")
    [(b'a', b'1'), (b'b', b'2'), (b'a', b'3'), (b'', b'x'), (b'', b'=x')]
    """
    parts = [part.strip() for part in (value or b"").split(b";") if part.strip()]
    pairs = [(*part.partition(b"="), part) for part in parts]
    return [(name.strip(), text.strip()) if name and equals else (b"", part) for name, equals, text, part in pairs]
