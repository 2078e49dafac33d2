"""BaseCache: every method of a cache, on the hooks of a storage.

The class is built in floors, a file each: `handle` (settings, keys, timeouts), `computing` (get_or_set(), tags),
`counters`, `many`, `listing` and `entries`, on top. Each method turns keys, versions and timeouts into storage keys and
expiry times, and asks the overlay or the storage. A Lock is an entry that stands for its owner.
"""

from typing import TYPE_CHECKING

from storeroom.base.entries import BaseCache
from storeroom.late import names_of

if TYPE_CHECKING:
    from storeroom.base.locks import Lock

__all__ = ["BaseCache", "Lock"]


if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(__name__, {"Lock": "locks"})
