"""A Django project with an admin, and a cache of each kind: see test_django_admin.py, which names the folder."""

import os
from pathlib import Path

FOLDER = Path(os.environ["SITE_FOLDER"])
SECRET_KEY = "for tests only" * 4
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEBUG = False
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
OURS = "storeroom.backends"
CACHES = {
    "default": {"BACKEND": f"{OURS}.locmem.LocMemCache", "OPTIONS": {"advise": "always", "removals": 100}},
    "pages": {"BACKEND": f"{OURS}.filebased.FileBasedCache", "LOCATION": str(FOLDER / "pages")},
    "shared": {
        "BACKEND": f"{OURS}.db.DatabaseCache",
        "LOCATION": f"sqlite:///{FOLDER}/shared.sqlite3",
        "KEY_PREFIX": "shop",
        "OPTIONS": {"shared_stats": True, "families": ["user:*:name", "user:?"]},
    },
    "odd/<b>": {"BACKEND": f"{OURS}.locmem.LocMemCache", "LOCATION": "odd", "OPTIONS": {"advise": "always"}},
    "hashed": {
        "BACKEND": f"{OURS}.locmem.LocMemCache",
        "LOCATION": "hashed",
        "KEY_FUNCTION": "admin_site_settings.hashed",
    },
    "down": {
        "BACKEND": f"{OURS}.redis.RedisCache",
        "LOCATION": f"redis://:hunter2@127.0.0.1:{os.environ['SITE_PORT']}",
    },
    "redis": {"BACKEND": "storeroom.integrations.django_redis.RedisCache", "LOCATION": os.environ["SITE_REDIS"]},
    "other": {
        "BACKEND": f"{OURS}.redis.RedisCache",
        "LOCATION": os.environ["SITE_REDIS"],
        "KEY_PREFIX": "other",
        "OPTIONS": {"near": {"max_entries": 10}, "shared_stats": True},
    },
    "sessions": {"BACKEND": f"{OURS}.locmem.LocMemCache", "LOCATION": "sessions"},
    "nothing": {"BACKEND": f"{OURS}.dummy.DummyCache"},
    "foreign": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "storeroom.integrations.django",
]
MIDDLEWARE = [
    "admin_site_settings.strict_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
SESSION_CACHE_ALIAS = "sessions"
ROOT_URLCONF = "admin_site_urls"
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIGRATION_MODULES = {"admin": None, "auth": None, "contenttypes": None, "sessions": None}  # tables at once


def hashed(key: str, prefix: str, version: int) -> str:
    return f"{hash(key):x}"


def strict_policy(get_response):
    """Forbid all that a page might bring along within itself."""

    def respond(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return respond
