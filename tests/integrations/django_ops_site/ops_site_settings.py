"""A Django project with a debug toolbar, Sentry and kept sessions: see test_django_ops.py, which names the folder."""

import os
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.django import DjangoIntegration

FOLDER = Path(os.environ["SITE_FOLDER"])
SECRET_KEY = "for tests only" * 4
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DEBUG = False
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(FOLDER / "site.sqlite3")}}
OURS = "storeroom.backends"
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": f"{OURS}.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 50}},
    "files": {
        "BACKEND": f"{OURS}.filebased.FileBasedCache",
        "LOCATION": str(FOLDER / "files"),
        "OPTIONS": {"MAX_ENTRIES": 20, "near": {"max_entries": 10}},
    },
    "database": {
        "BACKEND": f"{OURS}.db.DatabaseCache",
        "LOCATION": f"sqlite:///{FOLDER}/cache.sqlite3",
        "OPTIONS": {"MAX_ENTRIES": 20},
    },
    "redis": {"BACKEND": f"{OURS}.redis.RedisCache", "LOCATION": os.environ["SITE_REDIS"], "KEY_PREFIX": "ops"},
    "down": {
        "BACKEND": f"{OURS}.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{os.environ['SITE_PORT']}",
        "KEY_PREFIX": "ops",
    },
    "foreign": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "debug_toolbar",
    "storeroom.integrations.django",
]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DEBUG_TOOLBAR_PANELS = [
    "debug_toolbar.panels.cache.CachePanel",
    "storeroom.integrations.django.panel.StoreroomPanel",
    "debug_toolbar.panels.history.HistoryPanel",
]
DEBUG_TOOLBAR_CONFIG = {"SHOW_TOOLBAR_CALLBACK": "ops_site_settings.shows", "IS_RUNNING_TESTS": False}
SESSION_ENGINE = "storeroom.integrations.django.sessions"
SESSION_CACHE_ALIAS = "files"
ROOT_URLCONF = "ops_site_urls"
STATIC_URL = "static/"

SPANS: list[dict[str, Any]] = []


def keep(event: dict[str, Any], _: Any) -> None:
    """Keep the spans of a transaction here, and send nothing."""
    SPANS.extend(event["spans"])


sentry_sdk.init(
    dsn="http://key@127.0.0.1:9/1",
    integrations=[DjangoIntegration(cache_spans=True, middleware_spans=False, signals_spans=False)],
    default_integrations=False,
    auto_enabling_integrations=False,
    traces_sample_rate=1.0,
    before_send_transaction=keep,
)


def shows(request: Any) -> bool:
    """Let every request have the toolbar."""
    return True
