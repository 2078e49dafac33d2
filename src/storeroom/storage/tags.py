"""Tags: a name that many entries carry, so that one write invalidates all of them.

A tag has a *version*, 64 random bits, kept in an entry of its own. An entry remembers the versions that its tags had
when it was written, and is live while all of them are still the same. To invalidate a tag is to remove its version;
the next entry with that tag writes a new one. A version that was evicted or lost is the same as one that was removed:
entries become misses, never stale hits.

Versions are kept for as long as the entries that need them, apart from these, so that they evict none.

Source: the versions are those of "Cache tags" in Symfony and of dogpile's invalidation.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from storeroom import timeouts
from storeroom.keys import TAG_PREFIX, shorten
from storeroom.storage.envelope import Envelope, new_stamp
from storeroom.storage.hooks import MISSING, StorageHooks
from storeroom.storage.steps import Steps
from storeroom.timeouts import NEVER

__all__ = [
    "TAG_PREFIX", "Versions", "agree", "all_tagged", "are_current", "current_versions", "is_written", "live_envelopes",
    "prolong", "renew", "stamps_of", "tag_keys", "tagged",
]  # fmt: skip

SHORTEST_LIFE: Final = 300.0
"""Seconds that a version is kept for at least: the result of a computation may need it some time later."""

_LONGEST_TAG: Final = 200
"""Characters of a tag that is a part of a storage key as it is; of a longer one, its beginning and a hash are."""

_COLLECTIONS: Final = (list, tuple, set, frozenset, dict)

Versions: TypeAlias = dict[str, tuple[int, float]]
"""Storage key of a tag -> its version, and when that expires."""


def tag_keys(tags: Iterable[object], make: Callable[[str], str]) -> list[str]:
    """Return the storage keys of tags, one for all versions of a cache's keys, which `make` makes as those of keys.

    Raises:
        TypeError: `tags` is a single string, or one of them is a list, which would be a tag by its text.
    """
    if isinstance(tags, str | bytes):
        raise TypeError(f"tags is {tags!r}; expected a list of tags: [{tags!r}].")
    tags = list(tags)
    for tag in tags:
        if isinstance(tag, _COLLECTIONS) or hasattr(type(tag), "__next__"):
            raise TypeError(
                f'A tag is a {type(tag).__name__}; expected a name. Write tags=["a", "b"], and '
                'invalidate_tags("a", "b") or invalidate_tags(*names).'
            )
    return [
        f"{TAG_PREFIX}{make(text if len(text) <= _LONGEST_TAG else shorten(text, _LONGEST_TAG))}"
        for text in dict.fromkeys(map(str, tags))
    ]


def are_current(hooks: StorageHooks, envelope: Envelope) -> Steps[bool]:
    """Tell whether an envelope's tags have the versions of when it was written: one read."""
    if not envelope.tags:
        return True
    found = yield hooks, "_get_many", ([key for key, _ in envelope.tags],)
    return agree(envelope, found)


def live_envelopes(hooks: StorageHooks, envelopes: Iterable[Envelope]) -> Steps[list[Envelope]]:
    """Return those whose tags are current: one read for all of them, none if they have no tags."""
    envelopes = list(envelopes)
    keys = list(dict.fromkeys(key for envelope in envelopes for key, _ in envelope.tags))
    found = (yield hooks, "_get_many", (keys,)) if keys else {}
    return [envelope for envelope in envelopes if agree(envelope, found)]


def agree(envelope: Envelope, found: Mapping[str, Any]) -> bool:
    """Tell whether the versions that were read, as _written(), are those of the envelope."""
    return all(is_written(found.get(key), version) for key, version in envelope.tags)


def is_written(found: Any, version: int) -> bool:
    """Tell whether a tag's entry that was read, as _written(), has this version."""
    return type(found) is str and found.startswith(f"{version:016x} ")


