"""@cached in classes: the instance or class that a result belongs to."""

import abc
import asyncio
import inspect
import pickle
import pydoc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import storeroom
from storeroom import cached, caches
from storeroom.exceptions import UnkeyableArgumentError

HERE = __name__


@pytest.fixture(autouse=True)
def configured(request: pytest.FixtureRequest) -> Iterator[None]:
    before = caches.swap(None)
    storeroom.configure(
        {"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": request.node.nodeid}}
    )
    yield
    caches.swap(before)


class Shop:
    def __init__(self, number: int) -> None:
        self.number = number
        self.calls = 0

    @cached(key="shop:{self.number}:orders:{page}", tags=["shop:{self.number}"])
    def orders(self, page: int = 1) -> str:
        """List the orders."""
        self.calls += 1
        return f"page {page} of shop {self.number}"

    @cached(key="shop:{self.number}:visits")
    async def visits(self) -> int:
        self.calls += 1
        return self.number

    @cached
    def undecided(self) -> int:
        return self.number

    @cached(ignore=["self"])
    def rate(self, currency: str) -> str:
        self.calls += 1
        return currency

    @property
    @cached(key="shop:{self.number}:name")
    def name(self) -> str:
        self.calls += 1
        return f"shop {self.number}"

    @cached
    @classmethod
    def biggest(cls, count: int) -> str:
        return f"{cls.__name__} {count}"

    @classmethod
    @cached
    def smallest(cls, count: int) -> str:
        return f"{cls.__name__} {count}"

    @cached
    @staticmethod
    def tax(price: int) -> int:
        return price // 5

    @staticmethod
    @cached
    def fee(price: int) -> int:
        return price // 10


class Market(Shop):
    pass


@dataclass(frozen=True)
class Place:
    street: str
    number: int

    @cached
    def distance(self, other: "Place") -> int:
        return abs(self.number - other.number)


class Account:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> tuple[str, int]:
        return ("account", self.number)

    @cached
    def balance(self) -> int:
        return 10 * self.number


# Instances --------------------------------------------------------------------------------------


def test_a_template_identifies_the_instance() -> None:
    """Instances equal in the attribute that the template names share a result; others do not."""
    one, same, other = Shop(1), Shop(1), Shop(2)
    assert one.orders() == one.orders(1) == same.orders(page=1) == "page 1 of shop 1"
    assert other.orders() == "page 1 of shop 2"
    assert (one.calls, same.calls, other.calls) == (1, 0, 1)
    assert one.orders.key(3) == Shop.orders.key(one, 3) == "shop:1:orders:3"


def test_an_instance_without_a_key_is_refused() -> None:
    """A method with no key for its instance raises, since an address identifies nothing."""
    with pytest.raises(
        UnkeyableArgumentError,
        match=rf"{HERE}\.Shop\.undecided\(\): the argument self is, or holds, an instance of {HERE}\.Shop, .*"
        r"\{self\.id\}.*__cache_key__\(\).*ignore=\['self'\]",
    ):
        Shop(1).undecided()


def test_instances_may_be_ignored() -> None:
    """With self ignored, all instances share one result."""
    one, other = Shop(1), Shop(2)
    assert one.rate("EUR") == other.rate("EUR") == "EUR"
    assert (one.calls, other.calls) == (1, 0)


def test_a_dataclass_is_its_fields() -> None:
    """A frozen dataclass is keyed by its fields, as instance and as argument."""
    home, office = Place("Main Street", 1), Place("Main Street", 5)
    assert home.distance(office) == 4
    place = f"{HERE}.Place(street='Main Street', number="
    assert home.distance.key(office) == f"{HERE}.Place.distance(self={place}1), other={place}5))"


def test_a_class_may_give_the_key_of_its_instances() -> None:
    """The result of __cache_key__() stands for the instance in the key."""
    assert Account(7).balance() == 70
    assert Account(7).balance.key() == f"{HERE}.Account.balance(self={HERE}.Account(('account', 7)))"


def test_a_property_may_be_cached() -> None:
    """A cached getter below @property computes once."""
    shop = Shop(1)
    assert shop.name == shop.name == "shop 1"
    assert shop.calls == 1


def test_one_method_of_one_instance_may_be_cached() -> None:
    """A bound method that is decorated keeps its instance in the key."""
    account = Account(7)
    balance = cached(account.balance.uncached)
    assert balance() == 70
    assert balance.key() == account.balance.key()
    balance_of = cached(key="balance:{self.number}")(account.balance.uncached)
    assert balance_of() == 70
    assert balance_of.key() == "balance:7"
    assert balance_of.invalidate() is True


