"""The options that many backends have: tables of Option, by name.

The configuration reference and ``storeroom check`` read them too.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from storeroom import wording
from storeroom.config import freshness
from storeroom.config.parsers import (
    Option,
    boolean,
    finite_size,
    is_none,
    number,
    size,
    staleness,
    text,
    unchecked,
    whole_number,
)
from storeroom.late import replaced

__all__ = [
    "CODEC_OPTIONS", "COMMON_OPTIONS", "DEFAULT_MAX_ENTRIES", "ENTRY_BOUNDS", "MAX_STALENESS", "NEAR_OPTIONS",
    "freshness_of", "near",
]  # fmt: skip

DEFAULT_MAX_ENTRIES: Final = 300
"""Django's default MAX_ENTRIES."""

ENTRY_BOUNDS: Final[Mapping[str, Option]] = {
    "max_entries": Option(
        whole_number(1, none_means="no bound"),
        DEFAULT_MAX_ENTRIES,
        "How many entries are kept at most; a further one evicts the least useful. None for no bound.",
    ),
    "max_bytes": Option(size, None, "Bytes of keys, values and a part for each entry, together. None for no bound."),
    "cull_frequency": Option(
        whole_number(0, none_means="one entry at a time"),
        None,
        "When full, evict one entry in this many at once; 0 evicts all. None evicts as few as is cheap.",
    ),
    "max_tags": Option(
        whole_number(1, none_means="no bound"),
        100_000,  # about 30 MB in local memory, where so many are in use
        "Tags in use that are kept at most, beside the entries; a further one makes another's entries absent. "
        "None for no bound.",
    ),
}
"""The options of every backend that bounds itself."""

CODEC_OPTIONS: Final[Mapping[str, Option]] = {
    "serializer": Option(
        unchecked,
        "pickle",
        'How values become bytes: "pickle", "json", "msgpack", or an object with dumps() and loads(), or its '
        "dotted path.",
    ),
    "secret": Option(
        unchecked,
        None,
        "Signs every value, so that nobody else's is read: a string of 16 bytes or more in UTF-8, or a list of them, "
        "of which the first signs and all are accepted.",
    ),
    "compressor": Option(
        unchecked,
        None,
        'Compresses large values: "zlib", "lzma", "zstd", "lz4", or an object with compress() and decompress(), or '
        "its dotted path. None compresses nothing.",
    ),
    "compress_min_bytes": Option(whole_number(0), 1024, "Values of fewer bytes are not compressed."),
    "max_value_bytes": Option(
        finite_size, 512 * 2**20, "How many bytes a compressed value may expand to; a larger one reads as a miss."
    ),
    "max_expansion": Option(
        whole_number(1),
        100,
        "How many times its stored length a value may take in memory, beyond 16 MiB, where others can write and there "
        "is no secret; a larger one reads as a miss.",
    ),
    "read_compressors": Option(
        unchecked,
        (),
        "Compressors whose values are read beside those of `compressor`, where others can write and there is no "
        "secret: a list of names, for as long as entries of a former compressor are kept.",
    ),
    "signing_context": Option(
        text,
        "",
        "Signatures hold for this name alone, so that a value is a miss on another storage of the same secret, with "
        "another name.",
    ),
}
"""The options of every backend that stores bytes; `serializers.build_codec` takes them, and checks the rest."""

_AGES: Final = {
    "stale_while_revalidate": "For how long get_or_set() serves a value after its timeout, in seconds or words, while "
    "a background worker computes a new one.",
    "stale_if_error": "For how long get_or_set() serves a value after its timeout, in seconds or words, when computing "
    "a new one fails.",
    "retry_pause": "For how long, in seconds or words, a process does not try again to compute what has failed, and "
    "serves the stale value.",
    "error_timeout": "For how long, in seconds or words, a process raises the error of a failed computation again, "
    "where there is no stale value, rather than compute anew.",
    "soft_timeout": "After how long get_or_set() serves a stale value while the computation goes on, in seconds or "
    "words; None for never.",
    "hard_timeout": "After how long get_or_set() raises ComputationTimeoutError while the computation goes on, in "
    "seconds or words; None for never.",
    "early": "How eagerly get_or_set() refreshes a value in the background before it expires: 1 is a good value, 0 is "
    "never.",
    "jitter": "By which share, from 0 to 1, get_or_set() shortens timeouts at random, so that entries do not expire "
    "together.",
}


def freshness_of(options: Mapping[str, Any]) -> freshness.Freshness:
    """Return the bounds on a value's age, by the options of an alias."""
    return freshness.Freshness(**{name: options[name] for name in _AGES if name in options})


MAX_STALENESS: Final = Option(
    staleness,
    1.0,  # hardly to be seen on a page that is reloaded, and long enough for thousands of reads of a hot key
    "For how long an entry of the near tier may differ from the storage, in seconds or words, where nothing tells of "
    "the change.",
)

