"""The runner that Django's ``runtests.py`` calls: it leaves out what is listed, and doubts the list and the result.

It runs within Django's process, in an environment without the project's tests. Its plan is a JSON file named by
STOREROOM_SUITE_PLAN, and its report goes to another.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import ClassVar
from unittest import TestSuite

import storeroom_suite_pages
import storeroom_suite_touches
from django.apps import apps
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache as DjangoBaseCache
from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases, override_settings
from django.utils.module_loading import import_string

_PLAN = json.loads(Path(os.environ["STOREROOM_SUITE_PLAN"]).read_text("utf-8"))
_BACKENDS = os.environ["STOREROOM_SUITE_BACKENDS"]
_CLASSES = (
    "locmem.LocMemCache",
    "filebased.FileBasedCache",
    "dummy.DummyCache",
    "redis.RedisCache",
    "db.DatabaseCache",
    "memcached.PyMemcacheCache",
    "memcached.PyLibMCCache",
)


#: Whether the page cache is under test.
_PAGES = os.environ["STOREROOM_SUITE_STORAGE"] == "pages"

_APP = "storeroom.integrations.django"


class SuiteRunner(DiscoverRunner):
    """Runs the tests that are not left out; with "only_excluded" in the plan, those and no others."""

    def build_suite(self, test_labels=None, **kwargs):
        self.seen = set()
        self.selected = set()
        self.problems = []
        storeroom_suite_touches.watch()
        _check_classes_under_test()
        _install_app()
        if _PAGES:
            storeroom_suite_pages.install()
        _install_engine()
        suite = super().build_suite(test_labels, **kwargs)
        listed = {name for name in _PLAN["tests"] if name.startswith(tuple(f"{label}." for label in test_labels))}
        self.problems += [f"{name} is left out, but does not exist here" for name in sorted(listed - self.seen)]
        if self.problems:
            sys.exit("\n".join(self.problems))
        return suite

    def load_tests_for_label(self, label, discover_kwargs):
        found = list(iter_test_cases(super().load_tests_for_label(label, discover_kwargs)))
        for method in _PLAN["fixtures"]:
            if method.startswith(f"{label}."):
                _drop_fixture(method)
        for method in _PLAN["emptied"]:
            if method.startswith(f"{label}."):
                _replace_fixture(method)
        self.seen.update(test.id() for test in found)
        wanted = [test for test in found if self._is_wanted(test)]
        for test in wanted:
            _let_have_app(type(test))
        self.selected.update(test.id() for test in wanted)
        return TestSuite(wanted)

    def _is_wanted(self, test):
        """Tell whether to run it, and note each contradiction of the list: see the messages."""
        name = type(test).__module__ + "." + type(test).__qualname__
        foreign = [path for path in _backend_paths(type(test)) if not _is_ours(path)]
        if name in _PLAN["other_storages"]:
            return False  # it runs in a phase of its own
        is_excluded = test.id() in _PLAN["tests"]
        if foreign:
            self.problems.append(f"{test.id()} runs on {foreign[0]}, not on a class of {_BACKENDS}")
        return is_excluded == _PLAN["only_excluded"]

    def get_resultclass(self):
        base = super().get_resultclass() or self.test_runner.resultclass
        return type("SuiteResult", (_Result, base), {})

    def suite_result(self, suite, result, **kwargs):
        failed = {_id(test) for test, _ in result.failures + result.errors}
        failed |= {test.id() for test in result.unexpectedSuccesses}
        skipped = {_id(test): reason for test, reason in result.skipped}
        passed = self.selected - failed - skipped.keys()
        if not failed and result.testsRun != len(self.selected):
            sys.exit(f"{len(self.selected)} tests were selected, but {result.testsRun} ran")
        touching = sorted(passed & _Result.touching)
        report = {"passed": sorted(passed), "failed": sorted(failed), "skipped": skipped, "touching": touching}
        Path(_PLAN["report"]).write_text(json.dumps(report), "utf-8")
        return super().suite_result(suite, result, **kwargs)


class _Result:
    """For a result class: notes the tests that call a cache, and empties local memory before those that need it so."""

    touching: ClassVar[set[str]] = set()

    def startTest(self, test):  # noqa: N802 (unittest's name)
        if test.id() in _PLAN["isolated"]:
            _clear_local_memory(test)
        if _PAGES:
            storeroom_suite_pages.clear()
        self.calls = storeroom_suite_touches.calls()
        super().startTest(test)

    def stopTest(self, test):  # noqa: N802 (unittest's name)
        super().stopTest(test)
        if storeroom_suite_touches.calls() > self.calls:
            self.touching.add(test.id())


def _clear_local_memory(test):
    """Clear every alias of local memory that the settings of a test have: see "isolated" in exclusions.toml."""
    local_memory = import_string(f"{_BACKENDS}.{_CLASSES[0]}")
    overridden = getattr(type(test), "_overridden_settings", None) or {}
    with override_settings(CACHES=overridden.get("CACHES", settings.CACHES)):
        for cache in map(caches.__getitem__, settings.CACHES):
            if isinstance(cache, local_memory):
                cache.clear()


def _id(test):
    """The id of a test, be it given as itself or as one of its subtests."""
    return getattr(test, "test_case", test).id()


def _backend_paths(test_class):
    """The BACKEND of every alias in the CACHES that a test class is decorated with; the default settings' otherwise.

    An alias without BACKEND belongs to a server that is not configured, whose class skips itself.
    """
    overridden = getattr(test_class, "_overridden_settings", None) or {}
    caches = overridden.get("CACHES", settings.CACHES)
    return [params.get("BACKEND", "(none)") for params in caches.values()]


def _is_ours(path):
    """Whether a class comes from the package under test, or is a subclass of one that does."""
    if path == "(none)":
        return False
    ours = {f"{_BACKENDS}.{name}" for name in _CLASSES}
    return any(f"{base.__module__}.{base.__qualname__}" in ours for base in import_string(path).__mro__)


def _check_classes_under_test():
    """Fail unless the paths give classes of ours, free of Django's, and the default cache is one of them."""
    classes = [import_string(f"{_BACKENDS}.{name}") for name in _CLASSES]
    if type(caches["default"]) not in classes:
        sys.exit(f"the default cache is a {type(caches['default'])}")
    if _BACKENDS.startswith("storeroom."):
        for backend in classes:
            if not backend.__module__.startswith("storeroom.") or issubclass(backend, DjangoBaseCache):
                sys.exit(f"{backend} is not Storeroom's own")


