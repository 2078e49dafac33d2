"""The benchmarks work and compute the figures they name: each part runs briefly, on the installed peers."""

import gc
import json
import math
import re
from dataclasses import replace
from itertools import product
from xml.etree import ElementTree as ET

import pytest
from django import conf
from django.utils.functional import empty

from benchmarks import (
    hits,
    imports,
    machine,
    memory,
    overheads,
    page,
    runs,
    server_libraries,
    servers,
    stampede,
    suite,
    throughput,
)
from benchmarks.__main__ import main
from benchmarks.charts import dot_chart, line_chart
from benchmarks.goals import AtMost, Faster, Steady
from benchmarks.hit_ratio import load, loop, replay, scans
from benchmarks.libraries import CALLS, DICT, FILE, MEMORY
from benchmarks.rows import GROWTH, ROWS
from benchmarks.server_rows import SERVER_ROWS
from benchmarks.suite import Results
from benchmarks.timing import Contender, Effort, Timed, measure

BRIEFLY = Effort(rounds=2, seconds=1e-5)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def _servers_end():
    """Stop servers and Django afterwards: other tests of this process run without them."""
    yield
    servers.stop()
    conf.settings._wrapped = empty
    server_libraries.site.cache_clear()
    gc.freeze()  # measuring lets the collector look at all tests again: see the tests' conftest.py


def shrunk(row):
    """Return the row with at most 120 entries, of the libraries that are installed."""
    few = [replace(each, entries=min(each.entries, 120)) for each in row.contenders if each.library.is_installed]
    return replace(row, contenders=few)


def is_duration(figure):
    return 0 < figure < math.inf


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("row", [*ROWS, *GROWTH, *SERVER_ROWS], ids=lambda row: row.name)
def test_row_yields_a_figure_for_each_contender_and_round(row):
    """Each row yields a positive finite time for each installed contender and round, and its goals are judged."""
    row = shrunk(row)
    timed = measure(row.contenders, BRIEFLY)
    assert list(timed.seconds) == [each.name for each in row.contenders]
    assert all(len(figures) == 2 and all(map(is_duration, figures)) for figures in timed.seconds.values())
    assert all(goal.judge(row.name, timed).measured for goal in row.goals if goal.needs <= timed.seconds.keys())


def test_rows_begin_with_storeroom_and_compare_with_their_own_contenders():
    """Storeroom is the first contender of each row, and goals name contenders of that row only."""
    for row in [*ROWS, *GROWTH, *SERVER_ROWS]:
        assert row.contenders[0].name == "Storeroom"
        assert {name for goal in row.goals for name in goal.needs} <= {each.name for each in row.contenders}


@pytest.mark.parametrize("library", [*MEMORY, *FILE], ids=lambda library: f"{library.name} {library.open.__name__}")
def test_libraries_get_the_values_set_and_filled(library, tmp_path):
    """Each library returns the values filled and set, and None for an absent key: no contender does nothing."""
    if not library.is_installed:
        pytest.skip(f"{library.name} is not installed")
    found = []
    names = {"found": found, "key": "second", "value": "other"}
    with library.opened(tmp_path) as cache:
        library.fill(cache, {"first": "value"})
        names |= {"cache": cache, **CALLS}
        exec(library.statements["set"], names)
        for key in ("first", "second", "third"):
            exec(f"found.append({library.statements['get']})", {**names, "key": key})
    assert [value if value is None or isinstance(value, str) else value.decode() for value in found] == [
        "value",
        "other",
        None,
    ]


def test_measure_stores_the_entries_before_it_starts():
    """The gets of a measurement find their entries, rather than miss."""
    seen = []
    spy = replace(DICT, statements={"get": "value(cache[key])"}, close=lambda cache: None)
    measure([Contender(spy, "get", entries=50, value=seen.append)], BRIEFLY)
    assert seen


def test_measure_takes_turns_that_begin_with_another_contender_each_round():
    """Each round starts with the next contender, so that no one always goes first."""
    turns = []

    def spy(name):
        statements = {"note": "value(cache)"}
        return replace(
            DICT, name=name, statements=statements, open=lambda directory, bound: {}, close=lambda cache: None
        )

    contenders = [
        Contender(spy(name), "note", entries=1, value=lambda cache, name=name: turns.append(name)) for name in "ABC"
    ]
    measure(contenders, Effort(rounds=3, seconds=1e-9))
    assert "".join(turns[-9:]) == "ABCBCACAB"


def test_ratio_is_the_median_of_the_rounds_ratios():
    """A round in which a busy machine slows both contenders does not change their ratio."""
    timed = Timed({"Storeroom": [1.0, 10.0, 1.0], "Django": [3.0, 30.0, 5.0]})
    assert timed.ratio("Django") == 3.0
    assert timed.median("Storeroom") == 1.0


