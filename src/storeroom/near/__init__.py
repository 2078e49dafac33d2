"""A near tier: entries of a farther storage, kept in this process's memory for a while.

`table` keeps them and knows until when they may be believed; `hooks` is the overlay that puts
them before a storage. Others' changes are told by the storage's channel, if it has one
(``storage.channel``); `listening` is the thread that most channels need.
"""

from collections.abc import Mapping
from typing import Any

from storeroom.engines import Engine, shared
from storeroom.near.hooks import NearOverlay
from storeroom.near.table import NearTable, Ticket, Tolerance

__all__ = ["NearOverlay", "NearTable", "Ticket", "Tolerance", "table_of"]


def table_of(engine: Engine, options: Mapping[str, Any]) -> NearTable:
    """Return the near tier of a storage: one for all handles that share its engine, and these options.

    Args:
        engine: that of the storage.
        options: those of ``config.NEAR_OPTIONS``.
    """
    tolerance = Tolerance(**options)
    return shared(NearTable, (engine, tolerance), lambda: NearTable(tolerance))