# Classes and nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["biggest", "smallest"])
def test_a_classmethod_has_its_class_in_the_key(name: str) -> None:
    """In either order of the decorators, the key holds the class, so a subclass has results of its own."""
    for owner in (Shop, Market):
        method, through_instance = getattr(owner, name), getattr(owner(1), name)
        assert method(3) == through_instance(3) == f"{owner.__name__} 3"
    with_class = [getattr(Shop, name).key(3), Shop(1).biggest.key(3)]
    assert f"{HERE}.Shop.{name}(cls={HERE}.Shop, count=3)" in with_class
    assert Market.biggest.key(3) == f"{HERE}.Shop.biggest(cls={HERE}.Market, count=3)"


def test_a_classmethod_without_its_class_is_told() -> None:
    """Below @classmethod, methods called without the class raise TypeError with the order that works."""
    unbound: Any = vars(Shop)["smallest"].__func__
    for method in (unbound.key, unbound.invalidate, unbound.refresh):
        with pytest.raises(TypeError, match=r"its class is missing\. Put @cached above @classmethod"):
            method(3)
    assert unbound.key(Shop, 3) == f"{HERE}.Shop.smallest(cls={HERE}.Shop, count=3)"


def test_a_parameter_may_be_called_cls_elsewhere() -> None:
    """A parameter named cls of a plain function is an ordinary parameter."""

    @cached(key="class:{cls}")
    def pupils(cls: str) -> int:
        return len(cls)

    assert pupils("5b") == 2
    assert pupils.invalidate("5b") is True


@pytest.mark.parametrize("name", ["tax", "fee"])
def test_a_staticmethod_has_neither(name: str) -> None:
    """In either order of the decorators, the key of a static method holds its arguments only."""
    for method in (getattr(Shop, name), getattr(Shop(1), name)):
        assert method(100) in (10, 20)
        assert method.key(100) == f"{HERE}.Shop.{name}(price=100)"


# Bound methods ----------------------------------------------------------------------------------


def test_methods_of_a_bound_method_know_the_instance() -> None:
    """invalidate(), refresh() and uncached() of a bound method act on the result of its instance."""
    one, other = Shop(1), Shop(2)
    one.orders(), other.orders()
    assert one.orders.invalidate() is True
    assert one.orders.invalidate() is False
    assert other.orders.invalidate(page=1) is True
    assert one.orders.refresh(2) == "page 2 of shop 1"
    assert one.orders.uncached(3) == "page 3 of shop 1"
    assert caches["default"].get("shop:1:orders:2") == "page 2 of shop 1"


def test_methods_of_a_bound_coroutine_method_are_awaited() -> None:
    """A bound coroutine method computes once, and its methods are coroutines."""

    async def main() -> None:
        shop = Shop(1)
        assert inspect.iscoroutinefunction(shop.visits)
        assert inspect.iscoroutinefunction(Shop.visits)
        assert await shop.visits() == await shop.visits() == 1
        assert await shop.visits.invalidate() is True
        assert await shop.visits.refresh() == 1
        assert await shop.visits.uncached() == 1
        assert shop.calls == 3

    asyncio.run(main())


def test_a_bound_method_looks_like_one() -> None:
    """A bound method has the signature without self, compares by instance, and has no other attributes."""
    shop = Shop(1)
    assert str(inspect.signature(shop.orders)) == "(page: int = 1) -> str"
    assert (shop.orders.__name__, shop.orders.__qualname__) == ("orders", "Shop.orders")
    assert repr(shop.orders).startswith("<BoundFunction Shop.orders of <")
    assert shop.orders == shop.orders
    assert len({shop.orders, shop.orders, Shop(1).orders, shop.rate}) == 3
    with pytest.raises(AttributeError, match="no attribute 'invalidte'"):
        _ = shop.orders.invalidte  # type: ignore[attr-defined]


def test_methods_are_pickled_by_their_names() -> None:
    """Functions, bound methods and class methods of a class unpickle to the same."""
    assert pickle.loads(pickle.dumps(Shop.orders)) is Shop.orders
    bound = pickle.loads(pickle.dumps(Account(7).balance))
    assert bound() == 70
    assert pickle.loads(pickle.dumps(Market.biggest))(3) == "Market 3"


