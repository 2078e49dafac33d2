"""Reads exclusions.toml: the tests of Django's that are left out, and the reason of each."""

import re
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIFFERENCES = HERE.parents[1] / "docs" / "differences.md"


class ExclusionError(Exception):
    """The list itself is wrong."""


@dataclass(frozen=True, slots=True)
class Exclusions:
    """The tests that are left out.

    Attributes:
        tests: a test's id -> the reason it is left out.
        fixtures: a set-up method's dotted path -> the reason it is left out, its tests being run without it.
        other_storages: a test class's dotted path -> the storage of Django's that it tests.
        isolated: a test's id -> the reason why all aliases of local memory are cleared before it.
        since: a test's id -> the first Django that has it, where the oldest one here has not.
        emptied: a fixture's dotted path -> the reason why all aliases are cleared in its place.
        only_on: a test's id or a fixture's path -> the one storage on which it is left out or replaced.
    """

    tests: dict[str, str]
    fixtures: dict[str, str]
    other_storages: dict[str, str]
    isolated: dict[str, str]
    since: dict[str, str] = field(default_factory=dict)
    emptied: dict[str, str] = field(default_factory=dict)
    only_on: dict[str, str] = field(default_factory=dict)

    def of(self, version: str) -> "Exclusions":
        """Return the exclusions of that Django's tests."""
        later = {test for test, first in self.since.items() if _numbers(first) > _numbers(version)}
        return replace(self, tests={test: why for test, why in self.tests.items() if test not in later})

    def on(self, storage: str) -> "Exclusions":
        """Return the exclusions on a storage."""
        elsewhere = {name for name, only in self.only_on.items() if only != storage}
        tests = {test: why for test, why in self.tests.items() if test not in elsewhere}
        emptied = {method: why for method, why in self.emptied.items() if method not in elsewhere}
        return replace(self, tests=tests, emptied=emptied)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def load() -> Exclusions:
    """Read the list.

    Raises:
        ExclusionError: a reason is missing, a test is named twice, or docs/differences.md has no such heading.
    """
    listed = tomllib.loads((HERE / "exclusions.toml").read_text("utf-8"))
    tests: dict[str, str] = {}
    for entry in listed["private"]:
        _add(tests, entry, f"private: it reads {entry['attribute']}")
    for entry in listed["difference"]:
        _add(tests, entry, f"difference: {entry['heading']}")
    isolated: dict[str, str] = {}
    emptied: dict[str, str] = {}
    for entry in listed["emptied"]:
        _add(emptied, {"tests": entry["methods"]}, f"difference: {entry['heading']}")
    for entry in listed["isolated"]:
        _add(isolated, entry, f"difference: {entry['heading']}")
    differing = [*listed["difference"], *listed["isolated"], *listed["emptied"]]
    for heading in {entry["heading"] for entry in differing} - _headings():
        message = f"{heading!r} is no heading of docs/differences.md"
        raise ExclusionError(message)
    fixtures = {entry["method"]: f"private: it reads {entry['attribute']}" for entry in listed.get("fixture", [])}
    entries = [*listed["private"], *listed["difference"], *listed["emptied"]]
    since = {test: entry["since"] for entry in entries if "since" in entry for test in entry["tests"]}
    only_on = {
        name: entry["only_on"]
        for entry in entries
        for name in entry.get("tests", entry.get("methods"))
        if "only_on" in entry
    }
    return Exclusions(tests, fixtures, listed["other_storages"], isolated, since, emptied, only_on)


def _add(tests: dict[str, str], entry: dict[str, Any], reason: str) -> None:
    for test in entry["tests"]:
        if test in tests:
            message = f"{test} is left out twice: {tests[test]}; {reason}"
            raise ExclusionError(message)
        tests[test] = reason


def _headings() -> set[str]:
    text = DIFFERENCES.read_text("utf-8") if DIFFERENCES.exists() else ""
    return {match.strip() for match in re.findall(r"^#{2,4} +(.+)$", text, re.MULTILINE)}
