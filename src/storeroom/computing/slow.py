"""The line that the log has of a slow computation."""

from typing import Any

from storeroom import wording
from storeroom.late import logger_of

__all__ = ["note_slow"]

_log = logger_of("storeroom.computing")


def note_slow(work: Any, function: Any, error: BaseException | None = None) -> None:
    """Log a computation that took as long as ``OPTIONS["slow_computation"]``, or longer.

    Args:
        work: the Work that it was part of.
        function: the Function that has been called.
        error: the error that ended it, if one did: its type is told, and nothing else of it.
    """
    keys, families = list(work.typed), work.terms.families
    fields = {
        "event": "slow_computation",
        "alias": work.terms.alias or "default",
        "function": function.origin,
        "family": None if families is None or not keys else families.name_of(keys[0]),
        "key": str(keys[0]) if len(keys) == 1 else None,
        "keys": len(keys),
        "seconds": round(function.seconds, 6),
        "error": None if error is None else type(error).__name__,
    }
    outcome = "failed" if error is not None else "computed"
    text = wording.fields_text(fields)
    _log.warning("%s %s after %.3f s. %s", function.origin, outcome, function.seconds, text, extra=fields)
