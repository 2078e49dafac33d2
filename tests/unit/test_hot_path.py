"""The compiled methods of local memory do as those in Python, which take over where a call is not ordinary.

Where none are built, the tests compare the methods in Python with themselves.
"""

import asyncio
import copy
import gc
import inspect
import os
import pickle
import pydoc
import random
import subprocess
import sys
import types
import weakref
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest

from storeroom import cached, caches, configure, timeouts
from storeroom.backends.locmem import LocMemCache
from storeroom.backends.locmem.hot_path import IS_COMPILED
from storeroom.exceptions import InvalidCacheKey, StoreroomError
from storeroom.functions.cached_function import Options
from storeroom.keys import default_key_func
from storeroom.storage.envelope import Envelope
from storeroom.testing import FakeClock
from storeroom.testing.isolation import engines_of_its_own
from tests.compiled import where_built
from tests.handles import InPython, without_contexts
from tests.unit.bounded_map.looks import contents_of, numbers_of

compiled = where_built(IS_COMPILED)


@pytest.fixture
def cache():
    """A cache that no other test knows."""
    with engines_of_its_own():
        yield LocMemCache("hot", {})


# As those in Python -------------------------------------------------------------------------------------------------


class Key(str):
    """A text that is written in another way."""

    __slots__ = ()

    def __format__(self, _: str) -> str:
        return "other"


class Careful(LocMemCache):
    """Judges its keys."""

    def validate_key(self, key):
        if "bad" in key:
            raise InvalidCacheKey(key)


class CarefulInPython(Careful, InPython):
    """Its equal."""


#: The first three of each are the ordinary ones, of which half of the calls are made.
KEYS = ["a", "b", "key", "k" * 300, "é鍵", "", 7, 7.0, True, None, ("a", 1), Key("a"), "bad"]
VALUES = ["text", 1, None, 2**70, 1.5, True, b"bytes", 1j, [1, 2], {"a": (1, 2)}, "", Key("value"), len]
TIMEOUTS = [1, 2.5, 300, "5m", None, 0, -1, True, timedelta(seconds=3), 1e12, 10**400, 1e-9, "no timeout", object()]
VERSIONS = [None, None, None, 2, "v"]

#: A method -> its arguments after the key, each with the values that it may have.
ARGUMENTS = {
    "get": {"default": ["absent"], "version": VERSIONS},
    "aget": {"default": ["absent"], "version": VERSIONS},
    "get_or_set": {
        "default": VALUES,
        "timeout": TIMEOUTS,
        "version": VERSIONS,
        "tags": [(), (), (), ["t"]],
        "early": [0],
    },
    "set": {"value": VALUES, "timeout": TIMEOUTS, "version": VERSIONS, "tags": [(), (), (), ["t"]]},
    "aget_or_set": {"default": VALUES, "timeout": TIMEOUTS, "version": VERSIONS},
    "touch": {"timeout": [1, 300]},
    "delete": {},
    "incr": {},
    "clear": {},
}


def drawn(chance: random.Random) -> tuple[str, list[Any], dict[str, Any]]:
    """Return a method, and arguments for it in any of the ways in which they can be passed."""
    name = chance.choice([*ARGUMENTS, "get", "get", "set", "set", "get_or_set"])
    few = 3 if chance.random() < 0.5 else None
    arguments = {each: chance.choice(values[:few]) for each, values in ARGUMENTS[name].items()}
    by_position = chance.randint(min(1, len(arguments)), len(arguments)) if name != "touch" else 1
    positional = [] if name == "clear" and chance.random() < 0.9 else [chance.choice(KEYS[:few])]
    positional += list(arguments.values())[:by_position]
    named = {each: value for each, value in [*arguments.items(), ("wrong", 1)] if chance.random() < 0.1}
    return name, positional, named


def done(cache: Any, name: str, positional: list[Any], named: dict[str, Any]) -> Any:
    """Make a call, and return its result, or its error."""
    try:
        answer = getattr(cache, name)(*positional, **named)
        return asyncio.run(answer) if inspect.iscoroutine(answer) else answer
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, StoreroomError) as error:
        return type(error), str(error)


