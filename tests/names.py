"""The names of parametrized tests, which are to be the same in each process of a test run."""

import re

__all__ = ["shown"]


def shown(value: object) -> str:
    """Return what repr() says of the value, but for where in memory it is."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
