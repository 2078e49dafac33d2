"""``python -m tests.http_suite`` (``make http``): http-cache-tests against the ASGI door, on a real uvicorn.

The result of each test is held against expected.json, which names those that fail, and why. About 20 seconds.
"""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import Any

from tests.http_suite import HERE, PACKAGES, node
from tests.servers.folders import new_folder
from tests.servers.process import ServerProcess, free_port

KINDS = ("required", "optimal", "check")


def run() -> list[dict[str, Any]]:
    """Return what the suite tells of each test."""
    suite, port, suite_port = PACKAGES / "node_modules/http-cache-tests", free_port(), free_port()
    environment = {
        "SUITE": str(suite), "SUITE_PORT": str(suite_port), "npm_config_protocol": "http",
        "npm_config_port": str(suite_port), "npm_config_pidfile": os.devnull,
    }  # fmt: skip
    commands = (
        ([node(), "--no-warnings", str(HERE / "server.mjs")], suite_port),
        (
            [sys.executable, "-m", "uvicorn", "--http", "h11", "--no-date-header", "--no-server-header", "--port",
             str(port), "--log-level", "error", "tests.http_suite.origin:app"],
            port,
        ),
    )  # fmt: skip
    processes: list[ServerProcess] = []
    os.environ |= environment
    os.environ["PYTHONPATH"] = str(HERE.parents[1])
    try:
        for command, listens in commands:
            folder = new_folder()
            processes.append(ServerProcess(command, folder, partial(_answers_on, listens), folder))
            processes[-1].start()
        client = [node(), "--no-warnings", str(HERE / "run.mjs"), f"http://127.0.0.1:{port}"]
        told = subprocess.run(client, capture_output=True, text=True, check=True, timeout=600).stdout
    finally:
        for process in processes:
            process.stop()
    results: list[dict[str, Any]] = json.loads(told.splitlines()[-1])
    return results


def _answers_on(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Run the suite, print its results by kind, and return 1 if one is not as expected."""
    results = run()
    total, passed = (
        Counter(result["kind"] for result in results),
        Counter(result["kind"] for result in results if result["passed"]),
    )
    for kind in KINDS:
        print(f"{kind:9} {passed[kind]:4} of {total[kind]}")
    expected = json.loads((HERE / "expected.json").read_text("utf-8"))
    failed = {result["id"]: result["told"] for result in results if not result["passed"] and result["kind"] != "check"}
    for name, told in sorted(failed.items()):
        print(f"{'as expected' if name in expected else 'FAILED':12} {name}: {told[1]}  {expected.get(name, '')}")
    for name in sorted(set(expected) - set(failed)):
        print(f"passes now   {name}: take it out of expected.json")
    return int(set(failed) != set(expected))


if __name__ == "__main__":
    sys.exit(main())
