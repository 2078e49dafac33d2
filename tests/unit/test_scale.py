"""The benchmark of large caches, on small ones: each storage and peer yields its figures, and the page shows them."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET

import pytest

from benchmarks import charts, machine
from benchmarks.scale import cluster, full, loads, page, processes
from benchmarks.scale.__main__ import main
from benchmarks.scale.carries import PLOT, full_at
from benchmarks.scale.contenders import CONTENDERS
from benchmarks.scale.loaded import PLOTS
from benchmarks.scale.loads import SPREADS, Load, LoadEffort, Target
from benchmarks.scale.measuring import EFFORTS, PARTS, key_of, measure
from benchmarks.scale.run import LARGEST, SIZES, Loaded, Results, sizes_up_to
from tests.servers.databases import PostgreSQLServer, postgresql
from tests.servers.process import missing
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
    arguments = ["--sizes", "50", "--effort", "quick", "--parts", "files"]
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
        arguments = ["--sizes", "50", "--effort", "quick", "--parts", pattern]
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
    kept = Results.from_json((DOCS / "scale" / page.FIGURES).read_text("utf-8"))
    concludes = "## What one machine carries" in written
    assert concludes == (len(kept.loaded) == 2)
    assert len(plots) == len(FIGURES) + sum(len(PLOTS[name]) for name in kept.loaded) + concludes
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
    assert main(["--sizes", "100", "--minutes", "0", "--effort", "quick", "--parts", "files|SQLite"]) == 1
    assert "not measured: SQLite, 100 entries: the time was over" in capsys.readouterr().out


# Loads ----------------------------------------------------------------------------------------

ONE_ROUND = LoadEffort(counts=(2,), rounds=1, seconds=0.02, entries=200)


def test_keys_are_spread_as_the_page_says():
    """Evenly, by Zipf's law, in which the first is read twice as often as the second, or half of them for one key."""
    counts = {}
    for name, choose in SPREADS.items():
        chosen = choose(Random(1), 1_000, 50_000)
        assert set(chosen) <= set(range(1_000))
        counts[name] = [chosen.count(number) for number in range(2)]
    assert 0 < counts["evenly"][0] < 100
    assert counts["Zipf"][0] / counts["Zipf"][1] == pytest.approx(2, rel=0.1)
    assert counts["one key"][0] / 50_000 == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_processes_yield_rates_and_times_of_each_mix(monkeypatch):
    """Two processes on one cache yield a rate, processor time, and p99 of reads, of writes or of both."""
    monkeypatch.setattr(processes, "CACHES", ("files",))
    measured = processes.measure(ONE_ROUND, lambda *_: None)
    figures = {mix: by_name["files"][2] for mix, by_name in measured.items()}
    assert [sorted(each.keys() - {"rate", "client"}) for each in figures.values()] == [
        ["read p99"],
        ["read p99", "write p99"],
        ["write p99"],
    ]
    assert all(value > 0 for each in figures.values() for value in each.values())


@pytest.mark.slow
def test_servers_yield_their_shares(monkeypatch):
    """Of three servers one gets most commands for a hot key, unless near tiers answer them."""
    if lacking := cluster.lacks():
        missing(f"{lacking} is not installed")
    monkeypatch.setattr(cluster, "GROUPS", {"cluster of 3": 3})
    monkeypatch.setattr(cluster, "LOADS", {"one key": Load(writes=10, spread="one key")})
    hot = cluster.measure(ONE_ROUND, lambda *_: None)["one key"]
    plain, near = (hot[cluster.named("cluster of 3", is_near=is_near)][2] for is_near in (False, True))
    assert 0.5 < plain["share of the busiest"] < 0.8
    assert near["share of the busiest"] < plain["share of the busiest"]
    assert all(figures["server"] > 0 and figures["client"] > 0 for figures in (plain, near))


@pytest.mark.slow
def test_a_full_server_tells_what_commands_take(redis_server):
    """Reads, writes, and writes that eight near tiers hear of have a rate, and a processor time of the server."""
    if lacking := cluster.lacks():
        missing(f"{lacking} is not installed")
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    told = full.measure(url, ONE_ROUND, lambda: cluster.look_at([url]))
    assert list(told) == [full.READ, full.WRITE, full.TOLD]
    assert all(value > 0 for figures in told.values() for value in figures.values())
    assert int(redis_server.ask("DBSIZE")) == ONE_ROUND.entries
    with full._listening(str(redis_server.port)):
        assert f"tracking_clients:{full.LISTENERS}" in redis_server.ask("INFO", "clients")


def _fail() -> None:
    raise OSError("no such server")


