"""The door for authors of backends: all that a backend of one's own needs, from one place.

``docs/backends/custom.md`` tells how to use it, with a complete example.
"""

from storeroom.base import BaseCache
from storeroom.config import CODEC_OPTIONS, ENTRY_BOUNDS, Option, Settings
from storeroom.engines import Engine, shared
from storeroom.exceptions import (
    DecodeError,
    InvalidCacheBackendError,
    SerializationError,
    StorageError,
    ValueTooLargeError,
    ValueTypeError,
)
from storeroom.serializers import Codec, build_codec
from storeroom.serializers.secrets import secret_of
from storeroom.storage.hooks import MISSING
from storeroom.timeouts import DEFAULT_TIMEOUT, NEVER

__all__ = [
    "CODEC_OPTIONS", "DEFAULT_TIMEOUT", "ENTRY_BOUNDS", "MISSING", "NEVER", "BaseCache", "DecodeError", "Engine",
    "InvalidCacheBackendError", "Option", "SerializationError", "StorageError", "ValueTooLargeError",
    "ValueTypeError", "codec_of", "shared",
]  # fmt: skip


def codec_of(settings: Settings, *, trusted: bool = False) -> Codec:
    """Return the codec that an alias's options ask for: it turns values into bytes, and back.

    Args:
        settings: of the cache; those of ``CODEC_OPTIONS`` that the backend does not take have their defaults.
        trusted: whether the program's own user alone can write to the storage. Where others can, unsigned bytes are
            read as plain data alone.

    Raises:
        ConfigurationError: an option is wrong.
    """
    chosen = {name: settings.options.get(name, option.default) for name, option in CODEC_OPTIONS.items()}
    if not trusted:
        chosen["secret"] = secret_of(settings)
    return build_codec(trusted=trusted, allowed_types=settings.options.get("allowed_types", ()), **chosen)