def left_by(cache: Any) -> Any:
    """Return all that operations leave behind: entries with their ranks, and counts."""
    entries = cache._bounded.entries.items()
    pickled = {key: it.encoded if type(it.encoded) is bytes else type(it.encoded) for key, it in entries}
    slots = [(key, it.value, pickled[key], it.expires_at, it.freq, it.indexed) for key, it in entries]
    sizes = [
        it.size for key, it in entries if type(it.encoded) in {bytes, type(None)}
    ]  # a tag's version has a chance length
    return slots, sizes, cache._counters.raw() | {"compute_seconds": 0, "families": {}}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"TIMEOUT": None, "KEY_PREFIX": "p", "VERSION": 3},
    {"KEY_FUNCTION": lambda key, prefix, version: default_key_func(key, prefix, version).upper()},
    {"OPTIONS": {"copy": False}},
    {"OPTIONS": {"max_bytes": 2_000}},
    {"OPTIONS": {"max_entries": 3}},
]


@pytest.mark.parametrize("params", OPTIONS, ids=range(len(OPTIONS)))
@pytest.mark.parametrize("kinds", [(LocMemCache, InPython), (Careful, CarefulInPython)], ids=["plain", "careful"])
def test_they_do_as_those_in_python(kinds, params):
    """Results, errors, entries with their ranks, and all counts are the same after each of many calls of any kind."""
    chance = random.Random(OPTIONS.index(params))
    with engines_of_its_own(), FakeClock() as clock:
        one, other = (kind(kind.__name__, params) for kind in kinds)
        for _ in range(300):
            name, positional, named = drawn(chance)
            expected = done(other, name, positional, named)
            assert done(one, name, positional, named) == expected, (name, positional, named)
            assert left_by(one) == left_by(other), (name, positional, named)
            clock.advance(chance.choice([0, 0, 0.5]))


def test_entries_are_read_together_as_one_by_one(monkeypatch):
    """Objects, envelopes, pickles, leases, what is over, what is absent and what is no key; a rank for each."""
    chance, keys = random.Random(1), [f":1:{name}" for name in "abcd"]
    with engines_of_its_own(), FakeClock() as clock:
        one, other = LocMemCache("together", {}), InPython("alone", {})
        before: Any = ((), ())
        for _ in range(600):
            until = timeouts.now() + chance.choice([1, 300])
            envelope = Envelope(b"bytes", until, 5.0, 0.0, (), chance.choice([0.0, until]), chance.choice([1, 2]))
            value, key = chance.choice(["text", b"bytes", [1], None, envelope]), chance.choice(keys)
            for cache in (one, other) if chance.random() < 0.5 else ():
                _ = cache._delete(key) if value is None else cache._set(key, value, until)
            asked = tuple(chance.sample(keys, chance.choice([0, 1, 2, 3])))
            before = [cache._get_together(asked, each) for cache, each in zip((one, other), before, strict=True)]
            assert list(map(type, before[0])) == list(map(type, before[1]))
            assert [*map(as_told, before[0])] == [*map(as_told, before[1])]
            again = [cache._get_together(asked, each) for cache, each in zip((one, other), before, strict=True)]
            assert (again[0] is before[0]) == (again[1] is before[1])
            assert left_by(one) == left_by(other)
            clock.advance(chance.choice([0, 0, 0.5]))
        monkeypatch.setattr(one, "_get", lambda _: "replaced")
        assert one._get_together((keys[0],)) == ("replaced",)


def as_told(value: Any) -> Any:
    """Return a value, or all that an envelope says."""
    return value.__reduce__()[1] if type(value) is Envelope else value


