"""The making of a page: one caller runs the application, the others are answered with its page.

A flight and a lease, as for get_or_set(), see to it that one caller among threads, tasks, processes and hosts runs the
application for a page (``computing``). An answer that is not to be stored leaves a note for some seconds, by which the
next requests do not wait for each other (hit-for-miss). A page that is invalidated while it is made is not stored.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

from storeroom import timeouts
from storeroom.computing import stampede
from storeroom.computing.one_key import Computation
from storeroom.computing.work import Function
from storeroom.config.freshness import Freshness
from storeroom.engines.flights import Flight
from storeroom.exceptions import StoreroomError
from storeroom.http import (
    RECORD,
    Headers,
    Kind,
    Lifetimes,
    Record,
    Refusal,
    Request,
    counted_query,
    forwarded,
    freshened,
    is_unmodified,
    judge,
    made,
    pack,
    pass_by,
    read_varies,
    storable,
    unfit,
    varies,
)  # fmt: skip
from storeroom.pages.codings import IDENTITY, compressed, readable, shown
from storeroom.pages.looking import Found, Task, judged, looking_again
from storeroom.storage import tags, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import room_needed
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["Answer", "KeptStaleError", "Making", "Runner", "obtain", "refresh", "try_out"]

_ERRORS: Final = frozenset({500, 502, 503, 504})
"""Statuses instead of which a stale page is served (RFC 5861 §4)."""

_STREAMS: Final = (b"text/event-stream", b"multipart/x-mixed-replace")
"""Beginnings of the types of answers that have no end."""

_OF_THE_REQUEST: Final = frozenset({
    Refusal.AUTHORIZATION, Refusal.REQUEST_NO_STORE, Refusal.COOKIE, Refusal.METHOD, Refusal.UNDERSCORE,
    Refusal.REFLECTED,
})  # fmt: skip
"""Refusals for which the next request's page may be stored all the same: no note is left."""

_MARKER_SECONDS: Final = 86_400.0
"""Seconds that the headers that a URL's pages differ by are remembered for at least."""

RETRY_SECONDS: Final = 5.0
"""Seconds that a stale page is served for without another attempt, after one has failed."""

_log = logging.getLogger("storeroom.pages")


class KeptStaleError(StoreroomError):
    """The application has failed, and a stale page is there to be served."""


class Answer(NamedTuple):
    """The page for a request.

    Attributes:
        record: the page.
        body: its body.
        is_not_modified: whether the client has it already.
        reason: for which the application was run, by RFC 9211 §2.2; empty for a hit.
        was_stored: whether the application's answer was stored.
        is_collapsed: whether it was made for another request.
    """

    record: Record
    body: bytes
    is_not_modified: bool = False
    reason: str = ""
    was_stored: bool = False
    is_collapsed: bool = False


class Runner(Protocol):
    """Runs the application for a making, until its answer is complete, or is passed through."""

    @property
    def function(self) -> Callable[[], Any]:
        """Runs it; returns an awaitable where the caller awaits."""


