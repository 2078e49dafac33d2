"""What each operation of the cache asks of Redis, and what it makes of the replies.

Operations are generators: they yield requests and are sent replies, whoever carries them
(see requests.py). A timeout goes to the server as milliseconds from now, and comes back as
such: the clocks of the hosts need not agree.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError, OutOfMemoryError

from storeroom import timeouts
from storeroom.backends.redis import scripts
from storeroom.backends.redis.errors import checked, is_wrong_type
from storeroom.backends.redis.foreign import ForeignReader
from storeroom.backends.redis.requests import PRIMARIES, Command, Request, Steps, Use, one
from storeroom.backends.redis.scripts import Script
from storeroom.engines.counts import Counters
from storeroom.exceptions import DecodeError, StorageError, ValueTypeError
from storeroom.serializers import Codec
from storeroom.storage.envelope import FIRST_BYTE, KIND_BYTES, Envelope, is_packed
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Conditional, Swap
from storeroom.timeouts import NEVER

__all__ = ["SCAN_COUNT", "Operations", "key_bytes"]

SCAN_COUNT: Final = 1000
"""Keys that one SCAN looks at: a millisecond of the server's time at most."""

MAX_MILLISECONDS: Final = 2**53
"""Redis refuses expiries beyond 64 bits; this is 285,000 years."""

_SMALL: Final = range(-(2**63), 2**63)
"""What INCRBY takes."""

_GLOB: Final = str.maketrans({character: f"\\{character}" for character in "*?[]\\"})


def key_bytes(storage_key: str) -> bytes:
    """Return the bytes of a key; any text has some, lone surrogates included."""
    try:
        return storage_key.encode()
    except UnicodeEncodeError:
        return storage_key.encode("utf-8", "surrogatepass")


def _milliseconds(expires_at: float) -> int:
    """Return the milliseconds left, at least one."""
    left = expires_at - timeouts.now()
    return min(max(1, round(left * 1000)), MAX_MILLISECONDS) if left < MAX_MILLISECONDS else MAX_MILLISECONDS


