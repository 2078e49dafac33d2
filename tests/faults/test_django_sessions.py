"""Django's sessions in a cache whose server is out of reach, or full: a project of Django's own engines."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kinds import KINDS, Site, kinds

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, json, sys
import django
from django.conf import settings
settings.configure(**json.loads(sys.argv[1]))
django.setup()
from django.contrib.sessions.backends import cache, cached_db
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.cache import caches
from django.core.management import call_command
from django.http import HttpResponse
from django.test import RequestFactory

class Own(cache.SessionStore):
    cache_key_prefix = "sessions of this site "

ENGINES = {"cache": cache.SessionStore, "own": Own, "cached_db": cached_db.SessionStore}

def save(kind, mode):
    store = kind()
    if mode == "sync":
        store["user"] = 7
        store.save()
    else:
        async def work():
            await store.aset("user", 7)
            await store.asave()
        asyncio.run(work())
    return store.session_key

def attempt(alias, engine, mode):
    settings.SESSION_CACHE_ALIAS, kind = alias, ENGINES[engine]
    count = lambda: getattr(caches[alias], "engine").counters.errors
    before = count()
    try:
        answer = dict(kind(save(kind, mode)).items())
    except Exception as error:
        answer = [each.__name__ for each in type(error).__mro__]
    return answer, count() - before

def visit(engine, key):
    settings.SESSION_CACHE_ALIAS, settings.SESSION_ENGINE = "default", f"django.contrib.sessions.backends.{engine}"
    request = RequestFactory().get("/")
    request.COOKIES["sessionid"] = key
    response = SessionMiddleware(lambda request: HttpResponse(str(request.session.get("user"))))(request)
    return response.content.decode(), "sessionid" in response.cookies

call_command("migrate", verbosity=0)
settings.SESSION_CACHE_ALIAS = "default"
keys = {engine: save(ENGINES[engine], "sync") for engine in ("cache", "cached_db")}
print(json.dumps({engine: visit(engine, key) for engine, key in keys.items()}), flush=True)
sys.stdin.readline()
aliases = [alias for alias in settings.CACHES if alias != "memory"]
print(json.dumps({
    "attempts": [
        (alias, engine, mode, *attempt(alias, engine, mode))
        for mode in ("sync", "async") for alias in aliases for engine in ENGINES
    ],
    "visits": {engine: visit(engine, key) for engine, key in keys.items()},
}))
"""

MEMORY = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "memory"}

#: The name of a cache -> its policy, for those on the server itself.
POLICIES = {
    "default": "miss",
    "counts": {"count": "none", "whole": "miss"},
    "raise": "raise",
    "falls": "fallback:memory",
}


def alias_on(site: Site, **options: Any) -> dict[str, Any]:
    """Return an alias of CACHES on a site's server."""
    kind, port = type(site.cache()), site.server.port
    location = f"127.0.0.1:{port}"
    if kind.__name__ == "RedisCache":
        location = f"redis://{location}/0"
    if kind.__name__ == "DatabaseCache":
        location, options = "cache", {**options, "url": site.server.url()}
    path = f"{kind.__module__}.{kind.__qualname__}"
    return {"BACKEND": path, "LOCATION": location, "KEY_PREFIX": f"{site.prefix}-sessions", "OPTIONS": options}


def caches_on(site: Site) -> dict[str, Any]:
    """Return CACHES: a site's server by each policy, and as the storage behind a tier."""
    made = {name: alias_on(site, on_error=policy) for name, policy in POLICIES.items()}
    tiered = {"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {"tiers": ["memory", "default"]}}
    return {**made, "memory": MEMORY, "tiered": tiered}


@contextmanager
def project(directory: Path, caches: Any) -> Iterator[tuple[Any, Callable[[], Any]]]:
    """Run the program; yield its first answers, and a function that lets it go on and returns the others."""
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "site.sqlite3")}
    written = {
        "SECRET_KEY": "for tests only" * 3, "CACHES": caches, "DATABASES": {"default": database},
        "INSTALLED_APPS": ["django.contrib.sessions"], "ALLOWED_HOSTS": ["*"], "USE_TZ": True,
    }  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(written)],
        cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    first = program.stdout.readline()

    def rest() -> Any:
        told, errors = program.communicate("\n", timeout=120)
        assert program.returncode == 0, errors
        return json.loads(told)

    try:
        yield json.loads(first or "null"), rest
    finally:
        program.kill()
        _, errors = program.communicate()
        assert first, errors


