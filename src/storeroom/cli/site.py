"""A cache in the database of a Django site, whose settings --config names.

Only a running Django knows that database. It is started for such a cache alone: for any other its settings are read,
and no code of the site runs.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from storeroom.cli.sources import Named
from storeroom.exceptions import InvalidCacheBackendError, NotSupportedError
from storeroom.registry.aliases import Alias
from storeroom.registry.backend_paths import DJANGO_PATHS, install_command

__all__ = ["enter"]


def enter(named: Named, alias: Alias) -> None:
    """Start Django if the alias is in its database.

    Raises:
        InvalidCacheBackendError: Django is not installed.
        NotSupportedError: the alias is on Django's own class.
    """
    is_in_site = getattr(alias.backend, "is_in_site", None)
    if is_in_site is None or not hasattr(named.settings, "DATABASES") or not is_in_site(alias.location, alias.settings):
        return
    if named.source.caches[alias.name]["BACKEND"] in DJANGO_PATHS:
        raise NotSupportedError(
            f"The cache {alias.name!r} is on Django's own class, whose table is another one. Set its BACKEND to "
            "'storeroom.backends.db.DatabaseCache', or use Django's commands."
        )
    if find_spec("django") is None:
        raise InvalidCacheBackendError(
            f"The cache {alias.name!r} is in the database of a Django site, which Django has to tell, and that is not "
            f"installed. {install_command('django')}"
        )
    if isinstance(named.settings, ModuleType):
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", named.settings.__name__)
    import_module("django").setup()
