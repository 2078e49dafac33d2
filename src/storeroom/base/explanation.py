"""The answer of explain(): records without a value or a secret in them, and their text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

__all__ = ["Explanation", "Lease", "TagState", "Tier", "seconds_in_words"]

_MINUTES_FROM: Final = 600
_HOURS_FROM: Final = 6 * 3600
_TENTHS_BELOW: Final = 10


def seconds_in_words(seconds: float) -> str:
    """Return a duration for people.

    >>> seconds_in_words(3.04), seconds_in_words(12.6), seconds_in_words(1800), seconds_in_words(90000)
    ('3.0 s', '13 s', '30 min', '25.0 h')
    """
    if seconds < _TENTHS_BELOW:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < _MINUTES_FROM:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOURS_FROM else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class Tier:
    """An entry in one tier.

    Attributes:
        name: "transaction", "memo" or "near"; else the class of the storage.
        state: "live", "expired", "not believed", "unreadable", "absent", "removed" or "out of reach".
        left: seconds until its time is over there; None where it never is, or is not known.
        size: bytes, as far as the tier tells.
        note: more about the state, as a part of a sentence.
    """

    name: str
    state: str
    left: float | None = None
    size: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class TagState:
    """A tag of an entry.

    Attributes:
        name: the tag.
        is_current: whether its version is that of when the entry was written.
        since: seconds for which it has not been; None where this process does not know.
        was_evicted: whether its version was evicted, and not invalidated.
    """

    name: str
    is_current: bool
    since: float | None = None
    was_evicted: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A computation of the entry's value that is under way.

    Attributes:
        left: seconds until others may compute, unless it is renewed; None if it is no lease, but this process computes.
        holder: the process, by pid and host; "" where only it knows.
        is_here: whether this process computes.
    """

    left: float | None
    holder: str
    is_here: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that explain() knows of an entry. Seconds are those of the moment when it was asked.

    Attributes:
        key: as the caller typed it.
        alias: of the cache; "" where that is not known.
        version: of the key.
        storage_key: the key with prefix and version, as the storage sees it.
        would_hit: whether get() would find it.
        cause: the reason in a word: "hit", "never", "expired", "evicted", "deleted", "moved", "cleared", "tag",
            "unreadable", "version", "prefix", "computing", "refused", "dropped", "transaction", "memo", "down", "busy"
            or "dummy".
        reason: the same in a sentence.
        tiers: each tier, nearest first.
        left: seconds until it is stale or gone; None for never, and for no entry.
        age: seconds since it was written; None where that is not known.
        age_is_assumed: whether that is so only if it was written with the TIMEOUT of the alias.
        stale_for: seconds for which get_or_set() may still serve it, after it has expired.
        size: bytes, as far as the storage tells.
        serializer, compressor, signature: the form of its bytes; "" for no entry.
        tags: its tags.
        lease: the computation of its value, if there is one.
        refusal: why this process could not store its last value; "" if it could.
        refused_ago: seconds since then.
    """

    key: str
    alias: str
    version: int
    storage_key: str
    would_hit: bool
    cause: str
    reason: str
    tiers: tuple[Tier, ...]
    left: float | None = None
    age: float | None = None
    age_is_assumed: bool = False
    stale_for: float | None = None
    size: int | None = None
    serializer: str = ""
    compressor: str = ""
    signature: str = ""
    tags: tuple[TagState, ...] = ()
    lease: Lease | None = None
    refusal: str = ""
    refused_ago: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as plain dicts, lists, texts and numbers."""
        fields = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def __str__(self) -> str:
        """Return the text that ``storeroom why`` prints."""
        rows = list(self.rows())
        width = max(len(label) for label, _ in rows)
        verdict = "would be found" if self.would_hit else "would be missed"
        return "\n".join([f"{self.key!r} {verdict}. {self.reason}", *(f"  {a.ljust(width)}  {b}" for a, b in rows)])

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield the labels and the texts of the lines below the first."""
        yield "storage key", repr(self.storage_key)
        for tier in self.tiers:
            yield "in " + tier.name, _told(tier)
        if self.age is not None:
            assumed = ", if it was set with the alias's TIMEOUT" if self.age_is_assumed else ""
            yield "age", f"{seconds_in_words(self.age)}{assumed}"
        if self.stale_for is not None:
            yield "stale value", f"served by get_or_set() for {seconds_in_words(self.stale_for)} more"
        if self.serializer:
            yield "serializer", self.serializer
            yield "compressor", self.compressor
            yield "signature", self.signature
        for tag in self.tags:
            yield "tag", f"{tag.name!r}, {_tag_told(tag)}"
        if self.lease is not None:
            yield "computed", _lease_told(self.lease)
        if self.refusal and self.refused_ago is not None:
            yield "last refusal", f"{seconds_in_words(self.refused_ago)} ago: {self.refusal}"


def _told(tier: Tier) -> str:
    parts = [tier.state]
    if tier.state == "live":
        parts.append("for ever" if tier.left is None else f"for {seconds_in_words(tier.left)}")
    if tier.state == "expired" and tier.left is not None:
        parts.append(f"{seconds_in_words(-tier.left)} ago")
    size = "" if tier.size is None else f", {tier.size} bytes"
    return f"{' '.join(parts)}{size}{f': {tier.note}' if tier.note else ''}"


def _tag_told(tag: TagState) -> str:
    if tag.is_current:
        return "current"
    fate = "evicted" if tag.was_evicted else "invalidated"
    return "out of date" if tag.since is None else f"{fate} {seconds_in_words(tag.since)} ago"


def _lease_told(lease: Lease) -> str:
    holder = f"by {lease.holder}" if lease.holder else "by another process or host"
    here = ", this one" if lease.is_here else ""
    left = "" if lease.left is None else f", for {seconds_in_words(lease.left)} more unless it is renewed"
    return f"{holder}{here}{left}"
