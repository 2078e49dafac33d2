"""In Django an error names the alias, though Django does not tell a class which alias it is made for."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.databases import mariadb, postgresql
from tests.servers.memcached import memcached, needs_pylibmc
from tests.servers.redis import redis_databases

__all__ = ["mariadb", "memcached", "postgresql", "redis_databases"]

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, json, sys
import django
from django.conf import settings
settings.configure(SECRET_KEY="for tests only" * 3)
django.setup()
from django.core.cache import caches
from django.test import override_settings

alias, away = json.loads(sys.argv[1])
told = {}

def tell(name, use, alias):
    # Two others of the same class: the one in question is told from them.
    others = {"default": {**alias, "KEY_PREFIX": "d"}, "other": {**alias, "OPTIONS": dict(alias["OPTIONS"])}}
    with override_settings(CACHES={**others, "pages": alias}):
        try:
            told[name] = repr(use())
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"

tell("an option", lambda: caches["pages"], {**alias, "OPTIONS": {**alias["OPTIONS"], "jiter": 1}})
tell("a value", lambda: caches["pages"], {**alias, "TIMEOUT": "soon"})
tell("a setting", lambda: caches["pages"], {**alias, "KEY_PREFIXX": ""})
tell("not storable", lambda: caches["pages"].set("shop", lambda: 1), alias)
tell("anot storable", lambda: asyncio.run(caches["pages"].aset("shop", lambda: 1)), alias)
tell("many not storable", lambda: caches["pages"].set_many({"shop": lambda: 1}), alias)
tell("not added", lambda: caches["pages"].add("shop", lambda: 1), alias)
tell("too large", lambda: caches["pages"].set("shop", "x" * 3_000_000), alias)
for name, call in {
    "get": lambda: caches["pages"].get("shop"), "aget": lambda: asyncio.run(caches["pages"].aget("shop")),
    "set": lambda: caches["pages"].set("shop", 1), "lock": lambda: caches["pages"].lock("shop").acquire(),
}.items():
    if away:
        tell(name, call, away)
print(json.dumps(told))
"""

DATABASE = "storeroom.backends.db.DatabaseCache"
REFUSED = {"not storable", "anot storable", "many not storable", "not added", "too large"}
CONFIGURED = {"an option": "Did you mean 'jitter'?", "a value": "expected seconds", "a setting": "'KEY_PREFIX'?"}


def aliases(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return an alias that works, and one whose storage is out of reach."""
    large = {"max_bytes": 1_000_000}
    if kind == "locmem":
        path = "storeroom.backends.locmem.LocMemCache"
        return {"BACKEND": path, "LOCATION": "pages", "OPTIONS": large}, None
    if kind == "filebased":
        path, away = "storeroom.backends.filebased.FileBasedCache", tmp_path / "a-file" / "c"
        away.parent.write_text("not a directory")
        return (
            {"BACKEND": path, "LOCATION": str(tmp_path / "pages"), "OPTIONS": large},
            {"BACKEND": path, "LOCATION": str(away), "OPTIONS": {}},
        )
    if kind == "redis":
        path, location = "storeroom.backends.redis.RedisCache", request.getfixturevalue("redis_databases").url()
        gone: dict[str, Any] = {"LOCATION": "redis://127.0.0.1:1", "OPTIONS": {"on_error": "raise"}}
        return {"BACKEND": path, "LOCATION": location, "OPTIONS": {}}, {"BACKEND": path, **gone}
    if kind in {"pymemcache", "pylibmc"}:
        path = f"storeroom.backends.memcached.{'PyMemcacheCache' if kind == 'pymemcache' else 'PyLibMCCache'}"
        location = request.getfixturevalue("memcached").location()
        gone = {"LOCATION": "127.0.0.1:1", "OPTIONS": {"on_error": "raise"}}
        return {"BACKEND": path, "LOCATION": location, "OPTIONS": {}}, {"BACKEND": path, **gone}
    if kind == "sqlite":
        url, away_url = f"sqlite:///{tmp_path}/c.sqlite3", f"sqlite:///{tmp_path}/c.sqlite3/below-a-file"
    else:
        url = request.getfixturevalue(kind).url()
        away_url = f"{kind}://somebody@127.0.0.1:1/nowhere"
    alias = {"BACKEND": DATABASE, "LOCATION": "pages", "OPTIONS": {"url": url, **large}}
    return alias, {"BACKEND": DATABASE, "LOCATION": "pages", "OPTIONS": {"url": away_url, "on_error": "raise"}}


@pytest.mark.parametrize(
    "kind",
    ["locmem", "filebased", "sqlite", "postgresql", "mariadb", "redis", "pymemcache",
     pytest.param("pylibmc", marks=needs_pylibmc)],
)  # fmt: skip
def test_errors_name_alias_key_and_remedy(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A wrong setting, a refused value and an outage tell the alias; a refused value its key, too."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(aliases(kind, request, tmp_path))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    if kind in {"redis", "pymemcache", "pylibmc"}:
        del told["too large"]  # these servers take more: tests/faults/test_refusals.py has ones that do not
    for name, text in told.items():
        assert "CACHES['pages']" in text, (name, text)
        assert "CACHES['default']" not in text, (name, text)
        if name in REFUSED:
            assert "shop" in text, (name, text)
    for name, remedy in CONFIGURED.items():
        assert remedy in told[name], told[name]
