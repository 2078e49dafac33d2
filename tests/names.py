"""The names of parametrized tests, which are to be the same in each process of a test run."""

import re

__all__ = ["shown"]


def shown(value: object) -> str:
    """Return repr() of the value, without its address in memory."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))
