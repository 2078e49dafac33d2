"""A near tier: entries of a farther storage, kept in this process's memory for a while.

Others' changes are told by the storage's channel, if it has one (``storage.channel``).
"""

from collections.abc import Mapping
from typing import Any

from storeroom.engines import Engine, shared
from storeroom.near.hooks import NearOverlay
from storeroom.near.table import NearTable, Ticket, Tolerance

__all__ = ["NearOverlay", "NearTable", "Ticket", "Tolerance", "table_of"]


def table_of(engine: Engine, options: Mapping[str, Any]) -> NearTable:
    """Return the near tier of all handles that share the engine of a storage, and these ``config.NEAR_OPTIONS``."""
    tolerance = Tolerance(**options)

    def make() -> NearTable:
        table = NearTable(tolerance)
        engine.parts = (*engine.parts, table)
        return table

    return shared(NearTable, (engine, tolerance), make)
