"""@cached: the function it makes of a function, and the options it refuses."""

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

import storeroom
from storeroom import cached, caches
from storeroom.exceptions import (
    ComputationCycleError,
    ConfigurationError,
    InvalidCacheBackendError,
    InvalidTimeoutError,
)

BACKEND = "storeroom.backends.locmem.LocMemCache"


@pytest.fixture(autouse=True)
def configured(request: pytest.FixtureRequest) -> Iterator[None]:
    before = caches.swap(None)
    storeroom.configure(
        {alias: {"BACKEND": BACKEND, "LOCATION": f"{request.node.nodeid} {alias}"} for alias in ("default", "other")}
    )
    yield
    caches.swap(before)


calls: list[Any] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    calls.clear()


@cached(timeout="5m")
def load(number: int, language: str = "en") -> list[Any]:
    """Load something."""
    calls.append(number)
    return [number, language]


@cached
async def aload(number: int) -> list[int]:
    """Load something, later."""
    await asyncio.sleep(0)
    calls.append(number)
    return [number]


# The cached function ----------------------------------------------------------------------------


def test_a_cached_function_looks_like_the_function() -> None:
    """A cached function has the name, docstring, module and signature of the function."""
    assert (load.__name__, load.__doc__, load.__module__) == ("load", "Load something.", __name__)  # type: ignore[attr-defined]
    assert inspect.signature(load) == inspect.signature(load.uncached)
    assert inspect.unwrap(load) is load.uncached
    assert repr(load) == f"<CachedFunction {__name__}.load>"
    assert not inspect.iscoroutinefunction(load)


def test_a_cached_coroutine_function_is_one() -> None:
    """inspect, and frameworks that ask it, take a cached coroutine function for a coroutine function."""
    assert inspect.iscoroutinefunction(aload)
    assert inspect.iscoroutinefunction(type(aload).__call__)
    assert inspect.signature(aload) == inspect.signature(aload.uncached)


def test_a_cached_function_is_pickled_by_its_name() -> None:
    """A cached function unpickles to itself, as pools of processes and task queues need."""
    assert pickle.loads(pickle.dumps(load)) is load
    assert pickle.loads(pickle.dumps(aload)) is aload


def test_a_cached_function_may_be_called_without_the_cache() -> None:
    """uncached() computes each time."""
    assert load.uncached(7) == [7, "en"]
    assert load.uncached(7) == [7, "en"]
    assert calls == [7, 7]


def test_nothing_is_looked_up_before_the_first_call() -> None:
    """Decorating needs no configuration: configure() may come later, and the first call uses it."""
    caches.swap(None)

    @cached(alias="later")
    def find() -> int:
        return 1

    assert find.key().endswith("find()")
    assert "not used yet" in repr(caches)
    storeroom.configure({alias: {"BACKEND": BACKEND, "LOCATION": alias} for alias in ("default", "later")})
    assert find() == 1
    assert caches["later"].get(find.key()) == 1


def test_alias_and_version_say_where_a_result_is() -> None:
    """A result is stored, invalidated and refreshed in the given alias and version only."""

    @cached(key="k", alias="other", version=5)
    def find() -> int:
        return 1

    assert find() == 1
    assert caches["other"].get("k", version=5) == 1
    assert caches["other"].get("k") is None
    assert caches["default"].get("k", version=5) is None
    assert find.invalidate() is True
    assert caches["other"].get("k", version=5) is None
    assert find.refresh() == 1
    assert caches["other"].get("k", version=5) == 1


def test_an_unknown_alias_is_told_by_the_first_call() -> None:
    """An unknown alias raises at the first call, with the nearest alias."""

    @cached(alias="ohter")
    def find() -> int:
        return 1

    with pytest.raises(InvalidCacheBackendError, match="Did you mean 'other'"):
        find()


def test_key_is_the_one_that_the_cache_has() -> None:
    """The key() of a call finds its result in the cache, with the timeout of the decorator."""
    load(7)
    assert caches["default"].get(load.key(7)) == [7, "en"]
    assert caches["default"].ttl(load.key(7)) == pytest.approx(300, rel=0.1)


def test_wrong_arguments_are_told_as_by_the_function() -> None:
    """Wrong arguments raise the function's own TypeError, from the call and from each method."""
    call: Any
    for call in (load, load.key, load.invalidate, load.refresh):
        with pytest.raises(TypeError, match=r"load\(\) missing 1 required positional argument: 'number'"):
            call()
        with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'nubmer'"):
            call(nubmer=7)


