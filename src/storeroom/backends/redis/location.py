"""LOCATION: the servers that its URLs name. docs/backends/redis.md lists their forms."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from storeroom.backends.redis import options as known
from storeroom.backends.redis.addresses import Remap
from storeroom.exceptions import ConfigurationError
from storeroom.storage.probes import Endpoint
from storeroom.wording import mask_url, nearest

__all__ = ["Server", "Target", "parse"]

_NEXT_URL: Final = re.compile(r"\s*[;,]\s*(?=[a-z][a-z+]*://)")
"""A comma also stands between the hosts of one URL, a semicolon between options: the next word tells."""

_SCHEMES: Final = {
    **dict.fromkeys(("redis", "valkey"), ("server", False)),
    **dict.fromkeys(("rediss", "valkeys"), ("server", True)),
    "unix": ("server", False),
    **dict.fromkeys(("redis+sentinel", "valkey+sentinel"), ("sentinel", False)),
    **dict.fromkeys(("rediss+sentinel", "valkeys+sentinel"), ("sentinel", True)),
    **dict.fromkeys(("redis+cluster", "valkey+cluster"), ("cluster", False)),
    **dict.fromkeys(("rediss+cluster", "valkeys+cluster"), ("cluster", True)),
}
"""Scheme -> kind of target, and whether it is by TLS."""

_ADDRESS: Final = re.compile(r"([^:\[\]]+|\[[^\]]*\])(:[0-9]*)?|")
"""A host, and perhaps its port; or neither."""

_PORTS: Final = {"server": 6379, "cluster": 6379, "sentinel": 26379}
_EXAMPLE: Final = "'redis://localhost:6379/0'"


@dataclass(frozen=True, slots=True)
class Server:
    """One server's address, and the login there.

    Attributes:
        host: name or address; "" where there is a path.
        path: of the server's socket; "" for TCP.
        username: None for the default user.
        must_be_primary: whether a connection is only good while the server is no replica.
    """

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    # Each request looks its server up: a hash of these, too, would take 0.5 µs more.
    db: int = field(default=0, hash=False)
    username: str | None = field(default=None, hash=False)
    password: str | None = field(default=None, repr=False, hash=False)
    tls: bool = field(default=False, hash=False)
    must_be_primary: bool = field(default=False, hash=False)

    @property
    def name(self) -> str:
        """The address without credentials, for messages."""
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.tls else ''}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """The location of a cache.

    Attributes:
        kind: "server", "sentinel" or "cluster".
        servers: writes go to the first; for a cluster, any that tells of the others.
        service: the primary's name among the Sentinels.
        options: the options of connections, those of the URL's query included.
        remap: from the address by which servers of a cluster name each other to the one to connect to; None for none.
    """

    kind: str
    servers: tuple[Server, ...]
    sentinels: tuple[Server, ...] = ()
    service: str = ""
    options: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    remap: Remap | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        if self.kind == "sentinel":
            return f"Redis {self.service!r} of the Sentinels at {_listed(self.sentinels)}"
        if self.kind == "cluster":
            return f"the Redis cluster of {_listed(self.servers)}"
        return f"Redis at {self.servers[0].name}"

    def named(self, host: str, port: int) -> Server:
        """Return the server that others call so."""
        address = (host, port) if self.remap is None else self.remap((host, port))
        return replace(self.servers[0], host=address[0], port=int(address[1]))

    def cluster_remedy(self) -> str:
        """Return the remedy where a server turns out to be one of a cluster's; "" where that is known."""
        if self.kind != "server":
            return ""
        scheme = "rediss" if self.servers[0].tls else "redis"
        addresses = ",".join(server.name.partition("://")[2] for server in self.servers if server.host)
        return f" The server is one of a cluster: write {scheme}+cluster://{addresses or 'host:6379'} in LOCATION."

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the servers as known without asking: the primary is taken to be beside the Sentinels."""
        (first, *_) = servers = self.servers
        if self.kind == "sentinel":
            servers = tuple(replace(first, host=sentinel.host, port=sentinel.port) for sentinel in self.sentinels)
        return tuple(map(self.endpoint, servers))

    def endpoint(self, server: Server) -> Endpoint:
        """Return a server's address and protection, as known without asking."""
        options = dict(self.options)
        has_password: bool | None = bool(server.password or options["credential_provider"])
        if server.tls and options["ssl_certfile"] and not has_password:
            has_password = None  # a certificate of the client may be asked for in its stead
        return Endpoint(server.name, server.host, server.tls, has_password)


