"""Sets, hashes and sorted sets of a Redis server, whose members are values of the cache, by redis-py's client."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from storeroom.integrations.django_redis.keys import CacheKey

__all__ = ["Collections"]


class Collections:
    """The operations of django-redis on sets, hashes and sorted sets.

    Each takes `version`, of the key, and `client`: redis-py's, or a pipeline of it, to be used in place of the cache's.
    """

    def make_key(self, key: Any, version: int | None = None, prefix: str | None = None) -> CacheKey:
        """Return the storage key."""
        raise NotImplementedError

    def encode(self, value: Any, *, allow_int: bool = True) -> Any:
        """Return a value's bytes."""
        raise NotImplementedError

    def decode(self, value: Any) -> Any:
        """Return the value of bytes."""
        raise NotImplementedError

    def _reader(self, client: Any) -> Any:
        raise NotImplementedError

    def _writer(self, client: Any) -> Any:
        raise NotImplementedError

    def _has_compression_enabled(self) -> bool:
        raise NotImplementedError

    def _keys(self, keys: Iterable[Any], version: int | None) -> list[CacheKey]:
        return [self.make_key(key, version) for key in keys]

    def _encoded(self, values: Iterable[Any], *, allow_int: bool = True) -> list[Any]:
        return [self.encode(value, allow_int=allow_int) for value in values]

    def _set(self, found: Iterable[Any]) -> set[Any]:
        return {self.decode(data) for data in found}

    # Sets ---------------------------------------------------------------------------------------

    def sadd(self, key: Any, *values: Any, version: int | None = None, client: Any = None) -> int:
        """Add members to a set. Return how many are new."""
        return int(self._writer(client).sadd(self.make_key(key, version), *self._encoded(values)))

    def scard(self, key: Any, version: int | None = None, client: Any = None) -> int:
        """Return the number of a set's members."""
        return int(self._reader(client).scard(self.make_key(key, version)))

    def sdiff(self, *keys: Any, version: int | None = None, client: Any = None) -> set[Any]:
        """Return the members of the first set that are in none of the others."""
        return self._set(self._reader(client).sdiff(*self._keys(keys, version)))

    def sdiffstore(
        self, dest: Any, *keys: Any, version_dest: int | None = None, version_keys: int | None = None,
        client: Any = None,
    ) -> int:  # fmt: skip
        """Store what sdiff() returns as a set. Return its size."""
        writer = self._writer(client)
        return int(writer.sdiffstore(self.make_key(dest, version_dest), *self._keys(keys, version_keys)))

    def sinter(self, *keys: Any, version: int | None = None, client: Any = None) -> set[Any]:
        """Return the members that all sets have."""
        return self._set(self._reader(client).sinter(*self._keys(keys, version)))

    def sinterstore(self, dest: Any, *keys: Any, version: int | None = None, client: Any = None) -> int:
        """Store what sinter() returns as a set. Return its size."""
        return int(self._writer(client).sinterstore(self.make_key(dest, version), *self._keys(keys, version)))

    def sunion(self, *keys: Any, version: int | None = None, client: Any = None) -> set[Any]:
        """Return the members that any of the sets has."""
        return self._set(self._reader(client).sunion(*self._keys(keys, version)))

    def sunionstore(self, destination: Any, *keys: Any, version: int | None = None, client: Any = None) -> int:
        """Store what sunion() returns as a set. Return its size."""
        return int(self._writer(client).sunionstore(self.make_key(destination, version), *self._keys(keys, version)))

    def sismember(self, key: Any, member: Any, version: int | None = None, client: Any = None) -> bool:
        """Tell whether a set has this member."""
        return bool(self._reader(client).sismember(self.make_key(key, version), self.encode(member)))

    def smismember(self, key: Any, *members: Any, version: int | None = None, client: Any = None) -> list[bool]:
        """Tell of each whether a set has it."""
        found = self._reader(client).smismember(self.make_key(key, version), *self._encoded(members))
        return [bool(is_there) for is_there in found]

    def smembers(self, key: Any, version: int | None = None, client: Any = None) -> set[Any]:
        """Return the members of a set."""
        return self._set(self._reader(client).smembers(self.make_key(key, version)))

    def smove(self, source: Any, destination: Any, member: Any, version: int | None = None, client: Any = None) -> bool:
        """Move a member to another set, of the cache's own version. Return whether it was there."""
        keys = self.make_key(source, version), self.make_key(destination)
        return bool(self._writer(client).smove(*keys, self.encode(member)))

    def spop(self, key: Any, count: int | None = None, version: int | None = None, client: Any = None) -> Any:
        """Take any member out of a set, or so many as a set; None if there is none."""
        found = self._writer(client).spop(self.make_key(key, version), count)
        return self._some(found, set)

    def srandmember(self, key: Any, count: int | None = None, version: int | None = None, client: Any = None) -> Any:
        """Return any member of a set, or so many as a list; None if there is none."""
        return self._some(self._reader(client).srandmember(self.make_key(key, version), count), list)

    def _some(self, found: Any, kind: type) -> Any:
        if found is None:
            return None
        is_one = isinstance(found, bytes | str | int)
        return self.decode(found) if is_one else kind(self.decode(data) for data in found)

    def srem(self, key: Any, *members: Any, version: int | None = None, client: Any = None) -> int:
        """Remove members from a set. Return how many were there."""
        return int(self._writer(client).srem(self.make_key(key, version), *self._encoded(members)))

    def sscan(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None,
        client: Any = None,
    ) -> set[Any]:  # fmt: skip
        """Return some members of a set: see SSCAN. `match` is a pattern of the members' bytes."""
        _, found = self._reader(client).sscan(self.make_key(key, version), match=self._pattern(match), count=count)
        return self._set(found)

    def sscan_iter(
        self, key: Any, match: str | None = None, count: int | None = 10, version: int | None = None,
        client: Any = None,
    ) -> Iterator[Any]:  # fmt: skip
        """Yield the members of a set, `count` of them asked for in a step."""
        found = self._reader(client).sscan_iter(self.make_key(key, version), match=self._pattern(match), count=count)
        return map(self.decode, found)

    def _pattern(self, match: str | None) -> Any:
        if match and self._has_compression_enabled():
            raise ValueError("Using match with compression is not supported.")
        return self.encode(match) if match else None

    # Hashes -------------------------------------------------------------------------------------

    def hset(
        self, key: Any, field: Any = None, value: Any = None, mapping: Mapping[Any, Any] | None = None,
        version: int | None = None, client: Any = None,
    ) -> int:  # fmt: skip
        """Set fields of a hash. Return how many are new."""
        encoded = None if mapping is None else {name: self.encode(each) for name, each in mapping.items()}
        own = None if value is None else self.encode(value)
        return int(self._writer(client).hset(self.make_key(key, version), key=field, value=own, mapping=encoded))

    def hdel(self, key: Any, field: Any, version: int | None = None, client: Any = None) -> int:
        """Remove a field of a hash. Return how many were there."""
        return int(self._writer(client).hdel(self.make_key(key, version), field))

    def hlen(self, key: Any, version: int | None = None, client: Any = None) -> int:
        """Return the number of a hash's fields."""
        return int(self._reader(client).hlen(self.make_key(key, version)))

    def hkeys(self, key: Any, version: int | None = None, client: Any = None) -> list[str]:
        """Return the names of a hash's fields."""
        found = self._reader(client).hkeys(self.make_key(key, version))
        return [name.decode() if isinstance(name, bytes) else name for name in found]

    def hexists(self, key: Any, field: Any, version: int | None = None, client: Any = None) -> bool:
        """Tell whether a hash has this field."""
        return bool(self._reader(client).hexists(self.make_key(key, version), field))

    # Sorted sets --------------------------------------------------------------------------------

    def _member(self, value: Any) -> Any:
        return self.encode(value, allow_int=False)

    def _ranked(self, found: Iterable[Any], *, withscores: bool) -> list[Any]:
        if withscores:
            return [(self.decode(member), score) for member, score in found]
        return [self.decode(member) for member in found]

    def zadd(
        self, key: Any, mapping: Mapping[Any, float], nx: bool = False, xx: bool = False, ch: bool = False,
        incr: bool = False, gt: bool = False, lt: bool = False, version: int | None = None, client: Any = None,
    ) -> Any:  # fmt: skip
        """Add members with scores: see ZADD."""
        scores = {self._member(member): score for member, score in mapping.items()}
        writer = self._writer(client)
        return writer.zadd(self.make_key(key, version), scores, nx=nx, xx=xx, ch=ch, incr=incr, gt=gt, lt=lt)

    def zcard(self, key: Any, version: int | None = None, client: Any = None) -> int:
        """Return the number of members."""
        return int(self._reader(client).zcard(self.make_key(key, version)))

    def zcount(self, key: Any, min: Any, max: Any, version: int | None = None, client: Any = None) -> int:
        """Return the number of members whose score is between these."""
        return int(self._reader(client).zcount(self.make_key(key, version), min, max))

    def zincrby(self, key: Any, amount: float, value: Any, version: int | None = None, client: Any = None) -> Any:
        """Add to a member's score, and return the new one."""
        return self._writer(client).zincrby(self.make_key(key, version), amount, self._member(value))

    def zpopmax(self, key: Any, count: int | None = None, version: int | None = None, client: Any = None) -> Any:
        """Take the members of the highest scores out: a pair of member and score, or a list of `count` pairs."""
        return self._popped(self._writer(client).zpopmax(self.make_key(key, version), count), count)

    def zpopmin(self, key: Any, count: int | None = None, version: int | None = None, client: Any = None) -> Any:
        """Take the members of the lowest scores out: see zpopmax()."""
        return self._popped(self._writer(client).zpopmin(self.make_key(key, version), count), count)

    def _popped(self, found: Any, count: int | None) -> Any:
        pairs = self._ranked(found or (), withscores=True)
        if count is None:
            return pairs[0] if pairs else None
        return pairs

    def zrange(
        self, key: Any, start: int, end: int, desc: bool = False, withscores: bool = False,
        score_cast_func: Any = float, version: int | None = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Return the members from one rank to another, by their scores."""
        terms = {"desc": desc, "withscores": withscores, "score_cast_func": score_cast_func}
        found = self._reader(client).zrange(self.make_key(key, version), start, end, **terms)
        return self._ranked(found, withscores=withscores)

    def zrevrange(
        self, key: Any, start: int, end: int, withscores: bool = False, score_cast_func: Any = float,
        version: int | None = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Return the members from one rank to another, the highest score first."""
        terms = {"withscores": withscores, "score_cast_func": score_cast_func}
        found = self._reader(client).zrevrange(self.make_key(key, version), start, end, **terms)
        return self._ranked(found, withscores=withscores)

    def zrangebyscore(
        self, key: Any, min: Any, max: Any, start: int | None = None, num: int | None = None,
        withscores: bool = False, score_cast_func: Any = float, version: int | None = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Return the members whose score is between these; of them `num`, from the one of rank `start`."""
        terms = {"start": start, "num": num, "withscores": withscores, "score_cast_func": score_cast_func}
        found = self._reader(client).zrangebyscore(self.make_key(key, version), min, max, **terms)
        return self._ranked(found, withscores=withscores)

    def zrevrangebyscore(
        self, key: Any, max: Any, min: Any, start: int | None = None, num: int | None = None,
        withscores: bool = False, score_cast_func: Any = float, version: int | None = None, client: Any = None,
    ) -> list[Any]:  # fmt: skip
        """Do as zrangebyscore(), the highest score first."""
        terms = {"start": start, "num": num, "withscores": withscores, "score_cast_func": score_cast_func}
        found = self._reader(client).zrevrangebyscore(self.make_key(key, version), max, min, **terms)
        return self._ranked(found, withscores=withscores)

    def zrank(
        self, key: Any, value: Any, withscore: bool = False, version: int | None = None, client: Any = None
    ) -> Any:
        """Return a member's rank, from the lowest score; None if it is not there."""
        return self._reader(client).zrank(self.make_key(key, version), self._member(value), withscore=withscore)

    def zrem(self, key: Any, *values: Any, version: int | None = None, client: Any = None) -> int:
        """Remove members. Return how many were there."""
        return int(self._writer(client).zrem(self.make_key(key, version), *self._encoded(values, allow_int=False)))

    def zremrangebyscore(self, key: Any, min: Any, max: Any, version: int | None = None, client: Any = None) -> int:
        """Remove the members whose score is between these. Return how many that were."""
        return int(self._writer(client).zremrangebyscore(self.make_key(key, version), min, max))

    def zscore(self, key: Any, value: Any, version: int | None = None, client: Any = None) -> float | None:
        """Return a member's score; None if it is not there."""
        score: float | None = self._reader(client).zscore(self.make_key(key, version), self._member(value))
        return score
