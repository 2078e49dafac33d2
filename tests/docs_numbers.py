"""The numbers in the prose of the documentation, and the constants of the code that they come from.

A number is held by the words around it: they are found on the page with the constant's value in their midst. When the
constant changes, the words are not found any more, and the failure names page, words and constant. A figure that was
measured is no constant: it is written by `docs_tables` from the page of benchmarks.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

__all__ = ["HELD", "Held", "changed"]

ROOT: Final = Path(__file__).parents[1]

_WORDS: Final = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)  # fmt: skip

LETTER: Final = 1
"""Before the key of a file's record, one byte tells what kind of key it is."""

FILE_TIMES: Final = 4
"""The most that ``data.mdb`` takes, in max_bytes: test_docs.py measures it."""


# How a value is written --------------------------------------------------------------------------


def digits(value: float) -> str:
    """Return a number with its thousands parted: 100,000; 2.5; 3."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def plain(value: object) -> str:
    """Return digits as they stand in code: 1024; 10.0."""
    return str(value)


def words(value: float) -> str:
    """Return a small whole number in words."""
    return _WORDS[int(value)] if value == int(value) and 0 <= value < len(_WORDS) else digits(value)


def each(unit: str, seconds: float = 1) -> Callable[[float], str]:
    """Return how often it is: "a second", or "every 2 seconds"."""
    return lambda value: f"a {unit}" if value == seconds else f"every {value / seconds:g} {unit}s"


def span(unit: str, seconds: float) -> Callable[[float], str]:
    """Return a time as "an hour", or how many."""
    article = "an" if unit == "hour" else "a"
    return lambda value: f"{article} {unit}" if value == seconds else f"{value / seconds:g} {unit}s"


def fraction(of: str, seconds: float = 1) -> Callable[[float], str]:
    """Return a time as "half a second", where it is that, and in digits elsewhere."""
    return lambda value: f"half a {of}" if value == seconds / 2 else f"{value / seconds:g} {of}s"


def size(value: int) -> str:
    """Return bytes in the largest unit that is whole: 64 GiB."""
    power, unit = next((p, u) for p, u in ((30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "bytes")) if value % 2**p == 0)
    return f"{value >> power} {unit}"


def times(value: int) -> str:
    """Return how often, at the beginning of a sentence: "Four times"."""
    return f"{words(value).capitalize()} times"


def thousands(value: int) -> str:
    """Return "ten thousand"."""
    return f"{words(value / 1000)} thousand"


def minutes(value: float) -> str:
    """Return seconds as "five minutes", or "half minute"."""
    return "half minute" if value == 30 else f"{words(value / 60)} minutes"


def ordinal(value: int) -> str:
    """Return a part or a position: "third", "fiftieth"."""
    return {3: "third", 50: "fiftieth", 100: "hundredth"}.get(value, f"{value}th")


def octal(value: int) -> str:
    """Return the mode of a file: 0700."""
    return f"0{value:o}"


def exponent(value: float) -> str:
    """Return the power of ten."""
    return f"{math.log10(value):g}"


def release(value: str) -> str:
    """Return a version as people say it: 3.11 for ">=3.11", 6 for "6.0"."""
    return value.removeprefix(">=").removesuffix(".0")


def spaced(value: str) -> str:
    """Return "1 GB" for "1GB"."""
    return f"{value[:-2]} {value[-2:]}"


def per_second(value: float) -> str:
    """Return how many times a second it is done, from the seconds between two times."""
    return words(round(1 / value, 6))


def less(one: int) -> Callable[[int], str]:
    """Return a number that is smaller than the constant by so many."""
    return lambda value: digits(value - one)


def more(one: int) -> Callable[[int], str]:
    """Return a number that is larger than the constant by so many."""
    return lambda value: digits(value + one)


def scaled(by: float, form: Callable[[Any], str] = digits) -> Callable[[float], str]:
    """Return the constant in a unit of so many."""
    return lambda value: form(value / by if value % by else int(value // by))


def counted(value: Any) -> str:
    """Return how many there are, in words."""
    return words(len(value))


def milliseconds(value: float) -> str:
    """Return "a millisecond", or how many."""
    return "a millisecond" if value == 0.001 else f"{value * 1000:g} milliseconds"


def bare_milliseconds(value: float) -> str:
    """Return "millisecond", or how many."""
    return milliseconds(value).removeprefix("a ")


# The numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """A number on a page.

    Attributes:
        page: its path in the repository.
        text: the words around the number, which stands for ``{}``.
        source: the constant, ``module:name``; a name may lead on, through attributes, keys and positions.
        form: how the constant's value is written.
    """

    page: str
    text: str
    source: str
    form: Callable[[Any], str] = digits

    @property
    def value(self) -> Any:
        """The constant's value now."""
        module, _, path = self.source.partition(":")
        if module == "pyproject.toml":
            found: Any = tomllib.loads((ROOT / module).read_text("utf-8"))
        else:
            found = import_module(module)
        for name in path.split("."):
            found = _part(found, name)
        return found

    def text_with(self, value: Any) -> str:
        """Return the words with a value in them."""
        return " ".join(self.text.replace("{}", self.form(value)).split())


