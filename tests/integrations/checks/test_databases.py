"""`storeroom check` and databases: their servers, tables and users, and SQLite's files."""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from storeroom.registry import caches as configured
from storeroom.registry import configure
from storeroom.testing import FakeClock
from tests.integrations.checks.looks import DATABASE, found, ids, look, on
from tests.servers.databases import MariaDBServer, PostgreSQLServer

# Servers ----------------------------------------------------------------------------------


def in_table(server: Any, table: str, address: str | None = None, **options: Any) -> dict[str, Any]:
    return on(DATABASE, table, OPTIONS={"url": address or server.url(), **options})


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request) -> Any:
    return request.getfixturevalue(request.param)


def execute(server: PostgreSQLServer | MariaDBServer, statement: str) -> Any:
    """Run a statement of a test."""
    if isinstance(server, PostgreSQLServer):
        return server.execute(statement)
    import pymysql

    with pymysql.connect(user="root", unix_socket=server.socket, database="test", autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall()


def tables(server: Any) -> set[str]:
    schema = "public" if isinstance(server, PostgreSQLServer) else "test"
    found = execute(server, f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{schema}'")
    return {name for (name,) in found}


def test_a_table_that_will_be_made_is_all_right(database):
    """A table that is not there yet is no finding where it may be made, and the check does not make it."""
    table, before = database.table(), tables(database)
    findings, probe = look(in_table(database, table))
    assert findings == []
    assert (probe.table.state, probe.table.may_create) == ("absent", True)
    assert tables(database) == before
    (answer,) = probe.servers
    assert answer.product == ("PostgreSQL" if isinstance(database, PostgreSQLServer) else "MariaDB")
    assert answer.version
    assert (answer.endpoint.is_encrypted, answer.endpoint.has_password) == (False, False)
    assert answer.latency < 1
    assert abs(answer.clock_ahead) < 1


def test_a_table_that_nobody_makes_is_found(database):
    """A missing table is found where the cache may not make it, with a command that does."""
    caches = in_table(database, database.table(), create_table=False)
    finding = found("E010", caches)
    assert finding.command == "storeroom createcachetable"
    configure(caches)
    configured["default"].create_table()
    assert ids(caches) == set()


def test_djangos_table_is_found(database):
    """A table of Django's cache is a warning, or an error where the cache may not make its own."""
    table = database.table()
    execute(database, f"CREATE TABLE {table} (cache_key varchar(255) PRIMARY KEY, value text, expires timestamp)")
    assert ids(in_table(database, table)) == {"W027"}
    assert ids(in_table(database, table, create_table=False)) == {"E010"}


def test_a_table_of_something_else_is_found(database):
    """A table with other columns is found, and they are named."""
    table = database.table()
    execute(database, f"CREATE TABLE {table} (id integer PRIMARY KEY, price integer)")
    assert "has the columns id, price." in found("E011", in_table(database, table)).what


def test_a_user_who_may_make_no_table_is_found_in_postgresql(postgresql):
    """A missing table is found in PostgreSQL where the user may not make it."""
    postgresql.execute("CREATE ROLE checker LOGIN")
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM public")
    address = postgresql.url().replace("storeroom@", "checker@")
    assert "this user may not make it" in found("E010", in_table(postgresql, "cache_none", address)).what


def test_a_user_who_may_make_no_table_is_found_in_mariadb(mariadb):
    """A missing table is found in MariaDB where the user may not make it."""
    execute(mariadb, "CREATE USER reader@localhost")
    execute(mariadb, "GRANT SELECT, INSERT ON test.* TO reader@localhost")
    # Anybody may use a database that is called "test", unless the grant to nobody in particular goes.
    execute(mariadb, "DELETE FROM mysql.db WHERE User = ''")
    execute(mariadb, "FLUSH PRIVILEGES")
    address = mariadb.url().replace("root@", "reader@")
    table = mariadb.table()
    assert "this user may not make it" in found("E010", in_table(mariadb, table, address)).what
    execute(mariadb, "GRANT CREATE ON test.* TO reader@localhost")
    assert ids(in_table(mariadb, table, address)) == set()


def test_a_database_that_is_not_there_is_a_refusal(database):
    """A database that the server does not have is a refusal that names it."""
    name = "/postgres" if isinstance(database, PostgreSQLServer) else "/test"
    caches = in_table(database, database.table(), database.url().replace(name, "/nowhere"))
    assert "nowhere" in found("E008", caches).what


def test_the_clock_of_a_database_is_compared(database):
    """A server whose clock differs by more than a minute is found."""
    with FakeClock() as clock:
        caches = in_table(database, database.table())
        assert ids(caches) == set()
        clock.advance(61)
        assert ids(caches) == {"W026"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("postgresql_server", "postgresql://storeroom@127.0.0.1:{}/postgres"),
        ("mariadb_server", "mariadb://root@127.0.0.1:{}/test"),
    ],
)
def test_a_database_that_hangs_or_is_gone_is_out_of_reach(name, address, request):
    """A database that hangs or is down is out of reach in time, and is not when it is back."""
    server = request.getfixturevalue(name)
    # By its port: PyMySQL does not close a Unix socket that leads nowhere.
    caches = in_table(server, "pages", address.format(server.port))
    assert ids(caches) == set()
    server.pause()
    begun = time.monotonic()
    assert ids(caches, seconds=0.3) == {"E007"}
    assert time.monotonic() - begun < 5
    server.resume()
    assert ids(caches) == set()
    server.kill()
    assert ids(caches) == {"E007"}
    server.process.start()
    assert ids(caches) == set()


# SQLite -----------------------------------------------------------------------------------


def in_file(path: Path, **options: Any) -> dict[str, Any]:
    return on(DATABASE, "pages", OPTIONS={"url": f"sqlite:///{path}", **options})


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_a_file_that_will_be_made_is_all_right(tmp_path):
    """A file that is not there yet is no finding where it may be made, and the check does not make it."""
    findings, probe = look(in_file(tmp_path / "cache.sqlite3"))
    assert findings == []
    assert (probe.servers[0].product, probe.table.state) == ("SQLite", "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_use_is_looked_at_and_left_as_it_is(tmp_path):
    """A file in use has no findings, and none of its bytes change."""
    caches = in_file(tmp_path / "cache.sqlite3")
    configure(caches)
    configured["default"].set("key", "value")
    before = contents(tmp_path)
    findings, probe = look(caches)
    assert findings == []
    assert probe.table.state == "ready"
    after = contents(tmp_path)
    del before["cache.sqlite3-shm"], after["cache.sqlite3-shm"]  # connections note there that they read
    assert after == before


def test_tables_of_a_file_are_told_apart(tmp_path):
    """A table that is missing, has other columns, or is Django's, is found in a file."""
    file = tmp_path / "cache.sqlite3"
    assert ids(in_file(file, create_table=False)) == {"E010"}
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE pages (id integer)")
    assert ids(in_file(file)) == {"E011"}
    connection.execute("DROP TABLE pages")
    connection.execute("CREATE TABLE pages (cache_key, value, expires)")
    assert ids(in_file(file)) == {"W027"}
    connection.close()


def test_file_that_is_no_database_is_found(tmp_path):
    """A file that is no database is refused, and so is a path below a file."""
    (tmp_path / "file").write_text("This is a letter." * 100)
    assert "file is not a database" in found("E008", in_file(tmp_path / "file")).what
    assert "is none in which this user may make it" in found("E008", in_file(tmp_path / "file" / "x")).what
