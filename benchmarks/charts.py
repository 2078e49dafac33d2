"""Two kinds of chart, as SVG: dots along an axis, and lines.

Colours have a middle brightness and the ground is left transparent, so that a chart
is readable on a light page and on a dark one.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["dot_chart", "line_chart"]

WIDTH: Final = 760
FONT: Final = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
TEXT: Final = "#768089"
GRID: Final = "#768089"
HIGHLIGHT: Final = "#2f81f7"
PALETTE: Final = ("#3f9d50", "#d4722c", "#a371f7", "#d6409f", "#b08800", "#1b9e9e")
PLAIN: Final = "#768089"

COLOURS: Final = {
    "Storeroom": HIGHLIGHT,
    "Django": PALETTE[0],
    "diskcache": PALETTE[1],
    "cachetools": PALETTE[2],
    "cachebox": PALETTE[3],
    "cachelib": PALETTE[4],
    "LRU": PALETTE[2],
    "dogpile": PALETTE[2],
    "functools": PLAIN,
    "cashews": PALETTE[3],
    "django-redis": PALETTE[2],
    "redis-py": PLAIN,
    "pymemcache": PLAIN,
    "pylibmc": PLAIN,
    "sqlite3": PLAIN,
    "psycopg": PLAIN,
    "dict": PLAIN,
    "uncached": PLAIN,
    "nginx": PALETTE[4],
    "fastapi-cache2": PALETTE[1],
    "fastapi-cachex": PALETTE[2],
    "hishel": PALETTE[0],
    "Flask-Caching": PALETTE[1],
    "LMDB": PLAIN,
    "the limit": PLAIN,
    "local memory": HIGHLIGHT,
    "files": PALETTE[0],
    "SQLite": PALETTE[2],
    "PostgreSQL": PALETTE[5],
    "Redis": PALETTE[4],
    "one server": PALETTE[4],
    "cluster of 3": HIGHLIGHT,
    "cluster of 6": PALETTE[2],
    "evenly": HIGHLIGHT,
    "Zipf": PALETTE[0],
    "one key": PALETTE[1],
}
"""A library has one colour in all charts, and so has each of our storages where they are apart, each group of Redis
servers, and each way of spreading keys; what the libraries are built on, or cannot pass, is grey."""

Series = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values along a stretch of the drawing.

    Attributes:
        low: the value at the start.
        high: the value at the end.
        start: the coordinate of low.
        end: the coordinate of high.
        is_log: whether equal ratios, not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float, *, is_log: bool) -> "Axis":
        """Return an axis that holds all values: from decade to decade, or from zero."""
        values = list(values)
        if not is_log:
            step = _step(max(values))
            return cls(0, math.ceil(max(values) / step) * step, start, end, is_log)
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return cls(10.0**low, 10.0 ** max(high, low + 1), start, end, is_log)

    def place(self, value: float) -> float:
        """Return the coordinate of a value."""
        if self.low == self.high:
            share = 0.5
        elif self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the values to mark."""
        if self.is_log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = _step(self.high)
        return [step * number for number in range(round(self.high / step) + 1)]


def _step(highest: float) -> float:
    """Return 1, 2 or 5 times a power of ten that divides the axis into about five parts."""
    power = 10.0 ** math.floor(math.log10(highest / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if highest / (power * factor) <= 6)


def dot_chart(title: str, rows: Series, unit: Callable[[float], str], *, is_log: bool) -> str:
    """Draw one line for each row with a dot for each name.

    Args:
        title: written above.
        rows: row's name to name to value; names absent from a row are absent from its line.
        unit: turns a value on the axis into text.
        is_log: see Axis.
    """
    left, top, spacing = 210, 84, 32
    bottom = top + spacing * len(rows)
    axis = Axis.around((value for row in rows.values() for value in row.values()), left, WIDTH - 30, is_log=is_log)
    parts = [_vertical_grid(axis, top - 12, bottom, unit)]
    for number, (name, row) in enumerate(rows.items()):
        y = top + spacing * number + 8
        parts.append(_text(left - 14, y + 4, name, anchor="end"))
        parts.append(_line(left, y, WIDTH - 30, y, opacity=0.35))
        # Ours last, and so on top.
        parts += [_dot(axis.place(value), y, each) for each, value in reversed(list(row.items()))]
    return _drawing(title, _names(rows), bottom + 34, parts)


def line_chart(
    title: str,
    series: Mapping[str, Mapping[int, float]],
    across: Callable[[int], str],
    up: Callable[[float], str],
    *,
    is_log: bool,
    is_log_across: bool = True,
    marks: Sequence[int] | None = None,
    dashed: Collection[str] = (),
) -> str:
    """Draw one line for each name through its points.

    Args:
        title: written above.
        series: name to x to y.
        across: turns an x into text.
        up: turns a y on the axis into text.
        is_log: whether the y axis is logarithmic.
        is_log_across: whether the x axis is.
        marks: the x that are marked; by default all.
        dashed: names whose lines are dashed.
    """
    left, top, bottom = 80, 84, 344
    points = {x for line in series.values() for x in line}
    horizontal = Axis(min(points), max(points), left + 20, WIDTH - 50, is_log=is_log_across)
    vertical = Axis.around((y for line in series.values() for y in line.values()), bottom, top, is_log=is_log)
    parts = [_text(horizontal.place(x), bottom + 20, across(x), anchor="middle") for x in marks or sorted(points)]
    for y in vertical.ticks():
        parts.append(_line(left, vertical.place(y), WIDTH - 30, vertical.place(y), opacity=0.25))
        parts.append(_text(left - 10, vertical.place(y) + 4, up(y), anchor="end"))
    for name, line in reversed(list(series.items())):
        places = [(horizontal.place(x), vertical.place(y)) for x, y in line.items()]
        parts.append(_path(places, name, is_dashed=name in dashed))
        parts += [_dot(x, y, name) for x, y in places if marks is None]
    return _drawing(title, list(series), bottom + 34, parts)


def _names(rows: Series) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _colour(name: str) -> str:
    known = name.partition(",")[0]
    return COLOURS.get(known, PALETTE[-1])


def _drawing(title: str, names: Sequence[str], height: float, parts: Iterable[str]) -> str:
    legend, x, y = [], 24.0, 48.0
    for name in names:
        width = 34 + 7 * len(name)
        if x + width > WIDTH:
            x, y = 24.0, y + 17
        legend += [_dot(x, y, name), _text(x + 12, y + 4, name)]
        x += width
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img"',
            f'  aria-label="{escape(title)}" font-family="{FONT}" font-size="13">',
            f'<text x="18" y="26" fill="{TEXT}" font-size="16" font-weight="600">{escape(title)}</text>',
            *legend,
            *parts,
            "</svg>\n",
        ]
    )


def _vertical_grid(axis: Axis, top: float, bottom: float, unit: Callable[[float], str]) -> str:
    lines = []
    for tick in axis.ticks():
        x = axis.place(tick)
        lines += [_line(x, top, x, bottom, opacity=0.25), _text(x, bottom + 18, unit(tick), anchor="middle")]
    return "\n".join(lines)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{TEXT}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, *, opacity: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GRID}" stroke-opacity="{opacity}"/>'


def _dot(x: float, y: float, name: str) -> str:
    radius = 6.5 if name == "Storeroom" else 4.5
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{_colour(name)}"/>'


def _path(places: Iterable[tuple[float, float]], name: str, *, is_dashed: bool) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    width = 2.5 if name == "Storeroom" else 1.5
    dashes = ' stroke-dasharray="6 4"' if is_dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{_colour(name)}" stroke-width="{width}"{dashes}/>'
