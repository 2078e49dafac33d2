"""The base of the contract: a storage per test, two APIs per test body, invariants after each.

A test body is written once, as a coroutine that awaits every operation of a Driver. In
the mode "async" the driver calls the ``a…`` methods within an event loop; in the mode
"sync" it calls the plain ones, and as nothing then ever waits, a single step runs the
body to its end without any loop. pytest sees ordinary functions: no plugin is needed,
and none is disturbed.
"""

import asyncio
import functools
import inspect
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from storeroom import timeouts
from storeroom.base import BaseCache
from storeroom.engines.flights import Flights
from storeroom.exceptions import NotSupportedError
from storeroom.storage.envelope import Envelope
from storeroom.testing.capabilities import check_lacks, what_it_needs
from storeroom.testing.clock import FakeClock
from storeroom.testing.concurrency import in_threads
from storeroom.testing.isolation import engines_of_its_own

__all__ = ["Driver", "Suite", "check_invariants", "is_left", "run_to_its_end"]

T = TypeVar("T")

COUNTERS = ("hits", "misses", "sets", "deletes", "expirations", "evictions", "errors", "unstored")


class Driver:
    """A cache whose operations are awaited, whichever of its two APIs they go through.

    ``await driver.get("k")`` is ``cache.get("k")`` or ``await cache.aget("k")``.

    Attributes:
        cache: the cache itself, for operations of one form only.
        is_async: whether it goes through the asynchronous API.
    """

    def __init__(self, cache: BaseCache, mode: str) -> None:
        self.cache = cache
        self.is_async = mode == "async"

    def __getattr__(self, operation: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        if self.is_async:
            twin: Callable[..., Coroutine[Any, Any, Any]] = getattr(self.cache, f"a{operation}")
            return twin
        method = getattr(self.cache, operation)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call


class Suite:
    """Base of the contract's parts: fixtures, modes and capabilities.

    A test asks for ``cache``, a Driver of a fresh storage; for ``drive``, to make several
    drivers of that storage with settings of their own; or for ``open_cache``, to make
    caches without a driver, in tests that bring their own threads or processes.
    """

    lacks: ClassVar[Mapping[str, str]] = {}
    """Capability -> why the backend does not have it. Tests that need it are skipped with the reason."""

    moment: ClassVar[float] = 10.0
    """The timeout, in seconds, of entries that are to expire. Without the capability "fake_clock" tests
    really wait for it: choose the shortest that the server's clock can tell, then."""

    def make_cache(self, location: str, params: Mapping[str, Any]) -> BaseCache:
        """Return a new handle: the factory that a backend's author fills in.

        Handles of one location share one storage, and those of two do not. Another
        process makes its own by calling this on a new instance of the suite: use the
        arguments and class attributes only.

        Args:
            location: the path of a folder that does not exist yet, different in each test;
                also good as a unique name.
            params: settings as in CACHES, without BACKEND and LOCATION.
        """
        raise NotImplementedError(f"{type(self).__name__} must define make_cache(self, location, params).")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_lacks(cls.lacks, cls.__name__)
        for name, test in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(test):
                setattr(cls, name, _in_each_mode(test))
        cls._skip_what_is_lacking()

    @classmethod
    def _skip_what_is_lacking(cls) -> None:
        """Let a placeholder stand for each test that the backend cannot pass: one skip, not one per parameter."""
        for name in dir(cls):
            if not name.startswith("test_"):
                continue
            inherited = getattr(cls, name)
            # A suite that is subclassed again may lack less.
            test = getattr(inherited, "stands_for", inherited)
            lacking = sorted(what_it_needs(test) & cls.lacks.keys())
            if lacking:
                test = _placeholder(test, f"lacks {lacking[0]!r}: {cls.lacks[lacking[0]]}")
            if test is not inherited:
                setattr(cls, name, test)

    _clock: FakeClock | None = None

    # Fixtures -------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _loops_are_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no event loop of another test have ended before its computations: see Flights."""
        monkeypatch.setattr(Flights, "has_met_closed_loops", False)

    @pytest.fixture
    def location(self, tmp_path: Path) -> Iterator[str]:
        """The location of this test's storage, which is removed at the end."""
        folder = tmp_path / "storage"
        yield str(folder)
        shutil.rmtree(folder, ignore_errors=True)

    @pytest.fixture
    def open_cache(self, location: str) -> Iterator[Callable[..., BaseCache]]:
        """Make caches of this test's storage: ``open_cache(KEY_PREFIX="a")``. Each is checked at the end."""
        opened: list[BaseCache] = []

        def open_cache(**params: Any) -> BaseCache:
            opened.append(self.make_cache(location, params))
            return opened[-1]

        with engines_of_its_own():
            yield open_cache
            for cache in opened:
                check_invariants(cache)
                cache.close()

    @pytest.fixture
    def clock(self) -> Iterator[FakeClock | None]:
        """The fake clock, or None where the backend does not obey it."""
        if "fake_clock" in self.lacks:
            yield None
            return
        with FakeClock() as clock:
            yield clock

    @pytest.fixture(params=["sync", "async"])
    def mode(self, request: pytest.FixtureRequest) -> str:
        """The API that the test goes through."""
        return str(request.param)

    @pytest.fixture
    def drive(self, mode: str, clock: FakeClock | None, open_cache: Callable[..., BaseCache]) -> Callable[..., Driver]:
        """Make drivers of this test's storage: ``drive(KEY_PREFIX="a")``."""
        self._clock = clock
        return lambda **params: Driver(open_cache(**params), mode)

    @pytest.fixture
    def cache(self, drive: Callable[..., Driver]) -> Driver:
        """A driver of a fresh storage with default settings."""
        return drive()

    # For tests ------------------------------------------------------------------------------

    def room_for(self, entries: int) -> dict[str, Any]:
        """Return OPTIONS with which so many entries fit."""
        return {} if "bounds" in self.lacks else {"MAX_ENTRIES": entries}

    async def pass_time(self, seconds: float) -> None:
        """Let time pass for the cache: by the fake clock, or by waiting where that has no power."""
        if self._clock is not None:
            self._clock.advance(seconds)
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)


