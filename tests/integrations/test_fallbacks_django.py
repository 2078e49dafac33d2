"""Fallbacks in Django's CACHES, which Django does not read: told when the handle is made, not by the first outage."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
import django
from django.conf import settings
settings.configure(SECRET_KEY="for tests only" * 3)
django.setup()
from django.core.cache import caches
from django.test import override_settings

MEMORY = {"BACKEND": "storeroom.backends.locmem.LocMemCache"}
FOREIGN = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}

def server(backend, location, fallback):
    path = f"storeroom.backends.{backend}"
    return {"BACKEND": path, "LOCATION": location, "OPTIONS": {"on_error": f"fallback:{fallback}"}}

def redis(fallback):
    return server("redis.RedisCache", "redis://127.0.0.1:1", fallback)

tiered = {"BACKEND": "storeroom.backends.tiered.TieredCache", "OPTIONS": {"tiers": ["memory", "redis"]}}
CACHES = {
    "right": {"default": redis("memory"), "memory": MEMORY},
    "absent": {"default": redis("memroy"), "memory": MEMORY},
    "foreign": {"default": redis("memory"), "memory": FOREIGN},
    "itself": {"default": redis("default")},
    "circle": {"default": redis("b"), "b": redis("default")},
    "tiers": {"default": tiered, "memory": MEMORY, "redis": redis("default")},
    "memcached": {"default": server("memcached.PyMemcacheCache", "127.0.0.1:1", "memroy"), "memory": MEMORY},
    "database": {"default": server("db.DatabaseCache", "postgresql://127.0.0.1:1/db?table=t", "memroy"),
                 "memory": MEMORY},
}
told = {}
for name, configured in CACHES.items():
    with override_settings(CACHES=configured):
        try:
            told[name] = repr(caches["default"].get("k"))
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


def test_fallback_that_cannot_answer_is_told_in_django() -> None:
    """An alias that is absent, foreign, itself or in a circle is a ConfigurationError before any server is asked."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    wrong = "ConfigurationError: OPTIONS['on_error'] is 'fallback:{}'; expected "
    misspelt = f"{wrong.format('memroy')}one of the aliases 'default', 'memory'. Did you mean 'memory'?"
    ends = 'one that ends somewhere: {}. Give one of them "miss" or "raise".'
    assert told == {
        "right": "None",
        "absent": misspelt,
        "foreign": f"{wrong.format('memory')}a cache of Storeroom's, and its BACKEND is LocMemCache.",
        "itself": wrong.format("default") + ends.format("default -> default"),
        "circle": wrong.format("b") + ends.format("b -> default -> b"),
        "tiers": wrong.format("default") + ends.format("default -> redis -> default"),
        "memcached": misspelt,
        "database": misspelt,
    }
