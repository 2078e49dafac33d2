"""The work of the demo's processes: they render pydoc pages through a file cache.

The demo starts each of them as ``python -m storeroom.cli.demo.pages DIRECTORY``: a fresh interpreter that opens the
cache by itself, takes orders from its standard input and writes reports to its standard output, one JSON object a line.
It ends when its input does.

===============================  ============================================================
order                            report
===============================  ============================================================
(when it is ready)               ``{"ready": true}``
``{"read": [module, ...]}``      ``{"progress": pages}`` now and then, at last ``{"tally": {...}}``
``{"advise": []}``               ``{"advice": text}``: cache.advice(), from all that this process has read
``{"survey": [module, ...]}``    ``{"stored": pages}``: the number that can be read, computing none
``{"forget": [module, ...]}``    ``{"forgotten": true}``; without modules: all pages
(on a mistake in its settings)   ``{"error": message}``
===============================  ============================================================
"""

import hashlib
import html
import importlib
import importlib.util
import json
import os
import pkgutil
import platform
import pydoc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TextIO, TypedDict

from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.cli.exits import INTERRUPTED, MISTAKE, YES
from storeroom.exceptions import StoreroomError

__all__ = ["KEY_PREFIX", "Page", "Tally", "open_cache", "read_pages", "render", "standard_library"]

KEY_PREFIX: Final = f"pydoc-{platform.python_version()}"  # pages of another Python are other pages
PROGRESS_SECONDS: Final = 0.1  # often enough for a smooth bar, too seldom to cost the pass anything

UNSUITABLE: Final = {
    "antigravity",  # opens a web browser
    "this",  # prints a poem
    "idlelib",  # an application
    "lib2to3",  # warns that it is going away, and no longer parses itself
    "test",  # Python's own tests
    "turtle",  # needs a screen
    "turtledemo",  # opens windows
}
"""Modules of the standard library that are not to be imported for their documentation."""


class Page(TypedDict):
    """The cached page of a module."""

    html: str
    render_seconds: float
    problem: str  # why there is no documentation here; "" if there is


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of one process in one pass."""

    pages: int
    seconds: float
    computations: int  # pages that this process rendered; all others were hits
    seconds_saved: float  # the time that the hits took to render, when somebody did
    unavailable: list[str]  # modules that cannot be imported here
    slowest: str  # the module whose page takes longest to render
    digest: str  # of all pages in order: equal digests, equal pages


def standard_library() -> list[str]:
    """Return the names of the standard library's public modules, submodules included, importing none."""
    names: list[str] = []
    for top in sorted(name for name in sys.stdlib_module_names - UNSUITABLE if not name.startswith("_")):
        # The codecs are a hundred packages' worth of tables: nothing to read there.
        spec = None if top == "encodings" else importlib.util.find_spec(top)
        names += _with_submodules(top, list(spec.submodule_search_locations or ()) if spec is not None else [])
    return names


def _with_submodules(name: str, folders: list[str]) -> Iterator[str]:
    yield name
    for module in pkgutil.iter_modules(folders):
        if not module.name.startswith("_") and module.name not in {"test", "tests"}:
            inside = [str(Path(folder, module.name)) for folder in folders] if module.ispkg else []
            yield from _with_submodules(f"{name}.{module.name}", inside)


def open_cache(directory: str) -> BaseCache:
    """Return the demo's cache: the embedded file cache, with room for every page, for ever; its traffic is recorded."""
    options = {"max_entries": 10_000, "advise": "always"}
    return FileBasedCache(directory, {"TIMEOUT": None, "KEY_PREFIX": KEY_PREFIX, "OPTIONS": options})


def render(module_name: str) -> Page:
    """Render a module's documentation page as ``python -m pydoc -w`` does; this takes up to seconds."""
    started = time.perf_counter()
    problem = ""
    try:
        module = importlib.import_module(module_name)
        started = time.perf_counter()
        page = pydoc.html.page(pydoc.describe(module), pydoc.html.document(module, module_name))
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a module may raise anything, and its page tells it
        problem = f"{type(error).__name__}: {error}"
        page = pydoc.html.page(module_name, html.escape(problem))
    return Page(html=page, render_seconds=time.perf_counter() - started, problem=problem)


def read_pages(cache: BaseCache, modules: Sequence[str], report: Callable[[int], None]) -> Tally:
    """Read these modules' pages through the cache, rendering the missing ones; `report` the number that is done."""
    computed: list[str] = []
    pages: dict[str, Page] = {}
    started = reported = time.perf_counter()
    for module in modules:
        pages[module] = cache.get_or_set(module, partial(_compute, module, computed))
        if time.perf_counter() - reported > PROGRESS_SECONDS:
            reported = time.perf_counter()
            report(len(pages))
    return _tally(pages, computed, time.perf_counter() - started)


def _compute(module: str, computed: list[str]) -> Page:
    computed.append(module)
    return render(module)


def _tally(pages: dict[str, Page], computed: Sequence[str], seconds: float) -> Tally:
    everything = "".join(page["html"] for page in pages.values()).encode("utf-8", "surrogatepass")
    return Tally(
        pages=len(pages),
        seconds=seconds,
        computations=len(computed),
        seconds_saved=sum(pages[module]["render_seconds"] for module in pages.keys() - computed),
        unavailable=[module for module, page in pages.items() if page["problem"]],
        slowest=max(pages, key=lambda module: pages[module]["render_seconds"]),
        digest=hashlib.blake2b(everything, digest_size=8).hexdigest(),
    )


def _obey(cache: BaseCache, order: dict[str, list[str]], report: Callable[..., None]) -> None:
    if "read" in order:
        report(tally=asdict(read_pages(cache, order["read"], lambda done: report(progress=done))))
    elif "advise" in order:
        report(advice=cache.advice().text())
    elif "survey" in order:
        report(stored=sum(isinstance(cache.get(module), dict) for module in order["survey"]))
    elif "forget" in order:
        if order["forget"]:
            cache.delete_many(order["forget"])
        else:
            cache.clear()
        report(forgotten=True)


def _private_output() -> TextIO:
    """Return standard output for reports alone: modules that print when they are imported print nowhere."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return private


def main(directory: str) -> int:
    """Take orders until the input ends. Return an exit code."""
    # Ctrl-C reaches the whole group; the demo answers it, and ends this process by SIGTERM. That unwinds a
    # computation under way, so that it gives its lease back: a process that is killed delays others by 30 seconds.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    output = _private_output()
    # pydoc prints the environment, which may hold secrets, on the page of ``os``.
    os.environ.clear()
    importlib.import_module(os.name).environ.clear()

    def report(**what: Any) -> None:
        print(json.dumps(what), file=output, flush=True)

    try:
        cache = open_cache(directory)
        report(ready=True)
        for line in sys.stdin:
            _obey(cache, json.loads(line), report)
    except StoreroomError as error:
        report(error=str(error))
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    return YES


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
