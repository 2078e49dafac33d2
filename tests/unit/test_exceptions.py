"""The family of errors: as the module draws it."""

import builtins
import pickle
import re
from typing import Any

import pytest

from storeroom import exceptions

LINE = re.compile(r"^    (?P<stem>[│ ├└─]*)(?P<name>[A-Z]\w+)(?: +\((?P<base>\w+)\))?", re.MULTILINE)


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Return the name of each error in the tree, with those of the error above it, and of its other base."""
    above: list[str] = []
    found: dict[str, tuple[str | None, str | None]] = {}
    for line in LINE.finditer((exceptions.__doc__ or "").partition("An UnreachableError is caught")[0]):
        depth = len(line["stem"]) // 4
        above[depth:] = [line["name"]]
        found[line["name"]] = (above[depth - 1] if depth else None, line["base"])
    return found


def named(name: str) -> Any:
    """Return the class of a name: ours, the standard library's, or pickle's."""
    return getattr(exceptions, name, None) or getattr(builtins, name, None) or getattr(pickle, name)


def test_the_tree_has_every_error() -> None:
    """Each error of the module is drawn once, and no other."""
    assert sorted(drawn()) == sorted(exceptions.__all__) == sorted(set(exceptions.__all__))


@pytest.mark.parametrize("name", drawn())
def test_an_error_has_the_bases_that_are_drawn(name: str) -> None:
    """Its own is the error above it, and the other one is of the standard library."""
    above, base = drawn()[name]
    bases = [each.__name__ for each in named(name).__bases__]
    if above is None:
        assert bases == [base or "Exception"]
    else:
        assert bases == [each for each in (above, base) if each]
