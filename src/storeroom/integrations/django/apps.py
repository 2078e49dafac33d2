"""The app's configuration."""

from django.apps import AppConfig

__all__ = ["StoreroomConfig"]


class StoreroomConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """The app; it has no models."""

    name = "storeroom.integrations.django"
    label = "storeroom"
    verbose_name = "Storeroom"
