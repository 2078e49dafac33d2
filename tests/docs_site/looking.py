"""``python -m tests.docs_site.looking``: the built site in a real browser, as wide as a telephone, a tablet, a desk.

It reports pages that are wider than their screen and addresses that the browser asked beyond the site, and leaves a
picture of each page in build/pictures; those of ``KEPT`` go into docs/pictures.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.docs_site import terminal
from tests.docs_site.navigation import DOCS

SITE: Final = DOCS.parent / "build" / "site"
PICTURES: Final = DOCS.parent / "build" / "pictures"

WIDTHS: Final = {"telephone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900)}
PAGES: Final = (
    "index", "api", "backends/redis", "benchmarks", "cli", "common-mistakes", "django-admin", "faq", "in-production",
    "moving", "notebooks", "reference/cache", "tutorial/2-a-first-cache", "search",
)  # fmt: skip
#: (page, width, theme) -> its name in docs/pictures.
KEPT: Final = {
    ("index", "desk", "light"): "site-light.png",
    ("index", "desk", "dark"): "site-dark.png",
    ("index", "telephone", "light"): "site-telephone.png",
}
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--allow-file-access-from-files",
)  # fmt: skip


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Yield a browser with a profile of its own, which notes each address that it asks."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = shutil.which("chromium") or "chromium"
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        found = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield found
        finally:
            found.quit()


def asked(found: webdriver.Chrome) -> Iterator[str]:
    """Yield each address that the browser has asked since the last look, but files and data of the page itself."""
    for entry in found.get_log("performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("file:", "data:", "chrome:")):
                yield address


def look(found: webdriver.Chrome, page: str, width: str, theme: str) -> Iterator[str]:
    """Open a page, take its picture, and yield all that is wrong with it."""
    across, down = WIDTHS[width]
    metrics = {"width": across, "height": down, "deviceScaleFactor": 1, "mobile": width == "telephone"}
    found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    found.get(f"{(SITE / page).as_uri()}.html{'?q=timeout' if page == 'search' else ''}")
    found.execute_script(f"localStorage.setItem('theme', '{theme}'); document.body.dataset.theme = '{theme}'")
    if (wide := found.execute_script("return document.documentElement.scrollWidth")) > across:
        yield f"{page} at {width}: {wide} pixels wide, on a screen of {across}"
    yield from (f"{page}: asks {address}" for address in asked(found))
    picture = PICTURES / f"{page.replace('/', '-')}-{width}-{theme}.png"
    found.save_screenshot(str(picture))
    if kept := KEPT.get((page, width, theme)):
        shutil.copy2(picture, DOCS / "pictures" / kept)


def show(found: webdriver.Chrome, name: str) -> None:
    """Take a picture of commands and what they print, for docs/pictures."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(terminal.page_of(terminal.SHOWN[name], Path(folder)), "utf-8")
        metrics = {"width": 900, "height": 1600, "deviceScaleFactor": 1, "mobile": False}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        found.get(page.as_uri())
        found.find_element(By.TAG_NAME, "pre").screenshot(str(DOCS / "pictures" / name))


def main() -> None:
    """Look at each page at each width, light on even ones and dark on odd ones; at the first in both."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    with browser() as found:
        for name in terminal.SHOWN:
            show(found, name)
        for number, page in enumerate(PAGES):
            for width in WIDTHS:
                themes = ("light", "dark") if page == "index" else (("light", "dark")[number % 2],)
                for theme in themes:
                    wrong += look(found, page, width, theme)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
