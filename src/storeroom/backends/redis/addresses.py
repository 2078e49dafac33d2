"""Addresses by which the servers of a cluster name each other, and those to connect to instead.

Behind NAT, in containers or at the end of a tunnel they differ: OPTIONS["address_remap"], as redis-py calls it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Remap", "address_map"]

Address: TypeAlias = tuple[str, int]

Remap: TypeAlias = Callable[[Address], Address]


@dataclass(frozen=True, slots=True)
class _AddressMap:
    """A function of addresses by a table, in which a host without a port stands for all its ports."""

    reached: Mapping[tuple[str, int | None], tuple[str, int | None]]

    def __call__(self, address: Address) -> Address:
        found: tuple[str, int | None] = address
        for told in (address, (address[0], None)):
            if told in self.reached:
                found = self.reached[told]
                break
        host, port = found
        return host, address[1] if port is None else port


def address_map(value: Any) -> Remap | None:
    """Parse the option: a function, or a dict from address to address.

    >>> address_map({"10.0.0.1": "localhost", "[::1]:6379": "cache:7000"})(("10.0.0.1", 7001))
    ('localhost', 7001)
    """
    if value is None or callable(value):
        function: Remap | None = value
        return function
    try:
        return _AddressMap({_parsed(told): _parsed(reached) for told, reached in value.items()})
    except (AttributeError, ValueError):
        raise ValueError(
            'a dict such as {"10.0.0.1:6379": "127.0.0.1:7001"}, or a function of a tuple (host, port) that returns '
            "such a tuple"
        ) from None


def _parsed(address: str) -> tuple[str, int | None]:
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]") or (":" in host and not host.endswith("]")):
        host, port = address, ""  # an address of IPv6 has colons of its own
    return host.strip("[]"), int(port) if port else None
