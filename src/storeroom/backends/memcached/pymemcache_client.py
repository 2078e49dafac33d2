"""pymemcache's client, as the cache needs it. See clients.py.

Its own checks and serializers are left out: keys are legal and values are bytes. The replies to get, set and add are
read here: pymemcache's parser, which reads those to any command line by line, takes several times as long.
"""

import os
import select
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheServerError, MemcacheUnexpectedCloseError, MemcacheUnknownError

from storeroom.backends.memcached.clients import NoRoomError, TooLargeError, attempts, batches, batches_of_values
from storeroom.backends.memcached.location import Address
from storeroom.storage.interruptions import is_from_outside

__all__ = ["ERRORS", "OUTAGES", "PyMemcacheClient", "new_client"]

OUTAGES: tuple[type[BaseException], ...] = (OSError, MemcacheError)
"""The server is out of reach, or is no Memcached."""

ERRORS: tuple[type[Exception], ...] = (MemcacheError,)

_GARBAGE: Final = (KeyError, ValueError, IndexError, AttributeError, TypeError)
"""Errors with which pymemcache stumbles over replies that are none of Memcached's."""

_RECEIVED: Final = 2**14
"""Bytes that are received at once: most replies to a get as a whole."""

_LONGEST_LINE: Final = 1000
"""Bytes of the first line of a reply to a get; a key has 250 at most."""

_NOTHING: Final = b"END\r\n"
_AFTER_VALUE: Final = b"\r\nEND\r\n"
"""The end of a reply to a get of one key."""

_WORDS: Final = 4
"""In the first line of a value: VALUE, key, flags and size."""

_BEGUN: Final = 2
"""The parts of a reply by which it shows whether it is Memcached's."""

_STORED: Final = b"STORED"
_STORED_ALONE: Final = _STORED + b"\r\n"
_ANSWERS: Final = frozenset({_STORED, b"NOT_STORED", b"EXISTS", b"NOT_FOUND"})
"""The answers to a value that is to be stored."""

_TOO_LARGE: Final = b"object too large"
_NO_ROOM: Final = b"out of memory"
"""In the server's refusals. Source: memcached.c and proto_text.c, SERVER_ERROR."""


_PIECE: Final = 2**16
"""Bytes, of which more go out in several turns."""


_IS_PLAIN: Final = os.name == "posix" and socket.socket.__module__ == "socket"
"""Whether sockets are the system's, and not those of a library that has put its own in their stead."""


class PieceSocket(socket.socket):
    """A socket whose timeout is for each turn of a long message: its thread may not run in between.

    The system keeps the time. Python would ask it before each turn whether there is something to read, or room to
    write, and give way to other threads twice as often: a third of the time of a set() among many.
    """

    def settimeout(self, seconds: float | None, /) -> None:
        """Let each turn take so long at most."""
        if not _IS_PLAIN:
            super().settimeout(seconds)
            return
        super().settimeout(None)
        whole, part = divmod(0 if seconds is None else max(1, int(seconds * 1e6)), 1_000_000)
        for turns in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.setsockopt(socket.SOL_SOCKET, turns, struct.pack("@ll", whole, part))

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive what is there."""
        try:
            return super().recv(size, flags)
        except BlockingIOError:
            raise TimeoutError("timed out") from None

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of it."""
        try:
            if len(data) <= _PIECE:
                super().sendall(data, flags)
                return
            left = memoryview(data)
            while left:
                left = left[self.send(left, flags) :]
        except BlockingIOError:
            raise TimeoutError("timed out") from None


