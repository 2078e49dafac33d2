"""invalidate_on_change: another key for other code."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from storeroom import cached
from storeroom.exceptions import ConfigurationError
from storeroom.functions.decorator import fingerprint


def module_of(source: str, folder: Path) -> ModuleType:
    """Import a module with this source, as a deploy would have it."""
    folder.mkdir()
    path = folder / "shop.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location("shop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOAD = "def load(id):\n    return {'id': id}\n"


def test_fingerprint_changes_with_the_source(tmp_path: Path) -> None:
    """Equal source gives one fingerprint of 16 characters, wherever it stands; changed source another."""
    one = module_of(LOAD, tmp_path / "1").load
    same = module_of(f"import os\n\n\n{LOAD}", tmp_path / "2").load
    other = module_of(LOAD.replace("'id':", "'number':"), tmp_path / "3").load
    assert fingerprint(True, one) == fingerprint(True, same) == fingerprint(one, len)
    assert fingerprint(True, one) != fingerprint(True, other)
    assert len(fingerprint(True, one)) == 16


def test_fingerprint_does_not_depend_on_layout(tmp_path: Path) -> None:
    """Indentation as a whole, spaces at the end of lines and empty lines change no fingerprint."""
    one = module_of(LOAD, tmp_path / "1").load
    indented = LOAD.replace("def", "    def").replace("    return", "\n        return").replace("}\n", "}  \n")
    within = module_of(f"class Shop:\n{indented}", tmp_path / "2").Shop.load
    assert fingerprint(True, one) == fingerprint(True, within)


def test_fingerprint_of_a_text_is_the_text() -> None:
    """A text is its own fingerprint."""
    assert fingerprint("v2", len) == "v2"


class Schema:
    name: str


def test_fingerprint_of_several_changes_with_each() -> None:
    """The fingerprint of a list depends on each item, its order and its boundaries."""
    found = {
        fingerprint(change, module_of)
        for change in (True, [True, "v1"], [True, "v2"], ["v1", True], [True, Schema], ["v1", "v2"], ["v1v", "2"])
    }
    assert len(found) == 7


def test_fingerprint_of_a_cached_function_is_that_of_the_function() -> None:
    """A cached function has the fingerprint of the function that it wraps."""
    assert fingerprint(cached(key="f:{source}:{folder}")(module_of), len) == fingerprint(module_of, len)


@pytest.mark.parametrize("change", [7, [], "", [None], {"a": 1}], ids=repr)
def test_fingerprint_of_something_else_is_an_error(change: Any) -> None:
    """A number, an empty value or a dict raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="expected True for the decorated function itself"):
        fingerprint(change, module_of)


def test_fingerprint_without_a_source_is_an_error() -> None:
    """A function without source raises when it is decorated, and so when the program starts."""
    names: dict[str, Any] = {}
    exec("def load(id): pass", names)
    with pytest.raises(ConfigurationError, match=r"needs the source of <function load .*Pass a text instead"):
        cached(key="user:{id}", invalidate_on_change=True)(names["load"])
    with pytest.raises(ConfigurationError, match="built-in"):
        fingerprint(len, module_of)


def test_keys_end_with_the_fingerprint() -> None:
    """invalidate_on_change appends # and the fingerprint to the key."""

    @cached(key="user:{number}", invalidate_on_change="v2")
    def load(number: int) -> int:
        return number

    @cached(invalidate_on_change=[True, Schema])
    def find(number: int) -> int:
        return number

    assert load.key(7) == "user:7#v2"
    assert find.key(7).endswith(f"(number=7)#{fingerprint([True, Schema], find.uncached)}")
