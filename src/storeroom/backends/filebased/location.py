"""LOCATION of a file cache: a directory."""

import os

from storeroom.exceptions import ConfigurationError

__all__ = ["check_location", "resolved"]


def resolved(location: str | os.PathLike[str]) -> str:
    """Return the directory's path: absolute, without links.

    Raises:
        ConfigurationError: LOCATION is empty.
    """
    if not location:
        raise ConfigurationError("LOCATION is empty; a file cache needs a directory of its own.")
    return os.path.realpath(os.path.expanduser(location))


def check_location(location: str | os.PathLike[str]) -> None:
    """Find out, without making anything, whether the directory can be used.

    Raises:
        ConfigurationError: LOCATION is empty, a file, or lies where this user cannot write.
    """
    directory = resolved(location)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise ConfigurationError(f"is {str(location)!r}, but {directory!r} is not a directory; expected a directory.")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"is {str(location)!r}, but this user cannot write to {directory!r}; "
            "expected a directory that the user who runs the program owns."
        )
