"""The session of a test run of Django's, which undoes what TestCase undoes.

TestCase opens a transaction for its class, and a savepoint for each test, and rolls them back. The cache's session is
its own, so that a program's transactions are none of its, as elsewhere; but it keeps step with those of TestCase: for
each it has one of its own, that ends when theirs has ended. Nobody tells it: it looks when it is used.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from weakref import ref

from storeroom.backends.db.database import Database
from storeroom.backends.db.pool import Pool
from storeroom.backends.db.site import Site, test_blocks
from storeroom.engines.nesting import nested

__all__ = ["FollowingPool"]

T = TypeVar("T")

_NOBODY: Final[tuple[int, Callable[[], Any]]] = 0, lambda: None


class FollowingPool(Pool):
    """One session for all threads, so that a live server reads the entries of its test.

    It stays open, but for the moment in which Django drops or copies the database.
    """

    def __init__(self, database: Database, patience: float, site: Site) -> None:
        super().__init__(database, 1, patience)
        database.idle_seconds = 0.0  # a test may take its time, and its transaction is this session's
        self._site = site
        self._followed: Any = None  # Django's connection of the thread that runs the tests
        self._holder = _NOBODY
        site.when_dropping(self.close_idle)

    def take(self) -> tuple[Any, bool]:
        """Return the session, in step with the test that runs.

        Raises:
            ReentrantUseError: this thread has it already, and so would wait for itself.
        """
        holder, held = self._holder
        if holder == threading.get_ident() and held() is not None:
            raise nested()
        session, was_open = super().take()
        self._holder = threading.get_ident(), ref(session)
        try:
            if not self.database.is_stale(session):
                self._keep_step(session)
        except BaseException:
            self.discard(session)
            raise
        return session, was_open

    def give_back(self, session: Any) -> None:
        """See Connections."""
        self._holder = _NOBODY
        super().give_back(session)

    def discard(self, session: Any) -> None:
        """See Connections."""
        self._holder = _NOBODY
        super().discard(session)

    def _keep_step(self, session: Any) -> None:
        blocks, kept = self._blocks(), 0
        for block, ours in zip(blocks, session.blocks, strict=False):
            if block is not ours:
                break
            kept += 1
        if kept < len(session.blocks):
            savepoint = f"SAVEPOINT storeroom_{kept}"
            for statement in (f"ROLLBACK TO {savepoint}", f"RELEASE {savepoint}") if kept else ("ROLLBACK",):
                session.execute(statement, ())
            session.blocks = session.blocks[:kept]
        for depth, block in enumerate(blocks[kept:], kept):
            for statement in (f"SAVEPOINT storeroom_{depth}",) if depth else self.database.grammar.begin:
                session.execute(statement, ())
            session.blocks = (*session.blocks, block)

    def _blocks(self) -> Sequence[object]:
        """Return TestCase's atomic blocks: those of this thread, else those of the thread that runs the tests."""
        self.look()
        return test_blocks(self._followed) if self._followed is not None else ()

    def look(self) -> None:
        """Follow this thread's connection if a TestCase runs on it."""
        connection = self._site.connection
        if connection is not self._followed and test_blocks(connection):
            self._followed = connection

    async def alook(self) -> None:
        """Do the same for an asynchronous test, whose TestCase runs in another thread."""
        if not self._blocks():
            await self._site.in_thread_of_tests(self.look)

    def apart(self, session: Any, make: Callable[[Any], T]) -> T:
        """Make a table by a session of its own, lest it end with the test; in a file, where one writes, it has to."""
        if not session.blocks or self.database.is_local:
            return make(session)
        other = self.database.connect()
        try:
            return make(other)
        finally:
            self.database.close(other)

    def rest(self) -> None:
        """Stay open: a test's entries end with the session."""
