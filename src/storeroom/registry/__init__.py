"""CACHES as a whole: found, checked, and handed out by alias."""

from storeroom.registry.handler import (
    CacheHandler,
    Configuration,
    OwnConfiguration,
    backend_class,
    cache,
    caches,
    configure,
)

__all__ = [
    "CacheHandler",
    "Configuration",
    "OwnConfiguration",
    "backend_class",
    "cache",
    "caches",
    "configure",
]
