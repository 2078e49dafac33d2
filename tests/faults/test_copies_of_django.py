"""Copies that Django stores and the cache refuses: sessions of its database, pages, parts of templates."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kinds import MEMCACHED, SITES, Site, kinds
from tests.servers.memcached import running

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, importlib, json, logging, os, sys
import django
from django.conf import settings

CACHES = json.loads(sys.argv[1])
settings.configure(
    SECRET_KEY="for tests only" * 3, CACHES=CACHES, INSTALLED_APPS=["django.contrib.sessions"], LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "sessions.sqlite3"}},
    ALLOWED_HOSTS=["testserver"], TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
from django.core.cache import caches
from django.core.management import call_command
from django.http import HttpResponse
from django.template import engines
from django.test import RequestFactory
from django.views.decorators.cache import cache_page

call_command("migrate", verbosity=0)
BIG = os.urandom(700_000).hex()
told = []
class Kept(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
for name in ("storeroom", "django"):
    logging.getLogger(name).addHandler(Kept())

def stores(engine):
    return importlib.import_module(f"django.contrib.sessions.backends.{engine}").SessionStore

def role(key, engine="cached_db"):
    return stores(engine)(key).get("role")

def outgrown(engine="cached_db"):
    session = stores(engine)()
    session["role"] = "admin"
    session.save()
    later = stores(engine)(session.session_key)
    later["role"] = "none"
    later["upload"] = BIG
    return later

async def aoutgrown():
    session = stores("cached_db")()
    await session.aset("role", "admin")
    await session.asave()
    later = stores("cached_db")(session.session_key)
    await later.aset("role", "none")
    await later.aset("upload", BIG)
    await later.asave()
    return [await stores("cached_db")(session.session_key).aget("role") for _ in range(2)]

def error_of(call, *args):
    try:
        call(*args)
    except Exception as error:
        return type(error).__name__

def look(alias):
    settings.SESSION_CACHE_ALIAS = alias
    cache = caches[alias]
    session = outgrown()
    session.save()
    seen = {"session": [role(session.session_key) for _ in range(2)], "asession": asyncio.run(aoutgrown())}
    seen["counted"] = cache.stats().unstored > 0
    del session["upload"]
    session.save()
    seen["shrunk"] = [role(session.session_key), cache.get(session.cache_key)]
    seen["told a key"] = any(session.session_key in message for message in told)
    alone = outgrown("cache")
    seen["alone"] = [error_of(alone.save), role(alone.session_key, "cache")]
    request = RequestFactory().get("/")
    page = cache_page(60, cache=alias)(lambda request: HttpResponse(BIG))
    seen["page"] = [page(request).content.decode() == BIG for _ in range(2)]
    text = "{% load cache %}{% cache 60 part using='" + alias + "' %}{{ big }}{% endcache %}"
    template = engines["django"].from_string(text)
    seen["part"] = [template.render({"big": BIG}) == BIG for _ in range(2)]
    cache.set("mine", "old")
    seen["mine"] = [error_of(cache.set, "mine", BIG), cache.get("mine")]
    return seen

def raising(alias):
    settings.SESSION_CACHE_ALIAS = alias
    session = outgrown()
    session.save()
    return error_of(role, session.session_key)

def page_of_documents(alias):
    def view(request):
        response = HttpResponse("page")
        response.made_by = view
        return response
    page = cache_page(60, cache=alias)(view)
    return page(RequestFactory().get("/")).content.decode(), error_of(caches[alias].set, "mine", view)

"""

#: The results of look() where the session, the page and the part are more than the cache takes.
SERVED = {
    "session": ["none", "none"],
    "asession": ["none", "none"],
    "counted": True,
    "shrunk": ["none", {"role": "none"}],
    "told a key": False,
    "alone": ["ValueTooLargeError", None],
    "page": [True, True],
    "part": [True, True],
    "mine": ["ValueTooLargeError", None],
}


