"""The dashboard, the alerts and the page are made of metrics that the operator has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from deploy.manifests import CHART
from operator_shim.metrics import METRICS
from operator_shim.retrying import Failure
from tests.operator.helm import Helm, need_helm

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text("utf-8")
BOARD: dict[str, Any] = json.loads((CHART / "monitoring" / "dashboard.json").read_text("utf-8"))
RULES: dict[str, Any] = yaml.safe_load((CHART / "monitoring" / "alerts.yaml").read_text("utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
TARGETS = [
    (panel["title"], target) for panel in BOARD["panels"] for target in panel.get("targets", [])
]

# What there is of a histogram, and what Prometheus adds to whatever it scrapes.
SERIES = {
    f"{metric.name}{suffix}": {*metric.labels, *(["le"] if suffix == "_bucket" else [])}
    for metric in METRICS
    for suffix in (("_bucket", "_count", "_sum") if metric.type == "histogram" else ("",))
}
OF_THE_PROCESS = {
    *("process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds")
}
OF_THE_TARGET = {"instance", "job"}


def metrics_of(query: str) -> set[str]:
    return set(re.findall(r"\b(?:aim|process)_\w+", query))


def labels_of(query: str) -> set[str]:
    """All labels that a query names: those that it chooses by, and those that it groups by."""
    chosen = re.findall(r'(\w+)\s*[=!]~?\s*"', query)
    grouped = re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", query)
    return {*chosen, *(word.strip() for words in grouped for word in words.split(","))}


def shown(text: str) -> set[str]:
    """The labels that a legend or a text of an alert fills in."""
    return set(re.findall(r"{{\s*(?:\$labels\.)?([a-z]\w*)\s*}}", text))


def demand(query: str, text: str = "") -> None:
    names = metrics_of(query)
    assert names
    assert names <= SERIES.keys() | OF_THE_PROCESS
    known = set[str]().union(*(SERIES.get(name, set()) for name in names), OF_THE_TARGET)
    assert labels_of(query) <= known
    assert shown(text) <= known


def test_what_these_tests_see_in_a_query() -> None:
    query = 'sum by (le, kind) (rate(aim_x_bucket{code!~"2..|404"}[5m])) / on (job) aim_y'
    assert metrics_of(query) == {"aim_x_bucket", "aim_y"}
    assert labels_of(query) == {"le", "kind", "code", "job"}
    assert shown("{{kind}} of {{ $labels.namespace }}: {{ $value | humanize }}") == {
        *("kind", "namespace")
    }


# -- the dashboard ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=lambda each: str(each)[:40])
def test_each_query_of_the_dashboard_finds_what_it_asks_for(
    title: str, target: dict[str, Any]
) -> None:
    demand(target["expr"], target["legendFormat"])


def test_each_metric_is_on_the_dashboard() -> None:
    on_it = set[str]().union(*(metrics_of(target["expr"]) for _, target in TARGETS))
    of_histograms = {re.sub(r"_(bucket|count|sum)$", "", name) for name in on_it}
    assert {metric.name for metric in METRICS} <= on_it | of_histograms


def test_the_panels_do_not_overlap_and_each_has_its_number() -> None:
    places = [panel["gridPos"] for panel in BOARD["panels"]]
    cells = [cell for place in places for cell in covered(place)]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))


def covered(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y


def test_the_dashboard_names_no_data_source_of_its_own() -> None:
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(BOARD["panels"]))
    assert set(sources) == {"${datasource}"}


# -- alerts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda each: str(each["alert"]))
def test_each_alert_finds_what_it_asks_for_and_says_what_to_do(alert: dict[str, Any]) -> None:
    words = alert["annotations"]
    demand(alert["expr"], " ".join(words.values()))
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "runbook"} == set(words)
    page, _, anchor = words["runbook"].partition("#")
    assert page == "docs/monitoring.md"
    assert f"### {alert['alert']}\n" in PAGE
    assert anchor == alert["alert"].lower()


@pytest.mark.parametrize("failure", Failure, ids=lambda each: str(each.value))
def test_whatever_ails_an_artifact_raises_one_alert(failure: Failure) -> None:
    asked = re.compile(r'aim_operator_artifact_failed\{class(=|!~)"([^"]+)"\}')
    raised = [
        alert["alert"]
        for alert in ALERTS
        for how, classes in asked.findall(alert["expr"])
        if (how == "=") == bool(re.fullmatch(classes, failure.value))
    ]
    assert len(raised) == 1


def test_the_page_has_no_alert_that_there_is_not() -> None:
    assert re.findall(r"^### (AIM\w+)$", PAGE, re.MULTILINE) == [each["alert"] for each in ALERTS]


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS, ids=lambda each: each.name)
def test_each_metric_has_its_row_on_the_page(metric: Any) -> None:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    assert f"| `{metric.name}` | {metric.type} | {labels} | {metric.help} |" in PAGE.splitlines()


def test_the_page_names_no_metric_that_there_is_not() -> None:
    named = metrics_of(PAGE)
    assert named <= SERIES.keys() | OF_THE_PROCESS | {metric.name for metric in METRICS}


# -- the chart -------------------------------------------------------------------------------------


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    need_helm()
    return Helm(tmp_path)


ALL = tuple(f"--set=monitoring.{what}=true" for what in ("podMonitor", "alerts", "dashboard"))


def test_by_default_nothing_asks_for_the_prometheus_operator(helm: Helm) -> None:
    assert "monitoring.coreos.com" not in helm.template()
    assert "ConfigMap" not in helm.objects()


def test_prometheus_finds_the_operators_pod_and_keeps_the_artifacts_labels(helm: Helm) -> None:
    objects = helm.objects(*ALL, "--set=monitoring.labels.release=prometheus")
    monitor, pod = objects["PodMonitor"], objects["Deployment"]["spec"]["template"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    chosen = monitor["spec"]["selector"]["matchLabels"]
    assert chosen.items() <= pod["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    ports = [port["name"] for each in pod["spec"]["containers"] for port in each["ports"]]
    assert endpoint["port"] in ports
    assert (endpoint["path"], endpoint["honorLabels"]) == ("/metrics", True)


def test_rules_and_dashboard_come_whole_through_the_chart(helm: Helm) -> None:
    objects = helm.objects(*ALL, "--set=monitoring.labels.release=prometheus")
    assert objects["PrometheusRule"]["spec"] == RULES
    assert objects["PrometheusRule"]["metadata"]["labels"]["release"] == "prometheus"
    config = objects["ConfigMap"]
    assert json.loads(config["data"]["aim-operator.json"]) == BOARD
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
