"""LOCATION: from the URLs that a person wrote to the servers that they name.

==================================================  ================================================
``redis://[user:password@]host[:port][/db]``        one server; ``valkey://`` is the same
``rediss://...``                                    by TLS; also ``valkeys://``
``unix://[user:password@]/path/of.sock[?db=1]``     one server, by its socket
several of these, as a list, or with ``,`` or ``;`` the first is written to, the others are read from
``redis+sentinel://host:port,host:port/name/db``    the primary that these Sentinels call `name`
``redis+cluster://host:port,host:port``             the cluster to which these servers belong
==================================================  ================================================

``rediss+sentinel://`` and ``rediss+cluster://`` use TLS. Options of a connection may stand in the
query, and count before OPTIONS, as the number of the database does.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from storeroom.backends.redis import options as known
from storeroom.exceptions import ConfigurationError
from storeroom.wording import mask_url, nearest

__all__ = ["Server", "Target", "parse"]

_NEXT_URL: Final = re.compile(r"\s*[;,]\s*(?=[a-z][a-z+]*://)")
"""A comma also stands between the hosts of one URL, a semicolon between options: what follows tells."""

_SCHEMES: Final = {
    "redis": ("server", False),
    "valkey": ("server", False),
    "rediss": ("server", True),
    "valkeys": ("server", True),
    "unix": ("server", False),
    "redis+sentinel": ("sentinel", False),
    "valkey+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "valkeys+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "valkey+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "valkeys+cluster": ("cluster", True),
}
"""Scheme -> kind of target, and whether it is by TLS."""

_PORTS: Final = {"server": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class Server:
    """One server's address, and what it takes to get in.

    Attributes:
        host: name or address; "" where there is a path.
        port: TCP port.
        path: of the server's socket; "" for TCP.
        db: number of the database.
        username: None for the default user.
        password: None for none.
        tls: whether the connection is encrypted.
        must_be_primary: whether a connection is only good while the server is no replica.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    must_be_primary: bool = False

    @property
    def name(self) -> str:
        """What messages call it: an address without credentials."""
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a cache is.

    Attributes:
        kind: "server", "sentinel" or "cluster".
        servers: the first of which is written to; for a cluster, those that are asked for the others.
        sentinels: the Sentinels, for that kind.
        service: what they call the primary.
        options: the options of connections, those of the URL's query included.
    """

    kind: str
    servers: tuple[Server, ...]
    sentinels: tuple[Server, ...] = ()
    service: str = ""
    options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.kind == "sentinel":
            return f"Redis {self.service!r} of the Sentinels at {_listed(self.sentinels)}"
        if self.kind == "cluster":
            return f"the Redis cluster of {_listed(self.servers)}"
        return f"Redis at {self.servers[0].name}"


def _listed(servers: Sequence[Server]) -> str:
    return ", ".join(f"{server.host}:{server.port}" for server in servers)


def parse(location: str | Sequence[str], options: Mapping[str, Any]) -> Target:
    """Return the target that LOCATION and the settled options describe.

    Raises:
        ConfigurationError: a URL cannot be read, or they do not go together.
    """
    urls = _NEXT_URL.split(location.strip()) if isinstance(location, str) else [url.strip() for url in location]
    if not any(urls):
        raise ConfigurationError(
            "LOCATION is empty; a Redis cache needs the server's URL, such as 'redis://localhost:6379/0'."
        )
    targets = [_parse_url(url, options) for url in urls]
    kinds = {target.kind for target in targets}
    first = targets[0]
    if first.kind == "sentinel" and targets[1:] == targets[:-1]:
        targets = [first]  # django-redis names the service again for its replicas; the primary answers for them
    if len(kinds) > 1 or (len(targets) > 1 and first.kind == "sentinel"):
        raise ConfigurationError(
            "LOCATION is a list of URLs of several kinds; expected servers alone, or one redis+sentinel:// or "
            "redis+cluster:// that names all its hosts."
        )
    merged: dict[str, Any] = {}
    for target in targets:
        merged |= dict(target.options)
    own = {name: options[name] for name in known.CONNECTION} | merged
    servers = tuple(server for target in targets for server in target.servers)
    kind = "cluster" if known.is_cluster(options) and first.kind == "server" else first.kind
    if kind == "cluster" and any(server.db for server in servers):
        raise ConfigurationError("LOCATION is a cluster with a database number; a cluster has database 0 alone.")
    return replace(first, kind=kind, servers=servers, options=tuple(sorted(own.items())))


def _parse_url(url: str, options: Mapping[str, Any]) -> Target:
    wrong = f"LOCATION is {mask_url(url)!r}"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError(f"{wrong}, which is not a URL; expected one such as {_EXAMPLE}.") from None
    if parts.scheme not in _SCHEMES or "://" not in url:
        raise ConfigurationError(
            f"{wrong}; expected a URL of one of the schemes {', '.join((*_SCHEMES,))}, such as {_EXAMPLE}."
        )
    query = _parse_query(parts.query, options, wrong)
    template = _template(parts, {**options, **query}, wrong)
    kind, _ = _SCHEMES[parts.scheme]
    if kind == "server" and known.is_sentinel(options):
        return _spelled_by_django_redis(template, parts, options, query, wrong)
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if not path or parts.hostname:
            raise ConfigurationError(f"{wrong}; expected the path of a socket, such as 'unix:///run/redis/redis.sock'.")
        return Target("server", (replace(template, host="", path=path),), options=tuple(query.items()))
    addresses = _parse_hosts(parts, _PORTS[kind], wrong)
    if kind == "sentinel":
        service, db = _parse_service(parts.path, wrong)
        primary = replace(template, db=template.db if db is None else db, must_be_primary=True)
        return Target(kind, (primary,), _sentinels(addresses, template, options), service, tuple(query.items()))
    db = _parse_db(parts.path, wrong)
    if kind == "server" and len(addresses) > 1:
        raise ConfigurationError(f"{wrong}; expected one host, or a URL for each of several servers.")
    servers = (
        replace(template, host=host, port=port, db=template.db if db is None else db) for host, port in addresses
    )
    return Target(kind, tuple(servers), options=tuple(query.items()))


_EXAMPLE: Final = "'redis://localhost:6379/0'"


def _template(parts: SplitResult, options: Mapping[str, Any], wrong: str) -> Server:
    """Return what all servers of a URL have in common."""
    user_info = parts.netloc.rpartition("@")[0]
    username, _, password = user_info.partition(":")
    try:
        return Server(
            db=options["db"],
            username=unquote(username, errors="strict") or options["username"],
            password=unquote(password, errors="strict") or options["password"],
            tls=_SCHEMES[parts.scheme][1],
        )
    except UnicodeDecodeError:
        raise ConfigurationError(f"{wrong}; expected percent-encoded UTF-8 for what is special in a URL.") from None


def _parse_query(query: str, options: Mapping[str, Any], wrong: str) -> dict[str, Any]:
    parsed = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "is_master" and known.is_sentinel(options):
            continue  # django-redis: the primary is read from and written to, whatever it says
        option = known.IN_URL.get(name)
        if option is None:
            raise ConfigurationError(
                f"{wrong}, whose query holds {name!r}; expected options of connections: {', '.join(known.CONNECTION)}."
                f"{nearest(name, known.CONNECTION)}"
            )
        try:
            parsed[name] = option.parse(value)
        except ValueError as expectation:
            raise ConfigurationError(f"{wrong}, whose {name} is wrong; expected {expectation}.") from None
    return {name: value for name, value in parsed.items() if name in known.CONNECTION}


def _parse_hosts(parts: SplitResult, default_port: int, wrong: str) -> list[tuple[str, int]]:
    addresses = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        host, colon, port = address.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = address, ""
        if (port and not port.isdecimal()) or int(port or 1) > 65535:  # noqa: PLR2004 -- 16 bits
            raise ConfigurationError(f"{wrong}, whose port is wrong; expected a number up to 65535.")
        addresses.append((unquote(host.strip("[]")) or "localhost", int(port or default_port)))
    return addresses


def _parse_db(path: str, wrong: str) -> int | None:
    """Return the number in a URL's path, or None if there is none."""
    number = path.strip("/")
    if not number:
        return None
    if not number.isdecimal():
        raise ConfigurationError(f"{wrong}; expected the database's number after the host, as in {_EXAMPLE}.")
    return int(number)


