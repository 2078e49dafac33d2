"""explain(): all that is known of an entry, and why a read would miss it.

Each tier tells what lies there (``storage.sightings``), and the first that a read would end at is judged. Where there
is nothing, this process's memory of removals says why (``engines.remembered``), and then the other versions and
prefixes under which the key may be.
"""

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from storeroom import timeouts
from storeroom.base.explanation import Explanation, Lease, TagState, Tier, seconds_in_words
from storeroom.computing.leases import holder
from storeroom.engines.remembered import CLEARED, EVICTED, MOVED, WRITTEN, Happening
from storeroom.exceptions import NotSupportedError, PoolTimeoutError, StorageError, UnreachableError
from storeroom.keys import TAG_PREFIX
from storeroom.serializers.reading import Form, form_of, reason_of
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import no_answers
from storeroom.storage.sightings import Sighting, sighted
from storeroom.storage.steps import Steps
from storeroom.storage.unstored import Caught
from storeroom.timeouts import NEVER

__all__ = ["explaining", "seen_value"]

_FEW: Final = 10_000
"""Entries of a storage that are listed to find a key's other versions: tens of milliseconds."""

_NO_FORM: Final = Form("", "", "")


class _Verdict(NamedTuple):
    cause: str
    reason: str


_HIT: Final = "hit"


def explaining(handle: Any, key: object, version: int | None, others: Iterable[Any] = ()) -> Steps[Explanation]:
    """Return the explanation of a key of a handle's, which `others` may have under their prefixes."""
    version = handle._version if version is None else version
    with no_answers():
        return (yield from _Look(handle, key, version, others).explain())


def seen_value(handle: Any, key: object, version: int | None) -> Steps[Any]:
    """Return the value of an entry of a handle's that would be found, seen without a trace; MISSING if it is gone."""
    with no_answers():
        sightings = yield from sighted(handle._overlay or handle, handle._storage_key(key, version))
    seen = _decisive(sightings, timeouts.now())
    if type(seen.value) is Envelope:
        return seen.value.value if seen.value.has_value else MISSING
    return seen.value if seen.is_there and seen.error is None else MISSING


