"""CACHES as a whole: found, checked, and handed out by alias.

``sources`` finds the dict where no program has called configure(): in Django's settings, a TOML file or environment
variables (``urls``), or falls back on an embedded default, whose owner ``program`` knows and whose directory
``user_folder``. ``aliases`` reads and checks it, and ``backend_paths`` the
BACKEND of each alias. ``configuration`` keeps a handle for each alias, and ``handler`` hands them out.
"""

from typing import TYPE_CHECKING

from storeroom.late import names_of
from storeroom.registry.handler import cache, caches, configure

if TYPE_CHECKING:
    from storeroom.registry.urls import config_from_url

__all__ = ["cache", "caches", "config_from_url", "configure"]


if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(__name__, {"config_from_url": "urls"})
