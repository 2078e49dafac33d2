"""A TCP proxy between a test and a server, which cuts, delays, truncates and splits what passes."""

import contextlib
import socket
import threading
import time
from typing import Self

_MOMENT = 0.0005
"""Seconds, in which a reader that waits takes what has come."""


class Proxy:
    """Listens on a port of its own and passes on to another.

    Attributes:
        port: where to connect.
        target: where it passes on to, on connections that are made from now on.
        delay: seconds by which each reply is held back, or each 64 KiB of a large one.
        request_delay: the same of requests.
        truncate_after: bytes of replies, per connection, after which it is closed; None for no end.
        piece: bytes of replies that are sent at once, with a moment between two; None for as many as come.
        breaks: number of replies that are lost, each with its connection.
        is_refusing: whether connections are closed as soon as they are made.
        is_silent: whether replies are swallowed, the connections staying open.
        is_holding: whether a reply is being held back.
    """

    def __init__(self, target: int, address: str = "127.0.0.1", port: int = 0) -> None:
        self.delay = self.request_delay = 0.0
        self.truncate_after: int | None = None
        self.piece: int | None = None
        self.breaks = 0
        self.is_silent = self.is_holding = self.is_refusing = False
        self.target = target
        self._listener = socket.create_server((address, port))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._is_closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        _close(self._listener)
        self.cut()

    def cut(self) -> None:
        """Close all connections that are open now."""
        for connection in tuple(self._open):
            _close(connection)

    def cut_off(self) -> None:
        """Close all connections, and each that is made from now on."""
        self.is_refusing = True
        self.cut()

    @property
    def connections(self) -> int:
        """The number of open connections of clients."""
        return len(self._open) // 2

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                _close(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                _close(client)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {client, server}
            threading.Thread(target=self._pass_requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._pass_replies, args=(client, server), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                time.sleep(self.request_delay)
                server.sendall(data)
        self._end(client, server)

    def _pass_replies(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                self.is_holding = True
                time.sleep(self.delay)
                self.is_holding = False
                if self.breaks:
                    self.breaks -= 1
                    break
                if self.is_silent:
                    continue
                limit = self.truncate_after
                if limit is not None and passed + len(data) > limit:
                    client.sendall(data[: max(0, limit - passed)])
                    break
                self._send(client, data)
                passed += len(data)
        self._end(client, server)

    def _send(self, client: socket.socket, data: bytes) -> None:
        piece = self.piece or len(data)
        for start in range(0, len(data), piece):
            client.sendall(data[start : start + piece])
            if self.piece:
                time.sleep(_MOMENT)

    def _end(self, *connections: socket.socket) -> None:
        for connection in connections:
            self._open.discard(connection)
            _close(connection)


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
