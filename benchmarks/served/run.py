"""The turns: round after round each server of a group is asked for a page, and compared within the round."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.goals import Verdict
from benchmarks.served.contenders import BARE, GROUPS, NGINX, OURS, PATHS, UNCACHED, Group
from benchmarks.served.content import HTML
from benchmarks.served.load import Load, ask, page_at
from benchmarks.served.serving import serving

__all__ = ["TIMES", "Row", "run", "shares", "verdicts"]

TIMES: Final = 3.0
"""So many times the rate of each peer is the goal."""


@dataclass(slots=True)
class Row:
    """One page of one group.

    Attributes:
        group: the servers.
        path: of the page.
        loads: contender to what came of each round.
    """

    group: Group
    path: str
    loads: dict[str, list[Load]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The server and the page."""
        return f"{self.group.name}: {PATHS[self.path]}"

    def median(self, name: str) -> Load:
        """Return the medians of a contender's rounds."""
        loads = self.loads[name]
        return Load(*(median(getattr(load, each) for load in loads) for each in ("rate", "half", "most")))

    def ratio(self, name: str, other: str) -> float:
        """Return how many times the rate of another contender a contender reaches, the median of the rounds."""
        pairs = zip(self.loads[name], self.loads[other], strict=True)
        return median(ours.rate / theirs.rate for ours, theirs in pairs)


def run(seconds: float, rounds: int, told: Callable[[Row], None], groups: tuple[Group, ...] = GROUPS) -> list[Row]:
    """Measure the groups one after the other, and tell each row when it is complete."""
    rows = []
    for group in groups:
        with serving(group) as ports:
            for path in PATHS:
                row = Row(group, path)
                urls = {name: f"http://127.0.0.1:{ports[name]}{path}" for name in group.names}
                _warm(urls)
                for _ in range(rounds):
                    for name, url in urls.items():
                        row.loads.setdefault(name, []).append(ask(url, seconds))
                rows.append(row)
                told(row)
    return rows


def _warm(urls: Mapping[str, str]) -> None:
    """Let each server have the page, in all of its workers; all must serve the same one.

    Raises:
        RuntimeError: one serves another page.
    """
    pages = {}
    for name, url in urls.items():
        pages[name] = {_plain(page_at(url)) for _ in range(2)}
        ask(url, 1)
    expected = pages[UNCACHED]
    for name, found in pages.items():
        if found != expected or len(found) != 1:
            raise RuntimeError(f"{name} serves another page than the application: {found!r:.500}")


def _plain(body: bytes) -> Any:
    """Return a page as it is to be compared: serializers of JSON differ in spaces and order."""
    return body if body == HTML.encode() else json.dumps(json.loads(body), sort_keys=True)


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Return what became of the goal, for each row and each peer."""
    return [_verdict(row, peer) for row in rows for peer in row.group.peers]


def _verdict(row: Row, peer: str) -> Verdict:
    ours = f"{OURS}, files" if peer.endswith(", files") else OURS
    ratio = row.ratio(ours, peer)
    shortfall = max(0.0, 1 - ratio / TIMES)
    goal = f"≥ {TIMES:g}× the rate of {peer}"
    limit = row.ratio(BARE, peer)
    measured = f"{ratio:.2f}×" if limit >= TIMES else f"{ratio:.2f}×, of {limit:.2f}× that the server allows"
    return Verdict(row.name, goal, measured, ratio >= TIMES, shortfall)


def shares(row: Row) -> tuple[float, ...]:
    """Return the shares of the bare application's rate and of nginx's that hits in memory and in files reach."""
    return tuple(row.ratio(name, other) for other in (BARE, NGINX) for name in (OURS, f"{OURS}, files"))
