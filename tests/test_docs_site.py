"""The site: every page has its place in the tree, every link stays on it, and broken ones are noticed.

``make docs`` builds it, with the tools of the group ``docs``; nothing here needs them.
"""

import posixpath
import re
from collections import Counter

import pytest

import storeroom
from tests.docs_site import checking, navigation, reference
from tests.docs_site.navigation import DOCS
from tests.docs_site.sources import outside_fences, prepared

PAGES = dict(prepared())


def test_every_page_has_one_place_in_the_tree() -> None:
    """Each page is in one section of docs/index.md, or below the decisions or the reference, and nowhere else."""
    placed = [page for section in navigation.sections(PAGES["index.md"]) for page in section.pages]
    for parent in ("decisions", "reference"):
        tree = PAGES[f"{parent}/index.md"].partition("```{toctree}")[2]
        placed += [f"{parent}/{name}" for name in re.findall(r"^([\w-]+)$", tree, re.MULTILINE)]
    assert [page for page, times in Counter(placed).items() if times > 1] == []
    assert {f"{page}.md" for page in placed} == PAGES.keys() - {"index.md"}


def test_the_tree_begins_with_the_tutorial() -> None:
    """Readers turn the pages of the tutorial in its order."""
    tutorial = navigation.sections(PAGES["index.md"])[0]
    assert tutorial.caption == "Tutorial"
    assert [page.removeprefix("tutorial/")[0] for page in tutorial.pages] == list("1234567")


def links_of(text: str) -> list[str]:
    found: list[str] = []
    outside_fences(text, lambda part: found.extend(re.findall(r"\]\(\s*<?([^)\s>]+)", part)) or part)
    return [link for link in found if not re.match(r"[a-z]+:|#", link)]


@pytest.mark.parametrize("name", PAGES)
def test_links_stay_on_the_site(name: str) -> None:
    """Each link of a page leads to a page of the site, or to a file that comes with it."""
    targets = (posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) for link in links_of(PAGES[name]))
    paths = {target.partition("#")[0] for target in targets}
    assert {path for path in paths if path not in PAGES and not (DOCS / path).is_file()} == set()


def test_the_reference_has_every_public_name() -> None:
    """Each name of storeroom.__all__ stands on a page of the reference."""
    told = {name for page in reference.PAGES.values() for _, name in page.objects}
    assert {f"storeroom.{name}" for name in storeroom.__all__} - told == set()


def test_a_broken_link_and_a_foreign_host_are_noticed(tmp_path) -> None:
    """A link to no page, one to no anchor, and files of a foreign host are found in a built site; others are not."""
    (tmp_path / "style.css").write_text("@import 'https://fonts.example/a.css'; b { background: url(data:,) }")
    (tmp_path / "there.html").write_text("<h1 id='here'>There</h1>")
    (tmp_path / "index.html").write_text(
        "<link rel='stylesheet' href='style.css'><script src='//scripts.example/a.js'></script>"
        "<a href='there.html#here'></a><a href='https://example.org'></a><a href='#top'></a>"
        "<a href='nowhere.html'></a><a href='there.html#gone'></a>"
    )
    assert list(checking.broken_links(tmp_path)) == ["index.html: nowhere.html", "index.html: there.html#gone"]
    assert list(checking.foreign_requests(tmp_path)) == [
        "index.html: //scripts.example/a.js",
        "style.css: https://fonts.example/a.css",
    ]
