"""pymemcache's client, as the cache needs it. See clients.py.

The client's own checks and serializers are left out: keys are legal and values are bytes. One
key alone, which is what most programs ask for, is read here: pymemcache's parser is for any
number of keys and any command, and takes longer.
"""

import select
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError, MemcacheServerError, MemcacheUnexpectedCloseError, MemcacheUnknownError

from storeroom.backends.memcached.clients import NoRoomError, TooLargeError, batches, batches_of_values

__all__ = ["OUTAGES", "PyMemcacheClient"]

OUTAGES: Final = (OSError, MemcacheError)
"""What is raised when the server is out of reach, or is no Memcached."""

_GARBAGE: Final = (KeyError, ValueError, IndexError, AttributeError, TypeError)
"""What pymemcache stumbles with over replies that are none of Memcached's."""

_RECEIVED: Final = 2**14
"""Bytes that are received at once: most replies to a get as a whole."""

_LONGEST_LINE: Final = 1000
"""Bytes of the first line of a reply to a get; a key has 250 at most."""

_NOTHING: Final = b"END\r\n"
_AFTER_VALUE: Final = b"\r\nEND\r\n"
"""How a reply to a get of one key ends."""

_TOO_LARGE: Final = b"object too large"
_NO_ROOM: Final = b"out of memory"
"""How the server says so. Source: memcached.c and proto_text.c, SERVER_ERROR."""


class _Bytes:
    """A serde of pymemcache that leaves bytes as they are, whatever flags they were stored with."""

    def serialize(self, _: bytes, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def deserialize(self, _: bytes, value: bytes, __: int) -> bytes:
        return value


class PyMemcacheClient(Client):  # type: ignore[misc]  # pymemcache ships no types
    """One connection by pymemcache."""

    def __init__(self, server: str | tuple[str, int], **options: Any) -> None:
        super().__init__(server, serde=_Bytes(), no_delay=True, default_noreply=False, **options)

    def check_key(self, key: bytes, key_prefix: bytes) -> bytes:
        """Return the key, which is legal already."""
        return key

    # Reading --------------------------------------------------------------------------------

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
        """Receive what is left of a reply to get(); return what is stored.

        Raises:
            ConnectionResetError: the server has closed the connection.
            MemcacheError: it is an error, or no reply of Memcached.
        """
        received = bytearray(reply)
        while (length := self._length(key, received)) > len(received):
            more = self.sock.recv(_RECEIVED)
            if not more:
                raise ConnectionResetError("the server has closed the connection")
            received += more
        if received == _NOTHING:
            return None
        if length < len(received) or not received.endswith(_AFTER_VALUE):
            raise MemcacheUnknownError("no reply of Memcached")
        return bytes(received[received.index(b"\r\n") + 2 : -len(_AFTER_VALUE)])

    def _length(self, key: bytes, received: bytearray) -> int:
        """Return how many bytes the reply has that begins so; one more than there are if that is not to be seen yet."""
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
        found: dict[bytes, tuple[bytes, bytes]] = {}
        for batch in batches(keys):
            found |= self._fetch(b"gets", batch)
        return found

    # Writing --------------------------------------------------------------------------------

    def _store(
        self, command: bytes, values: Mapping[bytes, bytes], exptime: int, token: bytes | None = None
    ) -> dict[bytes, Any]:
        try:
            stored: dict[bytes, Any] = self._store_cmd(command, values, exptime, False, cas=token)
        except MemcacheUnexpectedCloseError as error:
            raise ConnectionResetError("the server has closed the connection") from error
        except MemcacheServerError as error:
            self.close()  # replies to the other writes may still come
            return self._refused(command, values, exptime, token, bytes(error.args[0]))
        return stored

    def _refused(
        self, command: bytes, values: Mapping[bytes, bytes], exptime: int, token: bytes | None, reason: bytes
    ) -> dict[bytes, Any]:
        """Find out which of the values the server refused, by storing them one by one."""
        if len(values) > 1:
            results: dict[bytes, Any] = {}
            too_large: TooLargeError | None = None
            for key, data in values.items():
                try:
                    results |= self._store(command, {key: data}, exptime, token)
                except TooLargeError as error:
                    too_large = too_large or error
                except NoRoomError:
                    results[key] = False
            if too_large is not None:
                raise too_large
            return results
        ((key, data),) = values.items()
        if _TOO_LARGE in reason:
            raise TooLargeError(key, len(data))
        if _NO_ROOM in reason:
            raise NoRoomError
        raise MemcacheServerError(reason)

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
        stored: dict[bytes, bool] = {}
        too_large: TooLargeError | None = None
        for batch in batches_of_values(values):
            try:
                stored |= self._store(command, batch, exptime)
            except TooLargeError as error:
                too_large = too_large or error  # the others are stored all the same
            except NoRoomError:
                pass  # the batch was a single value
        if too_large is not None:
            raise too_large
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
            commands = [
                b"cas %b 0 %d %d %b\r\n%b\r\n" % (key, exptime, len(data), values[key][1], data)
                for key, data in batch.items()
            ]
            try:
                replies = self._ask(commands, b"cas")
            except MemcacheServerError:
                # Which of them the server refused is found out one by one. A token that was used is good no more.
                stored += [
                    key
                    for key, data in batch.items()
                    if self.get(key) == data or self.cas(key, data, exptime, values[key][1])
                ]
            else:
                stored += [key for key, reply in zip(batch, replies, strict=True) if reply == b"STORED"]
        return stored

    # Removing -------------------------------------------------------------------------------

    def _remove(self, keys: Sequence[bytes]) -> list[bytes]:
        return self._ask([b"delete %b\r\n" % key for key in keys], b"delete")

    def delete(self, key: bytes) -> bool:
        return self._remove([key]) == [b"DELETED"]

    def delete_many(self, keys: Sequence[bytes]) -> None:
        for batch in batches(keys):
            self._remove(batch)

    # The connection -------------------------------------------------------------------------

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
        # A reply cannot wait to be read: what can is the end.
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if poll.poll(0):
            raise ConnectionResetError("the server has closed the connection")

    def item_size_max(self) -> int | None:
        return int(self.stats(b"settings")[b"item_size_max"])

    def stats(self, *names: bytes) -> dict[bytes, Any]:
        return self._fetch(b"stats", names)
