"""The handle: the settings of a cache, the storage keys that its keys become, the expiry of its entries.

The first floor of BaseCache: every operation asks it before it turns to the storage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from storeroom import config, storage, timeouts, wording
from storeroom.base.backend_class import page, seen_through
from storeroom.engines import Engine
from storeroom.engines.counts import Counters
from storeroom.engines.families import Families
from storeroom.keys import CLEARED, KeySpace, check_version, default_key_func, escaped
from storeroom.storage.hooks import StorageHooks, overlaid
from storeroom.timeouts import DEFAULT_TIMEOUT, LONGEST_TIMEOUT, NEVER, NUMBERS, Timeout

if TYPE_CHECKING:
    from storeroom.engines.stats import CacheStats

__all__ = ["Handle"]

T = TypeVar("T")


@overlaid
class Handle(StorageHooks):
    """The settings of a cache, its storage keys and expiry times."""

    options: ClassVar[Mapping[str, config.Option] | None] = {}

    _overlay: StorageHooks | None
    """The overlay between this handle and its own hooks, if there is one: see ``storage.overlay``. Of the instance, and
    not of the class too, which Python 3.11 would look up more slowly: every operation asks for it."""

    _recording: Any
    """The overlay that records the traffic, where ``OPTIONS["advise"]`` asks for that; else None. Of each instance:
    one more than the others have, or more than 30, makes every attribute slower (a hit in memory by an eighth)."""

    _engine: Any
    """The engine, to a backend's own code, which knows its kind."""

    _counters: Counters
    """The engine's."""

    notes_removals: ClassVar[bool] = False
    """Whether the engine itself notes the removals that this process makes, evictions and expirations among them."""

    _families: Families | None
    """The families of this handle's keys; None where they are not told apart."""

    _shares_counts: ClassVar[bool] = True
    """Whether the counts of all processes come together by an entry of each, where that is asked for."""

    _publishes = False
    """Whether they do."""

    _hit_families: Families | None = None
    """The same, where a look at a hit's family is short beside the hit: not in this process's memory."""

    hastens: ClassVar[Callable[..., object] | None] = None
    """Makes calls of @cached's functions faster, given their two classes, and those of their counts, of `caches` and of
    its configuration."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let the constructor of a class name the mistake if it does not call this one's."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            init: Any = seen_through(vars(cls)["__init__"], cls.__name__)
            setattr(cls, "__init__", init)  # noqa: B010 -- mypy knows no assignment to it

    def __init__(self, params: Mapping[str, Any], *others: object) -> None:
        """Read the alias's settings.

        Raises:
            ConfigurationError: a setting is unknown or wrong.
            TypeError: more than `params` was passed on.
        """
        if others or not isinstance(params, Mapping):
            raise TypeError(
                f"{type(self).__name__}.__init__(location, params) calls super().__init__() with other arguments; "
                f"expected super().__init__(params): see {page()}."
            )
        settings = config.read_params(params, self.options, backend=type(self).__name__)
        self._overlay = self._recording = None
        self.settings = settings
        self.default_timeout = settings.timeout
        self._key_prefix = settings.key_prefix
        self._version: int = settings.version
        self.key_func = settings.key_function
        self.engine = Engine()
        self._freshness = config.freshness_of(settings.options)
        self._learn_keys()
        self._put_overlays(settings.options.get("transactional"), settings.options.get("near"))

    @property
    def _remembers(self) -> int:
        """The number of removals to remember."""
        return self.settings.options.get("removals", 0) if self.keeps_entries else 0

    def _noting(self) -> StorageHooks:
        """Return the hooks of this handle, with an overlay that notes removals where the storage does not."""
        if not self._remembers or self.notes_removals:
            return self
        noting: StorageHooks = import_module("storeroom.base.noting").NotingOverlay(self, self)
        return noting

    def _names_of(self, storage_key: str) -> Sequence[object]:
        """Return the names by which the engine remembers the removal of an entry."""
        return (storage_key,)

    def _stand_in(self) -> "Handle | None":
        """Return the cache that answers while the storage is out of reach, if there is one."""
        return None

    def _dropped_write(self, storage_key: str) -> bool:
        """Tell whether an outage has dropped a write of this process, so that the entry is not served any more."""
        return False

    def _put_overlays(self, transactional: str | bool | None, near: Mapping[str, Any] | None) -> None:
        if transactional:
            from storeroom.transactions import follow  # noqa: PLC0415 -- few caches do

            follow(transactional)
        if (below := self._noting()) is not self:
            self._overlay = below
        # Nothing is nearer than this process's own memory.
        if near is not None and self.is_shared:
            from storeroom.near import NearOverlay, table_of  # noqa: PLC0415 -- few caches have one

            self._overlay = NearOverlay(self, below, lambda: table_of(self.engine, near))
        self._record(self._overlay)

    def _lay(self, overlay: StorageHooks | None) -> None:
        """Lay an overlay over the storage, or take it away, while others use the handle."""
        self._overlay = overlay

    def _record(self, overlay: StorageHooks | None) -> None:
        """Record the traffic, if that is asked for, over the overlay that there is."""
        if self.settings.options.get("advise") and self.keeps_entries:
            self._recording = self._overlay = import_module("storeroom.recording").record(self, overlay)

    @property
    def engine(self) -> Engine:
        """The engine that all handles of the storage in this process share: the storage is known by it."""
        engine: Engine = self._engine
        return engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._engine, self._counters = engine, engine.counters
        engine.handles[id(self)] = self
        if self._remembers:
            engine.remember(self._remembers)
        options = self.settings.options
        patterns = options.get("families")
        self._families = None if patterns is None else Families(patterns, engine.counters)
        if engine.is_common and options.get("shared_stats") and self.is_shared and self._shares_counts:
            import_module("storeroom.base.sharing").share(self)  # few caches do
        self._hit_families = None if self.async_inline or options.get("near") is not None else self._families

    @property
    def key_prefix(self) -> str:
        """KEY_PREFIX of this cache."""
        return self._key_prefix

    @key_prefix.setter
    def key_prefix(self, key_prefix: str) -> None:
        self._key_prefix = key_prefix
        self._learn_keys()

    @property
    def version(self) -> int:
        """VERSION of this cache: the keys' version where none is passed."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        self._learn_keys()

    def _learn_keys(self) -> None:
        is_plain = (
            self.key_func is default_key_func
            and type(self).make_key is Handle.make_key
            and type(self).make_and_validate_key is Handle.make_and_validate_key
        )
        self._fixed_space = KeySpace(default_key_func, self._key_prefix) if is_plain else None
        # Where nothing customises the keys, making one is a single concatenation.
        validates = type(self).validate_key is not Handle.validate_key
        self._head = self._fixed_space.head(self._version) if self._fixed_space and not validates else None

    @property
    def _key_space(self) -> KeySpace:
        """The storage keys of this cache; learnt anew each time where a program's own function makes them.

        It may depend on the moment, on a tenant, for example.
        """
        return self._fixed_space or CLEARED.get() or self._learnt_space()

    def _learnt_space(self) -> KeySpace:
        return self._fixed_space or KeySpace(self._make, self._key_prefix)

    def _make(self, key: object, _prefix: str, version: int) -> str:
        if type(self).make_and_validate_key is Handle.make_and_validate_key:
            return self.make_key(key, version=version)
        return self.make_and_validate_key(key, version)

    @property
    def _key_maker(self) -> str:
        """The name, in errors, of the code that makes storage keys."""
        if self.key_func is default_key_func:
            return f"{type(self).__qualname__}.make_key()"
        return f"KEY_FUNCTION {getattr(self.key_func, '__qualname__', self.key_func)!r}"

    def make_key(self, key: object, version: int | None = None) -> str:
        """Return the storage key: by default ``KEY_PREFIX:VERSION:key``."""
        if version is None:
            version = self._version
        elif type(version) is not int:
            check_version(version)
        return self.key_func(key, self._key_prefix, version)

    def validate_key(self, key: str) -> None:
        """Accept the storage key: every string is valid.

        A hook for subclasses that want to refuse some, by raising InvalidCacheKey.
        """

    def make_and_validate_key(self, key: object, version: int | None = None) -> str:
        """Return the storage key, after validate_key() has seen it."""
        storage_key = self.make_key(key, version=version)
        self.validate_key(storage_key)
        return storage_key

    def _storage_key(self, key: object, version: int | None) -> str:
        if version is None and self._head is not None:
            return f"{self._head}{key}"
        return escaped(self.make_and_validate_key(key, version))

    def _storage_keys(self, keys: Iterable[T], version: int | None) -> dict[str, T]:
        """Return storage key to the key that the caller typed; raise TypeError for a single key."""
        if isinstance(keys, str | bytes | bytearray) or not hasattr(type(keys), "__iter__"):
            raise TypeError(f"keys is {wording.shown(keys)}; expected a list of keys, such as ['a', 'b'].")
        head = self._head
        if version is None and head is not None:
            typed: dict[str, T] = storage.batches.named(head, keys)
            return typed
        return {self._storage_key(key, version): key for key in keys}

    def _tiers(self) -> "dict[str, CacheStats]":
        """Return name to counts of each tier, for stats()."""
        near = vars(self).get("_overlay")
        return {} if near is None else near.tiers()

    def _count_miss(self, key: object) -> None:
        """Count a miss; a sample of them is looked at: see Sampled."""
        missed = self._counters.missed
        missed.number = number = missed.number + 1
        if number >= missed.due:
            self._sample_miss(key)

    def _sample_miss(self, key: object) -> None:
        self._pass_by()
        number = self._counters.missed.sample()
        if (families := self._families) is not None:
            families.of(key).misses += number

    def _pass_by(self) -> None:
        """Look whether somebody wants to know the counts, if that is due: called now and then, not by each hit."""
        if (moment := perf_counter()) >= self._counters.look_at:
            self._counters.look(moment)

    def _counted_deletes(self, deleted: int) -> int:
        self._counters.deletes += deleted
        return deleted

    def get_backend_timeout(self, timeout: Timeout = DEFAULT_TIMEOUT) -> float | None:
        """Return the epoch second at which an entry set now expires, or None for never."""
        expires_at = self._expires_at(timeout)
        return None if expires_at == NEVER else expires_at

    def _expires_at(self, timeout: Timeout) -> float:
        seconds: Any = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        if type(seconds) is str:
            seconds = timeouts.parse_words(seconds)
        if type(seconds) in NUMBERS and 0 < seconds < LONGEST_TIMEOUT:  # as in most writes
            return timeouts.now() + float(seconds)
        return NEVER if seconds is None else timeouts.expires_at(timeout, self.default_timeout)
