"""pymemcache's client, as the cache needs it. See clients.py.

Its own checks and serializers are left out: keys are legal and values are bytes. A single key, the most frequent
request, is read here: pymemcache's parser, for any number of keys and any command, takes longer.
"""

import select
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheServerError, MemcacheUnexpectedCloseError, MemcacheUnknownError

from storeroom.backends.memcached.clients import NoRoomError, TooLargeError, attempts, batches, batches_of_values
from storeroom.backends.memcached.location import Address

__all__ = ["OUTAGES", "PyMemcacheClient", "new_client"]

OUTAGES: tuple[type[BaseException], ...] = (OSError, MemcacheError)
"""The server is out of reach, or is no Memcached."""

_GARBAGE: Final = (KeyError, ValueError, IndexError, AttributeError, TypeError)
"""Errors with which pymemcache stumbles over replies that are none of Memcached's."""

_RECEIVED: Final = 2**14
"""Bytes that are received at once: most replies to a get as a whole."""

_LONGEST_LINE: Final = 1000
"""Bytes of the first line of a reply to a get; a key has 250 at most."""

_NOTHING: Final = b"END\r\n"
_AFTER_VALUE: Final = b"\r\nEND\r\n"
"""The end of a reply to a get of one key."""

_TOO_LARGE: Final = b"object too large"
_NO_ROOM: Final = b"out of memory"
"""In the server's refusals. Source: memcached.c and proto_text.c, SERVER_ERROR."""


class PyMemcacheClient(Client):  # type: ignore[misc]  # pymemcache ships no types
    """One connection by pymemcache, which leaves bytes as they are, whatever flags they were stored with."""

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

    def check_key(self, key: bytes, key_prefix: bytes) -> bytes:
        """Return the key, which is legal already."""
        return key

    def _fetch(self, command: bytes, keys: Sequence[bytes]) -> dict[bytes, Any]:
        try:
            found: dict[bytes, Any] = self._fetch_cmd(command, keys, command == b"gets")
        except MemcacheUnexpectedCloseError as error:
            raise ConnectionResetError("the server has closed the connection") from error
        except _GARBAGE as error:
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
            if not (more := self.sock.recv(_RECEIVED)):
                raise ConnectionResetError("the server has closed the connection")
            received += more
        if received == _NOTHING:
            return None
        if length < len(received) or not received.endswith(_AFTER_VALUE):
            raise MemcacheUnknownError("no reply of Memcached")
        return bytes(received[received.index(b"\r\n") + 2 : -len(_AFTER_VALUE)])

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
            found |= self._fetch(b"get", batch)
        return found

    def gets(self, key: bytes) -> tuple[bytes, bytes] | None:
        return self._fetch(b"gets", (key,)).get(key)

    def gets_many(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        return {key: found for batch in batches(keys) for key, found in self._fetch(b"gets", batch).items()}

    def _store(
        self, command: bytes, values: Mapping[bytes, bytes], exptime: int, token: bytes | None = None
    ) -> dict[bytes, Any]:
        try:
            stored: dict[bytes, Any] = self._store_cmd(command, values, exptime, False, cas=token)
        except MemcacheUnexpectedCloseError as error:
            raise ConnectionResetError("the server has closed the connection") from error
        except MemcacheServerError as error:
            if len(values) > 1:
                # One by one shows which of them the server refuses.
                results = attempts(lambda key: self._store(command, {key: values[key]}, exptime)[key], values)
                return {key: bool(result) for key, result in results}
            ((key, data),) = values.items()
            reason = bytes(error.args[0])
            if _TOO_LARGE in reason:
                raise TooLargeError(key, len(data)) from error
            if _NO_ROOM in reason:
                raise NoRoomError from error
            raise
        return stored

    def set(self, key: bytes, data: bytes, exptime: int) -> bool:
        try:
            return bool(self._store(b"set", {key: data}, exptime)[key])
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
        return bool(self._store(b"add", {key: data}, exptime)[key])

    def cas(self, key: bytes, data: bytes, exptime: int, token: bytes) -> bool:
        return bool(self._store(b"cas", {key: data}, exptime, token)[key])

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
