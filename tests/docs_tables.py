"""The tables and figures of the documentation that repeat another source: written from that, and held against it.

The source of most tables is the code; that of the README's, and of each figure, is the page of benchmarks. A table
stands between two comments of its page, a figure in a sentence between ``<!-- figure: its name -->`` and
``<!-- end -->``. ``python -m tests.docs_tables`` writes them all anew. `docs_numbers` holds the numbers that are
constants of the code.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from storeroom.config import COMMON_OPTIONS, NEAR_OPTIONS, Option, unchecked
from storeroom.integrations.measures import DOWN, FAMILY_MEASURES, LIMIT, MEASURES, SIZE_MEASURES, TIER_MEASURES
from storeroom.registry.urls import SCHEMES
from storeroom.testing.capabilities import CAPABILITIES

__all__ = ["DOCS", "FIGURES", "TABLES", "renewed"]

DOCS: Final = Path(__file__).parents[1] / "docs"

_ALL_MEASURES: Final = (*MEASURES, *SIZE_MEASURES, LIMIT, DOWN, *TIER_MEASURES, *FAMILY_MEASURES)

_GENERATED: Final = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of generated -->\n)", re.DOTALL)
_IN_A_SENTENCE: Final = re.compile(r"(<!-- figure: (.+?) -->).*?(<!-- end -->)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], *, figures: int = 0) -> str:
    """Return a table, the last so many columns of which are figures."""
    head = list(head)
    lines = [head, ["---"] * (len(head) - figures) + ["---:"] * figures, *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# Options --------------------------------------------------------------------------------


def _accepts(option: Option) -> str:
    """Return what an option's parser expects, in the words of its own error."""
    if option.parse is unchecked:
        return "as the meaning says"
    try:
        option.parse(object())
    except ValueError as expectation:
        return str(expectation)
    message = f"{option} accepts any object, so that no table can tell what it takes"
    raise TypeError(message)


def _written(value: Any) -> str:
    """Return a default as a person would write it."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20 and value & (value - 1) == 0:
        power, unit = next((power, unit) for power, unit in ((30, "GiB"), (20, "MiB")) if value >= 2**power)
        return f'`"{value >> power}{unit}"`'
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


def options_of(path: str) -> str:
    """Return the table of a backend's options."""
    module, _, name = path.rpartition(".")
    return _options(getattr(import_module(module), name).options)


def _options(options: Mapping[str, Option]) -> str:
    rows = (
        (f"`{option}`", _accepts(known), _written(known.default), known.meaning) for option, known in options.items()
    )
    return _table(("option", "value", "default", "meaning"), rows)


# Others -----------------------------------------------------------------------------------


def url_schemes() -> str:
    """Return the table of the schemes of cache URLs."""
    rows = ((f"`{name}`", f"`{scheme.backend}`", f"`{scheme.example}`") for name, scheme in SCHEMES.items())
    return _table(("scheme", "backend", "example"), rows)


def capabilities() -> str:
    """Return the table of the capabilities that a backend may lack."""
    return _table(("capability", "a storage that has it"), ((f"`{name}`", what) for name, what in CAPABILITIES.items()))


def metrics() -> str:
    """Return the table of the numbers that are told of caches, by the names of OpenTelemetry and of Prometheus."""
    rows = []
    for measure in _ALL_MEASURES:
        total = "_total" if measure.kind == "counter" else ""
        labels = [*(["family"] if measure in FAMILY_MEASURES else ["tier"] if measure in TIER_MEASURES else [])]
        labels += measure.labels.values()
        shown = f"{{{', '.join(labels)}}}" if labels else ""
        name = (
            "" if measure.short in {"round_trips", "round_trip_time"} else f"`storeroom_{measure.short}{total}{shown}`"
        )
        unit = measure.unit.strip("{}")
        rows.append((f"`storeroom.cache.{measure.name}`", name, unit, measure.meaning))
    return _table(("OpenTelemetry", "Prometheus", "unit", "meaning"), rows)


