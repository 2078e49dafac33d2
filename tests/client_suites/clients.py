"""Reads clients.toml: the packages whose suites are run, and the tests that differ for a reason."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class ClientsError(Exception):
    """The list itself is wrong."""


@dataclass(frozen=True, slots=True)
class Client:
    """A package with tests of its own; clients.toml explains the fields.

    Attributes:
        interface: "django", or "cachelib" for the suites of its classes.
        differences: a test's id -> the reason why its result is another on Storeroom's classes.
        only_on: a test's id -> the storages on which it is, where it is not on all.
        sometimes: those of `differences` whose results may also be the same.
    """

    name: str
    requirement: str
    needs: tuple[str, ...]
    settings: str
    tests: tuple[str, ...]
    edited: tuple[str, ...]
    storages: tuple[str, ...]
    databases: tuple[str, ...]
    options: tuple[str, ...]
    choice: str
    repeated: tuple[str, ...]
    interface: str
    minimum: int
    touching: int
    differences: dict[str, str]
    only_on: dict[str, frozenset[str]]
    sometimes: frozenset[str] = frozenset()

    @property
    def their_class(self) -> str:
        """A word for the class that ours is compared with."""
        return "Django's class" if self.interface == "django" else "cachelib's class"

    def explained(self, storage: str) -> dict[str, str]:
        """Return the differences that are expected on a storage, with their reasons."""
        return {
            test: reason
            for test, reason in self.differences.items()
            if test not in self.only_on or storage in self.only_on[test]
        }


def load() -> dict[str, Client]:
    """Return the clients by name.

    Raises:
        ClientsError: a field is missing or unknown, a reason is empty, or a test is named twice.
    """
    listed = tomllib.loads((HERE / "clients.toml").read_text("utf-8"))["client"]
    return {client.name: client for client in map(_client, listed)}


def _client(entry: dict[str, Any]) -> Client:
    differences: dict[str, str] = {}
    only_on: dict[str, frozenset[str]] = {}
    sometimes: set[str] = set()
    for difference in entry.pop("difference", []):
        for test in difference["tests"]:
            if test in differences or not difference["reason"].strip():
                message = f"{entry['name']}: {test} is named twice, or without a reason"
                raise ClientsError(message)
            differences[test] = difference["reason"]
            if "storages" in difference:
                only_on[test] = frozenset(difference["storages"])
        if difference.get("sometimes"):
            sometimes.update(difference["tests"])
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    try:
        empty = dict.fromkeys(("databases", "options", "repeated"), ())
        given = {**empty, "choice": "", "settings": "", "interface": "django", **fields}
        return Client(**given, differences=differences, only_on=only_on, sometimes=frozenset(sometimes))
    except TypeError as error:
        message = f"{entry.get('name', 'a client without a name')}: {error}"
        raise ClientsError(message) from error
