"""The picture on the screen, as lines: of the reports, of the keys that were pressed, and of the screen's size.

It knows no terminal, so that it is the same for one that is drawn on and for a pipe.
"""

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from storeroom.cli.output import count_of, plain
from storeroom.cli.top.reports import Report
from storeroom.cli.top.rows import COLUMNS, Column, Row, caches_of, families_of, processes_of

__all__ = ["FAINT", "HEAD", "NOBODY", "PLAIN", "SELECTED", "STRONG", "Line", "View", "table"]

PLAIN: Final = "plain"
STRONG: Final = "strong"
FAINT: Final = "faint"
HEAD: Final = "head"
SELECTED: Final = "selected"

NOBODY: Final = (
    "No process of this user has answered yet.",
    "One does at its next miss, write or round trip, or at the end of a request.",
)
"""Shown while there are no processes."""

_LABELS: Final = (("cache", "program", "backend"), ("family",), ("process", "program"))
"""The heads of the labels, by the number of steps into the details."""

_NARROWEST_LABEL: Final = 12
_WIDEST_LABEL: Final = 40
_GAP: Final = 2

_WITH_TITLE: Final = 3
_WITH_KEYS: Final = 5
"""Lines that a screen has to have for more than a table."""

_KEYS: Final = "arrows move  Enter in  Esc out  < > sort  r reverse  t totals  p processes  q quit"


class Line(NamedTuple):
    """A line of text, and its style: one of the words above."""

    text: str
    style: str = PLAIN


class View:
    """The state of the screen: the rows that were entered, the one that is chosen, and the order.

    Args:
        alias: only caches of this alias; None for all.

    Attributes:
        is_over: whether somebody wants to leave.
    """

    def __init__(self, alias: str | None = None) -> None:
        self.is_over = False
        self._alias, self._reports = alias, list[Report]()
        self._path: list[Row] = []  # the rows that were entered
        self._selected: list[tuple[object, ...] | None] = [None]  # by depth: the key of a row
        self._sort, self._is_reverse, self._in_all, self._by_process = 0, False, False, False
        self._first = 0  # row on the screen
        self._height = 1

    def update(self, reports: Sequence[Report]) -> None:
        """Show these reports from now on."""
        self._reports = list(reports)

    # Keys -------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Do as a key says: "up", "enter", "q" and so on; any other does nothing."""
        moves = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._height, "page down": self._height}
        if key in moves:
            self._move(moves[key])
        elif key in {"home", "end"}:
            self._move(-(10**9) if key == "home" else 10**9)
        elif key in {"enter", "right", "l"}:
            self._enter()
        elif key in {"escape", "backspace", "left", "h"}:
            self._leave()
        elif key in {"<", ">", ",", "."}:
            self._sort = (self._sort + (1 if key in ">." else -1)) % len(COLUMNS)
        elif key == "r":
            self._is_reverse = not self._is_reverse
        elif key == "t":
            self._in_all = not self._in_all
        elif key == "p":
            self._by_process = not self._by_process and self._depth < len(_LABELS) - 1
        elif key == "q":
            self.is_over = True

    @property
    def _depth(self) -> int:
        return len(self._path)

    def _move(self, steps: int) -> None:
        rows = self._rows()
        if rows:
            keys = [row.key for row in rows]
            now = keys.index(self._selected[-1]) if self._selected[-1] in keys else 0
            self._selected[-1] = keys[max(0, min(len(keys) - 1, now + steps))]

    def _enter(self) -> None:
        rows = self._rows()
        if rows and not self._by_process and self._depth < len(_LABELS) - 1:
            row = next((row for row in rows if row.key == self._selected[-1]), rows[0])
            self._selected[-1] = row.key
            self._path.append(row)
            self._selected.append(None)
            self._first = 0

    def _leave(self) -> None:
        if self._by_process:
            self._by_process = False
        elif self._path:
            self._path.pop()
            self._selected.pop()
            self._first = 0

    # Rows -------------------------------------------------------------------------------------

    def _rows(self) -> list[Row]:
        column, shown = COLUMNS[self._sort], self._unsorted()

        def rank(row: Row) -> tuple[bool, float, tuple[str, ...]]:
            value = column.value(row, self._in_all)
            return value is None, (value or 0.0) * (1 if self._is_reverse else -1), tuple(row.labels)

        return sorted(shown, key=rank)

    def _unsorted(self) -> list[Row]:
        rows = caches_of(self._reports, self._alias)
        if not self._path:
            return [process for row in rows for process in _processes_with_name(row)] if self._by_process else rows
        cache = next((row for row in rows if row.key == self._path[0].key), None)
        if cache is None:  # its processes have ended
            return []
        if self._depth == 1:
            return processes_of(cache) if self._by_process else families_of(cache)
        family = self._path[1].labels[0]
        found = next((row for row in families_of(cache) if row.labels[0] == family), None)
        return [] if found is None else processes_of(found, family)

    # Lines ------------------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> list[Line]:
        """Return the lines of a screen of so many columns and lines, no longer and no more than these."""
        rows = self._rows()
        head = [Line(self._title(), STRONG)] if height >= _WITH_TITLE else []
        foot = [Line(f" {_KEYS}", FAINT)] if height >= _WITH_KEYS else []
        self._height = max(1, height - len(head) - len(foot) - 1)
        if not rows:
            body = [Line("")] + [Line(f" {text}", FAINT) for text in self._absent()]
        else:
            body = self._table(rows, width)
        body = body[: height - len(head) - len(foot)]
        body += [Line("")] * (height - len(head) - len(foot) - len(body)) if foot else []
        return [Line(line.text[:width], line.style) for line in (*head, *body, *foot)]

    def _title(self) -> str:
        rows = caches_of(self._reports, self._alias)
        processes = count_of(len(self._reports), "process", "processes")
        where = "".join(f" > {plain(row.labels[0])}" for row in self._path)
        kind = "in all" if self._in_all else "per second"
        late = "  (! did not answer for some seconds)" if any(report.is_late for report in self._reports) else ""
        return f" {time.strftime('%H:%M:%S')}  {processes}, {count_of(len(rows), 'cache')}, {kind}{where}{late}"

    def _absent(self) -> Sequence[str]:
        if not self._reports:
            return NOBODY
        return (
            ("No keys of this cache have been missed or written yet.",) if self._path else ("No such cache is used.",)
        )

    def _table(self, rows: Sequence[Row], width: int) -> list[Line]:
        keys = [row.key for row in rows]
        selected = keys.index(self._selected[-1]) if self._selected[-1] in keys else 0
        self._first = max(0, min(self._first, selected, len(rows) - self._height))
        self._first = max(self._first, selected - self._height + 1)
        labels = _LABELS[len(_LABELS) - 1 if self._by_process or self._depth > 1 else self._depth]
        if self._by_process and not self._depth:
            labels = ("process", "program", "cache")
        head, *texts = table(rows, labels, width, in_all=self._in_all, sort=self._sort)
        shown = texts[self._first : self._first + self._height]
        styles = (SELECTED if self._first + number == selected else PLAIN for number in range(len(shown)))
        return [Line(head, HEAD), *map(Line, shown, styles)]


