"""The making of a page: one run of the application in the eyes of the rules, and the page that it leaves.

An answer that is not to be stored leaves a note for some seconds, by which the next requests do not wait for each other
(hit-for-miss). A page that is invalidated while it is made is not stored.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from storeroom import timeouts
from storeroom.exceptions import StoreroomError
from storeroom.http.fields import Headers
from storeroom.http.judging import is_unmodified
from storeroom.http.records import Record, pack, pass_by, read_varies, varies
from storeroom.http.requests import Request, counted_query, forwarded
from storeroom.http.storing import Lifetimes, Refusal, freshened, made, storable, unfit
from storeroom.pages.codings import IDENTITY, compressed, readable, shown
from storeroom.pages.looking import Found, Task
from storeroom.storage import tags, unstored
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING
from storeroom.storage.outages import room_needed
from storeroom.storage.steps import Steps
from storeroom.timeouts import AT_ONCE

__all__ = ["ERRORS", "Answer", "KeptStaleError", "Making"]

ERRORS: Final = frozenset({500, 502, 503, 504})
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


class Making:
    """One run of the application, as the rules see it.

    Attributes:
        page: the complete answer, once it is there.
        refusal: the reason for which it is not stored.
        is_begun: whether the application was run for this request; the runner says so.
        is_through: whether its answer goes to the client as it comes.
        reason: for which it is run, by RFC 9211 §2.2.
        versions: those of its tags, from before the run; None if they cannot be had.
        learnt: versions of the tags of the view; None if they cannot be had. Those from before it begins are foreseen.
        declared: headers that the view has said to read: the page differs by them.
    """

    def __init__(self, task: Task, found: Found) -> None:
        self.task, self.found = task, found
        self.hooks, self.plan, self.request = task.hooks, task.plan, task.request
        asked = task.request  # a page is made by GET, for HEAD, too
        self._get = Request("GET", asked.scheme, asked.host, asked.path, asked.query, asked.headers, asked.is_plain)
        self.page: tuple[Record, bytes] | None = None
        self.refusal: Refusal | None = None
        self.is_begun = self.is_through = self.was_stored = False
        self.status, self.reason = 0, ""
        self.expires_at, self.kept_until = AT_ONCE, AT_ONCE
        self.vary: Sequence[bytes] = ()
        self.learnt: tags.Versions | None = {}
        self.versions: tags.Versions | None = {}
        self.foreseen: tags.Versions | None = {}
        self.declared: Sequence[bytes] = ()

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
        if (status == 304 and self.conditions()) or (status in ERRORS and self.stale is not None):
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
        if status in ERRORS and self.stale is not None:
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
        self.vary = tuple(sorted({*times.vary, *forwarded(self.request), *self.declared}))

    # Stored -----------------------------------------------------------------------------------

    def answer(self, reason: str) -> Answer | None:
        """Return the complete answer for the client; None if there is none."""
        if self.page is None:
            return None
        record, body = self.page
        return Answer(record, body, is_unmodified(record, self.request), reason, self.was_stored)

    def settled(self, versions: tags.Versions, seconds: float) -> Steps[bytes]:
        """Return the bytes to be stored under the key that was computed; store the page itself, if it is elsewhere."""
        current, self.versions = self.found.generations.current, versions
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
        if self.page is None or self.refusal is not None or self.learnt is None:
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
        is_for_all = self.refusal not in _OF_THE_REQUEST and self.status not in ERRORS and seconds > 0
        self.expires_at = self.kept_until = timeouts.now() + seconds if is_for_all else AT_ONCE
        return pass_by(current)

    def conditioned(self, packed: bytes, versions: tags.Versions, seconds: float) -> Steps[tuple[Any, float]]:
        """Return the entry of a page, in an envelope if it has tags or is kept for longer than it is fresh."""
        versions = {**versions, **(self.learnt or {})}
        if self.kept_until <= self.expires_at and not versions and not self.plan.early:
            return packed, self.expires_at
        yield from tags.renew(self.hooks, versions, self.kept_until)
        grace = max(0.0, self.kept_until - self.expires_at)
        return Envelope(packed, self.expires_at, grace, seconds, tags.stamps_of(versions)), self.kept_until


def _bytes_of(entry: Any) -> bytes:
    value: bytes = entry.value if type(entry) is Envelope else entry
    return value
