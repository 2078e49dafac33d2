"""``python -m tests.docs_site``: builds the site into build/site; a warning of Sphinx's or a broken link ends it."""

import sys
import time
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

from tests.docs_site import checking, sources
from tests.docs_site.navigation import DOCS

ROOT: Final = DOCS.parent
SOURCES: Final = ROOT / ".cache" / "site"
SITE: Final = ROOT / "build" / "site"


def build() -> None:
    """Build the site.

    Raises:
        sphinx.errors.SphinxError: a page has a warning.
    """
    sources.write(SOURCES / "source")
    app = Sphinx(
        SOURCES / "source",
        Path(__file__).parent,
        SITE,
        SOURCES / "doctrees",
        "html",
        status=None,
        warningiserror=True,
        parallel=2,
    )
    app.build()
    if app.statuscode:
        sys.exit(app.statuscode)


def main() -> None:
    """Build the site and check it."""
    begun = time.perf_counter()
    build()
    wrong = [f"leads nowhere: {link}" for link in checking.broken_links(SITE)]
    wrong += [f"asks a foreign host: {target}" for target in checking.foreign_requests(SITE)]
    if wrong:
        sys.exit("\n".join(wrong))
    pages = len(list(SITE.rglob("*.html")))
    sys.stdout.write(f"{pages} pages in {time.perf_counter() - begun:.1f} s: {SITE / 'index.html'}\n")


if __name__ == "__main__":
    main()
