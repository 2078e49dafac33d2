"""Writes that follow the transactions of SQLAlchemy's Session and Connection."""

import asyncio
import contextlib
import contextvars
import gc
import itertools
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

import storeroom
from storeroom.backends.locmem import LocMemCache
from storeroom.exceptions import TransactionError

_numbers = itertools.count()


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    # SQLite looks at it when the transaction commits: a commit that fails.
    other: Mapped[int | None] = mapped_column(ForeignKey("users.id", deferrable=True, initially="DEFERRED"))


@pytest.fixture
def cache():
    return LocMemCache(f"sqlalchemy {next(_numbers)}", {"TIMEOUT": None})


@pytest.fixture
def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/db.sqlite")

    @event.listens_for(engine, "connect")
    def begin_by_hand(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else the driver knows no savepoints
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def outside(read: Any, *args: Any) -> Any:
    return contextvars.Context().run(read, *args)


class UndoError(Exception):
    pass


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Expect UndoError out of everything that the block has entered."""
    with pytest.raises(UndoError):
        yield


# Session ------------------------------------------------------------------------------------


def test_writes_follow_the_sessions_commits(cache: LocMemCache, engine: Any) -> None:
    """Writes are made at each commit of the session within the block, and dropped at a rollback."""
    with Session(engine) as session, storeroom.transaction(using=session):
        cache.set("a", 1)  # before anything of the database
        session.add(User(name="Ada"))
        cache.set("b", 1)
        assert cache.get_many([*"ab"]) == {"a": 1, "b": 1}
        assert outside(cache.get_many, [*"ab"]) == {}
        session.commit()
        assert outside(cache.get_many, [*"ab"]) == {"a": 1, "b": 1}
        session.add(User(name="Bea"))
        cache.set("c", 1)
        session.rollback()
        assert cache.get("c") is None
        session.add(User(name="Cai"))
        cache.set("d", 1)
        session.commit()
    assert cache.get_many([*"abcd"]) == {"a": 1, "b": 1, "d": 1}


def test_writes_follow_a_commit_that_comes_after_the_block(cache: LocMemCache, engine: Any) -> None:
    """Writes of a block in the session's transaction wait for its commit; a rollback or close() drops them."""
    with Session(engine) as session:
        with session.begin(), storeroom.transaction(using=session):
            session.add(User(name="Ada"))
            cache.set("a", 1)
        assert cache.get("a") == 1
        with undone(), session.begin(), storeroom.transaction(using=session):
            session.add(User(name="Bea"))
            cache.set("b", 1)
            raise UndoError
        assert cache.get("b") is None
        with storeroom.transaction(using=session):
            session.add(User(name="Cai"))
            session.flush()
            cache.set("c", 1)
        assert cache.get("c") is None
        session.commit()
        assert cache.get("c") == 1
        with storeroom.transaction(using=session):
            session.add(User(name="Dan"))
            session.flush()
            cache.set("d", 1)
    assert cache.get("d") is None  # closed, and so rolled back


def test_savepoints_of_a_session_are_followed(cache: LocMemCache, engine: Any) -> None:
    """Writes within a session's savepoint are dropped with it."""
    with Session(engine) as session, session.begin(), storeroom.transaction(using=session):
        cache.set("a", 1)
        with session.begin_nested():
            session.add(User(name="Ada"))
            cache.set("b", 1)
        with undone(), session.begin_nested():
            cache.set("c", 1)
            with session.begin_nested():
                session.add(User(name="Bea"))
                cache.set("d", 1)
            assert cache.get_many([*"abcd"]) == dict.fromkeys("abcd", 1)
            raise UndoError
        assert cache.get_many([*"abcd"]) == {"a": 1, "b": 1}
        cache.set("e", 1)
        assert outside(cache.get_many, [*"abcde"]) == {}
    assert cache.get_many([*"abcde"]) == {"a": 1, "b": 1, "e": 1}


def test_a_commit_that_fails_drops_the_writes_before_it(cache: LocMemCache, engine: Any) -> None:
    """A session's commit that fails drops the writes before it, and later ones are made."""
    with Session(engine) as session, storeroom.transaction(using=session):
        session.add(User(name="Ada", other=99))
        cache.set("a", 1)
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        assert cache.get("a") is None
        session.add(User(name="Bea"))
        cache.set("b", 1)
        session.commit()
    assert cache.get_many([*"ab"]) == {"b": 1}


def test_without_a_transaction_the_block_decides(cache: LocMemCache, engine: Any) -> None:
    """Where the session has no transaction, writes are made at the block's end and dropped if it raises."""
    with Session(engine) as session:
        with storeroom.transaction(using=session):
            cache.set("a", 1)
        assert cache.get("a") == 1
        with undone(), storeroom.transaction(using=session):
            cache.set("b", 1)
            raise UndoError
        assert cache.get("b") is None


def test_blocks_of_one_session_are_one(cache: LocMemCache, engine: Any) -> None:
    """A block within another of the same session, as a function may open it, is part of that."""
    sessions = scoped_session(sessionmaker(engine))
    with storeroom.transaction(using=sessions), storeroom.transaction(using=sessions()):
        sessions.add(User(name="Ada"))
        cache.set("a", 1)
        sessions.commit()
        assert outside(cache.get, "a") == 1
    sessions.remove()


def test_nothing_is_kept_of_a_session_that_is_gone(engine: Any) -> None:
    """A session whose block has ended is not kept alive."""
    session = Session(engine)
    with storeroom.transaction(using=session):
        pass
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None


# Connection -----------------------------------------------------------------------------------


def test_writes_follow_the_connections_commits(cache: LocMemCache, engine: Any) -> None:
    """Writes are made at each commit of the connection, and dropped at a rollback, of savepoints too."""
    with engine.connect() as connection, storeroom.transaction(using=connection):
        cache.set("a", 1)
        connection.execute(text("INSERT INTO users (name) VALUES ('Ada')"))
        connection.commit()
        assert cache.get("a") == 1
        assert outside(cache.get, "a") == 1
        cache.set("b", 1)
        connection.execute(text("INSERT INTO users (name) VALUES ('Bea')"))
        connection.rollback()
        assert cache.get("b") is None
        with connection.begin():
            cache.set("c", 1)
            nested = connection.begin_nested()
            cache.set("d", 1)
            nested.rollback()
            with connection.begin_nested():
                cache.set("e", 1)
            assert cache.get_many([*"abcde"]) == {"a": 1, "c": 1, "e": 1}
    assert cache.get_many([*"abcde"]) == {"a": 1, "c": 1, "e": 1}


def test_a_connections_commit_that_fails_drops_the_writes_before_it(cache: LocMemCache, engine: Any) -> None:
    """A connection's commit that fails drops the writes before it, and later ones are made."""
    with engine.connect() as connection, storeroom.transaction(using=connection):
        transaction = connection.begin()
        connection.execute(text("INSERT INTO users (name, other) VALUES ('Ada', 99)"))
        cache.set("a", 1)
        with pytest.raises(IntegrityError), transaction:
            pass
        assert cache.get("a") is None
        cache.set("b", 1)
    assert cache.get_many([*"ab"]) == {"b": 1}


def test_a_block_that_ends_before_the_connections_transaction_is_an_error(cache: LocMemCache, engine: Any) -> None:
    """A block within a connection's transaction raises, as nothing would tell it of the commit."""
    refusal = pytest.raises(TransactionError, match=r"Enter transaction\(\) before connection.begin")
    with refusal, engine.begin() as connection, storeroom.transaction(using=connection):
        cache.set("a", 1)
    assert cache.get("a") is None


def test_nothing_is_kept_of_a_connection_that_is_gone(engine: Any) -> None:
    """A connection whose block has ended is not kept alive."""
    connection = engine.connect()
    with storeroom.transaction(using=connection):
        pass
    gone = weakref.ref(connection)
    connection.close()
    del connection
    gc.collect()
    assert gone() is None


# Asynchronous -----------------------------------------------------------------------------------


def test_writes_follow_asynchronous_sessions_and_connections(cache: LocMemCache, tmp_path: Any) -> None:
    """Writes of an asynchronous session or connection are made at the block's end, where that can be awaited."""
    pytest.importorskip("aiosqlite")
    asynchronous = pytest.importorskip("sqlalchemy.ext.asyncio")

    async def main() -> None:
        engine = asynchronous.create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.sqlite")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with asynchronous.AsyncSession(engine) as session:
            async with storeroom.transaction(using=session):
                session.add(User(name="Ada"))
                await cache.aset("a", 1)
                await session.commit()
                assert await cache.aget("a") == 1
                session.add(User(name="Bea"))
                await cache.aset("b", 1)
                await session.rollback()
                assert await cache.aget("b") is None
            assert outside(cache.get_many, [*"ab"]) == {"a": 1}
            async with session.begin(), storeroom.transaction(using=session):
                session.add(User(name="Cai"))
                await cache.aset("c", 1)
            assert outside(cache.get, "c") == 1
        async with engine.connect() as connection, storeroom.transaction(using=connection):
            async with connection.begin():
                await connection.execute(text("INSERT INTO users (name) VALUES ('Dan')"))
                await cache.aset("d", 1)
            await connection.execute(text("INSERT INTO users (name) VALUES ('Eve')"))
            await cache.aset("e", 1)
            await connection.rollback()
        assert outside(cache.get_many, [*"de"]) == {"d": 1}
        await engine.dispose()

    asyncio.run(main())


def test_object_without_transactions_is_refused() -> None:
    """transaction(using=…) refuses an object that has no transactions."""
    with pytest.raises(TypeError, match="expected None for the block's own transaction"):
        storeroom.transaction(using=object()).__enter__()