#: What handles of one storage are given: each keeps to its own bounds, or to those that another was given last.
BOUNDS: list[dict[str, Any]] = [
    {"OPTIONS": {"max_entries": 30}},
    {"OPTIONS": {"max_entries": 25}, "KEY_PREFIX": "p"},
    {"OPTIONS": {"copy": False}},
    {"OPTIONS": {"max_entries": 30, "cull_frequency": 4}},
    {"OPTIONS": {"max_bytes": 5_000}},
]


@pytest.mark.parametrize("handles", [BOUNDS[:1], BOUNDS[:3], BOUNDS[:4], BOUNDS], ids=range(4))
def test_new_keys_make_the_same_room(handles):
    """After each of many calls by handles with several bounds, maps, queues, ghosts and counts are the same."""
    chance = random.Random(len(handles))
    with engines_of_its_own(), FakeClock() as clock:
        pairs = [(LocMemCache("one", params), InPython("other", params)) for params in handles]
        maps = [each._bounded for each in pairs[0]]
        for number in range(3_000):
            key, pair = (
                f"key {number if chance.random() < 0.3 else int(20 * chance.paretovariate(1))}",
                chance.choice(pairs),
            )
            value, timeout = chance.choice([number, "text", [number]]), chance.choice([300, 300, 300, None, 7.5, 0])
            name = chance.choice(["get", "get", "set", "set", "set", "set", "add", "delete", "get_or_set"])
            arguments = [key] if name in {"get", "delete"} else [key, value, timeout]
            answers = [done(each, name, arguments, {}) for each in pair]
            assert answers[0] == answers[1], (name, arguments)
            assert numbers_of(maps[0]) == numbers_of(maps[1]), (name, arguments)
            assert number % 10 or contents_of(maps[0]) == contents_of(maps[1]), (name, arguments)
            clock.advance(chance.choice([0, 0.1, 0.5]))
        assert left_by(pairs[0][0]) == left_by(pairs[0][1])


class Unreadable:
    """Fails when it is made of its pickle, or calls the function that it is given, first."""

    def __init__(self, error=None):
        self.error = error

    def __getstate__(self):
        return self.error

    def __setstate__(self, error):
        if FAILS:
            raise FAILS[0]


FAILS: list[BaseException] = []


@pytest.mark.parametrize("kind", [LocMemCache, InPython])
@pytest.mark.parametrize("error", [ValueError("changed"), KeyboardInterrupt(), RecursionError()], ids=repr)
def test_a_pickle_that_cannot_be_read_is_a_miss_and_an_interruption_is_none(kind, error, monkeypatch):
    """get() answers its default, get_or_set() computes anew, and both count alike; what is no Exception is raised."""
    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        for key in "ab":
            cache.set(key, Unreadable("state"))
        monkeypatch.setattr(f"{__name__}.FAILS", [error])
        if isinstance(error, Exception):
            assert cache.get("a", "default") == "default"
            assert cache.get_or_set("b", "computed") == "computed"
            assert cache.get("b") == "computed"
            assert (cache.stats().hits, cache.stats().misses, cache.stats().errors) == (1, 2, 4)
        else:
            for call in (lambda: cache.get("a"), lambda: cache.get_or_set("b", "computed")):
                with pytest.raises(type(error)):
                    call()
            assert cache.stats().hits == cache.stats().errors == 0


@pytest.mark.parametrize("now", [lambda: 5, lambda: 5.0, lambda: True, lambda: float("nan")], ids=range(4))
def test_any_clock_is_asked(cache, now, monkeypatch):
    """A clock that stands in the place of Python's own decides, whatever kind of number it tells."""
    monkeypatch.setattr(timeouts, "now", now)
    entries = cache._bounded.entries
    for key, expires_at in (("live", 6.0), ("over", 4.0), ("whole", 6)):
        cache.set(key, "value", None)
        entries[f":1:{key}"].expires_at = expires_at
    assert [cache.get(key) for key in ("live", "whole")] == ["value"] * 2
    assert cache.get("over") == InPython.get(cache, "over")