class Making:
    """One run of the application, as the rules see it.

    Attributes:
        page: the complete answer, once it is there.
        refusal: the reason for which it is not stored.
        is_begun: whether the application was run for this request; the runner says so.
        is_through: whether its answer goes to the client as it comes.
        reason: for which it is run, by RFC 9211 §2.2.
    """

    def __init__(self, task: Task, found: Found) -> None:
        self.task, self.found = task, found
        self.hooks, self.plan, self.request = task.hooks, task.plan, task.request
        asked = task.request  # a page is made by GET, for HEAD, too
        self._get = Request(
            "GET", asked.scheme, asked.host, asked.path, asked.query, asked.headers, asked.is_plain
        )  # fmt: skip
        self.page: tuple[Record, bytes] | None = None
        self.refusal: Refusal | None = None
        self.is_begun = self.is_through = self.was_stored = False
        self.status, self.reason = 0, ""
        self.expires_at, self.kept_until = AT_ONCE, AT_ONCE
        self.vary: Sequence[bytes] = ()
        self._learnt: tags.Versions | None = {}

    @property
    def stale(self) -> Record | None:
        """The stored page, if it may be served where the application fails."""
        record = self.found.record
        is_usable = record is not None and timeouts.now() < record.error_until and self._as_made is not None
        return record if is_usable else None

    @cached_property
    def _as_made(self) -> tuple[Record, bytes] | None:
        """The stored page as the application has made it; None if there is none, or its bytes are damaged."""
        return None if self.found.record is None else shown(self.found.record, self.found.body, IDENTITY)

    @property
    def query(self) -> str:
        """The query that the application sees: a parameter that no page is to differ by would be in everybody's."""
        asked, policy = self.request.query, self.plan.policy
        return counted_query(asked, policy) if policy.ignored_parameters else asked

    def conditions(self) -> Headers:
        """Return the headers that ask the application whether the stored page is as it was (RFC 9111 §4.3.1)."""
        record = self.found.record
        if record is None or not self.plan.policy.revalidate_for or self._as_made is None:
            return []
        asked = [(b"if-none-match", record.etag)] if record.etag is not None else []
        modified = [value for name, value in record.headers if name == b"last-modified"]
        return asked + [(b"if-modified-since", value) for value in modified[:1]]

    def added(self) -> Headers:
        """Return the headers that the application sees beside the request's own."""
        if b"surrogate-control" in self.plan.policy.targeted_names:
            return [*self.conditions(), (b"surrogate-capability", b'storeroom="Surrogate/1.0"')]
        return self.conditions()

    # Told by the runner -----------------------------------------------------------------------

    def begins(self, status: int, headers: Headers) -> bool:
        """Tell whether to hold an answer back until it is complete, by its beginning; else it is passed through."""
        self.status = status
        if (status == 304 and self.conditions()) or (status in _ERRORS and self.stale is not None):
            return True
        times = storable(self._get, status, headers, self.plan.policy, timeouts.now())
        self.refusal = self._too_much(headers) if isinstance(times, Lifetimes) else times
        self.is_through = self.refusal is not None
        return not self.is_through

    def _too_much(self, headers: Headers) -> Refusal | None:
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value) > self.plan.policy.max_body:
                return Refusal.TOO_LARGE
            if name == b"content-type" and value.lower().startswith(_STREAMS):
                return Refusal.STREAMED
        return None

    def fits(self, size: int) -> bool:
        """Tell whether to go on holding an answer back that has so many bytes by now."""
        if size <= self.plan.policy.max_body:
            return True
        self.refusal, self.is_through = Refusal.TOO_LARGE, True
        return False

    def ends(self, status: int, headers: Headers, body: bytes) -> None:
        """Take the complete answer.

        Raises:
            KeptStaleError: it is an error, and a stale page is to be served.
        """
        now, policy = timeouts.now(), self.plan.policy
        if status in _ERRORS and self.stale is not None:
            raise KeptStaleError(f"The application has answered {status}.")
        stored = self.found.record
        if status == 304 and stored is not None and self._as_made is not None:  # it is as it was
            status, headers, body = stored.status, freshened(stored, headers), self._as_made[1]
        elif not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        times = storable(self._get, status, headers, policy, now)
        if isinstance(times, Lifetimes):
            times = unfit(self._get, headers, body, readable(headers, body), policy) or times
        if isinstance(times, Refusal):
            self.refusal, self.page = times, (Record(status, headers, now, now), body)
            return
        record = made(status, headers, times, policy, now, self.found.generations.current)
        self.page = compressed(record, body, self.plan.compress)
        self.expires_at, self.kept_until = record.fresh_until, record.kept_until
        self.vary = tuple(sorted({*times.vary, *forwarded(self.request)}))

    def learns(self, options: Mapping[str, Any]) -> Steps[None]:
        """Take the options of the view that begins now, and the versions of its tags."""
        before = self.plan
        self.plan = before.but(options)
        if self.plan.tags is not before.tags:
            keys = self.task.cache._tag_keys(self.plan.tags_of(self.request))
            with unstored.Caught() as caught:
                self._learnt = (yield from tags.current_versions(self.hooks, keys)) if keys else {}
            if caught.error is not None:
                self._learnt = None

    # Stored -----------------------------------------------------------------------------------

    def answer(self, reason: str) -> Answer | None:
        """Return the complete answer for the client; None if there is none."""
        if self.page is None:
            return None
        record, body = self.page
        return Answer(record, body, is_unmodified(record, self.request), reason, self.was_stored)

    def settled(self, versions: tags.Versions, seconds: float) -> Steps[bytes]:
        """Return the bytes to be stored under the key that was computed; store the page itself, if it is elsewhere."""
        current = self.found.generations.current
        packed = self._packed()
        if packed is None:
            return self._note(current)
        if self.found.marker is MISSING and self.vary:
            marker = varies(self.vary, current)
            key = self.task.variant_key(read_varies(marker))
            stored, kept_until = yield from self.conditioned(packed, versions, seconds)
            with unstored.Caught() as caught, room_needed():
                self.was_stored = bool((yield self.hooks, "_set", (key, stored, kept_until)))
            if caught.error is not None:
                return self._note(current)
            self.expires_at = self.kept_until = max(self.kept_until, timeouts.now() + _MARKER_SECONDS)
            return marker
        known = read_varies(_bytes_of(self.found.marker)).names if self.found.marker is not MISSING else ()
        if set(self.vary) <= set(known):
            self.was_stored = True
            return packed
        # It differs by more headers than was known. The next request's key has them all.
        marker = varies(sorted({*known, *self.vary}), current)
        until = timeouts.now() + _MARKER_SECONDS
        with unstored.Caught():
            yield self.hooks, "_compare_set", (self.task.storage_key, self.found.marker, marker, until)
        self.expires_at = AT_ONCE
        return pass_by(current)

    def _packed(self) -> bytes | None:
        if self.page is None or self.refusal is not None or self._learnt is None:
            return None
        try:
            return pack(*self.page)
        except ValueError:
            self.refusal = Refusal.HEADER
            return None

    def _note(self, current: int) -> bytes:
        """Return the note that the answer was not to be stored; it is kept if the next one is likely to be as it."""
        self.was_stored = False
        seconds = self.plan.hit_for_miss
        is_for_all = self.refusal not in _OF_THE_REQUEST and self.status not in _ERRORS and seconds > 0
        self.expires_at = self.kept_until = timeouts.now() + seconds if is_for_all else AT_ONCE
        return pass_by(current)

    def conditioned(self, packed: bytes, versions: tags.Versions, seconds: float) -> Steps[tuple[Any, float]]:
        """Return the entry of a page, in an envelope if it has tags or is kept for longer than it is fresh."""
        versions = {**versions, **(self._learnt or {})}
        if self.kept_until <= self.expires_at and not versions and not self.plan.early:
            return packed, self.expires_at
        yield from tags.renew(self.hooks, versions, self.kept_until)
        grace = max(0.0, self.kept_until - self.expires_at)
        return Envelope(packed, self.expires_at, grace, seconds, tags.stamps_of(versions)), self.kept_until


def _bytes_of(entry: Any) -> bytes:
    value: bytes = entry.value if type(entry) is Envelope else entry
    return value


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


_PLAIN: Final = Freshness()


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
    if type(found.entry) is bytes:  # of no use to anybody: without it there is room for a lease
        yield making.hooks, "_compare_delete", (work.key, found.entry)
    value = (yield from stampede.compute_once(work, blocking=blocking))[work.key]
    return value


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
    versions = (yield from tags.current_versions(making.hooks, keys)) if keys else {}
    yield runner, "run", ()
    if making.page is not None and making.refusal is None and versions is not None:
        value = yield from making.settled(versions, 0.0)
        stored, until = value, making.kept_until
        if value[:2] == RECORD:
            stored, until = yield from making.conditioned(value, versions, 0.0)
        swap = making.found.storage_key, making.found.entry, stored, until
        with unstored.Caught():
            making.was_stored = making.was_stored and bool((yield making.hooks, "_compare_set", swap))
    return making.answer(making.found.reason)