@pytest.mark.parametrize(
    ("goal", "is_reached", "measured", "shortfall"),
    [
        (Faster(2, "Django"), True, "2.00×", 0),
        (Faster(4, "Django"), False, "2.00×", 0.5),
        (Steady(0.5, "Django"), True, "0.50×", 0),
        (Steady(0.4, "Django"), False, "0.50×", 0.25),
        (Steady(0.4, "Django", engine=("at 9", "at 1")), True, "0.50×", 0),
        (Steady(0.4, "Django", engine=("at 1", "at 9")), False, "0.50×", 0.25),
        (Steady(0.4, "Django", engine=("Django", "at 9")), False, "0.50×", 0.125),
        (AtMost(0.01), True, "10.0 ms", 0),
        (AtMost(0.008), False, "10.0 ms", 0.25),
    ],
)
def test_goal_is_judged_by_the_measurement(goal, is_reached, measured, shortfall):
    """A goal is reached or missed by the measured ratio or time, and the shortfall is the distance to it."""
    seconds = {"Storeroom": [0.01], "Django": [0.02], "at 9": [0.045], "at 1": [0.005]}
    verdict = goal.judge("get", Timed(seconds))
    assert (verdict.is_reached, verdict.measured) == (is_reached, measured)
    assert verdict.shortfall == pytest.approx(shortfall)
    assert verdict.outcome == ("reached" if is_reached else f"missed by {shortfall:.1%}")


@pytest.mark.long
@pytest.mark.slow
def test_overheads_are_ratios_of_times(tmp_path):
    """Each cache has its turns, with everything off, on and recording; the average is between the last two."""
    names = ["local memory: get", "files: set"]
    told = overheads.measure(tmp_path, names, rounds=2)
    assert list(told) == names
    for each in told.values():
        assert is_duration(each.seconds)
        assert min(each.on, each.recording) <= each.average <= max(each.on, each.recording)
    section = page.overhead_section(told)
    assert [line.split("|")[1].strip() for line in section[-1].splitlines()[2:]] == names


@pytest.mark.long
def test_stampedes_are_counted_and_timed():
    """A stampede measurement counts each computation and latency: Storeroom computes once, Django once a client."""
    told = stampede.measure(1.5, clients=8)
    for name, each in told.items():
        assert sum(each.computations.values()) >= 1, name
        assert each.latency.keys() <= each.computations.keys() == set(range(0, 1500, 100)), name
        assert 0 < each.worst <= 2, name
    assert told["Storeroom"].most == 1
    assert told["Django"].most == 8
    assert stampede.judge(told)[0].is_reached


@pytest.mark.long
def test_throughput_is_measured_with_threads():
    """Throughput has a positive rate for each library and each number of threads."""
    rates = throughput.by_threads((1, 2), Effort(rounds=1, seconds=0.01))
    assert rates["Storeroom"].keys() == {1, 2}
    assert all(rate > 0 for by_count in rates.values() for rate in by_count.values())


@pytest.mark.slow
def test_memory_counts_the_entries():
    """An entry of 121 characters takes at least that, and no multiple of the room a dict takes."""
    in_memory = memory.by_library("memory", 5_000)
    on_disk = memory.by_library("file", 500)
    assert 121 < in_memory["dict"] < 1_000
    assert in_memory["dict"] < in_memory["Storeroom"] < 4 * in_memory["dict"]
    assert 121 < on_disk["Storeroom"] < 4_096


@pytest.mark.slow
@pytest.mark.parametrize("row", imports.IMPORTS)
def test_imports_are_timed(row):
    """Each import row has a positive time for Storeroom and for each peer."""
    timed = imports.measure(row, Effort(rounds=1, seconds=0))
    assert timed.ours == "Storeroom"
    assert all(is_duration(figures[0]) for figures in timed.seconds.values())


def test_limit_is_the_best_that_any_choice_could_do():
    """On short sequences, the optimal hit ratio equals the best of all possible evictions."""

    def best(keys, capacity, cached=frozenset()):
        if not keys:
            return 0
        if keys[0] in cached:
            return 1 + best(keys[1:], capacity, cached)
        kept = [cached] if len(cached) < capacity else [cached - {victim} for victim in cached]
        return max(best(keys[1:], capacity, each | {keys[0]}) for each in kept)

    for keys in product("abc", repeat=6):
        assert hits.limit(keys, 2) == pytest.approx(100 * best(keys, 2) / 6)


@pytest.mark.parametrize("keys", [loop(3_000, 120), scans(3_000, hot=80, scan=200)], ids=["loop", "scans"])
def test_limit_is_above_every_policy(keys):
    """The optimal hit ratio is at least that of the policy in use."""
    assert hits.limit(keys, 100) >= replay(keys, 100)


@pytest.mark.slow
def test_limit_of_a_trace_is_the_published_one():
    """The optimal hit ratio of the web12 trace is the published 58.46 %; see benchmarks/traces/README.md."""
    assert hits.limit(load("web12"), 137) == pytest.approx(58.46, abs=0.005)