NEAR_OPTIONS: Final[Mapping[str, Option]] = {
    **ENTRY_BOUNDS,
    "max_entries": replaced(ENTRY_BOUNDS["max_entries"], default=10_000),  # a few MiB, where most values are small
    "copy": Option(
        boolean, True, "Whether values are copied in and out. False keeps the very objects, which nobody must change."
    ),
    "max_staleness": MAX_STALENESS,
}
"""The keys of OPTIONS["near"], which every backend has."""


def near(value: Any) -> Mapping[str, Any] | None:
    """Parse the options of a near tier: a dict of some of NEAR_OPTIONS, True for none of them, None for no tier."""
    expectation = f"a dict of {', '.join(NEAR_OPTIONS)}, or True for their defaults"
    if is_none(value):
        return None
    if isinstance(value, Mapping):
        return _near_options(value, expectation)
    try:
        return _near_options({}, expectation) if boolean(value) else None
    except ValueError:
        raise ValueError(expectation) from None


def _near_options(written: Mapping[str, Any], expectation: str) -> Mapping[str, Any]:
    parsed = {name: option.default for name, option in NEAR_OPTIONS.items()}
    for spelling, value in written.items():
        name = str(spelling).lower()
        if name not in NEAR_OPTIONS:
            hint = wording.nearest(name, NEAR_OPTIONS).strip()
            raise ValueError(f"{expectation}; {spelling!r} is none of them{f' ({hint})' if hint else ''}")
        try:
            parsed[name] = NEAR_OPTIONS[name].parse(value)
        except ValueError as wrong:
            raise ValueError(f"as its {name!r} {wrong}") from None
    return parsed


def _advise(value: Any) -> bool | str:
    """Parse OPTIONS["advise"]: True, False, or "always"."""
    if isinstance(value, str) and value.lower() == "always":
        return "always"
    try:
        return boolean(value)
    except ValueError:
        raise ValueError('True, False or "always"') from None


def _transactional(value: Any) -> str | bool | None:
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value):
        return value
    raise ValueError("True, False, None, or the alias of a database in Django's DATABASES")


def _slow(value: Any) -> float | None:
    try:
        return None if is_none(value) else number(0.0)(value)
    except ValueError:
        raise ValueError("seconds, such as 2.5, or None for none") from None


def _on_unstorable(value: Any) -> str:
    if value in ("return", "raise"):
        return str(value)
    raise ValueError('"return" or "raise"')


def _families(value: Any) -> tuple[str, ...] | None:
    if value is False:
        return None
    if value is None or value is True:
        return ()
    patterns = [value] if isinstance(value, str) else value
    if isinstance(patterns, list | tuple) and all(isinstance(pattern, str) and pattern for pattern in patterns):
        return tuple(patterns)
    raise ValueError('a list of patterns, such as ["user:*:profile", "page:*"], or False')


COMMON_OPTIONS: Final[Mapping[str, Option]] = {
    **{
        name: Option(partial(freshness.parse, name), getattr(freshness.Freshness(), name), meaning)
        for name, meaning in _AGES.items()
    },
    "near": Option(
        near,
        None,
        "Keeps entries in this process's memory too, where reading them takes no round trip: a dict of the near "
        "tier's own options, or True for their defaults. None for no near tier.",
    ),
    "transactional": Option(
        _transactional,
        None,
        "Holds writes back until Django's transaction in progress commits: True for the database `default`, or "
        "another's alias. False even takes no part in transaction(); None does where it is used.",
    ),
    "families": Option(
        _families,
        (),
        'The families of keys that stats() tells apart: patterns as of file names, such as "user:*:profile", of which '
        "the first counts that a key matches. Keys without one are told apart by their beginning up to a colon. False "
        "tells none apart.",
    ),
    "shared_stats": Option(
        boolean,
        False,
        'Whether processes that share a server or a database count together, for stats(scope="all") and `storeroom '
        "stats`: each writes its counts every few seconds, in one small entry. Files always do.",
    ),
    "slow_computation": Option(
        _slow,
        None,
        "Seconds from which on a computation of get_or_set(), refresh() and @cached is logged as slow; None for none.",
    ),
    "owns_location": Option(
        boolean,
        False,
        "Whether all there is in LOCATION is this cache's: clear() then removes everything where KEY_FUNCTION hides "
        "whose entries they are.",
    ),
    "advise": Option(
        _advise,
        False,
        'Whether a sample of the traffic is recorded for advice(): in windows, or "always".',
    ),
    "memo": Option(boolean, True, "Whether memo() remembers what was read from this cache."),
    "removals": Option(
        whole_number(0),
        0,
        "The number of removals that this process remembers, so that explain() can tell why a key is not there; 0 for "
        "none.",
    ),
    "on_unstorable": Option(
        _on_unstorable,
        "return",
        "What get_or_set(), refresh() and @cached do with a computed value that the storage refuses, as it is too "
        'large, cannot be serialized or finds no room: "return" it, counted and logged once, or "raise" the error. The '
        "same for copies of sessions, pages and parts of templates that Django stores.",
    ),
}
"""The options that every backend has."""
