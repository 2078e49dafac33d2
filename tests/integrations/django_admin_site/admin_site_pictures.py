"""Pictures of the pages for the documentation, light and dark: ``python -m tests.integrations.test_django_admin``."""

import os
import random
import time
from pathlib import Path

from admin_site_browser import Browsing
from admin_site_settings import CACHES, FOLDER
from admin_site_tests import url, user
from django.contrib import admin
from django.core.cache import caches
from django.test import override_settings

from storeroom.integrations.django import history
from storeroom.testing import FakeClock

MINUTES = 75
SITE = {
    "default": CACHES["default"],
    "pages": {**CACHES["pages"], "LOCATION": str(FOLDER / "pictures"), "OPTIONS": {"MAX_ENTRIES": 3_000}},
    "prices": {**CACHES["shared"], "LOCATION": f"sqlite:///{FOLDER}/pictures.sqlite3"},
    "sessions": CACHES["sessions"],
    "search": CACHES["down"],
}


def serve(numbers: random.Random, visits: int) -> None:
    """Serve some visits of a shop."""

    def load() -> dict[str, object]:
        time.sleep(0.002)
        return {"name": "Ada", "title": "<b>Countess</b>", "orders": list(range(20))}

    for _ in range(visits):
        item = int(numbers.paretovariate(0.7))
        caches["pages"].get_or_set(f"page:/item/{item}", load, 900, tags=["pages"])
        caches["pages"].get_or_set(f"user:{item % 211}", load, 300, tags=["users", f"user:{item % 211}"])
        caches["default"].get_or_set(f"menu:{item % 17}", load, 120)
        caches["prices"].get_or_set(f"price:{item % 97}", load, 600)


@override_settings(CACHES=SITE)
class Pictures(Browsing):
    """Each page in both themes."""

    def test_take_pictures(self) -> None:
        """They are written into the folder that SITE_PICTURES names."""
        user("root", is_superuser=True)
        admin.site.enable_nav_sidebar = False
        numbers = random.Random(7)
        with FakeClock() as clock:
            for minute in range(MINUTES):
                serve(numbers, 25 + 20 * (minute % 30 > 20) + numbers.randrange(12))
                if minute == 45:
                    caches["pages"].invalidate_tags("pages")
                history.note_all([caches["pages"], caches["default"], caches["prices"]])
                clock.advance(60)
            caches["pages"].set("user:7", {"name": "Ada", "orders": [1815, 1852]}, 300, tags=["users", "user:7"])
            clock.advance(12)
            self.open(url("changelist"))
            self.log_in("root")
            for theme in ("light", "dark"):
                feature = {"name": "prefers-color-scheme", "value": theme}
                self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
                for name, address, height in (
                    ("list", url("changelist"), 600),
                    ("cache", url("change", "pages"), 1250),
                    ("entry", url("entry", "pages", key="user:7"), 940),
                ):
                    self.browser.set_window_size(1060, height)
                    self.open(address)
                    path = Path(os.environ["SITE_PICTURES"], f"django-admin-{name}-{theme}.png")
                    assert self.browser.save_screenshot(str(path))
