"""One alias of CACHES: the options that a backend takes, their parsers, and the settings that come of them.

A backend class describes its OPTIONS in a table of Option; `parsers` and `options` have the
parts that many tables share. read_params() turns the dict that a person wrote into Settings,
or names the mistake. Freshness bounds a value's age, by alias and by call.
"""

from storeroom.config.freshness import Freshness, FreshnessOptions
from storeroom.config.options import (
    CODEC_OPTIONS,
    COMMON_OPTIONS,
    DEFAULT_MAX_ENTRIES,
    ENTRY_BOUNDS,
    MAX_STALENESS,
    NEAR_OPTIONS,
    freshness_of,
    near,
)
from storeroom.config.parsers import (
    Option,
    boolean,
    finite_size,
    number,
    one_of,
    require_path,
    seconds,
    size,
    staleness,
    text,
    unchecked,
    whole_number,
)
from storeroom.config.settings import SETTINGS, Settings, read_params

__all__ = [
    "CODEC_OPTIONS", "COMMON_OPTIONS", "DEFAULT_MAX_ENTRIES", "ENTRY_BOUNDS", "MAX_STALENESS", "NEAR_OPTIONS",
    "SETTINGS", "Freshness", "FreshnessOptions", "Option", "Settings", "boolean", "finite_size", "freshness_of",
    "near", "number", "one_of", "read_params", "require_path", "seconds", "size", "staleness", "text", "unchecked",
    "whole_number",
]  # fmt: skip
