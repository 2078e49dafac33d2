"""The tables of the documentation that say what the code says: written from it, and held against it.

A page has a place for each between two marks. ``python -m tests.docs_tables`` writes them all anew.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from storeroom.config import CONTEXT_OPTIONS, FRESHNESS_OPTIONS, Option, unchecked
from storeroom.testing.capabilities import CAPABILITIES
from storeroom.urls import SCHEMES

__all__ = ["DOCS", "TABLES", "renewed"]

DOCS: Final = Path(__file__).parents[1] / "docs"

_PLACE: Final = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of generated -->\n)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# Options --------------------------------------------------------------------------------


def _accepts(option: Option) -> str:
    """Return what an option's parser expects, in the words of its own error."""
    if option.parse is unchecked:
        return "as the meaning says"
    try:
        option.parse(object())
    except ValueError as expectation:
        return str(expectation)
    message = f"{option} accepts any object, so that no table can tell what it takes"
    raise TypeError(message)


def _written(value: Any) -> str:
    """Return a default as a person would write it."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 2**20 and value & (value - 1) == 0:
        power, unit = next((power, unit) for power, unit in ((30, "GiB"), (20, "MiB")) if value >= 2**power)
        return f'`"{value >> power}{unit}"`'
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


def options_of(path: str) -> str:
    """Return the table of a backend's options."""
    module, _, name = path.rpartition(".")
    return _options(getattr(import_module(module), name).options)


def _options(options: Mapping[str, Option]) -> str:
    rows = (
        (f"`{option}`", _accepts(known), _written(known.default), known.meaning) for option, known in options.items()
    )
    return _table(("option", "value", "default", "meaning"), rows)


# Others -----------------------------------------------------------------------------------


def url_schemes() -> str:
    """Return the table of the schemes of cache URLs."""
    rows = ((f"`{name}`", f"`{scheme.backend}`", f"`{scheme.example}`") for name, scheme in SCHEMES.items())
    return _table(("scheme", "backend", "example"), rows)


def capabilities() -> str:
    """Return the table of what a backend may lack."""
    return _table(("capability", "a storage that has it"), ((f"`{name}`", what) for name, what in CAPABILITIES.items()))


_BACKENDS: Final = (
    "storeroom.backends.locmem.LocMemCache",
    "storeroom.backends.filebased.FileBasedCache",
    "storeroom.backends.redis.RedisCache",
    "storeroom.backends.db.DatabaseCache",
    "storeroom.backends.memcached.PyMemcacheCache",
    "storeroom.backends.memcached.PyLibMCCache",
)

TABLES: Final[Mapping[str, Callable[[], str]]] = {
    **{f"options of {path}": partial(options_of, path) for path in _BACKENDS},
    "options of every backend": partial(_options, {**FRESHNESS_OPTIONS, **CONTEXT_OPTIONS}),
    "URL schemes": url_schemes,
    "capabilities": capabilities,
}
"""The name in the mark -> what makes the table."""


def renewed(text: str) -> str:
    """Return a page's text with its tables as the code has them now."""
    return _PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", text)


if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text("utf-8")
        if (after := renewed(before)) != before:
            page.write_text(after, "utf-8")
            sys.stdout.write(f"renewed {page.relative_to(DOCS.parent)}\n")
