"""Type checkers see the signature of the function in a cached one. Checked by mypy, never run."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar, assert_type

from storeroom import cache, cached

T = TypeVar("T")


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
    await aload.invalidate("1")  # type: ignore[arg-type]
    aload.refresh(1)  # type: ignore[unused-coroutine]
    await load(1)  # type: ignore[misc]


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


# Options ----------------------------------------------------------------------------------------


def key_of(number: int, language: str = "en") -> str:
    return f"{number}:{language}"


def seconds(value: Any) -> int:
    return len(value)


cached(key=key_of, timeout=seconds, tags=lambda number, language: [number], ignore=("language",))(load.uncached)
cached(timeout=None, alias="other", version=2, invalidate_on_change=True)
cached(invalidate_on_change=[True, key_of, Shop, "v2"], early=1, stale_if_error="1h", retry_pause=5)

cached(timout=5)  # type: ignore[call-overload]
cached(key=5)  # type: ignore[call-overload]
cached(jitter="a lot")  # type: ignore[call-overload]
cached("5m")  # type: ignore[call-overload]

# refresh() of a cache ---------------------------------------------------------------------------

assert_type(cache.refresh("k", seconds, "5m", tags=["t"]), Any)
cache.refresh("k", seconds, timout="5m")  # type: ignore[call-arg]
