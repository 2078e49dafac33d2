# The module is in _compiled.c, and batches.py alone turns to it.
from typing import Any

def __getattr__(name: str) -> Any: ...
