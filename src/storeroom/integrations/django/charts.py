"""Charts of a cache's counts over time, as SVG within a page: no script, no style of its own, nothing to load.

Colours come from the style sheet, which follows the admin's theme. Each bar tells its numbers when it is pointed at.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from django.utils import timezone
from django.utils.safestring import mark_safe

from storeroom.integrations.django.history import Interval

__all__ = ["chart", "sparkline"]

_WIDTH: Final = 760
_LEFT: Final = 56
_RIGHT: Final = 16
_HEIGHT: Final = 96
"""Of a panel's lines and bars."""
_ABOVE: Final = 30
_BELOW: Final = 14
_TIMES: Final = 6
"""Moments that are written below the chart, at the most."""
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)
_DAY_SECONDS: Final = 86_400.0

_SPARK_WIDTH: Final = 140
_SPARK_HEIGHT: Final = 28


class _Bar(NamedTuple):
    name: str
    height: Callable[[Interval], float]


class _Panel(NamedTuple):
    title: str
    bars: Sequence[_Bar]


_PANELS: Final = (
    _Panel(
        "Reads per second",
        (
            _Bar("hits", lambda each: each.hits / each.seconds),
            _Bar("misses", lambda each: each.misses / each.seconds),
        ),
    ),
    _Panel("Seconds of computing saved, per second", (_Bar("saved", lambda each: each.saved / each.seconds),)),
)


def chart(intervals: Sequence[Interval], label: str) -> str:
    """Return hit ratio, reads and seconds saved over time, as the markup of an image; "" where nothing was read."""
    if not any(each.hits or each.misses for each in intervals):
        return ""
    panels = [panel for panel in _PANELS if any(bar.height(each) for bar in panel.bars for each in intervals)]
    across = _Across(intervals, _LEFT, _WIDTH - _RIGHT)
    parts = [_group(0, _ratios(intervals, across))]
    parts += [_group(number, _bars(panel, intervals, across)) for number, panel in enumerate(panels, 1)]
    height = (len(panels) + 1) * (_ABOVE + _HEIGHT + _BELOW) + 12
    parts += [_text(x, height - 8, words, "middle") for x, words in across.times()]
    return _image("storeroom-chart", _WIDTH, height, label, parts)


def sparkline(intervals: Sequence[Interval], label: str) -> str:
    """Return the hit ratio over time as the markup of a small image; "" where nothing was read."""
    if not any(each.hits or each.misses for each in intervals):
        return ""
    across = _Across(intervals, 3, _SPARK_WIDTH - 3)
    lines = _lines(intervals, across, lambda share: 3 + (1 - share) * (_SPARK_HEIGHT - 6))
    return _image("storeroom-spark", _SPARK_WIDTH, _SPARK_HEIGHT, label, lines)


class _Across:
    """Positions from left to right, by time."""

    def __init__(self, intervals: Sequence[Interval], left: float, right: float) -> None:
        self._begin, self._end = intervals[0].begin, intervals[-1].end
        self._left, self._right = left, right

    def __call__(self, at: float) -> float:
        return self._left + (at - self._begin) / (self._end - self._begin) * (self._right - self._left)

    def times(self) -> Iterator[tuple[float, str]]:
        """Yield positions, and the moments there."""
        span = self._end - self._begin
        steps = (60, 300, 600, 1_800, 3_600, 7_200, 14_400, 21_600)
        step = next((each for each in steps if span / each <= _TIMES), _DAY_SECONDS)
        at = math.ceil(self._begin / step) * step
        while at <= self._end:
            yield self(at), _clock(at)
            at += step


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, timezone.get_current_timezone()):%H:%M}"


def _group(number: int, parts: Iterable[str]) -> str:
    return "\n".join([f'<g transform="translate(0 {number * (_ABOVE + _HEIGHT + _BELOW)})">', *parts, "</g>"])


# The hit ratio ------------------------------------------------------------------------------


