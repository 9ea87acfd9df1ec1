"""Each alert, by promtool: it comes when it should, and says what; else it is silent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.manifests import CHART
from tests.operator import test_monitoring as monitoring
from tests.operator.prometheus import promtool
from tests.operator.test_metrics import everything

RULES = CHART / "monitoring" / "alerts.yaml"
ALERTS = {rule["alert"]: rule for rule in monitoring.ALERTS}

ONE = {"namespace": "models", "kind": "AIMArtifact", "artifact": "gpt2"}
FIRST, SECOND = (
    {"instance": f"10.0.0.{number}:8080", "job": "aim-operator", "pod": f"aim-operator-{number}"}
    for number in (1, 2)
)
"""What Prometheus adds to all that it scrapes from the first pod, and from the next one."""


@dataclass(frozen=True)
class Row:
    """These samples, one each minute from 0 on, and what the alert says at this minute."""

    alert: str
    case: str
    minute: int
    series: dict[str, str]
    said: str = ""
    labels: dict[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.alert}: {self.case}"


def of(metric: str, target: dict[str, str] = FIRST, /, **labels: str) -> str:
    named = ",".join(f'{name}="{value}"' for name, value in {**target, **labels}.items())
    return f"{metric}{{{named}}}"


def failed(kind: str, target: dict[str, str] = FIRST) -> str:
    return of("aim_operator_artifact_failed", target, **ONE, **{"class": kind})


def objects(status: str, target: dict[str, str] = FIRST) -> str:
    labels = {"namespace": "models", "kind": "AIMService", "status": status}
    return of("aim_operator_objects", target, **labels)


def retries(kind: str, target: dict[str, str] = FIRST) -> str:
    return of("aim_operator_retries_total", target, **{"class": kind})


BUILD, NEXT_BUILD = (of("aim_operator_build_info", pod) for pod in (FIRST, SECOND))
BEGAN = of("process_start_time_seconds")
RESYNC = of("aim_operator_last_resync_timestamp_seconds")
INTERVAL = {of("aim_operator_resync_interval_seconds"): "300x99"}
ERRORS = of("aim_operator_reconcile_errors_total", kind="AIMArtifact")
PASSES = of("aim_operator_reconcile_seconds_count", kind="AIMArtifact")
QUEUE = of("aim_operator_queue_length")
BYTES, NEXT_BYTES = (
    of("aim_operator_artifact_downloaded_bytes", p, **ONE) for p in (FIRST, SECOND)
)

ABSENT = "No operator for AIMArtifacts is scraped."
NO_RESYNC = "The operator no longer succeeds in looking at all objects."
STUCK = "AIMArtifact models/gpt2 has had no new byte for more than half an hour."


def has_failed(kind: str) -> tuple[str, dict[str, str]]:
    return f"AIMArtifact models/gpt2 has failed ({kind}).", {**ONE, "class": kind}


FULL = ("The volume of AIMArtifact models/gpt2 is full.", {**ONE, "class": "storage"})
HELD_UP = (
    "AIMArtifact models/gpt2 is held up by the cluster.",
    {**ONE, "class": "infrastructure"},
)
SERVICES = (
    "2 of the kind AIMService are Failed or Degraded in models.",
    {"namespace": "models", "kind": "AIMService"},
)

ROWS = [
    Row("AIMOperatorAbsent", "it is there", 60, {BUILD: "1x60"}),
    Row("AIMOperatorAbsent", "nobody ever was", 11, {}, ABSENT, {}),
    Row("AIMOperatorAbsent", "it went", 21, {BUILD: "1x9 stale"}, ABSENT, {}),
    Row("AIMOperatorAbsent", "it went a moment ago", 15, {BUILD: "1x9 stale"}),
    Row("AIMOperatorAbsent", "another came", 25, {BUILD: "1x9 stale", NEXT_BUILD: "_x14 1x20"}),
    Row(
        *("AIMOperatorRestarts", "it ends again and again", 25),
        {BEGAN: "0x4 stale 6x4 stale 12x4 stale 18x4 stale 24x4", BUILD: "1x4 stale _x20"},
        "The operator has started anew 4 times within an hour.",
        FIRST,
    ),
    Row("AIMOperatorRestarts", "it ended once", 25, {BEGAN: "0x9 11x20", BUILD: "1x30"}),
    Row("AIMOperatorRestarts", "another program", 25, {BEGAN: "0 1 2 3 4 5 6 7x20"}),
    Row("AIMOperatorRestarts", "long ago", 99, {BEGAN: "0 1 2 3 4 5 6 7x99", BUILD: "1x99"}),
    Row("AIMOperatorNotResyncing", "it looks", 60, {RESYNC: "0+60x60", **INTERVAL}),
    Row(
        "AIMOperatorNotResyncing",
        "once it did",
        25,
        {RESYNC: "60x99", **INTERVAL},
        NO_RESYNC,
        FIRST,
    ),
    Row(
        "AIMOperatorNotResyncing",
        "it never did",
        25,
        {RESYNC: "0x99", **INTERVAL},
        NO_RESYNC,
        FIRST,
    ),
    Row("AIMOperatorNotResyncing", "two looks failed", 15, {RESYNC: "60x99", **INTERVAL}),
    Row("AIMOperatorNotResyncing", "well again", 27, {RESYNC: "60x25 1560x9", **INTERVAL}),
    Row("AIMOperatorPassesFail", "none fails", 60, {ERRORS: "0x60", PASSES: "0+5x60"}),
    Row("AIMOperatorPassesFail", "a few", 60, {ERRORS: "0+1x60", PASSES: "0+20x60"}),
    Row("AIMOperatorPassesFail", "there is nothing to do", 60, {ERRORS: "9x60", PASSES: "90x60"}),
    Row("AIMOperatorPassesFail", "they did", 60, {ERRORS: "0+1x30 30x30", PASSES: "0+5x60"}),
    Row(
        *("AIMOperatorPassesFail", "many", 30, {ERRORS: "0+1x60", PASSES: "0+5x60"}),
        "20% of the passes over AIMArtifact fail.",
        {"kind": "AIMArtifact"},
    ),
    Row(
        *("AIMOperatorPassesFail", "many, and it starts anew meanwhile", 30),
        {ERRORS: "0+1x20 0+1x20", PASSES: "0+5x20 0+5x20"},
        "20% of the passes over AIMArtifact fail.",
        {"kind": "AIMArtifact"},
    ),
    Row("AIMOperatorQueueGrows", "short", 60, {QUEUE: "90x60"}),
    Row("AIMOperatorQueueGrows", "many were just made", 12, {QUEUE: "900x60"}),
    Row(
        *("AIMOperatorQueueGrows", "it has grown", 52, {QUEUE: "5x30 900x60"}),
        "900 objects wait for the operator, and have for long.",
        FIRST,
    ),
    Row("AIMOperatorQueueGrows", "it gets shorter", 30, {QUEUE: "900x10 5 900x30"}),
    Row(
        *("AIMOperatorQueueGrows", "it stays, by one lost scrape", 18),
        {QUEUE: "900x5 stale 900x30"},
        "900 objects wait for the operator, and have for long.",
        FIRST,
    ),
    *(
        Row("AIMArtifactFailed", kind, 12, {failed(kind): "1x60"}, *has_failed(kind))
        for kind in ("permanent", "access", "transient")
    ),
    Row("AIMArtifactFailed", "a moment ago", 9, {failed("access"): "1x60"}),
    Row("AIMArtifactFailed", "its volume is full", 60, {failed("storage"): "1x60"}),
    Row("AIMArtifactFailed", "its node is", 60, {failed("infrastructure"): "1x60"}),
    Row("AIMArtifactFailed", "it was cured", 20, {failed("access"): "1x12 stale"}),
    Row(
        *("AIMArtifactFailed", "with tries in between", 12),
        {failed("transient"): "1x1 stale 1x2 stale _ 1x4 stale _ _"},
        *has_failed("transient"),
    ),
    Row(
        *("AIMArtifactFailed", "the operator starts anew meanwhile", 12),
        {failed("access"): "1x5 stale", failed("access", SECOND): "_x7 1x20"},
        *has_failed("access"),
    ),
    Row("AIMArtifactStorageFull", "for a while", 6, {failed("storage"): "1x60"}, *FULL),
    Row("AIMArtifactStorageFull", "a moment ago", 4, {failed("storage"): "1x60"}),
    Row("AIMArtifactStorageFull", "another failure", 60, {failed("access"): "1x60"}),
    Row(
        *("AIMArtifactStorageFull", "the operator starts anew meanwhile", 6),
        {failed("storage"): "1x2 stale", failed("storage", SECOND): "_x4 1x20"},
        *FULL,
    ),
    Row("AIMArtifactHeldUp", "for long", 21, {failed("infrastructure"): "1x60"}, *HELD_UP),
    Row("AIMArtifactHeldUp", "for a while", 19, {failed("infrastructure"): "1x60"}),
    Row("AIMArtifactHeldUp", "another failure", 60, {failed("access"): "1x60"}),
    Row(
        *("AIMArtifactHeldUp", "with tries, and another operator", 21),
        {
            failed("infrastructure"): "1x4 stale _ 1x4 stale",
            failed("infrastructure", SECOND): "_x13 1x9",
        },
        *HELD_UP,
    ),
    Row("AIMArtifactStuck", "no byte comes", 50, {BYTES: "5x60"}, STUCK, ONE),
    Row("AIMArtifactStuck", "bytes come", 60, {BYTES: "5+1x60"}),
    Row("AIMArtifactStuck", "bytes came a while ago", 60, {BYTES: "5+1x40 45x20"}),
    Row("AIMArtifactStuck", "it is young", 25, {BYTES: "0x60"}),
    Row("AIMArtifactStuck", "it has failed", 60, {BYTES: "5x60", failed("access"): "1x60"}),
    Row(
        *("AIMArtifactStuck", "it fails again and again", 60),
        {BYTES: "0x60", failed("transient"): "1x20 stale _x3 1x19 stale _x3 1x20"},
    ),
    Row(
        *("AIMArtifactStuck", "bytes came a while ago, before the operator started anew", 62),
        {BYTES: "0+1x40 stale", NEXT_BYTES: "_x42 40x30"},
    ),
    Row(
        *("AIMArtifactStuck", "no byte comes, to no operator", 80),
        {BYTES: "5x30 stale", NEXT_BYTES: "_x32 5x60"},
        STUCK,
        ONE,
    ),
    Row("AIMServicesFailed", "none", 99, {objects("Failed"): "0x99", objects("Running"): "2x99"}),
    Row("AIMServicesFailed", "for a while", 55, {objects("Failed"): "2x99"}),
    Row("AIMServicesFailed", "for long", 61, {objects("Failed"): "2x99"}, *SERVICES),
    Row(
        *("AIMServicesFailed", "for long, in turns", 80),
        {objects("Failed"): "1x40 0x50", objects("Degraded"): "1x40 2x50"},
        *SERVICES,
    ),
    Row(
        *("AIMServicesFailed", "the operator starts anew meanwhile", 70),
        {objects("Failed"): "2x30 stale", objects("Failed", SECOND): "_x32 2x60"},
        *SERVICES,
    ),
    Row("AIMDownloadsFailOften", "none", 99, {retries("transient"): "20x99"}),
    Row("AIMDownloadsFailOften", "some", 60, {retries("transient"): "0x20 5x9 9x60"}),
    Row("AIMDownloadsFailOften", "it starts anew", 60, {retries("transient"): "90x30 0x30"}),
    Row(
        *("AIMDownloadsFailOften", "many, told by two", 60),
        {retries("access"): "0+1x15 stale", retries("access", SECOND): "_x17 0+1x15 15x60"},
        "30 downloads failed within an hour (access).",
        {"class": "access"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_alert_comes_when_it_should(row: Row, tmp_path: Path) -> None:
    rule = ALERTS[row.alert]
    expected = {
        "exp_labels": {**rule["labels"], **(row.labels or {})},
        "exp_annotations": {**rule["annotations"], "summary": row.said},
    }
    table = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in row.series.items()
                ],
                "alert_rule_test": [
                    {
                        "alertname": row.alert,
                        "eval_time": f"{row.minute}m",
                        "exp_alerts": [expected] if row.said else [],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "table.yaml"
    path.write_text(json.dumps(table), "utf-8")
    is_so, said = promtool("test", "rules", path)
    assert is_so, said


@pytest.mark.parametrize("alert", ALERTS)
def test_of_each_alert_it_is_seen_that_it_comes_and_that_it_does_not(alert: str) -> None:
    assert {bool(row.said) for row in ROWS if row.alert == alert} == {True, False}


def test_prometheus_takes_the_rules_and_has_no_complaints() -> None:
    is_so, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert is_so, said


def test_promtool_has_no_complaints_about_what_is_served() -> None:
    is_so, said = promtool("check", "metrics", input=everything().page("")[0].decode())
    assert is_so, said