class _Look:
    """One look at a key."""

    def __init__(self, handle: Any, key: object, version: int, others: Iterable[Any]) -> None:
        self.handle, self.key = handle, key
        self.neighbours = [*handle.engine.handles.values(), *others]
        self.hooks = handle._overlay or handle
        self.storage_key: str = handle._storage_key(key, version)
        self.version = int(version)  # it may be written as digits
        self.memory = handle.engine.remembered
        self.tags: tuple[TagState, ...] = ()

    def explain(self) -> Steps[Explanation]:
        """Look, and judge."""
        sightings = yield from sighted(self.hooks, self.storage_key)
        now = timeouts.now()
        seen = _decisive(sightings, now)
        verdict = yield from self._judged(seen, now)
        tiers = [_tier(sighting, now) for sighting in sightings]
        if seen.error is not None and not seen.is_there:
            verdict, more = yield from self._stood_in(verdict, now)
            tiers += more
        form, envelope = self._form(seen), seen.value if type(seen.value) is Envelope else None
        left = None if not seen.is_there or seen.expires_at == NEVER else seen.expires_at - now
        stale_for = None
        if envelope is not None:
            left = None if envelope.fresh_until == NEVER else envelope.fresh_until - now
            if envelope.has_value and envelope.grace and not envelope.is_fresh:
                stale_for = max(0.0, envelope.kept_until - now)
        age, is_assumed = self._age(left, now) if verdict.cause == _HIT else (None, False)
        refused = None if self.memory is None else self.memory.refusal(self.storage_key)
        return Explanation(
            str(self.key), self.handle.settings.alias, self.version, self.storage_key, verdict.cause == _HIT, *verdict,
            tuple(tiers), None if left is None else max(0.0, left), age, is_assumed, stale_for, seen.size, *form[:3],
            self.tags, self._lease(sightings, now), "" if refused is None else refused.reason,
            None if refused is None else now - refused.at,
        )  # fmt: skip

    # The verdict ------------------------------------------------------------------------------

    def _judged(self, seen: Sighting, now: float) -> Steps[_Verdict]:
        if seen.is_final or (seen.error is None and self.handle._dropped_write(self.storage_key)):
            dropped = _Verdict("dropped", "A write of it was dropped, and no older value is served for it.")
            return _Verdict(seen.tier, f"{seen.note[:1].upper()}{seen.note[1:]}.") if seen.is_final else dropped
        if seen.error is not None:
            return self._failed(seen.error, seen)
        if not seen.is_there:
            return (yield from self._absent(now))
        if seen.expires_at <= now:
            return _expired(seen.expires_at, now)
        if type(seen.value) is Envelope:
            return (yield from self._envelope(seen.value, seen.tier, now))
        return _Verdict(_HIT, f"A read finds it in {seen.tier}.")

    def _failed(self, error: Exception, seen: Sighting) -> _Verdict:
        if not seen.is_there:
            cause = "busy" if isinstance(error, PoolTimeoutError) else "down"
            head = "The server is down" if isinstance(error, UnreachableError) else "The storage cannot be asked"
            return _Verdict(cause, f"{head}: {error}")
        reason = reason_of(error, self._form(seen), self.handle._codec)
        return _Verdict("unreadable", f"It is there, and cannot be read: {reason}.")

    def _envelope(self, envelope: Envelope, tier: str, now: float) -> Steps[_Verdict]:
        if not envelope.has_value:
            if envelope.leased_until > now:
                return _Verdict("computing", "There is no value yet, and one is being computed.")
            return _Verdict("never", "A computation of its value has ended without one.")
        self.tags = yield from self._tag_states(envelope, now)
        if not envelope.is_fresh:
            return _expired(envelope.fresh_until, now)
        outdated = next((tag for tag in self.tags if not tag.is_current), None)
        if outdated is None:
            return _Verdict(_HIT, f"A read finds it in {tier}.")
        fate = "was evicted" if outdated.was_evicted else "was invalidated"
        which = f'The version of its tag "{outdated.name}"' if outdated.was_evicted else f'Its tag "{outdated.name}"'
        when = " since it was written, or lost its version"
        return _Verdict(
            "tag", f"{which} {fate}{when if outdated.since is None else f' {seconds_in_words(outdated.since)} ago'}."
        )

    def _tag_states(self, envelope: Envelope, now: float) -> Steps[tuple[TagState, ...]]:
        states = []
        for tag_key, version in envelope.tags:
            found = _decisive((yield from sighted(self.hooks, tag_key)), now)
            is_there = found.is_there and found.expires_at > now and isinstance(found.value, str)
            is_current = is_there and found.value.startswith(f"{version:016x} ")
            gone = None if is_current else self._remembered(tag_key)
            gone = None if gone is not None and gone.kind == WRITTEN else gone
            name = tag_key.removeprefix(TAG_PREFIX)
            typed = self.handle._key_space.caller_key(name, 0)
            evicted = gone is not None and gone.kind == EVICTED
            since = None if gone is None else now - gone.at
            states.append(TagState(name if typed is None else typed, is_current, since, evicted))
        return tuple(states)

    def _remembered(self, storage_key: str) -> Happening | None:
        happening: Happening | None = None
        if self.memory is not None:
            happening = self.memory.last(storage_key, self.handle._names_of(storage_key))
        return happening

    def _absent(self, now: float) -> Steps[_Verdict]:
        """Return why there is nothing."""
        if not self.handle.keeps_entries:
            return _Verdict("dummy", f"{type(self.handle).__name__} keeps no entries.")
        last = self._remembered(self.storage_key)
        refused = None if self.memory is None else self.memory.refusal(self.storage_key)
        if refused is not None and (last is None or refused.at >= last.at):
            ago = seconds_in_words(now - refused.at)
            return _Verdict("refused", f"Its value could not be stored {ago} ago: {refused.reason.rstrip('.')}.")
        if last is not None and last.kind != CLEARED:
            return _gone(last, now)
        elsewhere = yield from self._elsewhere()
        if elsewhere is not None:
            return elsewhere
        return self._never() if last is None else _gone(last, now)

    def _never(self) -> _Verdict:
        known = self.memory.limit if self.memory is not None else 0
        how = (
            f"it is not among the last {known:,} removals that this process remembers"
            if known
            else "OPTIONS['removals'] is 0, so that this process remembers no removal"
        )
        return _Verdict("never", f"It was never set, as far as is known: {how}.")

    # Elsewhere --------------------------------------------------------------------------------

    def _elsewhere(self) -> Steps[_Verdict | None]:
        """Return a verdict if another version has the key, or another prefix on the same storage."""
        for version in (yield from self._versions()):
            with Caught():  # a program's own function may refuse it
                if (yield from self._has(self.hooks, self.handle._storage_key(self.key, version))):
                    return _Verdict("version", f"Version {version} has it, and version {self.version} has not.")
        for other in self._others():
            with Caught():
                if (yield from self._has(other._overlay or other, other._storage_key(self.key, None))):
                    alias = f" (CACHES[{other.settings.alias!r}])" if other.settings.alias else ""
                    mine = f"KEY_PREFIX {self.handle.key_prefix!r} has not"
                    return _Verdict("prefix", f"KEY_PREFIX {other.key_prefix!r}{alias} has it, and {mine}.")
        return None

    def _others(self) -> list[Any]:
        own = self.handle
        others = [other for other in self.neighbours if other.key_prefix != own.key_prefix]
        return list({(other.key_prefix, other.version): other for other in others}.values())

    def _versions(self) -> Steps[list[int]]:
        """Return the versions to look at: near ones, those of other handles, and those that the storage lists."""
        handle, space = self.handle, self.handle._key_space
        near = {self.version - 1, self.version + 1, handle._version}
        near |= {each._version for each in self.neighbours}
        with suppress(NotSupportedError, StorageError):
            count, _ = yield self.hooks, "_usage", ()
            if count is not None and count <= _FEW and space.is_reversible:
                found: Iterable[str] = yield self.hooks, "_scan", (space.start(),)
                listed = ((space.version_of(each), each) for each in found)
                text = str(self.key)
                near |= {
                    number for number, each in listed if number is not None if space.caller_key(each, number) == text
                }
        return sorted(near - {self.version}, key=self._distance)

    def _distance(self, version: int) -> int:
        return abs(version - self.version)

    def _has(self, hooks: Any, storage_key: str) -> Steps[bool]:
        if storage_key == self.storage_key:
            return False
        now = timeouts.now()
        seen = _decisive((yield from sighted(hooks, storage_key)), now)
        is_live = seen.is_there and seen.error is None and seen.expires_at > now
        return is_live and (type(seen.value) is not Envelope or seen.value.is_fresh)

    # Details ----------------------------------------------------------------------------------

    def _stood_in(self, verdict: _Verdict, now: float) -> Steps[tuple[_Verdict, list[Tier]]]:
        """Return the verdict if another cache answers during an outage, and what it has."""
        other = self.handle._stand_in()
        if other is None:
            return verdict, []
        found = yield from sighted(other, self.storage_key)
        name, seen = f"CACHES[{other.settings.alias!r}]", _decisive(found, now)
        is_live = seen.is_there and seen.error is None and seen.expires_at > now
        told = f"{verdict.reason} Meanwhile {name} answers, which has {'it' if is_live else 'none'}."
        return _Verdict(_HIT if is_live else verdict.cause, told), [_tier(each, now, name) for each in found]

    def _form(self, seen: Sighting) -> Form:
        if seen.form:
            names = form_of(None, seen.frame, "").names if seen.frame else frozenset[str]()
            return Form(seen.form, "none", "not signed", names)
        return _NO_FORM if seen.frame is None else form_of(self.handle._codec, seen.frame, self.storage_key)

    def _age(self, left: float | None, now: float) -> tuple[float | None, bool]:
        """Return the seconds since the entry was written, and whether they hold for the alias's own TIMEOUT alone."""
        last, timeout = self._remembered(self.storage_key), self.handle.default_timeout
        if last is not None and last.kind == WRITTEN:
            return now - last.at, False
        if left is None or timeout is None or left > timeout:
            return None, False
        return timeout - left, True

    def _lease(self, sightings: Sequence[Sighting], now: float) -> Lease | None:
        thread = self.handle.engine.flights.computed_by(self.storage_key)
        here = "" if thread is None else f"{holder()}{_thread_named(thread)}"
        held = [each.value for each in sightings if type(each.value) is Envelope and each.value.leased_until > now]
        if not held:
            return None if thread is None else Lease(None, here, is_here=True)
        envelope = held[-1]
        told = envelope.value if not envelope.has_value and isinstance(envelope.value, str) else ""
        return Lease(envelope.leased_until - now, here or told, is_here=thread is not None)


