"""Django's sessions in a cache: a new one that cannot be stored is told apart from a key that is taken.

``django.contrib.sessions.backends.cache`` takes False of add() for a session that has this key already, and tries
another key: 10,000 times, in an outage or on a full server for seconds. An error ends that at once.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from storeroom.storage.outages import room_needed

__all__ = ["is_session", "keeping_sessions"]

_COROUTINE: Final = 0x80  # inspect.CO_COROUTINE; the module is not loaded for it

_ENGINE: Final = "django.contrib.sessions.backends.cache"


def is_session(key: str) -> bool:
    """Tell whether a key, or a storage key that shows it, is one of a session that Django keeps in a cache alone."""
    stores = [store] if (store := getattr(sys.modules.get(_ENGINE), "SessionStore", None)) else []
    for store in stores:
        stores += store.__subclasses__()  # each may have a prefix of its own
    return any(prefix and prefix in key for prefix in (str(store.cache_key_prefix) for store in stores))


def keeping_sessions(add: Callable[..., Any]) -> Callable[..., Any]:
    """Return the hook `_add`, or its twin, that raises where a server has no room for a session."""
    if add.__code__.co_flags & _COROUTINE:

        @wraps(add)
        async def twin(self: Any, storage_key: str, *args: Any) -> Any:
            if not is_session(storage_key):
                return await add(self, storage_key, *args)
            with room_needed():
                return await add(self, storage_key, *args)

        return twin

    @wraps(add)
    def hook(self: Any, storage_key: str, *args: Any) -> Any:
        if not is_session(storage_key):
            return add(self, storage_key, *args)
        with room_needed():
            return add(self, storage_key, *args)

    return hook