def test_a_value_that_is_overwritten_is_freed_last(cache):
    """Its finalizer may use the very entry, and finds the new value there."""
    found = []

    class Value:
        def __del__(self):
            found.append(shared.get("key"))
            shared.set("key", "its own")

    shared = LocMemCache("shared", {"OPTIONS": {"copy": False}})
    shared.set("key", Value())
    shared.set("key", "new")
    gc.collect()
    assert found == ["new"]
    assert shared.get("key") == "its own"


@pytest.mark.parametrize("write", [lambda cache: cache.set("key", 2), lambda cache: cache.set("key", 2, 5)])
def test_a_write_in_the_midst_of_another_waits_for_it(cache, write):
    """A finalizer's write while its own thread changes the map is made a moment later, as in Python."""
    cache.set("key", 1)
    cache._lock.acquire()
    cache._alone.is_under_way = True
    try:
        write(cache)
        assert cache.get("key") == 1
    finally:
        cache._alone.is_under_way = False
        cache._lock.release()


# Functions that are @cached -------------------------------------------------------------------------------------------


def shown(a, b: Any = "b") -> list[Any]:
    return [a, b]


async def ashown(a, b: Any = "b") -> list[Any]:
    return [a, b]


ARGUMENTS_OF_CALLS = [
    1,
    True,
    1.0,
    "1",
    None,
    "",
    "é:\ud800",
    -7,
    2**63,
    10**5000,
    "x" * 300,
    ("a",),
    (),
    [1],
    Key("a"),
]


@pytest.mark.parametrize("function", [shown, ashown])
@pytest.mark.parametrize("key", [None, "{a}:{b}", "{b!r} {a:>3}", lambda a, b="b": repr((a, b))], ids=range(4))
def test_calls_of_cached_functions_have_the_keys_and_results_of_those_in_python(key, function, cache, monkeypatch):
    """Each call has its own result, is counted once, and is found by the key that the code makes, at any time."""
    one = cached(cache=cache, key=key)(function)
    in_python = cached(cache=InPython("other", {}), key=key)(function)
    calls = [(a, *b) for a in ARGUMENTS_OF_CALLS for b in [(), ("b",), (None,), (3,)]] + [(), (1, 2, 3)]
    for _ in range(3):
        for call in calls:
            expected = done(in_python, "__call__", call, {})
            assert done(one, "__call__", call, {}) == expected, call
            assert done(one, "key", call, {}) == done(in_python, "key", call, {})
    assert cache.keys() == in_python._cache.keys()
    infos = [done(each, "cache_info", (), {}) for each in (one, in_python)]
    names = ("hits", "misses", "entries", "computed", "failed")
    assert [getattr(infos[0], name) for name in names] == [getattr(infos[1], name) for name in names]
    assert left_by(cache)[2] == left_by(in_python._cache)[2]
    cache.set(one.key("a"), "stored")
    results = [done(each, "__call__", ("a",), b) for each, b in ((one, {}), (one, {"b": "b"}), (in_python, {}))]
    assert results == ["stored", "stored", ["a", "b"]]
    twin = "get_or_set" if function is shown else "aget_or_set"
    monkeypatch.setattr(cache, twin, lambda *_: "replaced" if function is shown else at_once("replaced"))
    assert done(one, "__call__", ("a",), {}) == "replaced"


async def at_once(value: Any) -> Any:
    return value


