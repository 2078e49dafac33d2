"""The fingerprint of code: a short text that changes with the code.

Put into keys, it keeps results of old code away from new code, and the other way round, while both run during a
deploy. It is made of the source, as each version of Python has another bytecode.
"""

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeAlias

from storeroom.exceptions import ConfigurationError

__all__ = ["Change", "fingerprint"]

Change: TypeAlias = bool | str | Callable[..., Any] | list[Any] | tuple[Any, ...]
"""Code that keys depend on: True for the function itself; other functions or classes; a text; or several of these."""


def fingerprint(change: Change, function: Callable[..., Any]) -> str:
    """Return the fingerprint of a function, or of the code that it is said to depend on.

    A text stands for itself. Of code, indentation and empty lines do not count.

    Raises:
        ConfigurationError: there is no source, or nothing to make a fingerprint of.
    """
    if not change:
        raise _meaningless(change)
    if isinstance(change, str):
        return change
    parts = change if isinstance(change, list | tuple) else [change]
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part if isinstance(part, str) else _source(function if part is True else part)
        # The length keeps two parts from reading like two others.
        digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _source(code: Any) -> str:
    if not callable(code):
        raise _meaningless(code)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError) as error:
        raise ConfigurationError(
            f"invalidate_on_change needs the source of {code!r}, which is not there ({error}). "
            'Pass a text instead that you change with the code, such as "v2".'
        ) from error
    return "\n".join(line.rstrip() for line in textwrap.dedent(source).splitlines() if line.strip())


def _meaningless(change: object) -> ConfigurationError:
    return ConfigurationError(
        f"invalidate_on_change is {change!r}; expected True for the decorated function itself, a function or class, "
        'a text such as "v2", or a list of these.'
    )
