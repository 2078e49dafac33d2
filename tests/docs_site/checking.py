"""The built site, read as a browser reads it: links that lead nowhere, and files that a foreign host would serve."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag, urlsplit

__all__ = ["broken_links", "foreign_requests"]

#: Attributes that make a browser fetch something; of links, ``href`` of these relations alone does.
_FETCHED: Final = {"src", "srcset", "poster", "data"}
_FETCHED_RELATIONS: Final = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "modulepreload", "dns-prefetch"}
_FOREIGN: Final = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
_IN_STYLES: Final = re.compile(r"""url\(\s*['"]?((?:https?:)?//[^)'"]+)|@import\s+['"]((?:https?:)?//[^'"]+)""")


class _Page(HTMLParser):
    """The anchors, links and fetched files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.fetched += [values[name] for name in _FETCHED & values.keys()]
        if "href" in values:
            fetches = tag == "link" and set(values.get("rel", "").split()) & _FETCHED_RELATIONS
            (self.fetched if fetches else self.links).append(values["href"])


@cache
def _pages(site: Path) -> Mapping[Path, _Page]:
    return {path.resolve(): _Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link and each fetched file of the site that leads to no file or no anchor of it."""
    pages = _pages(site)
    for path, page in pages.items():
        for link in (*page.links, *page.fetched):
            target, anchor = urldefrag(link)
            if _FOREIGN.match(link) or urlsplit(link).scheme:
                continue
            file = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            known = pages.get(file)
            if not file.is_file() or (known and unquote(anchor) not in known.anchors):
                yield f"{path.relative_to(site.resolve())}: {link}"


def foreign_requests(site: Path) -> Iterator[str]:
    """Yield each file that a browser would ask a foreign host for."""
    for path, page in _pages(site).items():
        yield from (f"{path.name}: {target}" for target in page.fetched if _FOREIGN.match(target))
    for style in sorted(site.rglob("*.css")):
        yield from (f"{style.name}: {found[0] or found[1]}" for found in _IN_STYLES.findall(style.read_text("utf-8")))
