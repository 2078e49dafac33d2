"""The tree of the site: the sections of docs/index.md, and the pages that their lists link to."""

import re
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

__all__ = ["DOCS", "HOMES", "Section", "home_of", "sections", "toctrees"]

DOCS: Final = Path(__file__).parents[2] / "docs"

#: Files outside docs/, folders without a page of their own, and their places on the site.
HOMES: Final = {
    "../CHANGELOG.md": "changes.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../examples/README.md": "examples.md",
    "decisions": "decisions/index.md",
}

#: Pages that exist on the site alone, behind those of their section.
MADE: Final = {"Reference": ("reference/index",)}

_SECTION: Final = re.compile(r"^## (.+)$", re.MULTILINE)
_ENTRY: Final = re.compile(r"^(?:-|\d+\.) \[.*?\]\(([^)#]+)\)", re.MULTILINE)


class Section(NamedTuple):
    """A caption of the tree, and its pages by their names on the site, such as ``backends/redis``."""

    caption: str
    pages: tuple[str, ...]


def home_of(target: str) -> str:
    """Return the place on the site of a link's target in docs/index.md."""
    return HOMES.get(target, target)


def sections(index: str) -> list[Section]:
    """Return the sections of docs/index.md that list pages."""
    _, *parts = _SECTION.split(index)
    found = []
    for caption, body in zip(parts[::2], parts[1::2], strict=True):
        pages = tuple(str(PurePosixPath(home_of(target)).with_suffix("")) for target in _ENTRY.findall(body))
        if pages:
            found.append(Section(caption, (*pages, *MADE.get(caption, ()))))
    return found


def toctrees(index: str) -> str:
    """Return the directives by which Sphinx learns the tree; they show nothing on the page itself."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "".join(f"{page}\n" for page in pages) + "```\n"
        for caption, pages in sections(index)
    )
