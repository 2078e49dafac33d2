"""Capabilities that a storage may lack, by name, and the tests that need them.

A test says by `needs` what it cannot do without; a suite whose backend cannot do it says so,
with the reason, in its `lacks`. A capability that is not named there is promised.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeVar

__all__ = ["CAPABILITIES", "check_lacks", "needs", "what_it_needs"]

CAPABILITIES: Final[Mapping[str, str]] = {
    "store": "remembers what is set",
    "objects": "stores instances of the program's own classes",
    "isolation": "gives out copies, so that a caller cannot change what is cached",
    "refusal": "refuses, at set(), a value that could not be read back",
    "large_values": "holds values of several MiB",
    "enumerate": "lists its keys: keys() and count()",
    "statistics": "tells in stats() how much is stored, expired and evicted, and can prune()",
    "bounds": "honours MAX_ENTRIES and CULL_FREQUENCY",
    "byte_bounds": "honours max_bytes",
    "atomic_rename": "moves an entry to another version in one step",
    "interruption": "keeps entries whole where an exception comes out of a signal's handler",
    "processes": "is shared by the processes of one machine",
    "persistence": "keeps its entries when the processes that use it end",
    "fork": "stays usable in a forked child, whatever other threads did in the parent",
    "fake_clock": "times expiry by Storeroom's clock; without it, tests wait in real time",
}
"""Capability -> what a storage that has it does."""

Needing = TypeVar("Needing", bound=Callable[..., Any])

_ATTRIBUTE = "_storeroom_needs"


def needs(*capabilities: str) -> Callable[[Needing], Needing]:
    """Say of a test, or of every test that a class defines itself, that it needs these capabilities."""
    _refuse_unknown(capabilities, "needs()")

    def note(needing: Needing) -> Needing:
        if isinstance(needing, type):
            for name, test in vars(needing).items():
                if name.startswith("test_"):
                    note(test)
        else:
            setattr(needing, _ATTRIBUTE, what_it_needs(needing) | set(capabilities))
        return needing

    return note


def what_it_needs(test: Callable[..., Any]) -> frozenset[str]:
    """Return the capabilities that a test needs."""
    return frozenset(getattr(test, _ATTRIBUTE, ()))


def check_lacks(lacks: Mapping[str, str], suite: str) -> None:
    """Raise TypeError if a suite's `lacks` names what does not exist, or gives no reason."""
    _refuse_unknown(lacks, f"{suite}.lacks")
    for capability, reason in lacks.items():
        if not isinstance(reason, str) or not reason.strip():
            raise TypeError(f"{suite}.lacks[{capability!r}] is {reason!r}; expected the reason, as a sentence.")


def _refuse_unknown(names: Any, origin: str) -> None:
    for name in names:
        if name not in CAPABILITIES:
            near = get_close_matches(str(name), CAPABILITIES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(
                f"{origin} names the capability {name!r}, which does not exist.{hint} "
                f"The capabilities are {', '.join(CAPABILITIES)}."
            )
