"""A cache in files, and a way to run commands on it in this process."""

import os

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.cli import main


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """Nothing is configured, and nothing around tells of several processes; the working directory is empty."""
    for name in [*os.environ]:
        if name.startswith(("CACHE_URL", "STOREROOM_", "DJANGO_", "GUNICORN_", "UWSGI_")) or name == "WEB_CONCURRENCY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def url(tmp_path):
    """A file cache, as --config takes it."""
    return f"file://{tmp_path}/cache?max_entries=10000"


@pytest.fixture
def cache(tmp_path):
    """The same cache, as a program opens it."""
    return FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 10_000}})


@pytest.fixture
def run(url, capsys):
    """Run a command on the cache in this process; return exit code, output and errors."""

    def run(*arguments, config=None):
        code = main([*arguments, "--config", config or url])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
