"""The dashboard and the alerts: they name metrics that exist, sum them rightly, and answer on real data."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

import storeroom
from storeroom import caches
from storeroom.integrations.prometheus import StoreroomCollector
from storeroom.testing.isolation import engines_of_its_own
from tests.servers.process import binary
from tests.servers.prometheus import PrometheusServer, scraping

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS = MONITORING / "alerts.yml"

#: Of one number of a metric; `backend` goes with the alias.
KEPT = {"backend", "instance"}

QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


def alert_expressions() -> dict[str, str]:
    rules = re.findall(r"alert: (\w+)\n\s+expr: (?:\|\n)?((?:.|\n)*?)\n\s+(?:for|labels):", ALERTS.read_text("utf-8"))
    return {name: re.sub(r"\s+", " ", expression).strip() for name, expression in rules}


EXPRESSIONS = QUERIES | alert_expressions()


def known() -> dict[str, set[str]]:
    """Return the name of each sample of the collector to its labels."""
    found: dict[str, set[str]] = {}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    registry = StoreroomCollector()
    for family in registry.collect():
        labels: Any = set(family._labelnames)
        for suffix in suffixes[family.type]:
            found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, set[str]]]:
    with engines_of_its_own():
        storeroom.configure({"default": {"BACKEND": "storeroom.backends.locmem.LocMemCache"}})
        yield known()
        caches.swap(None)


def test_there_are_queries() -> None:
    """Both files are read as they are meant to be."""
    assert len(QUERIES) > 30
    assert len(alert_expressions()) == ALERTS.read_text("utf-8").count("- alert:") >= 10


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_queries_name_metrics_that_exist(name: str, names: dict[str, set[str]]) -> None:
    """Each metric and label is one that the collector tells, and each is in a sum once for each source."""
    expression = EXPRESSIONS[name]
    used = re.findall(r"(storeroom_\w+)(?:\{([^}]*)\})?", expression)
    assert used
    for metric, selector in used:
        assert metric in names
        fixed = set(re.findall(r"(\w+)=~?\"", selector))
        assert fixed <= names[metric] | {"job"}, (metric, fixed)
    for by, metric, selector in re.findall(
        r"max by \(([^)]*)\) \((?:\w+\()?(storeroom_\w+)(?:\{([^}]*)\})?", expression
    ):
        if not metric.endswith(("_total", "_bucket", "_sum", "_count")):
            continue  # as it is now, whoever tells it
        told_apart = set(by.split(", ")) | set(re.findall(r"(\w+)=\"", selector))
        assert names[metric] - KEPT <= told_apart, f"{metric} would be the greatest of several, and not their sum"


def test_every_metric_is_on_the_dashboard_or_in_an_alert(names: dict[str, set[str]]) -> None:
    """No number is told that nobody looks at, but for those that are parts of others."""
    everything = " ".join(EXPRESSIONS.values())
    shown = {name for name in names if name in everything}
    of_families = {"storeroom_family_sets_total", "storeroom_family_computations_total", "storeroom_tier_entries"}
    assert set(names) - shown == of_families | {"storeroom_saved_seconds", "storeroom_round_trip_seconds_count"}


PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in DASHBOARD["panels"]}


def test_panels_lie_beside_each_other() -> None:
    """Panels have ids and titles of their own, and fill the rows of Grafana's 24 columns without overlapping."""
    panels = DASHBOARD["panels"]
    assert len(PANELS) == len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    rows = {y for _, y in cells}
    assert sorted(cells) == [(x, y) for x in range(24) for y in sorted(rows)]
    assert rows == set(range(len(rows)))


