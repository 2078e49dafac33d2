"""Lines of logs: the requests that Redis' MONITOR and Memcached's verbose mode print.

Sources: https://redis.io/docs/latest/commands/monitor, sdscatrepr() in Redis' sds.c for its quotes; Memcached's
doc/protocol.txt, and its output with ``-vv``.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["LineParser", "Request", "is_memcached", "is_monitor", "keys", "memcached", "monitor"]


class Request(NamedTuple):
    """A request of one key.

    Attributes:
        operation: "read", "write", "delete", or "clear" of all keys.
        key: its key, or "" of all.
        time: epoch seconds, or None if the line has none.
        timeout: seconds that what is written lives; ``math.inf`` for ever, None if the line does not say.
    """

    operation: str
    key: str
    time: float | None = None
    timeout: float | None = None


LineParser = Callable[[str], Iterator[Request] | None]
"""Returns the requests of a line, or None if it says nothing about a key. Raises ValueError with an expectation."""


def keys(line: str) -> Iterator[Request] | None:
    """Return the read of a line that is a key."""
    return iter([Request("read", line)]) if line else None


_Form = tuple[tuple[str, ...], slice]
"""The operations of a command, and which of its arguments are keys."""


def _requests(
    command: str, form: _Form, arguments: Sequence[str], time: float | None, timeout: float | None, start: str = ""
) -> Iterator[Request]:
    operations, named = form
    if operations == ("clear",):
        return iter([Request("clear", "", time)])
    if not arguments[named]:
        raise ValueError(f"expected a key after {command}")
    return iter([Request(each, f"{start}{key}", time, timeout) for key in arguments[named] for each in operations])


# Redis ----------------------------------------------------------------------------------------

_MONITORED: Final = re.compile(r'(\d+\.\d+) \[(\d+) \S*\] (".*")\s*')
_ARGUMENT: Final = re.compile(r'\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_CONTROLS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_UNITS: Final = {"EX": 1.0, "PX": 1e-3, "EXAT": 1.0, "PXAT": 1e-3}

_FIRST: Final = slice(1)
_ALL: Final = slice(None)
_REDIS: Final[Mapping[str, _Form]] = {
    **dict.fromkeys(("GET", "GETEX", "HGET", "HMGET", "HGETALL"), (("read",), _FIRST)),
    "MGET": (("read",), _ALL),
    "GETDEL": (("read", "delete"), _FIRST),
    **dict.fromkeys(("DEL", "UNLINK"), (("delete",), _ALL)),
    **dict.fromkeys(("SET", "SETEX", "PSETEX", "SETNX", "GETSET"), (("write",), _FIRST)),
    **dict.fromkeys(("MSET", "MSETNX"), (("write",), slice(None, None, 2))),
    **dict.fromkeys(("FLUSHDB", "FLUSHALL"), (("clear",), _ALL)),
}


def is_monitor(line: str) -> bool:
    """Tell whether a line is one of MONITOR."""
    return line == "OK" or _MONITORED.fullmatch(line) is not None


def monitor(line: str) -> Iterator[Request] | None:
    """Return the requests of a line of MONITOR."""
    if line in {"", "OK"}:
        return None
    matched = _MONITORED.fullmatch(line)
    if matched is None:
        raise ValueError('expected a line of MONITOR, such as 1700000000.123456 [0 127.0.0.1:50000] "get" "key"')
    time, database, rest = float(matched[1]), matched[2], matched[3]
    words = [_unquoted(each) for each in _ARGUMENT.findall(rest)]
    command, arguments = words[0].upper(), words[1:]
    if command not in _REDIS:
        return None
    timeout = _timeout(command, arguments, time) if _REDIS[command][0] == ("write",) else None
    start = "" if database == "0" else f"db{database}:"
    return _requests(command, _REDIS[command], arguments, time, timeout, start)


def _unquoted(text: str) -> str:
    def character(matched: re.Match[bytes]) -> bytes:
        escape = matched[1]
        return bytes([int(escape[1:], 16)]) if len(escape) > 1 else _CONTROLS.get(escape, escape)

    return _ESCAPE.sub(character, text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _timeout(command: str, arguments: Sequence[str], time: float) -> float | None:
    """Return the seconds that an entry lives; None if it keeps those that it had."""
    if command in {"MSET", "MSETNX"}:
        return math.inf
    if command in {"SETEX", "PSETEX"}:
        unit, number = ("EX" if command == "SETEX" else "PX"), arguments[1:2]
    else:
        options = [word.upper() for word in arguments[2:]]
        if "KEEPTTL" in options:
            return None
        unit = next((word for word in options if word in _UNITS), "")
        number = arguments[2:][options.index(unit) + 1 :][:1] if unit else []
    if not unit:
        return math.inf
    if not number or not re.fullmatch(r"\d+", number[0]):
        raise ValueError(f"expected a whole number for the timeout of {command}")
    seconds = int(number[0]) * _UNITS[unit]
    return seconds - time if unit.endswith("AT") else seconds


# Memcached ------------------------------------------------------------------------------------

_LOGGED: Final = re.compile(r"(?:(\d+\.\d+) )?<\d+ (\w+)(?: (.*?))?\s*")
_REPLY: Final = re.compile(r"(?:\d+\.\d+ )?(?:[<>]\d+ |slab class )")
_MEMCACHED: Final[Mapping[str, _Form]] = {
    **dict.fromkeys(("get", "gets"), (("read",), _ALL)),
    "mg": (("read",), _FIRST),
    **dict.fromkeys(("gat", "gats"), (("read",), slice(1, None))),
    **dict.fromkeys(("delete", "md"), (("delete",), _FIRST)),
    **dict.fromkeys(("set", "add", "replace", "cas", "ms"), (("write",), _FIRST)),
    "flush_all": (("clear",), _ALL),
}
_LONGEST_RELATIVE: Final = 60 * 60 * 24 * 30
"""Longer timeouts are epoch seconds. https://docs.memcached.org/protocols/basic"""


def is_memcached(line: str) -> bool:
    """Tell whether a line is one of Memcached."""
    return _REPLY.match(line) is not None


def memcached(line: str) -> Iterator[Request] | None:
    """Return the requests of a line that Memcached prints when it gets a command."""
    matched = _LOGGED.fullmatch(line)
    if matched is None:
        return None
    time = None if matched[1] is None else float(matched[1])
    command, words = matched[2], (matched[3] or "").split()
    if command not in _MEMCACHED:
        return None
    timeout = _lifetime(command, words, time) if _MEMCACHED[command][0] == ("write",) else None
    return _requests(command, _MEMCACHED[command], words, time, timeout)


def _lifetime(command: str, words: Sequence[str], time: float | None) -> float:
    texts = [flag[1:] for flag in words[2:] if flag.startswith("T")] if command == "ms" else words[2:3]
    if command == "ms" and not texts:
        return math.inf
    if not texts or not re.fullmatch(r"-?\d+", texts[0]):
        raise ValueError(f"expected a whole number for the timeout of {command}")
    seconds = int(texts[0])
    if seconds > _LONGEST_RELATIVE:
        return math.inf if time is None else seconds - time
    return seconds or math.inf
