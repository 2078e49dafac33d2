"""Requests without end, by wrk, which is one thread here and shares the processors with the servers."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final
from urllib.request import urlopen

__all__ = ["CONNECTIONS", "Load", "ask", "parsed", "program"]

CONNECTIONS: Final = 32

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Load:
    """The answers of some seconds.

    Attributes:
        rate: requests a second.
        half: seconds within which half of them were answered.
        most: seconds within which 99 % were.
    """

    rate: float
    half: float
    most: float


def program() -> str:
    """Return the path of wrk.

    Raises:
        RuntimeError: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise RuntimeError("wrk is not installed. On Debian and its kin: apt-get install wrk")
    return found


def page_at(url: str) -> bytes:
    """Return the page there, asked for once."""
    with urlopen(url, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def ask(url: str, seconds: float) -> Load:
    """Ask for a URL on all connections for so long; wrk takes whole seconds.

    Raises:
        RuntimeError: not all answers were pages.
    """
    duration = f"{max(1, round(seconds))}s"
    command = [program(), "--threads", "1", "--connections", str(CONNECTIONS), "--duration", duration, "--latency", url]
    return parsed(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def parsed(told: str) -> Load:
    r"""Return the load that wrk tells of.

    Raises:
        RuntimeError: not all answers were pages.

    >>> parsed("50%  1.25ms\n99%  0.90s\n Requests/sec:  1024.50")
    Load(rate=1024.5, half=0.00125, most=0.9)
    """
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(f"wrk has got other answers than pages:\n{told}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", told)
    shares = {share: float(value) * _UNITS[unit] for share, value, unit in _SHARE.findall(told)}
    if rate is None or not {"50", "99"} <= shares.keys():
        raise RuntimeError(f"wrk tells nothing:\n{told}")
    return Load(float(rate[1]), shares["50"], shares["99"])


_SHARE: Final = re.compile(r"(50|99)%\s+([\d.]+)(us|ms|s)\b")
