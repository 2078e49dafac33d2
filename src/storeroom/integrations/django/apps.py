"""The app's configuration."""

from importlib import import_module

from django.apps import AppConfig, apps

__all__ = ["StoreroomConfig"]


class StoreroomConfig(AppConfig):
    """The app; it has no tables, and one model that stands for the caches in the admin."""

    name = "storeroom.integrations.django"
    label = "storeroom"
    verbose_name = "Storeroom"

    def ready(self) -> None:
        """Register the system checks; let the counts be noted for the admin's charts, where there is an admin."""
        import_module("storeroom.integrations.django.system_checks").register_all()
        if apps.is_installed("django.contrib.admin"):
            import_module("storeroom.integrations.django.history").follow_requests()
