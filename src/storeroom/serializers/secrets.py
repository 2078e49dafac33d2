"""The secret that signs the values on a server: the one that is configured, or in Django one made of SECRET_KEY.

Django's users store anything: model instances, responses, safe strings. A server holds these only if they are signed,
by a key that is derived from Django's own. Django counts where it is set up; it is never imported to find out.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from storeroom.config import Settings

__all__ = ["secret_of"]

_PURPOSE: Final = b"storeroom: signatures of cached values"


def secret_of(settings: Settings) -> Any:
    """Return OPTIONS["secret"]; where it was not written, secrets made of Django's, or None without a Django.

    Values that SECRET_KEY_FALLBACKS signed are read, as Django does, so that SECRET_KEY can be changed.
    """
    if "secret" in settings.given:
        return settings.options["secret"]
    keys = [key.encode() if isinstance(key, str) else key for key in _django_keys()]
    return [import_module("hmac").digest(key, _PURPOSE, "sha256") for key in keys] or None


def _django_keys() -> Sequence[str | bytes]:
    conf = sys.modules.get("django.conf")
    if conf is None or not hasattr(conf, "settings") or not conf.settings.configured:
        return ()
    try:
        return (conf.settings.SECRET_KEY, *conf.settings.SECRET_KEY_FALLBACKS)
    except sys.modules["django.core.exceptions"].ImproperlyConfigured:  # it is empty
        return ()
