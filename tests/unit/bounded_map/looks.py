"""All that there is in a bounded map, to be compared with another one."""

from typing import Any

from storeroom.eviction import BoundedMap

_ENTRY = ("key", "value", "encoded", "expires_at", "size", "freq", "queue", "indexed")
_POLICY = ("_small", "_proven", "_filling", "_passing")
_INDEX = ("due", "_last", "_room", "_pushed")
_MAP = ("evictions", "expirations", "bytes_used", "_is_torn", "_doomed", "_visible")
_GHOSTS = ("_evicted", "_known", "_room", "recent", "previous")


def _read(owner: Any, names: tuple[str, ...]) -> list[Any]:
    """Return attributes: numbers with their types, and floats to the last bit."""
    values = [getattr(owner, name) for name in names]
    return [repr(value) if type(value) in {int, float} else value for value in values]


def numbers_of(bounded: BoundedMap) -> Any:
    """Return a map's keys in their order, its counts, and the numbers of the policy, the share and the index."""
    policy = bounded._policy
    owners = [(bounded, _MAP), (policy, _POLICY), (policy.share, policy.share.__slots__), (bounded.index, _INDEX)]
    return list(bounded.entries), [_read(*owner) for owner in owners], len(bounded.dropped)


def contents_of(bounded: BoundedMap) -> Any:
    """Return all else: entries, and in which order they stand in the queues and in the index, and the ghosts."""
    index = bounded.index
    queues = [[(entry.key, entry.queue) for entry in queue] for queue in bounded._policy.queues]
    positions = [[(when, it.key, repr(it.indexed)) for when, it in zip(*pair, strict=True)] for pair in index._queues]
    heaps = [[(when, number, entry.key) for when, number, entry in heap] for heap in index._heaps]
    entries = [_read(entry, _ENTRY) for entry in bounded.entries.values()]
    return entries, queues, positions, heaps, _read(bounded._policy.ghosts, _GHOSTS), list(bounded.dropped)
