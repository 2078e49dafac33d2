"""Ask the servers of a whole configuration, all at the same time."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from storeroom.checks.context import Context
from storeroom.checks.subject import Subject, read_subject
from storeroom.config import Settings
from storeroom.exceptions import StoreroomError
from storeroom.storage.probes import Endpoint, Probe, ServerProbe, together

__all__ = ["PATIENCE", "probe"]

PATIENCE: Final = 3.0
"""Seconds; a cache waits for one, and PostgreSQL's library for two at least."""


def probe(caches: Mapping[str, Any], *, context: Context | None = None, seconds: float = PATIENCE) -> dict[str, Probe]:
    """Ask the servers that a configuration names. Nothing is written to them, and nothing changed.

    Args:
        caches: alias to its dict, as in ``CACHES``.
        context: its surroundings; by default those that this machine tells.
        seconds: the longest to wait for each server; all are asked at the same time.

    Returns:
        dict from alias to the answers of its servers; aliases without a server are absent, and so are those in which
        something is wrong.
    """
    context = Context.here() if context is None else context
    subjects = [read_subject(name, written, context)[0] for name, written in caches.items()]
    asked = [subject for subject in subjects if subject.alias is not None and hasattr(subject.alias.backend, "probe")]
    patience = 2 * seconds + 1  # some servers are named by others, which are asked first
    answers = together([partial(_ask, subject, seconds) for subject in asked], patience)
    return {subject.name: answer or _silence(subject, patience) for subject, answer in zip(asked, answers, strict=True)}


def _silence(subject: Subject, seconds: float) -> Probe:
    failure = f"no answer within {seconds:g} s"
    return Probe((ServerProbe(Endpoint(subject.shown_location), failure=failure, seconds=seconds),))


def _ask(subject: Subject, seconds: float) -> Probe:
    alias = subject.alias
    if alias is None or alias.settings is None:
        return Probe()
    try:
        handle: Any = alias.build()
        if _is_the_sites(subject, alias.settings, handle):
            return Probe(unasked="it is in a database of the site, which is known where Django runs")
        answer: Probe = handle.probe(seconds)
    except (StoreroomError, OSError) as error:
        return Probe(error=error)
    return answer


def _is_the_sites(subject: Subject, settings: Settings, handle: Any) -> bool:
    """Tell whether the table is in the database of a Django project that does not run here."""
    if subject.family != "db" or not subject.context.in_django or handle.database_alias is not None:
        return False
    return settings.options["url"] is None and not any("://" in location for location in subject.locations)
