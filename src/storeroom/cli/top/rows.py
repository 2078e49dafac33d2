"""The figures: a row for each cache, for each family of its keys, or for each process."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from storeroom.cli.top.reports import Report
from storeroom.engines.counts import total
from storeroom.engines.stats import saved

__all__ = ["COLUMNS", "Column", "Row", "caches_of", "families_of", "processes_of", "program_name"]


@dataclass(slots=True)
class Row:
    """One line of figures.

    Attributes:
        key: tells it from all others.
        labels: its names, left of the figures.
        counted: the counts of its processes since they began, by the names of CacheStats.
        grown: the growth of that per second.
        lacks: names of counts that are not known.
        processes: their number.
        entries: stored now; None where that is not known.
        parts: report and number of the cache within it, of all that this row is the sum of.
        is_late: whether a process has not answered for some seconds.
    """

    key: tuple[Any, ...]
    labels: Sequence[str]
    counted: dict[str, Any] = field(default_factory=dict)
    grown: dict[str, Any] = field(default_factory=dict)
    lacks: frozenset[str] = frozenset()
    processes: int = 0
    entries: int | None = None
    parts: list[tuple[Report, int]] = field(default_factory=list)
    is_late: bool = False

    def add(self, counted: Mapping[str, Any], grown: Mapping[str, Any], report: Report) -> None:
        """Add the counts of one process."""
        self.counted, self.grown = total(self.counted, counted), total(self.grown, grown)
        self.processes += 1
        self.is_late = self.is_late or report.is_late

    def numbers(self, *, in_all: bool) -> Mapping[str, Any]:
        """Return the counts in all, or per second."""
        return self.counted if in_all else self.grown


def program_name(record: Mapping[str, Any]) -> str:
    """Return the name of a program for people: its folder, and its file or the package that it runs."""
    path, folder = Path(record["program"]), Path(record["directory"]).name
    name = path.parent.name if path.name == "__main__.py" else path.name
    name = {"": "python", "-c": "python -c", "-m": "python -m"}.get(name, name)
    return f"{folder}: {name}" if folder else name


def caches_of(reports: Iterable[Report], alias: str | None = None) -> list[Row]:
    """Return a row for each cache: the sum of all processes of a program.

    Args:
        reports: of the processes.
        alias: only caches of this alias.
    """
    rows: dict[tuple[Any, ...], Row] = {}
    for report in reports:
        record = report.record
        for number, cache in enumerate(report.record["caches"]):
            if alias is not None and alias not in cache["aliases"]:
                continue
            name = "+".join(each or "?" for each in sorted(cache["aliases"]))
            key = record["directory"], record["program"], name, cache["backend"], cache["key_prefix"]
            row = rows.setdefault(key, Row(key, (name, program_name(record), cache["backend"])))
            row.add(cache["counted"], report.grown[number], report)
            row.parts.append((report, number))
            entries = cache.get("entries")
            if entries is not None:  # that of the storage, or of each process
                row.entries = entries if cache["is_shared"] else (row.entries or 0) + entries
    return list(rows.values())


def families_of(row: Row) -> list[Row]:
    """Return a row for each family of a cache's keys."""
    rows: dict[str, Row] = {}
    for report, number in row.parts:
        cache = report.record["caches"][number]
        for name, counted in cache["counted"].get("families", {}).items():
            lacks = _NOT_BY_FAMILY if cache["counts_hits"] else _NOT_BY_FAMILY | {"hits", "reused"}
            family = rows.setdefault(name, Row((*row.key, name), (name,), lacks=lacks))
            grown = report.grown[number].get("families", {}).get(name, {})
            family.add(_of_family(counted), _of_family(grown), report)
            family.parts.append((report, number))
    return list(rows.values())


_NOT_BY_FAMILY: Final = frozenset({"evictions"})
"""Counts of a cache that no family has."""


def _of_family(counted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a family's counts; each hit may have saved a computation, as far as that is known."""
    return {**counted, "reused": counted.get("hits", 0)}


def processes_of(row: Row, family: str | None = None) -> list[Row]:
    """Return a row for each process of a cache, or of one family of its keys."""
    rows = []
    for report, number in row.parts:
        cache, pid = report.record["caches"][number], report.record["pid"]
        process = Row((*row.key, pid), (str(pid), program_name(report.record)), lacks=row.lacks)
        counted, grown = cache["counted"], report.grown[number]
        if family is not None:
            counted, grown = (_of_family(each.get("families", {}).get(family, {})) for each in (counted, grown))
        else:
            process.entries = cache.get("entries")
        process.add(counted, grown, report)
        rows.append(process)
    return rows


_WHOLE: Final = 10
"""Figures from here on are shown without fractions."""

# Columns ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a row.

    Attributes:
        name: at its head.
        rank: the lower, the longer it stays as the screen gets narrow.
        value: the figure, by a row and whether that is to be in all; None where it is not known.
        shown: the figure as text.
        is_rate: whether it is per second if it is not in all.
    """

    name: str
    rank: int
    value: Callable[[Row, bool], float | None]
    shown: Callable[[float], str]
    is_rate: bool = True


def _count(number: float) -> str:
    is_small = number < _WHOLE and number != int(number)
    return f"{number:.1f}" if is_small else f"{number:,.0f}"


def _percent(ratio: float) -> str:
    return f"{ratio:.1%}"


def _of(*names: str) -> Callable[[Row, bool], float | None]:
    def value(row: Row, in_all: bool) -> float | None:
        if row.lacks & set(names):
            return None
        figure: float = sum(row.numbers(in_all=in_all).get(name, 0) for name in names)
        return figure

    return value


def _hit_ratio(row: Row, in_all: bool) -> float | None:
    numbers = row.numbers(in_all=in_all)
    reads = numbers.get("hits", 0) + numbers.get("misses", 0)
    return numbers.get("hits", 0) / reads if reads and "hits" not in row.lacks else None


def _saved(row: Row, in_all: bool) -> float | None:
    if "reused" in row.lacks:
        return None
    hits = row.numbers(in_all=in_all).get("reused", 0)
    return saved(hits, row.counted.get("computed", 0), row.counted.get("compute_seconds", 0.0))


def _mean_trip(row: Row, in_all: bool) -> float | None:
    numbers = row.numbers(in_all=in_all)
    trips = numbers.get("round_trips", 0)
    return numbers.get("round_trip_seconds", 0.0) / trips * 1e3 if trips else None


COLUMNS: Final = (
    Column("reads", 0, _of("hits", "misses"), _count),
    Column("hit ratio", 1, _hit_ratio, _percent, is_rate=False),
    Column("misses", 3, _of("misses"), _count),
    Column("sets", 2, _of("sets"), _count),
    Column("evicted", 5, _of("evictions"), _count),
    Column("computed", 6, _of("computed"), _count),
    Column("saved s", 4, _saved, "{:,.2f}".format),
    Column("trip ms", 8, _mean_trip, "{:.2f}".format, is_rate=False),
    Column("errors", 7, _of("errors", "failed", "busy"), _count),
    Column("entries", 9, lambda row, _: row.entries, _count, is_rate=False),
    Column("proc.", 10, lambda row, _: row.processes, _count, is_rate=False),
)
"""All columns, from the left."""