@pytest.mark.slow
def test_a_process_that_fails_ends_the_load(capfd):
    """Nobody waits for a process that could not open the cache, and its error is told."""
    target = Target(_fail, print, {"get": "cache.get(key)", "set": "cache.set(key, value)"}, 10)
    with loads.clients(target, 2, 0.01) as started, pytest.raises(RuntimeError, match="a process of 2 has failed"):
        started.run(Load(writes=10))
    assert "no such server" in capfd.readouterr().err


def _loaded(figures):
    """Parts in which every cache, at every load and number of processes, has the same figures."""
    names = [cluster.named(group, is_near=is_near) for is_near in (False, True) for group in cluster.GROUPS]
    machine = {"date": "2026-12-01", "processor": "fast, 2 cores"}
    shared = {mix: {name: {1: figures, 8: figures} for name in processes.CACHES} for mix in processes.MIXES}
    served = {spread: {name: {1: figures, 8: figures} for name in names} for spread in SPREADS}
    served[cluster.FULL] = {name: {full.CONNECTIONS: {"rate": 9e4, "server": 1e-5}} for name in full.COMMANDS}
    return {"processes": Loaded(machine, 2, 0.5, 1.0, shared), "cluster": Loaded(machine, 2, 9.5, 1.0, served)}


ALIKE = {
    "rate": 40_000.0,
    "client": 40e-6,
    "server": 20e-6,
    "share of the busiest": 0.5,
    "commands": 2.0,
    "read p99": 1e-3,
    "write p99": 2e-3,
}


def test_page_concludes_from_its_figures(tmp_path):
    """The section on what a machine carries has rates computed from processor times, and is absent without them."""
    million = {"get": 2e-6, "memory per entry": 250.0, "disk per entry": 300.0, "filling: sets": 1, "fill": 1.0}
    results = Results({}, [1_000_000], {name: {1_000_000: million} for name in ("local memory", "files", "Redis")})
    page.write(results, tmp_path)
    assert "What one machine carries" not in (tmp_path / "scale.md").read_text("utf-8")
    results.loaded = _loaded(ALIKE)
    page.write(results, tmp_path)
    written = (tmp_path / "scale.md").read_text("utf-8")
    section = " ".join(written.partition("## What one machine carries")[2].split())
    assert "| cluster of 3 | 100,000 (4.0) |" in section
    assert "a gigabyte holds 4,000,000 of them" in section
    assert "three servers carry 100,000 operations" in section
    assert "**Several machines, or more writes than that: one Redis server.**" in section
    assert "at nine reads to one write that is 400,000 operations" in section
    assert "| files | 16,667 |" in section
    assert written.count("**The machine was busy**: load 9.5") == 1
    for plot in (PLOT, *PLOTS["processes"], *PLOTS["cluster"]):
        ET.parse(tmp_path / "scale" / f"{plot}.svg")


def test_a_server_is_full_when_its_part_of_the_operations_takes_a_second():
    """Reads and writes that the busiest server gets count by what a full one takes for them."""
    command = {full.READ: 1e-5, full.WRITE: 2e-5, full.TOLD: 4e-5}
    one = {"share of the busiest": 1.0, "commands": 1.0}
    assert full_at(one, 1, command, is_near=False) == pytest.approx(1 / (0.9 * 1e-5 + 0.1 * 2e-5))
    assert full_at(one, 1, command, is_near=True) == pytest.approx(1 / (0.9 * 1e-5 + 0.1 * 4e-5))
    third = {"share of the busiest": 1 / 3, "commands": 1.0}
    assert full_at(third, 3, command, is_near=False) == pytest.approx(3 * full_at(one, 1, command, is_near=False))


@pytest.mark.slow
def test_a_load_alone_renews_its_part_of_the_page(tmp_path, monkeypatch, capsys):
    """A part that was measured by itself takes its place in the page, and leaves the figures of the others."""
    monkeypatch.setattr(processes, "CACHES", ("files",))
    page.write(
        Results({"date": "then"}, [10], {"files": {10: {"get": 2e-6, "filling: sets": 1, "fill": 1.0}}}), tmp_path
    )
    assert main(["--parts", "^processes$", "--effort", "quick", "--docs", str(tmp_path)]) == 0
    written = (tmp_path / "scale.md").read_text("utf-8")
    assert "| 10 | 2.00 µs |" in written
    assert "## Several processes" in written
    kept = json.loads((tmp_path / "scale" / page.FIGURES).read_text("utf-8"))
    assert (kept["machine"], list(kept["loaded"])) == ({"date": "then"}, ["processes"])


def test_loads_are_kept_as_text():
    """Figures of loads that were written are read again as they were."""
    results = Results({}, [10], loaded=_loaded(ALIKE))
    assert Results.from_json(results.as_json()) == results
