"""Changes of rows, announced to near tiers: LISTEN and NOTIFY of PostgreSQL.

A process with a near tier announces, within each transaction, the rows that it changes, and listens
for those of others. Nobody else announces any, so that near tiers stay bounded by time here.

Source: https://www.postgresql.org/docs/current/sql-notify.html
"""

import hashlib
import json
import selectors
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

from storeroom.backends.db import rows as layout
from storeroom.backends.db.database import Database
from storeroom.backends.db.statements import batches
from storeroom.near.listening import ListeningThread, RefusedError
from storeroom.storage.channel import Listener

__all__ = ["Notifications"]

_PAYLOAD_BYTES: Final = 7_900
"""The server takes less than 8000."""

_MAX_NAMES: Final = 2_000
"""Rows that are announced by name; of more, it is said that they may be any."""

_PINGS_PER_BOUND: Final = 4
"""Attempts to use the connection before a near tier's bound is over."""

_PING_SECONDS: Final = (0.05, 1.0)
"""The shortest and the longest time between two of these."""


class Notifications(ListeningThread):
    """The channel of one table: see ``storage.channel``."""

    def __init__(self, database: Database, table: str, timeout: float) -> None:
        super().__init__(f"table {table!r} of {database.name}", timeout, database.errors)
        self._database = database
        digest = hashlib.blake2b(table.encode(), digest_size=8).hexdigest()
        self._channel = f"storeroom_{digest}"  # a name has 63 bytes at most
        self._session: Any = None

    def watch(self, listener: Listener, _beginnings: Sequence[str]) -> None:
        """See Channel."""
        with self._lock:
            self._add(listener)

    def announce(self, session: Any, names: Collection[bytes]) -> None:
        """Announce, within a transaction, the rows that it changes: others hear of them when it is committed."""
        for payload in _payloads(names):
            session.execute("SELECT pg_notify(%s, %s)", (self._channel, payload))

    def abandon(self) -> None:
        """See ListeningThread."""
        super().abandon()
        if self._session is not None:
            self._database.abandon([self._session])

    def _open(self, stack: ExitStack) -> None:
        self._session = session = self._database.connect()
        stack.callback(self._database.close, session)
        if session.is_pooled:
            raise RefusedError("a pooler is between, such as PgBouncer; let OPTIONS['url'] name the server itself")
        session.add_notify_handler(self._hear)
        session.execute(f'LISTEN "{self._channel}"')
        self._drop_all()

    def _end(self) -> None:
        if self._session is not None:
            self._session = None
            self._drop_all()

    def _drop_all(self) -> None:
        for listener in self._listeners:
            listener.drop_all()

    def _listen(self) -> None:
        shortest, longest = _PING_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._sleeper, selectors.EVENT_READ)
            selector.register(self._session.fileno(), selectors.EVENT_READ)
            while not self._is_closed:
                selector.select(min(max(self._bound / _PINGS_PER_BOUND, shortest), longest))
                # Notifications that have come are handed to _hear() before the answer; none in time is an error.
                self._session.execute("SELECT 1")

    def _hear(self, notification: Any) -> None:
        try:
            keys = json.loads(notification.payload)
        except ValueError:  # somebody else's
            keys = None
        for listener in self._listeners:
            if isinstance(keys, list):
                listener.drop(keys)
            else:
                listener.drop_all()


def _payloads(names: Collection[bytes]) -> Iterator[str]:
    """Yield JSON lists of the storage keys of these rows, or null for any."""
    if len(names) > _MAX_NAMES or any(map(layout.is_hashed, names)):
        yield "null"
        return
    # In ASCII, where NUL and lone surrogates, which PostgreSQL's text does not hold, are \u escapes.
    keys = [json.dumps(layout.storage_key_of(name, None)) for name in names]
    for batch in batches(keys, lambda key: len(key) + 1, _PAYLOAD_BYTES, _MAX_NAMES):
        yield f"[{','.join(batch)}]"
