"""Scripts, and the same without them for users who may not run any: WATCH and MULTI, on one connection.

The server carries the changes out if nobody has changed the keys since they were read; else all begins anew.

Source: https://redis.io/docs/latest/develop/using-commands/transactions/
"""

import re
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from redis.exceptions import AskError, MovedError, NoPermissionError, NoScriptError, TryAgainError

from storeroom.backends.redis import scripts
from storeroom.backends.redis.requests import Command, Exchange, Request, Use, checked, is_forbidden, is_wrong_type
from storeroom.backends.redis.scripts import Script
from storeroom.exceptions import StorageError
from storeroom.storage.envelope import is_packed

__all__ = ["DECIDE", "Runner", "dialogue", "is_watched"]

Plan = tuple[Sequence[Command], Callable[..., Any]]
"""Commands that read, and a function of their replies: the changes, or the script's reply where there are none."""

_NUMBER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_SMALL: Final = range(-(2**63), 2**63)

DECIDE: Final = "DECIDE"
"""Stands at the end of commands that are watched, with the first key, and the function that decides on the changes."""

_REST_SECONDS: Final = 60.0
"""Age of a refusal to run scripts at which it is asked for again: somebody may have given the right."""


class _Changes(list[Command]):
    """Changes to be carried out together; the reply to the last is the script's, or 1 for a compared value."""


class Runner:
    """Runs the scripts of one cache, or does without."""

    def __init__(self) -> None:
        self._scripts_at = 0.0
        self._refusal: Exception | None = None

    def run(
        self, script: Script, use: Use, *args: Any, keys: int = 1,
        send: Callable[[Sequence[Command], Use], Exchange[list[Any]]] | None = None,
    ) -> Exchange[Any]:  # fmt: skip
        """Run a script by its digest; a server that does not know it yet gets its source."""
        send = send or _send
        if time.monotonic() >= self._scripts_at:
            (reply,) = yield from send((("EVALSHA", script.digest, keys, *args),), use)
            if isinstance(reply, NoScriptError):
                (reply,) = yield from send((("EVAL", script.source, keys, *args),), use)
            if not isinstance(reply, NoPermissionError) or "access" in str(reply):  # that is: to the keys
                return None if is_wrong_type(reply) else checked(reply)
            self._scripts_at, self._refusal = time.monotonic() + _REST_SECONDS, reply
        try:
            return (yield from _without(script, args[:keys], args[keys:]))
        except StorageError as error:
            if not is_forbidden(error.__cause__):
                raise
        return checked(self._refusal)


def _send(commands: Sequence[Command], use: Use) -> Exchange[list[Any]]:
    return (yield Request(commands, use))


def _without(script: Script, keys: Sequence[bytes], args: Sequence[Any]) -> Exchange[Any]:
    """Do what a script does; return its reply."""
    reads, decide = _PLANS[script](*keys, *args)
    answer: Any = None

    def changes(replies: Sequence[Any]) -> Sequence[Command]:
        nonlocal answer
        answer = decide(*replies)
        return answer if isinstance(answer, _Changes) else ()

    commands: Any = (("WATCH", *keys), *reads, (DECIDE, keys[0], changes))
    while True:
        *told, done = yield Request(commands, Use.ONCE)
        checked(told[0])
        replies = checked(done)
        if not isinstance(answer, _Changes):
            return None if is_wrong_type(answer) else answer
        if replies is not None:
            last = checked(replies[-1])
            return 1 if script in _ANSWERING_ONE else last


def is_watched(commands: Sequence[Command]) -> bool:
    """Tell whether commands need a connection of their own for two round trips: see dialogue()."""
    return commands[-1][0] == DECIDE


