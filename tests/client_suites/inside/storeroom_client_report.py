"""A plugin of pytest: writes the result of each test of a client's, and whether it used a cache, to a JSON file."""

import json
import os
from pathlib import Path

import pytest
import storeroom_suite_touches
from django.conf import global_settings

_PLAN = json.loads(os.environ["STOREROOM_CLIENT_PLAN"])
#: A test that failed and then could not be taken down is in error: the later of these words wins.
_RANK = ("passed", "skipped", "failed", "error")

_results: dict[str, str] = {}
_reasons: dict[str, str] = {}
_touching: set[str] = set()

storeroom_suite_touches.watch()
if _PLAN.get("interface") == "cachelib":
    import cachelib
if _PLAN["default"] and not _PLAN["settings"]:
    # A suite that calls settings.configure() without CACHES has Django's default, which is this one.
    global_settings.CACHES = {"default": _PLAN["default"]}


def pytest_collection_modifyitems(items):
    """Leave out the tests that call no cache, where the plan names those that do."""
    if _PLAN["only"] is not None:
        items[:] = [item for item in items if item.nodeid in _PLAN["only"]]


def pytest_collection_finish():
    """Watch cachelib's classes, and those that derive from them: by now all are there."""
    if _PLAN.get("interface") == "cachelib":
        storeroom_suite_touches.watch_classes(cachelib.BaseCache)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Note whether the test, its set-up or its end calls a cache."""
    before = storeroom_suite_touches.calls()
    result = yield
    if storeroom_suite_touches.calls() > before:
        _touching.add(item.nodeid)
    return result


def pytest_runtest_logreport(report):
    """Note the result of a test; that of a subtest counts for its test."""
    if report.failed:
        _note(report.nodeid, "failed" if report.when == "call" else "error", report.longreprtext)
    elif report.skipped:
        _note(report.nodeid, "skipped", "")
    elif report.when == "call":
        _note(report.nodeid, "passed", "")


def pytest_sessionfinish():
    """Write the report."""
    report = {"results": _results, "reasons": _reasons, "touching": sorted(_touching)}
    Path(_PLAN["report"]).write_text(json.dumps(report), "utf-8")


def _note(test, result, reason):
    if test not in _results or _RANK.index(result) > _RANK.index(_results[test]):
        _results[test] = result
        _reasons[test] = reason
