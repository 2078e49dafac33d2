"""The results on a terminal, as they come."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.goals import Verdict
from benchmarks.suite import Results
from benchmarks.timing import Timed

__all__ = ["print_measured", "print_verdicts"]


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, with three digits.

    >>> duration(1.234e-7), duration(2.5e-5), duration(0.0123), duration(1.5)
    ('0.123 µs', '25.0 µs', '12,300 µs', '1,500,000 µs')
    """
    microseconds = seconds * 1e6
    decimals = 3 if microseconds < 1 else 2 if microseconds < 10 else 1 if microseconds < 100 else 0
    return f"{microseconds:,.{decimals}f} µs"


def times(ratio: float) -> str:
    """Return a ratio as it is spoken of.

    >>> times(12.345), times(0.25), times(1234.5)
    ('12.3×', '0.25×', '1,234×')
    """
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×" if ratio < 100 else f"{ratio:,.0f}×"


def print_measured(name: str, results: Results) -> None:
    """Print what was measured last."""
    print(f"\n{name}")
    if name in results.rows:
        _print_timed(results.rows[name])
    elif name in _PRINTERS:
        _PRINTERS[name](results)
    for verdict in results.verdicts:
        if verdict.subject.partition(", web")[0].partition(", 50 ")[0] == name:
            print(f"    goal {verdict.goal}: {verdict.measured}, {verdict.outcome}")


def _print_timed(timed: Timed) -> None:
    for name in timed.seconds:
        print(f"    {name:<28}{duration(timed.median(name)):>16}{times(timed.ratio(name)):>10}", flush=True)


def _print_rates(rates: Mapping[str, Mapping[int, float]]) -> None:
    for name, by_count in rates.items():
        figures = "".join(f"{count:>5}: {rate:>11,.0f}/s" for count, rate in by_count.items())
        print(f"    {name:<28}{figures}", flush=True)


def _print_figures(unit: str, figures: Mapping[str, float]) -> None:
    for name, figure in figures.items():
        print(f"    {name:<28}{figure:>12,.2f} {unit}", flush=True)


def _print_memory(results: Results) -> None:
    _print_figures("bytes in memory", results.memory)
    _print_figures("bytes on the disk", results.disk)


def _print_hits(results: Results) -> None:
    for workload, ratios in results.hit_ratios.items():
        _print_figures(f"%, {workload}", ratios)


def _print_stampedes(results: Results) -> None:
    for library, told in results.stampedes.items():
        figures = f"{told.most:>4} computations{told.worst * 1e3:>10.1f} ms p99{told.longest * 1e3:>10.1f} ms longest"
        print(f"    {library:<36}{figures}", flush=True)


def _print_overheads(results: Results) -> None:
    for name, each in results.overheads.items():
        print(f"    {each.line(name)}", flush=True)


_PRINTERS: Final[Mapping[str, Callable[[Results], None]]] = {
    "threads": lambda results: _print_rates(results.threads),
    "memory per entry": _print_memory,
    "hit ratio": _print_hits,
    "overheads": _print_overheads,
    "stampede": _print_stampedes,
}


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print how many goals are reached, and which are not."""
    missed = [verdict for verdict in verdicts if not verdict.is_reached]
    print(f"\n{len(verdicts) - len(missed)} of {len(verdicts)} goals reached")
    for verdict in missed:
        print(f"    {verdict.subject}: {verdict.goal}; measured {verdict.measured}, {verdict.outcome}")
