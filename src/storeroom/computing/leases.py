"""The lease: an envelope in a key's entry, whose writer computes the value.

A leader puts it there by `add` where there is nothing, or by compare-and-set over a stale value, which goes on being
served. The result is stored over the lease alone: a caller that deletes or sets the key meanwhile has the last word.

It is short, and renewed while its leader computes (``renewals``): a leader that dies delays the others by no more. It
is noted before it is written: a leader that is cut short in between has to take it away (``whole``).
"""

import os
from functools import cache
from typing import Any, Final

from storeroom import timeouts
from storeroom.engines.flights import FLIGHT_SECONDS
from storeroom.storage.envelope import Envelope, placeholder
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, StorageHooks, Swap
from storeroom.storage.steps import Steps

__all__ = ["HELD_SHARE", "Lease", "holder", "over"]

HELD_SHARE: Final = 0.75
"""A lease with less left of its time than this share is renewed: looks that are a third of its time apart leave room
for one that comes late."""


@cache
def _name_of(pid: int) -> str:
    uname = getattr(os, "uname", None)
    return f"process {pid}" if uname is None else f"process {pid} on {uname().nodename}"


def holder() -> str:
    """Return the name of this process, for people who ask who computes."""
    return _name_of(os.getpid())


class Lease:
    """A leader's part in one key's entry.

    Attributes:
        found: the entry as it was read last: an envelope, MISSING, or another's value.
        replaces: to be computed anew although it is fresh.
        held: put there by this leader; None if it holds no lease.
        is_outdated: its value is known to be old, and the new one cannot be stored.
    """

    __slots__ = ("_is_blocked", "found", "held", "is_outdated", "replaces")

    def __init__(self, found: Any = MISSING, replaces: Envelope | None = None) -> None:
        self.found, self.replaces = found, replaces
        self.held: Envelope | None = None
        self.is_outdated = self._is_blocked = False

    @property
    def others_until(self) -> float:
        """The end (epoch seconds) of the lease that another was seen to have; 0 if there was none."""
        return self.found.leased_until if type(self.found) is Envelope and self.held is None else 0.0

    def taking(self, until: float, *, is_shared: bool) -> Swap | None:
        """Return the swap that takes the lease until then (epoch seconds); None if another has it."""
        found: Any = self.found if type(self.found) is Envelope else MISSING
        now = timeouts.now()
        # Where nobody else computes, a lease is left from a parent process; and no leader takes one that ends so much
        # later than now, even by a clock that is somewhat wrong.
        if found is not MISSING and now < found.leased_until < now + 2 * FLIGHT_SECONDS and is_shared:
            return None
        self.held = lease = placeholder(until, holder()) if found is MISSING else found.leased(until)
        if found is not MISSING:
            return Swap(found, lease, lease.kept_until)
        return Swap(MISSING if self._is_blocked else ABSENT, lease, lease.kept_until)

    def refused(self) -> None:
        """Note that the lease was not written: others come and go, or bytes that nobody can read are in the way.

        Where there is nothing to be read, the two are tried in turn.
        """
        self.held = None
        self._is_blocked = not self._is_blocked and type(self.found) is not Envelope

    def renewing(self, until: float, seconds: float) -> Swap | None:
        """Return the swap that holds the lease until then; None if it is not held, or has enough of its time left."""
        lease = self.held
        if lease is None or lease.leased_until >= min(until, timeouts.now() + seconds * HELD_SHARE):
            return None
        renewed = lease.renewed(until)
        return Swap(lease, renewed, renewed.kept_until)

    def storing(self, value: Any, kept_until: float) -> Swap:
        """Return the swap that stores a value: over the lease, or over the entry that was there before."""
        expected = self.held or self.found
        return Swap(expected if type(expected) is Envelope else ABSENT, value, kept_until)

    def giving_back(self) -> Swap | None:
        """Return the swap that takes the lease away, if it is still there; None if none is held.

        A value that is outdated goes with it, or without.
        """
        lease: Any = self.held
        if self.is_outdated:
            outdated = lease or self.found
            is_there = type(outdated) is Envelope and (lease is not None or outdated.has_value)
            return Swap(outdated, MISSING, outdated.kept_until) if is_there else None
        if lease is None:
            return None
        if not lease.has_value:
            return Swap(lease, MISSING, lease.kept_until)
        bare = lease.leased(0.0)
        return Swap(lease, bare, bare.kept_until)


def over(hooks: StorageHooks, storage_key: str, found: Any, until: float) -> Steps[Envelope | None]:
    """Return a lease over an entry that was read, whoever else computes; None if it is another entry by now."""
    if found is MISSING:
        return placeholder(until, holder())
    if type(found) is Envelope:
        # Of two that refresh, the first to end must not be served the value from before both.
        is_taken = found.leased_until > timeouts.now()
        return placeholder(until, holder()) if is_taken else found.leased(until)
    expires_at = yield hooks, "_expiry", (storage_key,)
    if expires_at is None or expires_at is LOOK or type(expires_at) is Envelope:
        return None
    return Envelope(found, expires_at, leased_until=until)