@pytest.mark.parametrize("kind", [LocMemCache, InPython])
@pytest.mark.parametrize("function", [shown, ashown])
def test_a_call_is_answered_by_the_cache_of_its_moment(kind, function):
    """Another version, prefix or configuration has results of its own, and those before are found again."""
    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        one, found = cached(cache=cache)(function), []
        cache.set_many({one.key(a): (1, a) for a in ("a", 7)})
        cache.set_many({one.key(a): (2, a) for a in ("a", 7)}, version=2)
        for version in (1, 2, 2, 1, 1, 3):
            cache.version = version
            found += [done(one, "__call__", (a,), {}) for a in ("a", 7)]
        assert found == [(v, a) for v in (1, 2, 2, 1, 1) for a in ("a", 7)] + [["a", "b"], [7, "b"]]
        cache.key_prefix = "p"
        assert (cache.delete(one.key("a")), done(one, "__call__", ("a", "c"), {})) == (False, ["a", "c"])
    by_alias, before = cached(alias="one")(function), caches.swap(None)
    with engines_of_its_own():
        for number in (1, 2, 3):
            configure({alias: {"BACKEND": kind, "LOCATION": f"{alias} {number}"} for alias in ("default", "one")})
            assert [done(by_alias, "__call__", ("a",), {}) for _ in range(3)] == [["a", "b"]] * 3
            caches["one"].set(by_alias.key("a"), number)
            assert done(by_alias, "__call__", ("a",), {}) == number
    caches.swap(before)


@pytest.mark.parametrize("function", [shown, ashown])
def test_a_call_that_is_replaced_in_the_class_or_by_a_subclass_is_not_passed_by(function, cache, monkeypatch):
    """A function that is called at once looks whether its class still has that call, and comes back to it."""
    one = cached(cache=cache)(function)
    kind: Any = type(one)

    def call(self: Any) -> Any:
        answer = self("a")
        return asyncio.run(answer) if inspect.iscoroutine(answer) else answer

    assert [call(one) for _ in range(3)] == [["a", "b"]] * 3
    own = kind.__call__
    with monkeypatch.context() as patch:
        patch.setattr(kind, "__call__", lambda self, *args: ("replaced", *args))
        assert [call(one), one("a"), one(1)] == [("replaced", "a"), ("replaced", "a"), ("replaced", 1)]
        patch.setattr(kind, "__call__", lambda self, *args: ("around", done(own, "__call__", (self, *args), {})))
        assert [call(one) for _ in range(3)] == [("around", ["a", "b"])] * 3
    assert [call(one) for _ in range(3)] == [["a", "b"]] * 3

    class Own(kind):
        def __call__(self, *args: Any) -> Any:
            return "own", *args

    class Same(kind):
        pass

    options = Options(None, timeouts.DEFAULT_TIMEOUT, (), "default", None, (), "", {}, one._binds, cache)
    for subclass, result in ((Own, ("own", "a")), (Same, ["a", "b"])):
        other = subclass(function, options)
        assert [call(other) for _ in range(3)] == [result] * 3
        one.__class__ = subclass
        assert [call(one) for _ in range(3)] == [result] * 3
        one.__class__ = kind
        assert [call(one) for _ in range(3)] == [["a", "b"]] * 3


@compiled
@pytest.mark.parametrize("function", [shown, ashown])
def test_a_hit_of_a_cached_function_runs_no_code_of_python(function, cache):
    """From its third call on, the function is called by its address, and no frame is made."""
    one, run = cached(cache=cache)(function), []
    assert [done(one, "__call__", ("a",), {}) for _ in range(3)] == [["a", "b"]] * 3
    assert one._called != 0
    with without_contexts():
        sys.setprofile(lambda frame, event, _: run.append(frame.f_code.co_qualname) if event == "call" else None)
        try:
            answer = one("a")
            answer = answer if function is shown else answer.send(None)
        except StopIteration as end:
            answer = end.value
        finally:
            sys.setprofile(None)
    assert (answer, run) == (["a", "b"], [])


def test_a_number_that_somebody_has_read_does_not_change(cache):
    """A hit adds one to the counts, and to no object that anybody else has."""
    cache.set("key", 1)
    counted = cached(cache=cache)(shown)
    counted("a")
    for number in (0, 256, 257, 2**30 - 2, 2**30 - 1, 2**60, 2**63 - 1, 2**70):
        cache._counters.hits = cache._counters.reused = counted._counted.answers = number + 0
        seen = []
        for _ in range(3):
            seen.append((cache._counters.hits, cache._counters.reused, counted._counted.answers))
            cache.get("key")
            counted("a")
            cache.get("key")
            counted("a")
        assert seen == [(number + more, number + more, number + more) for more in (0, 2, 4)]
        assert cache._counters.hits == number + 6