def run(call: str, caches: dict[str, Any], directory: Path) -> Any:
    """Run a call in a Django project with these caches; return its result."""
    memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache"}
    ran = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}print(json.dumps({call}))", json.dumps({"default": memory, **caches})],
        cwd=directory, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def alias(backend: str, location: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": f"storeroom.backends.{backend}", "LOCATION": location, "OPTIONS": options}


def bounded(name: str, **options: Any) -> dict[str, Any]:
    """Return an alias of a storage in a folder, or in memory, that takes a megabyte."""
    backend, location = {
        "memory": ("locmem.LocMemCache", "copies"),
        "files": ("filebased.FileBasedCache", "files"),
        "table": ("db.DatabaseCache", "copies"),
        "near": ("filebased.FileBasedCache", "files with a near tier"),
    }[name]
    more: dict[str, Any] = {"table": {"url": "sqlite:///cache.sqlite3"}, "near": {"near": {}}}.get(name, {})
    return alias(backend, location, max_bytes="1MB", **more, **options)


@pytest.mark.parametrize("name", ["memory", "files", "table", "near"])
def test_answers_outlive_the_refusal_of_their_copy(name: str, tmp_path: Path) -> None:
    """A session, a page or a part of a template that is too large for the cache is served without, by both APIs."""
    assert run("look('copies')", {"copies": bounded(name)}, tmp_path) == SERVED


@pytest.fixture
def narrow(site: Site, kind: str) -> Iterator[dict[str, Any]]:
    """An alias on a server that takes a megabyte; a database's table has a bound."""
    if kind != "redis":
        yield alias("db.DatabaseCache", "copies_of_django", url=site.server.url(), max_bytes="1MB")
        return
    site.server.ask("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    try:
        yield alias("redis.RedisCache", f"redis://127.0.0.1:{site.server.port}/0")
    finally:
        site.server.ask("CONFIG", "SET", "proto-max-bulk-len", "512mb")


@kinds("redis", "postgresql", "mariadb")
def test_answers_outlive_the_refusal_of_their_copy_at_a_server(narrow: dict[str, Any], tmp_path: Path) -> None:
    """A server that refuses a copy, by its own limit or its table's, changes no answer either."""
    assert run("look('copies')", {"copies": narrow}, tmp_path) == SERVED


@pytest.mark.parametrize("kind", MEMCACHED)
def test_answers_outlive_the_refusal_of_their_copy_by_memcached(kind: str, tmp_path: Path) -> None:
    """Items over the limit of Memcached, a megabyte by default, change no answer either."""
    with running(tmp_path / "server", 1, "-I", "1m", by_port=True) as servers:
        cache = alias(f"memcached.{SITES[kind].backend.__name__}", servers.servers[0].location)
        assert run("look('copies')", {"copies": cache}, tmp_path) == SERVED


def test_refusal_of_a_copy_is_an_error_where_that_is_asked_for(tmp_path: Path) -> None:
    """With on_unstorable of "raise" a session that is too large raises, as any other value does."""
    caches = {"copies": bounded("memory", on_unstorable="raise")}
    assert run("raising('copies')", caches, tmp_path) == "ValueTooLargeError"


@pytest.mark.parametrize("serializer", ["json", "msgpack"])
def test_page_that_cannot_be_serialized_is_served(serializer: str, tmp_path: Path) -> None:
    """A page with a function in it, or no document, is sent all the same; any other value raises as ever."""
    caches = {"copies": alias("locmem.LocMemCache", "copies")}
    caches["files"] = alias("filebased.FileBasedCache", "files", serializer=serializer)
    caches["table"] = alias("db.DatabaseCache", "copies", url="sqlite:///cache.sqlite3", serializer=serializer)
    seen = run("[page_of_documents(name) for name in ('copies', 'files', 'table')]", caches, tmp_path)
    assert seen == [["page", "SerializationError"]] * 3
