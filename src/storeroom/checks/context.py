"""The surroundings of a configuration that decide whether it is right: processes, mounts, served folders.

A check never guesses. Several processes serve a site where something says so: an option, a variable that process
managers read, or Django's settings. Where nothing does, the checks that need it are silent.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

__all__ = ["Context"]

_WORKER_VARIABLES: Final = (
    "WEB_CONCURRENCY",  # read by gunicorn, uvicorn and hypercorn's images; set by Heroku and others
    "GUNICORN_WORKERS",
    "UVICORN_WORKERS",
    "GRANIAN_WORKERS",
    "UWSGI_PROCESSES",
    "UWSGI_WORKERS",
)
"""Environment variables whose value is a number of worker processes."""

_SESSION_ENGINES: Final = ("django.contrib.sessions.backends.cache", "storeroom.integrations.django.sessions")
"""Those that keep sessions in a cache alone."""

# docs.gunicorn.org: GUNICORN_CMD_ARGS holds command-line options.
_GUNICORN_WORKERS: Final = re.compile(r"(?:^|\s)(?:-w\s*|--workers[=\s]\s*)(\d+)")

_MOUNTS: Final = Path("/proc/self/mounts")

# Each line begins with a device, the mount point and the type of file system: proc(5).
_MOUNT: Final = re.compile(r"^[^ \n]* ([^ \n]+) ([^ \n]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Context:
    """Facts that the checks use besides the configuration.

    Attributes:
        several_processes: the evidence that they serve the site, such as "WEB_CONCURRENCY is 4"; "" for none.
        sessions_alias: the alias that alone keeps users' sessions, or None.
        served_folders: setting to folder, for folders that a web server hands out.
        mounts: mount point to the type of file system mounted there.
        user_id: the user that runs this, or None where the system has no such numbers.
        directory: the base of a relative LOCATION; None for the working directory of each process.
        in_django: whether Django reads this configuration, so that its own paths are its own classes.
        has_secret_key: whether Django's SECRET_KEY signs the values on servers.
    """

    several_processes: str = ""
    sessions_alias: str | None = None
    served_folders: Mapping[str, Path] = field(default_factory=dict)
    mounts: Mapping[Path, str] = field(default_factory=dict)
    user_id: int | None = None
    directory: str | None = None
    in_django: bool = False
    has_secret_key: bool = False

    @property
    def base(self) -> Path:
        """The base of a relative LOCATION here and now."""
        return Path.cwd() if self.directory is None else Path(self.directory)

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None, *, processes: int | None = None) -> "Context":
        """Return the facts that this machine and its environment variables tell.

        Args:
            environ: the environment variables, by default this process's own.
            processes: the number of processes that serve the site, where somebody knows.
        """
        return cls(
            several_processes=_evidence(os.environ if environ is None else environ, processes),
            mounts=_mounts(),
            user_id=os.getuid() if hasattr(os, "getuid") else None,
        )

    def with_settings(self, settings: Any) -> "Context":
        """Return a context that also knows Django's settings; any object with such attributes will do."""
        in_django = self.in_django or hasattr(settings, "INSTALLED_APPS")
        # The weaker evidence: a deployed site has DEBUG off.
        is_deployed = getattr(settings, "DEBUG", None) is False
        deployed = "DEBUG is False: a deployed site mostly has several workers" if is_deployed else ""
        has_sessions = getattr(settings, "SESSION_ENGINE", None) in _SESSION_ENGINES
        sessions_alias = str(getattr(settings, "SESSION_CACHE_ALIAS", "default")) if has_sessions else None
        return replace(
            self,
            several_processes=self.several_processes or deployed,
            sessions_alias=sessions_alias or self.sessions_alias,
            served_folders={**self.served_folders, **_served_folders(settings)},
            in_django=in_django,
            # Other frameworks have a SECRET_KEY too, which Storeroom does not use.
            has_secret_key=self.has_secret_key or (in_django and bool(getattr(settings, "SECRET_KEY", ""))),
        )


def _evidence(environ: Mapping[str, str], processes: int | None) -> str:
    if processes is not None:
        return f"{processes} processes serve the site" if processes > 1 else ""
    for name in _WORKER_VARIABLES:
        if _is_several(environ.get(name, "")):
            return f"{name} is {environ[name].strip()}"
    workers = _GUNICORN_WORKERS.findall(environ.get("GUNICORN_CMD_ARGS", ""))
    # As on any command line, the last one counts.
    return f"GUNICORN_CMD_ARGS asks for {workers[-1]} workers" if workers and _is_several(workers[-1]) else ""


def _is_several(number: str) -> bool:
    return number.strip().isdecimal() and int(number) > 1


def _served_folders(settings: Any) -> dict[str, Path]:
    folders = {name: getattr(settings, name, None) for name in ("MEDIA_ROOT", "STATIC_ROOT")}
    for number, entry in enumerate(getattr(settings, "STATICFILES_DIRS", None) or ()):
        # An entry may be a (prefix, folder) pair.
        folders[f"STATICFILES_DIRS[{number}]"] = entry[1] if isinstance(entry, tuple | list) else entry
    # An empty MEDIA_ROOT, Django's default, names no folder.
    return {name: Path(folder) for name, folder in folders.items() if folder}


def _mounts() -> dict[Path, str]:
    """Read the table of mounts; it is empty on systems without /proc."""
    try:
        table = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    # proc(5) escapes in octal: a space is written \040.
    return {
        Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)): kind
        for point, kind in _MOUNT.findall(table)
    }
