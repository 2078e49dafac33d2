"""Tells which tests call a method of a cache: a test that calls none says nothing about the class of the cache.

It runs within the process of a suite, be it Django's own or a client's of Django, on any class of cache.
"""

import functools
import inspect

from django.core.cache import CacheHandler
from django.core.cache.backends.base import BaseCache

#: Every public method of Django's caches; not close(), which Django calls after each request, nor what makes keys.
_NAMES = {name for name in vars(BaseCache) if not name.startswith("_")} | {"__contains__"}
_METHODS = _NAMES - {"close", "aclose", "default_key_func", "make_key", "make_and_validate_key", "validate_key"}

_create = CacheHandler.create_connection
_seen: set[type] = set()
_calls = 0


def watch():
    """Note the calls of all caches that are made from now on, whatever their class."""

    def create_connection(self, alias):
        cache = _create(self, alias)
        for base in type(cache).__mro__[:-1]:
            if base not in _seen:
                _seen.add(base)
                _watch_class(base)
        return cache

    CacheHandler.create_connection = create_connection


def watch_classes(base):
    """Note the calls of a class of another interface, and of all that derive from it."""
    names = {name for name in vars(base) if not name.startswith("_")} | _METHODS
    found = [base]
    for kind in found:
        found += [below for below in kind.__subclasses__() if below not in found]
        _watch_class(kind, names)


def calls():
    """Return the number of calls so far."""
    return _calls


def _watch_class(base, names=_METHODS):
    for name in names & vars(base).keys():
        method = vars(base)[name]
        if inspect.isfunction(inspect.unwrap(method)):  # a compiled method wraps one
            setattr(base, name, noted(method))


def noted(method):
    """Return a function whose calls are noted, too."""

    @functools.wraps(method)
    def call(*args, **kwargs):
        global _calls  # noqa: PLW0603 (one number for the process)
        _calls += 1
        return method(*args, **kwargs)

    return call
