"""The settings of a client's tests, with the storage under test as the default cache."""

import importlib
import json
import os

_PLAN = json.loads(os.environ["STOREROOM_CLIENT_PLAN"])

if _PLAN["settings"]:
    _base = importlib.import_module(_PLAN["settings"])
    globals().update({name: getattr(_base, name) for name in dir(_base) if name.isupper()})

if _PLAN["databases"]:
    # Those of the settings are of servers that their authors run.
    DATABASES = {
        alias: {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{alias}.sqlite3",
            "TEST": {"NAME": f"test_{alias}.sqlite3"},
        }
        for alias in _PLAN["databases"]
    }

if _PLAN["default"]:
    CACHES = {**globals().get("CACHES", {}), "default": _PLAN["default"]}

if _PLAN.get("postgresql"):
    DATABASES = {**globals().get("DATABASES", {}), "default": _PLAN["postgresql"]}