class PyMemcacheClient(Client):  # type: ignore[misc]  # pymemcache ships no types
    """One connection by pymemcache, which leaves bytes as they are, whatever flags they were stored with."""

    sock: Any

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        super().__init__(
            address.path or (address.host, address.port),
            connect_timeout=options["socket_connect_timeout"],
            timeout=options["socket_timeout"],
            tls_context=options["tls_context"],
            socket_keepalive=options["socket_keepalive"],
            no_delay=True,
            default_noreply=False,
        )

    def __del__(self) -> None:
        """Close it: one may be lost, see Connections."""
        self.close()

    def close(self) -> None:
        """Close it; pymemcache would take what a signal's handler raises here for an error of the socket's."""
        sock, self.sock = vars(self).get("sock"), None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def check_key(self, key: bytes, key_prefix: bytes) -> bytes:
        """Return the key, which is legal already."""
        return key

    def _connect(self) -> None:
        super()._connect()
        plain: Any = vars(self)["sock"]
        if type(plain) is socket.socket:  # with TLS, it sends piece by piece anyway
            timeout = plain.gettimeout()
            self.sock = PieceSocket(fileno=plain.detach())
            self.sock.settimeout(timeout)

    def _fetch(self, command: bytes, keys: Sequence[bytes]) -> dict[bytes, Any]:
        try:
            found: dict[bytes, Any] = self._fetch_cmd(command, keys, command == b"gets")
        except MemcacheUnexpectedCloseError as error:
            raise ConnectionResetError("the server has closed the connection") from error
        except _GARBAGE as error:
            if is_from_outside(error):
                raise
            raise MemcacheUnknownError("no reply of Memcached") from error
        return found

    def get(self, key: bytes) -> bytes | None:
        if self.sock is None:
            self._connect()
        self.sock.sendall(b"get %b\r\n" % key)
        reply: bytes = self.sock.recv(_RECEIVED)
        if reply == _NOTHING:
            return None
        if reply.startswith(b"VALUE %b " % key):
            line_end = reply.find(b"\r\n")
            start = line_end + 2
            try:
                end = start + int(reply[reply.rfind(b" ", 0, line_end) : line_end])
            except ValueError:
                end = start  # the line has not come as a whole, or is none
            if reply[end:] == _AFTER_VALUE:
                return reply[start:end]
        return self._rest(key, reply)

    def _rest(self, key: bytes, reply: bytes) -> bytes | None:
        """Receive the rest of a reply to get(); return the stored bytes, or raise one of OUTAGES."""
        received = bytearray(reply)
        while (length := self._length(key, received)) > len(received):
            received += self._received()
        if received == _NOTHING:
            return None
        if length < len(received) or not received.endswith(_AFTER_VALUE):
            raise MemcacheUnknownError("no reply of Memcached")
        return bytes(memoryview(received)[received.index(b"\r\n") + 2 : -len(_AFTER_VALUE)])

    def _received(self) -> bytes:
        """Receive what is there, and more than nothing."""
        if not (data := self.sock.recv(_PIECE)):
            raise ConnectionResetError("the server has closed the connection")
        received: bytes = data
        return received

    def _length(self, key: bytes, received: bytearray) -> int:
        """Return the length of the reply that begins so; one more than has come if that does not show yet."""
        line_end = received.find(b"\r\n", 0, _LONGEST_LINE)
        if line_end < 0 and len(received) < _LONGEST_LINE:
            return len(received) + 1
        line = bytes(received[:line_end])
        match line.split(b" "):
            case [b"END"]:
                return len(_NOTHING)
            case [b"VALUE", name, _, size] if name == key and size.isdigit():
                return line_end + 2 + int(size) + len(_AFTER_VALUE)
        self._raise_errors(line, b"get")
        raise MemcacheUnknownError(line[:32])

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for batch in batches(keys):
            found |= self._get_batch(batch)
        if not found.keys() <= set(keys):
            raise MemcacheUnknownError("no reply of Memcached")
        return found

    def _get_batch(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if self.sock is None:
            self._connect()
        self.sock.sendall(b"get %b\r\n" % b" ".join(keys))
        parts = [self._received()]
        while True:
            if len(parts) <= _BEGUN or parts[-1].endswith(b"\n"):  # the end, perhaps
                parts = [b"".join(parts)]
                found = self._values(parts[0])
                if found is not None:
                    return found
            parts.append(self._received())

    def _values(self, reply: bytes) -> dict[bytes, bytes] | None:
        """Return the stored bytes by key in a reply to get; None if it has not come as a whole."""
        found: dict[bytes, bytes] = {}
        end, length = 0, len(reply)
        while (line_end := reply.find(b"\r\n", end, end + _LONGEST_LINE)) >= 0:
            words = reply[end:line_end].split(b" ")
            if len(words) != _WORDS or words[0] != b"VALUE" or not words[3].isdigit():
                if reply[end:] == _NOTHING:
                    return found
                self._raise_errors(reply[end:line_end], b"get")
                break
            start = line_end + 2
            end = start + int(words[3]) + 2
            if end > length:
                return None
            found[words[1]] = reply[start : end - 2]
        if length - end < _LONGEST_LINE and line_end < 0:
            return None
        raise MemcacheUnknownError(reply[end:][:32])

    def gets(self, key: bytes) -> tuple[bytes, bytes] | None:
        return self._fetch(b"gets", (key,)).get(key)

    def gets_many(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        return {key: found for batch in batches(keys) for key, found in self._fetch(b"gets", batch).items()}

    def _store_one(self, command: bytes, key: bytes, data: bytes, exptime: int, token: bytes = b"") -> bool:
        """Send a value; return whether it was stored. `token` stands behind a space."""
        if self.sock is None:
            self._connect()
        self.sock.sendall(b"%b %b 0 %d %d%b\r\n%b\r\n" % (command, key, exptime, len(data), token, data))
        reply = self.sock.recv(_RECEIVED)
        if reply == _STORED_ALONE:
            return True
        line, *more = self._lines(1, reply)
        if line in _ANSWERS and not more:
            return line == _STORED
        try:
            self._raise_errors(line, command)
        except MemcacheServerError as error:
            if _TOO_LARGE in line:
                raise TooLargeError(key, len(data)) from error
            if _NO_ROOM in line:
                raise NoRoomError from error
            raise
        raise MemcacheUnknownError(line[:32])

    def _lines(self, count: int, received: bytes) -> list[bytes]:
        """Receive so many lines, which begin so: fewer, or more, if one of them is none of the _ANSWERS."""
        while True:
            *lines, rest = received.split(b"\r\n")
            if len(lines) >= count or not _ANSWERS.issuperset(lines):
                return [*lines, rest] if rest else lines
            if len(rest) > _LONGEST_LINE:
                raise MemcacheUnknownError(rest[:32])
            received += self._received()

    def _store(self, command: bytes, values: Mapping[bytes, bytes], exptime: int) -> dict[bytes, Any]:
        if self.sock is None:
            self._connect()
        head = b"%b %%b 0 %d %%d\r\n%%b\r\n" % (command, exptime)
        self.sock.sendall(b"".join([head % (key, len(data), data) for key, data in values.items()]))
        lines = self._lines(len(values), self._received())
        if len(lines) == len(values) and _ANSWERS.issuperset(lines):
            return {key: line == _STORED for key, line in zip(values, lines, strict=True)}
        odd = next((line for line in lines if line not in _ANSWERS), lines[-1])
        self.close()
        try:
            self._raise_errors(odd, command)
        except MemcacheServerError:
            # One by one shows which of them the server refuses.
            return dict(attempts(lambda key: self._store_one(command, key, values[key], exptime), values))
        raise MemcacheUnknownError(odd[:32])

    def set(self, key: bytes, data: bytes, exptime: int) -> bool:
        try:
            return self._store_one(b"set", key, data, exptime)
        except NoRoomError:
            return False

    def set_many(self, values: Mapping[bytes, bytes], exptime: int) -> list[bytes]:
        stored = self._store_many(b"set", values, exptime)
        return [key for key in values if key not in stored]

    def _store_many(self, command: bytes, values: Mapping[bytes, bytes], exptime: int) -> Collection[bytes]:
        """Store several values; return the keys of those that were."""
        stored: dict[bytes, Any] = {}
        for _, results in attempts(lambda batch: self._store(command, batch, exptime), batches_of_values(values)):
            stored |= results or {}
        return {key for key, is_stored in stored.items() if is_stored}

    def add(self, key: bytes, data: bytes, exptime: int) -> bool:
        return self._store_one(b"add", key, data, exptime)

    def cas(self, key: bytes, data: bytes, exptime: int, token: bytes) -> bool:
        return self._store_one(b"cas", key, data, exptime, b" " + token)

    def add_many(self, values: Mapping[bytes, bytes], exptime: int) -> Collection[bytes]:
        return self._store_many(b"add", values, exptime)

    def cas_many(self, values: Mapping[bytes, tuple[bytes, bytes]], exptime: int) -> Collection[bytes]:
        stored: list[bytes] = []
        for batch in batches_of_values({key: data for key, (data, _) in values.items()}):
            tokens = {key: values[key][1] for key in batch}
            commands = [
                b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, exptime, len(data), tokens[key], data)
                for key, data in batch.items()
            ]
            try:
                replies = self._ask(commands, b"cas")
            except MemcacheServerError:
                # As in _store(). A token that was used is good no more.
                stored += [
                    k for k, data in batch.items() if self.get(k) == data or self.cas(k, data, exptime, tokens[k])
                ]
            else:
                stored += [key for key, reply in zip(batch, replies, strict=True) if reply == b"STORED"]
        return stored

    def _remove(self, keys: Sequence[bytes]) -> list[bytes]:
        return self._ask([b"delete %b\r\n" % key for key in keys], b"delete")

    def delete(self, key: bytes) -> bool:
        return self._remove([key]) == [b"DELETED"]

    def delete_many(self, keys: Sequence[bytes]) -> None:
        for batch in batches(keys):
            self._remove(batch)

    def _ask(self, commands: Sequence[bytes], name: bytes) -> list[bytes]:
        """Send commands together; return the one line that answers each."""
        try:
            replies: list[bytes] = self._misc_cmd(commands, name, False)
        except MemcacheUnexpectedCloseError as error:
            raise ConnectionResetError("the server has closed the connection") from error
        return replies

    def probe(self) -> None:
        if self.sock is None:  # after a refusal; it is opened anew
            return
        # No reply can wait to be read. If something does, it is the end.
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if poll.poll(0):
            raise ConnectionResetError("the server has closed the connection")

    def item_size_max(self) -> int | None:
        return int(self.stats(b"settings")[b"item_size_max"])

    def stats(self, *names: bytes) -> dict[bytes, Any]:
        return self._fetch(b"stats", names)


new_client: Final = PyMemcacheClient
"""See Driver."""
