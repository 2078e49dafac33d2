"""Facts about a backend's servers, for ``storeroom check``.

A backend whose entries lie elsewhere has the two methods of `Probed` beside the cache's own. Asking writes nothing,
uses connections of its own, and ends in time: a server that does not answer is part of the result, not an exception.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeVar

from storeroom import timeouts

__all__ = ["ROUND_TRIPS", "Endpoint", "Memory", "Probe", "Probed", "ServerProbe", "TableProbe", "measure", "together"]

T = TypeVar("T")

ROUND_TRIPS: Final = 9
"""Round trips that are timed: an odd number, whose median a single hiccup does not change."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and how the way to it is protected.

    Attributes:
        address: as people write it; without credentials.
        host: name or address; "" for a socket or a file of this machine.
        is_encrypted: whether nobody on the way can read the traffic; None where that shows only when it is asked.
        has_password: whether one has to be known to get in; None where nothing tells.
    """

    address: str
    host: str = ""
    is_encrypted: bool | None = None
    has_password: bool | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether the traffic leaves this machine, by all that the address tells.

        >>> [Endpoint("", host).is_elsewhere for host in ("", "localhost", "127.0.0.1", "::1", "10.0.0.7", "cache")]
        [False, False, False, False, True, True]
        """
        name = self.host.lower().rstrip(".")
        # RFC 6761, section 6.3: every name below "localhost" is this machine.
        return not (name in {"", "ip6-localhost"} or name.rpartition(".")[2] == "localhost" or _is_loopback(name))


def _is_loopback(name: str) -> bool:
    import ipaddress  # noqa: PLC0415 -- only checks ask

    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that a server may use, and its policy when that is full.

    Attributes:
        max_bytes: None for no bound.
        evicts: the entries that make room: "any", those that are "expiring" at some time, or "nothing".
        policy: the same in the server's own words.
    """

    max_bytes: int | None
    evicts: Literal["any", "expiring", "nothing"]
    policy: str


@dataclass(frozen=True, slots=True)
class ServerProbe:
    """The answers of one server, or its silence.

    Attributes:
        role: "primary", "replica", "Sentinel", or "" where all are alike.
        failure: why nothing can be done with it, in a few words; "" where all is well.
        is_refusal: whether it was the server that said no, so that the way to it is open.
        seconds: until it had answered, or had failed to.
        version: as the server writes it; "" if it does not say.
        oldest: the oldest version that can do all that the backend asks for; "" for any.
        round_trips: seconds that each took, on an open connection.
        clock_ahead: seconds by which its clock is ahead of this host's; None if it does not tell the time.
        memory: None where it does not say.
        lacks: rules of its ACL that the user needs and has not.
        rights: the words of the least rule by which a user may do all that the cache does; none where that is unknown.
    """

    endpoint: Endpoint
    role: str = ""
    failure: str = ""
    is_refusal: bool = False
    seconds: float = 0.0
    product: str = ""
    version: str = ""
    oldest: str = ""
    round_trips: tuple[float, ...] = ()
    clock_ahead: float | None = None
    memory: Memory | None = None
    lacks: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The address, with the role where there is one."""
        return f"{self.endpoint.address} ({self.role})" if self.role else self.endpoint.address

    @property
    def latency(self) -> float | None:
        """The median round trip in seconds; None if none was timed."""
        return sorted(self.round_trips)[len(self.round_trips) // 2] if self.round_trips else None

    @property
    def is_too_old(self) -> bool:
        """Whether the server is older than it may be; False for a version that cannot be compared."""
        found = _parts(self.version)
        return bool(found) and found < _parts(self.oldest)


def _parts(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: "10.11.6-MariaDB" is (10, 11, 6)."""
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


@dataclass(frozen=True, slots=True)
class TableProbe:
    """The table of a database cache.

    Attributes:
        state: "ready"; "absent"; "old", made by Django or another version, and replaced on first use; or "foreign".
        may_create: whether this user may make it; None where nobody can tell.
    """

    name: str
    database: str
    state: Literal["ready", "absent", "old", "foreign"]
    may_create: bool | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """The answers of one cache's servers.

    Attributes:
        servers: each that the cache needs, also those that other servers have named.
        table: of a database cache, if it could be looked at.
        error: why nobody could be asked at all: a driver that is missing, a LOCATION that makes no sense.
        unasked: why nobody was asked, where that is no mistake; "" where all were.
    """

    servers: tuple[ServerProbe, ...] = ()
    table: TableProbe | None = None
    error: Exception | None = None
    unasked: str = ""


class Probed(Protocol):
    """A cache whose servers can be asked."""

    @classmethod
    def endpoints(cls, location: Any, settings: Any) -> Sequence[Endpoint]:
        """Return the servers that LOCATION and the alias's `Settings` name; nothing is connected to."""

    def probe(self, seconds: float) -> Probe:
        """Ask each server once; one that takes longer than so many seconds has failed."""


def together(works: Sequence[Callable[[], T]], seconds: float) -> list[T | None]:
    """Run functions at the same time; return their results, and None for those that are not done in time.

    A function that hangs, in a driver or a look-up of a name, goes on in a thread that no program waits for. The first
    error of one of them is raised.
    """
    results: list[T | None] = [None] * len(works)
    errors: list[BaseException] = []

    def run(number: int, work: Callable[[], T]) -> None:
        try:
            results[number] = work()
        except BaseException as error:  # noqa: BLE001 -- raised again, where somebody sees it
            errors.append(error)

    threads = [
        threading.Thread(target=run, args=args, daemon=True, name="storeroom-probe") for args in enumerate(works)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    return list(results)


def measure(ask: Callable[[], object], tell_time: Callable[[], float | None]) -> tuple[tuple[float, ...], float | None]:
    """Time round trips; return their seconds, and those by which the server's clock is ahead of this host's.

    One call of `ask` is a round trip; `tell_time` returns the server's epoch seconds, or None if it does not tell.
    """
    times = []
    for _ in range(ROUND_TRIPS):
        begun = time.perf_counter()
        ask()
        times.append(time.perf_counter() - begun)
    before = timeouts.now()
    told = tell_time()
    return tuple(times), None if told is None else told - (before + timeouts.now()) / 2
