# The module is in _compiled.c, and hot_path.py alone turns to it.

from typing import TypeVar

T = TypeVar("T")

def compiled(method: T, /) -> T: ...
def learn(*terms: object) -> None: ...
