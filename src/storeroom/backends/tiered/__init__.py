"""A cache of several tiers: this process's memory before a storage that is farther away.

``OPTIONS["tiers"]`` names them, nearest first. The last is the storage; the others hold entries that were read from
it. ``near`` keeps them from serving changed ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from storeroom import config, timeouts
from storeroom.backends.locmem.hot_path import hasten_tiers, hot
from storeroom.backends.tiered.middle import MiddleTier
from storeroom.backends.tiered.tiers import Tier, check_tiers, opening, parse, tiers_of
from storeroom.base import BaseCache
from storeroom.base.backend_class import declared_as
from storeroom.base.sharing import share
from storeroom.engines.counts import total
from storeroom.engines.families import Families
from storeroom.engines.stats import CacheStats
from storeroom.eviction import ENCODED, MOST_HITS
from storeroom.exceptions import ConfigurationError
from storeroom.near import NearOverlay, NearTable, table_of
from storeroom.storage import conditions
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.overlay import Relay
from storeroom.storage.steps import arun, run

__all__ = ["TieredCache"]

_INHERITED: Final = ("timeout", "key_prefix", "version", "key_function")
"""The settings that are the last tier's where the alias does not give them."""


_OF_STORAGE: Final = (
    "evictions", "expirations", "busy", "dropped", "recovered", "breaker_openings", "connection_waits",
    "connection_wait_seconds", "bytes_read", "bytes_written", "round_trips", "round_trip_seconds",
)  # fmt: skip
"""The counts of the last tier that are those of the whole: of what happens there alone."""


