"""Sessions on a cache that keeps them: ``SESSION_ENGINE = "storeroom.integrations.django.sessions"``.

The sessions are in the storage of the alias that SESSION_CACHE_ALIAS names, as its locks are: they count toward no
bound, nothing evicts them before their time, and neither ``clear()`` nor a listing of keys comes upon them. A session
is stored when its data have changed; one that is gone meanwhile, as its user has logged out elsewhere, is not revived.
"""

from collections.abc import Mapping
from typing import Any, Final

from django import conf
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, UpdateError
from django.contrib.sessions.backends.cache import SessionStore as DjangosStore
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import get_random_string

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.keys import LOCK_PREFIX
from storeroom.storage.copies import IMMUTABLE, alike, freeze, thaw
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.steps import Steps, arun, run

__all__ = ["SessionStore"]

_RENEWED_SHARE: Final = 0.5
"""A session that is saved as it was is stored again when it has less than this share of its time left, so that a user
who comes back keeps it. With SESSION_SAVE_EVERY_REQUEST each save renews it."""

_SLACK_SECONDS: Final = 1.0
"""The end of a session may be as much later than asked for: of one until a date, it is computed anew each time."""

_TRIES: Final = 100
"""Attempts to store while others store the same session, or to find a key that is free."""


class SessionStore(DjangosStore):
    """The session of one visitor: see Django's SessionBase for what a view does with it.

    Raises:
        ImproperlyConfigured: SESSION_CACHE_ALIAS is a cache of a class that is none of Storeroom's.
        StorageError: no new session can be stored, or none read where ``OPTIONS["on_error"]`` is "raise".
    """

    cache_key_prefix = "storeroom.sessions"

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        alias = conf.settings.SESSION_CACHE_ALIAS
        cache = self._cache
        if not isinstance(cache, BaseCache):
            raise ImproperlyConfigured(
                f"SESSION_CACHE_ALIAS is {alias!r}, and CACHES[{alias!r}]['BACKEND'] is {type(cache).__qualname__}; "
                "expected one of Storeroom's classes, such as 'storeroom.backends.filebased.FileBasedCache'."
            )
        self._hooks = cache._locking()
        # Memory of this process keeps objects as they are.
        self._copies = not self._hooks.is_shared and self._hooks is not cache

    # Steps, carried out by the methods below in both worlds ------------------------------------------

    def _name(self, session_key: str | None) -> str:
        return f"{LOCK_PREFIX}{self._cache._storage_key(f'{self.cache_key_prefix}{session_key}', None)}"

    def _found(self, session_key: str | None) -> Steps[Any]:
        """Return the entry of a session, an Envelope; MISSING if there is none."""
        found = (yield self._hooks, "_get", (self._name(session_key),)) if session_key else MISSING
        return found if type(found) is Envelope and found.is_fresh else MISSING

    def _opened(self, found: Envelope) -> Any:
        return thaw(found.value) if self._copies else found.value

    def _sealed(self, data: Mapping[str, Any], until: float) -> Envelope:
        return Envelope(freeze(data) if self._copies else data, until)

    def _loading(self) -> Steps[dict[str, Any]]:
        found = yield from self._found(self.session_key)
        data = self._opened(found) if type(found) is Envelope else MISSING
        if isinstance(data, dict):
            return data
        self._session_key = None
        return {}

    def _creating(self) -> Steps[None]:
        for _ in range(_TRIES):
            self._session_key = get_random_string(32, VALID_KEY_CHARS)
            if (yield from self._adding()):
                self.modified = True
                return
        raise RuntimeError(f"{_TRIES} new session keys were all taken; expected the first to be free.")

    def _adding(self) -> Steps[bool]:
        """Store a new session; return False if there is one of this key."""
        data, seconds = self._get_session(no_load=True), self.get_expiry_age()
        until = timeouts.now() + seconds
        if seconds <= 0:  # it is over already
            return True
        return (yield self._hooks, "_add", (self._name(self.session_key), self._sealed(data, until), until)) is True

    def _replacing(self, data: Mapping[str, Any], seconds: float) -> Steps[None]:
        """Store over the session that is there."""
        name, until = self._name(self.session_key), timeouts.now() + seconds
        for _ in range(_TRIES):
            if (found := (yield from self._found(self.session_key))) is MISSING:
                break
            if seconds <= 0:
                yield self._hooks, "_delete", (name,)
                return
            if self._is_kept(found, data, until, seconds):
                return
            if (yield self._hooks, "_compare_set", (name, found, self._sealed(data, until), until)):
                return
        raise UpdateError

    def _is_kept(self, found: Envelope, data: Mapping[str, Any], until: float, seconds: float) -> bool:
        """Tell whether the entry may stay as it is."""
        spared = 0.0 if conf.settings.SESSION_SAVE_EVERY_REQUEST else seconds * _RENEWED_SHARE
        prolonged = until - found.fresh_until
        return -_SLACK_SECONDS <= prolonged <= spared and _is_same(self._opened(found), data)

    def _is_there(self, session_key: str | None) -> Steps[bool]:
        return (yield from self._found(session_key)) is not MISSING

    def _deleting(self, session_key: str | None) -> Steps[None]:
        session_key = self.session_key if session_key is None else session_key
        if session_key is not None:
            yield self._hooks, "_delete", (self._name(session_key),)

    # Django's interface -----------------------------------------------------------------------------

    def load(self) -> dict[str, Any]:
        """Return the data; {} without a session, which then gets a new key."""
        return run(self._loading())

    async def aload(self) -> dict[str, Any]:
        """See load()."""
        return await arun(self._loading())

    def create(self) -> None:
        """Store a new session, by a key of its own."""
        run(self._creating())

    async def acreate(self) -> None:
        """See create()."""
        await arun(self._creating())

    def save(self, must_create: bool = False) -> None:
        """Store the data if they have changed, or the session gets more time.

        Raises:
            CreateError: `must_create`, and there is a session of this key.
            UpdateError: the session is gone, or over.
        """
        if self.session_key is None:
            self.create()
        elif not must_create:
            run(self._replacing(self._get_session(), self.get_expiry_age()))
        elif not run(self._adding()):
            raise CreateError

    async def asave(self, must_create: bool = False) -> None:
        """See save()."""
        if self.session_key is None:
            await self.acreate()
        elif not must_create:
            await arun(self._replacing(await self._aget_session(), await self.aget_expiry_age()))
        elif not await arun(self._adding()):
            raise CreateError

    def exists(self, session_key: str | None) -> bool:
        """Tell whether there is a session of this key."""
        return run(self._is_there(session_key))

    async def aexists(self, session_key: str | None) -> bool:
        """See exists()."""
        return await arun(self._is_there(session_key))

    def delete(self, session_key: str | None = None) -> None:
        """Remove a session; without a key, this one."""
        run(self._deleting(session_key))

    async def adelete(self, session_key: str | None = None) -> None:
        """See delete()."""
        await arun(self._deleting(session_key))

    @classmethod
    def clear_expired(cls) -> None:
        """Remove sessions that are over, for ``manage.py clearsessions``; they go by themselves, too."""
        caches[conf.settings.SESSION_CACHE_ALIAS].prune()

    @classmethod
    async def aclear_expired(cls) -> None:
        """See clear_expired()."""
        await caches[conf.settings.SESSION_CACHE_ALIAS].aprune()


def _is_same(one: Any, other: Any) -> bool:
    """Tell whether data are the same, types and all; of objects that are no plain data, by their pickles."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other) if type(one) in IMMUTABLE else alike(one, other)
