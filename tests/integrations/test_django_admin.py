"""The caches in Django's admin: the tests of a project with one, by Django's runner, in a browser, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.process import binary, free_port

pytestmark = pytest.mark.slow

SITE = Path(__file__).parent / "django_admin_site"

#: A browser that nobody looks at, and that talks to none but the page it was sent to.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync --hide-scrollbars --window-size=1280,900"
)


def test_admin_pages(tmp_path: Path) -> None:
    """All tests of the project pass: those by Django's client, and those in a browser."""
    browser = binary("chromium", "Debian: chromium")
    driver = binary("chromedriver", "Debian: chromium-driver")
    ran = subprocess.run(
        [
            *(
                sys.executable,
                "-W",
                "error",
                "-m",
                "django",
                "test",
                "--settings",
                "admin_site_settings",
                "admin_site_tests",
            )
        ],
        cwd=SITE,
        env=os.environ
        | {
            "PYTHONPATH": str(SITE),
            "DJANGO_SETTINGS_MODULE": "admin_site_settings",
            "SITE_FOLDER": str(tmp_path),
            "SITE_PORT": str(free_port()),
            "SITE_BROWSER": browser,
            "SITE_DRIVER": driver,
            "SITE_BROWSER_FLAGS": f"{FLAGS} --user-data-dir={tmp_path}/browser",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = ran.stdout + ran.stderr
    assert ran.returncode == 0, output
    assert "\nOK" in output, output
