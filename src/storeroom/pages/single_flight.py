"""A page is obtained: one caller runs the application, the others are answered with its page.

A flight and a lease, as for get_or_set(), see to it that one caller among threads, tasks, processes and hosts runs the
application for a page (``computing``).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from storeroom import timeouts
from storeroom.computing import stampede
from storeroom.computing.one_key import Computation
from storeroom.computing.work import Function
from storeroom.config.freshness import Freshness
from storeroom.engines.flights import Flight
from storeroom.http import RECORD, Headers, Kind, Record, is_unmodified, judge
from storeroom.pages.looking import Found, judged, looking_again
from storeroom.pages.making import ERRORS, Answer, Making
from storeroom.storage import tags, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.steps import Steps

__all__ = ["Runner", "keep", "obtain", "refresh", "try_out"]

RETRY_SECONDS: Final = 5.0
"""Seconds that a stale page is served for without another attempt, after one has failed."""

_PLAIN: Final = Freshness()

_log = logging.getLogger("storeroom.pages")


class Runner(Protocol):
    """Runs the application for a making, until its answer is complete, or is passed through."""

    @property
    def function(self) -> Callable[[], Any]:
        """Runs it; returns an awaitable where the caller awaits."""


class PageWork(Computation):
    """The computation of one page: its value is the bytes that are stored under its key."""

    def __init__(self, making: Making, runner: Runner) -> None:
        cache = making.task.cache
        terms = cache._terms(0, _PLAIN, making.plan.tags_of(making.request))
        # A page is answered whether it can be stored or not.
        terms = replace(terms, expires_at=lambda _: making.expires_at, raises=False, needs_storage=False)
        function = Function(runner.function, making.task.url)
        super().__init__(making.hooks, cache._counters, terms, making.found.storage_key, function)
        self._making, self._seen = making, tags.Versions()
        entry = making.found.entry
        if type(entry) is Envelope:
            self.lease.found = entry
            self.lease.replaces = entry if entry.has_value else None

    def _versions(self) -> Steps[tags.Versions | None]:
        versions = yield from super()._versions()
        self._seen = versions or {}
        return versions

    def _called(self, flight: Flight, *args: Any) -> Steps[Any]:
        yield from super()._called(flight, *args)
        return (yield from self._making.settled(self._seen, self._function.seconds))

    def _conditioned(
        self, values: Mapping[str, Any], expires_at: float, seconds: float, versions: tags.Versions
    ) -> Steps[tuple[Mapping[str, Any], float]]:
        packed = values[self.key]
        if packed[:2] != RECORD:
            return values, expires_at
        stored, kept_until = yield from self._making.conditioned(packed, versions, seconds)
        return {self.key: stored}, kept_until


def obtain(making: Making, runner: Runner, reason: str, *, blocking: bool) -> Steps[Answer | None]:
    """Return the page, made now by this caller or by another.

    None if the application's answer is passed through, or is to be, where ``making.is_begun`` is False.

    Raises:
        Exception: the application's own error.
    """
    for _ in range(2):
        value = yield from _obtained(making, runner, blocking=blocking)
        if making.is_begun or value is None or isinstance(value, Answer):
            break
        found = yield from _another(making, value)
        if found.record is not None:
            return _collapsed(making, found, found.record, reason)
        if found.marker is MISSING:
            return None
        making.found = found  # the page for these headers is another one
    if isinstance(value, Answer):
        return value
    return making.answer(reason)


def _another(making: Making, value: bytes) -> Steps[Found]:
    """Return the page that another has made, by the bytes that he has stored."""
    found = making.found
    if found.marker is MISSING:
        return (yield from looking_again(making.task, found.generations, value))
    return judged(making.task, found.storage_key, found.generations, value, found.marker)


def _collapsed(making: Making, found: Found, record: Record, reason: str) -> Answer | None:
    """Return another's page, if it is for this request, too; as it was made meanwhile, it need not be fresh."""
    request, policy = making.request, making.plan.policy
    if judge(record, request, record.born, policy).kind is Kind.BYPASS:
        return None
    return Answer(record, found.body, is_unmodified(record, request), reason, is_collapsed=True)