def _parse_service(path: str, wrong: str) -> tuple[str, int | None]:
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            f"{wrong}; expected the primary's name after the hosts, such as "
            "'redis+sentinel://one:26379,two:26379/mymaster/0'."
        )
    return unquote(service), _parse_db(db, wrong)


def _sentinels(
    addresses: Sequence[tuple[str, int]], template: Server, options: Mapping[str, Any]
) -> tuple[Server, ...]:
    login = options["sentinel_kwargs"] or {}
    return tuple(
        Server(host, port, username=login.get("username"), password=login.get("password"), tls=template.tls)
        for host, port in addresses
    )


def _spelled_by_django_redis(
    template: Server, parts: SplitResult, options: Mapping[str, Any], query: Mapping[str, Any], wrong: str
) -> Target:
    """Return the target of ``redis://service/db`` with OPTIONS["SENTINELS"]."""
    if not options["sentinels"]:
        raise ConfigurationError(
            f"{wrong}, and OPTIONS ask for Sentinel without naming any; expected OPTIONS['SENTINELS'], or a LOCATION "
            "such as 'redis+sentinel://one:26379,two:26379/mymaster/0'."
        )
    db = _parse_db(parts.path, wrong)
    primary = replace(template, db=template.db if db is None else db, must_be_primary=True)
    service = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    sentinels = _sentinels(options["sentinels"], template, options)
    return Target("sentinel", (primary,), sentinels, service, tuple(query.items()))
