"""A thing that can never work is no outage: a wrong password, a database that is not there, a server of another kind.

It is an error at the first operation, whatever ``on_error`` says. Once a server has answered this process, a refusal
counts as an outage, for it may pass as one does, and is logged with its remedy.
"""

import logging
import time
from typing import Any, Final

from storeroom.backends.strangers import TLS, spoken_at
from storeroom.exceptions import StorageError

__all__ = ["LOGIN_REMEDY", "TLS_REMEDY", "is_look_due", "refuse"]

logger = logging.getLogger("storeroom.outages")

LOGIN_REMEDY: Final = "Check the user name and the password that LOCATION and OPTIONS give, and the server's users."
TLS_REMEDY: Final = "Check whether the server speaks TLS, and the certificates that OPTIONS name."


_LOOK_SECONDS: Final = 30.0
"""Between two looks at the kind of a server that has never answered."""


def is_look_due(engine: Any) -> bool:
    """Tell whether refuse() would ask around, and block for that."""
    return not engine.has_answered and time.monotonic() >= engine.look_at


def refuse(cache: Any, error: BaseException | None, name: str) -> None:
    """Raise StorageError if the server that has failed so will never serve this cache, and never has.

    Blocking: a server that has never answered is asked for its protocol, for a second or so at most.

    Args:
        cache: a `served.ServedCache`.
        error: the outage's; None where the server was not asked, as it failed a moment ago.
        name: of the hook; a look at the counters raises nothing.
    """
    engine = cache._engine
    if name == "usage":
        return
    if error is None:
        if engine.refused_with and not engine.has_answered:
            raise StorageError(_told(cache, engine.refused_with))
        return
    remedy = cache._remedy(error) or ("" if engine.has_answered else _of_another_kind(engine))
    if not remedy:
        return
    text = f"{engine.breaker.name} refuses this cache ({str(error).strip('. ')}). {remedy}"
    is_new, engine.refused_with = text != engine.refused_with, text
    if not engine.has_answered:
        raise StorageError(_told(cache, text)) from error
    if is_new:
        logger.error("%s Until then its caches follow their on_error policy.", text)


def _told(cache: Any, text: str) -> str:
    """Return the text of a refusal with the cache's alias, as far as that is known."""
    alias = cache.settings.alias
    return text.replace("refuses this cache", f"refuses CACHES[{alias!r}]", 1) if alias else text


def _of_another_kind(engine: Any) -> str:
    if is_look_due(engine):
        engine.look_at = time.monotonic() + _LOOK_SECONDS  # one caller looks, the others go by what is known
        engine.foreign = _look(*engine.spoken)
    foreign: str = engine.foreign
    return foreign


def _look(protocol: str, host: str, port: int) -> str:
    found = spoken_at(host, port) if host else ""
    if found in {"", protocol}:
        return ""
    if TLS in {found, protocol}:
        asked = "by" if protocol == TLS else "without"
        return f"The server there speaks {found}, and is asked {asked} TLS. {TLS_REMEDY}"
    return f"The server there speaks {found}'s protocol: check BACKEND, and the port in LOCATION."
