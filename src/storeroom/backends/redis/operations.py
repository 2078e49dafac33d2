"""The operations of the cache: the requests of each, and its result.

A timeout goes to the server as milliseconds from now, and comes back as such: the clocks of the hosts need not agree.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError

from storeroom import storage, timeouts
from storeroom.backends.redis import scripts
from storeroom.backends.redis.foreign import ForeignReader
from storeroom.backends.redis.limits import Limit
from storeroom.backends.redis.listing import each_batch
from storeroom.backends.redis.names import is_former, key_text, literal, on_server
from storeroom.backends.redis.replies import answered, frame_of, head_of, is_envelope, whole
from storeroom.backends.redis.requests import (
    Command,
    Exchange,
    Request,
    Use,
    checked,
    is_wrong_type,
    one,
)
from storeroom.backends.redis.watching import Runner
from storeroom.engines.counts import Counters
from storeroom.exceptions import DecodeError, StorageError
from storeroom.serializers import Codec
from storeroom.storage.copies import alike
from storeroom.storage.counters import numeric
from storeroom.storage.envelope import FIRST_BYTE, KIND_BYTES, LEASED_BYTES, Envelope, is_over
from storeroom.storage.hooks import ABSENT, LOOK, MISSING, Conditional, Swap
from storeroom.timeouts import NEVER

__all__ = ["FullError", "Operations", "key_bytes", "keys_bytes", "until"]

T = TypeVar("T")

MAX_MILLISECONDS: Final = 2**53
"""Redis refuses expiries beyond 64 bits; this is 285,000 years."""

_SMALL: Final = range(-(2**63), 2**63)
"""The numbers that INCRBY takes."""

_NOT_RUN: Final = (NoScriptError, NoPermissionError)

_STORED: Final = b"OK"
"""The reply to a SET that was carried out."""

_NO_EXPIRY: Final = -1
_ABSENT: Final = -2
"""Replies to PTTL: https://redis.io/commands/pttl."""


def key_bytes(storage_key: str) -> bytes:
    """Return the name of a key on the server; any text has one, lone surrogates included."""
    if "\x00" in storage_key:
        storage_key = on_server(storage_key)
    try:
        return storage_key.encode()
    except UnicodeEncodeError:
        return storage_key.encode("utf-8", "surrogatepass")


def keys_bytes(storage_keys: Collection[str]) -> list[bytes]:
    """Return the names of several keys: see key_bytes()."""
    names = storage.batches.encoded("", storage_keys, sys.maxsize, True)
    return list(map(key_bytes, storage_keys)) if names is None else names


def _milliseconds(expires_at: float) -> int:
    """Return the milliseconds left, at least one."""
    return max(1, round(min((expires_at - timeouts.now()) * 1000, MAX_MILLISECONDS)))


def _left(expires_at: float) -> bytes | int:
    """Return the milliseconds left, as a script takes them: none for never."""
    return b"" if expires_at == NEVER else _milliseconds(expires_at)


def until(milliseconds: int) -> float:
    """Return the expires_at of a reply to PTTL."""
    return NEVER if milliseconds == _NO_EXPIRY else timeouts.now() + milliseconds / 1000


class FullError(StorageError):
    """The server has no room for a write, and evicts nothing."""


