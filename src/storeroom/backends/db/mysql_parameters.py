"""Arguments of PyMySQL, from the parameters of a mysql:// URL or Django's OPTIONS.

Django's OPTIONS are written for mysqlclient, another driver: names that both know are passed on,
and ``ssl_mode`` is translated. Any other name is an error: one that was meant to encrypt must not
be lost.

Sources: https://pymysql.readthedocs.io/en/latest/modules/connections.html,
https://mysqlclient.readthedocs.io/user_guide.html#functions-and-attributes
"""

from collections.abc import Mapping
from typing import Any, Final

from storeroom.config import boolean
from storeroom.exceptions import ConfigurationError
from storeroom.wording import nearest

__all__ = ["read_parameters"]

_TEXTS: Final = frozenset(
    {"bind_address", "collation", "init_command", "program_name", "read_default_file", "read_default_group"}
    | {"server_public_key", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password", "unix_socket"}
)
_BOOLEANS: Final = frozenset({"ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"})
_OBJECTS: Final = frozenset({"auth_plugin_map", "ssl"})
"""These cannot be written in a URL."""

_IGNORED: Final = frozenset({"charset", "use_unicode"})
"""Values are bytes here."""

_SSL_MODES: Final[Mapping[str, Mapping[str, bool]]] = {
    "PREFERRED": {},
    "REQUIRED": {"verify_mode": False, "check_hostname": False},
    "VERIFY_CA": {"verify_mode": True, "check_hostname": False},
    "VERIFY_IDENTITY": {"verify_mode": True, "check_hostname": True},
}
_NAMES: Final = _TEXTS | _BOOLEANS | _OBJECTS | {"ssl_mode"}


def read_parameters(query: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return arguments for PyMySQL's connect(); `name` is that of the database, for errors.

    Raises:
        ConfigurationError: there is no such parameter, or it makes no sense.
    """
    read: dict[str, Any] = {}
    for key, value in query.items():
        if key in _BOOLEANS:
            read[key] = _boolean(key, value, name)
        elif key in _TEXTS or (key in _OBJECTS and not isinstance(value, str)):
            read.setdefault(key, value)  # ssl_mode may have come before
        elif key == "ssl_mode":
            read |= _encryption(str(value).upper(), query.get("ssl") or {}, name)
        elif key not in _IGNORED:
            raise ConfigurationError(
                f"{name} is given the parameter {key!r}, which the cache cannot pass on to PyMySQL."
                f"{nearest(key, _NAMES)} Expected one of {', '.join(sorted(_NAMES))}."
            )
    if "ssl_ca" in read:
        # PyMySQL would encrypt, but trust any server that answers.
        read.setdefault("ssl_verify_cert", True)
    return read


def _boolean(key: str, value: Any, name: str) -> bool:
    try:
        read: bool = boolean(value)
    except ValueError as expected:
        raise ConfigurationError(f"{name} is given {key}={value!r}; expected {expected}.") from None
    return read


def _encryption(mode: str, ssl: Mapping[str, Any], name: str) -> dict[str, Any]:
    if mode == "DISABLED":
        return {"ssl_disabled": True, "ssl": None}
    if mode not in _SSL_MODES:
        raise ConfigurationError(
            f"{name} is given ssl_mode={mode!r}; expected one of DISABLED, {', '.join(_SSL_MODES)}."
        )
    demands = _SSL_MODES[mode]
    if demands.get("verify_mode") and not ssl.keys() & {"ca", "capath"}:
        raise ConfigurationError(f"{name} is given ssl_mode={mode!r} without a 'ca' in 'ssl' to verify by.")
    return {"ssl": {**ssl, **demands}} if demands or ssl else {}
