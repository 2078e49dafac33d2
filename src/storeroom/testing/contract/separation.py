"""Keys that must not meet: those of one moment and another, of users and the framework."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import pytest

from storeroom.exceptions import NotSupportedError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.keys import LONG_START, hashed_keys
from storeroom.testing.contract.suite import Driver, Suite
from storeroom.transactions import transaction

__all__ = ["SeparationContract"]

_TENANT: Final = ContextVar("_TENANT", default="public")


@contextmanager
def tenant(name: str) -> Iterator[None]:
    """Let keys be those of a tenant."""
    token = _TENANT.set(name)
    try:
        yield
    finally:
        _TENANT.reset(token)


def tenants_keys(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys that depend on the moment."""
    return f"{_TENANT.get()}:{key_prefix}:{version}:{key}"


def short_keys(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys of which long ones are hashed whole."""
    made = f"{key_prefix}:{version}:{key}"
    return made if len(made) < 200 else hashlib.sha256(made.encode()).hexdigest()


def digests(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys that hide the key alone."""
    return f"{key_prefix}:{version}:{hashlib.sha256(str(key).encode()).hexdigest()}"


def plain_keys(key: object, _prefix: str, _version: int) -> str:
    """Make storage keys that are the keys."""
    return str(key)


async def cleared(cache: Driver, make_key: Callable[..., str]) -> bool:
    """Clear the cache; return False if it cannot tell its keys, and says that `make_key` is the reason."""
    try:
        await cache.clear()
    except NotSupportedError as error:
        if make_key.__name__ not in str(error):
            raise
        return False
    return True


@needs("store")
class SeparationContract(Suite):
    """Key functions that are not like the default one, and keys that look like internal ones."""

    async def test_clear_is_of_the_moment(self, drive: Callable[..., Driver]) -> None:
        """clear() removes the keys that KEY_FUNCTION makes now, or says that it cannot; others' stay."""
        with tenant("acme"):
            cache = drive(KEY_FUNCTION=tenants_keys, KEY_PREFIX="p")
            await cache.set("k", "of acme", tags=["t"])
        with tenant("globex"):
            await cache.set("k", "of globex")
            if await cleared(cache, tenants_keys):
                assert await cache.get("k") is None
            else:
                assert "enumerate" in self.lacks
            await cache.invalidate_tags("t")
        with tenant("acme"):
            assert await cache.get("k") == "of acme"

    @needs("enumerate")
    async def test_keys_and_count_are_of_the_moment(self, drive: Callable[..., Driver]) -> None:
        """keys() and count() list the keys that KEY_FUNCTION makes now, as get() finds them."""
        with tenant("acme"):
            cache = drive(KEY_FUNCTION=tenants_keys, KEY_PREFIX="p")
            await cache.set_many({"a": 1, "b": 1})
        with tenant("globex"):
            await cache.set("c", 1)
            assert await cache.keys() == ["c"]
            assert await cache.count() == 1
        with tenant("acme"):
            assert sorted(await cache.keys()) == ["a", "b"]
            assert await cache.count() == 2

    @needs("enumerate")
    async def test_a_clear_that_is_held_back_is_of_its_moment(self, drive: Callable[..., Driver]) -> None:
        """clear() in a transaction removes the keys of when it was called, whoever commits."""
        with tenant("acme"):
            cache = drive(KEY_FUNCTION=tenants_keys)
            await cache.set("k", "of acme")
        with tenant("globex"):
            await cache.set("k", "of globex")
        if cache.is_async:
            async with transaction():
                await self._clear_as(cache, "acme")
        else:
            with transaction():
                await self._clear_as(cache, "acme")
        with tenant("acme"):
            assert await cache.get("k") is None
        with tenant("globex"):
            assert await cache.get("k") == "of globex"

    async def _clear_as(self, cache: Driver, name: str) -> None:
        with tenant(name):
            await cache.clear()
            assert await cache.get("k") is None

    async def test_clear_says_when_it_cannot_tell_whose_keys_they_are(self, drive: Callable[..., Driver]) -> None:
        """clear() with keys that are hashed whole removes all of them, or raises and removes none."""
        for number, make_key in enumerate((hashed_keys, short_keys)):
            cache = drive(KEY_FUNCTION=make_key, KEY_PREFIX=str(number))
            other = drive(KEY_PREFIX="other")
            typed = ["k", LONG_START]
            await cache.set_many(dict.fromkeys(typed, 1))
            await other.set("k", 1)
            left = 0 if await cleared(cache, make_key) else 2
            assert len(await cache.get_many(typed)) == left
            assert await other.get("k") == 1

    async def test_clear_of_a_location_of_its_own_removes_everything(self, drive: Callable[..., Driver]) -> None:
        """clear() removes keys that are hashed whole where OPTIONS["owns_location"] says that no others are there."""
        cache = drive(KEY_FUNCTION=hashed_keys, OPTIONS={"owns_location": True})
        await cache.set_many({"a": 1, LONG_START: 2})
        await cache.clear()
        assert await cache.get_many(["a", LONG_START]) == {}

    async def test_clear_removes_hashed_keys_of_its_prefix(self, drive: Callable[..., Driver]) -> None:
        """clear() removes keys that are hashed behind prefix and version, and nobody else's."""
        left, right = (drive(KEY_FUNCTION=digests, KEY_PREFIX=prefix) for prefix in ("left", "right"))
        for cache in (left, right):
            await cache.set_many({"a": 1, LONG_START: 2})
        await left.clear()
        assert await left.get_many(["a", LONG_START]) == {}
        assert len(await right.get_many(["a", LONG_START])) == 2

    async def test_a_class_that_makes_keys_is_asked_each_time(
        self, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """clear() and tags go by the make_key() of a class, as by KEY_FUNCTION."""

        def make_key(_: Any, key: object, version: int | None = None) -> str:
            return tenants_keys(key, "p", 1 if version is None else version)

        monkeypatch.setattr(type(drive().cache), "make_key", make_key)
        with tenant("acme"):
            cache = drive()
            await cache.set("k", "of acme", tags=["t"])
        with tenant("globex"):
            await cache.set("k", "of globex", tags=["t"])
            if "enumerate" not in self.lacks:
                await cache.clear()
            await cache.invalidate_tags("t")
            assert await cache.get("k") is None
        with tenant("acme"):
            assert await cache.get("k") == "of acme"

    @pytest.mark.parametrize("name", ["lock", "tag", "fence"])
    async def test_no_key_is_an_internal_one(self, drive: Callable[..., Driver], name: str) -> None:
        """A key that looks like the storage key of a lock or a tag is an entry like others, by any KEY_FUNCTION."""
        cache = drive(KEY_FUNCTION=plain_keys)
        lock = cache.cache.lock("door", timeout=100)
        lock.acquire()
        token = lock.fence()
        await cache.set("entry", 1, tags=["door"])
        forged = f"\x00{name}\x00door"
        await cache.set(forged, "forged")
        assert (lock.owned(), lock.fence()) == (True, token)
        assert await cache.get("entry") == 1
        assert await cache.get_many([forged, f"\x00{forged}", "\x00counts"]) == {forged: "forged"}
        if "enumerate" not in self.lacks:
            assert sorted(await cache.keys()) == [forged, "entry"]
            assert await cache.keys("\x00") == [forged]
            assert await cache.count() == 2
        await cache.delete(forged)
        assert lock.owned()
        assert await cache.get("entry") == 1
        await cache.clear()
        assert await cache.get("entry") is None
        assert lock.owned()
        lock.release()

    @pytest.mark.parametrize("name", ["\x00max_entries", "\x00lock\x00door", "\x00tag\x00door", "\x00counts"])
    async def test_no_name_of_a_lock_or_a_tag_is_an_internal_one(self, drive: Callable[..., Driver], name: str) -> None:
        """A lock or a tag whose name looks like an internal one is one like others, by any KEY_FUNCTION."""
        cache = drive(KEY_FUNCTION=plain_keys)
        door, lock = (cache.cache.lock(each, timeout=100) for each in ("door", name))
        door.acquire()
        await cache.set("kept", 1, tags=["door"])  # bounds are noted by now, where they are
        assert lock.acquire(blocking=False)
        assert not cache.cache.lock(name, timeout=100).acquire(blocking=False)
        await cache.set("entry", 1, tags=[name])
        await cache.invalidate_tags(name)
        assert await cache.get_many(["entry", "kept"]) == {"kept": 1}
        assert (door.owned(), lock.owned()) == (True, True)
        lock.release()
        assert door.owned()
        door.release()

    async def test_no_prefix_makes_internal_keys(self, drive: Callable[..., Driver]) -> None:
        """A KEY_PREFIX that looks like an internal one is a prefix like others, with keys and clear() of its own."""
        cache, other = drive(KEY_PREFIX="\x00tag\x00", VERSION=0), drive(KEY_PREFIX="", VERSION=0)
        await other.set("entry", 1, tags=["door"])
        await cache.set("door", "forged")
        assert await other.get("entry") == 1
        assert await cache.get("door") == "forged"
        assert await cache.get("door", version=0) == "forged"
        await cache.clear()
        assert await cache.get("door") is None
        assert await other.get("entry") == 1
