"""The curves as an SVG image: lines with a band for the interval, and a dot for the number in use.

Colours have a middle brightness on no ground, so that the image is readable on a light page and on a dark one.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from storeroom.advice.estimate import Point
from storeroom.advice.rendering import Panel

__all__ = ["svg"]

_WIDTH: Final = 640
_HEIGHT: Final = 240
_LEFT: Final = 48
_RIGHT: Final = 24
_TOP: Final = 36
_BOTTOM: Final = 36
_GREY: Final = "#768089"
_BLUE: Final = "#2f81f7"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_LINES: Final = 5
"""Lines of the grid: 0 % to 100 %."""


def svg(title: str, panels: Sequence[Panel]) -> str:
    """Return the curves, one below the other."""
    height = _HEIGHT * len(panels)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_FONT}" font-size="11">',
        f"<title>{escape(title)}</title>",
    ]
    for number, panel in enumerate(panels):
        parts += [f'<g transform="translate(0 {number * _HEIGHT})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    title, points, here, label = panel
    yield _text(_LEFT, 18, title, "start", size=13)
    for number in range(_LINES):
        share = number / (_LINES - 1)
        y = _y(share)
        yield (f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GREY}" opacity="0.25"/>')
        yield _text(_LEFT - 6, y + 4, f"{share:.0%}", "end")
    across = _across(points)
    above = [(x, _y(point.high)) for x, point in zip(across, points, strict=True)]
    below = [(x, _y(point.low)) for x, point in zip(across, points, strict=True)]
    yield f'<polygon points="{_path([*above, *reversed(below)])}" fill="{_BLUE}" opacity="0.25"/>'
    line = [(x, _y(point.hit_ratio)) for x, point in zip(across, points, strict=True)]
    yield f'<polyline points="{_path(line)}" fill="none" stroke="{_BLUE}" stroke-width="2"/>'
    for (x, y), point in zip(line, points, strict=True):
        is_here = point.at == here
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if is_here else 2.5}" fill="{_BLUE}"/>'
        if is_here:
            yield _text(x, y - 10, f"now: {point.hit_ratio:.1%}", "middle")
    last = -math.inf
    for x, point in zip(across, points, strict=True):
        if x - last >= _LEFT:
            last = x
            yield _text(x, _HEIGHT - _BOTTOM + 16, label(point.at), "middle")


def _across(points: Sequence[Point]) -> list[float]:
    """Return the positions from left to right, by the logarithm of the number; no timeout comes a step after."""
    finite = [math.log(point.at) for point in points if point.at < math.inf]
    steps = [*finite]
    if len(finite) < len(points):
        steps.append(max(finite, default=0.0) + 1)
    low, span = min(steps), (max(steps) - min(steps)) or 1.0
    return [_LEFT + 20 + (each - low) / span * (_WIDTH - _LEFT - _RIGHT - 40) for each in steps]


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, words: str, anchor: str, *, size: int = 11) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{_GREY}">{escape(words)}</text>'
    )