def current_versions(hooks: StorageHooks, keys: Sequence[str]) -> Steps[Versions | None]:
    """Return the tags' versions, having written those that were not there: one read, one write for each of these.

    None if they cannot be written now: an entry with these tags would be a miss at once.
    """
    versions = _parsed((yield hooks, "_get_many", (keys,)))
    raced = []
    for key in [key for key in keys if key not in versions]:
        version, expires_at = new = _new_version()
        if (yield hooks, "_add", (key, _written(version, expires_at), expires_at)) is True:
            versions[key] = new
        else:
            raced.append(key)
    if raced:
        versions |= yield from _raced_versions(hooks, raced)
    return versions if len(versions) == len(keys) else None


def _raced_versions(hooks: StorageHooks, keys: Sequence[str]) -> Steps[Versions]:
    """Return the versions of tags whose entries were in the way; bytes that are no version are overwritten."""
    found = yield hooks, "_get_many", (keys,)
    versions = _parsed(found)
    for key in [key for key in keys if key not in versions]:
        version, expires_at = new = _new_version()
        # No entry can depend on an entry that cannot be read, or is no version.
        if (yield hooks, "_compare_set", (key, found.get(key, MISSING), _written(version, expires_at), expires_at)):
            versions[key] = new
    return versions


def _new_version() -> tuple[int, float]:
    return new_stamp(), timeouts.now() + SHORTEST_LIFE


def renew(hooks: StorageHooks, versions: Versions, kept_until: float) -> Steps[None]:
    """Let the versions live as long as an entry that needs them; most do already."""
    for key, (version, expires_at) in versions.items():
        if expires_at >= kept_until:
            continue
        # Twice as long as needed: an entry that is set again and again seldom has to do this.
        longer = NEVER if kept_until == NEVER else 2 * kept_until - timeouts.now()
        # One that was invalidated meanwhile must not come back.
        yield hooks, "_compare_set", (key, _written(version, expires_at), _written(version, longer), longer)


def prolong(hooks: StorageHooks, envelope: Envelope, kept_until: float) -> Steps[None]:
    """Let the versions of an entry's tags live as long as the entry, which gets more time."""
    if envelope.tags and kept_until > envelope.kept_until:
        versions = _parsed((yield hooks, "_get_many", ([key for key, _ in envelope.tags],)))
        yield from renew(hooks, versions, kept_until)


def tagged(hooks: StorageHooks, value: Any, expires_at: float, keys: Sequence[str]) -> Steps[Any]:
    """Return the value in an envelope with these tags, or MISSING if their versions cannot be written now."""
    return (yield from all_tagged(hooks, {"": value}, expires_at, keys)).get("", MISSING)


def all_tagged(
    hooks: StorageHooks, values: dict[str, Any], expires_at: float, keys: Sequence[str]
) -> Steps[dict[str, Any]]:
    """Return the values in envelopes with these tags: none if their versions cannot be written now."""
    versions = yield from current_versions(hooks, keys)
    if versions is None:
        return {}
    yield from renew(hooks, versions, expires_at)
    stamps = stamps_of(versions)
    return {key: Envelope(value, expires_at, tags=stamps) for key, value in values.items()}


def stamps_of(versions: Versions) -> tuple[tuple[str, int], ...]:
    """Return the versions as an envelope remembers them."""
    return tuple((key, version) for key, (version, _) in versions.items())


def _written(version: int, expires_at: float) -> str:
    return f"{version:016x} {expires_at!r}"


def _parsed(found: dict[str, Any]) -> Versions:
    """Return the versions that were read; an entry that is none counts as lost."""
    versions: Versions = {}
    for key, text in found.items():
        try:
            digits, until = text.split(" ")
            version, expires_at = int(digits, 16), float(until)
        except (AttributeError, ValueError):
            continue
        # agree() knows no other form. NaN compares as false.
        if digits == f"{version:016x}" and expires_at >= 0:
            versions[key] = version, expires_at
    return versions
