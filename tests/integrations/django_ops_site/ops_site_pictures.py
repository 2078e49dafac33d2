"""Pictures for the documentation: ``python -m tests.integrations.test_django_ops``."""

import html
import os
import subprocess
import sys
from pathlib import Path

from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import caches
from django.test import override_settings
from ops_site_settings import FOLDER, OURS
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

#: Seconds that the panel may take.
PATIENCE = 30.0

ROWS = "return document.getElementById('djDebugRoot').shadowRoot.querySelectorAll('#StoreroomPanel tbody tr').length"

#: A project with mistakes in it, as its owner has written it.
MISTAKES = f"""
from ops_site_settings import *
CACHES = {{
    "default": {{
        "BACKEND": "{OURS}.filebased.FileBasedCache",
        "LOCATION": "/var/cache/shop",
        "OPTIONS": {{"max_entrys": 100_000}},
    }},
    "pages": {{"BACKEND": "{OURS}.filebased.FileBasedCache", "LOCATION": "/var/cache/shop-pages"}},
}}
SESSION_CACHE_ALIAS = "pages"
"""

TERMINAL = """<body style="margin: 0; background: #1e1e24; color: #e8e8ea; font: 14px/1.45 monospace">
<pre style="margin: 0; padding: 18px; white-space: pre-wrap; font: inherit">{}</pre></body>"""


class Pictures(StaticLiveServerTestCase):
    """The panel, and the output of manage.py check."""

    def setUp(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = os.environ["SITE_BROWSER"]
        for flag in os.environ["SITE_BROWSER_FLAGS"].split():
            options.add_argument(flag)
        self.browser = webdriver.Chrome(options, webdriver.ChromeService(os.environ["SITE_DRIVER"]))
        self.addCleanup(self.browser.quit)

    def take(self, name: str, height: int) -> None:
        """Save what the window shows, as high as a page is."""
        frame = self.browser.execute_script("return window.outerHeight - window.innerHeight")
        self.browser.set_window_size(1060, height + frame)
        assert self.browser.save_screenshot(str(Path(os.environ["SITE_PICTURES"], f"{name}.png")))

    @override_settings(DEBUG=True)
    def test_the_panel(self) -> None:
        """Opened by a click, as a developer does."""
        caches["files"].clear()
        self.browser.set_window_size(1060, 720)
        self.browser.get(f"{self.live_server_url}/calls/?alias=files")
        root = WebDriverWait(self.browser, PATIENCE).until(
            lambda browser: browser.find_element(By.ID, "djDebugRoot").shadow_root
        )
        handle = root.find_element(By.ID, "djShowToolBarButton")
        if handle.is_displayed():
            handle.click()
        root.find_element(By.CSS_SELECTOR, "a.StoreroomPanel").click()
        WebDriverWait(self.browser, PATIENCE).until(lambda browser: browser.execute_script(ROWS) > 1)
        self.take("django-toolbar-panel", 680)

    def test_the_checks(self) -> None:
        """What the command has written, as a terminal shows it."""
        (FOLDER / "mistakes.py").write_text(MISTAKES)
        ran = subprocess.run(
            [sys.executable, "-m", "django", "check", "--no-color", "--tag", "caches", "--settings", "mistakes"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(FOLDER), os.environ["PYTHONPATH"]])},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        text = "$ python manage.py check\n" + (ran.stdout + ran.stderr).expandtabs(4)
        (FOLDER / "checks.html").write_text(TERMINAL.format(html.escape(text)))
        self.browser.set_window_size(1060, 720)
        self.browser.get((FOLDER / "checks.html").as_uri())
        height = self.browser.execute_script("return document.querySelector('pre').offsetHeight")
        self.take("django-checks", height)
