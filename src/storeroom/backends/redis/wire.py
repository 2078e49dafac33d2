"""A connection on which Redis tells of changed keys, and what its messages mean: see ``tracking``."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import hiredis

from storeroom import timeouts
from storeroom.backends.redis.location import Server
from storeroom.backends.redis.pool import pack
from storeroom.near.listening import BrokenError

__all__ = ["CHANNEL", "Changed", "Wire", "changed_by", "is_primary", "primaries"]

CHANNEL: Final = b"__redis__:invalidate"
"""What messages are redirected to where RESP3 is missing."""

_NOTHING: Final = object()


@dataclass(eq=False)
class Wire:
    """One connection, as seen by who listens.

    Attributes:
        connection: of redis-py, which has made it and logged in.
        server: at the other end.
        question: asked again and again; the answer says that all went well up to then.
        is_well: judges the answer.
        heard_until: epoch seconds up to which every change has been heard of.
        asked: epoch seconds and monotonic time of the question that is unanswered, or None.
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
        """The socket, which redis-py has no other name for."""
        return self.connection._sock  # noqa: SLF001

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
        self.asked = timeouts.now(), time.monotonic()
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
            # What TLS has decrypted already makes no socket readable.
            if not getattr(self.socket, "pending", lambda: 0)():
                return

    def _take(self) -> Iterator[Any]:
        waiting, self._waiting = self._waiting, []
        yield from waiting
        while (reply := self._reader.gets()) is not _NOTHING:
            yield reply


@dataclass(frozen=True, slots=True)
class Changed:
    """What one message tells: the storage keys that have changed, None for all."""

    keys: list[str] | None


def changed_by(reply: Any) -> Changed | None:
    """Return what a message tells of changes, or None if it is the answer to a question."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        return None
    kind, *rest = reply
    if kind == b"tracking-redir-broken":
        raise BrokenError("the connection that changes were redirected to is gone")
    if kind == b"invalidate":
        return Changed(_texts(rest[0]))
    if kind == b"message" and rest[0] == CHANNEL:
        return Changed(_texts(rest[1]))
    return None


def _texts(keys: Iterable[bytes] | None) -> list[str] | None:
    """Return the storage keys, but for those that no cache of Storeroom's can have made; None stays None."""
    if keys is None:
        return None
    texts = []
    for key in keys:
        try:
            texts.append(key.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            continue
    return texts


def _key_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def is_primary(answer: Any) -> bool:
    """Judge an answer to ROLE."""
    return isinstance(answer, list) and answer[0] == b"master"


def primaries(slots: Any, asked: Server) -> set[tuple[str, int]]:
    """Return host and port of each primary in an answer to CLUSTER SLOTS."""
    if not isinstance(slots, list):
        return set()
    return {(host.decode() if host else asked.host, port) for _, _, (host, port, *_rest), *_replicas in slots}
