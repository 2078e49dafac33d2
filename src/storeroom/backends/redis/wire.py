"""A connection on which Redis tells of changed keys, and the meaning of its messages: see ``tracking``."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import hiredis

from storeroom import timeouts
from storeroom.backends.redis.location import Server
from storeroom.backends.redis.names import key_text
from storeroom.backends.redis.pool import pack
from storeroom.near.listening import BrokenError

__all__ = ["CHANNEL", "Changed", "Wire", "changed_by", "is_primary", "primaries"]

CHANNEL: Final = b"__redis__:invalidate"
"""The channel that messages are redirected to where RESP3 is missing."""

_NOTHING: Final = object()


@dataclass(eq=False)
class Wire:
    """One connection, as the listener sees it.

    Attributes:
        connection: of redis-py, which has made it and logged in.
        question: asked again and again; the answer says that all went well up to then.
        is_well: judges the answer.
        heard_until: the machine's uptime up to which every change has been heard of.
        asked: uptime and monotonic time of the question that is unanswered, or None.
    """

    connection: Any
    server: Server
    question: tuple[str, ...] = ("PING",)
    is_well: Callable[[Any], bool] = lambda answer: not isinstance(answer, Exception)
    heard_until: float = 0.0
    asked: tuple[float, float] | None = None
    _reader: Any = field(default_factory=lambda: hiredis.Reader(notEnoughData=_NOTHING))
    _waiting: list[Any] = field(default_factory=list)

    @property
    def socket(self) -> Any:
        """The connection's socket."""
        return self.connection._sock  # noqa: SLF001 -- redis-py has no public name for it

    def ask(self, *command: str | bytes | int) -> Any:
        """Send a command while nothing else is unanswered; return its answer."""
        self.socket.sendall(pack((command,)))
        while True:
            for reply in self.read():
                if changed_by(reply) is None:
                    return reply
                self._waiting.append(reply)

    def ping(self) -> None:
        """Ask the question."""
        self.asked = timeouts.uptime(), time.monotonic()
        self.socket.sendall(pack((self.question,)))

    def read(self) -> Iterator[Any]:
        """Wait for something; yield all that has come."""
        yield from self._take()
        while True:
            data = self.socket.recv(65_536)
            if not data:
                raise BrokenError(f"{self.server.name} closed the connection")
            self._reader.feed(data)
            yield from self._take()
            # Data that TLS has decrypted already makes no socket readable.
            if not getattr(self.socket, "pending", lambda: 0)():
                return

    def _take(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        yield from waiting
        while (reply := self._reader.gets()) is not _NOTHING:
            yield reply


@dataclass(frozen=True, slots=True)
class Changed:
    """The changes of one message: storage keys, None for all."""

    keys: list[str] | None


def changed_by(reply: Any) -> Changed | None:
    """Return the changes that a message tells of, or None if it answers a question."""
    match reply:
        case [b"tracking-redir-broken", *_]:
            raise BrokenError("the connection that changes were redirected to is gone")
        case [b"invalidate", keys]:
            return Changed(_texts(keys))
        case [b"message", channel, keys] if channel == CHANNEL:
            return Changed(_texts(keys))
    return None


def _texts(keys: Iterable[bytes] | None) -> list[str] | None:
    """Return the storage keys that a cache of Storeroom's can have made; None stays None."""
    return None if keys is None else [text for text in map(key_text, keys) if text is not None]


def is_primary(answer: Any) -> bool:
    """Judge an answer to ROLE."""
    return isinstance(answer, list) and answer[0] == b"master"


def primaries(slots: Any, asked: Server, named: Callable[[str, int], Server]) -> set[tuple[str, int]]:
    """Return host and port of each primary in an answer to CLUSTER SLOTS, in which servers are `named`."""
    if not isinstance(slots, list):
        return set()
    told = {(host, port) for _, _, (host, port, *_rest), *_replicas in slots}
    found = {named(host.decode(), port) if host else replace(asked, port=port) for host, port in told}
    return {(server.host, server.port) for server in found}
