"""Type checkers see the signature of the function in a cached one. Checked by mypy and pyright, never run.

The lines with ``# type: ignore`` are errors to both; those with ``# pyright: ignore``, to pyright alone.
"""

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar, assert_type, overload

from storeroom import cached

R = TypeVar("R")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Text = TypeVar("Text", str, bytes)


# Functions --------------------------------------------------------------------------------------


@cached
def load(number: int, language: str = "en") -> list[str]:
    return [language] * number


@cached(key="user:{number}", timeout="5m", tags=["users", "user:{number}"], stale_while_revalidate=60, jitter=0.1)
def user(number: int) -> dict[str, int]:
    return {"number": number}


assert_type(load(1), list[str])
assert_type(load(1, language="fr"), list[str])
assert_type(user(1), dict[str, int])
assert_type(load.key(1, "fr"), str)
assert_type(load.invalidate(1, language="fr"), bool)
assert_type(load.refresh(1), list[str])
assert_type(load.uncached(1, language="fr"), list[str])

load("1")  # type: ignore[arg-type]
load()  # type: ignore[call-arg]
load(1, langauge="fr")  # type: ignore[call-arg]
load.key("1")  # type: ignore[arg-type]
load.invalidate(1, 2)  # type: ignore[arg-type]
load.refresh()  # type: ignore[call-arg]
load.uncached("1")  # type: ignore[arg-type]
user("1")  # type: ignore[arg-type]
load.forget(1)  # type: ignore[attr-defined]

as_callback: Callable[[int], list[str]] = load
not_as_callback: Callable[[str], list[str]] = load  # type: ignore[assignment]


# Coroutine functions ----------------------------------------------------------------------------


@cached
async def aload(number: int, language: str = "en") -> list[str]:
    return [language] * number


@cached(timeout=timedelta(minutes=5), soft_timeout=0.5, hard_timeout="5s")
async def auser(number: int) -> dict[str, int]:
    return {"number": number}


async def awaits() -> None:
    assert_type(await aload(1), list[str])
    assert_type(await auser(1), dict[str, int])
    assert_type(aload.key(1, "fr"), str)
    assert_type(await aload.invalidate(1, language="fr"), bool)
    assert_type(await aload.refresh(1), list[str])
    assert_type(await aload.uncached(1), list[str])

    await aload("1")  # type: ignore[arg-type]
    await auser()  # type: ignore[call-arg]
    await aload.invalidate("1")  # type: ignore[call-overload]
    aload.refresh(1)  # type: ignore[unused-coroutine]
    await load(1)  # type: ignore[misc]


# Generic functions ------------------------------------------------------------------------------


@cached
def first(items: Sequence[T]) -> T:
    return items[0]


@cached(timeout="5m")
def second(items: Sequence[T], otherwise: T | None = None) -> T:
    return items[1]


@cached(timeout="5m")
def grouped(items: Iterable[T], by: Callable[[T], K]) -> dict[K, list[T]]:
    return {by(item): [item] for item in items}


@cached
def doubled(text: Text) -> Text:
    return text + text


@cached
async def afirst(items: Sequence[T]) -> T:
    return items[0]


@cached(timeout="5m")
async def asecond(items: Sequence[T]) -> T:
    return items[1]


@overload
def converted(value: int) -> str: ...
@overload
def converted(value: str) -> int: ...
@cached
def converted(value: int | str) -> int | str:
    return str(value)


async def generic_functions() -> None:
    assert_type(first([1]), int)
    assert_type(first(["a"]), str)
    assert_type(first.refresh([1]), int)
    assert_type(first.uncached([1]), int)
    assert_type(first.invalidate([1]), bool)
    assert_type(first.key([1]), str)
    assert_type(second(["a"]), str)
    assert_type(second.refresh(["a"]), str)
    assert_type(second.invalidate(["a"]), bool)
    assert_type(grouped(["a"], len), dict[int, list[str]])
    assert_type(doubled("a"), str)
    assert_type(doubled(b"a"), bytes)
    assert_type(await afirst([1]), int)
    assert_type(await afirst.refresh([1]), int)
    assert_type(await afirst.uncached([1]), int)
    assert_type(await afirst.invalidate([1]), bool)
    assert_type(await asecond(["a"]), str)
    assert_type(await asecond.refresh(["a"]), str)
    assert_type(await asecond.invalidate(["a"]), bool)
    assert_type(converted(1), str)
    assert_type(converted("1"), int)

    first(1)  # type: ignore[arg-type]
    doubled(1)  # type: ignore[type-var]
    second.refresh(1)  # type: ignore[arg-type]
    await asecond(1)  # type: ignore[arg-type]
    converted(b"1")  # type: ignore[call-overload]


# Functions handed on ----------------------------------------------------------------------------

awaited: Callable[[int], Awaitable[dict[str, int]]] = auser
not_awaited: Callable[[int], dict[str, int]] = auser  # type: ignore[assignment]


def applied(function: Callable[[T], R], to: T) -> R:
    return function(to)


async def aapplied(function: Callable[[T], Coroutine[Any, Any, R]], to: T) -> R:
    return await function(to)


