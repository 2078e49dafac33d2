"""The protocol that a server speaks, where it has never given an answer that its driver understands.

A driver that meets another kind of server often waits in vain, or sees its connection closed: so it is with a server
that hangs. A few bytes on a connection of one's own tell the two apart.
"""

import contextlib
import re
import socket
import ssl
from typing import Final

__all__ = ["HTTP", "MEMCACHED", "MYSQL", "POSTGRESQL", "REDIS", "TLS", "spoken_at"]

REDIS: Final = "Redis"
MEMCACHED: Final = "Memcached"
POSTGRESQL: Final = "PostgreSQL"
MYSQL: Final = "MySQL"
TLS: Final = "TLS"
HTTP: Final = "HTTP"

_SSL_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST"""

_GREETING: Final = re.compile(rb".{3}\x00(\x0a[0-9]|\xff)", re.DOTALL)
"""MySQL's server speaks first: its handshake of version 10, or an error."""

_PING: Final = b"PING\r\n"

_ANSWERS: Final = (
    # Redis and Memcached answer a line that they do not know, each in its form.
    (_PING, re.compile(rb"\+PONG|-[A-Z]+ "), REDIS),
    (_PING, re.compile(rb"ERROR\r\n"), MEMCACHED),
    # A server of HTTP says that this is no request, some of them without a status line.
    (_PING, re.compile(rb"HTTP/1|\s*<(!doctype|html)", re.IGNORECASE), HTTP),
    (_SSL_REQUEST, re.compile(rb"[SN]\Z"), POSTGRESQL),
)

_SECONDS: Final = 0.5
"""The longest wait for each answer."""

_GREETING_SECONDS: Final = 0.3
"""The same for a server that speaks first; all others are waited for in vain."""


def spoken_at(host: str, port: int) -> str:
    """Return the protocol of the server at this address; "" if there is none, or it does not tell in time."""
    try:
        if _GREETING.match(_reply(host, port, b"", _GREETING_SECONDS)):
            return MYSQL
        answers = {question: _reply(host, port, question) for question in (_PING, _SSL_REQUEST)}
        for question, form, protocol in _ANSWERS:
            if form.match(answers[question]):
                return protocol
        return TLS if _speaks_tls(host, port) else ""
    except OSError:  # nobody listens
        return ""


def _reply(host: str, port: int, question: bytes, seconds: float = _SECONDS) -> bytes:
    with socket.create_connection((host, port), seconds) as connection, contextlib.suppress(OSError):
        connection.sendall(question)
        return connection.recv(64)
    return b""


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    with socket.create_connection((host, port), _SECONDS) as connection:
        try:
            context.wrap_socket(connection).close()
        except ssl.SSLError as error:
            return "ALERT" in str(error)  # it asks for a certificate, for instance
    return True
