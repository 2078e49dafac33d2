"""Settings as messages and reprs show them, never with a password; and the nearest right name for a wrong one.

Secrets reach a configuration as options of their own, known by their names, and inside URLs. Where a URL leaves in
doubt which part is the password, too much of it is hidden.
"""

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final

from storeroom.late import pattern

__all__ = ["closest", "fields_text", "installation", "is_secret", "mask_url", "masked", "nearest", "shown"]

_HINTS: Final = r"secre?t|passw|passphrase|pwd|\bpass\b|token|credential|api_?key|\bauth\b"
_SECRET_NAME: Final = pattern(f"(?i){_HINTS}")
_SCHEME: Final = r"[a-z][a-z0-9+.-]*:/{1,3}"
# Greedy up to the last "@" before the next URL, if there are several: an unescaped "@", "/", "?" or "#" in a password
# must not show its rest. A path with an "@" in it has no ":" before that.
_USER_INFO: Final = pattern(rf"(?is)(?P<scheme>{_SCHEME})(?:(?!{_SCHEME}).)*@|^(?!/|\.{{0,2}}/|[a-z]:\\)[^@\s]*:.*@")
# name=value in a query, and name = 'value' in the words of libpq.
_SECRET_PARAMETER: Final = pattern(
    rf"(?is)(?<![^?&;#,\s])([^=&;?#\s]*(?:{_HINTS})[^=&;?#\s]*\s*=\s*)"
    r"(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^&;\s]*)"
)
_HIDDEN: Final = "***"
_SPECIAL: Final = pattern(r'[\s"=\\]')


def is_secret(name: str) -> bool:
    """Tell whether a setting of this name holds a secret.

    >>> is_secret("secret"), is_secret("redis_password"), is_secret("max_entries")
    (True, True, False)
    """
    return bool(_SECRET_NAME.search(name))


def mask_url(text: str) -> str:
    """Return the text without user names, passwords and tokens of a URL in it.

    >>> mask_url("redis://app:s3cret@cache.example:6379/0?token=abc&db=1")
    'redis://***@cache.example:6379/0?token=***&db=1'
    """
    without_users = _USER_INFO.sub(lambda found: f"{found['scheme'] or ''}{_HIDDEN}@", text)
    return _SECRET_PARAMETER.sub(rf"\1{_HIDDEN}", without_users)


def masked(value: Any, name: str = "") -> Any:
    """Return the value of the setting `name` as a repr may show it: containers are searched for secrets."""
    if is_secret(name):
        return None if value is None else _HIDDEN
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, dict):
        return {key: masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, name) for inner in value]
    return value


def shown(value: Any, name: str = "") -> str:
    """Return the wrong value of the setting `name` for an error message.

    Strings and numbers are shown. Of any other value, which may hold a secret, only the type is.

    >>> shown("5 parsecs"), shown([1, 2]), shown("hunter2", "password")
    ("'5 parsecs'", 'a list', 'hidden here')
    """
    if is_secret(name):
        return "hidden here"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return repr(mask_url(value))
    if value is None or isinstance(value, int | float | import_module("datetime").timedelta):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def fields_text(fields: Mapping[str, Any]) -> str:
    """Return fields as ``key=value`` text, for the end of a line of the log; None is left out.

    >>> fields_text({"event": "outage", "server": "Redis at localhost", "seconds": 1.25, "error": None})
    'event=outage server="Redis at localhost" seconds=1.25'
    """
    return " ".join(f"{name}={_field(value)}" for name, value in fields.items() if value is not None)


def _field(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text and not _SPECIAL.search(text) and text.isprintable():
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else ascii(each)[1:-1] for each in escaped) + '"'


def nearest(word: str, words: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the word most like `word`, or "" if none is near."""
    by_lower_case = {known.lower(): known for known in words}
    found = closest(word.lower(), by_lower_case)
    return f" Did you mean {by_lower_case[found]!r}?" if found else ""


def closest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the word most like `word`; None if the likeness of none, from 0 to 1, reaches `cutoff`."""
    from difflib import get_close_matches  # noqa: PLC0415 -- 3 ms that only a mistake need spend

    return next(iter(get_close_matches(word, words, 1, cutoff)), None)


def installation(extra: str) -> str:
    """Return the sentence that tells how to install the packages of one of Storeroom's extras.

    It names the packages themselves: they are on every package index, which Storeroom is not.
    """
    packages = " ".join(f'"{package}"' for package in _packages_of(extra))
    if not packages:  # in a frozen program, which has no metadata
        return f"Install the packages of Storeroom's extra {extra!r}."
    return f"Install it with: python3 -m pip install {packages} (Storeroom's extra {extra!r})."


def _packages_of(extra: str) -> list[str]:
    metadata = import_module("importlib.metadata")  # for an error alone: it takes longer than the whole package
    try:
        requirements: list[str] = metadata.requires("storeroom") or []
    except metadata.PackageNotFoundError:
        return []
    wanted = pattern(rf"\bextra == ['\"]{extra}['\"]")
    return [requirement.partition(";")[0].strip() for requirement in requirements if wanted.search(requirement)]
