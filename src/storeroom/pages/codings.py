"""Pages that are stored compressed, and answered so to those who accept it (RFC 9110 §8.4, §12.5.3).

Such a page says ``Vary: Accept-Encoding`` in either form. Its entity tag is weak in the compressed one, which has other
bytes (§8.8.3).
"""

import re
import zlib
from copy import copy
from functools import lru_cache
from typing import Any, Final

from storeroom.exceptions import ConfigurationError
from storeroom.http import Headers, Record
from storeroom.http.fields import directives, joined, names
from storeroom.serializers.compressors import FORMATS, get_format
from storeroom.storage import unstored

__all__ = ["IDENTITY", "check", "compressed", "readable", "shown"]

IDENTITY: Final = b"identity"

CODINGS: Final = ("gzip", "zstd")

SMALLEST: Final = 500
"""Bytes below which a page is not made smaller by more than its new headers are."""

LARGEST: Final = 100 * 2**20
"""Bytes that a stored page may expand to: a shared storage that others write to must not fill this process's memory."""

_TEXTS: Final = re.compile(rb"text/|application/(?:[\w.+-]*\+)?(?:json|xml|javascript|wasm)\b|image/svg")


def check(coding: Any) -> None:
    """See that pages can be stored in this coding; None is for as they are.

    Raises:
        ConfigurationError: they cannot.
    """
    if coding is not None and coding not in CODINGS:
        raise ConfigurationError(f'compress is {coding!r}; expected "gzip", "zstd" or None.')
    get_format({"gzip": "zlib", None: None}.get(coding, coding))


def compressed(record: Record, body: bytes, coding: str | None) -> tuple[Record, bytes]:
    """Return a page as it is to be stored: compressed, if that makes it smaller and nothing is against it."""
    headers = record.headers
    present = {name for name, _ in headers}
    kind = joined(headers, b"content-type") or b""
    is_fit = coding is not None and len(body) >= SMALLEST and _TEXTS.match(kind) and b"content-encoding" not in present
    if not is_fit or "no-transform" in directives(joined(headers, b"cache-control")):
        return record, body
    smaller = _gzip(body) if coding == "gzip" else bytes(FORMATS["zstd"].library().compress(body))
    if len(smaller) >= len(body):
        return record, body
    stored = copy(record)
    stored.coding = str(coding)
    return stored, smaller


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


def _expanded(body: bytes, coding: str) -> bytes | None:
    """Return the page as it was; None if the bytes are damaged, or it is too large."""
    with unstored.Caught():  # each library has errors of its own
        if coding == "gzip":
            expander = zlib.decompressobj(31)
            page = expander.decompress(body, LARGEST)
            return page if expander.eof else None
        return FORMATS["zstd"].expand(FORMATS["zstd"].prefix + body, LARGEST)
    return None


def readable(headers: Headers, body: bytes) -> bytes:
    """Return a page that the application has compressed as it was before, where that is gzip; else as it is."""
    if joined(headers, b"content-encoding") not in (b"gzip", b"x-gzip"):
        return body
    return _expanded(body, "gzip") or body


def shown(record: Record, body: bytes, accept: bytes | None) -> tuple[Record, bytes] | None:
    """Return a stored page as this client accepts it; None if its bytes are damaged.

    Args:
        record: the page.
        body: as it is stored.
        accept: the request's Accept-Encoding.
    """
    if not record.coding:
        return record, body
    if record.forms is None:
        record.forms = _form(record, len(body)), _form(record, None)
    if _accepts(accept, record.coding.encode()):
        return record.forms[0], body
    page = _expanded(body, record.coding)
    return None if page is None else (record.forms[1], page)


def _form(record: Record, length: int | None) -> Record:
    """Return the record of a page in one form: compressed to so many bytes, or as the application has made it."""
    form = copy(record)
    form.coding, form.forms = "", None
    headers = list(record.headers)
    if length is not None:
        headers = [(name, _weak(value) if name == b"etag" else value) for name, value in headers]
        headers = [pair for pair in headers if pair[0] != b"content-length"]
        headers += [(b"content-encoding", record.coding.encode()), (b"content-length", b"%d" % length)]
    if b"accept-encoding" not in names(joined(record.headers, b"vary")):
        headers.append((b"vary", b"accept-encoding"))
    form.headers = headers
    return form


def _weak(tag: bytes) -> bytes:
    return tag if tag.startswith(b"W/") else b"W/" + tag


@lru_cache(maxsize=256)
def _accepts(value: bytes | None, coding: bytes) -> bool:
    """Tell whether a client accepts a coding (RFC 9110 §12.5.3): it is named, or a star is, and not with q=0."""
    weights: dict[bytes, bytes] = {}
    for member in (value or b"").split(b","):
        name, _, weight = member.partition(b";")
        weights[name.strip().lower()] = weight.replace(b" ", b"").lower()
    weight = weights.get(coding, weights.get(b"*", b"q=0"))
    return re.fullmatch(rb"q=0(?:\.0{0,3})?", weight) is None
