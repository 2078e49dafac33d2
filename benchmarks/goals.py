"""What Storeroom wants to reach, as data; whether it does is computed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

from benchmarks.timing import Timed

__all__ = ["REASONS", "AtMost", "Faster", "Goal", "Steady", "Verdict", "spread"]


REASONS: Final = {
    "file set at 50,000 entries": (
        "LMDB copies every page between the root and the entry on each write, and the tree of 50,000 entries has one "
        "level more than that of 100. Bare LMDB, overwriting random keys of two such trees, took 1.48 to 1.50 times "
        "as long at 50,000."
    ),
    "locmem get": (
        "a key has its prefix and version put before it, and a hit looks whether something stands before the storage, "
        "and counts: cachebox does neither. By instructions, the loop is a quarter of a hit, the clock a tenth, and "
        "the key's text, its hash and the look into the dict a third."
    ),
    "locmem get_or_set, warm": (
        "it has ten parameters more than get, whose defaults Python fills in for each call, in 10 to 20 ns here. Where "
        "an earlier run was made, on another machine, the ratio was 0.95."
    ),
    **dict.fromkeys(
        ("memcached get, pymemcache", "memcached get, pylibmc"),
        "beside the round trip, a get looks at the key, the generation of its prefix, the circuit breaker, the pool, "
        "the expiry and the frame of the value, in 3 to 20 µs, by the machine, where the process has just been woken. "
        "All of it written out in one function, which was tried, saved a quarter of that.",
    ),
    **dict.fromkeys(
        ("database set, SQLite", "database set_many of 100, SQLite"),
        "Storeroom's time is the processor's alone, and half of Django's is the disk's, so that the ratio is the "
        "machine's. Where Python ran two and a half times as fast, it was 15.5 for a set, and 119 for set_many. Beside "
        "sqlite3, three quarters of a set are SQLite's own, most of it for the two indexes.",
    ),
    "database set, PostgreSQL": (
        "the server itself takes a third longer, as an entry is in three indexes and psycopg's row in one."
    ),
    "memcached get_many of 100, pylibmc": (
        "pylibmc's own call takes a fifth longer with a function that leaves bytes as they are, without which it would "
        "unpickle whatever it finds. Another fifth each are the names of the keys, with prefix and version, and the "
        "values, which have their expiry before them. The rest is the way there: counts, policy, and pool."
    ),
    "redis get_many of 100": (
        "the keys get their prefix and version, and the values, which redis-py leaves as bytes, are decoded: three "
        "dicts of 100 entries, made in C, take a fifth of the time that redis-py takes for all."
    ),
    "file get_many of 100": (
        "LMDB's row is its own calls alone. A key is also made into a storage key, a record looked at for its time and "
        "counted as used, and its text decoded: in C where that is built, else by one loop of Python's."
    ),
    "file set_many of 100": (
        "beside diskcache, the ratio is near the goal, and differs from run to run with its time for 100 transactions. "
        "Beside LMDB, it is near the goal, too: each old record is looked at, as its slot is that of the new one, "
        "which costs half as much as LMDB's own write. Without the functions in C it was 4.3 to 5.7."
    ),
    "file get of an array of 10 MB": (
        "both libraries make bytes, and Python's array copies them, as it takes no other's memory. Which of them meets "
        "memory that the system has to clear first, page by page, differs from turn to turn."
    ),
    **dict.fromkeys(
        ("import, and a first get of local memory", "import, and a first get of files"),
        "of memory's 26 ms on a quiet machine, 7 are those of typing with what it loads, and 8 go for finding and "
        "reading modules, 5 for unpacking their code, 4 for making classes, and 2.4 for modules in C. Files load half "
        "as many modules of Storeroom more, and lmdb.",
    ),
    "file get of 100 MB of bytes": (
        "nearly all of the time is the system's, which clears 100 MB of new memory for the value, in either library."
    ),
}
"""Subject to why its goal may be missed, where that is known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a goal.

    Attributes:
        subject: what was measured.
        goal: in words.
        measured: in words.
        is_reached: whether the goal is.
        shortfall: by how much it is missed, as a share of the goal; 0 if it is reached.
        spread: the least and the most of several runs, in words; "" of one.
    """

    subject: str
    goal: str
    measured: str
    is_reached: bool
    shortfall: float
    spread: str = ""

    @property
    def outcome(self) -> str:
        """The result in words."""
        return "reached" if self.is_reached else f"missed by {self.shortfall:.1%}"


def spread(figures: Iterable[float]) -> str:
    """Return the least and the most of some figures; "" of a single one.

    >>> spread([1.234, 1.5, 1.1]), spread([123.4, 99.6]), spread([2.0])
    ('1.10 to 1.50', '99.6 to 123', '')
    """
    first, *others = sorted(figures)
    return (
        "" if not others else " to ".join(f"{each:.{max(0, 3 - len(str(int(each))))}f}" for each in (first, others[-1]))
    )


@dataclass(frozen=True, slots=True)
class Faster:
    """At least so many times as fast as another contender.

    Attributes:
        times: how many times.
        than: the contender's name.
    """

    times: float
    than: str

    @property
    def needs(self) -> frozenset[str]:
        """Names of the contenders without which there is nothing to judge."""
        return frozenset({self.than})

    def judge(self, subject: str, timed: Timed) -> Verdict:
        """Compare the ratio measured with the goal."""
        ratio = timed.ratio(self.than)
        return Verdict(
            subject,
            f"≥ {self.times:g}× as fast as {self.than}",
            f"{ratio:.2f}×",
            ratio >= self.times,
            max(0.0, 1 - ratio / self.times),
            spread(timed.ratios(self.than)),
        )


@dataclass(frozen=True, slots=True)
class Steady:
    """At most so many times what another contender takes: one of our own, or the engine.

    Attributes:
        times: how many times.
        of: the contender's name.
        engine: two contenders; as many times as the first takes of the second's time will do, too.
    """

    times: float
    of: str
    engine: tuple[str, str] | None = None

    @property
    def needs(self) -> frozenset[str]:
        """Names of the contenders without which there is nothing to judge."""
        return frozenset({self.of, *(self.engine or ())})

    def judge(self, subject: str, timed: Timed) -> Verdict:
        """Compare the ratio measured with the goal."""
        cost, most, allowed = 1 / timed.ratio(self.of), self.times, ""
        if self.engine is not None:
            larger, smaller = self.engine
            growth = timed.ratio(larger) / timed.ratio(smaller)
            most, allowed = max(most, growth), f", or {growth:.2f}× as {smaller.partition(' ')[0]} itself"
        return Verdict(
            subject,
            f"≤ {self.times:g}× the time of {self.of}{allowed}",
            f"{cost:.2f}×",
            cost <= most,
            max(0.0, cost / most - 1),
            spread(1 / ratio for ratio in timed.ratios(self.of)),
        )


@dataclass(frozen=True, slots=True)
class AtMost:
    """At most so many seconds.

    Attributes:
        seconds: how many.
    """

    seconds: float

    needs: ClassVar[frozenset[str]] = frozenset()

    def judge(self, subject: str, timed: Timed) -> Verdict:
        """Compare the median of our own times with the goal."""
        median = timed.median(timed.ours)
        return Verdict(
            subject,
            f"≤ {self.seconds * 1e3:g} ms",
            f"{median * 1e3:.1f} ms",
            median <= self.seconds,
            max(0.0, median / self.seconds - 1),
            spread(median * 1e3 for median in timed.medians(timed.ours)),
        )


Goal = Faster | Steady | AtMost
