"""A stored answer: bytes and plain data, which every door reads alike, in any process and any later version.

A record is one bytes object: two bytes that tell its kind, a head of fixed numbers, the headers as lines, the body.
"""

import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from storeroom.http.fields import Headers, http_date

__all__ = [
    "PASS", "RECORD", "VARIES", "Record", "Varies", "generation_of", "pack", "pass_by", "read_varies", "unpack",
    "varies",
]  # fmt: skip

RECORD: Final = b"\x50\x01"
"""The kind of an answer."""
VARIES: Final = b"\x50\x02"
"""The kind of an entry that tells the headers that a URL's answers differ by."""
PASS: Final = b"\x50\x03"
"""The kind of an entry that tells that a URL's answers were not to be stored."""

_HEAD: Final = struct.Struct(">2sBHdddddIQ")
_IMPLICIT, _VALIDATES, _RESTATED = 1, 2, 4
_CODINGS: Final = {"": 0, "gzip": 8, "zstd": 16}


class Record:
    """The answer of a moment, without its body.

    Attributes:
        status: of the answer, 200 as a rule.
        headers: in order, with lower-case names.
        born: epoch seconds at which its age was 0 (RFC 9111 §4.2.3).
        fresh_until: epoch seconds, as the following.
        revalidate_until: until when it may be served stale while it is made anew (RFC 5861 §3).
        error_until: until when it may be served stale if it cannot be made anew (RFC 5861 §4).
        kept_until: until when it is of any use.
        is_implicit: whether its lifetime is the configuration's, and not the page's own word.
        validates: whether each use needs the application's word that it is as it was (RFC 9111 §5.2.2.4).
        is_restated: whether browsers are told a lifetime of their own, which begins when they get it: no Age then.
        stamp: the generation of pages that it belongs to.
        etag: its entity tag; None if it has none.
        last_modified: epoch seconds; None if it does not say.
        date: epoch seconds at which the application has made it; its birth, if it does not say.
        coding: "gzip" or "zstd" if the body is stored so by the cache; else empty.
        forms: the record in that form and in the application's, once they were made.
    """

    __slots__ = (
        "born", "coding", "date", "error_until", "etag", "forms", "fresh_until", "headers", "is_implicit",
        "is_restated", "kept_until", "last_modified", "revalidate_until", "stamp", "status", "validates",
    )  # fmt: skip

    def __init__(
        self, status: int, headers: Headers, born: float, fresh_until: float, *, revalidate_until: float = 0.0,
        error_until: float = 0.0, kept_until: float = 0.0, is_implicit: bool = False, validates: bool = False,
        is_restated: bool = False, stamp: int = 0,
    ) -> None:  # fmt: skip
        self.status, self.headers, self.born, self.fresh_until = status, headers, born, fresh_until
        self.revalidate_until, self.error_until, self.kept_until = revalidate_until, error_until, kept_until
        self.is_implicit, self.validates, self.is_restated, self.stamp = is_implicit, validates, is_restated, stamp
        self.etag: bytes | None = None
        self.last_modified: float | None = None
        self.date, self.coding = born, ""
        self.forms: tuple[Record, Record] | None = None
        for name, value in headers:
            if name == b"etag":
                self.etag = value
            elif name == b"last-modified":
                self.last_modified = http_date(value)
            elif name == b"date":
                self.date = http_date(value) or born


def pack(record: Record, body: bytes) -> bytes:
    """Return an answer as it is stored.

    Raises:
        ValueError: a header has a line end in it.
    """
    lines = [name + b":" + value for name, value in record.headers]
    headers = b"\n".join(lines)
    if headers.count(b"\n") >= len(lines) > 0 or b"\r" in headers or b"\0" in headers:
        raise ValueError("a header with a line end in it")
    flags = _IMPLICIT * record.is_implicit + _VALIDATES * record.validates + _RESTATED * record.is_restated
    flags += _CODINGS[record.coding]
    head = _HEAD.pack(
        RECORD, flags, record.status, record.born, record.fresh_until, record.revalidate_until, record.error_until,
        record.kept_until, len(headers), record.stamp,
    )  # fmt: skip
    return b"".join((head, headers, body))


_LENGTH: Final = struct.Struct(">I")
_LENGTH_AT: Final = _HEAD.size - 12


def unpack(stored: bytes) -> tuple[Record, bytes]:
    """Return an answer and its body, as pack() has packed them.

    Raises:
        ValueError: the bytes are no answer's, or damaged.
    """
    start = _HEAD.size
    try:
        end = start + _LENGTH.unpack_from(stored, _LENGTH_AT)[0]
        return _read(stored[:end]), stored[end:]
    except (struct.error, ValueError):
        raise ValueError("bytes that are no stored page") from None


@lru_cache(maxsize=2048)
def _read(head: bytes) -> Record:
    kind, flags, status, born, fresh, revalidate, error, kept, length, stamp = _HEAD.unpack_from(head)
    if kind != RECORD or len(head) != _HEAD.size + length:
        raise ValueError("bytes that are no stored page")
    headers = [(name, value) for name, _, value in (line.partition(b":") for line in head[_HEAD.size :].split(b"\n"))]
    record = Record(
        status, headers if length else [], born, fresh, revalidate_until=revalidate, error_until=error,
        kept_until=kept, is_implicit=bool(flags & _IMPLICIT), validates=bool(flags & _VALIDATES),
        is_restated=bool(flags & _RESTATED), stamp=stamp,
    )  # fmt: skip
    record.coding = {8: "gzip", 16: "zstd"}.get(flags & 24, "")
    return record


class Varies:
    """The headers that the answers of a URL differ by.

    Attributes:
        names: of the headers, in lower case, sorted.
        stamp: part of the keys of the answers, so that they are gone when this is.
        generation: the generation of pages that it belongs to.
    """

    __slots__ = ("generation", "names", "stamp")

    def __init__(self, names: tuple[bytes, ...], stamp: str, generation: int) -> None:
        self.names, self.stamp, self.generation = names, stamp, generation


def varies(names: Sequence[bytes], generation: int = 0) -> bytes:
    """Return an entry that tells the headers that a URL's answers differ by; no two are alike."""
    return b"\n".join((VARIES + generation.to_bytes(8, "big") + os.urandom(8).hex().encode(), *names))


@lru_cache(maxsize=2048)
def read_varies(stored: bytes) -> Varies:
    """Return the headers of an entry that varies() has made."""
    stamp, *names = stored[10:].split(b"\n")
    return Varies(tuple(names), stamp.decode("latin-1"), int.from_bytes(stored[2:10], "big"))


def pass_by(generation: int = 0) -> bytes:
    """Return an entry that tells that a URL's answers were not to be stored; no two are alike."""
    return PASS + generation.to_bytes(8, "big") + os.urandom(8)


def generation_of(stored: bytes) -> int:
    """Return the generation of an entry that pass_by() or varies() has made."""
    return int.from_bytes(stored[2:10], "big")
