"""A Django project whose tests are about its cache: see test_django_test_runs.py, which names the database."""

import json
import os

DATABASE = json.loads(os.environ["SITE_DATABASE"])
if DATABASE["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)  # Django asks for mysqlclient of this version
    pymysql.install_as_MySQLdb()

SECRET_KEY = "for tests only" * 4
DATABASES = {"default": DATABASE}
BACKEND = os.environ["SITE_BACKEND"]
PATIENT = {"socket_timeout": 30, "socket_connect_timeout": 30, "busy_timeout": 30}  # a busy machine is no outage
CACHES = {
    "default": {"BACKEND": BACKEND, "LOCATION": "cache_table", "OPTIONS": PATIENT},
    "small": {"BACKEND": BACKEND, "LOCATION": "small_table", "OPTIONS": {**PATIENT, "MAX_ENTRIES": 3}},
}
INSTALLED_APPS = ["django.contrib.contenttypes", *filter(None, os.environ["SITE_APPS"].split(","))]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "site_tests"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