def _ratios(intervals: Sequence[Interval], across: _Across) -> Iterator[str]:
    yield _title("Hit ratio")
    for share in (0.0, 0.5, 1.0):
        yield from _rule(_up(share), f"{share:.0%}")
    yield from _lines(intervals, across, _up)
    for each in intervals:
        if each.hit_ratio is not None:
            told = f"{_span(each)}: {each.hit_ratio:.1%}, {each.hits:,} hits, {each.misses:,} misses"
            yield _box(across(each.begin), across(each.end), _ABOVE, _ABOVE + _HEIGHT, "over", told)


def _lines(intervals: Sequence[Interval], across: _Across, up: Callable[[float], float]) -> Iterator[str]:
    """Yield a line through the hit ratios of intervals that follow each other, and a dot for one that stands alone."""
    for run in _runs(intervals):
        points = [(across((each.begin + each.end) / 2), up(ratio)) for each, ratio in run]
        if len(points) == 1:
            x, y = points[0]
            yield f'<circle class="storeroom-dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
        else:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            yield f'<polyline class="storeroom-line" points="{path}"/>'


def _runs(intervals: Sequence[Interval]) -> list[list[tuple[Interval, float]]]:
    read = [(each, each.hit_ratio) for each in intervals]
    known = [(each, ratio) for each, ratio in read if ratio is not None]
    runs = [known[:1]]
    for before, after in pairwise(known):
        if before[0].end < after[0].begin:
            runs.append([])
        runs[-1].append(after)
    return runs


# Bars ---------------------------------------------------------------------------------------


def _bars(panel: _Panel, intervals: Sequence[Interval], across: _Across) -> Iterator[str]:
    top = _rounded_up(max(sum(bar.height(each) for bar in panel.bars) for each in intervals))
    yield _title(panel.title)
    for share in (0.0, 0.5, 1.0):
        yield from _rule(_up(share), f"{share * top:,.6g}")
    for each in intervals:
        told = ", ".join(f"{bar.height(each):,.3g} {bar.name}" for bar in panel.bars)
        level = 0.0
        for bar in panel.bars:
            height = bar.height(each) / top
            if height:
                low, level = _up(level), level + height
                yield _box(
                    across(each.begin), across(each.end), _up(level), low, bar.name, f"{_span(each)}: {told} per second"
                )
    if len(panel.bars) > 1:
        yield from _legend(panel.bars)


def _legend(bars: Sequence[_Bar]) -> Iterator[str]:
    for number, bar in enumerate(bars):
        x = _WIDTH - _RIGHT - 70 * (len(bars) - number)
        yield _box(x + 8, x + 18, 9, 19, bar.name, bar.name)
        yield _text(x + 23, 18, bar.name, "start")


def _rounded_up(height: float) -> float:
    """Return the next number with a short name.

    >>> _rounded_up(0.03), _rounded_up(7), _rounded_up(120)
    (0.05, 10.0, 200.0)
    """
    power = 10.0 ** math.floor(math.log10(height))
    return next(step * power for step in _STEPS if step * power >= height * (1 - 1e-9))


# Markup -------------------------------------------------------------------------------------


def _up(share: float) -> float:
    return _ABOVE + (1 - share) * _HEIGHT


def _span(each: Interval) -> str:
    return f"{_clock(each.begin)} to {_clock(each.end)}"


def _image(name: str, width: int, height: int, label: str, parts: Iterable[str]) -> str:
    """Return an image of numbers and of escaped texts."""
    size = f'viewBox="0 0 {width} {height}"'
    lines = [f'<svg class="{name}" {size} role="img" aria-label="{escape(label)}">', *parts, "</svg>"]
    image: str = mark_safe("\n".join(lines))
    return image


def _title(words: str) -> str:
    return f'<text class="storeroom-title" x="{_LEFT}" y="18">{escape(words)}</text>'


def _rule(y: float, words: str) -> Iterator[str]:
    yield f'<line class="storeroom-rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield _text(_LEFT - 8, y + 4, words, "end")


def _box(left: float, right: float, top: float, bottom: float, name: str, told: str) -> str:
    size = f'width="{max(1.0, right - left):.1f}" height="{bottom - top:.1f}"'
    return f'<rect class="storeroom-{name}" x="{left:.1f}" y="{top:.1f}" {size}><title>{escape(told)}</title></rect>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
