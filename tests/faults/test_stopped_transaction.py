"""A process is stopped within a transaction of a database server, or its machine is gone: others soon write again.

Ctrl-Z, a debugger, a paused container or a cut network leave the connection open, and the server knows of nothing.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.testing.concurrency import eventually
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.databases import kind, mariadb, new_table, postgresql

__all__ = ["kind", "mariadb", "new_table", "postgresql"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process"),
    pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True),
]

#: Stops with the rows of its entry and of the counts locked, before it commits.
STOPPING = """
import os, signal, sys
from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.transaction import Transaction

cache = DatabaseCache(sys.argv[2], {"TIMEOUT": None, "OPTIONS": {"url": sys.argv[1]}})
cache.set("first", 1)
save = Transaction.save

def stop(self, lately_read):
    Transaction.save = save
    save(self, lately_read)
    os.kill(os.getpid(), signal.SIGSTOP)

Transaction.save = stop
print(cache.set_many({"k": "of the one that was stopped"}), cache.get("k"), cache.stats().errors)
"""


@pytest.fixture
def table(new_table: Callable[[str], tuple[str, str]], kind: str) -> tuple[str, str]:
    return new_table(kind)


@pytest.fixture
def stopped(table: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has stopped within a write."""
    child = subprocess.Popen([sys.executable, "-c", STOPPING, *table], stdout=subprocess.PIPE, text=True)
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    yield child
    child.kill()
    child.communicate(timeout=10)


def test_others_write_again_within_seconds(table: tuple[str, str], stopped: subprocess.Popen[str]) -> None:
    """The server ends the transaction; the writes of others are stored, and the stopped one is made when it goes on."""
    url, name = table
    with engines_of_its_own():
        cache = DatabaseCache(name, {"TIMEOUT": None, "OPTIONS": {"url": url}})
        eventually(lambda: cache.set_many({"k": "of another", "new": 1}) == [])
        eventually(lambda: cache.get_many(["k", "new"]) == {"k": "of another", "new": 1})
        stopped.send_signal(signal.SIGCONT)
        assert stopped.communicate(timeout=60)[0] == "[] of the one that was stopped 0\n"
        assert cache.get("k") == "of the one that was stopped"
        cache._check_invariants()
