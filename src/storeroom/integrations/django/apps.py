"""The app's configuration."""

from importlib import import_module
from typing import Any

from django.apps import AppConfig, apps

__all__ = ["StoreroomConfig"]


class StoreroomConfig(AppConfig):
    """The app; it has no tables, and one model that stands for the caches in the admin."""

    name = "storeroom.integrations.django"
    label = "storeroom"
    verbose_name = "Storeroom"

    def ready(self) -> None:
        """Register the system checks; where there is an admin, a debug toolbar or Sentry, do what these need."""
        _load("system_checks").register_all()
        _load("sentry").watch()
        if apps.is_installed("django.contrib.admin"):
            _load("history").follow_requests()
        if apps.is_installed("debug_toolbar"):
            _load("toolbar").watch()


def _load(name: str) -> Any:
    return import_module(f"storeroom.integrations.django.{name}")