@kinds(*KINDS)
def test_a_new_session_fails_once_in_an_outage(site: Site, tmp_path: Path) -> None:
    """It raises after a few operations, and not after ten thousand; Django's own kind of error among its classes.

    With a fallback, and with the engine that keeps sessions in the database too, it is stored.
    """
    try:
        with project(tmp_path, caches_on(site)) as (before, rest):
            assert before == {"cache": ["7", False], "cached_db": ["7", False]}
            site.kill()
            found = rest()
    finally:
        site.start()
    for alias, engine, mode, answer, errors in found["attempts"]:
        case = alias, engine, mode
        if alias == "falls" or (engine == "cached_db" and alias != "raise"):
            assert answer == {"user": 7}, case
        else:
            assert "UnreachableError" in answer, (case, answer)
            assert ("RuntimeError" in answer) == (alias != "raise"), (case, answer)
        assert errors < 20, case
    assert found["visits"] == {"cache": ["None", True], "cached_db": ["7", False]}, "who reads is logged out"


@kinds("redis")
def test_a_new_session_fails_once_on_a_full_server(site: Site, tmp_path: Path) -> None:
    """A server that has no room for a session is not asked ten thousand times."""
    theirs = {**alias_on(site), "BACKEND": "storeroom.integrations.django_redis.RedisCache"}
    caches = {**caches_on(site), "django-redis": {**theirs, "OPTIONS": {"IGNORE_EXCEPTIONS": True}}}
    del caches["falls"]  # it is not asked, as the server is there
    with project(tmp_path, caches) as (_, rest):
        site.server.ask("CONFIG", "SET", "maxmemory", "1")
        before = site.server.ask("INFO", "commandstats")
        try:
            found = rest()
        finally:
            after = site.server.ask("INFO", "commandstats")
            site.server.ask("CONFIG", "SET", "maxmemory", "0")
    for alias, engine, mode, answer, errors in found["attempts"]:
        case = alias, engine, mode
        if engine == "cached_db" and alias != "raise":
            assert answer == {"user": 7}, case
        elif engine != "cached_db":
            assert "StorageError" in answer, (case, answer)
        assert errors < 20, case
    assert calls(after) - calls(before) < 1000


def calls(stats: Any) -> int:
    """Return the number of commands that a server has carried out, by its own statistics."""
    text = stats.decode() if isinstance(stats, bytes) else str(stats)
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in text.splitlines() if "calls=" in line)


@kinds("redis")
def test_django_rediss_class_tells_a_session_apart(site: Site, tmp_path: Path) -> None:
    """With IGNORE_EXCEPTIONS add() answers None in an outage; a session's is an error."""
    ours = {**alias_on(site), "BACKEND": "storeroom.integrations.django_redis.RedisCache"}
    caches = {"default": {**ours, "OPTIONS": {"IGNORE_EXCEPTIONS": True}}, "raise": ours, "memory": MEMORY}
    try:
        with project(tmp_path, caches) as (_, rest):
            site.kill()
            found = rest()
    finally:
        site.start()
    for alias, engine, mode, answer, errors in found["attempts"]:
        case = alias, engine, mode
        if engine == "cached_db" and alias == "default":
            assert answer == {"user": 7}, case
        elif engine != "cached_db":
            assert "UnreachableError" in answer, (case, answer)
            assert ("RuntimeError" in answer) == (alias != "raise"), (case, answer)
        assert errors < 20, case