# Coroutines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [LocMemCache, InPython])
@pytest.mark.parametrize("key", ["key", "absent"])
def test_a_coroutine_is_one_to_all_who_look(kind, key):
    """It reads when it is awaited, by whatever awaits; it ends, and tells of itself, as Python's coroutines do."""

    async def awaited(cache: Any) -> None:
        waiting = cache.aget(key, "none"), cache.aget_or_set(key, "new")
        assert all(asyncio.iscoroutine(each) and inspect.iscoroutine(each) for each in waiting)
        assert [f"{each.__qualname__} {each.cr_frame.f_code.co_name}" for each in waiting] == [
            "InlineCache.aget aget", "ComputedCache.aget_or_set aget_or_set"
        ]  # fmt: skip
        assert [inspect.getcoroutinestate(each) for each in waiting] == [inspect.CORO_CREATED] * 2
        cache.set("key", "later")
        found = await asyncio.gather(*waiting, asyncio.wait_for(cache.aget(key, "none"), 5), generated(cache.aget(key)))
        assert found == (["later"] * 4 if key == "key" else ["none", "new", "new", "new"])

    @types.coroutine
    def generated(coroutine: Any) -> Any:
        return (yield from coroutine)

    with engines_of_its_own():
        cache = kind(kind.__name__, {})
        asyncio.run(awaited(cache), debug=key == "absent")
        ended, thrown, unused = cache.aget("key"), cache.aget("key"), cache.aget("key")
        assert (asyncio.run(ended), ended.close(), inspect.getcoroutinestate(ended)) == ("later", None, "CORO_CLOSED")
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            ended.send(None)
        with pytest.raises(LookupError, match="thrown"):
            thrown.throw(LookupError("thrown"))
        with pytest.raises(TypeError, match="just-started"):
            unused.send(1)
        with pytest.warns(RuntimeWarning, match=r"coroutine 'InlineCache\.aget' was never awaited"):
            del unused
        cache.get = lambda *_: "replaced"
        assert asyncio.run(cache.aget("key")) == "replaced"


# Their looks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get", "aget", "get_or_set", "aget_or_set", "set"])
def test_they_look_like_those_in_python(cache, name):
    """Names, docstring, signature, help(), pickles and weak references are those of the method in Python."""
    method, in_python = getattr(LocMemCache, name), vars(InPython)[name]
    for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__code__"):
        assert getattr(method, attribute) == getattr(in_python, attribute)
    assert inspect.signature(method) == inspect.signature(in_python)
    assert inspect.signature(getattr(cache, name)) == inspect.signature(getattr(InPython("hot", {}), name))
    assert inspect.isroutine(method)
    assert pydoc.render_doc(method).splitlines()[2:] == pydoc.render_doc(in_python).splitlines()[2:]
    assert inspect.iscoroutinefunction(getattr(cache, name)) == name.startswith("a")
    assert pickle.loads(pickle.dumps(method)) is method
    assert weakref.WeakMethod(getattr(cache, name))() == getattr(cache, name)
    with pytest.raises(AttributeError, match="no attribute 'wrong'"):
        _ = method.wrong


@pytest.mark.parametrize("function", [shown, ashown])
def test_a_cached_function_that_was_called_looks_as_before(function, cache):
    """Its class's call, signature, docstring, weak references, pickles, and whether it is a coroutine function."""
    before, one = cached(cache=cache)(function), cached(cache=cache)(function)
    done(one, "__call__", ("a",), {})
    done(one, "__call__", ("a",), {})
    kind: Any = type(one)
    assert inspect.signature(one) == inspect.signature(before) == inspect.signature(function)
    assert pydoc.render_doc(one).splitlines()[2:] == pydoc.render_doc(before).splitlines()[2:]
    assert inspect.signature(kind.__call__) == inspect.signature(inspect.unwrap(kind.__call__))
    assert kind.__call__.__doc__ == "See _Cached."
    assert pickle.loads(pickle.dumps(kind.__call__)) is kind.__call__
    assert inspect.iscoroutinefunction(one) == inspect.iscoroutinefunction(kind.__call__) == (function is ashown)
    assert weakref.ref(one)() is copy.copy(one) is one
    assert done(partial(one, "a"), "__call__", (), {}) == done(one, "__call__", ("a",), {}) == ["a", "b"]
    assert [done(one, "__call__", *call) for call in [(("a",), {"b": 1}), ((), {"a": "a"})]] == [["a", 1], ["a", "b"]]


