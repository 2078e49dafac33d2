"""The picture of the dashboard: ``make dashboard`` writes docs/monitoring/dashboard.svg.

A program of three gunicorn workers serves requests from three caches, a real Prometheus scrapes it, and Redis is down
for a while. Then each panel's queries, as Grafana would ask them, are drawn with the answers. The drawing is no
screenshot of Grafana: the numbers are the exporter's, the lines are ours.
"""

import argparse
import json
import math
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.servers.prometheus import PrometheusServer, scraping
from tests.servers.redis import RedisServer, redis_binary

ROOT: Final = Path(__file__).parents[1]
MONITORING: Final = ROOT / "docs" / "monitoring"

_UNIT, _ROW, _GAP = 60, 30, 6  # pixels of a column and of a row of Grafana's grid, and between panels
_COLOURS: Final = (
    "#3b7dd8",
    "#d9822b",
    "#2f9e5f",
    "#c0392b",
    "#8e5bb5",
    "#7f6b4f",
    "#d65fa0",
    "#6b7785",
    "#a3a32b",
    "#2aa5b0",
)
_STEP: Final = 2  # seconds between two points of a line
_RATE: Final = "15s"

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


class Line(NamedTuple):
    """One series of a panel: its name, and moment and value of each point."""

    name: str
    points: list[tuple[float, float]]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=150, help="of load")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        program(Path(folder)) as (redis, address),
        scraping(Path(folder) / "prometheus", [address]) as server,
    ):
        begun = time.time()
        load(address, redis, args.seconds)
        picture = drawn(server, begun + 15, time.time())
    (MONITORING / "dashboard.svg").write_text(picture, "utf-8")


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


# The drawing ----------------------------------------------------------------------------------------


def lines_of(server: PrometheusServer, target: Mapping[str, Any], start: float, end: float) -> list[Line]:
    """Return the answer to a panel's query, as lines with the names that its legend gives them."""
    query = re.sub(r'(job|alias)=~"\$\w+"', r'\1=~".*"', target["expr"].replace("$__rate_interval", _RATE))
    found = server.ask("query_range", query=query, start=start, end=end, step=_STEP)["result"]
    lines = []
    for series in found:
        name = re.sub(
            r"{{(\w+)}}", lambda label, of=series: str(of["metric"].get(label[1], "")), target["legendFormat"]
        )
        points = [(float(moment), float(value)) for moment, value in series["values"]]
        lines.append(Line(name, [(moment, value) for moment, value in points if not math.isnan(value)]))
    return sorted(line for line in lines if line.points)


def drawn(server: PrometheusServer, start: float, end: float) -> str:
    """Return the dashboard as an SVG."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    parts, height = [], 0
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y, w, h = at["x"] * _UNIT, at["y"] * _ROW, at["w"] * _UNIT - _GAP, at["h"] * _ROW - _GAP
        height = max(height, y + h + _GAP)
        lines = [line for target in panel["targets"] for line in lines_of(server, target, start, end)]
        draw = _stat if panel["type"] == "stat" else _chart
        inside = draw(lines, panel["fieldConfig"]["defaults"], w, h, (start, end))
        frame = f'<rect width="{w}" height="{h}" rx="3" class="panel"/><text x="10" y="18" class="title">'
        parts.append(
            f'<g transform="translate({x + _GAP} {y + _GAP})">{frame}{escape(panel["title"])}</text>{inside}</g>'
        )
    width = 24 * _UNIT + _GAP
    style = (
        "text{font:11px sans-serif;fill:#333}.title{font-weight:bold;font-size:12px}.big{font-size:34px}"
        ".panel{fill:#fff;stroke:#d5d9de}.grid{stroke:#e8eaed}path{fill:none;stroke-width:1.4}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + _GAP}">'
    body = "\n".join(parts)
    return f'{head}\n<style>{style}</style>\n<rect width="100%" height="100%" fill="#f4f5f7"/>\n{body}\n</svg>\n'


def _stat(lines: Sequence[Line], defaults: Mapping[str, Any], w: int, h: int, span: tuple[float, float]) -> str:
    if not lines:
        return f'<text x="{w / 2}" y="{h / 2 + 14}" text-anchor="middle">no data</text>'
    value = _shown(lines[0].points[-1][1], defaults["unit"])
    top = max(1e-12, *(value for _, value in lines[0].points))
    path = _path(lines[0].points, span, (0, top), (0, h - 30, w, 26))
    text = f'<text x="{w / 2}" y="{h / 2 + 14}" text-anchor="middle" class="big">{value}</text>'
    return f'<path d="{path}" stroke="{_COLOURS[2]}" opacity="0.6"/>{text}'


def _chart(lines: Sequence[Line], defaults: Mapping[str, Any], w: int, h: int, span: tuple[float, float]) -> str:
    if not lines:
        return f'<text x="{w / 2}" y="{h / 2}" text-anchor="middle">no data</text>'
    columns = 3 if w > 400 else 2
    rows = -(-len(lines) // columns)
    box = 60, 30, w - 74, h - 46 - 14 * rows
    top = defaults.get("max") or 1.1 * max(value for line in lines for _, value in line.points) or 1.0
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = box[1] + box[3] * (1 - share)
        parts.append(f'<path class="grid" d="M{box[0]} {y:.1f}h{box[2]}"/>')
        parts.append(
            f'<text x="{box[0] - 5}" y="{y + 4:.1f}" text-anchor="end">{_shown(top * share, defaults["unit"])}</text>'
        )
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(f'<path d="{_path(line.points, span, (0, top), box)}" stroke="{colour}"/>')
        x, y = 12 + (number % columns) * (w - 20) / columns, h - 14 * (rows - number // columns) + 6
        parts.append(f'<path d="M{x:.0f} {y - 4:.0f}h10" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 14:.0f}" y="{y:.0f}">{escape(line.name)}</text>')
    return "".join(parts)


def _path(
    points: Sequence[tuple[float, float]], span: tuple[float, float], values: tuple[float, float],
    box: tuple[float, float, float, float],
) -> str:  # fmt: skip
    left, top, width, height = box
    commands, before = [], -1.0
    for moment, value in points:
        x = left + width * (moment - span[0]) / (span[1] - span[0])
        y = top + height * (1 - (value - values[0]) / (values[1] - values[0]))
        commands.append(f"{'L' if 0 <= moment - before <= 3 * _STEP else 'M'}{x:.1f} {y:.1f}")
        before = moment
    return "".join(commands)


def _shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    suffix = {"reqps": "/s", "cps": "/s", "Bps": "B/s", "bytes": "B"}.get(unit, "")
    scaled, prefix = (value / 1000, "k") if abs(value) >= 1000 else (value, "")
    return f"{scaled:.3g} {prefix}{suffix}".strip() if suffix else f"{scaled:.3g}{prefix}"


if __name__ == "__main__":
    main()
