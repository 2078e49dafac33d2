"""``make dashboard`` writes docs/monitoring/dashboard.png: the dashboard on a program under load.

A program of three gunicorn workers serves requests from three caches, a real Prometheus scrapes it, and Redis is down
for a while. Then Grafana's own components show the dashboard's JSON with that Prometheus's answers.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.dashboard import ROOT, grafana
from tests.servers.prometheus import scraping
from tests.servers.redis import RedisServer, redis_binary

PROGRAM: Final = """
import random, time, storeroom
from prometheus_client import CollectorRegistry, make_wsgi_app
from storeroom.integrations.prometheus import StoreroomCollector

storeroom.configure({
    "default": {
        "BACKEND": "storeroom.backends.redis.RedisCache", "LOCATION": "REDIS", "TIMEOUT": 20,
        "OPTIONS": {"shared_stats": True, "socket_timeout": 0.2, "socket_connect_timeout": 0.2},
    },
    "pages": {
        "BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": "pages",
        "OPTIONS": {"max_entries": 150, "near": {"max_entries": 60}},
    },
    "fragments": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "TIMEOUT": 15, "OPTIONS": {"max_entries": 100}},
})
registry = CollectorRegistry()
registry.register(StoreroomCollector())
metrics = make_wsgi_app(registry)

def compute(seconds, value):
    time.sleep(seconds * random.uniform(0.5, 1.5))
    if random.random() < 0.02:
        raise RuntimeError("the database is busy")
    return value

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    user, page = environ["PATH_INFO"].strip("/").split("/")
    caches = storeroom.caches
    try:
        caches["default"].get_or_set(f"user:{user}", lambda: compute(0.004, {"name": user * 20}))
        caches["default"].get(f"session:{user}")
        caches["default"].set(f"session:{user}", {"page": page})
        caches["pages"].get_or_set(f"page:{page}", lambda: compute(0.008, "<html>" * 500))
        caches["fragments"].get_or_set(f"menu:{int(user) % 40}", lambda: compute(0.002, "<nav>"))
        if int(user) % 9 == 0:
            caches["pages"].delete(f"page:{page}")
        start_response("200 OK", [])
    except RuntimeError:
        start_response("500 Internal Server Error", [])
    return [b"done"]
"""


def main() -> None:
    """Check the dashboard, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=240, help="of load")
    args = parser.parse_args()
    grafana.check()
    grafana.build()
    with (
        tempfile.TemporaryDirectory() as folder,
        program(Path(folder)) as (redis, address),
        scraping(Path(folder) / "prometheus", [address]) as server,
    ):
        begun = time.time()
        load(address, redis, args.seconds)
        grafana.draw(f"http://127.0.0.1:{server.port}", begun + grafana.WINDOW, time.time())


@contextmanager
def program(folder: Path) -> Iterator[tuple[RedisServer, str]]:
    """Yield a Redis server, and the address of the program that uses it."""
    redis = RedisServer(redis_binary(), folder / "redis")
    redis.start()
    (folder / "shop.py").write_text(PROGRAM.replace("REDIS", f"redis://127.0.0.1:{redis.port}/0"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environ = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "gunicorn", "shop:app", "--workers", "3", "--bind", address]
    process = subprocess.Popen([*command, "--log-level", "error"], cwd=folder, env=environ)
    try:
        yield redis, address
    finally:
        process.terminate()
        process.wait(30)
        redis.stop()


def load(address: str, redis: RedisServer, seconds: int) -> None:
    """Ask for pages for so long, by four clients; let Redis be down for a tenth of that."""
    until = time.monotonic() + seconds

    def client(seed: int) -> None:
        drawn = random.Random(seed)
        while time.monotonic() < until:
            user, page = int(drawn.paretovariate(0.8)) % 400, int(drawn.paretovariate(0.6)) % 1500
            try:
                urllib.request.urlopen(f"http://{address}/{user}/{page}", timeout=10).close()
            except (urllib.error.HTTPError, OSError):  # a failed computation; or it is starting
                time.sleep(0.05)
            time.sleep(0.03)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(4)]
    for thread in clients:
        thread.start()
    time.sleep(seconds * 0.6)
    redis.process.stop()
    time.sleep(seconds * 0.1)
    redis.start()
    for thread in clients:
        thread.join()


if __name__ == "__main__":
    main()