class TieredCache(Relay, BaseCache):
    """A cache of several tiers.

    Atomic: the same operations as in the last tier, where all changes are made. Hits in the first take no lock.

    TIMEOUT, KEY_PREFIX, VERSION and KEY_FUNCTION are the last tier's unless they are given, so that its own alias has
    the same entries. Only the bounds count of a first tier that is local memory: its entries are this cache's.

    Raises:
        ConfigurationError: a setting is wrong, or a tier cannot be at its position.
    """

    # These are read by the compiled get().
    __slots__ = ("_below", "_head", "_near", "_near_entries")

    options: ClassVar[Mapping[str, config.Option] | None] = {
        "tiers": config.Option(
            parse, (), "The tiers, nearest first, by their aliases; each may also be a dict as of an alias."
        ),
        "max_staleness": config.MAX_STALENESS,
    }
    check_aliases = staticmethod(check_tiers)

    _shares_counts = False  # not by the storage's counters
    _handles: tuple[BaseCache, ...] = ()

    def __init__(self, location: str, params: Mapping[str, Any]) -> None:
        own = config.read_params(params, self.options, backend=type(self).__name__)
        if own.options["near"] is not None:
            raise ConfigurationError(
                "OPTIONS has 'near' and 'tiers'; the first tier is the near one already: set its bounds there."
            )
        self._names = tiers_of(own.options["tiers"])
        last = self._names[-1].alias.settings
        given = {"TIMEOUT" if name == "timeout" else name for name in params}
        inherited = {name.upper(): getattr(last, name) for name in _INHERITED if name.upper() not in given}
        super().__init__({**params, **inherited})
        self._handles = tuple(self._open(tier) for tier in self._names)
        self._storage = self._handles[-1]
        policy = {"on_error": self._storage.settings.options.get("on_error")}  # get_or_set() asks for it
        self.settings = replace(self.settings, options={**self.settings.options, **policy})
        self._near = self._table(self._names[0])
        self._near_entries = self._near.entries
        self.engine, self._counters = self._storage.engine, self._near.totals
        patterns = self.settings.options["families"]
        self._families = None if patterns is None else Families(patterns, self._counters)
        self._below = self._overlay = NearOverlay(self, self._behind(), lambda: self._near)
        self._record(self._below)
        # The same as of the storage, where all changes are made.
        self.async_inline = self._below.async_inline
        self.is_shared = self._below.is_shared
        self.sees_envelopes = self._below.sees_envelopes
        self._hit_families = None  # a hit is near, as a rule
        if self.settings.options["shared_stats"] and self.is_shared:
            share(self)

    def _open(self, tier: Tier) -> BaseCache:
        """Return a handle of a tier that has this cache's keys."""
        own = {
            "TIMEOUT": self.default_timeout,
            "KEY_PREFIX": self.key_prefix,
            "VERSION": self.version,
            "KEY_FUNCTION": self.key_func,
        }
        written = {name: value for name, value in tier.alias.params.items() if name != "timeout"}
        if self._remembers and tier is self._names[-1]:
            options = {name.lower(): value for name, value in (written.get("OPTIONS") or {}).items()}
            written["OPTIONS"] = {"removals": self._remembers, **options}
        with opening(tier):
            return replace(tier.alias, params={**written, **own}).build()

    def _table(self, first: Tier) -> NearTable:
        bounds = first.alias.settings.options if first.is_memory and first.alias.settings else {"max_entries": 0}
        options = {name: bounds.get(name, option.default) for name, option in config.NEAR_OPTIONS.items()}
        return table_of(self._storage.engine, options | {"max_staleness": self.settings.options["max_staleness"]})

    def _behind(self) -> StorageHooks:
        """Return the hooks of the tiers behind the near one."""
        hooks: StorageHooks = self._storage._noting()
        first = 1 if self._names[0].is_memory else 0
        for handle in reversed(self._handles[first:-1]):
            hooks = MiddleTier(self, handle, hooks, self.settings.options["max_staleness"])
        return hooks

    def _learn_keys(self) -> None:
        super()._learn_keys()
        for handle in self._handles:
            handle.key_prefix, handle.version = self.key_prefix, self.version

    def _names_of(self, storage_key: str) -> Sequence[object]:
        return self._storage._names_of(storage_key)

    def _dropped_write(self, storage_key: str) -> bool:
        return self._storage._dropped_write(storage_key)

    def _stand_in(self) -> Any:
        return self._storage._stand_in()

    def _locking(self) -> StorageHooks:
        return self._storage._locking()

    def _freeze(self, storage_key: str, value: Any) -> Any:
        return self._storage._freeze(storage_key, value)

    def _thaw(self, storage_key: str, kept: Any) -> Any:
        return self._storage._thaw(storage_key, kept)

    # The hot path: a hit is written out, as a call costs as much as all the rest of it
    # (benchmarks: "tiered hit").

    @declared_as(BaseCache.get)
    @hot
    def get(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. A hit in memory takes no lock."""
        if version is None and self._head is not None and self._overlay is self._below:
            near = self._near
            entry = self._near_entries.get(f"{self._head}{key}")
            if entry is not None:
                now = timeouts.uptime()
                if entry.expires_at > now < near.trusted_until:
                    freq = entry.freq
                    if freq < MOST_HITS:
                        entry.freq = freq + 1
                    value = entry.value
                    if value is ENCODED:
                        value = near.decoded(entry)
                        if value is MISSING:
                            return BaseCache.get(self, key, default, version)
                        if type(value) is Envelope:
                            return self._enveloped(key, value, default)
                    near.direct_hits += 1
                    return value
            self._near_entries = near.entries
        return BaseCache.get(self, key, default, version)

    def _enveloped(self, key: object, envelope: Envelope, default: Any) -> Any:
        self._near.counters.hits += 1
        return self._counted(key, run(conditions.opened(self._below, envelope)), default)

    @declared_as(BaseCache.aget)
    async def aget(self, key: object, default: Any = None, version: int | None = None) -> Any:
        """Return the value stored under the key, or `default` if there is none. See get()."""
        if self._overlay is self._below:
            value = self._near.peek(self._storage_key(key, version))
            if value is not MISSING:
                if type(value) is Envelope:
                    value = await arun(conditions.opened(self._below, value))
                return self._counted(key, value, default)
        return await BaseCache.aget(self, key, default, version)

    def _counted_here(self) -> dict[str, Any]:
        """Return the counts of this cache in this process, and of its storage what happens there alone."""
        return self._counted_with(self._storage.stats())

    def _counted_by_this_process(self) -> dict[str, Any]:
        storage = self._storage
        return self._counted_with(storage._counted_stats(storage._counted_by_this_process(), entries=None, bytes=None))

    def _counted_with(self, storage: CacheStats) -> dict[str, Any]:
        near = self._near.stats()
        more = {"hits": self._near.direct_hits, "errors": storage.errors + near.errors}
        latency = {f"{bound:g}": number for bound, number in storage.latency.items()}
        own = total(self._counters.as_dict(), more)
        return own | {name: getattr(storage, name) for name in _OF_STORAGE} | {"latency": latency}

    def _tiers(self) -> dict[str, CacheStats]:
        storage = self._storage.stats()
        far = self._near.far_stats(storage.entries, storage.bytes)
        tiers = [handle.stats() for handle in self._handles[:-1]]
        if self._names[0].is_memory:
            tiers[0] = self._near.stats()
        return dict(zip((tier.name for tier in self._names), [*tiers, far], strict=True))

    def _check_invariants(self) -> None:
        """Raise AssertionError if the near tier or the storage is not as it should be: for tests."""
        self._near.check_invariants()
        if check := getattr(self._storage, "_check_invariants", None):
            check()


hasten_tiers(TieredCache, NearTable)