def dialogue(commands: Sequence[Any]) -> Generator[Sequence[Command], list[Any], list[Any]]:
    """Yield commands for one connection, are sent the replies of each round trip; return those to all commands."""
    *reads, (_, _, decide) = commands
    told = [_later(reply) for reply in (yield reads)]
    failed = next((reply for reply in told if isinstance(reply, Exception) and not is_wrong_type(reply)), None)
    changes = () if failed is not None else decide(told[1:])
    if not changes:
        yield (("UNWATCH",),)
        return [*told, failed]
    replies = yield (("MULTI",), *changes, ("EXEC",))
    return [*told, next((reply for reply in replies if isinstance(reply, Exception)), replies[-1])]


def _later(reply: Any) -> Any:
    """Return a reply; for one of a slot that is on its way to another server, an error to try again after."""
    is_between = isinstance(reply, AskError) and not isinstance(reply, MovedError)
    return TryAgainError(f"ASK {reply}") if is_between else reply


def _incr(key: bytes, delta: int) -> Plan:
    def decide(old: Any) -> Any:
        if old is None or isinstance(old, Exception):
            return old
        is_counted = _NUMBER.fullmatch(old) and int(old) in _SMALL and int(old) + delta in _SMALL
        return _Changes([("INCRBY", key, delta), ("GET", key)]) if is_counted else [old]

    return [("GET", key)], decide


def _compared(expected: bytes, changes: Callable[..., list[Command]]) -> Callable[..., Any]:
    def decide(old: Any, *more: Any) -> Any:
        return _Changes(changes(*more)) if old == expected else old

    return decide


def _compare_set(key: bytes, expected: bytes, new: bytes) -> Plan:
    return [("GET", key)], _compared(expected, lambda: [("SET", key, new, "KEEPTTL")])


def _compare_delete(key: bytes, expected: bytes) -> Plan:
    return [("GET", key)], _compared(expected, lambda: [("UNLINK", key)])


def _compare_set_until(key: bytes, expected: bytes, new: bytes, left: Any) -> Plan:
    change: Command = ("SET", key, new) if left == b"" else ("SET", key, new, "PX", left)
    decide = _compared(expected, lambda: [change])
    return [("GET", key)], lambda old: decide(b"" if is_wrong_type(old) else old)


def _compare_rename(key: bytes, new_key: bytes, expected: bytes, new: bytes) -> Plan:
    def changes(left: Any) -> list[Command]:
        change: Command = ("SET", new_key, new) if left < 0 else ("SET", new_key, new, "PX", max(left, 1))
        return [change, ("UNLINK", key)]

    return [("GET", key), ("PTTL", key)], _compared(expected, changes)


def _unless_envelope(key: bytes, offset: int, changes: Callable[[Any], Any]) -> Plan:
    def decide(head: Any) -> Any:
        return scripts.IS_ENVELOPE if isinstance(head, bytes) and is_packed(head) else changes(head)

    return [("GETRANGE", key, 0, offset)], decide


def _rename(key: bytes, new_key: bytes, offset: int, _: bytes) -> Plan:
    return _unless_envelope(key, offset, lambda head: _Changes([("RENAME", key, new_key)]) if head else 0)


def _touch(key: bytes, offset: int, _: bytes, left: Any) -> Plan:
    changes: list[Command] = [("PERSIST", key), ("EXISTS", key)] if left == b"" else [("PEXPIRE", key, left)]
    return _unless_envelope(key, offset, lambda head: head if is_wrong_type(head) else _Changes(changes))


_PLANS: Final[dict[Script, Callable[..., Plan]]] = {
    scripts.INCR: _incr,
    scripts.COMPARE_SET: _compare_set,
    scripts.COMPARE_DELETE: _compare_delete,
    scripts.COMPARE_RENAME: _compare_rename,
    scripts.COMPARE_SET_UNTIL: _compare_set_until,
    scripts.RENAME: _rename,
    scripts.TOUCH: _touch,
}

_ANSWERING_ONE: Final = frozenset(
    {scripts.COMPARE_SET, scripts.COMPARE_RENAME, scripts.COMPARE_SET_UNTIL, scripts.RENAME}
)
