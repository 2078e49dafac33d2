"""The documentation, as an installed package knows it: addresses of pages, and the page of findings itself."""

from functools import cache
from importlib import import_module
from typing import Final

__all__ = ["FINDINGS", "address", "findings", "named"]

FINDINGS: Final = "docs/common-mistakes.md"
"""The page with a section for each finding of the checks; the package ships it."""


@cache
def _site() -> str:
    """Return the address of the documentation, from the package's metadata; "" where a program has none of these."""
    metadata = import_module("importlib.metadata")  # for an error or a finding alone: it is slow to load
    try:
        urls = metadata.metadata("storeroom").get_all("Project-URL") or []
    except metadata.PackageNotFoundError:  # a frozen program
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return str(named.get("Documentation", ""))


def address(page: str) -> str:
    """Return the URL of a page, "docs/outages.md" or "docs/outages.md#policies", in the published documentation; or "".

    The pages lie there as in docs/.
    """
    path, _, anchor = page.removeprefix("docs/").partition("#")
    end = f"#{anchor}" if anchor else ""
    return f"{_site()}{path.removesuffix('.md')}.html{end}" if _site() else ""


def named(page: str) -> str:
    """Return a page and its URL, for an error."""
    url = address(page)
    return f"{page} ({url})" if url else page


def findings() -> str:
    """Return the text of the page of findings: the package's own copy, or in a checkout the page itself.

    Raises:
        FileNotFoundError: a program was packed without it.
    """
    package = import_module("pathlib").Path(__file__).parent
    shipped = package / "common-mistakes.md"
    text: str = (shipped if shipped.is_file() else package.parents[1] / FINDINGS).read_text("utf-8")
    return text
