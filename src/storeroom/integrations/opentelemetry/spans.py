"""Spans of computations and round trips, and the histogram of the latter's durations.

OpenTelemetry has no conventions for caches. The attributes are Sentry's (``cache.hit``, ``cache.key``,
``cache.item_size``, ``cache.operation``, ``network.peer.address``, ``sentry.op``) and .NET's (``cache.name``); the
others are OpenTelemetry's own (``error.type``, ``code.function.name``), or begin with "storeroom".
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, Self

from opentelemetry.context import attach, detach
from opentelemetry.metrics import Meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from storeroom.engines.counts import LATENCY_SECONDS
from storeroom.engines.families import OTHER
from storeroom.exceptions import ValueTypeError
from storeroom.integrations.opentelemetry.sizes import Sized
from storeroom.storage.envelope import Envelope
from storeroom.storage.hooks import MISSING

__all__ = ["Watch"]

_GETS: Final = frozenset({"get", "get_many", "get_dated", "has", "expiry"})

_OPERATIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_GETS, "cache.get"),
    **dict.fromkeys(("set", "set_many", "add", "touch", "incr", "compare_set", "swap_many", "rename"), "cache.put"),
    **dict.fromkeys(("delete", "delete_many", "compare_delete", "remove"), "cache.remove"),
    "clear": "cache.flush",
}
"""Hook -> Sentry's operation. The others ask nothing of entries, or yield them one by one."""

_READ: Final = frozenset({"get", "get_many", "get_dated"})
"""Those that tell a value, and so a hit or a miss."""

_WITHOUT_KEYS: Final = frozenset({"clear", "remove"})

_ANSWERS: Final = (KeyError, ValueTypeError)
"""Errors of a hook that are an answer: there is no entry, or it is no number."""

_INTERNAL: Final = "internal"
"""The family of keys that are no program's: locks, versions of tags, counts."""


class Watch:
    """Makes spans, and records durations.

    Args:
        tracer: None for no spans.
        meter: None for no durations.
        shows_keys: whether spans have the keys, and not their families.
    """

    def __init__(self, tracer: Tracer | None, meter: Meter | None, *, shows_keys: bool) -> None:
        self._tracer, self._shows_keys = tracer, shows_keys
        self._durations = None
        if meter is not None:
            self._durations = meter.create_histogram(
                "storeroom.cache.operation.duration",
                "s",
                "Duration of operations of a storage over a connection.",
                explicit_bucket_boundaries_advisory=LATENCY_SECONDS[:-1],
            )

    def around(self, name: str, hook: Callable[..., Any], is_sync: bool) -> Callable[..., Any]:
        """Return a hook that is carried out within a span: see network.put_around()."""
        if name not in _OPERATIONS:
            return hook
        if is_sync:

            @wraps(hook)
            def watched(handle: Any, *args: Any) -> Any:
                with _RoundTrip(self, handle, name, args) as trip:
                    result = trip.result = hook(handle, *args)
                return result

            return watched

        @wraps(hook)
        async def awaited(handle: Any, *args: Any) -> Any:
            with _RoundTrip(self, handle, name, args) as trip:
                result = trip.result = await hook(handle, *args)
            return result

        return awaited

    def start(self, handle: Any, name: str, args: tuple[Any, ...]) -> Span | None:
        """Return a span that has begun."""
        if self._tracer is None:
            return None
        operation = "cache.lease" if _is_lease(name, args) else _OPERATIONS[name]
        keyed = _keys_of(name, args)
        typed = [_typed(handle, key) for key in keyed]
        names = list(dict.fromkeys(_family_of(handle, key) for key in typed))
        span = self._tracer.start_span(_title(operation, names), kind=SpanKind.CLIENT)
        if span.is_recording():
            attributes = _own(handle) | {"cache.operation": name, "sentry.op": operation}
            if keyed:
                shown = [_INTERNAL if key is None else key for key in typed] if self._shows_keys else names
                attributes |= {"cache.key": shown, "storeroom.keys": len(keyed)}
            if (peer := handle._engine.peer) is not None:
                attributes |= {"network.peer.address": peer[0], "network.peer.port": peer[1]}
            span.set_attributes(attributes)
        return span

    def record(self, handle: Any, name: str, seconds: float, error: BaseException | None) -> None:
        """Record the duration of an operation, if that is asked for."""
        if self._durations is not None:
            failed = {} if error is None else {"error.type": type(error).__qualname__}
            self._durations.record(seconds, {**_own(handle), "cache.operation": name} | failed)

    def computed(self, function: Any, work: Any) -> Any:
        """Return what is called in place of a function, within a span: see work.AROUND."""
        if not function.is_computed:
            return function
        return _Computation(self._tracer, function, work, shows_keys=self._shows_keys)


