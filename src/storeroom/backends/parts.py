"""Operations on many keys that some servers of a group have answered, and others have not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["PartialError", "unanswered"]


def unanswered(
    args: tuple[Any, ...], failure: Exception | None
) -> tuple[tuple[Any, ...], Exception | None, Callable[[Any], Any]]:
    """Return a failed hook's arguments without the keys that were answered, its cause, and the merging of results."""
    if isinstance(failure, PartialError):
        return failure.rest(args), failure.cause, failure.merged
    return args, failure, _unchanged


def _unchanged(answer: Any) -> Any:
    return answer


class PartialError(Exception):
    """Some keys of an operation lie on servers that are out of reach.

    Attributes:
        result: of the hook, for the other keys.
        lost: storage key to error.
        cause: one of the errors.
    """

    def __init__(self, result: Any, lost: Mapping[str, Exception]) -> None:
        super().__init__(f"{len(lost)} keys lie on servers that are out of reach")
        self.result, self.lost = result, lost
        self.cause = next(iter(lost.values()))

    def rest(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the hook's arguments with the lost keys alone."""
        keyed, *others = args
        if isinstance(keyed, Mapping):
            return {key: keyed[key] for key in keyed if key in self.lost}, *others
        return [key for key in keyed if key in self.lost], *others

    def merged(self, answer: Any) -> Any:
        """Return the result with the answer about the lost keys."""
        if isinstance(self.result, dict):
            return self.result | answer
        return self.result + answer
