"""A cache as a whole, as the admin's pages tell of it: its counts, its families of keys, its course, and its advice."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.core.cache import caches
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import mark_safe

from storeroom.advice import Advice
from storeroom.base import BaseCache
from storeroom.base.explanation import seconds_in_words
from storeroom.engines import CacheStats
from storeroom.engines.families import OTHER
from storeroom.exceptions import NotSupportedError, StoreroomError
from storeroom.integrations.django.charts import chart, sparkline
from storeroom.integrations.django.entries import is_of_session, shown
from storeroom.integrations.django.history import Interval, counted, history
from storeroom.recording.left import left
from storeroom.storage.outages import no_answers
from storeroom.wording import mask_url

__all__ = ["Overview"]

_ELSEWHERE: Final = frozenset({"entries", "bytes", "hit_ratio", "processes", "saved_seconds"})
"""Numbers that stand above the table of counts."""


@dataclass(slots=True)
class Overview:
    """One alias of CACHES.

    Attributes:
        alias: its name.
        backend: the dotted name of its class.
        cache: a handle; None for a class that is none of Storeroom's, or a wrong setting.
        stats: the counts; None where there are none.
        intervals: their growth over the last day.
        problem: the reason why there are none; "" if there are.
    """

    alias: str
    backend: str = ""
    cache: BaseCache | None = None
    stats: CacheStats | None = None
    intervals: list[Interval] = field(default_factory=list)
    problem: str = ""

    @classmethod
    def of(cls, alias: str) -> "Overview":
        """Return the overview of an alias; a storage that is out of reach is told as its problem."""
        try:
            cache = caches[alias]
        except StoreroomError as error:
            return cls(alias, problem=mask_url(str(error)))
        backend = f"{type(cache).__module__}.{type(cache).__qualname__}"
        if not isinstance(cache, BaseCache):
            return cls(alias, backend, problem="The class is none of Storeroom's, and counts nothing.")
        this = cls(alias, backend, cache)
        try:
            with no_answers():
                cache.has_key("")  # asks a server whose counts are at hand, and is counted nowhere
            this.stats = counted(cache)
            this.intervals = history(cache, this.stats)
        except StoreroomError as error:
            this.problem = mask_url(str(error))
        return this

    @property
    def scope(self) -> str:
        """Whose counts these are."""
        if self.stats is None:
            return ""
        number = self.stats.processes
        return {
            "all": f"{number} process{'' if number == 1 else 'es'}",
            "machine": "the whole machine",
            "process": f"process {os.getpid()} alone",
        }.get(self.stats.scope, "nothing")

    @property
    def class_name(self) -> str:
        """The name of the class, without its module."""
        return self.backend.rpartition(".")[2]

    @property
    def reads(self) -> int:
        """Hits and misses."""
        return 0 if self.stats is None else self.stats.hits + self.stats.misses

    @property
    def reads_text(self) -> str:
        """The number of reads."""
        return f"{self.reads:,}"

    @property
    def hit_ratio(self) -> str:
        """Hits per read."""
        return f"{self.stats.hit_ratio:.1%}" if self.stats is not None and self.reads else "-"

    @property
    def saved(self) -> str:
        """The time of computing that hits have saved."""
        if self.stats is None or not self.stats.reused:
            return "-"
        return seconds_in_words(self.stats.saved_seconds)

    @property
    def entries(self) -> str:
        """Entries stored now."""
        return "-" if self.stats is None or self.stats.entries is None else f"{self.stats.entries:,}"

    @property
    def size(self) -> str:
        """Bytes that they take."""
        return "-" if self.stats is None or self.stats.bytes is None else filesizeformat(self.stats.bytes)

    @property
    def sparkline(self) -> str:
        """The hit ratio over time, in small."""
        return sparkline(self.intervals, f"Hit ratio of cache {self.alias} over time: now {self.hit_ratio}")

    @property
    def chart(self) -> str:
        """The course of the counts."""
        return chart(self.intervals, f"Hit ratio, reads and seconds saved of cache {self.alias} over time")

    def tiles(self) -> Iterator[tuple[str, str]]:
        """Yield the labels and the texts of the numbers that matter most."""
        stats = self.stats or CacheStats()
        yield "Hit ratio", self.hit_ratio
        yield "Saved", self.saved
        yield "Reads", f"{self.reads:,}"
        yield "Entries", self.entries
        yield "Size", self.size
        yield "Evictions", f"{stats.evictions:,}"
        yield "Errors", f"{stats.errors:,}"

    def counts(self) -> Iterator[tuple[str, str]]:
        """Yield the labels and the texts of all other numbers that are not zero."""
        told: Mapping[str, Any] = {} if self.stats is None else self.stats.as_dict()
        for name, number in told.items():
            if isinstance(number, int | float) and number and name not in _ELSEWHERE:
                yield name.replace("_", " "), f"{number:,.3f}" if isinstance(number, float) else f"{number:,}"
        for reason, number in told.get("refused", {}).items():
            yield f"refused: {reason.replace('_', ' ')}", f"{number:,}"
        for name, tier in told.get("tiers", {}).items():
            yield f"hits of tier {name}", f"{tier['hits']:,} of {tier['hits'] + tier['misses']:,}"

    def families(self) -> Iterator[dict[str, Any]]:
        """Yield the families of keys, the busiest first."""
        for name, family in ({} if self.stats is None else self.stats.families).items():
            saved, ratio = family.saved_seconds, family.hit_ratio
            yield {
                "name": name,
                "shown": shown(name),
                "is_known": name != OTHER,
                # All letters of a session's key may be in it, where that has no digit.
                "is_secret": is_of_session(name) and not name.endswith("*"),
                "hits": "-" if family.hits is None else f"{family.hits:,}",
                "hit_ratio": "-" if ratio is None else f"{ratio:.1%}",
                "misses": f"{family.misses:,}",
                "sets": f"{family.sets:,}",
                "computed": f"{family.computed:,}",
                "seconds": seconds_in_words(family.compute_seconds) if family.computed else "-",
                "saved": "-" if not saved else seconds_in_words(saved),
            }

    def advice(self) -> dict[str, str]:
        """Return the text of the advice, and its curves where it is this process's; nothing where none is asked for.

        Of several processes, the answer of the one with the most reads is told.

        Raises:
            StorageError: the server is out of reach.
        """
        if self.cache is None:
            return {}
        try:
            advice: Advice = self.cache.advice()
        except NotSupportedError:
            return {}
        note = left(self.cache) if self.cache.is_shared else None
        if note is not None and note["process"] != os.getpid() and note["reads"] > advice.reads:
            return {"text": note["text"], "svg": ""}
        curves = advice.by_max_entries or advice.by_timeout or advice.by_near
        # Its words are escaped by advice.drawing, and all else in it are numbers.
        return {"text": advice.text(), "svg": mark_safe(advice.svg()) if curves else ""}
