"""Any sequence of operations within transactions and memos agrees with a dict; the storage sees commits only."""

import contextvars
import copy
import itertools
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

import storeroom
from storeroom.backends.locmem import LocMemCache
from storeroom.testing.model import ABSENT, DEFAULT_SECONDS, KEYS, CacheMachine, keys, timeouts, values, versions
from tests.contract.test_custom import DictCache

SETTINGS = settings(max_examples=20, stateful_step_count=50, deadline=None, derandomize=True, database=None)

_numbers = itertools.count()


def makes(cache_class: Any) -> Any:
    params = {"TIMEOUT": DEFAULT_SECONDS}
    if cache_class is LocMemCache:
        params["OPTIONS"] = {"MAX_ENTRIES": None}
    return staticmethod(lambda: cache_class(f"overlay model {next(_numbers)}", params))


class TransactionMachine(CacheMachine):
    """Blocks of transaction() begin and end between the operations."""

    #: Operations that read, or write nothing where they are called.
    READS: ClassVar = {"get", "get_many", "has_key", "ttl", "keys", "count", "prune", "get_or_set"}

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[Any, Any]] = []
        self.committed: dict[Any, Any] = {}
        self.touched: set[Any] = set()
        inner = self.driver

        class Recorder:
            def __getattr__(_, operation: str) -> Any:  # noqa: N805 -- self is the machine's
                def call(*args: Any) -> Any:
                    if operation not in self.READS:
                        self.note(operation, *args)
                    return getattr(inner, operation)(*args)

                return call

        self.driver = Recorder()
        self.begin_block()

    def note(self, operation: str, *args: Any) -> None:
        """Remember the entries that the transaction itself has written or removed."""
        if operation == "clear":
            self.touched |= {(str(key), version) for key in KEYS for version in range(6)}
            return
        many, version = args[0] if operation.endswith("_many") else [args[0]], args[-1] or 1
        self.touched |= {(str(key), version) for key in many}
        if operation == "incr_version":
            self.touched |= {(str(args[0]), version + args[1])}

    def begin_block(self) -> None:
        block = storeroom.transaction()
        self.do(self.entered(block))
        self.blocks.append((block, (copy.deepcopy(self.expected), set(self.touched))))

    @rule()
    def begin(self) -> None:
        if len(self.blocks) < 4:
            self.begin_block()

    @rule(fails=st.sampled_from([False, False, True]))
    def end(self, fails: bool) -> None:
        block, (expected, touched) = self.blocks.pop()
        self.do(self.left(block, ValueError() if fails else None))
        if fails:
            self.expected, self.touched = expected, touched
        if not self.blocks:
            self.touched = set()
            self.check()
            self.begin_block()

    async def entered(self, block: Any) -> None:
        await block.__aenter__() if self.mode == "async" else block.__enter__()

    async def left(self, block: Any, error: Any) -> None:
        await block.__aexit__(None, error, None) if self.mode == "async" else block.__exit__(None, error, None)

    @rule(key=keys, value=values, timeout=timeouts, version=versions)
    def get_or_set(self, key: Any, value: Any, timeout: Any, version: Any) -> None:
        # A value computed for an entry that the transaction itself has removed is not stored: see test_transactions.
        if self.slot(key, version) not in self.touched:
            super().get_or_set.hypothesis_stateful_rule.function(self, key, value, timeout, version)

    @rule(seconds=st.sampled_from([1, 6, 30, 2000]))
    def let_time_pass(self, seconds: int) -> None:
        if len(self.blocks) == 1:  # an entry that was touched may expire before that is known
            self.end(fails=False)
            self.clock.advance(seconds)

    @invariant()
    def everything_is_as_expected(self) -> None:
        self.check()

    def check(self) -> None:
        """Look at everything, from within and from without."""
        if not self.blocks:
            self.committed = copy.deepcopy(self.expected)
        for version in range(5):
            live = {key: self.live(key, version) for key in KEYS}
            inside = {key: value for key, value in live.items() if value is not ABSENT}
            assert self.do(self.seen(version)) == inside
            own, self.expected = self.expected, self.committed
            live = {key: self.live(key, version) for key in KEYS}
            self.expected = own
            outside = {key: value for key, value in live.items() if value is not ABSENT}
            assert contextvars.Context().run(self.cache.get_many, KEYS, version) == outside

    async def seen(self, version: int) -> Any:
        found = self.cache.aget_many if self.mode == "async" else self.cache.get_many
        return await found(KEYS, version) if self.mode == "async" else found(KEYS, version)

    def teardown(self) -> None:
        while self.blocks:
            self.do(self.left(self.blocks.pop()[0], None))
        self.check()
        super().teardown()


class MemoMachine(CacheMachine):
    """All within a memo; a new one as time passes, as a memo does not know when an entry it has read expires."""

    def __init__(self) -> None:
        super().__init__()
        self.do(self.renewed())

    block: Any = None

    async def renewed(self) -> None:
        if self.block is not None:
            self.block.__exit__()
        self.block = storeroom.memo(5)
        self.block.__enter__()

    @rule(seconds=st.sampled_from([1, 6, 30, 2000]))
    def let_time_pass(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.do(self.renewed())

    @invariant()
    def everything_is_as_expected(self) -> None:
        for version in range(5):
            live = {key: self.live(key, version) for key in KEYS}
            expected = {key: value for key, value in live.items() if value is not ABSENT}
            for context in (contextvars.copy_context(), contextvars.Context()):
                assert context.run(self.cache.get_many, KEYS, version) == expected

    async def ended(self) -> None:
        self.block.__exit__()

    def teardown(self) -> None:
        self.do(self.ended())
        super().teardown()


@pytest.mark.long
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("cache_class", [LocMemCache, DictCache])
@pytest.mark.parametrize("machine", [TransactionMachine, MemoMachine])
def test_any_sequence_agrees_with_a_dict(machine: Any, cache_class: Any, mode: str) -> None:
    """Any operations within transactions or memos agree with a dict, and others see committed entries only."""
    chosen = type("Machine", (machine,), {"make_cache": makes(cache_class), "mode": mode})
    run_state_machine_as_test(chosen, settings=SETTINGS)
