"""Reads of rows on a session, each by a statement and its parameters."""

from collections.abc import Sequence
from typing import Any

from storeroom.backends.db.database import Database
from storeroom.backends.db.statements import Statements

__all__ = ["fetch_all", "fetch_one", "fetch_parts", "rows_changed"]


def fetch_one(session: Any, statement: str, parameters: Sequence[Any]) -> Any:
    """Return the first row, or None."""
    return session.execute(statement, parameters).fetchone()


def fetch_parts(
    session: Any, database: Database, statements: Statements, parts: Sequence[Sequence[bytes]]
) -> list[Any]:
    """Return the rows of all names, as they are at one moment."""
    if len(parts) == 1:
        return fetch_all(session, statements.get_many(len(parts[0])), parts[0])

    def fetched() -> list[Any]:
        return [row for part in parts for row in session.execute(statements.get_many(len(part)), part).fetchall()]

    return database.within(session, statements.grammar.snapshot, fetched)


def fetch_all(session: Any, statement: str, parameters: Sequence[Any]) -> list[Any]:
    """Return all rows."""
    return list(session.execute(statement, parameters).fetchall())


def rows_changed(session: Any, statement: str, parameters: Sequence[Any]) -> int:
    """Return how many rows a statement has changed."""
    changed: int = session.execute(statement, parameters).rowcount
    return changed
