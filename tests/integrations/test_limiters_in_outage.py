"""Rate limiters of others while the cache's server is out of reach: as on django-redis and on Django's own classes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.process import free_port

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import django
from django.conf import settings
settings.configure(**json.loads(sys.argv[1]))
django.setup()
from django.contrib.auth import authenticate
from django.core.cache import caches
from django.core.management import call_command
from django.test import RequestFactory
from django_ratelimit.core import is_ratelimited
from rest_framework.throttling import SimpleRateThrottle
from axes.handlers import proxy

call_command("migrate", verbosity=0)
requests = RequestFactory()

def told(call):
    try:
        return call()
    except Exception as error:
        return [each.__name__ for each in type(error).__mro__]

def ratelimit(alias, fails_open):
    settings.RATELIMIT_USE_CACHE, settings.RATELIMIT_FAIL_OPEN = alias, fails_open
    limit = dict(group="g", key="ip", rate="3/m", increment=True)
    return told(lambda: [is_ratelimited(requests.get("/"), **limit) for _ in range(4)])

def throttle(alias):
    class Throttle(SimpleRateThrottle):
        scope, rate, cache = "x", "3/min", caches[alias]
        def get_cache_key(self, request, view):
            return "throttled"
    return told(lambda: [Throttle().allow_request(requests.get("/"), None) for _ in range(5)])

def login(alias):
    settings.AXES_CACHE = alias
    proxy.AxesProxyHandler.get_implementation(force=True)
    return told(lambda: [authenticate(requests.post("/"), username="ada", password="wrong") for _ in range(4)])

print(json.dumps({
    alias: {"open": ratelimit(alias, True), "shut": ratelimit(alias, False), "throttle": throttle(alias),
            "login": login(alias)}
    for alias in settings.CACHES
}))
"""

IGNORING = {"IGNORE_EXCEPTIONS": True}


def answers(directory: Path, caches: dict[str, Any]) -> Any:
    """Return alias -> the answers of each limiter."""
    written = {
        "SECRET_KEY": "for tests only" * 3, "USE_TZ": True, "CACHES": caches, "ALLOWED_HOSTS": ["*"],
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        "INSTALLED_APPS": [
            "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "axes", "rest_framework",
        ],
        "AXES_HANDLER": "axes.handlers.cache.AxesCacheHandler", "AXES_FAILURE_LIMIT": 3, "AXES_VERBOSE": False,
        "AUTHENTICATION_BACKENDS": [
            "axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend",
        ],
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(written)],
        cwd=directory, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_limiters_answer_as_on_django_redis(tmp_path: Path) -> None:
    """django-ratelimit limits or fails open by its setting, throttles let through, and no view fails that did not."""
    away = f"redis://127.0.0.1:{free_port()}/0"
    ours = "storeroom.backends.redis.RedisCache"
    caches = {
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": away, "OPTIONS": IGNORING},
        "same": {"BACKEND": "storeroom.integrations.django_redis.RedisCache", "LOCATION": away, "OPTIONS": IGNORING},
        "ignoring": {"BACKEND": ours, "LOCATION": away, "OPTIONS": IGNORING},
        "miss": {"BACKEND": ours, "LOCATION": away},
        "memcached": {
            "BACKEND": "storeroom.backends.memcached.PyMemcacheCache",
            "LOCATION": f"127.0.0.1:{free_port()}",
        },
    }
    found = answers(tmp_path, caches)
    assert found["same"] == found["default"]
    for alias in ("miss", "memcached"):  # as of a counter that is not there, and as the driver's
        assert {"UnansweredError", "ConnectionError", "ValueError"} <= set(found[alias]["login"])
    for alias, of_each in found.items():
        assert of_each["open"] == [False] * 4, alias
        assert of_each["shut"] == [True] * 4, alias
        assert of_each["throttle"] == [True] * 5, alias