def _listed(servers: Sequence[Server]) -> str:
    return ", ".join(f"{server.host}:{server.port}" for server in servers)


def parse(location: str | Sequence[str], options: Mapping[str, Any]) -> Target:
    """Return the target of LOCATION and the settled options; raise ConfigurationError if they do not go together."""
    urls = _NEXT_URL.split(location.strip()) if isinstance(location, str) else [url.strip() for url in location]
    if not any(urls):
        raise ConfigurationError(f"LOCATION is empty; a Redis cache needs the server's URL, such as {_EXAMPLE}.")
    targets = [_parse_url(url, options) for url in urls]
    first = targets[0]
    if first.kind == "sentinel" and targets[1:] == targets[:-1]:
        targets = [first]  # django-redis names the service again for its replicas; the primary answers for them
    if any(target.kind != first.kind for target in targets) or (len(targets) > 1 and first.kind == "sentinel"):
        raise ConfigurationError(
            "LOCATION is a list of URLs of several kinds; expected servers alone, or one redis+sentinel:// or "
            "redis+cluster:// that names all its hosts."
        )
    own = {name: options[name] for name in known.CONNECTION}
    own |= {name: value for target in targets for name, value in target.options}
    servers = tuple(server for target in targets for server in target.servers)
    kind = "cluster" if known.is_cluster(options) and first.kind == "server" else first.kind
    if kind == "cluster" and any(server.db for server in servers):
        raise ConfigurationError("LOCATION is a cluster with a database number; a cluster has database 0 alone.")
    remap = options["address_remap"]
    return replace(first, kind=kind, servers=servers, options=tuple(sorted(own.items())), remap=remap)


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
    _refuse_cut_password(url, parts, wrong)
    query = _parse_query(parts.query, options, wrong)
    template = _template(parts, {**options, **query}, wrong)
    kind = _SCHEMES[parts.scheme][0]
    if kind == "server" and known.is_sentinel(options):
        target = _spelled_by_django_redis(template, parts, options, wrong)
    elif parts.scheme == "unix":
        target = _parse_socket(template, parts, wrong)
    elif kind == "sentinel":
        target = _parse_sentinels(template, parts, options, wrong)
    else:
        target = _parse_servers(template, parts, kind, wrong)
    return replace(target, options=tuple(query.items()))


def _refuse_cut_password(url: str, parts: SplitResult, wrong: str) -> None:
    """Raise ConfigurationError if a character of the password has ended the hosts."""
    rest = url.partition("://")[2]
    cut = next((each for each in rest if each in "/?#"), "")
    if parts.scheme == "unix" or not cut or "@" in parts.netloc or "@" not in rest:
        return
    is_host = all(_ADDRESS.fullmatch(address) for address in parts.netloc.split(","))
    if not is_host or "@" in parts.path + parts.fragment:
        raise _cut_password(wrong, cut)


def _cut_password(wrong: str, cut: str) -> ConfigurationError:
    return ConfigurationError(f"{wrong}, with a {cut!r} before the '@'; expected %{ord(cut):X} for it in a password.")


def _parse_socket(template: Server, parts: SplitResult, wrong: str) -> Target:
    if not parts.path or parts.hostname:
        raise ConfigurationError(f"{wrong}; expected the path of a socket, such as 'unix:///run/redis/redis.sock'.")
    return Target("server", (replace(template, host="", path=unquote(parts.path)),))


