"""A Django project whose pages are stored: see test_django_pages.py. Its tests say where the page cache stands."""

SECRET_KEY = "for tests only" * 4
ALLOWED_HOSTS = ["example.com", "testserver"]
ROOT_URLCONF = "pages_urls"
CACHES = {
    "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "pages"},
    "sessions": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "sessions"},
    "other": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "other"},
    "djangos": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
DATABASES: dict[str, dict[str, str]] = {}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_CACHE_ALIAS = "sessions"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.messages", "storeroom.integrations.django"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "pages_urls.ZoneMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "pages_urls.SeenMiddleware",
]
CACHE_MIDDLEWARE_SECONDS = 300
LANGUAGES = [("en", "English"), ("de", "German"), ("fr", "French")]
LANGUAGE_CODE = "en"
USE_I18N = USE_TZ = True
TIME_ZONE = "UTC"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {},
    }
]
LOGGING = {"version": 1, "loggers": {"django": {"level": "CRITICAL"}, "storeroom": {"level": "CRITICAL"}}}
REST_FRAMEWORK = {"UNAUTHENTICATED_USER": None, "DEFAULT_AUTHENTICATION_CLASSES": []}