def _part(of: Any, name: str) -> Any:
    if isinstance(of, Mapping):
        return of[name]
    return of[int(name)] if name.isdigit() else getattr(of, name)


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, str):
        return re.sub(r"\d+", lambda found: str(int(found[0]) + 1), value) if re.search(r"\d", value) else value + "x"
    if isinstance(value, int | float):
        return value * 2 + 1
    return [*value, "another"]


def _on(page: str, *rows: tuple[Any, ...]) -> Iterator[Held]:
    return (Held(page, *row) for row in rows)


_LOCMEM: Final = "storeroom.backends.locmem:LocMemCache.options"
_FILES: Final = "storeroom.backends.filebased"
_DB: Final = "storeroom.backends.db"
_MEMCACHED: Final = "storeroom.backends.memcached"
_REDIS: Final = "storeroom.backends.redis"
_EMBEDDED: Final = "storeroom.registry.sources:_EMBEDDED_OPTIONS"
_POLL: Final = "storeroom.computing.stampede:POLL_SECONDS"
_LEASE: Final = "storeroom.computing.stampede:LEASE_SECONDS"
_FLIGHT: Final = "storeroom.engines.flights:FLIGHT_SECONDS"
_WORKERS: Final = "storeroom.engines.background"
_FAILURES: Final = "storeroom.storage.outages:FAILURES"
_PAUSE: Final = "storeroom.storage.outages:PAUSE_SECONDS"
_COMPRESS_MIN: Final = "storeroom.serializers.options:DEFAULT_COMPRESS_MIN_BYTES"
_PAYLOADS: Final = "tests.faults.test_hostile_values:PAYLOADS"
_PYPROJECT: Final = "pyproject.toml:project"