def test_an_abstract_method_stays_abstract() -> None:
    """A class with a cached abstract method cannot be instantiated."""

    class Source(abc.ABC):
        @cached(key="k", ignore=["self"])
        @abc.abstractmethod
        def load(self) -> int: ...

    with pytest.raises(TypeError, match="abstract"):
        Source()  # type: ignore[abstract]


# Classes derived from others --------------------------------------------------------------------------


class Deposit:
    rate = 1

    def __init__(self, number: int) -> None:
        self.number = number

    @cached(key="account:{self.number}:interest")
    def interest(self) -> int:
        return self.rate

    @property
    @cached(key=lambda self: f"account:{self.number}:name")
    def name(self) -> str:
        return type(self).__name__

    @cached(key="account:{self.number}:total")
    async def total(self) -> int:
        return 1

    @cached(key="fees", ignore=["cls"])
    @classmethod
    def fees(cls) -> int:
        return 1

    @cached(key="limit:{cls.rate}:{level}")
    @classmethod
    def limit(cls, level: int) -> str:
        return cls.__name__


class Savings(Deposit):
    rate = 5

    @cached(key="account:{self.number}:total")
    async def total(self) -> int:
        return await super().total() + 1

    @cached(key="fees", ignore=["cls"])
    @classmethod
    def fees(cls) -> int:
        return super().fees() + 1


class Young(Savings):
    rate = 1

    @property
    @cached(key=lambda self: f"account:{self.number}:name")
    def name(self) -> str:
        return f"{super().name}!"


def test_an_inherited_method_has_a_key_for_each_class() -> None:
    """A template's key is as written for the class that defines the method, and names a class derived from it."""
    assert [kind(7).interest() for kind in (Deposit, Savings, Young, Deposit)] == [1, 5, 1, 1]
    assert Deposit(7).interest.key() == "account:7:interest"
    assert Savings(7).interest.key() == f"account:7:interest#{HERE}.Savings"
    assert Deposit.interest.key(Savings(7)) == Savings(7).interest.key()
    assert Savings(7).interest.invalidate()
    assert caches["default"].has_key("account:7:interest")


def test_a_classmethod_has_a_key_for_each_class() -> None:
    """A template on a class method tells classes apart by their names, too, though the fields are alike."""
    assert [kind.limit(1) for kind in (Deposit, Young)] == ["Deposit", "Young"]
    assert Deposit.limit.key(1) == "limit:1:1"


def test_an_overriding_method_calls_the_one_that_it_overrides() -> None:
    """super() finds a cached method of the same template under a key of its own, sync and async, by any decorator."""
    assert [asyncio.run(kind(7).total()) for kind in (Savings, Deposit, Young)] == [2, 1, 2]
    assert Savings(7).total.key() == f"account:7:total#{HERE}.Savings.total()"
    assert [Young(7).name, Savings(7).name, Deposit(7).name] == ["Young!", "Savings", "Deposit"]
    assert [Savings.fees(), Deposit.fees(), Young.fees()] == [2, 1, 2]
    assert Young.fees.key() == Savings.fees.key() != Deposit.fees.key() == "fees"


# Help -------------------------------------------------------------------------------------------


class Helpful:
    @cached(key="helpful:{word}:{number}", ignore=["self"])
    def plain(self, word: str, number: int = 1) -> str:
        """Say the word."""
        return word * number

    @cached(key="ahelpful:{word}", ignore=["self"])
    async def awaited(self, word: str) -> str:
        """Say the word later."""
        return word

    @cached
    @classmethod
    def of_class(cls, word: str) -> str:
        """Say the class's word."""
        return word


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (Helpful().plain, "plain(word: str, number: int = 1) -> str\n    Say the word.\n"),
        (Helpful.plain, "plain(self, word: str, number: int = 1) -> str\n    Say the word.\n"),
        (Helpful().awaited, "async awaited(word: str) -> str\n    Say the word later.\n"),
        (Helpful.of_class, "of_class(word: str) -> str\n    Say the class's word.\n"),
    ],
)
def test_help_shows_the_method_s_own_signature_and_docstring(method: Any, told: str) -> None:
    """help(), and whatever reads signatures as Sphinx does, shows a cached method as the method that it is."""
    assert told in pydoc.render_doc(method, renderer=pydoc.plaintext)
    assert inspect.isroutine(method)
    assert inspect.getdoc(method) == method.uncached.__doc__