def _processes_with_name(row: Row) -> list[Row]:
    processes = processes_of(row)
    for process in processes:
        process.labels = (*process.labels, row.labels[0])
    return processes


def table(
    rows: Sequence[Row],
    labels: Sequence[str],
    width: int | None = None,
    *,
    in_all: bool = False,
    sort: int | None = None,
) -> list[str]:
    """Return rows as lines of text, with a head.

    Args:
        rows: the figures.
        labels: the heads of their labels.
        width: columns of the screen, for which some of the figures may be left out; None to show all.
        in_all: whether the counts are those since the processes began, and not per second.
        sort: the number of the column that is marked as the one sorted by.
    """
    names = [[plain(text).replace("\n", " ").replace("\t", " ") for text in row.labels] for row in rows]
    names = [[f"{'!' if row.is_late else ''}{name[0]}", *name[1:]] for row, name in zip(rows, names, strict=True)]
    label_columns = [_left([head, *column]) for head, column in zip(labels, zip(*names, strict=True), strict=True)]
    figures = [
        (column, _cells(rows, column, in_all, is_sorted=number == sort)) for number, column in enumerate(COLUMNS)
    ]
    chosen = _chosen(label_columns, figures, width)
    return [f" {(' ' * _GAP).join(cells)}".rstrip() for cells in zip(*chosen, strict=True)]


def _left(column: Sequence[str]) -> list[str]:
    width = min(max(map(len, column)), _WIDEST_LABEL)
    return [_cut(text, width).ljust(width) for text in column]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}~"


def _cells(rows: Sequence[Row], column: Column, in_all: bool, *, is_sorted: bool) -> list[str]:
    values = (column.value(row, in_all) for row in rows)
    head = f"{column.name}{'/s' if column.is_rate and not in_all else ''}{'*' if is_sorted else ''}"
    cells = [head, *("-" if value is None else column.shown(value) for value in values)]
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _chosen(labels: list[list[str]], figures: Sequence[tuple[Column, list[str]]], width: int | None) -> list[list[str]]:
    """Return the columns that fit: the further labels go first, then the figures by their rank."""

    def taken(columns: Sequence[list[str]]) -> int:
        return 1 + sum(len(column[0]) + _GAP for column in columns) - _GAP

    kept = sorted(figures, key=lambda figure: figure[0].rank)
    if width is not None:
        while len(labels) > 1 and taken([*labels, *(cells for _, cells in kept)]) > width:
            if taken([*labels, *(cells for _, cells in kept[:5])]) > width:
                labels = labels[:-1]
            else:
                kept = kept[:-1]
        while kept and taken([*labels, *(cells for _, cells in kept)]) > width and len(kept) > 1:
            kept = kept[:-1]
        room = width - taken([cells for _, cells in kept]) - _GAP
        if labels and len(labels) == 1 and len(labels[0][0]) > room:
            narrow = max(_NARROWEST_LABEL, room)
            labels = [[_cut(text.rstrip(), narrow).ljust(narrow) for text in labels[0]]]
    names = {column.name for column, _ in kept}
    return [*labels, *(cells for column, cells in figures if column.name in names)]
