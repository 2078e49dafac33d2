"""LOCATION: the servers that it names, in the forms that ``docs/backends/memcached.md`` lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from storeroom.exceptions import ConfigurationError
from storeroom.wording import shown

__all__ = ["DEFAULT_PORT", "Address", "parse"]

DEFAULT_PORT: Final = 11211

_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:/@\[\]]+))(?::(?P<port>\d{1,5}))?")

_EXPECTED: Final = "expected a host such as '127.0.0.1:11211', a socket such as 'unix:/run/memcached.sock', or several"


@dataclass(frozen=True, slots=True)
class Address:
    """The address on which one server listens: a host and its TCP port, or the path of a socket."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(location: str | Sequence[str]) -> tuple[Address, ...]:
    """Return the servers that LOCATION names, each once, in its order; raise ConfigurationError if that fails."""
    written = re.split("[;,]", location) if isinstance(location, str) else location
    if not isinstance(written, Sequence) or not all(isinstance(server, str) for server in written):
        raise ConfigurationError(f"LOCATION is {shown(location)}; {_EXPECTED} in a list.")
    servers = [_parse_server(server.strip()) for server in written if server.strip()]
    if not servers:
        raise ConfigurationError(f"LOCATION is empty; {_EXPECTED}.")
    return tuple(dict.fromkeys(servers))


def _parse_server(written: Any) -> Address:
    path = written.removeprefix("unix:").removeprefix("//") if written.startswith("unix:") else written
    if path.startswith("/"):
        return Address(path=path)
    found = _HOST.fullmatch(written.removeprefix("memcached://"))
    port = int(found["port"] or DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 2**16:
        raise ConfigurationError(f"LOCATION names the server {shown(written)}; {_EXPECTED}.")
    return Address(found["v6"] or found["host"], port)