def test_a_coroutine_function_awaits() -> None:
    """Concurrent awaits compute once; invalidate, refresh and uncached are awaited, too."""

    async def main() -> None:
        assert await asyncio.gather(*(aload(7) for _ in range(5))) == [[7]] * 5
        assert calls == [7]
        assert await aload.invalidate(7) is True
        assert await aload.invalidate(7) is False
        assert await aload.refresh(7) == [7]
        assert await aload(number=7) == [7]
        assert calls == [7, 7]
        assert await aload.uncached(7) == [7]

    asyncio.run(main())


def test_a_function_may_call_itself_with_other_arguments() -> None:
    """A recursive function computes and caches each argument once."""

    @cached
    def factorial(number: int) -> int:
        calls.append(number)
        return number * factorial(number - 1) if number else 1

    assert factorial(5) == 120
    assert factorial(6) == 720
    assert calls == [5, 4, 3, 2, 1, 0, 6]


def test_a_function_that_calls_itself_with_the_same_arguments_is_an_error() -> None:
    """A call that needs its own result raises ComputationCycleError with the function and the key."""

    @cached(key="even:{number}")
    def is_even(number: int) -> bool:
        return not is_odd(number)

    @cached(key="odd:{number}")
    def is_odd(number: int) -> bool:
        return not is_even(number)

    with pytest.raises(ComputationCycleError) as raised:
        is_even(7)
    (note,) = raised.value.__notes__
    assert note.endswith("is_even(), for the key 'even:7'.")


def test_a_coroutine_function_that_calls_itself_with_the_same_arguments_is_an_error() -> None:
    """A coroutine that awaits its own result raises ComputationCycleError, under refresh() as well."""

    @cached(key="loop:{number}")
    async def loop(number: int) -> None:
        await loop(number)

    with pytest.raises(ComputationCycleError) as raised:
        asyncio.run(loop(7))
    assert raised.value.__notes__[0].endswith("loop(), for the key 'loop:7'.")
    with pytest.raises(ComputationCycleError):
        asyncio.run(loop.refresh(7))


def test_plain_callables_may_be_cached() -> None:
    """A partial, a lambda, an object or a function in C is cached; without a name it needs a key."""

    class Adder:
        def __call__(self, one: int, other: int = 1) -> int:
            return one + other

        key = invalidate = "attributes of the object's own"

        def __init__(self) -> None:
            self.refresh = self.timeout = 5

    class AsyncAdder:
        async def __call__(self, one: int) -> int:
            return one + 1

    assert cached(pow)(2, 3) == cached(pow)(2, exp=3) == 8
    assert cached(pow).key(2, exp=3) == "builtins.pow(base=2, exp=3, mod=None)"
    assert cached(key="double:{number}")(lambda number: 2 * number)(4) == 8
    assert cached(key="load:{number}", ignore=["language"])(partial(load.uncached, language="fr"))(1) == [1, "fr"]
    add = cached(key="add:{one}:{other}")(Adder())
    assert (add(1), add.refresh(1), add.key(1)) == (2, 2, "add:1:1")
    assert asyncio.run(cached(key="aadd:{one}")(AsyncAdder())(1)) == 2
    assert asyncio.run(cached(key="aload:{number}")(partial(aload.uncached))(1)) == [1]
    for nameless in (lambda number: number, partial(load, 1), Adder()):
        with pytest.raises(ConfigurationError, match='Pass key="…", a template that names its parameters'):
            cached(nameless)