def _decisive(sightings: Sequence[Sighting], now: float) -> Sighting:
    """Return the sighting that a read ends at."""
    for seen in sightings:
        if seen.is_final or (seen.is_there and seen.error is None and not seen.note and seen.expires_at > now):
            return seen
    return sightings[-1]


def _expired(at: float, now: float) -> _Verdict:
    return _Verdict("expired", f"It expired {seconds_in_words(now - at)} ago.")


def _gone(last: Happening, now: float) -> _Verdict:
    ago = seconds_in_words(now - last.at)
    if last.kind != EVICTED and last.until <= max(last.at, now if last.kind == WRITTEN else last.at):
        return _expired(last.until, now)
    if last.kind == WRITTEN:
        left = "no end to its time" if last.until == NEVER else f"{seconds_in_words(last.until - now)} left"
        return _Verdict(
            "evicted",
            f"It was written {ago} ago, would have {left}, and is gone: the storage has evicted it, or another process "
            "has removed it.",
        )
    sentences = {
        EVICTED: f"It was evicted {ago} ago, as room was needed.",
        MOVED: f"It was moved to another version {ago} ago.",
        CLEARED: f"clear() removed all entries of this cache {ago} ago, and it was not set since, as far as is known.",
    }
    return _Verdict(last.kind, sentences.get(last.kind, f"It was deleted {ago} ago."))


def _tier(seen: Sighting, now: float, name: str = "") -> Tier:
    state, note, left = "absent", seen.note, None
    if seen.is_final:
        state = "removed" if seen.tier != "memo" else "absent"
    elif seen.error is not None:
        state, note = "unreadable" if seen.is_there else "out of reach", type(seen.error).__name__
    elif seen.is_there:
        state = "not believed" if seen.note else "live" if seen.expires_at > now else "expired"
        left = None if seen.expires_at == NEVER else seen.expires_at - now
    return Tier(name or seen.tier, state, left, seen.size, note)


def _thread_named(number: int) -> str:
    name = next((thread.name for thread in threading.enumerate() if thread.ident == number), "")
    return f", thread {name!r}" if name else ""
