"""Storeroom: one CACHES dict and one API over every storage.

::

    import storeroom

    storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"}})
    storeroom.cache.set("greeting", "hello", timeout="5m")
    storeroom.caches["default"].get("greeting")

Each public name is loaded when it is first asked for, so that importing the package costs next to nothing.
"""

from importlib import import_module

# ruff: noqa: F403, F405 -- every error and every opener is a public name of the package

TYPE_CHECKING = False  # type checkers take it for typing's own, whose import would cost more than all the rest
if TYPE_CHECKING:
    from storeroom.exceptions import *
    from storeroom.functions import cached
    from storeroom.memos import memo
    from storeroom.openers import *
    from storeroom.registry import cache, caches, config_from_url, configure
    from storeroom.timeouts import DEFAULT_TIMEOUT
    from storeroom.transactions import transaction

    __version__: str

__all__ = [
    "DEFAULT_TIMEOUT", "ComputationCycleError", "ComputationTimeoutError", "ConfigurationError", "DatabaseCache",
    "DecodeError", "DeprecatedBackendWarning", "DummyCache", "FileCache", "InvalidCacheBackendError",
    "InvalidCacheKey", "InvalidTimeoutError", "KeyNotFoundError", "LocMemCache", "LockError", "LockLostError",
    "LockTimeoutError", "NotSupportedError", "PoolTimeoutError", "PyLibMCCache", "PyMemcacheCache", "RedisCache",
    "ReentrantUseError", "SerializationError", "StorageError", "StoreroomError", "StoreroomWarning", "TieredCache",
    "TraceError", "TransactionError", "UnansweredError", "UnkeyableArgumentError", "UnreachableError",
    "ValueTooLargeError", "ValueTypeError", "WriteTimeoutError", "cache", "cached", "caches", "config_from_url",
    "configure", "memo", "transaction",
]  # fmt: skip

_OPENERS = (
    "DatabaseCache", "DummyCache", "FileCache", "LocMemCache", "PyLibMCCache", "PyMemcacheCache", "RedisCache",
    "TieredCache",
)  # fmt: skip

_HOMES = {
    **dict.fromkeys(_OPENERS, "openers"),
    "DEFAULT_TIMEOUT": "timeouts",
    "cache": "registry",
    "cached": "functions",
    "caches": "registry",
    "config_from_url": "registry",
    "configure": "registry",
    "memo": "memos",
    "transaction": "transactions",
}
"""The package or module of each public name; all others are in exceptions."""


if not TYPE_CHECKING:  # or every misspelt name would pass for one of these

    def __getattr__(name: str) -> object:
        """Load a public name from its module: see PEP 562."""
        if name == "__version__":
            return import_module("importlib.metadata").version("storeroom")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'exceptions')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
