"""The findings of ``storeroom check`` as Django's system checks, for ``manage.py check`` and all that runs it.

A finding keeps its id: "storeroom.W006". Those that take an answer of a server, or a guess that the site is deployed,
are told by ``manage.py check --deploy`` alone. Django has two checks of its own for file caches, caches.W002 and
caches.W003, which look at Django's class; here they look at Storeroom's.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Final

from django import conf
from django.core.cache import InvalidCacheBackendError
from django.core.checks import ERROR, WARNING, CheckMessage, Tags, register
from django.core.checks import caches as djangos
from django.core.checks.registry import registry

from storeroom import checks
from storeroom.checks import Context, Finding
from storeroom.checks.subject import read_subject
from storeroom.exceptions import ConfigurationError
from storeroom.storage.probes import Probe

__all__ = [
    "check_caches",
    "check_deployment",
    "check_location_is_absolute",
    "check_location_not_exposed",
    "register_all",
]

_OPENING: Final = (djangos.check_cache_location_not_exposed, djangos.check_file_based_cache_is_absolute)
"""Django's checks that make every cache of CACHES, to see its class."""

_RELATIVE: Final = "storeroom.W015"


def register_all() -> None:
    """Register the checks, once."""
    register(check_caches, Tags.caches)
    register(check_location_is_absolute, Tags.caches)
    register(check_deployment, Tags.caches, deploy=True)
    register(check_location_not_exposed, Tags.caches, deploy=True)
    for check in _OPENING:
        for registered in (registry.registered_checks, registry.deployment_checks):
            if check in registered:
                registered.discard(check)
                registered.add(_leaving_mistakes(check))


def _leaving_mistakes(check: Callable[..., list[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """Return a check that a wrong alias does not end: check_caches() tells of it, with the remedy."""

    @wraps(check)  # its tags, too
    def checked(*args: Any, **kwargs: Any) -> list[CheckMessage]:
        try:
            return check(*args, **kwargs)
        except (ConfigurationError, InvalidCacheBackendError):
            return []

    return checked


def check_caches(**_: Any) -> list[CheckMessage]:
    """Tell of what CACHES itself, and this machine, say. No cache is opened, and no server asked."""
    return list(map(_message, _findings(_context())))


def check_deployment(**_: Any) -> list[CheckMessage]:
    """Tell of what only a deployed site, or its servers, say: each is asked on a connection of its own."""
    context = Context.here().with_settings(conf.settings)
    told = {(finding.id, finding.alias, finding.what) for finding in _findings(_context())}
    found = _findings(context, checks.probe(conf.settings.CACHES, context=context))
    return [_message(finding) for finding in found if (finding.id, finding.alias, finding.what) not in told]


def _context() -> Context:
    """Return the surroundings, without the weak evidence of DEBUG, which test runs switch off, too."""
    here = Context.here()
    return replace(here.with_settings(conf.settings), several_processes=here.several_processes)


def _findings(context: Context, probes: Mapping[str, Probe] | None = None) -> list[Finding]:
    return checks.run(conf.settings.CACHES, context=context, probes=probes)


def _message(finding: Finding) -> CheckMessage:
    level = ERROR if finding.level == "error" else WARNING
    where = None if finding.alias is None else f"CACHES[{finding.alias!r}]"
    what, hint = f"{finding.rule.title}. {finding.what}", "\n".join(_hints(finding))
    return CheckMessage(level, what, hint=hint, obj=where, id=finding.id)


def _hints(finding: Finding) -> Iterator[str]:
    if finding.remedy:
        yield finding.remedy
    yield from (f"\t    {line}" for line in (finding.command or finding.snippet()).splitlines())
    lead = "\t" if finding.remedy else ""
    yield f"{lead}{finding.rule.why} See {finding.rule.docs}."


# Django's own, for Storeroom's class ----------------------------------------------------------------


def check_location_is_absolute(**_: Any) -> list[CheckMessage]:
    """Tell of a file cache whose LOCATION is relative, as caches.W003."""
    relative = [finding.alias for finding in _findings(_context()) if finding.id == _RELATIVE]
    return [
        CheckMessage(WARNING, f"The LOCATION of cache {alias!r} is relative.", "Write a whole path.", id="caches.W003")
        for alias in relative
    ]


def check_location_not_exposed(**_: Any) -> list[CheckMessage]:
    """Tell of a file cache that is in, around, or at a folder that is served, as caches.W002."""
    context = _context()
    folders = {name: Path(os.path.realpath(folder)) for name, folder in context.served_folders.items()}
    read = (read_subject(name, written, context)[0] for name, written in conf.settings.CACHES.items())
    return [message for alias in read if alias.directory for message in _exposed(alias.name, alias.directory, folders)]


def _exposed(alias: str, directory: Path, folders: Mapping[str, Path]) -> Iterable[CheckMessage]:
    for name, folder in folders.items():
        if relation := _relation(directory, folder):
            what = f"The LOCATION of cache {alias!r} {relation} {name}: the cache may be handed out, or be damaged."
            yield CheckMessage(WARNING, what, "Keep it outside.", id="caches.W002")


def _relation(directory: Path, folder: Path) -> str:
    if directory == folder:
        return "is"
    if folder in directory.parents:
        return "is inside"
    return "contains" if directory in folder.parents else ""
