# The module is in _compiled.c, and hot_path.py alone turns to it.

from typing import TypeVar

_T = TypeVar("_T")

def compiled(method: _T, /) -> _T: ...
def learn(*terms: object) -> None: ...
