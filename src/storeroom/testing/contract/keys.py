"""Any string is a key; prefixes and versions keep keys apart; keys() lists them and clear() removes them."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from storeroom.base import BaseCache
from storeroom.exceptions import InvalidCacheKey, KeyNotFoundError, NotSupportedError
from storeroom.testing.capabilities import needs
from storeroom.testing.contract.suite import Driver, Suite, is_left

__all__ = ["KeysContract"]

ODD_KEYS: Final[dict[str, Any]] = {
    "empty": "",
    "space": " ",
    "spaces around": "  a b  ",
    "newline": "a\nb\r\n",
    "tab": "\t",
    "null": "\x00",
    "control characters": "".join(map(chr, range(32))) + "\x7f",
    "colons": "a:1:b",
    "slashes": "../../etc/passwd",
    "backslash and quotes": "\\'\"`",
    "percent and braces": "%s %(a)s {0} {",
    "wildcards": "*?[a-z]",
    "accents": "clé",
    "other scripts": "ключ-鍵-مفتاح",
    "emoji": "\U0001f511",
    "lone surrogate": "\udc80",
    "long": "k" * 10_000,
    "long and wide": "鍵" * 10_000,
    "int": 42,
    "negative int": -1,
    "None": None,
    "float": 1.5,
    "tuple": (1, "a"),
    "bytes": b"key",
}

LONG_START: Final = "s" * 1000


def typed_keys(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys in another order than the default function."""
    return f"{version}|{key_prefix}|{key}"


def hashed_keys(key: object, key_prefix: str, version: int) -> str:
    """Make storage keys that cannot be turned back."""
    return hashlib.sha256(f"{key_prefix}:{version}:{key}".encode()).hexdigest()


