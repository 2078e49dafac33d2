"""Django's page cache: the tests of a project whose pages are stored, by Django's runner."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SITE = Path(__file__).parent / "django_pages_site"


@pytest.mark.parametrize("module", ["pages_tests", "fragment_tests"])
def test_pages_of_a_project(module: str) -> None:
    """None of its tests fails."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", module],
        cwd=SITE,
        env=os.environ | {"PYTHONPATH": str(SITE), "DJANGO_SETTINGS_MODULE": "pages_settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
