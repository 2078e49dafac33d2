"""get_or_set(): decide, compute once, store.

`decision` judges an entry that was read, and `serving` acts on that. One caller computes for all: in a process by
flights (``stampede``), among processes by ``leases``. `one_key` and `many_keys` are the work itself.
"""

from typing import TYPE_CHECKING

from storeroom.late import names_of

if TYPE_CHECKING:
    from storeroom.computing import decision, many_keys, one_key, serving, stampede, work

__all__ = ["decision", "many_keys", "one_key", "serving", "stampede", "work"]


if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(__name__, {name: name for name in __all__})
