"""The pages as Sphinx reads them: copies of docs/ in a folder of their own, with the links of the site."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.docs_site import reference
from tests.docs_site.navigation import DOCS, HOMES, toctrees

__all__ = ["outside_fences", "prepared", "write"]

_FENCED: Final = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
_TO_SOURCE: Final = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:src|benchmarks|tests|examples)[^)]*\)")
_ANCHOR: Final = re.compile(r'^<a id="([^"]+)"></a>$', re.MULTILINE)
_PICTURE: Final = re.compile(
    r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img alt="([^"]*)" src="([^"]+)">\s*</picture>'
)


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Return a page whose text outside of code blocks is changed."""
    parts = _FENCED.split(text)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def _moved(text: str) -> str:
    """Return a page's text with the links of the site: the source itself is not on it."""
    for target, home in HOMES.items():
        text = re.sub(rf"\]\({re.escape(target)}(?=[)#])", f"]({home}", text)
    text = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1py)", text)
    text = _TO_SOURCE.sub(r"\1", text)
    text = _ANCHOR.sub(r"(\1)=", text)
    # The reader's choice of light or dark counts, which a picture's media query does not know.
    return _PICTURE.sub(r"![\2](\3){.only-light} ![\2](\1){.only-dark}", text)


def _up(text: str) -> str:
    """Return a page of the repository's root as one beside docs/index.md."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\]\(CHANGELOG\.md", "](changes.md", text)
    text = re.sub(r"\[([^\]]+)\]\((?:LICENSE|Makefile)\)", r"\1", text)
    return _moved(text)


def _examples() -> Iterator[tuple[str, str]]:
    """Yield the page of the applications in examples/, with their code, if there are any."""
    readme = DOCS.parent / "examples" / "README.md"
    if readme.exists():
        text = re.sub(r"\]\((\w+)\.py\)", r"](#\1py)", readme.read_text("utf-8")).replace("](../docs/", "](")
        code = (f"\n## {path.name}\n\n```python\n{path.read_text('utf-8')}```\n" for path in readme.parent.glob("*.py"))
        yield "examples.md", text + "".join(sorted(code))


def _decisions() -> str:
    """Return the page that lists the decisions, and gives them their place in the tree."""
    names = sorted(path.stem for path in (DOCS / "decisions").glob("[0-9]*.md"))
    listed = "".join(f"{name}\n" for name in names)
    return (
        "# Decisions\n\n*The reasons of the design, a record each: context, decision, consequences, rejected.*\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}```\n"
    )


def prepared() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page of the site."""
    for path in sorted(DOCS.rglob("*.md")):
        name, text = path.relative_to(DOCS).as_posix(), path.read_text("utf-8")
        more = toctrees(text) if name == "index.md" else ""
        yield name, outside_fences(text, _moved) + more
    for root, name in (("CHANGELOG.md", "changes.md"), ("CONTRIBUTING.md", "contributing.md")):
        yield name, outside_fences((DOCS.parent / root).read_text("utf-8"), _up)
    yield from _examples()
    yield "decisions/index.md", _decisions()
    yield from reference.pages()


def write(folder: Path) -> None:
    """Write the pages, their pictures and what they offer to download; files that are as they were keep their time."""
    wanted = dict(prepared())
    kept = {folder / name for name in wanted}
    for name, text in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in DOCS.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            copy = folder / path.relative_to(DOCS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
            kept.add(copy)
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept:
            path.unlink()
