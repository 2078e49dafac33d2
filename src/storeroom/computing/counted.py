"""The counts of one function's calls, beside those of the cache: for ``cache_info()`` of a @cached function."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

__all__ = ["NOT_COUNTED", "CountedFunction"]


class CountedFunction:
    """A function that is called through this, and what became of its calls in this process.

    A computation knows it as the function of a ``partial()``, or in the closure of a lambda. The numbers take no lock,
    as those of Counters.

    Attributes:
        uncached: the function itself.
        answers: calls that got a result, whether it was stored or not.
        misses: calls that found no result.
        answered_misses: those of them that got one all the same.
        waited: waits for the computation of another caller.
        computed: results that the function has returned.
        failed: its calls that ended with an error.
        compute_seconds: seconds that the results took.
    """

    __slots__ = (
        "answered_misses", "answers", "compute_seconds", "computed", "failed", "misses", "uncached", "waited",
    )  # fmt: skip

    def __init__(self, function: Callable[..., Any]) -> None:
        self.uncached = function
        self.answers = self.misses = self.answered_misses = self.waited = self.computed = self.failed = 0
        self.compute_seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.uncached(*args, **kwargs)

    def add_computed(self, seconds: float) -> None:
        """Count a result that took so many seconds."""
        self.computed += 1
        self.compute_seconds += seconds

    @classmethod
    def of(cls, function: Any) -> "CountedFunction":
        """Return the counts for a call that a computation was given; those of nobody if it is another function's."""
        return next((each for each in _held(function) if type(each) is cls), NOT_COUNTED)


def _held(function: Any) -> Iterator[object]:
    """Yield the function of a partial(), and the objects in a function's closure."""
    yield getattr(function, "func", None)
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # nothing is in it yet
            yield cell.cell_contents


NOT_COUNTED: Final = CountedFunction(lambda: None)
"""Where calls of all other functions are counted, which nobody reads."""
