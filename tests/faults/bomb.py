"""A value whose pickle does harm."""

from pathlib import Path
from typing import Any

__all__ = ["Bomb"]


class Bomb:
    """A value whose pickle runs code when it is read: it makes a file, by which a test knows."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)