def test_machine_is_described():
    """The description of the machine names the cores and the versions of libraries."""
    described = machine.describe()
    assert "cores" in described["processor"]
    assert "lmdb 3" in described["versions"]


@pytest.mark.parametrize("storage", hits.STORED)
def test_storages_are_replayed(storage):
    """A replay on a storage finds each key again where there is room for all, and few in a loop over too many."""
    open_cache = hits.STORED[storage]
    assert hits.replay_stored(open_cache, loop(400, 100), 100) == pytest.approx(75)
    assert hits.replay_stored(open_cache, loop(400, 100), 50) < 50


@pytest.mark.long
def test_command_writes_a_page_whose_charts_exist(tmp_path, capsys):
    """The command writes the page with every verdict, the figures as JSON, and all charts the page links."""
    rows = "^locmem incr$|^locmem get of a nested|^file get at 1(,0)?00 |hit ratio"
    code = main(["--quick", "--rows", rows, "--docs", str(tmp_path), "--json", str(tmp_path / "all.json")])
    output = capsys.readouterr().out
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    figures = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert code == 0
    assert set(figures["rows"]) == {
        "locmem incr",
        "locmem get of a nested dict",
        "file get at 100 entries",
        "file get at 1,000 entries",
    }
    assert "goals reached" in output
    for verdict in figures["verdicts"]:
        assert f"| {verdict['subject']} | {verdict['goal']} | {verdict['measured']} |" in text
    charts = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert {"benchmarks/locmem.svg", "benchmarks/growth-get.svg", "benchmarks/hit-ratio.svg"} <= set(charts)
    for chart in charts:
        ET.parse(tmp_path / chart)


@pytest.mark.slow
def test_command_leaves_the_page_alone_when_it_measured_only_a_part(tmp_path, monkeypatch, capsys):
    """A run of a few rows without --docs writes nothing to the documentation."""
    monkeypatch.setattr("benchmarks.__main__.DOCS", tmp_path)
    assert main(["--quick", "--rows", "^locmem incr$"]) == 0
    assert list(tmp_path.iterdir()) == []


def _run(path, django, **machine):
    rows = {"locmem get": Timed({"Storeroom": [1e-6, 1e-6], "Django": [django * 1e-6] * 2})}
    results = Results({"date": "2026-12-01", "processor": "fast", "Python": "3.13", **machine}, rows)
    suite._judge("locmem get", [Faster(12, "Django")], results)
    return runs.add(results, path)


def test_runs_are_told_by_their_median_least_and_most(tmp_path):
    """The page shows the median of the last five runs on a machine and its bounds, and judges goals by it."""
    file = tmp_path / "runs.json"
    told = _run(file, 99)
    assert (told.verdicts[0].measured, told.verdicts[0].spread) == ("99.00×", "")
    for django in (10, 11, 13, 14, 15):
        told = _run(file, django)
    (verdict,) = told.verdicts
    assert (verdict.measured, verdict.spread, verdict.is_reached) == ("13.00×", "10.0 to 15.0", True)
    assert told.rows["locmem get"].median("Django") == pytest.approx(13e-6)
    assert told.machine["runs"].startswith("5, ")
    assert len(json.loads(file.read_text())) == 5
    assert _run(file, 2, processor="slow").verdicts[0].measured == "2.00×"


def test_page_leaves_out_rows_that_were_not_measured(tmp_path):
    """A page of empty results has the section of goals and no other."""
    page.write(Results(machine.describe()), tmp_path)
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert re.findall("^## .*", text, re.MULTILINE) == ["## Goals"]


SERIES = {"Storeroom": {1: 2e-6, 10: 3e-6, 100: 5e-4}, "A & B": {1: 0.02, 100: 7.0}}


@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("chart", ["dots", "lines"])
def test_chart_is_well_formed_and_draws_all_points_inside(chart, is_log):
    """A chart is valid XML with every point inside its frame and special characters escaped."""
    if chart == "dots":
        drawing = dot_chart("times < 1", {"get": {"Storeroom": 2.0, "A & B": 30.0}}, str, is_log=is_log)
        points = 2
    else:
        drawing = line_chart("times < 1", SERIES, str, str, is_log=is_log)
        points = 5
    root = ET.fromstring(drawing)
    width, height = map(float, root.get("viewBox").split()[2:])
    dots = root.findall(f".//{SVG}circle")
    assert len(dots) == points + 2  # and two in the legend
    assert all(0 < float(dot.get("cx")) < width and 0 < float(dot.get("cy")) < height for dot in dots)
    assert {"times < 1", "A & B"} <= {text.text for text in root.findall(f"{SVG}text")}


def test_plan_measures_large_rows_with_less_effort():
    """A row of 100,000 entries is measured with the smaller effort."""
    large = next(row for row in GROWTH if row.name == "file set at 100,000 entries")
    assert suite.FULL.effort_for(large) == suite.FULL.large_effort
    assert suite.FULL.effort_for(ROWS[0]) == suite.FULL.effort
