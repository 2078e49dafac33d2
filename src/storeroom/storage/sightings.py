"""An entry as it lies in one tier, seen without a trace: for explain().

Nothing is counted, no order of eviction changes, and an entry whose time is over is seen for as long as it lies there.
The value goes no further than explain(), which shows nothing of it.
"""

from dataclasses import dataclass, replace
from typing import Any

from storeroom.exceptions import DecodeError, StorageError
from storeroom.storage.envelope import Envelope
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = ["Sighting", "of_frame", "of_value", "sighted"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """An entry in one tier, or the lack of one.

    Attributes:
        tier: its name.
        is_there: whether something lies there, be it over or not to be read.
        value: the value, or its envelope; nothing where it cannot be read.
        error: the reason why it cannot be read, or why the tier cannot be asked.
        expires_at: epoch seconds.
        size: bytes, as far as the tier tells.
        frame: the stored bytes, where a codec makes them.
        form: the form of the value, where none does.
        note: for people: why an entry does not count here.
        is_final: whether a read ends here, with nothing.
    """

    tier: str
    is_there: bool = False
    value: Any = None
    error: Exception | None = None
    expires_at: float = NEVER
    size: int | None = None
    frame: bytes | None = None
    form: str = ""
    note: str = ""
    is_final: bool = False


def of_value(tier: str, value: Any, expires_at: Any, *, is_readable: bool) -> list[Sighting]:
    """Return the sighting of an entry of a storage that tells no more than a read does, and the hook for its expiry."""
    if not is_readable and expires_at is None:
        return [Sighting(tier)]
    if type(value) is Envelope:
        expires_at = value.kept_until
    until = expires_at if isinstance(expires_at, float | int) else NEVER
    error = None if is_readable else DecodeError("the storage tells no more")
    return [Sighting(tier, is_there=True, value=value if is_readable else None, error=error, expires_at=until)]


def of_frame(
    tier: str, frame: bytes | None, storage_key: str, codec: Any, expires_at: float = NEVER, size: int | None = None
) -> Sighting:
    """Return the sighting of an entry by its stored bytes, and the codec that reads them; None for no entry."""
    if frame is None:
        return Sighting(tier)
    seen = Sighting(tier, is_there=True, expires_at=expires_at, size=len(frame) if size is None else size, frame=frame)
    try:
        return replace(seen, value=codec.loads(frame, storage_key))
    except DecodeError as error:
        return replace(seen, error=error)


def sighted(hooks: Any, storage_key: str) -> Steps[list[Sighting]]:
    """Return what each tier has of an entry, nearest first; of one that cannot be asked, its error."""
    try:
        found: list[Sighting] = yield hooks, "_sight", (storage_key,)
    except StorageError as error:
        return [Sighting(type(hooks).__name__, error=error)]
    return found
