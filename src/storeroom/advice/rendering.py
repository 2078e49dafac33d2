"""Curves as text: a bar for each number."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from storeroom.advice.estimate import Point

__all__ = ["Panel", "as_python", "bars", "counted", "spoken"]

_BAR: Final = 40
_LINE: Final = 60


class Panel(NamedTuple):
    """A curve: its title, its points, the number in use, and how numbers are written."""

    title: str
    points: Sequence[Point]
    here: float | None
    label: Callable[[float], str]


def bars(panel: Panel) -> Iterator[str]:
    """Yield a line for each point."""
    labels = [panel.label(point.at) for point in panel.points]
    width = max(map(len, labels))
    for label, point in zip(labels, panel.points, strict=True):
        unsure = 100 * (point.high - point.low) / 2
        interval = f" ± {unsure:3.1f}" if unsure else ""
        arrow = "  <- now" if point.at == panel.here else ""
        yield f"  {label:>{width}}  {100 * point.hit_ratio:5.1f} %{interval}  {_bar(point.hit_ratio)}{arrow}"


def _bar(part: float) -> str:
    """Return a bar in eighths of a character.

    >>> len(_bar(0.5)), _bar(0.0)
    (20, '')
    """
    eighths = round(part * _BAR * 8)
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def counted(number: float) -> str:
    """Return a number of entries for people."""
    return f"{number:,.0f}"


def spoken(seconds: float) -> str:
    """Return a timeout in words that TIMEOUT takes, too.

    >>> spoken(90), spoken(300), spoken(3600), spoken(float("inf"))
    ('90s', '5m', '1h', 'forever')
    """
    if math.isinf(seconds):
        return "forever"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s"


def as_python(value: Any, indent: int = 0) -> str:
    """Return a dict as people write it: an item on each line, unless it is short.

    >>> print(as_python({"default": {"BACKEND": "a.module.of.some.length.Class", "OPTIONS": {"max_entries": 4}}}))
    {
        "default": {
            "BACKEND": "a.module.of.some.length.Class",
            "OPTIONS": {"max_entries": 4},
        },
    }
    """
    if not isinstance(value, Mapping):
        return (
            f'"{value}"'
            if isinstance(value, str) and value.isprintable() and not {'"', "\\"} & {*value}
            else repr(value)
        )
    items = [f"{as_python(key)}: {as_python(each, indent + 4)}" for key, each in value.items()]
    line = f"{{{', '.join(items)}}}"
    if len(line) <= _LINE and "\n" not in line:
        return line
    margin = " " * indent
    return "\n".join(["{", *(f"{margin}    {item}," for item in items), f"{margin}}}"])