@needs("store")
class KeysContract(Suite):
    """Keys, the prefixes and versions that they belong to, and the functions that make them."""

    @pytest.mark.parametrize("key", ODD_KEYS.values(), ids=ODD_KEYS)
    async def test_any_key_works_in_every_operation(self, cache: Driver, key: Any) -> None:
        """Every operation takes any key, without warning and without changing it."""
        await cache.set(key, 1)
        assert await cache.get(key) == 1
        assert await cache.has_key(key)
        assert await cache.get_many([key]) == {key: 1}
        assert await cache.incr(key) == 2
        assert await cache.touch(key) is True
        assert await cache.add(key, 3) is False
        assert await cache.incr_version(key) == 2
        assert await cache.get(key, version=2) == 2
        assert await cache.set_many({key: 4}) == []
        assert await cache.get_or_set(key, 5) == 4
        assert await cache.delete(key) is True
        assert await cache.get(key, "absent") == "absent"

    async def test_odd_keys_are_different_keys(self, cache: Driver) -> None:
        """Odd keys are stored side by side, and none is taken for another."""
        values = {key: number for number, key in enumerate(ODD_KEYS.values())}
        await cache.set_many(values)
        assert await cache.get_many(values) == values

    async def test_long_keys_that_share_a_start_are_different_keys(self, cache: Driver) -> None:
        """Keys that differ after 1000 characters are different keys."""
        left, right = LONG_START + "left", LONG_START + "right"
        await cache.set(left, 1)
        await cache.set(right, 2)
        await cache.set(LONG_START, 3)
        assert await cache.get_many([left, right, LONG_START]) == {left: 1, right: 2, LONG_START: 3}
        await cache.delete(left)
        assert await cache.get_many([left, right]) == {right: 2}

    async def test_an_int_and_its_digits_are_the_same_key(self, cache: Driver) -> None:
        """A key is its str(): 7 and "7" are one key, as in Django."""
        await cache.set(7, "seven")
        assert await cache.get("7") == "seven"

    async def test_keys_that_differ_in_case_or_spaces_are_different_keys(self, cache: Driver) -> None:
        """Case, spaces and Unicode forms make keys different."""
        values = {"key": 1, "KEY": 2, "key ": 3, " key": 4, "e\u0301": 5, "\u00e9": 6}
        await cache.set_many(values)
        assert await cache.get_many(values) == values

    # Listing --------------------------------------------------------------------------------

    @needs("enumerate")
    async def test_keys_lists_the_keys_as_they_were_typed(self, cache: Driver) -> None:
        """keys() lists the keys as the caller typed them, and count() counts them."""
        typed = {str(key) for key in ODD_KEYS.values()}
        await cache.set_many(dict.fromkeys(typed, 1))
        listed = await cache.keys()
        assert sorted(listed) == sorted(typed)
        assert await cache.count() == len(typed)

    @needs("enumerate")
    async def test_keys_lists_those_that_begin_with_a_prefix(self, cache: Driver) -> None:
        """keys() with a prefix lists the keys that begin with that text, which is no pattern."""
        await cache.set_many(dict.fromkeys(["user:1", "user:2", "user", "use", "xuser:1", "user*"], 1))
        assert sorted(await cache.keys("user:")) == ["user:1", "user:2"]
        assert sorted(await cache.keys("user*")) == ["user*"]
        assert await cache.keys("nobody") == []
        assert len(await cache.keys("")) == 6

    @needs("enumerate")
    async def test_keys_lists_long_keys_by_a_long_prefix(self, cache: Driver) -> None:
        """keys() compares prefixes of 1000 characters whole."""
        await cache.set_many({LONG_START + "a": 1, LONG_START + "b": 2, "s": 3})
        assert sorted(await cache.keys(LONG_START)) == [LONG_START + "a", LONG_START + "b"]
        assert await cache.keys(LONG_START + "b") == [LONG_START + "b"]

    @needs("enumerate")
    async def test_keys_and_count_pass_over_what_is_not_live(self, cache: Driver) -> None:
        """keys() and count() leave out deleted and expired entries, read or not."""
        await cache.set_many({"stays": 1, "deleted": 2})
        await cache.set("expires", 3, timeout=self.moment)
        await cache.delete("deleted")
        assert sorted(await cache.keys()) == ["expires", "stays"]
        await self.pass_time(self.moment * 1.5)
        assert await cache.keys() == ["stays"]
        assert await cache.count() == 1

    @needs("enumerate")
    async def test_keys_and_count_are_of_one_version(self, cache: Driver) -> None:
        """keys() and count() are of the cache's own version, or of the one given."""
        await cache.set("one", 1)
        await cache.set("two", 2, version=2)
        await cache.set("twelve", 12, version=12)
        assert await cache.keys() == ["one"]
        assert await cache.keys(version=2) == ["two"]
        assert await cache.count(version=12) == 1
        assert await cache.count(version=3) == 0

    # Prefixes and clear() -------------------------------------------------------------------

    async def test_prefixes_keep_caches_of_one_storage_apart(self, drive: Callable[..., Driver]) -> None:
        """A key is an entry of its own under each KEY_PREFIX."""
        left, right = drive(KEY_PREFIX="left"), drive(KEY_PREFIX="right")
        await left.set("k", 1)
        assert await right.get("k", "absent") == "absent"
        await right.set("k", 2)
        assert await left.get("k") == 1
        assert await right.delete("k") is True
        assert await left.get("k") == 1

    @needs("enumerate")
    async def test_keys_are_those_of_the_caches_own_prefix(self, drive: Callable[..., Driver]) -> None:
        """keys() and count() leave out the entries of other prefixes, also of longer ones."""
        for prefix in ("", "a", "a:b", "ab"):
            await drive(KEY_PREFIX=prefix).set(f"of {prefix!r}", 1)
        for prefix in ("", "a", "a:b", "ab"):
            cache = drive(KEY_PREFIX=prefix)
            assert await cache.keys() == [f"of {prefix!r}"]
            assert await cache.count() == 1

    async def test_clear_removes_everything(self, cache: Driver) -> None:
        """clear() returns None and removes every entry; new ones are kept."""
        await cache.set_many({"a": 1, "b": [2]})
        assert await cache.clear() is None
        assert await cache.get_many(["a", "b"]) == {}
        assert await cache.add("a", 3) is True
        assert await cache.get("a") == 3

    @pytest.mark.parametrize("version", ["v2", "", 1.5, True, (1,)])
    async def test_a_version_is_a_whole_number(self, cache: Driver, version: Any) -> None:
        """Another version than a whole number, which clear() would not know, raises TypeError in every operation."""
        operations = [cache.get, cache.touch, cache.delete, cache.has_key, cache.ttl]
        for operation in operations:
            with pytest.raises(TypeError, match="expected a whole number"):
                await operation("k", version=version)
        with pytest.raises(TypeError, match="expected a whole number"):
            await cache.set("k", 1, version=version)
        with pytest.raises(TypeError, match="expected a whole number"):
            await cache.set_many({"k": 1}, version=version)

    async def test_clear_removes_every_version(self, cache: Driver) -> None:
        """clear() removes the entries of all versions."""
        for version in (0, 1, 2, 10):
            await cache.set("k", version, version=version)
        await cache.clear()
        for version in (0, 1, 2, 10):
            assert await cache.get("k", "absent", version=version) == "absent"

    @pytest.mark.parametrize("own", ["", "a", "a:b", "b"])
    async def test_clear_removes_only_the_caches_own_keys(self, drive: Callable[..., Driver], own: str) -> None:
        """clear() leaves the entries of other prefixes, also of those that begin alike."""
        caches = {prefix: drive(KEY_PREFIX=prefix) for prefix in ("", "a", "a:b", "ab", "b")}
        values = {"k": 1, LONG_START: 2, "\U0001f511": 3}
        for cache in caches.values():
            await cache.set_many(values)
        await caches[own].clear()
        for prefix, cache in caches.items():
            assert await cache.get_many(values) == ({} if prefix == own else values), f"of prefix {prefix!r}"

    # Versions -------------------------------------------------------------------------------

    async def test_versions_keep_entries_apart(self, cache: Driver) -> None:
        """A key is an entry of its own in each version, in every operation."""
        await cache.set("k", 1)
        await cache.set("k", 2, version=2)
        assert await cache.get("k") == await cache.get("k", version=1) == 1
        assert await cache.get("k", version=2) == 2
        assert await cache.get_many(["k"], version=2) == {"k": 2}
        assert await cache.has_key("k", version=3) is False
        assert await cache.add("k", 3, version=3) is True
        assert await cache.incr("k", version=3) == 4
        assert await cache.decr("k", version=3) == 3
        assert await cache.touch("k", version=4) is False
        await cache.set_many({"k": 4}, version=4)
        assert await cache.get_or_set("k", "unused", version=4) == 4
        await cache.delete_many(["k"], version=4)
        assert await cache.ttl("k", version=4) == 0
        assert await cache.delete("k", version=2) is True
        assert await cache.get_many(["k"]) == {"k": 1}
        assert await cache.get("k", version=3) == 3

    async def test_the_setting_version_is_the_default_version(self, drive: Callable[..., Driver]) -> None:
        """VERSION is the default of every operation, and an explicit version reaches the others."""
        first, second = drive(VERSION=1), drive(VERSION=2)
        await first.set("k", 1)
        await second.set("k", 2)
        assert await first.get("k") == 1
        assert await first.get("k", version=2) == 2
        assert await second.get("k", version=1) == 1

    async def test_incr_version_moves_an_entry(self, cache: Driver) -> None:
        """incr_version() and decr_version() move an entry, and return the new version."""
        await cache.set("k", ["v"])
        assert await cache.incr_version("k") == 2
        assert await cache.get("k", "absent") == "absent"
        assert await cache.get("k", version=2) == ["v"]
        assert await cache.incr_version("k", 3, version=2) == 5
        assert await cache.decr_version("k", version=5) == 4
        assert await cache.decr_version("k", 2, version=4) == 2
        assert await cache.get("k", version=2) == ["v"]

    async def test_incr_version_replaces_what_is_there(self, cache: Driver) -> None:
        """incr_version() replaces an entry of the new version, timeout and all."""
        await cache.set("k", "new", timeout=100)
        await cache.set("k", "old", timeout=None, version=2)
        assert await cache.incr_version("k") == 2
        assert await cache.get("k", version=2) == "new"
        assert is_left(await cache.ttl("k", version=2), 100)

    async def test_incr_version_keeps_the_timeout(self, cache: Driver) -> None:
        """incr_version() keeps the expiry of the entry, also where there is none."""
        await cache.set("k", 1, timeout=100)
        await cache.set("l", 1, timeout=None)
        await self.pass_time(self.moment / 4)
        await cache.incr_version("k")
        await cache.decr_version("l")
        assert is_left(await cache.ttl("k", version=2), 100, self.moment / 4)
        assert await cache.ttl("l", version=0) is None

    async def test_incr_version_of_a_key_that_is_not_there_is_an_error(self, cache: Driver) -> None:
        """incr_version() of an absent or expired key raises a ValueError, as in Django."""
        with pytest.raises(KeyNotFoundError):
            await cache.incr_version("k")
        with pytest.raises(ValueError, match="k"):
            await cache.decr_version("k")
        await cache.set("k", 1, timeout=self.moment)
        await self.pass_time(self.moment * 1.5)
        with pytest.raises(KeyNotFoundError):
            await cache.incr_version("k")
        assert await cache.get("k", "absent", version=2) == "absent"

    # Keys made in another way ---------------------------------------------------------------

    @pytest.mark.parametrize("make_key", [typed_keys, hashed_keys])
    async def test_key_function_makes_the_keys(
        self, drive: Callable[..., Driver], make_key: Callable[..., str]
    ) -> None:
        """KEY_FUNCTION makes the storage keys of every operation; results have the caller's keys."""
        cache = drive(KEY_FUNCTION=make_key, KEY_PREFIX="p")
        assert cache.cache.make_key("k", version=3) == make_key("k", "p", 3)
        await cache.set("k", 1)
        await cache.set("k", 2, version=2)
        assert await cache.get("k") == 1
        assert await cache.get_many(["k", "l"]) == {"k": 1}
        assert await cache.incr("k") == 2
        assert await cache.delete("k", version=2) is True
        assert await drive(KEY_PREFIX="p").get("k", "absent") == "absent"

    async def test_key_function_may_be_a_dotted_path(self, drive: Callable[..., Driver]) -> None:
        """KEY_FUNCTION may be a dotted path, as in Django."""
        cache = drive(KEY_FUNCTION=f"{__name__}.typed_keys")
        await cache.set("k", 1)
        assert await drive(KEY_FUNCTION=typed_keys).get("k") == 1

    @needs("enumerate")
    async def test_keys_turns_a_readable_key_function_back(self, drive: Callable[..., Driver]) -> None:
        """keys() and count() turn back the storage keys of a readable KEY_FUNCTION."""
        cache, other = drive(KEY_FUNCTION=typed_keys, KEY_PREFIX="p"), drive(KEY_FUNCTION=typed_keys, KEY_PREFIX="q")
        await cache.set_many({"a": 1, "b": 2})
        await cache.set("c", 3, version=2)
        await other.set("d", 4)
        assert sorted(await cache.keys()) == ["a", "b"]
        assert await cache.keys("a") == ["a"]
        assert await cache.count(version=2) == 1
        assert await other.keys() == ["d"]

    @needs("enumerate")
    async def test_keys_says_when_a_key_function_cannot_be_turned_back(self, drive: Callable[..., Driver]) -> None:
        """keys() and count() raise NotSupportedError, which names a KEY_FUNCTION that cannot be turned back."""
        cache = drive(KEY_FUNCTION=hashed_keys)
        await cache.set("k", 1)
        with pytest.raises(NotSupportedError, match="hashed_keys"):
            await cache.keys()
        with pytest.raises(NotSupportedError, match="hashed_keys"):
            await cache.count()

    async def test_a_class_may_make_keys_itself(
        self, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A class may override make_key(), as in Django."""
        default = drive()

        def make_key(_: BaseCache, key: object, version: int | None = None) -> str:
            return f"mine:{version}:{key}"

        monkeypatch.setattr(type(default.cache), "make_key", make_key)
        cache = drive()
        await cache.set("k", 1)
        assert await cache.get("k") == 1
        assert await cache.get_many(["k"]) == {"k": 1}
        monkeypatch.undo()
        assert await default.get("k", "absent") == "absent"

    async def test_a_class_may_refuse_keys(self, drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch) -> None:
        """A class may override validate_key(), as in Django: every operation asks it, and stores nothing refused."""

        def refuse(_: BaseCache, key: str) -> None:
            if "bad" in key:
                raise InvalidCacheKey(f"The key {key!r} is bad.")

        monkeypatch.setattr(type(drive().cache), "validate_key", refuse)
        cache = drive()
        await cache.set("good", 1)
        assert await cache.get("good") == 1
        for operation in (
            cache.get("bad"),
            cache.set("bad", 1),
            cache.add("bad", 1),
            cache.delete("bad"),
            cache.touch("bad"),
            cache.incr("bad"),
            cache.has_key("bad"),
            cache.get_many(["good", "bad"]),
            cache.set_many({"good": 2, "bad": 1}),
            cache.delete_many(["good", "bad"]),
            cache.get_or_set("bad", 1),
            cache.incr_version("bad"),
            cache.ttl("bad"),
        ):
            with pytest.raises(InvalidCacheKey, match="bad"):
                await operation
        assert await cache.get("good") == 1
