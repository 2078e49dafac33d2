"""The surroundings of a configuration as `storeroom check` knows them: processes, mounts, Django."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from storeroom.checks import Context
from tests.unit.checks.configurations import BARE, SEVERAL, ids


@pytest.mark.parametrize(
    ("environ", "processes", "evidence"),
    [
        ({}, None, ""),
        ({}, 1, ""),
        ({}, 3, "3 processes serve the site"),
        ({"WEB_CONCURRENCY": "4"}, None, "WEB_CONCURRENCY is 4"),
        ({"WEB_CONCURRENCY": "4"}, 1, ""),
        ({"WEB_CONCURRENCY": "1"}, None, ""),
        ({"WEB_CONCURRENCY": "many"}, None, ""),
        ({"UWSGI_WORKERS": "2"}, None, "UWSGI_WORKERS is 2"),
        ({"GUNICORN_CMD_ARGS": "--bind 0.0.0.0 --workers=3"}, None, "GUNICORN_CMD_ARGS asks for 3 workers"),
        ({"GUNICORN_CMD_ARGS": "-w 5"}, None, "GUNICORN_CMD_ARGS asks for 5 workers"),
        ({"GUNICORN_CMD_ARGS": "-w5 -w 1"}, None, ""),
        ({"GUNICORN_CMD_ARGS": "--worker-class gthread"}, None, ""),
    ],
)
def test_several_processes_are_known_by_evidence(environ, processes, evidence):
    """Several processes are inferred from the environment, unless the number of processes is given."""
    assert Context.here(environ, processes=processes).several_processes == evidence


def test_this_machine_tells_mounts_and_user():
    """The context of this machine has the user's id and the mount points."""
    context = Context.here({})
    assert context.user_id == os.getuid()
    if Path("/proc/self/mounts").exists():
        assert Path("/proc") in context.mounts or Path("/") in context.mounts


def test_mount_points_are_unescaped(monkeypatch, tmp_path):
    """A mount point with an escaped space is read; broken lines and a missing file are skipped."""
    mounts = tmp_path / "mounts"
    mounts.write_text("host:/export /mnt/my\\040share nfs4 rw 0 0\nbroken line\n", "utf-8")
    monkeypatch.setattr("storeroom.checks.context._MOUNTS", mounts)
    assert Context.here({}).mounts[Path("/mnt/my share")] == "nfs4"
    monkeypatch.setattr("storeroom.checks.context._MOUNTS", tmp_path / "absent")
    assert Context.here({}).mounts == {}


def test_django_settings_are_evidence():
    """Django's settings give the sessions' alias, the served folders, and the hint at several processes."""
    settings = SimpleNamespace(
        DEBUG=False,
        INSTALLED_APPS=[],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
        SESSION_CACHE_ALIAS="sessions",
        MEDIA_ROOT="/srv/media-files",
        STATIC_ROOT=None,
        STATICFILES_DIRS=[Path("/srv/a"), ("prefix", "/srv/b")],
    )
    context = BARE.with_settings(settings)
    assert "DEBUG is False" in context.several_processes
    assert context.sessions_alias == "sessions"
    assert context.served_folders == {
        "MEDIA_ROOT": Path("/srv/media-files"),
        "STATICFILES_DIRS[0]": Path("/srv/a"),
        "STATICFILES_DIRS[1]": Path("/srv/b"),
    }
    assert context.in_django


def test_a_plain_module_is_no_evidence():
    """A module with nothing but CACHES leaves the context unchanged."""
    assert BARE.with_settings(SimpleNamespace(CACHES={})) == BARE


def test_stronger_evidence_stays():
    """A number of workers in the environment is kept when settings say DEBUG is False."""
    assert SEVERAL.with_settings(SimpleNamespace(DEBUG=False)).several_processes == "WEB_CONCURRENCY is 4"


def test_other_session_engines_keep_sessions_elsewhere():
    """A session engine other than cache gives no sessions alias."""
    settings = SimpleNamespace(SESSION_ENGINE="django.contrib.sessions.backends.cached_db")
    assert BARE.with_settings(settings).sessions_alias is None


def test_in_django_its_own_classes_are_not_ours():
    """Within Django, aliases on Django's own classes yield findings only where these are certain."""
    context = replace(BARE, in_django=True, several_processes="WEB_CONCURRENCY is 4")
    theirs = "django.core.cache.backends"
    caches = {
        "default": {"BACKEND": f"{theirs}.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRYS": 9}},
        "files": {"BACKEND": f"{theirs}.filebased.FileBasedCache", "LOCATION": "relative"},
        "table": {"BACKEND": f"{theirs}.db.DatabaseCache", "LOCATION": "t", "TIMEOUT": "wrong"},
    }
    assert ids(caches, context) == {"storeroom.W001"}
