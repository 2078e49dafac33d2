"""The writes and reads of a storm, and whether each answer is explained by what was written and by what had failed.

Each key has one writer, which counts up. A write counts if it was acknowledged, unless a fault may have lost it. A read
has to return at least the last write that counts and was over, `bound` seconds ago, when the read began.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["GRACE", "Fault", "History", "Read", "Write"]

#: Seconds after a fault in which clients may still notice it: a timeout, and a pause of the circuit breaker.
GRACE = 5.0


@dataclass(frozen=True)
class Write:
    """A write of a key: its number, and whether it was acknowledged."""

    key: str
    version: int
    begun: float
    ended: float
    is_acknowledged: bool


@dataclass(frozen=True)
class Read:
    """A read of a key; 0 where nothing was found."""

    key: str
    version: int
    begun: float
    ended: float
    bound: float


@dataclass
class Fault:
    """Something that happened to a server.

    Attributes:
        what: in words.
        concerns: tells of a key whether it lay there.
        begun: seconds.
        ended: seconds; the servers are well from then on.
        losses: times between which acknowledged writes may have been lost, as replication is asynchronous.
        grace: seconds after its end in which it may still be noticed; -inf if nothing fails by it.
    """

    what: str
    concerns: Callable[[str], bool]
    begun: float
    ended: float = float("inf")
    losses: list[tuple[float, float]] = field(default_factory=list)
    grace: float = GRACE

    def is_felt(self, begun: float, ended: float) -> bool:
        """Tell whether an operation between these times may have met it."""
        return begun < self.ended + self.grace and ended > self.begun


class History:
    """The operations of a storm."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.faults: list[Fault] = []

    def unexplained(self) -> list[str]:
        """Return a sentence for each answer that should not have been given."""
        faults = {key: [fault for fault in self.faults if fault.concerns(key)] for key in self._keys()}
        wrong = [
            f"{write} failed, though its server was well"
            for write in self.writes
            if not write.is_acknowledged and not _is_felt(faults[write.key], write.begun, write.ended)
        ]
        counted = self._counted(faults)
        for read in self.reads:
            ends, versions = counted[read.key]
            position = bisect_left(ends, read.begun - read.bound)
            expected = versions[position - 1] if position else 0
            if read.version < expected and not _is_felt(faults[read.key], read.begun, read.ended):
                wrong.append(f"{read} is older than {expected}, written {read.begun - ends[position - 1]:.2f} s before")
        return wrong

    def _keys(self) -> set[str]:
        return {operation.key for operation in (*self.writes, *self.reads)}

    def _counted(self, faults: dict[str, list[Fault]]) -> dict[str, tuple[list[float], list[int]]]:
        """Return the ends and the numbers of each key's writes that count.

        After one that failed, which may be carried out late, or whose key may be removed, the next one counts.
        """
        counted: dict[str, tuple[list[float], list[int]]] = defaultdict(lambda: ([], []))
        for write in sorted(self.writes, key=lambda write: write.ended):
            losses = (span for fault in faults[write.key] for span in fault.losses)
            is_lost = any(begun <= write.ended and write.begun <= ended for begun, ended in losses)
            ends, versions = counted[write.key]
            if not write.is_acknowledged or is_lost:
                ends.append(write.begun)
                versions.append(0)  # nothing is expected until the next write
            else:
                ends.append(write.ended)
                versions.append(write.version)
        for key, own in faults.items():
            for fault in own:
                _forget(counted[key], fault.losses)
        return counted


def _forget(counted: tuple[list[float], list[int]], losses: Sequence[tuple[float, float]]) -> None:
    """Expect nothing from the end of a loss on, until the next write."""
    ends, versions = counted
    for begun, ended in losses:
        position = bisect_left(ends, ended)
        if position and ends[position - 1] >= begun:
            ends.insert(position, ended)
            versions.insert(position, 0)


def _is_felt(faults: Iterable[Fault], begun: float, ended: float) -> bool:
    return any(fault.is_felt(begun, ended) for fault in faults)