def is_left(left: float, timeout: float, passed: float = 0.0) -> bool:
    """Tell whether ttl() may return `left` for an entry that was given its timeout `passed` seconds ago.

    A busy machine may have been slow to ask; the time left exceeds the exact one by rounding alone.
    """
    return max(timeout - passed - 5, 0) < left <= timeout - passed + 0.01


def _in_each_mode(body: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test body a plain function that asks for the fixture `mode` beside its own."""

    @functools.wraps(body)
    def test(self: Suite, /, **fixtures: Any) -> None:
        mode = fixtures["mode"] if asks_for_mode else fixtures.pop("mode")
        # In a thread, so that a deadlock fails one test instead of hanging the run.
        in_threads(1, lambda _: _run(body(self, **fixtures), mode))

    signature = inspect.signature(body)
    asks_for_mode = "mode" in signature.parameters
    if not asks_for_mode:
        mode = inspect.Parameter("mode", inspect.Parameter.KEYWORD_ONLY)
        signature = signature.replace(parameters=[*signature.parameters.values(), mode])
    test.__dict__["__signature__"] = signature  # read by inspect.signature()
    return test


def _placeholder(test: Callable[..., None], reason: str) -> Callable[["Suite"], None]:
    def skip(_: Suite) -> None:
        pytest.skip(reason)

    skip.__name__, skip.__doc__ = test.__name__, test.__doc__
    skip.__dict__["stands_for"] = test  # read by the next subclass
    return skip


def _run(body: Coroutine[Any, Any, None], mode: str) -> None:
    if mode == "async":
        asyncio.run(body)
    else:
        run_to_its_end(body)


def run_to_its_end(operation: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without an event loop.

    Raises:
        AssertionError: it does wait.
    """
    try:
        operation.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    operation.close()
    raise AssertionError("The test waited for something else than its driver, which only works in an event loop.")


def check_invariants(cache: BaseCache) -> None:
    """Raise AssertionError if a cache's statistics, keys and values do not agree with one another.

    A backend may add a check of its own: a method ``_check_invariants()``.
    """
    own_check: Callable[[], None] | None = getattr(cache, "_check_invariants", None)
    if own_check is not None:
        own_check()
    stats = cache.stats()
    for counter in COUNTERS:
        assert getattr(stats, counter) >= 0, f"the counter {counter} is negative"
    assert stats.entries is None or stats.entries >= 0
    assert stats.bytes is None or stats.bytes >= 0
    try:
        keys = cache.keys()
    except NotSupportedError:
        return
    assert len(keys) == len(set(keys)), "keys() lists a key twice"
    count, found = cache.count(), set(cache.get_many(keys))
    left = set(cache.keys())  # some may have expired meanwhile
    assert len(left) <= count <= len(keys), "count() and keys() disagree"
    assert left <= found <= set(keys), "keys() lists what get_many() does not find"
    assert stats.entries is None or stats.entries >= len(keys), "stats() tells of fewer entries than keys() lists"
    assert not _leased(cache), "a lease was not given back"


def _leased(cache: BaseCache) -> list[str]:
    """Return the keys whose values are still being computed, by the leases in their entries."""
    hooks, now = cache._overlay or cache, timeouts.now()
    entries = hooks._get_many(list(hooks._scan(cache._key_space.start())))
    return [key for key, value in entries.items() if type(value) is Envelope and value.leased_until > now]