def _install_app():
    """Install Storeroom's app, as a project does that wants createcachetable to know the database cache."""
    if _BACKENDS.startswith("storeroom.") and not apps.is_installed(_APP):
        apps.set_installed_apps([*settings.INSTALLED_APPS, _APP])


def _install_engine():
    """Let Storeroom's session engine stand where tests import Django's that keeps sessions in a cache."""
    if os.environ["STOREROOM_SUITE_ENGINE"]:
        engine = import_module(os.environ["STOREROOM_SUITE_ENGINE"])
        import_module("django.contrib.sessions.backends.cache").SessionStore = engine.SessionStore
        storeroom_suite_touches.watch_classes(engine.SessionStore)


def _let_have_app(test_class):
    """Let a test class that restricts the apps to some have Storeroom's, too."""
    available = getattr(test_class, "available_apps", None)
    if available is not None and apps.is_installed(_APP) and _APP not in available:
        test_class.available_apps = [*available, _APP]


def _replace_fixture(method):
    """Let a fixture clear all aliases, and do nothing else."""

    def clear(test):
        for cache in map(caches.__getitem__, settings.CACHES):
            cache.clear()

    class_path, name = method.rsplit(".", 1)
    setattr(import_string(class_path), name, clear)


def _drop_fixture(method):
    """Take a test class's own set-up away, so that it has its parent's."""
    class_path, name = method.rsplit(".", 1)
    delattr(import_string(class_path), name)
