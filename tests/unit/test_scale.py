"""The benchmark of large caches, on small ones: each storage and peer yields its figures, and the page shows them."""

import math
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import charts, machine
from benchmarks.scale import page
from benchmarks.scale.__main__ import main
from benchmarks.scale.contenders import CONTENDERS
from benchmarks.scale.measuring import EFFORTS, PARTS, key_of, measure
from benchmarks.scale.run import LARGEST, SIZES, Results, sizes_up_to
from tests.servers.databases import PostgreSQLServer, postgresql
from tests.servers.redis import RedisServer, redis_server

__all__ = ["postgresql", "redis_server"]

DOCS = Path(__file__).parents[2] / "docs"

FIGURES = {plot.figure for _, _, plots in page.SECTIONS for plot in plots}

#: What a cache of this kind cannot tell.
LACKING = {
    "local memory": {"open", "open, after kill -9", "disk per entry"},
    "PostgreSQL": {"memory per entry"},
    "Redis": {"disk per entry"},
    "cachebox": {"open", "open, after kill -9", "disk per entry", "get with a tag", "set with a tag"},
}


@pytest.fixture
def location(request, tmp_path):
    """The directory or the server of a contender."""
    kind = CONTENDERS[request.param].server
    if kind == "redis-server":
        server: RedisServer = request.getfixturevalue("redis_server")
        return f"redis://127.0.0.1:{server.port}"
    if kind:
        database: PostgreSQLServer = request.getfixturevalue("postgresql")
        return database.url()
    return str(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "location"), [(name, name) for name in CONTENDERS], indirect=["location"])
def test_each_cache_yields_all_figures(name, location):
    """The three parts of a measurement yield every figure of the page as a positive number, or one that may be zero."""
    contender = CONTENDERS[name]
    if contender.lacks:
        pytest.skip(f"{contender.lacks} is not installed")
    figures = {}
    for part in PARTS if contender.is_kept else PARTS[:1]:
        figures |= measure(contender, part, 50, location, EFFORTS["quick"])
    assert FIGURES - figures.keys() == LACKING.get(name, set())
    assert all(0 < value < math.inf for figure, value in figures.items() if not figure.endswith("per entry"))
    assert figures["filling: mean"] <= figures["filling: 99.99 %"] <= figures["filling: longest"]


@pytest.mark.slow
def test_command_writes_a_page_with_its_plots(tmp_path, capsys):
    """The command measures in processes of their own, killed ones among them, and writes page, plots and figures."""
    kept = str(tmp_path / "figures.json")
    arguments = ["--sizes", "50", "--effort", "quick", "--storages", "files"]
    assert main([*arguments, "--docs", str(tmp_path / "docs"), "--json", kept]) == 0
    assert "files, 50 entries" in capsys.readouterr().out
    written = (tmp_path / "docs" / "scale.md").read_text("utf-8")
    assert "| get | files |" in written
    for plot in re.findall(r"!\[.*?\]\((.*?)\)", written):
        ET.parse(tmp_path / "docs" / plot)
    assert main(["--read", kept, "--docs", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "scale.md").read_text("utf-8") == written


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_with_what_is_missing(tmp_path, capsys):
    """What was measured on this machine is taken over; of another machine, everything is measured anew."""
    kept, state = tmp_path / "figures.json", tmp_path / "state.json"
    known, elsewhere = {50: {"get": 1e-3}}, {"date": "2000-01-01"}
    for earlier, pattern, expected in (
        (Results(machine.describe() | elsewhere, [50], {"files": known}), "^(local memory|files)$", 2),
        (Results(elsewhere, [50], {"local memory": known}), "^local memory$", 1),
    ):
        state.write_text(earlier.as_json(), "utf-8")
        arguments = ["--sizes", "50", "--effort", "quick", "--storages", pattern]
        assert main([*arguments, "--json", str(kept), "--resume", str(state)]) == 0
        assert re.findall(r"(.+), 50 entries", capsys.readouterr().out) == ["local memory"]
        assert len(Results.from_json(kept.read_text("utf-8")).figures) == expected
        assert sorted(Results.from_json(state.read_text("utf-8")).figures) == sorted({*earlier.figures, "local memory"})


def test_keys_are_different_and_in_no_order():
    """Neighbours in time are none in the order of keys, and no two entries share a key."""
    keys = [key_of(number) for number in range(10_000)]
    assert len(set(keys)) == 10_000
    assert sum(earlier < later for earlier, later in pairwise(keys)) < 7_000


def test_sizes_are_chosen_by_the_largest():
    """A shorter run has the sizes up to the largest that is asked for."""
    assert sizes_up_to(1_000_000) == [10_000, 100_000, 1_000_000]
    assert sizes_up_to(LARGEST) == list(SIZES)


def test_too_little_room_is_an_error_before_anything_is_measured():
    """A run that the disk cannot hold says so at once, and what to do."""
    with pytest.raises(RuntimeError, match=r"GB free, and 1,000,000,000,000 entries may need .* --largest"):
        main(["--sizes", "1000000000000"])


def test_page_names_the_sizes_and_has_each_cache():
    """The page in the documentation tells the sizes of its run; its tables have a column for each storage and peer."""
    written = (DOCS / "scale.md").read_text("utf-8")
    (sizes,) = re.findall(r"^\| entries \| ([\d, ]+?)(?: \(.*|; .*)? \|$", written, re.MULTILINE)
    assert set(map(int, re.sub(r"(?<=\d),(?=\d)", "", sizes).split(", "))) <= set(SIZES)
    assert f"| get | {' | '.join(CONTENDERS)} |" in written
    plots = re.findall(r"!\[.*?\]\((.*?)\)", written)
    assert len(plots) == len(FIGURES)
    assert all((DOCS / plot).exists() for plot in plots)


def test_each_cache_has_a_colour_of_its_own():
    """No two lines of a plot have one colour, and those of peers are dashed."""
    assert len({charts.COLOURS[name] for name in CONTENDERS}) == len(CONTENDERS)
    assert set(page.PEERS) <= CONTENDERS.keys()


def test_page_tells_what_was_not_measured(tmp_path):
    """A measurement that failed leaves its cells empty and is told with its error; the others are shown."""
    figures = {"get": 2e-6, "filling: sets": 10, "fill": 1.0}
    results = Results({}, [10, 20], {"files": {10: figures, 20: figures}, "SQLite": {10: figures}})
    results.failed = {"SQLite, 20 entries": "OSError: the disk is full"}
    page.write(results, tmp_path)
    written = (tmp_path / "scale.md").read_text("utf-8")
    assert "| not measured: SQLite, 20 entries | OSError: the disk is full |" in written
    assert "| 20 | 2.00 µs |  |" in written


def test_results_are_kept_as_text():
    """Figures that were written are read again as they were."""
    results = Results({"date": "today"}, [10, 20], {"files": {10: {"get": 1.0}, 20: {"get": 2.0}}}, 0.1, 2.0, 60.0)
    assert Results.from_json(results.as_json()) == results


def test_run_ends_in_time(capsys):
    """What is not measured when the time is over is told, and the command fails."""
    assert main(["--sizes", "100", "--minutes", "0", "--effort", "quick", "--storages", "files|SQLite"]) == 1
    assert "not measured: SQLite, 100 entries: the time was over" in capsys.readouterr().out
