"""PgBouncer, a real one, before a PostgreSQL server."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.databases import PostgreSQLServer
from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, free_port, missing

SETTINGS = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_reset_query_always = 0
logfile =
pidfile =
"""


class PgBouncer:
    """One that gives each client a session of the server for a transaction (`mode`), out of so many."""

    def __init__(self, server: PostgreSQLServer, mode: str = "transaction", size: int = 2) -> None:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            missing("pgbouncer is not installed (Debian: pgbouncer)")
        self.folder, self.port = new_folder(), free_port()
        if server.user:
            shutil.chown(self.folder, server.user)
        settings = self.folder / "pgbouncer.ini"
        # All log in as the server's owner.
        text = SETTINGS.format(server=server.port, port=self.port, mode=mode, size=size)
        settings.write_text(text.replace("port=", "user=storeroom port=", 1))
        command = server.as_user(str(program), str(settings))
        self.process = ServerProcess(command, self.folder / "log", self.answers, self.folder)

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def url(self) -> str:
        return f"postgresql://storeroom@127.0.0.1:{self.port}/postgres"


@contextmanager
def bouncing(server: PostgreSQLServer, mode: str = "transaction", size: int = 2) -> Iterator[PgBouncer]:
    """Yield a PgBouncer while it runs."""
    bouncer = PgBouncer(server, mode, size)
    try:
        bouncer.process.start()
        yield bouncer
    finally:
        if bouncer.process.is_running:
            bouncer.process.stop()
        shutil.rmtree(bouncer.folder, ignore_errors=True)