_IN_SHORT: Final = {
    "local memory, get of a short string": ("Local memory", "get"),
    "local memory, get of a nested dict": ("Local memory", "get of a nested dict"),
    "local memory, set": ("Local memory", "set"),
    "local memory, `await aget()`": ("Local memory", "aget"),
    "files, get of a short string": ("Files", "get at 1,000 entries"),
    "files, get of a nested dict": ("Files", "get of a nested dict"),
    "files, set at 1,000 entries": ("Files", "set at 1,000 entries"),
    "files, set_many of 100": ("Files", "set_many of 100"),
}
"""Words of the README -> the section and the row of the page of benchmarks."""


def benchmarks_in_short() -> str:
    """Return the table of how many times as long two peers took for some operations in the last full run."""
    peers = ("Django", "diskcache")
    rows = ((words, *(_figure(_times(*row, peer)) for peer in peers)) for words, row in _IN_SHORT.items())
    return _table(("", "times faster than Django", "than diskcache"), rows, figures=2)


def _times(section: str, row: str, peer: str) -> float | None:
    """Return how many times as long a peer took in a row of the page of benchmarks, or None if it was not measured."""
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    head, *rows = re.findall(r"^\|.*\|$", page.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.MULTILINE)
    names = [name.strip() for name in head.split("|")]
    cells = next(line.split("|") for line in rows if line.startswith(f"| {row} |"))
    found = re.search(r"\(([\d.]+)×\)", cells[names.index(peer)]) if peer in names else None
    return float(found[1]) if found else None


def _figure(times: float | None) -> str:
    return "" if times is None else f"{times:.1f}" if times < 100 else f"{times:.0f}"


_BACKENDS: Final = (
    "storeroom.backends.locmem.LocMemCache",
    "storeroom.backends.filebased.FileBasedCache",
    "storeroom.backends.redis.RedisCache",
    "storeroom.backends.db.DatabaseCache",
    "storeroom.backends.memcached.PyMemcacheCache",
    "storeroom.backends.memcached.PyLibMCCache",
    "storeroom.backends.tiered.TieredCache",
)


def microseconds(section: str, row: str) -> float:
    """Return Storeroom's time in a row of a section of the page of benchmarks.

    Raises:
        LookupError: the page has no such row.
    """
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    if (found := re.search(rf"^\| {re.escape(row)} \| ([\d.,]+) µs", text, re.MULTILINE)) is None:
        message = f"docs/benchmarks.md has no row {row!r} below {section!r}"
        raise LookupError(message)
    return float(found[1].replace(",", ""))


def _times_a_file_read(section: str, row: str) -> str:
    return f"{microseconds(section, row) / microseconds('Files', 'get at 1,000 entries'):.0f}"


def _longer_at_a_million() -> str:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    (times,) = re.findall(r"^\| database set at 1,000,000 rows, PostgreSQL \|.*?\| ([\d.]+)× \|", page, re.MULTILINE)
    return f"{float(times) * 100 - 100:.0f} %"


FIGURES: Final[Mapping[str, Callable[[], str]]] = {
    "Redis get, in file gets": partial(_times_a_file_read, "Redis", "get"),
    "Memcached get, in file gets": partial(_times_a_file_read, "Memcached", "get, pymemcache"),
    "PostgreSQL get, in file gets": partial(_times_a_file_read, "Databases", "get, PostgreSQL"),
    "Redis get, microseconds": lambda: f"{microseconds('Redis', 'get'):.0f}",
    "PostgreSQL set at a million rows": _longer_at_a_million,
}
"""The name in the comment -> the function that makes the figure."""

TABLES: Final[Mapping[str, Callable[[], str]]] = {
    **{f"options of {path}": partial(options_of, path) for path in _BACKENDS},
    "options of every backend": partial(_options, COMMON_OPTIONS),
    "options of near": partial(_options, NEAR_OPTIONS),
    "URL schemes": url_schemes,
    "capabilities": capabilities,
    "benchmarks in short": benchmarks_in_short,
    "metrics": metrics,
}
"""The name in the comment -> the function that makes the table."""


def renewed(text: str) -> str:
    """Return a page's text with its tables and figures as they should be now."""
    text = _GENERATED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)
    return _IN_A_SENTENCE.sub(lambda found: f"{found[1]}{FIGURES[found[2]]()}{found[3]}", text)


if __name__ == "__main__":
    for page in (DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))):
        before = page.read_text("utf-8")
        if (after := renewed(before)) != before:
            page.write_text(after, "utf-8")
            sys.stdout.write(f"renewed {page.relative_to(DOCS.parent)}\n")