HELD: Final = (
    *_on(
        "README.md",
        ("with `python3` ({} or newer)", f"{_PYPROJECT}.requires-python", release),
        ("Storeroom has {} dependencies:", f"{_PYPROJECT}.dependencies", counted),
    ),
    *_on(
        "docs/outages.md",
        ("**After {} failures in a row the circuit breaker opens.**", _FAILURES, words),
        ("**Once {} one operation is let through.**", _PAUSE, each("second")),
        ("it is tried again every {} s.", _PAUSE),
        ("its transaction after {} seconds of silence,", f"{_DB}.database:IDLE_SECONDS"),
        ("Both timeouts are {} second by default.", f"{_REDIS}:RedisCache.options.socket_timeout.default", words),
    ),
    *_on(
        "docs/stats.md",
        ("sampled beyond {} misses or writes", "storeroom.engines.counts:_EXACT", plain),
    ),
    *_on(
        "docs/monitoring.md",
        ("that were heard of within {} |", "storeroom.base.sharing:HEARD_SECONDS", span("hour", 3600)),
        ("entries are evicted within {} than half", "storeroom.engines.storms:WINDOW_SECONDS", span("minute", 60)),
        ("once {} at the most,", "storeroom.engines.storms:WINDOW_SECONDS", span("minute", 60)),
        ("down to once {}.", "storeroom.engines.storms:_LONGEST_PAUSE", span("hour", 3600)),
    ),
    *_on(
        "docs/timeouts.md",
        ("the alias's `TIMEOUT`; {} seconds unless configured", "storeroom.config.settings:DEFAULT_TIMEOUT_SECONDS"),
    ),
    *_on(
        "docs/eviction.md",
        ("| `max_entries` | {} |", f"{_LOCMEM}.max_entries.default"),
        ("the one without a configuration, keeps {} entries", f"{_EMBEDDED}.max_entries"),
        ("entries and {}.", f"{_EMBEDDED}.max_bytes", spaced),
        ("what Python tells of the objects, and {} bytes;", "storeroom.eviction.bounded_map:ENTRY_BYTES"),
        ("in files {} bytes;", f"{_FILES}.records:_ENTRY_BYTES", more(LETTER)),
        ("in a [database](backends/db.md#bytes) {}.", f"{_DB}.rows:ROW_BYTES"),
        ("Files evict up to a {} of the entries", f"{_FILES}.choosing:_PART", ordinal),
        ("at once, and {} at most;", f"{_FILES}.choosing:_AT_ONCE"),
        ("one entry in {}, and", f"{_FILES}.choosing:_FEW"),
        ("then one in {} goes, or,", f"{_FILES}.choosing:_NARROW"),
        ("with room for {} entries or more,", f"{_DB}.transaction:_LARGE"),
        ("or for {} or more,", f"{_DB}.transaction:_LARGE_BYTES", size),
        ("evicts {} at most beyond the need.", f"{_DB}.transaction:_BATCH"),
    ),
    *_on(
        "docs/tags.md",
        ('`OPTIONS["max_tags"]`, {} unless said otherwise,', f"{_LOCMEM}.max_tags.default"),
        ("A version lives at least {},", "storeroom.storage.tags:SHORTEST_LIFE", minutes),
    ),
    *_on(
        "docs/concurrency.md",
        ("in databases, up to {} keys and 4 MiB, and", f"{_DB}.comparing:_STEP_ROWS"),
        ("2,000 keys and {}, and on files", f"{_DB}.comparing:_STEP_BYTES", size),
        ("up to {} keys and 4 MiB;", f"{_FILES}.table:LOOKS"),
        ("500 keys and {}; more", f"{_FILES}.transactions:_STEP_BYTES", size),
        ("holds a *lease* of {} seconds in the entry", _LEASE),
        ("A computation that takes longer than {} seconds may run", _FLIGHT),
        ("look again, at least {} times a second,", f"{_POLL}.1", per_second),
    ),
    *_on(
        "docs/stampedes.md",
        ("the others wait until the lease ends, at most {} seconds", _LEASE),
        ("the computation hangs, or takes longer than {} seconds", _FLIGHT),
        ("The lease lasts {} seconds.", _LEASE),
        ("has taken {}. A computation that is over", _FLIGHT),
        ("The others look again, first after {},", f"{_POLL}.0", milliseconds),
        ("then less often, but at least {} times a second.", f"{_POLL}.1", per_second),
    ),
    *_on(
        "docs/stale.md",
        ("| `retry_pause` | {} s |", "storeroom.config:COMMON_OPTIONS.retry_pause.default"),
        ("for loops that are younger than {} seconds", "storeroom.computing.serving:SETTLED_SECONDS"),
        ("after {} seconds: the next caller begins another", _FLIGHT),
        ("has up to {} background threads", f"{_WORKERS}:MAX_WORKERS"),
        ("their result: up to {}, so that", f"{_WORKERS}:MAX_THREADS"),
        ("ends waits {} at most for its refreshes.", "storeroom.engines.background:EXIT_SECONDS", fraction("second")),
    ),
    *_on(
        "docs/locks.md",
        ("A count lives for {} days", "storeroom.base.locks:_FENCE_SECONDS", scaled(86_400)),
    ),
    *_on("docs/cached.md", ("`timeout`, {} seconds by default;", "storeroom.config.settings:DEFAULT_TIMEOUT_SECONDS")),
    *_on("docs/memo.md", ("`storeroom.memo(max_entries={})`", "storeroom.memos:MAX_ENTRIES", plain)),
    *_on(
        "docs/serialization-and-trust.md",
        ("values of at least `compress_min_bytes`, {} by default", _COMPRESS_MIN, plain),
        ("a keyed hash (BLAKE2b, {} bits)", "storeroom.serializers.signatures:_SIGNATURE_SIZE", scaled(1 / 8)),
        ("A secret has at least {} random bytes:", "storeroom.serializers.signatures:MIN_SECRET_LENGTH"),
        ("The tests put {} payloads into each server", _PAYLOADS, thousands),
    ),
    *_on(
        "docs/tiers.md",
        ("`max_staleness` ({} s) after the last moment", "storeroom.config:NEAR_OPTIONS.max_staleness.default"),
        ("{} within the bound the process asks", f"{_REDIS}.tracking:PINGS_PER_BOUND", times),
        ("It is asked again every {}.", "storeroom.near.listening:REFUSED_SECONDS", minutes),
    ),
    *_on(
        "docs/testing.md",
        ("- `sequences`, {}:", "storeroom.testing:CacheContract.sequences"),
        ("- `crowd`, {}:", "storeroom.testing:CacheContract.crowd"),
        ("- `moment`, {}:", "storeroom.testing:CacheContract.moment", plain),
    ),
    *_on(
        "docs/configuration.md",
        ("It keeps up to {} entries", f"{_EMBEDDED}.max_entries"),
        ("entries and {}. It belongs", f"{_EMBEDDED}.max_bytes", spaced),
        ("each process keeps up to {} entries", "storeroom.registry.sources:_MEMORY_OPTIONS.max_entries"),
        ("entries and {} in its memory", "storeroom.registry.sources:_MEMORY_OPTIONS.max_bytes", spaced),
    ),
    *_on(
        "docs/cli.md",
        ("the longest wait for each server, {} by default.", "storeroom.checks:PATIENCE"),
        ("| {} | done; yes |", "storeroom.cli.exits:YES"),
        ("| {} | no |", "storeroom.cli.exits:NO"),
        ("| {} | a mistake in the command or in the configuration |", "storeroom.cli.exits:MISTAKE"),
        ("| {} | the storage failed, or cannot do this |", "storeroom.cli.exits:FAILED"),
        ("| {} | interrupted by Ctrl-C |", "storeroom.cli.exits:INTERRUPTED"),
        ("| {} | the reader of the output has gone |", "storeroom.cli.exits:NO_READER"),
    ),
    *_on(
        "docs/common-mistakes.md",
        ("Storeroom needs Redis {} or any Valkey,", f"{_REDIS}.probe:_OLDEST", plain),
        ("or any Valkey, Memcached {},", f"{_MEMCACHED}.probe:_OLDEST", plain),
        ("PostgreSQL {}, MariaDB", f"{_DB}.probe:_VENDORS.postgresql.oldest", plain),
        ("MariaDB {}, MySQL", f"{_DB}.probe:_OLDEST_MARIADB", plain),
        ("MySQL {}, or SQLite", f"{_DB}.probe:_VENDORS.mysql.oldest", plain),
        ("or SQLite {}.", f"{_DB}.probe:_OLDEST_SQLITE", plain),
        ("A timeout of more than {} days counts as very", "storeroom.checks.entries:LONG_SECONDS", scaled(86_400)),
        ("MAX_ENTRIES of a file cache is left at {} |", f"{_LOCMEM}.max_entries.default"),
        ("{} entries is Django's default for every backend, and Storeroom's, too.", f"{_LOCMEM}.max_entries.default"),
        ("The check times {} round trips", "storeroom.storage.probes:ROUND_TRIPS", words),
        ("more than {} ms is slow.", "storeroom.checks.servers:SLOW_SECONDS", lambda value: f"{value * 1000:.1f}"),
    ),
    *_on(
        "docs/backends/filebased.md",
        ("`storeroom-{}/data.mdb`", f"{_FILES}.environment:FORMAT", lambda name: name.removeprefix("storeroom-")),
        ("what eviction and expiry know of the entries: {} bytes each", f"{_FILES}.slotfile:_SLOT_BYTES"),
        ("and {} bytes for record and slot.", f"{_FILES}.records:_ENTRY_BYTES", more(LETTER)),
        ("key and value together, counts for {}:", f"{_FILES}.records:_ENTRY_BYTES", more(LETTER + 24 + 1)),
        ("`data.mdb` took between one and {} times `max_bytes`", f"{__name__}:FILE_TIMES", words),
        ("If you say nothing, {} entries are kept", f"{_FILES}:FileBasedCache.options.max_entries.default"),
        ("Only the cache that you get without any configuration is larger: {} entries", f"{_EMBEDDED}.max_entries"),
        ("is larger: 100,000 entries and {}.", f"{_EMBEDDED}.max_bytes", spaced),
        ("size that the file can reach, {} unless said otherwise.", f"{_FILES}.environment:MAP_BYTES", size),
        ("Of a file of more than {},", f"{_FILES}.files:VERIFY_BYTES", size),
        ("(mode {},", f"{_FILES}.folder:_PRIVATE", octal),
        ("they notice within about {},", f"{_FILES}.environment:CHECK_SECONDS", each("second")),
        ("those on many keys included, up to {} keys", f"{_FILES}.table:LOOKS"),
        ("500 keys and {}. Larger ones", f"{_FILES}.transactions:_STEP_BYTES", size),
        ("`keys()` reads {} entries at once.", f"{_FILES}.table:LOOKS"),
        ("| {} of the disk,", f"{_FILES}.room:BALLAST_BYTES", size),
        ("its other writes leave {} pages alone", f"{_FILES}.room:PAGES"),
    ),
    *_on(
        "docs/backends/db.md",
        ("for a key of more than {} bytes its beginning, and a hash", f"{_DB}.rows:KEY_BYTES", less(1)),
        ("with one byte that tells the form; {} for an integer,", f"{_DB}.rows:_NUMBER_BYTES"),
        ("- and {} bytes for its row.", f"{_DB}.rows:ROW_BYTES"),
        ("An entry of 24 bytes, key and value together, counts for {}.", f"{_DB}.rows:ROW_BYTES", more(24 + 1)),
        ("with fractions; 10^{} for never", f"{_DB}.rows:ENDLESS", exponent),
        ("are atomic as a whole up to {} keys and", f"{_DB}.comparing:_STEP_ROWS"),
        ("2,000 keys and {}. Larger ones", f"{_DB}.comparing:_STEP_BYTES", size),
        ("It removes {} rows in one transaction", f"{_DB}.clearing:STEP"),
        ("A write that needs room evicts {} entries at most beyond its need,", f"{_DB}.transaction:_BATCH"),
        ("and notes {} reads at most.", f"{_DB}.engine:_RENEWED"),
        ("A statement takes {} keys of a list", f"{_DB}.statements:_CHUNK"),
        ("Once {} a write looks for expired entries.", f"{_DB}.engine:_LOOK_SECONDS", each("second")),
        ("It looks every {} whether the file is free.", f"{_DB}.engine:_BUSY_SECONDS", bare_milliseconds),
        ("Reads of up to {} keys from a SQLite file", f"{_DB}:_FEW"),
        ("The cache needs SQLite {},", f"{_DB}.probe:_OLDEST_SQLITE", plain),
        ("PostgreSQL {}, MariaDB", f"{_DB}.probe:_VENDORS.postgresql.oldest", plain),
        ("MariaDB {} or MySQL", f"{_DB}.probe:_OLDEST_MARIADB", plain),
        ("or MySQL {}, or newer versions.", f"{_DB}.probe:_VENDORS.mysql.oldest", plain),
    ),
    *_on(
        "docs/backends/redis.md",
        ("take several, in steps of {} keys,", f"{_REDIS}.listing:_SCAN_COUNT", plain),
        ("for `read_own_writes` seconds ({} by default)", f"{_REDIS}.options:DEFAULT_READ_OWN_WRITES"),
        ("in `replica_max_lag` seconds ({} by default)", f"{_REDIS}.options:DEFAULT_REPLICA_MAX_LAG"),
        ("the map is asked for anew, {} s later at most", f"{_REDIS}.topology:Cluster.PAUSE_SECONDS"),
        ("one that hangs costs a read `socket_timeout`, every {} s at most", f"{_REDIS}.replicas:Replicated.REST"),
        ("The cache needs Redis {} or newer,", f"{_REDIS}.probe:_OLDEST", release),
    ),
    *_on(
        "docs/django-admin.md",
        ("the first {}, and the number of all", "storeroom.integrations.django.entries:MOST_SHOWN"),
        ("of the day before one each {}", "storeroom.integrations.django.history:_COARSE_SECONDS", minutes),
    ),
    *_on(
        "docs/backends/memcached.md",
        ("a host, with port {} by default", f"{_MEMCACHED}.location:DEFAULT_PORT", plain),
        ("Other processes see it within {} second.", f"{_MEMCACHED}.engine:FRESH_SECONDS", words),
        ("of up to {} characters, is readable on the server.", f"{_MEMCACHED}.server_keys:_LONGEST", plain),
        ("| 1 for {} keys, on each server |", f"{_MEMCACHED}.clients:BATCH", plain),
        ("`get_many` takes one round trip for {} of requests", f"{_MEMCACHED}.pylibmc_client:_BINARY_READ_MAX", size),
        ("From the {} failure in a row on,", _FAILURES, ordinal),
        ("each operation runs in one of {} threads", f"{_MEMCACHED}.engine:WORKERS"),
    ),
)  # fmt: skip
"""All numbers that are held."""
