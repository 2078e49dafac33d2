"""The table: made on first use, and made anew where an earlier program left one of another shape."""

import logging
from typing import Any, Final, Literal

from storeroom.backends.db.database import Database
from storeroom.backends.db.statements import COLUMNS, Statements
from storeroom.exceptions import StorageError

__all__ = ["create", "make_ready", "state_of"]

logger = logging.getLogger("storeroom.db")

_SHAPE: Final = frozenset(COLUMNS)
_DJANGOS: Final = frozenset({"cache_key", "value", "expires"})
"""The columns that ``createcachetable`` of Django makes; nobody else's table has just these."""


def state_of(columns: frozenset[str]) -> Literal["ready", "absent", "old", "foreign"]:
    """Return the state of a table by its columns: "old" is Django's, or that of another version of Storeroom."""
    if columns == _SHAPE:
        return "ready"
    is_ours = {"cache_key", "sequence", "growth"} <= columns
    return ("old" if is_ours or columns == _DJANGOS else "foreign") if columns else "absent"


def make_ready(database: Database, statements: Statements, session: Any, *, creates: bool) -> None:
    """See to it that the table is there and has its shape.

    Raises:
        StorageError: it is missing and may not be made, or it is somebody else's.
    """
    if database.columns(session, statements.name) == _SHAPE:
        return
    if not creates:
        raise StorageError(
            f"The table {statements.name!r} of {database.name} is not there, or has not the columns of this version of "
            "Storeroom, and OPTIONS['create_table'] is False. Make it with: python manage.py createcachetable, or "
            "storeroom createcachetable; or let create_table be True."
        )
    create(database, statements, session)


def create(database: Database, statements: Statements, session: Any) -> bool:
    """Make the table unless it is there; replace one of Django or an earlier Storeroom, without its entries.

    Return whether a table was made.

    Raises:
        StorageError: there is a table of that name that holds something else.
    """
    return database.within(session, statements.grammar.begin, _create, database, statements, session)


def _create(database: Database, statements: Statements, session: Any) -> bool:
    database.lock_schema(session, statements.name)
    found = database.columns(session, statements.name)
    state = state_of(found)
    if state == "ready":
        return False
    if state == "foreign":
        raise StorageError(
            f"The table {statements.name!r} of {database.name} has the columns {', '.join(sorted(found))}, so it is "
            "no table of a cache. Give the cache another LOCATION."
        )
    if state == "old":
        logger.warning("The cache table %r of %s is made anew in another shape.", statements.name, database.name)
        session.execute(f"DROP TABLE {statements.table}", ())
    # Without a row of counts: the first to write makes it, in a transaction, which MySQL ends at each of these.
    for statement in statements.create():
        session.execute(statement, ())
    return True
