"""The options of a page cache, for all URLs and by patterns of paths."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from posixpath import normpath
from typing import Any, Final
from urllib.parse import unquote

from storeroom import timeouts
from storeroom.exceptions import ConfigurationError, InvalidTimeoutError
from storeroom.http import Policy, Request
from storeroom.pages import codings
from storeroom.wording import nearest

__all__ = ["Plan", "Plans", "parsed"]

_DURATIONS: Final = ("timeout", "browser_timeout", "stale_while_revalidate", "stale_if_error", "revalidate_for")
_NAMES: Final = (
    "targeted", "vary_on", "vary_on_cookies", "ignored_cookies", "declared_cookies", "ignored_parameters",
)  # fmt: skip
_OF_POLICY: Final = tuple(field.name for field in fields(Policy))
_OWN: Final = ("tags", "early", "hit_for_miss", "compress")

Tags = Iterable[str] | Callable[[Request], Iterable[str]]


@dataclass(frozen=True)
class Plan:
    """The options for the pages of some URLs.

    Attributes:
        policy: the rules' own.
        tags: of the pages, or a function of the request that returns them.
        early: eagerness to make a page anew before it is stale: see FreshnessOptions.
        compress: "gzip" or "zstd" for pages that are stored so, and answered so to those who accept it.
        hit_for_miss: seconds for which requests for a page that was not to be stored do not wait for each other.
    """

    policy: Policy
    tags: Tags = ()
    early: float = 0.0
    hit_for_miss: float = 10.0
    compress: str | None = None

    def tags_of(self, request: Request) -> list[str]:
        """Return the tags of the page that answers a request."""
        return list(self.tags(request) if callable(self.tags) else self.tags)

    def but(self, options: Mapping[str, Any]) -> "Plan":
        """Return this plan, but for some options."""
        values = {name: parsed(name, value, "") for name, value in options.items()}
        own = {name: values.pop(name) for name in _OWN if name in values}
        return replace(self, policy=replace(self.policy, **values), **own)


class Plans:
    """The plan for each path: the first whose pattern fits, else that for all.

    Args:
        options: those for all URLs.
        rules: pattern of a path to the options that differ there, or to None: nothing is stored there. A star stands
            for any text.

    Raises:
        ConfigurationError: an option is unknown, or its value means nothing.
    """

    def __init__(self, options: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any] | None]) -> None:
        self._default = _plan(options, "")
        self._plans = [
            None if own is None else _plan({**options, **own}, f"rules[{path!r}]: ") for path, own in rules.items()
        ]
        forms = ("(" + ".*".join(map(re.escape, path.split("*"))) + ")" for path in rules)
        self._pattern = re.compile("|".join(forms), re.DOTALL) if rules else None

    def of(self, path: str) -> Plan | None:
        """Return the plan for a path, as it was sent; None if nothing is stored there."""
        if self._pattern is None:
            return self._default
        # As the application sees it: "/%61dmin" is "/admin".
        seen = unquote(path) if "%" in path else path
        plan = self._first(seen, self._pattern)
        if _ODD.search(seen) is None or self._first(_resolved(seen), self._pattern) is plan:
            return plan
        return None  # applications differ in the path that this one is

    def _first(self, path: str, pattern: re.Pattern[str]) -> Plan | None:
        found = pattern.fullmatch(path)
        return self._default if found is None else self._plans[(found.lastindex or 1) - 1]


_ODD: Final = re.compile(r"//|/\.|\\|%")


def _resolved(path: str) -> str:
    """Return a path as an application sees it that resolves all that can be resolved, as WSGI's and files' do.

    >>> _resolved("/static/../admin//x"), _resolved("/a%2Fb/"), _resolved("/..")
    ('/admin/x', '/a/b/', '/')
    """
    path = unquote(path).replace("\\", "/")
    resolved = normpath("/" + path.lstrip("/"))
    return f"{resolved}/" if resolved != "/" and path.endswith("/") else resolved


def _plan(options: Mapping[str, Any], where: str) -> Plan:
    values = {name: parsed(name, value, where) for name, value in options.items()}
    own = {name: values.pop(name) for name in _OWN if name in values}
    return Plan(Policy(**values), **own)


def parsed(name: str, value: Any, where: str) -> Any:
    """Return the value of an option.

    Raises:
        ConfigurationError: it is unknown, or its value means nothing.
    """
    if name not in _OF_POLICY and name not in _OWN:
        raise ConfigurationError(f"{where}A page cache has no option {name!r}.{nearest(name, (*_OF_POLICY, *_OWN))}")
    if name in (*_DURATIONS, "hit_for_miss"):
        return _duration(name, value, where)
    if name in _NAMES or name == "tags":
        if isinstance(value, str | bytes):
            raise ConfigurationError(f"{where}{name} is {value!r}; expected a list of names: [{value!r}].")
        return value if value is None or callable(value) else tuple(value)
    if name == "compress":
        codings.check(value)
    if name == "max_body" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ConfigurationError(f"{where}max_body is {value!r}; expected a number of bytes.")
    return value


def _duration(name: str, value: Any, where: str) -> float | None:
    if value is None and name in ("timeout", "browser_timeout"):
        return None
    try:
        seconds = timeouts.parse_timeout(value)
    except InvalidTimeoutError:
        seconds = -1.0
    if seconds is None:
        return 10.0 * 365 * 86_400
    if seconds < 0:
        raise ConfigurationError(
            f'{where}{name} is {value!r}; expected a duration: seconds, a timedelta, or words such as "90s" or "5m".'
        )
    return seconds
