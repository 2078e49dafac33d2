"""The settings of a Django site that are of all of its django-redis caches; a program without a site has none."""

import os
from typing import Any

from django import conf

__all__ = ["site_setting"]


def site_setting(name: str, default: Any) -> Any:
    """Return ``settings.DJANGO_REDIS_<name>``, or the default where it is not written or there is no site."""
    if not (conf.settings.configured or os.environ.get(conf.ENVIRONMENT_VARIABLE)):
        return default
    return getattr(conf.settings, f"DJANGO_REDIS_{name}", default)