@dataclass(slots=True, eq=False)
class Operations:
    """The operations of one cache.

    Attributes:
        is_cluster: the keys of one command must then lie in one slot, and each gets its own.
        is_bound: a value's bytes are only good under its key, as those that are signed.
        without_room: counts a write for which the server had no room; returns False, or raises its argument.
    """

    codec: Codec | ForeignReader
    counters: Counters
    is_cluster: bool
    is_bound: bool
    without_room: Callable[[StorageError], bool]
    limit: Limit = field(default_factory=Limit)
    _run: Callable[..., Exchange[Any]] = field(default_factory=lambda: Runner().run)

    # Reading --------------------------------------------------------------------------------

    def get(self, storage_key: str) -> Exchange[Any]:
        """One GET."""
        (reply,) = yield Request((("GET", key_bytes(storage_key)),), Use.READ)
        return self._decoded(storage_key, reply)

    def get_many(self, storage_keys: Sequence[str]) -> Exchange[dict[str, Any]]:
        """One MGET; in a cluster one GET for each key, all together."""
        if not storage_keys:
            return {}
        keys = keys_bytes(storage_keys)
        if not self.is_cluster:
            (replies,) = yield one(Use.READ, "MGET", *keys)
            return self._decoded_many(storage_keys, checked(replies))
        replies = yield Request([("GET", key) for key in keys], Use.READ, may_lack=True)
        told, lost = answered(storage_keys, replies)
        return whole(self._decoded_many(list(told), list(told.values())), lost)

    def get_dated(self, storage_keys: Sequence[str]) -> Exchange[dict[str, tuple[Any, float | None]]]:
        """One GET and one PTTL for each key, all together."""
        if not storage_keys:
            return {}
        keys = keys_bytes(storage_keys)
        replies = yield Request([(name, key) for key in keys for name in ("GET", "PTTL")], Use.READ, may_lack=True)
        told, lost = answered(storage_keys, zip(replies[::2], replies[1::2], strict=True))
        found: dict[str, tuple[Any, float | None]] = {}
        for storage_key, (reply, left) in told.items():
            value, expires_at = self._decoded(storage_key, reply), until(checked(left))
            if value is not MISSING:
                found[storage_key] = value, expires_at  # in the past if it expired between the two
        return whole(found, lost)

    def _decoded(self, storage_key: str, reply: Any) -> Any:
        """Return the value of a reply to GET, or MISSING, also for bytes that cannot be decoded."""
        if reply is None:
            return MISSING
        frame = reply if type(reply) is bytes else frame_of(reply)
        self.counters.bytes_read += len(frame)
        try:
            return self.codec.loads(frame, storage_key)
        except DecodeError:
            self.counters.errors += 1
            return MISSING

    def _decoded_many(self, storage_keys: Sequence[str], replies: Sequence[Any]) -> dict[str, Any]:
        """Do as _decoded() for several storage keys and replies; those without a value are absent."""
        frames = [reply if reply is None or type(reply) is bytes else frame_of(reply) for reply in replies]
        self.counters.bytes_read += sum(map(len, filter(None, frames)))
        values, unread = self.codec.loads_many(storage_keys, frames)
        self.counters.errors += unread
        return values

    def expiry(self, storage_key: str) -> Exchange[Any]:
        """One PTTL, and the first bytes, together."""
        key = key_bytes(storage_key)
        reply, head = yield Request((("PTTL", key), head_of(key)), Use.READ)
        if checked(reply) == _ABSENT:
            return None
        return LOOK if is_envelope(head) else until(reply)

    def has(self, storage_key: str) -> Exchange[Any]:
        """One GETRANGE of the first bytes; no entry is empty."""
        (reply,) = yield Request((head_of(key_bytes(storage_key)),), Use.READ)
        return LOOK if is_envelope(reply) else bool(frame_of(reply)) or is_wrong_type(reply)

    # Writing --------------------------------------------------------------------------------

    def set(self, storage_key: str, value: Any, expires_at: float) -> Exchange[bool]:
        """One SET."""
        (reply,) = yield from self.limit.send((self._set_command(storage_key, value, expires_at),), Use.WRITE)
        yield from self._withdraw({storage_key: reply})
        return self._stored(reply)

    def set_many(self, values: Mapping[str, Any], expires_at: float) -> Exchange[Sequence[str]]:
        """One SET for each key, all together: each with its expiry, and each by itself."""
        if not values:
            return []
        replies = yield from self.limit.send(self._set_commands(values, expires_at), Use.WRITE, may_lack=True)
        told, lost = answered(values, replies)
        odd = {key: reply for key, reply in told.items() if reply != _STORED}
        yield from self._withdraw(odd)
        return whole([key for key, reply in odd.items() if not self._stored(reply)], lost)

    def _withdraw(self, replies: Mapping[str, Any]) -> Exchange[None]:
        """Remove the older values of entries for whose new ones there was no room."""
        refused = [key for key, reply in replies.items() if isinstance(reply, OutOfMemoryError)]
        if refused:
            yield from self.delete_many(refused)

    def add(self, storage_key: str, value: Any, expires_at: float) -> Exchange[Any]:
        """One SET NX, and the first bytes of the entry in the way, together."""
        command = *self._set_command(storage_key, value, expires_at), "NX"
        reply, head = yield from self.limit.send((command, head_of(command[1])), Use.ONCE)
        if reply is None:
            return LOOK if is_envelope(head) else False
        return self._stored(reply)

    def _frame_of(self, value: Any, storage_key: str) -> bytes:
        """Return the bytes of a value that are about to be sent."""
        frame = self.codec.dumps(value, storage_key)
        self.counters.bytes_written += len(frame)
        return frame

    def _set_command(self, storage_key: str, value: Any, expires_at: float) -> Command:
        command = "SET", key_bytes(storage_key), self._frame_of(value, storage_key)
        return command if expires_at == NEVER else (*command, "PX", _milliseconds(expires_at))

    def _set_commands(self, values: Mapping[str, Any], expires_at: float) -> list[Command]:
        frames = self.codec.dumps_many(values)
        self.counters.bytes_written += sum(map(len, frames))
        # As bytes, which pack() need not turn into them for each.
        end = () if expires_at == NEVER else ("PX", b"%d" % _milliseconds(expires_at))
        return [("SET", key, frame, *end) for key, frame in zip(keys_bytes(values), frames, strict=True)]

    def _stored(self, reply: Any) -> bool:
        """Tell whether a SET was carried out; a server that is full refuses it."""
        if isinstance(reply, OutOfMemoryError):
            return self.without_room(
                FullError(
                    f"The Redis server refused a write, for it is full and evicts nothing ({reply}). Give it more "
                    "maxmemory, or a maxmemory-policy that evicts, such as allkeys-lru."
                )
            )
        checked(reply)
        return True

    def delete(self, storage_key: str) -> Exchange[bool]:
        """One UNLINK, after the first bytes, together."""
        return (yield from self.delete_many([storage_key])) > 0

    def delete_many(self, storage_keys: Sequence[str]) -> Exchange[int]:
        """One UNLINK, in a cluster one for each key, after the first bytes of each, all together."""
        if not storage_keys:
            return 0
        keys, now = keys_bytes(storage_keys), timeouts.now()
        heads: list[Command] = [("GETRANGE", key, 0, LEASED_BYTES - 1) for key in keys]
        replies = yield Request(heads + self._unlinking(keys), Use.ONCE, may_lack=self.is_cluster)
        told, removed = replies[: len(keys)], replies[len(keys) :]
        lost: dict[str, Exception] = {}
        if self.is_cluster:
            both, lost = answered(storage_keys, zip(told, removed, strict=True))
            told, removed = [head for head, _ in both.values()], [count for _, count in both.values()]
        over = sum(isinstance(head, bytes) and is_over(head, now) for head in told)
        count: int = sum(map(checked, removed))
        return whole(max(0, count - over), lost)

    def _unlinking(self, keys: Sequence[bytes]) -> list[Command]:
        return [("UNLINK", key) for key in keys] if self.is_cluster or not keys else [("UNLINK", *keys)]

    def touch(self, storage_key: str, expires_at: float) -> Exchange[Any]:
        """One script."""
        left = _left(expires_at)
        touched = yield from self._run(
            scripts.TOUCH, Use.WRITE, key_bytes(storage_key), KIND_BYTES - 1, FIRST_BYTE, left
        )
        return LOOK if touched == scripts.IS_ENVELOPE else bool(touched)

    # Counting -------------------------------------------------------------------------------

    def incr(self, storage_key: str, delta: float) -> Exchange[float]:
        """One script for numbers that INCRBY takes; else values are compared and replaced."""
        key = key_bytes(storage_key)
        if type(delta) is int and delta in _SMALL:
            reply = yield from self._run(scripts.INCR, Use.ONCE, key, delta)
            if isinstance(reply, bytes):
                return int(reply)
            (old,) = reply or (None,)
        else:
            (old,) = yield one(Use.FRESH, "GET", key)
        while old is not None:
            frame = frame_of(old)
            new = numeric(storage_key, self._decoded(storage_key, frame)) + delta
            old = yield from self._run(scripts.COMPARE_SET, Use.ONCE, key, frame, self._frame_of(new, storage_key))
            if old == 1:
                return new
        raise KeyError(storage_key)

    # Moving and comparing -------------------------------------------------------------------

    def rename(self, storage_key: str, new_storage_key: str) -> Exchange[Any]:
        """One script; another one where the bytes must change with the key. In a cluster, two steps."""
        if storage_key == new_storage_key:
            return (yield from self.has(storage_key))
        if self.is_cluster:
            return (yield from self._copy_and_delete(storage_key, new_storage_key))
        if self.is_bound:
            return (yield from self._rename_bound(storage_key, new_storage_key))
        keys = key_bytes(storage_key), key_bytes(new_storage_key)
        moved = yield from self._run(scripts.RENAME, Use.ONCE, *keys, KIND_BYTES - 1, FIRST_BYTE, keys=2)
        return LOOK if moved == scripts.IS_ENVELOPE else bool(moved)

    def _rename_bound(self, storage_key: str, new_storage_key: str) -> Exchange[Any]:
        key, new_key = key_bytes(storage_key), key_bytes(new_storage_key)
        (old,) = yield one(Use.FRESH, "GET", key)
        while (value := self._decoded(storage_key, old)) is not MISSING:
            if type(value) is Envelope:
                return LOOK
            frame = self._frame_of(value, new_storage_key)
            old = yield from self._run(scripts.COMPARE_RENAME, Use.ONCE, key, new_key, frame_of(old), frame, keys=2)
            if old == 1:
                return True
        return False

    def _copy_and_delete(self, storage_key: str, new_storage_key: str) -> Exchange[Any]:
        """Move an entry between slots. Not atomic, but an entry that was changed meanwhile is not removed."""
        key = key_bytes(storage_key)
        old, milliseconds = yield Request((("GET", key), ("PTTL", key)), Use.FRESH)
        value = self._decoded(storage_key, old)
        if value is MISSING or checked(milliseconds) == _ABSENT:
            return False
        if type(value) is Envelope:
            return LOOK
        yield from self.set(new_storage_key, value, until(milliseconds))
        yield from self._run(scripts.COMPARE_DELETE, Use.ONCE, key, frame_of(old))
        return True

    def compare_delete(self, storage_key: str, expected: Any) -> Exchange[bool]:
        """One script, where a value read has the bytes written; else the entry is compared, and tried again."""
        return (yield from self._swap(storage_key, Swap(expected, MISSING, NEVER)))

    def compare_set(self, storage_key: str, expected: Any, value: Any, expires_at: float) -> Exchange[bool]:
        """One script: see compare_delete()."""
        return (yield from self._swap(storage_key, Swap(expected, value, expires_at)))

    def _swap(self, storage_key: str, swap: Swap) -> Exchange[bool]:
        script, key, frame, *new = self._swap_script(storage_key, swap)
        while True:
            try:
                reply = yield from self._run(script, Use.ONCE, key, frame, *new, send=self.limit.send)
            except StorageError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                return self._stored(error.__cause__)
            if not isinstance(reply, bytes):
                return bool(reply)
            if not alike(self._decoded(storage_key, reply), swap.expected):
                return False
            frame = reply

    def _swap_script(self, storage_key: str, swap: Swap) -> tuple[Any, ...]:
        """Return the script of a swap, the key, the bytes expected there, and the new ones with their expiry, if any.

        No bytes are expected for MISSING, as no entry is empty: the script returns an entry that cannot be read.
        """
        frame = b"" if swap.expected is MISSING else self.codec.dumps(swap.expected, storage_key)
        if swap.value is MISSING:
            return scripts.COMPARE_DELETE, key_bytes(storage_key), frame
        new = self._frame_of(swap.value, storage_key)
        return scripts.COMPARE_SET_UNTIL, key_bytes(storage_key), frame, new, _left(swap.expires_at)

    def swap_many(self, swaps: Mapping[str, Swap]) -> Exchange[dict[str, bool]]:
        """One SET NX or one script for each, all together; more for entries that have to be looked at again."""
        if not swaps:
            return {}
        commands = [self._swap_command(storage_key, swap) for storage_key, swap in swaps.items()]
        replies = yield from self.limit.send(commands, Use.ONCE, may_lack=True)
        told, lost = answered(swaps, replies)
        swapped = {}
        for storage_key, reply in told.items():
            swap = swaps[storage_key]
            if reply is None or is_wrong_type(reply):
                swapped[storage_key] = False
            elif swap.expected is ABSENT or isinstance(reply, OutOfMemoryError):
                swapped[storage_key] = self._stored(reply)
            elif isinstance(reply, NoScriptError | NoPermissionError) or self._is_equal(
                storage_key, reply, swap.expected
            ):
                swapped[storage_key] = yield from self._swap(storage_key, swap)
            else:
                swapped[storage_key] = checked(reply) == 1
        return whole(swapped, lost)

    def _swap_command(self, storage_key: str, swap: Swap) -> Command:
        if swap.expected is ABSENT:
            return (*self._set_command(storage_key, swap.value, swap.expires_at), "NX")
        script, *arguments = self._swap_script(storage_key, swap)
        return ("EVALSHA", script.digest, 1, *arguments)

    def _is_equal(self, storage_key: str, reply: Any, expected: Any) -> bool:
        """Tell whether other bytes than the expected ones were there, of the same writing."""
        return isinstance(reply, bytes) and alike(self._decoded(storage_key, reply), expected)

    # Listing and clearing -------------------------------------------------------------------

    def scan(self, start: str) -> Exchange[list[str]]:
        """SCAN, on every server that holds entries."""
        return (yield from self.match(start, "*"))

    def match(self, start: str, pattern: str, step: int | None = None) -> Exchange[list[str]]:
        """SCAN, with a pattern of the server's own after a literal start."""
        found: dict[str, None] = {}  # as SCAN may return a key twice

        def keep(keys: Sequence[bytes]) -> Exchange[int]:
            texts = {key: text for key in keys if (text := key_text(key)) is not None and text.startswith(start)}
            if texts:
                heads = yield Request([head_of(key) for key in texts], Use.FRESH)
                for text, head in zip(texts.values(), heads, strict=True):
                    found[Conditional(text) if is_envelope(head) else text] = None
            return 0

        yield from each_batch(key_bytes(literal(start) + pattern), keep, step)
        return list(found)

    def remove(self, start: str, pattern: str, owns: Callable[[str], bool], step: int | None = None) -> Exchange[int]:
        """SCAN and UNLINK the cache's own keys among those that match, in small steps. Return how many."""

        def remove(keys: Sequence[bytes]) -> Exchange[int]:
            own = [key for key in keys if (text := key_text(key)) is not None and owns(text)]
            present = self._unlinking([key for key in own if not is_former(key)])
            former = self._unlinking([key for key in own if is_former(key)])
            replies = (yield Request(present + former, Use.WRITE)) if own else []
            # Those with former names may be another user's.
            told = [reply for reply in replies[len(present) :] if not isinstance(reply, NoPermissionError)]
            return sum(map(checked, replies[: len(present)] + told))

        return (yield from each_batch(key_bytes(literal(start) + pattern), remove, step))

    def clear(self, start: str, owns: Callable[[str], bool]) -> Exchange[int]:
        """SCAN and UNLINK the cache's own entries and tags, in small steps."""
        # The former names of tags begin otherwise, which one pattern for both has to leave open.
        return (yield from self.remove("", f"*{literal(start)}*", owns))
