"""An entry of a file cache, seen for explain(): no hit is noted, and an expired record is seen while it lies there."""

from collections.abc import Callable
from typing import Any

from storeroom.backends.filebased.records import (
    entry_key_of,
    entry_size,
    frame_size,
    load,
    own_frame,
    read_header,
    stored,
)
from storeroom.exceptions import DecodeError
from storeroom.serializers import Codec
from storeroom.storage.sightings import Sighting

__all__ = ["sight"]


def sight(
    tier: str, storage_key: str, read: Callable[..., Any], frame_of: Callable[[bytes], bytes], codec: Codec
) -> list[Sighting]:
    """Return what there is of an entry, expired or not; `read` runs a function in a read transaction."""
    entry_key = entry_key_of(storage_key)
    record = read(lambda transaction: transaction.get(entry_key))
    if record is None:
        return [Sighting(tier)]
    value, error = None, None
    try:
        frame = own_frame(storage_key, entry_key, record, frame_of)
        value = load(codec.loads, frame, storage_key)
    except KeyError:  # removed since the record was read
        return [Sighting(tier)]
    except DecodeError as raised:
        error = raised
    until, size, frame = read_header(record)[0], entry_size(entry_key, frame_size(record)), stored(frame)
    return [Sighting(tier, is_there=True, value=value, error=error, expires_at=until, size=size, frame=frame)]
