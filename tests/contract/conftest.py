"""Variants of a storage run most of their tests in one mode."""

from typing import Any

import pytest

from tests.contract.parts import is_left_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Take out what variants leave to other suites of their storage."""
    kept, left = list[Any](), list[Any]()
    for item in items:
        mode = getattr(item, "callspec", None) and item.callspec.params.get("mode")
        is_out = mode and item.cls is not None and is_left_out(item.cls, item.originalname, mode)
        (left if is_out else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