def _obtained(making: Making, runner: Runner, *, blocking: bool) -> Steps[Any]:
    """Return the bytes that are stored, an Answer that is stale, or None if another's run has failed."""
    work = PageWork(making, runner)
    work.note_misses()
    with unstored.Caught() as caught:
        value = yield from _made(work, making, blocking=blocking)
        work.flights.resume(work.key)
        return value
    stale = making.stale
    if making.page is not None or making.is_through:
        return None  # the storage's error
    if stale is not None:
        _note_failure(work, caught.error)
        return Answer(stale, making.found.body, is_unmodified(stale, making.request), "stale;error")
    if making.is_begun:
        raise caught.error
    return None  # that of another's run


def _made(work: PageWork, making: Making, *, blocking: bool) -> Steps[bytes]:
    found = making.found
    if type(found.entry) is bytes and found.record is not None:  # fresh, and to be made anew all the same
        value: bytes = yield from stampede.compute_anew(work)
        return value
    if found.record is None and _has_value(found.entry):  # of no use to anybody: without it there is room for a lease
        yield making.hooks, "_compare_delete", (work.key, found.entry)
        work.lease.found, work.lease.replaces = MISSING, None  # others would take the value that it has for a page
    value = (yield from stampede.compute_once(work, blocking=blocking))[work.key]
    return value


def _has_value(entry: Any) -> bool:
    return type(entry) is bytes or (type(entry) is Envelope and entry.has_value)


def _note_failure(work: PageWork, error: Exception) -> None:
    if not work.flights.is_paused(work.key):
        _log.warning("The page %s cannot be made; the stale one is served.", work.typed[0], exc_info=error)
    work.flights.pause(work.key, timeouts.now() + RETRY_SECONDS)


def refresh(making: Making, runner: Runner, *, blocking: bool) -> Steps[None]:
    """Make a page anew that is being served: nobody waits for it."""
    work = PageWork(making, runner)
    with unstored.Caught() as caught:
        yield from stampede.compute_once(work, blocking=blocking)
        work.flights.resume(work.key)
    if caught.error is not None:
        _note_failure(work, caught.error)


def try_out(making: Making, runner: Runner) -> Steps[Answer | None]:
    """Run the application without waiting for others, and store its answer if it is to be stored by now.

    The note that it was not takes the lease's part: it has to be there still.
    """
    keys = making.task.cache._tag_keys(making.plan.tags_of(making.request))
    making.versions = (yield from tags.current_versions(making.hooks, keys)) if keys else {}
    yield runner, "run", ()
    yield from _put(making)
    return making.answer(making.found.reason)


def keep(making: Making, status: int, headers: Headers, body: bytes) -> Steps[None]:
    """Store an answer that has become complete after its run was over, if it may be stored."""
    making.is_through = status in ERRORS or not making.begins(status, headers) or not making.fits(len(body))
    if making.is_through:
        return
    making.ends(status, headers, body)
    with unstored.Caught():
        entry = yield making.hooks, "_get", (making.found.storage_key,)
        making.found = making.found._replace(entry=entry)
        yield from _put(making)


def _put(making: Making) -> Steps[None]:
    """Store the page of a run that has no lease, if nobody else has stored one since it was looked for."""
    versions = making.versions
    if making.page is None or making.refusal is not None or versions is None:
        return
    value = yield from making.settled(versions, 0.0)
    stored, until = value, making.kept_until
    if value[:2] == RECORD:
        stored, until = yield from making.conditioned(value, versions, 0.0)
    key, entry = making.found.storage_key, making.found.entry
    with unstored.Caught():
        put = ("_add", (key, stored, until)) if entry is MISSING else ("_compare_set", (key, entry, stored, until))
        making.was_stored = making.was_stored and bool((yield making.hooks, *put))
