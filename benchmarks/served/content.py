"""The two pages of all applications: a list that is made into JSON for each answer, and a ready text of 5 kB."""

import json
from typing import Any, Final

__all__ = ["BODIES", "HTML", "ROWS", "SECONDS"]

ROWS: Final[list[dict[str, Any]]] = [
    {"id": number, "name": f"item {number}", "price": number * 1.5, "tags": ["new", "small"], "in_stock": True}
    for number in range(100)
]
HTML: Final = f"<!doctype html><title>News</title><p>{'All is well today. ' * 276}".ljust(5_000)[:5_000]

BODIES: Final = {"/rows": json.dumps(ROWS, separators=(",", ":")).encode(), "/page": HTML.encode()}
"""As the application without a framework answers them."""

SECONDS: Final = 3_600
"""Lifetime of a page: none expires while it is measured."""
