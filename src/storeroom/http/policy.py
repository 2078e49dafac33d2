"""The options of the rules: the times of pages that say nothing themselves, and what requests differ by."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["ANALYTICS_COOKIES", "TRACKING_PARAMETERS", "Policy"]

ANALYTICS_COOKIES: Final = (
    "_ga", "_ga_*", "_gid", "_gat*", "_gcl_*", "__utm*", "_fbp", "_fbc", "_hj*", "_pk_*", "_clck", "_clsk", "_uet*",
)  # fmt: skip
"""Cookies that scripts in the browser write for themselves: no page depends on them."""

TRACKING_PARAMETERS: Final = ("utm_*", "gclid", "fbclid", "msclkid", "mc_cid", "mc_eid", "_ga", "_gl")
"""Parameters that links carry for the same scripts."""

CSRF_SIGNS: Final = (
    b"csrfmiddlewaretoken", b"csrf_token", b"csrf-token", b"csrfToken", b"authenticity_token", b'name="_xsrf"',
    b'name="_csrf"', b"__RequestVerificationToken",
)  # fmt: skip
"""Parts of a page that carries a token against forged requests, which is one visitor's own."""

CSRF_HEADERS: Final = frozenset({b"x-csrf-token", b"x-csrftoken", b"x-xsrf-token", b"csrf-token"})
"""Headers of an answer that carries one."""


@dataclass(frozen=True)
class Policy:
    """The options of the rules, the same for all requests. Durations are seconds.

    Attributes:
        timeout: the lifetime of a page that says none itself; None: it is not stored.
        browser_timeout: the lifetime that browsers are told instead of the page's own; None: they are told that.
        stale_while_revalidate: for how long a stale page is served while it is made anew, if it does not say.
        stale_if_error: for how long it is served while it cannot be made anew, if it does not say.
        revalidate_for: for how long a stale page with a validator is kept, so that the application may say that it
            is as it was.
        max_body: bytes; a larger page is not stored.
        targeted: names of fields, the first of which that is there counts instead of Cache-Control (RFC 9213).
        vary_on: headers that pages differ by, whether they say so or not.
        vary_on_cookies: the only cookies that pages differ by; they do whether they say so or not. None: a page
            differs by all of them if it says ``Vary: Cookie``.
        ignored_cookies: cookies that no page differs by; ``*`` at the end stands for any ending.
        declared_cookies: cookies for which a page that differs by them says ``Vary: Cookie``, as the framework sees to;
            a request that has them is answered by pages that do not say so.
        ignored_parameters: parameters of the query that no page differs by, likewise.
        honours_requests: whether the directives in a request's Cache-Control count: whoever asks may then have a page
            made anew.
        serves_ranges: whether parts of a stored page are served from it; else the application serves them.
        stores_tokens: whether pages with tokens against forged requests may be stored.
        tells_timeout: whether browsers are told the timeout of a page that says none itself.
        overrides_lifetimes: whether the timeout counts for pages that say a lifetime, too; browsers are told theirs.
    """

    timeout: float | None = None
    browser_timeout: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    revalidate_for: float = 0.0
    max_body: int = 1_000_000
    targeted: tuple[str, ...] = ()
    vary_on: tuple[str, ...] = ()
    vary_on_cookies: tuple[str, ...] | None = None
    ignored_cookies: tuple[str, ...] = ANALYTICS_COOKIES
    ignored_parameters: tuple[str, ...] = ()
    declared_cookies: tuple[str, ...] = ()
    honours_requests: bool = False
    serves_ranges: bool = False
    stores_tokens: bool = False
    tells_timeout: bool = False
    overrides_lifetimes: bool = False

    @cached_property
    def targeted_names(self) -> tuple[bytes, ...]:
        """The names of targeted fields as headers have them."""
        return tuple(name.lower().encode("latin-1") for name in self.targeted)

    @cached_property
    def vary_names(self) -> tuple[bytes, ...]:
        """The headers that every page differs by."""
        own = {name.lower().encode("latin-1") for name in self.vary_on}
        return tuple(sorted(own | ({b"cookie"} if self.vary_on_cookies else set())))

    @cached_property
    def cookie_names(self) -> frozenset[bytes] | None:
        """The only cookies that pages differ by; None for all."""
        if self.vary_on_cookies is None:
            return None
        return frozenset(name.encode("latin-1") for name in self.vary_on_cookies)

    @cached_property
    def ignores_cookie(self) -> re.Pattern[bytes]:
        """Names of cookies that no page differs by."""
        return _pattern(self.ignored_cookies)

    @cached_property
    def allows_cookie(self) -> re.Pattern[bytes]:
        """Names of cookies that a request may have, for a page that does not say that it differs by them."""
        return _pattern((*self.ignored_cookies, *self.declared_cookies))

    @cached_property
    def allows_cookies(self) -> re.Pattern[bytes]:
        """Whole headers of such cookies and named ones alone; in the usual form, in which no value hides another."""
        named = (name for name in self.vary_on_cookies or () if "*" not in name)
        names = [*self.ignored_cookies, *self.declared_cookies, *named]
        usual = tuple(name for name in names if name and not re.search(r'[=;\s,"]', name))
        # It gives back nothing that it has taken: its time is that of the length.
        return _pattern(usual, r'[^=;\s,"]*', r'(?>(?:%s)=[^;\s,"]*(?:; ?|\Z))*+')

    @cached_property
    def ignores_parameter(self) -> re.Pattern[bytes]:
        """Names of parameters that no page differs by."""
        return _pattern(self.ignored_parameters)


def _pattern(names: tuple[str, ...], ending: str = ".*", around: str = "%s") -> re.Pattern[bytes]:
    """Return a pattern for whole names, in which a star at the end stands for any ending."""
    forms = [re.escape(name.rstrip("*")) + (ending if name.endswith("*") else "") for name in names]
    form = "|".join(f"(?:{form})" for form in forms) or "(?!)"
    return re.compile((around % form).encode("latin-1"), re.DOTALL)
