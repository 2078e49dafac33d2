"""Settings for django-ratelimit's tests: its source distribution has the tests, but not the settings they need.

The names of the aliases are those that the tests ask for. Nobody answers at an address of connection-errors.
"""

SECRET_KEY = "ratelimit"
INSTALLED_APPS = ["django_ratelimit"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]
RATELIMIT_USE_CACHE = "default"
CACHES = {
    "connection-errors": {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": "test-connection-errors",
    },
    "connection-errors-redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://test-connection-errors",
        "OPTIONS": {"IGNORE_EXCEPTIONS": True},
    },
    "instant-expiration": {
        "BACKEND": "django.core.cache.backends.dummy.DummyCache",
        "LOCATION": "test-instant-expiration",
    },
}
