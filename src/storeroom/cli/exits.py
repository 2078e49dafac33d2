"""Exit codes, which tell a script how a command went."""

from typing import Final

from storeroom.exceptions import (
    ConfigurationError,
    InvalidCacheKey,
    InvalidTimeoutError,
    KeyNotFoundError,
    StoreroomError,
    TraceError,
    ValueTypeError,
)

__all__ = ["EXIT_CODES", "FAILED", "INTERRUPTED", "MISTAKE", "NO", "NO_READER", "YES", "UsageError", "exit_code"]

YES: Final = 0
NO: Final = 1
MISTAKE: Final = 2  # argparse exits with it, too
FAILED: Final = 3
INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells have it
NO_READER: Final = 141  # nobody reads the output any more: 128 and the number of SIGPIPE

EXIT_CODES: Final = """\
exit codes:
  0    done; the key is there; check found nothing
  1    no such key; not confirmed; check found warnings only
  2    the command or the configuration is wrong; check found errors
  3    the storage failed, or cannot do this
  130  interrupted by Ctrl-C
"""
"""The meaning of each, as --help tells it."""


class UsageError(StoreroomError):
    """The arguments are each right, but not together or not for this cache."""


_MISTAKES: Final = (ConfigurationError, InvalidCacheKey, InvalidTimeoutError, TraceError, UsageError, ValueTypeError)


def exit_code(error: StoreroomError) -> int:
    """Return the exit code for an error that ended a command."""
    if isinstance(error, KeyNotFoundError):
        return NO
    return MISTAKE if isinstance(error, _MISTAKES) else FAILED
