"""Middleware that makes each request a unit of work: MemoMiddleware and TransactionMiddleware, sync and async alike.

Both end with the view and the middleware within: a response that streams is sent after that.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django import conf
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from storeroom.memos import MAX_ENTRIES, memo
from storeroom.transactions import transaction

__all__ = ["MemoMiddleware", "TransactionMiddleware"]

_MEMO: Final = "STOREROOM_MEMO_MAX_ENTRIES"
_TRANSACTION: Final = "STOREROOM_TRANSACTION_DATABASES"


class _UnitOfWork:
    """A middleware that handles each request within blocks, for ``with`` and ``async with``."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Read the settings: a mistake in them ends the start of the site.

        Raises:
            ImproperlyConfigured: a setting is wrong.
        """
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def _blocks(self) -> list[Any]:
        raise NotImplementedError

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self._awaited(request)
        with ExitStack() as stack:
            for block in self._blocks():
                stack.enter_context(block)
            return self.get_response(request)

    async def _awaited(self, request: HttpRequest) -> Any:
        response: Callable[[HttpRequest], Awaitable[Any]] = self.get_response
        async with AsyncExitStack() as stack:
            for block in self._blocks():
                await stack.enter_async_context(block)
            return await response(request)


class MemoMiddleware(_UnitOfWork):
    """Nothing is read from a cache twice within a request: see docs/memo.md.

    The setting STOREROOM_MEMO_MAX_ENTRIES is the number of entries that are remembered at most; 1,000 by default.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        number = getattr(conf.settings, _MEMO, MAX_ENTRIES)
        if type(number) is not int or number < 1:
            raise ImproperlyConfigured(f"{_MEMO} is {number!r}; expected a whole number of entries, such as 1000.")
        self._max_entries = number

    def _blocks(self) -> list[Any]:
        return [memo(self._max_entries)]


class TransactionMiddleware(_UnitOfWork):
    """Writes to all caches follow the transactions of databases within a request: see docs/transactions.md.

    The setting STOREROOM_TRANSACTION_DATABASES names the databases; ``["default"]`` by default. Outside of ``atomic()``
    nothing is held back, and a cache with ``OPTIONS["transactional"]`` False never is.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        names = getattr(conf.settings, _TRANSACTION, ["default"])
        if not isinstance(names, list | tuple):
            raise ImproperlyConfigured(f"{_TRANSACTION} is {names!r}; expected a list of aliases, as ['default'].")
        for name in names:
            if name not in conf.settings.DATABASES:
                known = ", ".join(map(repr, conf.settings.DATABASES)) or "none"
                raise ImproperlyConfigured(f"{_TRANSACTION} has {name!r}; DATABASES has {known}.")
        self._databases = tuple(names)

    def _blocks(self) -> list[Any]:
        return [transaction(using=name) for name in self._databases]