class _RoundTrip:
    """The block of one operation: with a generator in its place, a span would take half as long again.

    Attributes:
        result: of the operation.
    """

    __slots__ = ("_args", "_begun", "_handle", "_name", "_sized", "_span", "_token", "_watch", "result")

    def __init__(self, watch: Watch, handle: Any, name: str, args: tuple[Any, ...]) -> None:
        self._watch, self._handle, self._name, self._args = watch, handle, name, args
        self.result: Any = None

    def __enter__(self) -> Self:
        self._span = span = self._watch.start(self._handle, self._name, self._args)
        if span is not None:
            self._token = attach(set_span_in_context(span))
            self._sized = Sized().__enter__()
        self._begun = time.perf_counter()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._watch.record(self._handle, self._name, time.perf_counter() - self._begun, error)
        span = self._span
        if span is None:
            return
        self._sized.__exit__()
        detach(self._token)
        if error is not None:
            _fail(span, error)
        elif span.is_recording():
            _add_outcome(span, self._name, _keys_of(self._name, self._args), self.result, self._sized.bytes)
        span.end()


class _Computation:
    """A function that is called within a span: see computing.work.Function."""

    def __init__(self, tracer: Any, function: Any, work: Any, *, shows_keys: bool) -> None:
        self._tracer, self._function, self._work, self._shows_keys = tracer, function, work, shows_keys

    def call(self, *args: Any) -> Any:
        """See Function."""
        with self._span():
            return self._function.call(*args)

    async def acall(self, *args: Any) -> Any:
        """See Function."""
        with self._span():
            return await self._function.acall(*args)

    @contextmanager
    def _span(self) -> Iterator[None]:
        terms, keys = self._work.terms, list(self._work.typed)
        names = [] if terms.families is None else list(dict.fromkeys(map(terms.families.name_of, keys)))
        attributes = {
            "cache.name": terms.alias or "default",
            "cache.operation": "compute",
            "code.function.name": self._function.origin,
            "storeroom.keys": len(keys),
            "cache.key": [str(key) for key in keys] if self._shows_keys else names,
        }
        with self._tracer.start_as_current_span(
            _title("cache.compute", names), attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                _fail(span, error)
                raise


def _fail(span: Span, error: BaseException) -> None:
    """Tell of an error by its type alone: its text may hold a key or a value."""
    if not isinstance(error, _ANSWERS):
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))


def _own(handle: Any) -> dict[str, Any]:
    tier = getattr(handle, "_tier", None)  # of one server's part in a cache of several
    backend = tier if isinstance(tier, str) else type(handle).__name__
    return {"cache.name": handle.settings.alias or "default", "storeroom.backend": backend}


def _is_lease(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether an operation takes the right to compute, or keeps it: no value is put."""
    if name == "swap_many":
        return all(type(swap.value) is Envelope and not swap.value.has_value for swap in args[0].values())
    written = args[-2] if name in {"add", "compare_set"} else None
    return type(written) is Envelope and not written.has_value


def _keys_of(name: str, args: tuple[Any, ...]) -> list[str]:
    """Return the storage keys of an operation."""
    if name in _WITHOUT_KEYS:
        return []
    if name == "rename":
        return list(args[:2])
    return [args[0]] if isinstance(args[0], str) else list(args[0])


def _typed(handle: Any, storage_key: str) -> str | None:
    """Return the key as the caller typed it; None for a key that is no program's, or cannot be told."""
    space = handle._key_space
    version = space.version_of(storage_key)
    key: str | None = space.caller_key(storage_key, handle._version if version is None else version)
    return key


def _family_of(handle: Any, key: str | None) -> str:
    if key is None:
        return _INTERNAL
    name: str = OTHER if handle._families is None else handle._families.name_of(key)
    return name


def _title(operation: str, names: list[str]) -> str:
    return f"{operation} {names[0]}" if len(names) == 1 else operation


def _add_outcome(span: Span, name: str, keyed: list[str], result: Any, size: int) -> None:
    if name in _READ:
        values = {keyed[0]: result} if name == "get" else result
        found = [values.get(key, MISSING) for key in keyed]
        span.set_attribute(
            "cache.hit",
            all(_is_live(each[0] if type(each) is tuple and name == "get_dated" else each) for each in found),
        )
    if size:
        span.set_attribute("cache.item_size", size)


def _is_live(value: Any) -> bool:
    """Tell whether a value was found; a lease is none, nor is a stale value."""
    return value.is_fresh if type(value) is Envelope else value is not MISSING
