"""An entry in local memory, seen for explain(): no lock, no counter, and no code but that of its own class."""

from storeroom.backends.locmem.values import thawed
from storeroom.eviction import ENCODED, Entry, entry_size
from storeroom.storage.sightings import Sighting
from storeroom.storage.unstored import Caught

__all__ = ["sight"]

_PICKLE = "pickle, for this process alone"
_OBJECT = "none: this process keeps the object itself"


def sight(tier: str, entry: Entry | None) -> Sighting:
    """Return what there is of an entry, expired or not."""
    value, encoded = (ENCODED, None) if entry is None else (entry.value, entry.encoded)
    if entry is None or (value is ENCODED and encoded is None):  # removed just now
        return Sighting(tier)
    encoded = encoded if value is ENCODED else None
    until, size = entry.expires_at, entry_size(entry.key, value, encoded)
    if not encoded or not isinstance(encoded, bytes):
        kept = value if encoded is None else thawed(encoded)
        return Sighting(tier, is_there=True, value=kept, expires_at=until, size=size, form=_OBJECT)
    with Caught() as caught:  # a class that has changed or gone fails in any way
        value = thawed(encoded)
    value = None if caught.error is not None else value
    pickle = bytes(encoded)
    return Sighting(
        tier, is_there=True, value=value, error=caught.error, expires_at=until, size=size, frame=pickle, form=_PICKLE
    )
