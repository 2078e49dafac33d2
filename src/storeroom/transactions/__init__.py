"""transaction(): writes to a cache that follow a database's transaction.

Values that a program writes to a cache within a transaction may never come true, and entries that it removes are
computed again, by others, from the database as it was before. So writes are held back: the unit of work alone sees them
(``held``); they are kept as net effects (``changes``), and made after the commit (``applying``), or never. The
transaction is that of a block of code, of Django (``django``), or of SQLAlchemy (``sqlalchemy``).
"""

from collections.abc import Sequence
from contextvars import ContextVar, copy_context
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol, Self
from weakref import ref

from storeroom.engines import background
from storeroom.exceptions import ConfigurationError, TransactionError
from storeroom.storage import overlay
from storeroom.storage.endings import Ending
from storeroom.storage.hooks import StorageHooks
from storeroom.transactions.applying import Application
from storeroom.transactions.changes import Segment, Unit
from storeroom.transactions.django import DjangoScope
from storeroom.transactions.held import TransactionOverlay
from storeroom.transactions.sqlalchemy import scope_of

__all__ = ["follow", "transaction"]


class Scope(Protocol):
    """The part of a block of transaction() that depends on `using`."""

    def unit_in_progress(self) -> Unit | None:
        """Return the unit of work that writes belong to now, if there is one."""

    def leave(self, error: BaseException | None) -> Sequence[Segment]:
        """End the block, by the exception `error` if it is one; return the changes to be made.

        If it is cut short, it may be called again.
        """


_blocks: ContextVar[tuple["ref[transaction]", ...]] = ContextVar("storeroom_transactions", default=())
"""The blocks in progress. They are referred to weakly: one that a signal's handler has kept from being entered, or
left, is held by nobody, and holds no writes back."""


def _scopes() -> list[Scope]:
    blocks = (block() for block in _blocks.get())
    return [block._begun for block in blocks if block is not None and block._begun is not None]


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
        self._begun: Scope | None = None
        self._ending: object = None
        self._application: Application | None = None

    def _enter(self, *, waits: bool) -> Self:
        overlay.install(overlay.TRANSACTION, _find)
        self._application = None
        self._begun = _scope_of(self._using, waits=waits)
        _blocks.set((*_blocks.get(), ref(self)))
        return self

    def _leave(self, error: BaseException | None, *, is_unsure: bool = False) -> Application:
        """Leave the block; return the application of its changes. If it is cut short, it may be called again."""
        scope = self._begun
        if scope is None:
            return self._application or Application(())
        _blocks.set(tuple(block for block in _blocks.get() if block() not in {None, self}))
        self._application = Application(scope.leave(error), is_unsure=is_unsure)
        self._begun = self._ending = None
        return self._application

    @property
    def _is_entered(self) -> bool:
        return self._begun is not None

    def _torn(self) -> None:
        """Leave the block if an exception has kept it from its end: see Ending.

        Nobody knows whether its own transaction was committed: the entries that it has changed are removed.
        """
        if (scope := self._begun) is not None:
            is_unsure = isinstance(scope, _Block) and scope.is_outermost
            application = self._leave(None if is_unsure else TransactionError("torn"), is_unsure=is_unsure)
            background.submit(application.finish, copy_context())

    def __enter__(self) -> Self:
        return self._enter(waits=False)

    @Ending
    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._leave(error).carry_out()
        except BaseException:  # of a signal's handler, or of a change: the others are made all the same
            self._leave(error).finish()
            raise

    async def __aenter__(self) -> Self:
        return self._enter(waits=True)

    @partial(Ending, is_awaited=True)
    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self._leave(error).acarry_out()


def _scope_of(using: Any, *, waits: bool) -> Scope:
    if using is None:
        outer = next((scope for scope in _scopes() if isinstance(scope, _Block) and not scope.unit.has_ended), None)
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
        self.is_outermost = outer is None
        self._begins_at = len(self.unit.segments())
        self.unit.begin()

    def unit_in_progress(self) -> Unit | None:
        return None if self.unit.has_ended else self.unit

    def leave(self, error: BaseException | None) -> Sequence[Segment]:
        """Return the changes, or drop them."""
        if error is not None:
            self.unit.drop_from(self._begins_at)
        if not self.is_outermost:
            self.unit.begin()
            return ()
        self.unit.has_ended = True
        if error is not None:
            return ()
        self.unit.is_open = False
        return self.unit.taken or self.unit.take()


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
    units = [scope.unit_in_progress() for scope in _scopes()]
    if option:
        units.append(DjangoScope("default" if option is True else option).unit_in_progress())
    for unit in dict.fromkeys(units):  # blocks within each other may be of one unit
        if unit is not None:
            below = TransactionOverlay(handle, below, unit)
    return below
