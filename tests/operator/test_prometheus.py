"""A real Prometheus reads the operator: the dashboard has data, and alerts are worked out."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from deploy.manifests import CHART
from operator_shim.objects import ANNOTATION_RETRY_STATE
from operator_shim.retrying import Failure, RetryState
from tests.cluster.artifacts import artifact
from tests.cluster.client import Cluster, Namespace
from tests.operator.front import ApiFront
from tests.operator.program import Program
from tests.operator.prometheus import Prometheus, need_prometheus
from tests.operator.test_monitoring import PAGE, TARGETS

RULES = CHART / "monitoring" / "alerts.yaml"
PAUSED = "aim.eai.amd.com/reconciliation-paused"
API = "aim.eai.amd.com/v1alpha1"

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


def configuration(program: Program) -> dict[str, Any]:
    """That of the page, with the operator found by its address, and no patience."""
    found = re.search(r"```yaml\n(scrape_configs:.*?)```", PAGE, re.DOTALL)
    assert found
    config: dict[str, Any] = yaml.safe_load(found[1])
    [job] = config["scrape_configs"]
    # It takes a cluster to answer these.
    assert job.pop("kubernetes_sd_configs") == [
        {"role": "pod", "namespaces": {"names": ["aim-operator"]}}
    ]
    port = program.said("probes are answered on port")[0]["message"].split()[-1]
    labels = {"__meta_kubernetes_pod_container_port_name": "health"}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]
    assert config["rule_files"] == [RULES.name]
    config["rule_files"] = [str(RULES)]
    return {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, **config}


def put(space: Namespace, kind: str, name: str, status: dict[str, Any], job: str = "") -> None:
    """An object of which nobody but the test speaks; this Job of it has failed."""
    state = RetryState(Failure.ACCESS, 1, None, "", job).dump() if job else ""
    metadata = {"name": name, "annotations": {PAUSED: "true", ANNOTATION_RETRY_STATE: state}}
    service = {"apiVersion": API, "kind": kind, "spec": {"model": {"image": "org/model"}}}
    space.apply({**(artifact(name) if kind == "AIMArtifact" else service), "metadata": metadata})
    patch = ("--type=merge", "--patch", json.dumps({"status": status}))
    space.kubectl("patch", kind.lower(), name, "--subresource=status", *patch)


def told(status: str, downloaded: int) -> dict[str, Any]:
    """What the operator and a pod tell of an artifact of 100 bytes."""
    progress = {"downloadedBytes": downloaded, "totalBytes": 100, "bytesPerSecond": 7}
    since = {"reason": "Any", "message": "", "lastTransitionTime": "2126-01-31T10:02:00Z"}
    ready = {"type": "Ready", "status": str(status == "Ready"), **since}
    return {"status": status, "progress": progress, "conditions": [ready]}


def filled_in(query: str, space: Namespace) -> str:
    """With the dashboard's variables as Grafana has them."""
    known = query.replace("$namespace", space.name).replace("$__rate_interval", "2m")
    assert "$" not in known
    return known


def trouble_with(target: dict[str, Any], prometheus: Prometheus, space: Namespace) -> str:
    """What a panel lacks: data, or the labels of its legend."""
    found = prometheus.ask("query", query=filled_in(target["expr"], space))["result"]
    # What divides nothing by nothing draws nothing.
    seen = [each for each in found if each["value"][1] != "NaN"]
    legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    if not seen:
        return "no data"
    return "" if all(legend <= each["metric"].keys() for each in seen) else "labels"


def outlook(prometheus: Prometheus) -> dict[str, str]:
    """The state of each alert; none has been worked out in vain."""
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    return {rule["name"]: rule["state"] for rule in rules if rule["health"] == "ok"}


def let_things_happen(
    space: Namespace, front: ApiFront, program: Program, prometheus: Prometheus
) -> None:
    """Downloads go on, end and fail between two scrapes; the API server is away for a while."""
    for name in ("coming", "there", "failing"):
        put(space, "AIMArtifact", name, told("Progressing", 30), job="one")
    put(space, "AIMService", "chat", {"status": "Failed"})
    program.wait_for(
        lambda: (
            prometheus.values('aim_operator_artifacts{status="Progressing"}') == [3]
            and prometheus.values('aim_operator_objects{status="Failed"}') == [1]
        ),
        what="all is scraped",
    )
    put(space, "AIMArtifact", "coming", told("Progressing", 60), job="one")
    put(space, "AIMArtifact", "there", told("Ready", 100), job="one")
    put(space, "AIMArtifact", "failing", told("Failed", 30), job="two")
    front.go_down()
    program.wait_for(
        lambda: prometheus.values('aim_operator_api_requests_total{code="0"}'),
        what="requests without an answer are scraped",
    )
    front.come_up()


def test_prometheus_has_data_for_each_panel_and_works_out_each_alert(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    need_prometheus()
    flags = ("--namespaces", space.name, "--resync", "2")
    with ApiFront(kinds, tmp_path) as front, Program(front.kubeconfig, tmp_path, *flags) as program:
        program.wait_until_ready()
        program.wait_until_it_watches()
        with Prometheus(tmp_path, configuration(program)) as prometheus:
            let_things_happen(space, front, program, prometheus)

            def lacking() -> list[tuple[str, str]]:
                troubles = [
                    (title, trouble_with(each, prometheus, space)) for title, each in TARGETS
                ]
                return [each for each in troubles if each[1]]

            with contextlib.suppress(AssertionError):
                program.wait_for(lambda: not lacking())
            assert lacking() == []

            program.wait_for(lambda: outlook(prometheus).get("AIMArtifactFailed") == "pending")
            states = outlook(prometheus)
            assert states["AIMServicesFailed"] == "pending"
            assert "firing" not in states.values()
            asked = set(re.findall(r"\b(?:aim_operator|process)_\w+", RULES.read_text("utf-8")))
            assert [name for name in asked if not prometheus.values(name)] == []

            # The label is that of the artifact: it is what the dashboard's variable is chosen from.
            of_artifacts = {"match[]": "aim_operator_artifacts"}
            assert prometheus.ask("label/namespace/values", **of_artifacts) == [space.name]
            [target] = prometheus.ask("targets")["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
