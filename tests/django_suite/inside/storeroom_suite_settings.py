"""Settings for Django's test suites, with the class under test as the default cache."""

import os
import tempfile

_BACKENDS = os.environ["STOREROOM_SUITE_BACKENDS"]
_STORAGE = os.environ["STOREROOM_SUITE_STORAGE"]

_LOCATION = os.environ["STOREROOM_SUITE_LOCATION"]

# As in Django's own test_sqlite.py.
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
if _STORAGE == "sqlite":
    # In files: a database in memory is another one in each thread.
    for alias, params in DATABASES.items():
        params["NAME"] = f"{alias}.sqlite3"
        params["TEST"] = {"NAME": os.path.join(tempfile.gettempdir(), f"{alias}.sqlite3")}  # noqa: PTH118
elif _STORAGE == "db":
    # The tests look into the table by Django's connections: the cache has to be in the site's own database.
    DATABASES = {
        alias: {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": alias,
            "USER": "storeroom",
            "HOST": "127.0.0.1",
            "PORT": _LOCATION,
        }
        for alias in ("default", "other")
    }
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = False

CACHES = {
    "locmem": {"default": {"BACKEND": f"{_BACKENDS}.locmem.LocMemCache"}},
    "pages": {"default": {"BACKEND": f"{_BACKENDS}.locmem.LocMemCache"}},
    "redis": {
        "default": {"BACKEND": f"{_BACKENDS}.redis.RedisCache", "LOCATION": _LOCATION},
    },
    "db": {"default": {"BACKEND": f"{_BACKENDS}.db.DatabaseCache", "LOCATION": "default cache table"}},
    "sqlite": {"default": {"BACKEND": f"{_BACKENDS}.db.DatabaseCache", "LOCATION": "default cache table"}},
    "pymemcache": {"default": {"BACKEND": f"{_BACKENDS}.memcached.PyMemcacheCache", "LOCATION": _LOCATION}},
    "pylibmc": {"default": {"BACKEND": f"{_BACKENDS}.memcached.PyLibMCCache", "LOCATION": _LOCATION}},
    "filebased": {
        "default": {
            "BACKEND": f"{_BACKENDS}.filebased.FileBasedCache",
            # runtests.py has set a temporary directory of its own, which it removes at its end.
            "LOCATION": os.path.join(tempfile.gettempdir(), "storeroom"),  # noqa: PTH118 (as Django users write it)
        },
    },
}[_STORAGE]

if os.environ["STOREROOM_SUITE_ENGINE"]:
    SESSION_ENGINE = os.environ["STOREROOM_SUITE_ENGINE"]

TEST_RUNNER = "storeroom_suite_runner.SuiteRunner"
