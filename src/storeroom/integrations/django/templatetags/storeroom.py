"""``{% load storeroom %}``: ``{% cache %}`` with Django's arguments and Django's key, made once however many ask.

    {% cache 500 sidebar request.user.id tags="news,menu" stale=60 %} ... {% endcache %}

`tags` are names with commas between them, or a list; `stale` is for how long a fragment is served that is made anew in
the background.
"""

import threading
from copy import copy
from typing import Any, Final

from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.utils import make_template_fragment_key
from django.db import close_old_connections
from django.template import Library, Node, TemplateSyntaxError, VariableDoesNotExist

from storeroom.exceptions import ComputationCycleError, InvalidTimeoutError
from storeroom.timeouts import parse_timeout

__all__ = ["FragmentNode", "register"]

register = Library()

_OPTIONS: Final = ("using", "tags", "stale")

_LEAST: Final = 3
"""Words that the tag has at least."""


class FragmentNode(Node):
    """A part of a template, kept in a cache.

    Args:
        nodelist: the part.
        timeout: its lifetime, as an expression.
        name: of the part.
        vary_on: the expressions that it differs by.
        options: the other expressions, by name: using, tags, stale.
    """

    def __init__(self, nodelist: Any, timeout: Any, name: str, vary_on: list[Any], options: dict[str, Any]) -> None:
        self.nodelist, self._timeout, self._name = nodelist, timeout, name
        self._vary_on, self._options = vary_on, options

    def render(self, context: Any) -> str:
        """Return the part: stored, or made now.

        Raises:
            TemplateSyntaxError: a value of the tag means nothing.
        """
        timeout = _duration(self._timeout, context, "timeout")
        cache, freshness = self._cache(context), self._freshness(context)
        key = make_template_fragment_key(self._name, [each.resolve(context) for each in self._vary_on])
        if freshness and not hasattr(cache, "_storage_key"):
            raise TemplateSyntaxError(
                f'"cache" tag got {sorted(freshness)} for a cache of {type(cache).__module__}, which cannot do that.'
            )
        make = self._apart(context) if "stale_while_revalidate" in freshness else self._made(context)
        try:
            return str(cache.get_or_set(key, make, timeout, **freshness))
        except ComputationCycleError:  # within itself, as Django allows
            return str(self.nodelist.render(context))

    def _made(self, context: Any) -> Any:
        # A plain text, as every serializer reads it back: nodes are not escaped.
        return lambda: "".join([self.nodelist.render(context)])

    def _apart(self, context: Any) -> Any:
        """Return a function that makes the part in any thread, of the values of now."""
        asking = threading.get_ident()
        apart = copy(context)
        for each in (apart, apart.render_context):
            each.dicts = [dict(level) for level in each.dicts]

        def make() -> str:
            if threading.get_ident() == asking:
                return str(self._made(context)())
            try:
                return str(self._made(apart)())
            finally:
                close_old_connections()

        return make

    def _cache(self, context: Any) -> Any:
        if "using" not in self._options:
            try:
                return caches["template_fragments"]
            except InvalidCacheBackendError:
                return caches["default"]
        alias = _resolved(self._options["using"], context)
        try:
            return caches[alias]
        except InvalidCacheBackendError:
            raise TemplateSyntaxError(f"Invalid cache name specified for cache tag: {alias!r}") from None

    def _freshness(self, context: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if "tags" in self._options:
            tags = _resolved(self._options["tags"], context)
            found["tags"] = [tag.strip() for tag in tags.split(",")] if isinstance(tags, str) else list(tags)
        if "stale" in self._options:
            found["stale_while_revalidate"] = _duration(self._options["stale"], context, "stale")
        return found


def _resolved(expression: Any, context: Any) -> Any:
    try:
        return expression.resolve(context)
    except VariableDoesNotExist:
        raise TemplateSyntaxError(f'"cache" tag got an unknown variable: {expression.var!r}') from None


def _duration(expression: Any, context: Any, name: str) -> float | None:
    """Return a number of seconds, from one, or from words such as "5m"; None for ever."""
    value = _resolved(expression, context)
    try:
        return int(value)
    except (ValueError, TypeError):
        pass
    try:
        return parse_timeout(value)
    except InvalidTimeoutError:
        raise TemplateSyntaxError(
            f'"cache" tag got a non-integer timeout value: {value!r}; as its {name} it takes seconds, None, or words '
            'such as "5m".'
        ) from None


def cache_tag(parser: Any, token: Any) -> FragmentNode:
    """Compile ``{% cache timeout name [vary ...] [using=...] [tags=...] [stale=...] %}``.

    Raises:
        TemplateSyntaxError: there are less than two arguments.
    """
    nodelist = parser.parse(("endcache",))
    parser.delete_first_token()
    words = token.split_contents()
    options = {}
    while len(words) > _LEAST and words[-1].partition("=")[0] in _OPTIONS and "=" in words[-1]:
        name, _, expression = words.pop().partition("=")
        options[name] = parser.compile_filter(expression)
    if len(words) < _LEAST:
        raise TemplateSyntaxError(f"'{words[0]!r}' tag requires at least 2 arguments.")
    vary_on = [parser.compile_filter(word) for word in words[3:]]
    return FragmentNode(nodelist, parser.compile_filter(words[1]), words[2], vary_on, options)


register.tag("cache", cache_tag)