# Refusals ---------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("decorated", "message"),
    [
        (generator, r"generator\(\) is a generator: .* Let it return a list"),
        (async_generator, r"async_generator\(\) is a generator"),
        (staticmethod(generator), r"generator\(\) is a generator"),
        (property(lambda self: 1), "put @property above @cached"),
        ("5m", r"was given '5m'; options have names, as in @cached\(key="),
        (dict, "was given the class dict; decorate a function that makes one"),
        (min, r"cannot tell the parameters of <built-in function min>"),
    ],
)
def test_an_object_that_cannot_be_cached_is_told_when_it_is_decorated(decorated: Any, message: str) -> None:
    """A generator, property, class or text raises TypeError at decoration, with the remedy."""
    with pytest.raises(TypeError, match=message):
        cached(decorated)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timout": 5}, TypeError, r"no option 'timout'; its options are key, timeout, .* Did you mean 'timeout'\?"),
        ({"timeout": "soon"}, InvalidTimeoutError, "The timeout is 'soon'; expected seconds"),
        ({"early": -1}, ConfigurationError, "early is -1; expected a number, at least 0"),
        ({"soft_timeout": "soon"}, ConfigurationError, "soft_timeout is 'soon'; expected a duration|The timeout is"),
        ({"ignore": "language"}, ConfigurationError, r"ignore is 'language'; expected a list: \['language'\]"),
        ({"ignore": ["langauge"]}, ConfigurationError, r"ignore has 'langauge', which .* Did you mean 'language'\?"),
        ({"tags": "user"}, ConfigurationError, r"tags is 'user'; expected a list of tags: \['user'\]"),
        ({"tags": [7]}, ConfigurationError, "tags is 7; expected a template"),
        ({"tags": ["user:{nubmer}"]}, ConfigurationError, r"names 'nubmer', which .* Did you mean 'number'\?"),
        ({"key": 7}, ConfigurationError, "key is 7; expected a template such as 'user:{id}', or a function"),
        ({"invalidate_on_change": ""}, ConfigurationError, "invalidate_on_change is ''"),
    ],
    ids=repr,
)
def test_options_that_do_not_fit_are_told_when_it_is_decorated(
    options: Any, error: type[Exception], message: str
) -> None:
    """A wrong option raises at decoration, with the expectation or the nearest name."""
    with pytest.raises(error, match=message):
        cached(**options)(load.uncached)


def test_errors_name_the_function() -> None:
    """An error of decoration begins with the qualified name of the function."""

    def find(number: int) -> int:
        return number

    with pytest.raises(ConfigurationError, match=rf"^{__name__}\.test_errors_name_the_function\.<locals>\.find: key="):
        cached(key="find:{nubmer}")(find)


def test_options_may_be_given_together_with_the_function() -> None:
    """cached(function, key=…) decorates like @cached(key=…)."""
    decorate: Callable[..., Any] = cached
    assert decorate(load.uncached, key="load:{number}:{language}").key(7) == "load:7:en"


class SomebodyElses:
    """A class for BACKEND that is not built on Storeroom's: it knows of no tags, and computes as often as asked."""

    def __init__(self, location: str, params: Any) -> None:
        pass

    def get_or_set(self, key: Any, default: Any, timeout: Any = None, version: Any = None) -> Any:
        return default()


def test_backend_of_another_framework_is_refused_with_the_remedy() -> None:
    """A call on an alias whose class is not of Storeroom raises, and works once the alias is."""
    storeroom.configure({"default": {"BACKEND": BACKEND}, "theirs": {"BACKEND": SomebodyElses}})

    @cached(alias="theirs", timeout=60)
    def load(number: int) -> int:
        calls.append(number)
        return number

    @cached(alias="theirs")
    async def aload(number: int) -> int:
        calls.append(number)
        return number

    for call in (
        lambda: load(1),
        lambda: load.refresh(1),
        lambda: load.invalidate(1),
        lambda: asyncio.run(aload(1)),
        lambda: asyncio.run(aload.refresh(1)),
    ):
        with pytest.raises(
            ConfigurationError, match=r"load\(\) is @cached in CACHES\['theirs'\].*SomebodyElses"
        ) as error:
            call()
        assert "storeroom.backends.filebased.FileBasedCache" in str(error.value)
    assert calls == []
    for alias in ("default", "theirs"):  # the configuration may be another one later
        storeroom.configure({"default": {"BACKEND": BACKEND}, alias: {"BACKEND": BACKEND}})
    assert load(1) == 1
    assert asyncio.run(aload(1)) == 1


def test_backend_of_django_is_refused_with_the_class_that_takes_its_place() -> None:
    """A call on one of Django's own backends raises with the class of Storeroom to set."""
    django = pytest.importorskip("django.core.cache.backends.locmem")
    storeroom.configure({"default": {"BACKEND": django.LocMemCache, "LOCATION": "theirs"}})

    @cached
    def load() -> int:
        return 1

    with pytest.raises(
        ConfigurationError, match=r"In CACHES set BACKEND to 'storeroom\.backends\.locmem\.LocMemCache'"
    ):
        load()
