"""Prometheus, a real one, which scrapes exporters of a test."""

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, binary, free_port

_CONFIG = """
global: {{scrape_interval: {interval}, scrape_timeout: {interval}}}
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: {targets}}}]
"""


class PrometheusServer:
    """One server, with its data in a folder of its own."""

    def __init__(self, directory: Path, targets: Sequence[str], interval: str) -> None:
        program = binary("prometheus", "Debian: prometheus")
        self.folder = new_folder()
        self.port = free_port()
        config = self.folder / "prometheus.yml"
        config.write_text(_CONFIG.format(interval=interval, targets=json.dumps(list(targets))))
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=error",
        ]
        self.process = ServerProcess(command, directory, self.answers, self.folder)

    def stop(self) -> None:
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer of the API.

        Raises:
            ValueError: the query is wrong; the message is the server's.
        """
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                told: Mapping[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error
        return told["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the results of an expression now."""
        results: list[Any] = self.ask("query", query=expression)["result"]
        return results

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def scraping(directory: Path, targets: Sequence[str], interval: str = "1s") -> Iterator[PrometheusServer]:
    """Yield a server that scrapes these addresses, while it runs."""
    server = PrometheusServer(directory, targets, interval)
    try:
        server.process.start()
        yield server
    finally:
        server.stop()
