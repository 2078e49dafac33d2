"""The paths of views, by Django's routes: for invalidate(view=...)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from django import conf
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.urls import NoReverseMatch, get_resolver, get_script_prefix, get_urlconf, reverse
from django.urls.resolvers import get_ns_resolver
from django.utils import translation

__all__ = ["paths_of"]


def paths_of(view: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the paths of a view, in all languages that its routes know, with a star for an argument not given.

    Raises:
        NoReverseMatch: no route has this name and these arguments.
    """
    urlconf = get_urlconf() or conf.settings.ROOT_URLCONF
    languages = [translation.get_language()]
    if conf.settings.USE_I18N and is_language_prefix_patterns_used(urlconf)[0]:
        languages = [code for code, _ in conf.settings.LANGUAGES]
    found: dict[str, None] = {}
    for language in languages:
        with translation.override(language):
            found |= dict.fromkeys(_paths(view, args, kwargs))
    return list(found)


def _paths(view: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """Return the paths of the language in force."""
    forms = [] if args else list(_forms(view, kwargs))
    try:
        return [reverse(view, args=args, kwargs=dict(kwargs)), *forms]
    except NoReverseMatch:
        if forms:
            return forms
        raise


def _forms(view: Any, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of all routes that have more arguments than these."""
    resolver, name = _resolver_of(view)
    for forms, _, defaults, converters in resolver.reverse_dict.getlist(name):
        for form, names in forms:
            if set(names) > kwargs.keys() - defaults.keys():
                texts = {
                    each: converters[each].to_url(kwargs[each]) if each in kwargs and each in converters
                    else str(kwargs.get(each, "*"))
                    for each in names
                }  # fmt: skip
                path = f"{get_script_prefix()}{form % texts}"
                yield quote(path, safe="!$&'()*+,;=/~:@")


def _resolver_of(view: Any) -> tuple[Any, Any]:
    """Return the resolver that knows a view, and its name there, as reverse() finds them."""
    urlconf = get_urlconf()
    resolver = get_resolver(urlconf)
    *spaces, name = view.split(":") if isinstance(view, str) else [view]
    pattern, converters = "", dict[str, Any]()
    for space in spaces:
        apps = resolver.app_dict.get(space, [space])
        known = space if space in apps else apps[0]
        if known not in resolver.namespace_dict:
            raise NoReverseMatch(f"{space!r} is no namespace of the routes, in the name {view!r} of a view.")
        extra, resolver = resolver.namespace_dict[known]
        pattern += extra
        converters |= resolver.pattern.converters
    return (get_ns_resolver(pattern, resolver, tuple(converters.items())) if pattern else resolver), name