class Operations:
    """The operations of one cache.

    Args:
        codec: turns values into bytes.
        counters: count what cannot be decoded.
        owns: tells whether a storage key is the cache's own.
        is_cluster: the keys of one command must then lie in one slot, and each gets its own.
        is_bound: a value's bytes are only good under its key, as those that are signed.
        without_room: notes that the server had no room for a write; returns False, or raises what it is given.
    """

    def __init__(
        self,
        codec: Codec | ForeignReader,
        counters: Counters,
        *,
        is_cluster: bool,
        is_bound: bool,
        without_room: Callable[[StorageError], bool],
    ) -> None:
        self._codec = codec
        self._counters = counters
        self._is_cluster = is_cluster
        self._is_bound = is_bound
        self._without_room = without_room

    # Reading --------------------------------------------------------------------------------

    def get(self, storage_key: str) -> Steps[Any]:
        """One GET."""
        (reply,) = yield one(Use.READ, "GET", key_bytes(storage_key))
        return self.decoded(storage_key, reply)

    def get_many(self, storage_keys: Sequence[str]) -> Steps[dict[str, Any]]:
        """One MGET; in a cluster one GET for each key, all together."""
        if not storage_keys:
            return {}
        keys = [key_bytes(storage_key) for storage_key in storage_keys]
        if self._is_cluster:
            replies = yield Request([("GET", key) for key in keys], Use.READ)
        else:
            (replies,) = yield one(Use.READ, "MGET", *keys)
            checked(replies)
        found = {key: self.decoded(key, reply) for key, reply in zip(storage_keys, replies, strict=True)}
        return {key: value for key, value in found.items() if value is not MISSING}

    def get_dated(self, storage_keys: Sequence[str]) -> Steps[dict[str, tuple[Any, float | None]]]:
        """One GET and one PTTL for each key, all together."""
        if not storage_keys:
            return {}
        keys = [key_bytes(storage_key) for storage_key in storage_keys]
        replies = yield Request([(name, key) for key in keys for name in ("GET", "PTTL")], Use.READ)
        found: dict[str, tuple[Any, float | None]] = {}
        for storage_key, reply, left in zip(storage_keys, replies[::2], replies[1::2], strict=True):
            value, milliseconds = self.decoded(storage_key, reply), checked(left)
            if value is not MISSING:
                # It may have expired between the two; see expiry() for the other negative number.
                found[storage_key] = value, NEVER if milliseconds == -1 else timeouts.now() + milliseconds / 1000
        return found

    def decoded(self, storage_key: str, reply: Any) -> Any:
        """Return the value of a reply to GET, or MISSING, also for what cannot be decoded."""
        if reply is None:
            return MISSING
        try:
            return self._codec.loads(_frame(reply), storage_key)
        except DecodeError:
            self._counters.errors += 1
            return MISSING

    def expiry(self, storage_key: str) -> Steps[Any]:
        """One PTTL, and the first bytes, together."""
        key = key_bytes(storage_key)
        reply, head = yield Request((("PTTL", key), _head(key)), Use.READ)
        milliseconds: int = checked(reply)
        if milliseconds < 0:  # https://redis.io/commands/pttl: -1 has no expiry, -2 does not exist
            return (LOOK if _is_envelope(head) else NEVER) if milliseconds == -1 else None
        return LOOK if _is_envelope(head) else timeouts.now() + milliseconds / 1000

    def has(self, storage_key: str) -> Steps[Any]:
        """One GETRANGE of the first bytes; nothing that is stored is empty."""
        (reply,) = yield Request((_head(key_bytes(storage_key)),), Use.READ)
        return LOOK if _is_envelope(reply) else bool(_frame(reply)) or is_wrong_type(reply)

    # Writing --------------------------------------------------------------------------------

    def set(self, storage_key: str, value: Any, expires_at: float) -> Steps[bool]:
        """One SET."""
        (reply,) = yield Request((self._set_command(storage_key, value, expires_at),), Use.WRITE)
        return self._stored(reply)

    def set_many(self, values: Mapping[str, Any], expires_at: float) -> Steps[Sequence[str]]:
        """One SET for each key, all together: each with its expiry, and all or nothing for no two of them."""
        if not values:
            return []
        commands = [self._set_command(key, value, expires_at) for key, value in values.items()]
        replies = yield Request(commands, Use.WRITE)
        return [key for key, reply in zip(values, replies, strict=True) if not self._stored(reply)]

    def add(self, storage_key: str, value: Any, expires_at: float) -> Steps[Any]:
        """One SET NX, and the first bytes of what is there, together."""
        command = *self._set_command(storage_key, value, expires_at), "NX"
        reply, head = yield Request((command, _head(command[1])), Use.ONCE)
        if reply is None:
            return LOOK if _is_envelope(head) else False
        return self._stored(reply)

    def _set_command(self, storage_key: str, value: Any, expires_at: float) -> Command:
        key, frame = key_bytes(storage_key), self._codec.dumps(value, storage_key)
        if expires_at == NEVER:
            return ("SET", key, frame)
        return ("SET", key, frame, "PX", _milliseconds(expires_at))

    def _stored(self, reply: Any) -> bool:
        """Tell whether a SET was carried out; a server that is full refuses it."""
        if isinstance(reply, OutOfMemoryError):
            return self._without_room(
                StorageError(
                    f"The Redis server refused a write, for it is full and evicts nothing ({reply}). Give it more "
                    "maxmemory, or a maxmemory-policy that evicts, such as allkeys-lru."
                )
            )
        checked(reply)
        return True

    def delete_many(self, storage_keys: Sequence[str]) -> Steps[int]:
        """One UNLINK; in a cluster one for each key, all together."""
        if not storage_keys:
            return 0
        keys = [key_bytes(storage_key) for storage_key in storage_keys]
        commands: list[Command] = [("UNLINK", key) for key in keys] if self._is_cluster else [("UNLINK", *keys)]
        replies = yield Request(commands, Use.ONCE)
        return sum(map(checked, replies))

    def touch(self, storage_key: str, expires_at: float) -> Steps[Any]:
        """One script."""
        milliseconds = b"" if expires_at == NEVER else _milliseconds(expires_at)
        key = key_bytes(storage_key)
        touched = yield from _run(scripts.TOUCH, Use.WRITE, key, KIND_BYTES - 1, FIRST_BYTE, milliseconds)
        return LOOK if touched == 2 else bool(touched)  # noqa: PLR2004 -- the script's word for it

    # Counting -------------------------------------------------------------------------------

    def incr(self, storage_key: str, delta: float) -> Steps[float]:
        """One script for what INCRBY can count; else values are compared and replaced."""
        key = key_bytes(storage_key)
        if type(delta) is int and delta in _SMALL:
            reply = yield from _run(scripts.INCR, Use.ONCE, key, delta)
            if isinstance(reply, bytes):
                return int(reply)
            old = reply[0] if reply else None
        else:
            (reply,) = yield one(Use.FRESH, "GET", key)
            old = None if reply is None else _frame(reply)
        while old is not None:
            new = self._number(storage_key, old) + delta
            reply = yield from _run(scripts.COMPARE_SET, Use.ONCE, key, old, self._codec.dumps(new, storage_key))
            if reply == 1:
                return new
            old = reply
        raise KeyError(storage_key)

    def _number(self, storage_key: str, frame: bytes) -> float:
        value = self.decoded(storage_key, frame)
        if value is MISSING:
            raise KeyError(storage_key)
        if not isinstance(value, int | float):
            raise ValueTypeError(
                f"The value of key {storage_key!r} is not a number; incr() and decr() need an int or a float."
            )
        return value

    # Moving and comparing -------------------------------------------------------------------

    def rename(self, storage_key: str, new_storage_key: str) -> Steps[Any]:
        """One script; another one where the bytes must change with the key. In a cluster, two steps."""
        if storage_key == new_storage_key:
            return (yield from self.has(storage_key))
        key, new_key = key_bytes(storage_key), key_bytes(new_storage_key)
        if self._is_cluster:
            return (yield from self._copy_and_delete(storage_key, new_storage_key))
        if self._is_bound:
            return (yield from self._rename_bound(storage_key, new_storage_key))
        moved = yield from _run(scripts.RENAME, Use.ONCE, key, new_key, KIND_BYTES - 1, FIRST_BYTE, keys=2)
        return LOOK if moved == 2 else bool(moved)  # noqa: PLR2004 -- the script's word for it

    def _rename_bound(self, storage_key: str, new_storage_key: str) -> Steps[Any]:
        keys = key_bytes(storage_key), key_bytes(new_storage_key)
        (old,) = yield one(Use.FRESH, "GET", keys[0])
        while (value := self.decoded(storage_key, old)) is not MISSING:
            if type(value) is Envelope:
                return LOOK
            frame = self._codec.dumps(value, new_storage_key)
            reply = yield from _run(scripts.COMPARE_RENAME, Use.ONCE, *keys, _frame(old), frame, keys=2)
            if reply == 1:
                return True
            old = reply
        return False

    def _copy_and_delete(self, storage_key: str, new_storage_key: str) -> Steps[Any]:
        """Move an entry between slots. Not atomic, but an entry that was changed meanwhile is not removed."""
        key = key_bytes(storage_key)
        old, milliseconds = yield Request((("GET", key), ("PTTL", key)), Use.FRESH)
        value = self.decoded(storage_key, old)
        if value is MISSING or checked(milliseconds) == -2:  # noqa: PLR2004 -- see expiry()
            return False
        if type(value) is Envelope:
            return LOOK
        expires_at = NEVER if milliseconds == -1 else timeouts.now() + milliseconds / 1000
        yield from self.set(new_storage_key, value, expires_at)
        yield from _run(scripts.COMPARE_DELETE, Use.ONCE, key, _frame(old))
        return True

    def compare_delete(self, storage_key: str, expected: Any) -> Steps[bool]:
        """One script, where equal values have equal bytes; else what is there is compared, and tried again."""
        key, frame = key_bytes(storage_key), self._codec.dumps(expected, storage_key)
        while True:
            reply = yield from _run(scripts.COMPARE_DELETE, Use.ONCE, key, frame)
            if not isinstance(reply, bytes):
                return bool(reply)
            if self.decoded(storage_key, reply) != expected:
                return False
            frame = reply

    def compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> Steps[bool]:
        """One script: see compare_delete()."""
        key, new = key_bytes(storage_key), self._codec.dumps(value, storage_key)
        # No entry is empty: the script then returns what there is, and it is found out whether that can be read.
        frame = b"" if expected is MISSING else self._codec.dumps(expected, storage_key)
        milliseconds = b"" if expires_at == NEVER else _milliseconds(expires_at)
        while True:
            try:
                reply = yield from _run(scripts.COMPARE_SET_UNTIL, Use.ONCE, key, frame, new, milliseconds)
            except StorageError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                return self._stored(error.__cause__)
            if not isinstance(reply, bytes):
                return bool(reply)
            if self.decoded(storage_key, reply) != expected:
                return False
            frame = reply

    def swap_many(self, swaps: Mapping[str, Swap]) -> Steps[dict[str, bool]]:
        """One SET NX or one script for each, all together; more for what has to be looked at again."""
        if not swaps:
            return {}
        commands = [self._swap_command(storage_key, swap) for storage_key, swap in swaps.items()]
        replies = yield Request(commands, Use.ONCE)
        swapped = {}
        for (storage_key, swap), reply in zip(swaps.items(), replies, strict=True):
            if isinstance(reply, OutOfMemoryError):
                swapped[storage_key] = self._stored(reply)
            elif reply is None or is_wrong_type(reply):
                swapped[storage_key] = False
            elif swap.expected is ABSENT:
                swapped[storage_key] = self._stored(reply)
            elif isinstance(reply, NoScriptError) or self._is_equal(storage_key, reply, swap.expected):
                swapped[storage_key] = yield from self._swap(storage_key, swap)
            else:
                swapped[storage_key] = checked(reply) == 1
        return swapped

    def _swap_command(self, storage_key: str, swap: Swap) -> Command:
        expected, value, expires_at = swap
        if expected is ABSENT:
            return (*self._set_command(storage_key, value, expires_at), "NX")
        frame = b"" if expected is MISSING else self._codec.dumps(expected, storage_key)
        if value is MISSING:
            return ("EVALSHA", scripts.COMPARE_DELETE.digest, 1, key_bytes(storage_key), frame)
        new, milliseconds = (
            self._codec.dumps(value, storage_key),
            b"" if expires_at == NEVER else _milliseconds(expires_at),
        )
        return ("EVALSHA", scripts.COMPARE_SET_UNTIL.digest, 1, key_bytes(storage_key), frame, new, milliseconds)

    def _is_equal(self, storage_key: str, reply: Any, expected: Any) -> bool:
        """Tell whether other bytes than the expected ones were there, of an equal value."""
        return isinstance(reply, bytes) and bool(self.decoded(storage_key, reply) == expected)

    def _swap(self, storage_key: str, swap: Swap) -> Steps[bool]:
        if swap.value is MISSING:
            return (yield from self.compare_delete(storage_key, swap.expected))
        return (yield from self.compare_set(storage_key, *swap))

    # Listing and clearing -------------------------------------------------------------------

    def scan(self, start: str) -> Steps[list[str]]:
        """SCAN, on every server that holds entries."""
        found = yield from self._scan_all(f"{start.translate(_GLOB)}*")
        return [key for key in found if key.startswith(start)]

    def match(self, start: str, pattern: str, step: int = SCAN_COUNT) -> Steps[list[str]]:
        """SCAN, with a pattern of the server's own after a literal start."""
        return (yield from self._scan_all(start.translate(_GLOB) + pattern, step))

    def _scan_all(self, pattern: str, step: int = SCAN_COUNT) -> Steps[list[str]]:
        found: dict[str, None] = {}  # in which none is twice, as SCAN may return it

        def keep(keys: Sequence[bytes]) -> Steps[int]:
            if keys:
                heads = yield Request([_head(key) for key in keys], Use.FRESH)
                for key, head in zip(keys, heads, strict=True):
                    if (text := _text(key)) is not None:
                        found[Conditional(text) if _is_envelope(head) else text] = None
            return 0

        yield from self._each_batch(pattern, keep, step)
        return list(found)

    def clear(self, start: str, owns: Callable[[str], bool]) -> Steps[int]:
        """SCAN and UNLINK, on every server that holds entries, in small steps."""
        return (yield from self.remove(start, "*", owns))

    def remove(self, start: str, pattern: str, owns: Callable[[str], bool], step: int = SCAN_COUNT) -> Steps[int]:
        """Remove the cache's own entries that match() would list. Return how many."""

        def remove(keys: Sequence[bytes]) -> Steps[int]:
            own = [key for key in keys if (text := _text(key)) is not None and owns(text)]
            if not own:
                return 0
            commands: list[Command] = [("UNLINK", key) for key in own] if self._is_cluster else [("UNLINK", *own)]
            replies = yield Request(commands, Use.WRITE)
            return sum(map(checked, replies))

        return (yield from self._each_batch(start.translate(_GLOB) + pattern, remove, step))

    def _each_batch(self, pattern: str, work: Callable[[Sequence[bytes]], Steps[int]], step: int) -> Steps[int]:
        """Do some work on each batch of keys that match; return the sum of its results."""
        total = 0
        for server in (yield PRIMARIES):
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", key_bytes(pattern), "COUNT", step)
                (reply,) = yield Request((command,), Use.FRESH, at=server)
                cursor, keys = checked(reply)
                total += yield from work(keys)
                if cursor == b"0":
                    break
        return total


def _run(script: Script, use: Use, *args: bytes | float, keys: int = 1) -> Steps[Any]:
    """Run a script by its digest; a server that does not know it yet gets its source."""
    (reply,) = yield one(use, "EVALSHA", script.digest, keys, *args)
    if isinstance(reply, NoScriptError):
        (reply,) = yield one(use, "EVAL", script.source, keys, *args)
    if is_wrong_type(reply):
        return None
    return checked(reply)


def _head(key: Any) -> Command:
    """Return the command for as many bytes of a value as tell whether it is an envelope."""
    return ("GETRANGE", key, 0, KIND_BYTES - 1)


def _is_envelope(head: Any) -> bool:
    return isinstance(head, bytes) and is_packed(head)


def _frame(reply: Any) -> bytes:
    """Return the bytes of a reply to GET: none, if there is something that is no string."""
    if is_wrong_type(reply):
        return b""
    frame: bytes = checked(reply)
    return frame


def _text(key: bytes) -> str | None:
    """Return the storage key, or None if no cache of Storeroom's can have made it."""
    try:
        return key.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
