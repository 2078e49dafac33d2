"""Storeroom in the operation of a Django site: checks, commands, debug toolbar, Sentry, middleware, sessions.

The tests are those of a project, by Django's runner. ``python -m tests.integrations.test_django_ops`` takes the
pictures of the documentation anew.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integrations.test_django_admin import FLAGS, PICTURES
from tests.servers.process import binary, free_port
from tests.servers.redis import Databases, redis_databases

__all__ = ["redis_databases"]

pytestmark = pytest.mark.slow

SITE = Path(__file__).parent / "django_ops_site"


def run(
    folder: Path, *command: str, redis: str = "redis://127.0.0.1:1", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the project."""
    site = {
        "PYTHONPATH": str(SITE),
        "DJANGO_SETTINGS_MODULE": "ops_site_settings",
        "SITE_FOLDER": str(folder),
        "SITE_REDIS": redis,
        "SITE_PORT": str(free_port()),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", *command],
        cwd=folder, env=os.environ | site | more, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_project_passes_its_tests(tmp_path: Path, redis_databases: Databases) -> None:
    """All of them: see the modules of the project."""
    ran = run(tmp_path, "test", "ops_site_tests", "ops_site_watched", redis=redis_databases.url())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "\nOK" in ran.stderr


def test_the_command_line_ends_with_the_codes_of_storeroom(tmp_path: Path) -> None:
    """Options of Django's and of Storeroom's may stand in any order; what is printed goes where it belongs."""
    stored = run(tmp_path, "storeroom", "set", "greeting", "hello", "--alias", "files")
    assert (stored.returncode, stored.stderr) == (0, "")
    read = run(tmp_path, "storeroom", "--alias", "files", "get", "greeting", "--settings", "ops_site_settings")
    assert (read.returncode, read.stdout, read.stderr) == (0, "hello\n", "")
    absent = run(tmp_path, "storeroom", "get", "absent", "--alias=files")
    assert (absent.returncode, absent.stdout) == (1, "")
    assert "absent" in absent.stderr
    assert run(tmp_path, "storeroom", "nonsense").returncode == 2
    checked = run(tmp_path, "check", "--deploy", "--tag", "caches")
    assert checked.returncode == 1
    assert "(storeroom.E007) A server is out of reach." in checked.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        browsing = {
            "SITE_PICTURES": str(PICTURES),
            "SITE_BROWSER": binary("chromium", "Debian: chromium"),
            "SITE_DRIVER": binary("chromedriver", "Debian: chromium-driver"),
            "SITE_BROWSER_FLAGS": f"{FLAGS} --user-data-dir={name}/browser",
        }
        taken = run(Path(name), "test", "ops_site_pictures", **browsing)
        sys.exit(taken.returncode and taken.stdout + taken.stderr)
