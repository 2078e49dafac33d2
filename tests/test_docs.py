"""The documentation: its code runs, its links lead somewhere, its lists are complete.

`docs_runner` describes the run of a page, and the promises that its comments make.
"""

import inspect
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

import storeroom
from storeroom import checks, config
from storeroom.backends.filebased import FileBasedCache
from storeroom.base import BaseCache
from storeroom.cli import COMMANDS
from tests import docs_numbers, docs_tables
from tests.django_suite import exclusions
from tests.docs_runner import SERVERS, blocks_of
from tests.servers.memcached import MemcachedServer
from tests.servers.redis import RedisServer, redis_binary

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

#: Pages for users; decisions, changes and measurements are records, and not run.
PAGES = sorted(page for page in [ROOT / "README.md", *DOCS.rglob("*.md")] if page.parent.name != "decisions")
#: Written by ``make bench``, ``make bench-pages`` and ``make bench-scale``.
GENERATED = {DOCS / "benchmarks.md", DOCS / "pages-served.md", DOCS / "scale.md"}
#: Pages whose links must lead somewhere.
LINKING = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "examples/README.md"])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^ *```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


# Code ---------------------------------------------------------------------------------------


class PageServers:
    """The servers that pages speak of, each started by the first page that needs it."""

    def __init__(self, directory: Path) -> None:
        self._makers = {
            "127.0.0.1:6379": lambda: RedisServer(redis_binary(), directory / "redis"),
            "127.0.0.1:11211": lambda: MemcachedServer(directory / "memcached", by_port=True),
        }
        self._running: dict[str, RedisServer | MemcachedServer] = {}

    def needed_by(self, page: Path) -> dict[str, str]:
        """Return address on the page to address of a running, empty server."""
        text = text_of(page)
        return {address: self._address(address) for address in self._makers if address in text}

    def _address(self, address: str) -> str:
        if address not in self._running:
            self._running[address] = self._makers[address]().start()
        server = self._running[address]
        if isinstance(server, RedisServer):
            server.ask("FLUSHALL")
        else:
            server.ask(b"flush_all")
        return f"127.0.0.1:{server.port}"

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="module")
def page_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServers]:
    servers = PageServers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop()


def run_page(page: Path, directory: Path, servers: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a page's blocks in an empty directory, by an interpreter that has nothing of this one's environment."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "XDG_CACHE_HOME": str(directory / "user-cache"),
        "LANG": "C.UTF-8",
        SERVERS: json.dumps(servers or {}),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]),
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from docs_runner import main; main()", str(page)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_page_runs(page: Path, tmp_path: Path, page_servers: PageServers) -> None:
    """Every block of the page runs, with the results, output and errors that the page shows."""
    ran = run_page(page, tmp_path, page_servers.needed_by(page))
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"


def test_few_blocks_are_not_run() -> None:
    """A block that is not run gives its reason, and fewer than a tenth are left out."""
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language in {"python", "console", "toml"}]
    left_out = [block for block in blocks if not block.is_run]
    assert all(len(block.not_run.split()) > 2 for block in left_out if not block.needs)
    assert len(left_out) < 0.1 * len(blocks), [f"{named(block.page)}:{block.line}" for block in left_out]


WRONG_PAGES = {
    "a result that differs": ("python", "1 + 1  # -> 3", "shown is\n    3\nbut it is\n    2"),
    "a printed text that differs": ("python", "print('a', 1)  # -> a 2", "a 1"),
    "a result within a function": ("python", "def f():\n    1 + 1  # -> 3\nf()", "but it is\n    2"),
    "no error": ("python", "int('1')  # raises ValueError", "but it is\n    nothing"),
    "another error": ("python", "int('x')  # raises TypeError", "ValueError: invalid literal"),
    "another message": ("python", "int('x')  # raises ValueError: no … at all", "invalid literal"),
    "an error that nobody expects": ("python", "int('x')", "ValueError"),
    "a check of nothing": ("python", "x = (\n    1,  # -> 1\n)", "belongs to no statement"),
    "a check of a statement without a result": ("python", "x = 1  # -> 1", "only an expression has a result"),
    "a warning": ("python", "import warnings\nwarnings.warn('look out')", "look out"),
    "a wrong CACHES": ("python", "CACHES = {'default': {}}", "has no BACKEND"),
    "a file that cannot be imported": ("python", "# shop.py\nimport nowhere", "nowhere"),
    "a syntax error in code that is not run": ("python", "this is no Python", "SyntaxError"),
    "another output": ("console", "$ echo one\ntwo", "it prints\none"),
    "more output than is shown": ("console", "$ printf 'one\\ntwo'\none", "it prints\none\ntwo"),
    "another exit code": ("console", "$ false", "exits 1"),
    "a success where none is expected": ("console", "$ true  # exits 1", "exits 0"),
    "a wrong TOML file": ("toml", "[caches.default]\nbakend = 1", "has no BACKEND"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_PAGES)
def test_runner_notices_a_wrong_page(wrong: str, tmp_path: Path) -> None:
    """A page with a wrong result, output, error or file fails, and the message shows the true one."""
    language, text, message = WRONG_PAGES[wrong]
    page = tmp_path / "page.md"
    directive = "<!-- not run: it is only looked at -->\n" if "not run" in wrong else ""
    page.write_text(f"# Page\n\n{directive}```{language}\n{text}\n```\n", "utf-8")
    ran = run_page(page, tmp_path)
    assert ran.returncode != 0
    assert message in ran.stderr, ran.stderr


@pytest.mark.slow
def test_runner_accepts_a_true_page(tmp_path: Path) -> None:
    """A page whose every claim is true passes, and the blocks left out are reported with their reasons."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\n# shop.py\nPRICE = 3\n```\n"
        "```python\nimport shop\nshop.PRICE  # -> 3\nprint('a', 1)  # -> a 1\n{'a': [1, 2]}  # -> {'a': […]}\n"
        "int('x')  # raises ValueError: invalid … 'x'\nfor x in 'ab':\n    x  # -> '…'\n```\n"
        "```console\n$ echo one; echo two\none\n…\n$ false  # exits 1\n$ export NAME=value\n$ echo $NAME\nvalue\n"
        "$ make nothing\n```\n"
        "```text\nnot looked at\n```\n"
        "<!-- needs: no_such_module -->\n```python\nimport no_such_module\n```\n"
        "<!-- not run: only in this test -->\n```console\n$ false\n```\n",
        "utf-8",
    )
    ran = run_page(page, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == ["line 29: no_such_module is not installed", "line 33: only in this test"]


def test_make_targets_exist() -> None:
    """Each `make …` that a page names is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named_targets = {target for page in LINKING for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", text_of(page))}
    assert {"demo", "test"} <= named_targets
    assert named_targets - targets == set()


# Links ----------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of headings, and those written out."""
    anchors: set[str] = set(re.findall(r'<a (?:id|name)="([^"]+)"', text_of(page)))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose_of(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number, unique = 0, anchor
        while unique in anchors:
            number += 1
            unique = f"{anchor}-{number}"
        anchors.add(unique)
    return anchors


@pytest.mark.parametrize("page", LINKING, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link leads to a file that exists, and to a heading in it."""
    broken = []
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)>?\s*\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file in GENERATED and not file.exists():
            continue  # nobody has measured yet
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []


def test_index_leads_to_every_page() -> None:
    """docs/index.md links to every page of the documentation."""
    linked = {(DOCS / target).resolve() for target in re.findall(r"\]\(([^)#]+)", text_of(DOCS / "index.md"))}
    assert {page for page in PAGES if page.parent != ROOT and page != DOCS / "index.md"} - linked == set()


def test_tutorial_has_seven_steps_in_a_row() -> None:
    """The tutorial has seven steps, and each ends with a link to the next."""
    steps = sorted((DOCS / "tutorial").glob("*.md"))
    assert [step.name[0] for step in steps] == list("1234567")
    for step, following in pairwise(steps):
        assert f"]({following.name})" in text_of(step).splitlines()[-1]


def test_every_check_has_its_section() -> None:
    """The link that `storeroom check` prints for a rule leads to an anchor that exists."""
    for rule in checks.RULES.values():
        page, _, anchor = rule.docs.partition("#")
        assert anchor in anchors_of(ROOT / page), rule.docs


# Lists that are complete ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tables_are_those_of_the_code(page: Path) -> None:
    """Each generated table and figure is as made from its source; ``python -m tests.docs_tables`` renews them."""
    assert docs_tables.renewed(text_of(page)) == text_of(page)


def test_every_table_is_on_a_page() -> None:
    """Each generated table and each figure stands on some page."""
    everything = "".join(map(text_of, PAGES))
    missing = [name for name in docs_tables.TABLES if f"<!-- generated: {name} -->" not in everything]
    missing += [name for name in docs_tables.FIGURES if f"<!-- figure: {name} -->" not in everything]
    assert missing == []
    # Markdown takes a line that begins with a comment for HTML, in the midst of a paragraph too.
    assert re.findall(r"^\s*<!-- figure.*", everything, re.MULTILINE) == []


@pytest.mark.parametrize("held", docs_numbers.HELD, ids=lambda held: f"{held.page}: {held.source}")
def test_number_is_that_of_the_code(held: docs_numbers.Held) -> None:
    """A number in prose is the constant's, and would not be found if the constant were another."""
    page, value = " ".join(text_of(ROOT / held.page).split()), held.value
    assert held.text_with(value) in page, f"{held.page} does not say so; {held.source} is {value!r}"
    assert held.text_with(docs_numbers.changed(value)) not in page


def test_every_setting_is_in_the_reference() -> None:
    """The table has exactly the keys of an alias, with the defaults that an empty one gets."""
    section = text_of(DOCS / "configuration.md").partition("## The keys of an alias")[2].partition("\n## ")[0]
    table = re.findall(r"^\| `([A-Z_]+)` \| .*? \| (.*?) \|", section, re.MULTILINE)
    assert [name for name, _ in table] == list(config.SETTINGS)
    defaults = dict(table)
    settings = config.read_params({}, {})
    assert float(defaults["TIMEOUT"].strip("`")) == settings.timeout
    assert defaults["KEY_PREFIX"] == '`""`'
    assert settings.key_prefix == ""
    assert int(defaults["VERSION"].strip("`")) == settings.version
    assert defaults["OPTIONS"] == "`{}`"
    assert settings.options == {name: option.default for name, option in config.COMMON_OPTIONS.items()}


def test_every_public_name_is_in_the_api() -> None:
    """docs/api.md names everything in storeroom.__all__."""
    page = text_of(DOCS / "api.md")
    absent = [name for name in storeroom.__all__ if not re.search(rf"`(?:storeroom\.)?{name}\b", page)]
    assert absent == []


def test_every_method_is_in_the_api() -> None:
    """docs/api.md has each method with its parameters and defaults; each has an async twin but the known exceptions."""
    page = text_of(DOCS / "api.md")
    exceptions = {"make_key", "validate_key", "make_and_validate_key", "get_backend_timeout", "lock"}
    methods = {name: method for name, method in inspect.getmembers(BaseCache, inspect.isfunction) if name[0] != "_"}
    for name, method in methods.items():
        if name[0] == "a" and name[1:] in methods:
            continue
        signature = inspect.signature(method)
        parameters = [
            parameter.replace(annotation=parameter.empty)
            for parameter in list(signature.parameters.values())[1:]
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        shown = str(signature.replace(parameters=parameters, return_annotation=signature.empty)).replace("'", '"')
        assert f"`{name}{shown}`" in page, f"{name}{shown}"
        assert (f"a{name}" in methods) == (name not in exceptions), name


def test_every_error_is_listed_with_its_base() -> None:
    """docs/api.md lists each error with a class that it derives from."""
    page = text_of(DOCS / "api.md")
    for name in storeroom.__all__:
        found = getattr(storeroom, name)
        if not (isinstance(found, type) and issubclass(found, Exception)):
            continue
        row = re.search(rf"^\| `{name}` \| (?:`([\w.]+)`)? ?\|", page, re.MULTILINE)
        assert row is not None, name
        if row[1]:
            bases = {base.__name__ for base in found.__mro__[1:]}
            assert row[1].rpartition(".")[2] in bases, f"{name} is no {row[1]}"


def test_every_command_is_in_the_docs() -> None:
    """docs/cli.md names each command of the command line."""
    page = text_of(DOCS / "cli.md")
    assert [name for name in COMMANDS if not re.search(rf"`(?:storeroom )?{name}\b", page)] == []


@pytest.mark.slow
@pytest.mark.parametrize("value_bytes", [20, 1_000, 100_000])
def test_file_is_as_large_as_the_page_says(value_bytes: int, tmp_path: Path) -> None:
    """A file cache takes once to `FILE_TIMES` its max_bytes on the disk, after many entries went."""
    entries = min(500, 4_000_000 // value_bytes)
    max_bytes = entries * (value_bytes + 120)
    cache = FileBasedCache(str(tmp_path), {"OPTIONS": {"max_entries": None, "max_bytes": max_bytes}})
    for number in range(3 * entries):
        cache.set(f"key{number}", random.randbytes(value_bytes))
    times = (tmp_path / "storeroom-1" / "data.mdb").stat().st_size / max_bytes
    assert 1 <= times <= docs_numbers.FILE_TIMES


# Form -----------------------------------------------------------------------------------------


def test_readme_begins_with_an_example_and_two_commands() -> None:
    """The first screen of the README has ten lines of code, two commands to try, and a measured comparison."""
    readme = text_of(ROOT / "README.md")
    first_block = next(blocks_of(ROOT / "README.md"))
    assert first_block.language == "python"
    assert len(first_block.text.splitlines()) <= 10
    assert "configure" not in first_block.text
    screen = "\n".join(readme.splitlines()[:50])
    assert screen.index("$ make demo") < screen.index("$ make test") < screen.index("<!-- benchmark table: begin -->")
    assert readme.count("<!-- benchmark table: begin -->") == readme.count("<!-- benchmark table: end -->") == 1


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in {"README.md", "index.md", "benchmarks.md"}], ids=named
)
def test_page_has_a_summary_on_top(page: Path) -> None:
    """A page begins with a title, and below it a summary in italics of less than 80 words."""
    lines = text_of(page).splitlines()
    assert lines[0].startswith("# ")
    assert lines[1] == ""
    summary = " ".join(lines[2 : lines.index("", 2)])
    assert re.fullmatch(r"\*[^*].*\*", summary), summary
    assert len(summary.split()) < 80


def test_every_difference_has_its_three_parts() -> None:
    """Each section of docs/differences.md has its three parts in order."""
    sections = re.split(r"^### ", text_of(DOCS / "differences.md"), flags=re.MULTILINE)[1:]
    assert len(sections) > 20
    for section in sections:
        heading = section.partition("\n")[0]
        order = [section.find(f"**{part}.**") for part in ("What", "Why", "How to live with it")]
        assert -1 not in order, heading
        assert order == sorted(order), heading


def test_django_tests_are_left_out_for_differences_that_exist() -> None:
    """Each excluded test of Django's suite refers to a heading of docs/differences.md."""
    exclusions.load()  # raises ExclusionError for a heading that differences.md does not have


#: A figure of speed: it belongs into a page that ``make`` writes, with machine and versions.
FIGURE = re.compile(
    r"\d[\d.,]*\s*(?:µs|us|ns|microseconds|nanoseconds|milliseconds?|ms)\b"
    r"|\d[\d.,]*\s*(?:×|x|times)\s+(?:as fast|faster|slower|quicker|less|more)"
    r"|\d[\d.,]*\s*(?:reads|writes|gets|sets|requests|operations|ops|hits)\s*(?:/\s*s\b|per second|a second)"
)


def figures_in(text: str) -> list[str]:
    written = re.sub(
        r"(<!-- benchmark table: begin -->).*?(<!-- benchmark table: end -->)|<!-- figure: .*?<!-- end -->",
        r"\1\2",
        text,
        flags=re.DOTALL,
    )
    return FIGURE.findall(re.sub(r"`[^`\n]+`", "", written))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED], ids=named)
def test_figures_of_speed_are_only_those_measured(page: Path) -> None:
    """No page has a figure of speed outside those pages, and the block, that ``make`` writes."""
    assert figures_in(prose_of(page)) == []


def test_figures_are_noticed() -> None:
    """A figure of speed in prose is found; a duration, code and the measured block are not."""
    assert figures_in("It takes 2.2 µs, is 12 times faster and makes 1,000 reads/s.") != []
    assert figures_in("A timeout of 30 seconds; units `500ms`.") == []
    assert figures_in("<!-- benchmark table: begin -->2 µs<!-- benchmark table: end -->") == []
