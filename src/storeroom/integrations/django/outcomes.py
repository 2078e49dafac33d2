"""The outcome of one call of a cache, for the panel of the debug toolbar."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from storeroom.integrations.django.entries import shown
from storeroom.integrations.django.handles import Call
from storeroom.near import NearOverlay, NearTable

__all__ = ["METHODS", "Outcome", "Watched"]

METHODS: Final = (
    "get", "get_many", "has_key", "ttl", "get_or_set", "get_or_set_many", "refresh",
    "set", "set_many", "add", "touch", "expire_at", "incr", "decr", "incr_version", "decr_version",
    "delete", "delete_many", "invalidate_tags", "clear",
)  # fmt: skip
"""The methods whose calls are told, with their asynchronous twins."""

_MOST_NAMES: Final = 20
_MOST_LETTERS: Final = 200

_ABSENT: Final = object()
"""The default of get() while it is watched: a value that nobody stores."""

_CHANGES: Final = {
    **dict.fromkeys(("set", "set_many", "incr", "decr", "incr_version", "decr_version"), "stored"),
    **dict.fromkeys(("clear", "invalidate_tags", "delete_many"), "removed"),
}
"""Method -> the word for what it has done, where its answer does not tell."""

_ANSWERED: Final = {
    "add": ("stored", "there already"), "delete": ("removed", "not there"), "touch": ("renewed", "not there"),
    "expire_at": ("renewed", "not there"),
}  # fmt: skip
"""Method -> the words for True and for False."""


@dataclass(slots=True)
class Outcome:
    """A call: plain data, as the toolbar stores it.

    Attributes:
        alias: that of the cache.
        backend: the name of its class.
        method: without the "a" of an asynchronous one.
        is_async: whether it was one.
        keys: the first of them, as text.
        more_keys: the number of the others.
        tags: those that were given.
        result: a word: "hit", "miss", "stale", "computed", "waited", "stored", "removed", or the name of an error.
        milliseconds: that it took.
        hits: keys whose values were found, stale ones too.
        misses: keys whose values were not.
        stale: values that were served after their time.
        computed: values that were computed by this call.
        waited: values that another caller computed.
        near: values that were in this process's memory before the storage.
    """

    alias: str
    backend: str
    method: str
    is_async: bool
    keys: list[str]
    more_keys: int
    tags: list[str]
    milliseconds: float
    result: str = ""
    hits: int = 0
    misses: int = 0
    stale: int = 0
    computed: int = 0
    waited: int = 0
    near: int = 0


class Watched:
    """A call that is watched: the counts of the cache before it, and its outcome after it.

    Found or not is told by the answer. Whether a value was stale, waited for, or near is told by the counts of this
    process: where two requests run at once, one may be told of the other's.
    """

    def __init__(self, cache: Any, alias: str, method: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._cache, self._alias = cache, alias
        name = method.__name__
        self._is_async = name not in METHODS
        self._name = name.removeprefix("a") if self._is_async else name
        self.call = Call(cache, method, args, kwargs)
        if self._name == "get":
            self._default = self.call.given.get("default")
            self.call.given["default"] = _ABSENT
        self._near = _near_table(cache)
        self._before = self._counts()

    def answer(self, value: Any) -> Any:
        """Return the answer for the caller."""
        return self._default if value is _ABSENT else value

    def outcome(self, value: Any, seconds: float, error: str) -> Outcome:
        """Return the outcome, by what the method itself has returned."""
        keys, tags = _texts(self.call.keys), _texts(_tags(self.call.given.get("tags", ())))
        made = Outcome(
            self._alias, type(self._cache).__name__, self._name, self._is_async, keys[:_MOST_NAMES],
            max(0, len(keys) - _MOST_NAMES), tags[:_MOST_NAMES], 1000 * seconds,
        )  # fmt: skip
        grown = [now - before for now, before in zip(self._counts(), self._before, strict=True)]
        if not error:
            self._read(made, value, grown)
        near_hits, near_misses = grown[-2:]
        made.near = min(made.hits, near_hits) if not near_misses or self._name.endswith("many") else 0
        made.result = error or _word(made, value)
        return made

    def _read(self, made: Outcome, value: Any, grown: list[int]) -> None:
        stale, waited, computed, misses, *_ = grown
        if self._name in {"get", "has_key", "ttl"}:
            is_there = value is not _ABSENT if self._name == "get" else bool(value) or value is None
            made.hits, made.misses = int(is_there), int(not is_there)
        elif self._name == "get_many":
            made.hits, made.misses = len(value), len({*map(str, self.call.keys)}) - len(value)
        elif self._name == "get_or_set":
            made.stale = min(1, stale)
            made.computed = int(self.call.is_computed and not stale)
            made.waited = int(not made.computed and not stale and waited > 0)
            made.misses = made.computed or made.waited
            made.hits = 1 - made.misses
        elif self._name == "get_or_set_many":
            made.stale, made.computed, made.waited, made.misses = stale, computed, waited, misses
            made.hits = max(0, len({*map(str, self.call.keys)}) - misses)
        elif self._name == "refresh":
            made.computed = 1

    def _counts(self) -> tuple[int, ...]:
        own, near = self._cache._counters, self._near
        of_near = (0, 0) if near is None else (near.counters.hits + near.direct_hits, near.counters.misses)
        # A file cache hands its counts over to all processes' now and then, and begins at zero.
        counted = (getattr(own, name) + own.handed.get(name, 0) for name in ("stale", "waited", "computed", "misses"))
        return *counted, *of_near


def _word(made: Outcome, value: Any) -> str:
    """Return the result of a call that raised nothing, in a word."""
    if made.method in _ANSWERED:
        return _ANSWERED[made.method][0 if value else 1]
    if made.method in _CHANGES:
        return _CHANGES[made.method]
    if made.hits + made.misses > 1:
        return f"{made.hits} of {made.hits + made.misses}"
    return next(
        (name for name in ("stale", "computed", "waited") if getattr(made, name)), "hit" if made.hits else "miss"
    )


def _tags(given: Any) -> Iterable[Any]:
    """Return the names; those of one call may be a text alone."""
    return (given,) if isinstance(given, str) else tuple(given)


def _texts(names: Iterable[Any]) -> list[str]:
    return [shown(str(name)[:_MOST_LETTERS]) for name in names]


def _near_table(cache: Any) -> NearTable | None:
    """Return the memory before the storage of a handle, if there is one."""
    overlay = vars(cache).get("_overlay")
    while overlay is not None and not isinstance(overlay, NearOverlay):
        overlay = getattr(overlay, "_below", None) if overlay is not cache else None
    return None if overlay is None else overlay.table
