"""An entry in a near tier, seen for explain()."""

from storeroom import timeouts
from storeroom.eviction import ENCODED, entry_size
from storeroom.near.table import NearTable
from storeroom.storage.hooks import MISSING
from storeroom.storage.sightings import Sighting

__all__ = ["sight"]


def sight(table: NearTable, storage_key: str) -> Sighting:
    """Return what there is of an entry, and whether it may be believed."""
    entry = table.kept(storage_key)
    if entry is None:
        return Sighting("near")
    value, encoded, up = entry.value, entry.encoded, timeouts.uptime()
    if value is ENCODED:
        value = table.decoded(entry)
    if value is MISSING:
        return Sighting("near")
    until = min(entry.expires_at, table.trusted_until)
    size = entry_size(storage_key, entry.value, encoded)
    note = "" if until > up else f"its copy may not be believed any more, for {up - until:.1f} s"
    return Sighting("near", is_there=True, value=value, expires_at=until - up + timeouts.now(), size=size, note=note)
