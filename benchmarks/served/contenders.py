"""Who is compared with whom: groups of servers that serve the same application, each by another cache."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.served import asgi_sites, wsgi_sites

__all__ = ["BARE", "GROUPS", "NGINX", "OURS", "PATHS", "UNCACHED", "Group"]

OURS: Final = "Storeroom"
UNCACHED: Final = "uncached"
BARE: Final = "bare application"
"""Answers with the bytes and nothing else: no cache in Python can be faster on its server."""
NGINX: Final = "nginx"

PATHS: Final = {"/rows": "100 rows as JSON", "/page": "5 kB of HTML"}


@dataclass(frozen=True, slots=True)
class Group:
    """Servers that take turns.

    Attributes:
        name: of the group.
        framework: of the application: "fastapi", "flask" or "django".
        server: "uvicorn", "gunicorn" or "granian".
        names: of the contenders, ours first.
        workers: processes of each server.
    """

    name: str
    framework: str
    server: str
    names: tuple[str, ...]
    workers: int = 1

    @property
    def peers(self) -> tuple[str, ...]:
        """The other caches in Python."""
        return tuple(name for name in self.names if not name.startswith(OURS) and name not in (UNCACHED, BARE, NGINX))


def _names(sites: Iterable[str]) -> tuple[str, ...]:
    return (*(name for name in sites if name not in (UNCACHED, BARE)), UNCACHED, BARE, NGINX)


GROUPS: Final = (
    Group("FastAPI on uvicorn", "fastapi", "uvicorn", _names(asgi_sites.SITES)),
    Group("FastAPI on uvicorn, 2 workers", "fastapi", "uvicorn", _names(asgi_sites.SITES), workers=2),
    Group("Flask on gunicorn", "flask", "gunicorn", _names(wsgi_sites.FLASK)),
    Group("Flask on granian", "flask", "granian", _names(wsgi_sites.FLASK)),
    Group("Django on gunicorn", "django", "gunicorn", _names(wsgi_sites.DJANGO)),
    Group("Django on granian", "django", "granian", _names(wsgi_sites.DJANGO)),
)
