"""A worker of gunicorn that is set up as the page says does not start with a wrong configuration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_runner import blocks_of

PAGE = Path(__file__).parents[2] / "docs" / "in-production.md"

APPLICATION = """
def app(environ, start_response):
    return []
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn runs on POSIX alone")
def test_a_wrong_alias_ends_the_worker_when_it_starts(tmp_path):
    """The error has alias, key and remedy, and gunicorn ends, before any request."""
    (block,) = [block for block in blocks_of(PAGE) if block.file_name == "gunicorn_conf.py"]
    (tmp_path / "gunicorn_conf.py").write_text(block.text)
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "caches.toml").write_text(
        '[caches.default]\nBACKEND = "storeroom.backends.locmem.LocMemCache"\nTIMEOUT = "5 minuets"\n'
    )
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "--bind", "127.0.0.1:0", "shop:app"]
    environment = os.environ | {"STOREROOM_CONFIG": "caches.toml"}
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 3, ran.stderr  # gunicorn's code for a worker that does not boot
    assert "['default']['TIMEOUT'] is '5 minuets'" in ran.stderr
    assert "expected" in ran.stderr