def optional(number: int) -> str | None:
    return str(number) or None


async def handed_on() -> None:
    assert_type(applied(load, 1), list[str])
    assert_type(await aapplied(auser, 1), dict[str, int])
    assert_type(cached(optional)(1), str | None)
    assert_type(cached(timeout=5)(optional)(1), str | None)
    assert_type([found for found in map(optional, [1])], list[str | None])  # noqa: C416 -- as map() sees it


# Methods ----------------------------------------------------------------------------------------


class Shop:
    number = 1

    @cached(key="shop:{self.number}:{page}")
    def orders(self, page: int = 1) -> list[str]:
        return [str(page)]

    @cached(key="shop:{self.number}:visits:{day}")
    async def visits(self, day: str) -> int:
        return len(day)

    @property
    @cached(key="shop:{self.number}:name")
    def name(self) -> str:
        return "shop"

    @cached
    @classmethod
    def biggest(cls, count: int) -> list["Shop"]:
        return [cls()] * count

    @classmethod
    @cached
    def smallest(cls, count: int) -> list["Shop"]:
        return [cls()] * count

    @staticmethod
    @cached
    def tax(price: int) -> int:
        return price // 5

    def again(self) -> None:
        assert_type(self.orders(2), list[str])
        self.orders.invalidate(2)


async def methods(shop: Shop) -> None:
    assert_type(shop.orders(), list[str])
    assert_type(shop.orders(page=2), list[str])
    assert_type(shop.orders.key(2), str)
    assert_type(shop.orders.invalidate(2), bool)
    assert_type(shop.orders.refresh(2), list[str])
    assert_type(shop.orders.uncached(2), list[str])
    assert_type(Shop.orders(shop, 2), list[str])
    assert_type(Shop.orders.invalidate(shop, 2), bool)
    assert_type(await shop.visits("today"), int)
    assert_type(await shop.visits.invalidate("today"), bool)
    assert_type(await shop.visits.refresh("today"), int)
    assert_type(shop.name, str)
    assert_type(Shop.biggest(3), list[Shop])
    assert_type(shop.biggest(3), list[Shop])
    assert_type(Shop.biggest.invalidate(3), bool)
    assert_type(Shop.smallest(3), list[Shop])
    assert_type(Shop.tax(3), int)

    shop.orders("2")  # type: ignore[arg-type]
    shop.orders.invalidate("2")  # type: ignore[arg-type]
    shop.orders.key(shop, 2)  # type: ignore[call-arg, arg-type]
    await shop.visits(1)  # type: ignore[arg-type]
    shop.biggest("3")  # type: ignore[arg-type]


class Repository(Generic[T]):
    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    @cached(key="{self.kind}:{number}")
    def get(self, number: int) -> T:
        return self.kind()


assert_type(Repository(Shop).get(1), Shop)
assert_type(Repository(Shop).get.refresh(1), Shop)


# Protocols and overrides ------------------------------------------------------------------------


class Priced(Protocol):
    def price(self, article: str) -> int: ...


class APriced(Protocol):
    async def aprice(self, article: str) -> int: ...


class Plain:
    def price(self, article: str) -> int:
        return len(article)

    async def aprice(self, article: str) -> int:
        return len(article)


# pyright does not bind an attribute to its instance when it compares it with a protocol's or a base class's.


class Remembering(Plain):
    @cached(key="price:{article}", ignore=["self"])
    def price(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, article: str
    ) -> int:
        return super().price(article)

    @cached(key="aprice:{article}", ignore=["self"])
    async def aprice(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, article: str
    ) -> int:
        return await super().aprice(article)


class Dearer(Remembering):
    @cached(key="dearer:{article}", ignore=["self"])
    def price(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, article: str
    ) -> int:
        return super().price(article) + 1


class Forgetful(Remembering):  # its price has no invalidate()
    def price(self, article: str) -> int:  # type: ignore[override]
        return 0


class Other(Plain):
    @cached(ignore=["self"])
    def price(self, article: int) -> int:  # type: ignore[override]
        return article


priced: Priced = Remembering()  # pyright: ignore[reportAssignmentType]
apriced: APriced = Remembering()  # pyright: ignore[reportAssignmentType]
not_priced: Priced = Shop()  # type: ignore[assignment]
assert_type(Dearer().price("a"), int)
assert_type(Dearer().price.invalidate("a"), bool)


# Options ----------------------------------------------------------------------------------------


def key_of(number: int, language: str = "en") -> str:
    return f"{number}:{language}"


def tags_of(number: int, language: str = "en") -> list[int]:
    return [number]


def seconds(value: Any) -> int:
    return len(value)


cached(key=key_of, timeout=seconds, tags=tags_of, ignore=("language",))(load.uncached)
cached(timeout=None, alias="other", version=2, invalidate_on_change=True)
cached(invalidate_on_change=[True, key_of, Shop, "v2"], early=1, stale_if_error="1h", retry_pause=5)

cached(timout=5)  # type: ignore[call-overload]
cached(key=5)  # type: ignore[call-overload]
cached(jitter="a lot")  # type: ignore[call-overload]
cached("5m")  # type: ignore[call-overload]
