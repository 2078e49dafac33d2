"""transaction(): writes to a cache that follow a database's transaction.

Values that a program writes to a cache within a transaction may never come true, and entries that it removes are
computed again, by others, from the database as it was before. So writes are held back: the unit of work alone sees them
(``held``); they are kept as net effects (``changes``), and made after the commit (``applying``), or never. The
transaction is that of a block of code, of Django (``django``), or of SQLAlchemy (``sqlalchemy``).
"""

from contextvars import ContextVar, Token
from importlib.util import find_spec
from typing import Any, Protocol, Self

from storeroom.exceptions import ConfigurationError
from storeroom.storage import overlay
from storeroom.storage.hooks import StorageHooks
from storeroom.storage.steps import Steps, arun, run
from storeroom.transactions.applying import apply
from storeroom.transactions.changes import Unit
from storeroom.transactions.django import DjangoScope
from storeroom.transactions.held import TransactionOverlay
from storeroom.transactions.sqlalchemy import scope_of

__all__ = ["follow", "transaction"]


class Scope(Protocol):
    """The part of a block of transaction() that depends on `using`."""

    def unit_in_progress(self) -> Unit | None:
        """Return the unit of work that writes belong to now, if there is one."""

    def leave(self, error: BaseException | None) -> Steps[None]:
        """End the block; `error` is the exception that ended it, if one did."""


_scopes: ContextVar[tuple[Scope, ...]] = ContextVar("storeroom_transactions", default=())


class transaction:  # noqa: N801 -- called like a function, as contextlib's are
    """A block in which writes to caches are held back until the database has committed.

    For ``with`` and ``async with``; tasks and ``asyncio.to_thread()`` within are part of it. A cache with
    ``OPTIONS["transactional"]`` False is not. Reads see the block's own writes. Locks are not held back.

    Args:
        using: the transaction to follow.

            - None: the block's own, which an exception rolls back. A block within a block is like a savepoint.
            - the alias of a database in Django's DATABASES: that of ``atomic()``, whichever is in progress
              at each write; outside of it, writes are made at once.
            - a Session or Connection of SQLAlchemy, asynchronous ones too.

    Raises:
        TypeError: `using` is something else.
        TransactionError: a block with a Connection ends before the transaction does.
        StorageError: the storage could not be told of a change after the commit.
    """

    def __init__(self, using: Any = None) -> None:
        self._using = using
        self._begun: tuple[Scope, Token[tuple[Scope, ...]]] | None = None

    def _enter(self, *, waits: bool) -> Self:
        overlay.install(overlay.TRANSACTION, _find)
        scope = _scope_of(self._using, waits=waits)
        self._begun = scope, _scopes.set((*_scopes.get(), scope))
        return self

    def _leave(self, error: BaseException | None) -> Steps[None]:
        if self._begun is None:
            return
        (scope, token), self._begun = self._begun, None
        _scopes.reset(token)
        yield from scope.leave(error)

    def __enter__(self) -> Self:
        return self._enter(waits=False)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        run(self._leave(error))

    async def __aenter__(self) -> Self:
        return self._enter(waits=True)

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await arun(self._leave(error))


def _scope_of(using: Any, *, waits: bool) -> Scope:
    if using is None:
        outer = next((scope for scope in _scopes.get() if isinstance(scope, _Block) and not scope.unit.has_ended), None)
        return _Block(outer)
    if isinstance(using, str):
        if find_spec("django") is None:
            raise TypeError(f"transaction() is using {using!r}, a database of Django's, and Django is not installed.")
        return DjangoScope(using)
    return scope_of(using, waits=waits)


class _Block:
    """The block's own transaction, or, within another, its savepoint."""

    def __init__(self, outer: "_Block | None") -> None:
        self.unit: Unit = Unit() if outer is None else outer.unit
        self._is_outermost = outer is None
        self._begins_at = len(self.unit.segments())
        self.unit.begin()

    def unit_in_progress(self) -> Unit | None:
        return None if self.unit.has_ended else self.unit

    def leave(self, error: BaseException | None) -> Steps[None]:
        """Apply the changes, or drop them."""
        if error is not None:
            self.unit.drop_from(self._begins_at)
        if not self._is_outermost:
            self.unit.begin()
            return
        self.unit.has_ended = True
        if error is None:
            segments = self.unit.take()
            self.unit.is_open = False
            yield from apply(segments)


def follow(database: str | bool) -> None:
    """Let caches with ``OPTIONS["transactional"]`` follow Django's transactions from now on.

    Raises:
        ConfigurationError: there is no Django.
    """
    if find_spec("django") is None:
        raise ConfigurationError(
            f"OPTIONS['transactional'] is {database!r}, which follows a database of Django's, and Django is not "
            "installed. Leave it out, and use storeroom.transaction() around your transactions."
        )
    overlay.install(overlay.TRANSACTION, _find)


def _find(handle: Any, below: StorageHooks) -> StorageHooks:
    option = handle.settings.options.get("transactional")
    if option is False:
        return below
    units = [scope.unit_in_progress() for scope in _scopes.get()]
    if option:
        units.append(DjangoScope("default" if option is True else option).unit_in_progress())
    for unit in dict.fromkeys(units):  # blocks within each other may be of one unit
        if unit is not None:
            below = TransactionOverlay(handle, below, unit)
    return below
