"""Recording: a sample of the traffic of a cache, while it runs, for ``cache.advice()``.

An overlay over the hooks of a handle notes the reads and writes of the keys whose hash is below a limit. A worker
thread replays them in batches (`storeroom.advice.simulation`), and lowers the limit where that takes more than a
hundredth of its time, or memory of more than 4 MB.

A call through an overlay costs more than a hundredth of a hit. So it is there in windows alone, with pauses that are as
much longer as it costs more; in a pause a hit goes its usual way, and pays nothing.
Figures: docs/decisions/0130-advice.md.
"""

from typing import Any

from storeroom.advice import Advice
from storeroom.exceptions import NotSupportedError
from storeroom.recording.overlay import RecordingOverlay
from storeroom.recording.recorder import recorder_of
from storeroom.storage.hooks import StorageHooks

__all__ = ["advice_of", "record"]


def record(handle: Any, near: StorageHooks | None) -> RecordingOverlay:
    """Return the overlay that lets a handle record, over its near tier: asked for before the handle has its engine."""
    return RecordingOverlay(handle, near or handle)


def advice_of(handle: Any) -> Advice:
    """Return the advice for a handle.

    Raises:
        NotSupportedError: its traffic is not recorded.
    """
    if handle._recording is None:
        raise NotSupportedError(
            f"The traffic of cache {handle.settings.alias or 'default'!r} is not recorded. Set OPTIONS['advise'] to "
            "True and let the program run, or pass a trace to `storeroom advise --trace FILE`."
        )
    return recorder_of(handle).advice(handle)