@compiled
def test_a_method_that_is_not_known_has_no_compiled_form():
    """The module says so, and that it learns its terms once."""
    module: Any = import_module("storeroom.backends.locmem._compiled")
    with pytest.raises(ValueError, match="has no compiled form"):
        module.compiled(len)
    with pytest.raises(AttributeError):
        module.compiled(1)
    with pytest.raises(TypeError, match="learn"):
        module.learn()
    with pytest.raises(TypeError):
        type(vars(LocMemCache)["get"])()


# Where they are -------------------------------------------------------------------------------------------------------

TELL = "from storeroom.backends.locmem import hot_path, LocMemCache; print(hot_path.IS_COMPILED, LocMemCache.get)"


def told(code: str, **environment: str) -> str:
    """Run code in an interpreter of its own, and return its output."""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@compiled
def test_a_variable_of_the_environment_switches_them_off():
    """STOREROOM_PURE=1 leaves the methods in Python; 0 is as none, and `storeroom --version` says which there are."""
    assert told(TELL, STOREROOM_PURE="1").startswith("False <function LocMemCache.get at ")
    assert told(TELL, STOREROOM_PURE="0").startswith("True <compiled <function LocMemCache.get at ")
    version = "import sys; from storeroom.cli import main; sys.exit(main(['--version']))"
    assert "(pure Python)" in told(version, STOREROOM_PURE="1")
    assert "(compiled)" in told(version)


IN_ANOTHER = """
import sys
sub = __import__("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
code = '''
from storeroom.backends.locmem import LocMemCache
cache = LocMemCache("name", {})
cache.set("key", 1); cache.set("key", [2]); cache.set("key", "last", 5)
assert [cache.get("key"), cache.get_or_set("key", 3), cache.get("no", 4)] == ["last", "last", 4]
'''
run = getattr(sub, "run_string", None) or sub.exec
for _ in range(2):
    exec(code)
    made = sub.create()
    if (error := run(made, code)) is not None:
        sys.exit(str(error))
    sub.destroy(made)
exec(code)
print("whole")
"""


@compiled
def test_each_interpreter_of_a_process_has_its_own():
    """One that is made, and ends, takes nothing from the others."""
    assert told(IN_ANOTHER) == "whole\n"


FROM_A_HANDLER = """
import signal, sys
from storeroom.backends.locmem import LocMemCache

class Late(Exception): pass

def raise_late(*_): raise Late
cache, full = LocMemCache("name", {}), LocMemCache("full", {"OPTIONS": {"max_entries": 10}})
cache.set("key", 0)
signal.signal(signal.SIGPROF, raise_late)
caught = written = 0
while caught < 100:
    try:
        signal.setitimer(signal.ITIMER_PROF, 0.0005)
        while True:
            written += 1
            cache.set("key", written, 60)
            assert cache.get("key") == written
            full.set(f"new {written}", written)
            full.set(f"pickled {written}", [written])
    except Late:
        caught += 1
        assert cache.get("key") in {written, written - 1}
        full._check_invariants()
        assert full.count() <= 10
cache._check_invariants()
print("whole")
"""


@pytest.mark.parametrize("pure", "01")
def test_a_signal_leaves_an_operation_whole(pure):
    """An exception out of a signal's handler comes before a write, or after it."""
    assert told(FROM_A_HANDLER, STOREROOM_PURE=pure) == "whole\n"
