"""The model that stands for a cache in Django's admin: it has permissions and a log, and neither a table nor rows."""

from typing import Any, ClassVar

from django.db import models

__all__ = ["Cache"]


class NoRows(models.Manager):
    """The manager of a model without a table: commands that read all models, as dumpdata, find nothing."""

    def get_queryset(self) -> Any:
        """Return no rows, without a query."""
        return super().get_queryset().none()


class Cache(models.Model):
    """An alias in CACHES. Its permissions are ``storeroom.view_cache`` and ``storeroom.change_cache``."""

    alias = models.CharField(primary_key=True, max_length=255)

    objects = NoRows()

    class Meta:
        """No table, no migrations."""

        app_label = "storeroom"
        managed = False
        default_permissions: ClassVar[tuple[str, ...]] = ("view", "change")
        base_manager_name = "objects"
        verbose_name = "cache"
        verbose_name_plural = "caches"

    def __str__(self) -> str:
        """Return the alias."""
        return str(self.alias)
