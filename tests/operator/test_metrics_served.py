"""The operator as a program: what its /metrics say of what is in the cluster, and no longer say."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.artifacts import artifact, set_status
from tests.cluster.client import Cluster, Namespace
from tests.operator.front import ApiFront
from tests.operator.program import Program

PAUSED = {"aim.eai.amd.com/reconciliation-paused": "true"}
PROGRESS = {"downloadedBytes": 30, "totalBytes": 100, "bytesPerSecond": 7}

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


def value(program: Program, metric: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    code, page = program.probe("/metrics")
    assert code == 200, page
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"aim_operator_{metric}" and labels.items() <= sample.labels.items()
    )


def wait_for_value(program: Program, wanted: float, metric: str, **labels: str) -> None:
    program.wait_for(
        lambda: value(program, metric, **labels) == wanted, what=f"{metric} {labels} is {wanted}"
    )


def started(kinds: Cluster, space: Namespace, folder: Path) -> Program:
    return Program(kinds.kubeconfig, folder, "--namespaces", space.name)


def put(space: Namespace, name: str, status: str) -> None:
    """An artifact that nobody but the test speaks of."""
    made = artifact(name)
    made["metadata"]["annotations"] = PAUSED
    space.apply(made)
    set_status(space, name, {"status": status, "progress": PROGRESS})


def test_what_pods_tell_is_known_at_once_and_by_the_next_operator_and_gone_with_the_artifact(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    one = {"namespace": space.name, "kind": "AIMArtifact", "artifact": "model"}
    with started(kinds, space, tmp_path) as program:
        program.wait_until_ready()
        program.wait_until_it_watches()
        assert value(program, "artifacts") == 0
        put(space, "model", "Progressing")
        put(space, "other", "Ready")
        wait_for_value(program, 1, "artifacts", status="Ready", namespace=space.name)
        wait_for_value(program, 1, "artifacts", status="Progressing", namespace=space.name)
        assert value(program, "artifact_downloaded_bytes", **one) == 30
        assert value(program, "artifact_bytes_per_second", **one) == 7
        assert value(program, "remaining_bytes", namespace=space.name) == 70
        assert value(program, "ready_bytes", namespace=space.name) == 100
        # Nobody is woken by what is told: who is made later is looked at, and it is not.
        mine, later = (f"AIMArtifact {space.name}/{name}" for name in ("model", "later"))
        program.wait_for_pass(mine)
        since = program.mark()
        set_status(space, "model", {"progress": {"downloadedBytes": 60}})
        wait_for_value(program, 60, "artifact_downloaded_bytes", **one)
        put(space, "later", "Ready")
        program.wait_for_pass(later, since)
        assert not program.passes(mine, since)
        assert value(program, "downloaded_bytes_total", namespace=space.name) >= 30
    with started(kinds, space, tmp_path) as program:
        program.wait_until_ready()
        wait_for_value(program, 60, "artifact_downloaded_bytes", **one)
        space.kubectl("delete", "aimartifact", "model", "other", "later")
        wait_for_value(program, 0, "artifacts", namespace=space.name)
        assert 'artifact="' not in program.probe("/metrics")[1]


def test_what_is_deleted_while_the_watches_are_cut_is_gone_after_the_next_look(
    kinds: Cluster, space: Namespace, tmp_path: Path
) -> None:
    with ApiFront(kinds, tmp_path) as front:
        flags = ("--namespaces", space.name, "--resync", "2")
        with Program(front.kubeconfig, tmp_path, *flags) as program:
            program.wait_until_ready()
            put(space, "model", "Progressing")
            wait_for_value(program, 1, "artifacts", namespace=space.name)
            front.go_down()
            space.kubectl("delete", "aimartifact", "model")
            front.come_up()
            wait_for_value(program, 0, "artifacts", namespace=space.name)


def test_the_operator_tells_of_itself(kinds: Cluster, space: Namespace, tmp_path: Path) -> None:
    with started(kinds, space, tmp_path) as program:
        program.wait_until_ready()
        program.wait_until_it_watches()
        put(space, "model", "Progressing")
        program.wait_for_pass(f"AIMArtifact {space.name}/model")
        program.wait_for(lambda: value(program, "reconcile_seconds_count") >= 1)
        assert value(program, "build_info") == 1
        assert value(program, "last_resync_timestamp_seconds") > 0
        assert value(program, "resync_interval_seconds") == 300
        wait_for_value(program, 0, "queue_length")
        assert value(program, "api_requests_total", verb="get", kind="AIMArtifact", code="200") >= 1
        assert value(program, "api_requests_total", verb="watch", kind="Pod", code="200") == 1
        assert value(program, "watch_restarts_total") == 0
