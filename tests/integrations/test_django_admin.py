"""The caches in Django's admin: the tests of a project with one, by Django's runner, in a browser, too.

``python -m tests.integrations.test_django_admin`` takes the pictures of the documentation anew.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.servers.process import binary, free_port
from tests.servers.redis import Databases, redis_databases

__all__ = ["redis_databases"]

pytestmark = pytest.mark.slow

SITE = Path(__file__).parent / "django_admin_site"
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"

#: A browser that nobody looks at, and that talks to none but the page it was sent to.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars --window-size=1280,900"
)


def run(folder: Path, *tests: str, redis: str = "redis://127.0.0.1:1") -> None:
    """Run tests of the project, none of which may fail."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", *tests],
        cwd=SITE,
        env=os.environ
        | {
            "PYTHONPATH": str(SITE),
            "DJANGO_SETTINGS_MODULE": "admin_site_settings",
            "SITE_FOLDER": str(folder),
            "SITE_REDIS": redis,
            "SITE_PORT": str(free_port()),
            "SITE_PICTURES": str(PICTURES),
            "SITE_BROWSER": binary("chromium", "Debian: chromium"),
            "SITE_DRIVER": binary("chromedriver", "Debian: chromium-driver"),
            "SITE_BROWSER_FLAGS": f"{FLAGS} --user-data-dir={folder}/browser",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0, output
    assert "\nOK" in output, output


def test_the_pages_do_what_they_say_and_nothing_for_others(tmp_path: Path, redis_databases: Databases) -> None:
    """All tests of the project pass: those by Django's client, and those in a browser."""
    run(tmp_path, "admin_site_tests", "admin_site_browser", redis=redis_databases.url())


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), "admin_site_pictures")