def _parse_servers(template: Server, parts: SplitResult, kind: str, wrong: str) -> Target:
    addresses = _parse_hosts(parts, _PORTS[kind], wrong)
    db = _parse_db(parts.path, template, wrong)
    if kind == "server" and len(addresses) > 1:
        raise ConfigurationError(f"{wrong}; expected one host, or a URL for each of several servers.")
    return Target(kind, tuple(replace(template, host=host, port=port, db=db) for host, port in addresses))


def _parse_sentinels(template: Server, parts: SplitResult, options: Mapping[str, Any], wrong: str) -> Target:
    addresses = _parse_hosts(parts, _PORTS["sentinel"], wrong)
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError(
            f"{wrong}; expected the primary's name after the hosts, such as "
            "'redis+sentinel://one:26379,two:26379/mymaster/0'."
        )
    return _by_sentinels(unquote(service), _parse_db(db, template, wrong), addresses, template, options)


def _template(parts: SplitResult, options: Mapping[str, Any], wrong: str) -> Server:
    """Return a server with the login that all servers of a URL share."""
    username, _, password = parts.netloc.rpartition("@")[0].partition(":")
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
            if "@" in query:  # of a password with an unescaped "?" it is the rest
                raise _cut_password(wrong, "?")
            raise ConfigurationError(
                f"{wrong}, whose query holds {name!r}; expected options of connections: {', '.join(known.CONNECTION)}."
                f"{nearest(name, known.CONNECTION)}"
            )
        try:
            parsed[name] = option.parse(value)
        except ValueError as expectation:
            if "@" in value:
                raise _cut_password(wrong, "?") from None
            raise ConfigurationError(f"{wrong}, whose {name} is wrong; expected {expectation}.") from None
    return {name: value for name, value in parsed.items() if name in known.CONNECTION}


def _parse_hosts(parts: SplitResult, default_port: int, wrong: str) -> list[tuple[str, int]]:
    addresses = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        host, colon, port = address.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = address, ""
        if (port and not port.isdecimal()) or int(port or 1) >= 2**16:
            raise ConfigurationError(f"{wrong}, whose port is wrong; expected a number up to 65535.")
        addresses.append((unquote(host.strip("[]")) or "localhost", int(port or default_port)))
    return addresses


def _parse_db(path: str, template: Server, wrong: str) -> int:
    """Return the number in a URL's path, or that of the template if there is none."""
    number = path.strip("/") or str(template.db)
    if not number.isdecimal():
        raise ConfigurationError(f"{wrong}; expected the database's number after the host, as in {_EXAMPLE}.")
    return int(number)


def _by_sentinels(
    service: str, db: int, addresses: Sequence[tuple[str, int]], template: Server, options: Mapping[str, Any]
) -> Target:
    login = options["sentinel_kwargs"] or {}
    sentinel = Server(username=login.get("username"), password=login.get("password"), tls=template.tls)
    sentinels = tuple(replace(sentinel, host=host, port=port) for host, port in addresses)
    return Target("sentinel", (replace(template, db=db, must_be_primary=True),), sentinels, service)


def _spelled_by_django_redis(template: Server, parts: SplitResult, options: Mapping[str, Any], wrong: str) -> Target:
    """Return the target of ``redis://service/db`` with OPTIONS["SENTINELS"]."""
    if not options["sentinels"]:
        raise ConfigurationError(
            f"{wrong}, and OPTIONS ask for Sentinel without naming any; expected OPTIONS['SENTINELS'], or a LOCATION "
            "such as 'redis+sentinel://one:26379,two:26379/mymaster/0'."
        )
    service = unquote(parts.netloc.rpartition("@")[2].partition(":")[0])
    return _by_sentinels(service, _parse_db(parts.path, template, wrong), options["sentinels"], template, options)