def test_variables_are_those_of_the_dashboard() -> None:
    """Queries and data sources name the variables that the dashboard has, and Grafana's window of a rate."""
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert named == {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval", "__all"}


def unit_of(panel: dict[str, Any], query: str) -> str:
    unit = str(panel["fieldConfig"]["defaults"]["unit"])
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byFrameRefID"
        if override["matcher"]["options"] == query:
            unit = next((each["value"] for each in override["properties"] if each["id"] == "unit"), unit)
    return unit


@pytest.mark.parametrize("title", PANELS)
def test_panels_show_their_queries_as_they_are(title: str) -> None:
    """The unit is that of the metric, a legend names labels that the query keeps, and refIds tell queries apart."""
    panel = PANELS[title]
    targets = panel["targets"]
    assert len({target["refId"] for target in targets}) == len(targets)
    for target in targets:
        query, unit = target["expr"], unit_of(panel, target["refId"])
        if "_bytes" in query or "_seconds" in query:
            expected = "s" if "_seconds" in query else "Bps" if "rate(" in query else "bytes"
            assert unit == expected, target["refId"]
        kept = re.findall(r"(?:sum|max) by \(([^)]*)\)", query)[:1]
        labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert labels == (set(", ".join(kept).split(", ")) - {"le"} if labels else set()), target["legendFormat"]


@pytest.mark.parametrize("title", [title for title, panel in PANELS.items() if panel["type"] == "stat"])
def test_single_numbers_have_colours_of_their_own(title: str) -> None:
    """None is left to Grafana's default, which is green up to 80 whatever the number tells."""
    shown = PANELS[title]["fieldConfig"]["defaults"]
    assert shown["color"]["mode"] == "fixed" or len(shown["thresholds"]["steps"]) > 1


def test_the_page_tells_what_drew_the_picture() -> None:
    """The version of Grafana's components on the page is the one that make dashboard installs."""
    packages = json.loads((MONITORING.parents[1] / "tests/dashboard/package.json").read_text("utf-8"))["dependencies"]
    told = re.findall(r"`@grafana/ui` ([\d.]+)", (MONITORING.parent / "monitoring.md").read_text("utf-8"))
    assert told == [packages["@grafana/ui"]]
    assert {version for name, version in packages.items() if name.startswith("@grafana/")} == set(told)


def test_promtool_accepts_the_alerts() -> None:
    """The rules are valid to Prometheus's own tool."""
    checked = subprocess.run([binary("promtool", "Debian: prometheus"), "check", "rules", str(ALERTS)], check=False)
    assert checked.returncode == 0


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    own = {"job": "shop", "alias": "pages", "source": "a:1", **labels}
    shown = ", ".join(f'{label}="{value}"' for label, value in own.items())
    return {"series": f"{name}{{{shown}}}", "values": values}


#: Alert -> series that let it fire, by the notation of promtool: from a value, by how much a minute, for how many.
FIRING = {
    "StoreroomServerDown": [series("storeroom_servers_down", "1x400")],
    "StoreroomErrors": [series("storeroom_errors_total", "0+20x400")],
    "StoreroomHitRatioLow": [
        series("storeroom_requests_total", "0+60x400", result="hit"),
        series("storeroom_requests_total", "0+100x400", result="miss"),
    ],
    "StoreroomEvictionStorm": [
        series("storeroom_evictions_total", "0+60x400"),
        series("storeroom_max_entries", "100x400", source=""),
    ],
    "StoreroomComputationsFail": [
        series("storeroom_computations_total", "0+80x400", outcome="computed"),
        series("storeroom_computations_total", "0+10x400", outcome="failed"),
    ],
    "StoreroomValuesNotStored": [series("storeroom_unstored_total", "0+1x400")],
    "StoreroomConnectionsBusy": [series("storeroom_busy_total", "0+1x400")],
    "StoreroomRoundTripsSlow": [
        series("storeroom_round_trip_seconds_bucket", "0+90x400", le="0.1"),
        series("storeroom_round_trip_seconds_bucket", "0+100x400", le="0.25"),
        series("storeroom_round_trip_seconds_bucket", "0+100x400", le="+Inf"),
    ],
    "StoreroomDoesNotPay": [
        series("storeroom_computations_saved_total", "0+10x500"),
        series("storeroom_computation_seconds_total", "0+0.1x500"),
        series("storeroom_computations_total", "0+10x500", outcome="computed"),
        series("storeroom_round_trip_seconds_sum", "0+1x500"),
    ],
    "StoreroomNotRead": [series("storeroom_collect_failed", "1x400")],
}

#: The same at rest: a healthy cache of two workers, one of which both targets tell of.
HEALTHY = [
    *(series("storeroom_requests_total", "0+900x400", result="hit", source=source) for source in ("a:1", "a:2")),
    *(series("storeroom_requests_total", "0+100x400", result="miss", source=source) for source in ("a:1", "a:2")),
    series("storeroom_requests_total", "0+100x400", result="miss", instance="b"),
    series("storeroom_servers_down", "0x400"),
    series("storeroom_errors_total", "0x400"),
    series("storeroom_evictions_total", "0+10x400"),
    series("storeroom_max_entries", "100x400", source=""),
    series("storeroom_computations_total", "0+95x400", outcome="computed"),
    series("storeroom_computations_total", "0+5x400", outcome="failed"),
    series("storeroom_computation_seconds_total", "0+10x400"),
    series("storeroom_computations_saved_total", "0+900x400"),
    series("storeroom_round_trip_seconds_sum", "0+2x400"),
    series("storeroom_round_trip_seconds_bucket", "0+1000x400", le="0.1"),
    series("storeroom_round_trip_seconds_bucket", "0+1000x400", le="+Inf"),
    series("storeroom_unstored_total", "7x400"),
    series("storeroom_busy_total", "7x400"),
    series("storeroom_collect_failed", "0x400"),
]


def test_alerts_fire_when_they_are_to(tmp_path: Path) -> None:
    """Each fires on numbers of its trouble, for the cache that has it; none does on a healthy cache's."""
    text = ALERTS.read_text("utf-8")
    assert set(FIRING) == set(alert_expressions())

    def firing(name: str) -> dict[str, Any]:
        rule = text.partition(f"alert: {name}\n")[2].partition("- alert:")[0]
        told = {part: re.findall(rf'{part}: "(.*)"', rule)[0] for part in ("summary", "description")}
        told = {part: sentence.replace("{{ $labels.alias }}", "pages") for part, sentence in told.items()}
        severity = re.findall(r"severity: (\w+)", rule)[0]
        labels = {"severity": severity, "alias": "pages", "job": "shop"}
        return {"exp_labels": labels, "exp_annotations": told}

    tests = [
        {
            "interval": "1m",
            "input_series": numbers,
            "alert_rule_test": [
                {"eval_time": "480m" if "Pay" in name else "60m", "alertname": name, "exp_alerts": [firing(name)]}
            ],
        }
        for name, numbers in FIRING.items()
    ]
    quiet = [{"eval_time": "60m", "alertname": name, "exp_alerts": []} for name in FIRING]
    tests.append({"interval": "1m", "input_series": HEALTHY, "alert_rule_test": quiet})
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    tool = binary("promtool", "Debian: prometheus")
    ran = subprocess.run([tool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


# On real data -----------------------------------------------------------------------------------------


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[str]:
    """Serve the numbers of caches that are at work; yield the address."""
    with engines_of_its_own():
        options = {"max_entries": 20}
        storeroom.configure(
            {
                "default": {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": options},
                "db": {
                    "BACKEND": "storeroom.backends.db.DatabaseCache",
                    "LOCATION": f"sqlite:///{tmp_path}/cache.db",
                    "OPTIONS": {**options, "shared_stats": True, "near": True},
                },
            }
        )
        registry, done = CollectorRegistry(auto_describe=True), threading.Event()
        registry.register(StoreroomCollector())

        def work() -> None:
            number = 0
            while not done.wait(0.02):
                number += 1
                for alias in caches:
                    caches[alias].get_or_set(f"page:{number % 30}", lambda: "<html>" * 10)
                    caches[alias].get(f"user:{number % 7}")
                    caches[alias].set(f"user:{number % 9}", number)

        server, serving = start_http_server(0, "127.0.0.1", registry)
        worker = threading.Thread(target=work)
        worker.start()
        yield f"127.0.0.1:{server.server_port}"
        done.set()
        worker.join()
        server.shutdown()
        server.server_close()
        serving.join()
        caches.swap(None)


def asked(expression: str) -> str:
    """An expression as Grafana asks it, of all jobs and caches."""
    text = expression.replace("$__rate_interval", "30s")
    return re.sub(r'(job|alias)=~"\$\w+"', r'\1=~".*"', text)


#: Queries of what does not happen here.
WITHOUT_ANSWER = {"Values not stored A"}


@pytest.mark.slow
def test_queries_answer_on_real_data(exporter: str, tmp_path: Path) -> None:
    """A real Prometheus evaluates each query, and all but those of troubles that there are none of have an answer."""
    with scraping(tmp_path / "prometheus", [exporter]) as server:
        deadline = time.monotonic() + 60
        while not has_rates(server):
            assert time.monotonic() < deadline, server.ask("targets")
            time.sleep(0.2)
        found = {name: server.query(asked(expression)) for name, expression in EXPRESSIONS.items()}
        assert {name for name in QUERIES if not found[name]} == WITHOUT_ANSWER
        ratio = float(found["Hit ratio A"][0]["value"][1])
        assert 0 < ratio < 1
        reads = {each["metric"]["alias"]: float(each["value"][1]) for each in server.query(READS)}
        by_result = server.query(READS.replace("by (alias) (max", "by (alias, result) (max"))
        for alias, number in reads.items():
            parts = [float(each["value"][1]) for each in by_result if each["metric"]["alias"] == alias]
            assert sum(parts) == pytest.approx(number)
        assert not [name for name in alert_expressions() if found[name] and name not in EXPECTED]


READS = 'sum by (alias) (max by (job, alias, source, result) (storeroom_requests_total{job="shop"}))'

#: Alerts whose expression, but not its `for`, holds of a cache that is much too small.
EXPECTED = {"StoreroomEvictionStorm", "StoreroomHitRatioLow", "StoreroomDoesNotPay"}


def has_rates(server: PrometheusServer) -> bool:
    return len(server.query('rate(storeroom_requests_total{result="hit"}[30s]) > 0')) >= 2
