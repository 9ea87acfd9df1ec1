"""Nodes and volumes that find one another late, and nodes that go: what is told, and what goes on.

The last two have a real API server: Kubernetes' own controllers note that a node is gone, or a pod.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from operator_shim.objects import Object, annotations_of, at, condition_of, name_of, uid_of
from operator_shim.outcome import outcome_of_pod
from tests.cluster.client import Namespace
from tests.operator.fake_node import FakeNode
from tests.operator.fakes import FakeCluster, artifact, cluster_with, reasons
from tests.operator.kinds import custom
from tests.operator.program import looking_after

PODS, CLAIM = "DownloadJobPodsReady", "CachePvcReady"
SELECTED = "volume.kubernetes.io/selected-node"

SAYS_NODE = {"type": "Ready", "status": "False"}
SAYS_KUBELET = {**SAYS_NODE, "reason": "ContainersNotReady"}
NO_FINALIZERS = json.dumps({"metadata": {"finalizers": None}})
EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}


async def downloading() -> FakeCluster:
    """The claim and the Job are made."""
    cluster = cluster_with(artifact({"size": "1Gi"}))
    await cluster.settle()
    return cluster


def message(cluster: FakeCluster, kind: str) -> str:
    return str(at(condition_of(cluster.artifact, kind) or {}, "message", ""))


# -- volumes that wait for a pod -------------------------------------------------------------------


async def test_a_claim_that_waits_for_its_first_pod_is_on_its_way() -> None:
    cluster = await downloading()
    waits = {"type": "Normal", "reason": "WaitForFirstConsumer", "message": "waiting for first"}
    cluster.about[uid_of(cluster.claim)] = [waits]
    cluster.pod(phase="Pending")
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)[CLAIM] == "False PvcPending"
    assert "some classes wait for the first pod" in message(cluster, CLAIM)

    cluster.claim["metadata"].setdefault("annotations", {})[SELECTED] = "node-7"
    cluster.wait(seconds=30)
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)[PODS] == "False PodsPending"
    assert "it is being made for node node-7" in message(cluster, CLAIM)
    assert "waits for its volume" in message(cluster, "Ready")
    assert [kind for kind, *_ in cluster.told if kind == "Warning"] == []


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("1 node(s) had volume node affinity conflict", "are gone for good, delete the claim"),
        ("1 node(s) didn't match PersistentVolume's node affinity", "delete the claim"),
        ("1 node(s) had no available volume zone", "delete the claim"),
        ("1 node(s) didn't find available persistent volumes to bind", "no node can have"),
        ("1 node(s) did not have enough free storage", "no node can have"),
        ("running PreBind plugin VolumeBinding: binding volumes: timed out", "does not bind"),
        ("pod has unbound immediate PersistentVolumeClaims", "does not bind"),
        ("PersistentVolumeClaim with ReadWriteOncePod access mode already in-use", "another pod"),
    ],
)
def test_a_pod_that_has_no_node_for_its_volume_says_what_helps(said: str, hint: str) -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "message": f"0/1 nodes: {said}."}
    got = outcome_of_pod({"status": {"phase": "Pending", "conditions": [scheduled]}})
    assert got is not None
    assert (got.reason, got.status) == ("FailedScheduling", "Pending")
    assert hint in got.hint


# -- nodes that go ---------------------------------------------------------------------------------


@pytest.mark.parametrize("conditions", [[SAYS_NODE], [SAYS_NODE, EVICTED]])
async def test_a_node_that_does_not_answer_is_told_until_it_does(conditions: list[Object]) -> None:
    cluster = await downloading()
    cluster.bind()
    pod = cluster.pod(phase="Running", conditions=conditions)
    pod["spec"]["nodeName"] = "node-7"
    await cluster.settle()
    assert cluster.status["status"] == "Degraded"
    assert reasons(cluster.status)["Ready"] == "False InfrastructureError"
    assert reasons(cluster.status)[PODS] == "False NodeNotReady"
    for words in ("node node-7 does not answer", "kubectl delete node node-7", "another pod"):
        assert words in message(cluster, "Ready")
    pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert [each for kind, each, _ in cluster.told if kind == "Warning"] == ["NodeNotReady"]


def test_a_pod_that_is_not_ready_by_the_kubelets_word_is_well() -> None:
    assert outcome_of_pod({"status": {"phase": "Running", "conditions": [SAYS_KUBELET]}}) is None


@contextmanager
def silent_node(space: Namespace) -> Iterator[str]:
    """A node whose kubelet answers no longer; Kubernetes knows it when this begins."""
    name = f"silent-{space.name}"
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    # It takes no pods of others.
    spec = {"unschedulable": True}
    space.cluster.apply({**node, "spec": spec, "status": {"conditions": [unknown]}})
    known = ("--field-selector", f"involvedObject.name={name},reason=RegisteredNode", "-o", "name")
    try:
        space.cluster.wait_for(lambda: space.cluster.kubectl("get", "events", *known))
        yield name
    finally:
        space.cluster.kubectl("delete", "node", name, "--ignore-not-found")


# The garbage collector of pods looks every 20 s, and waits 40 s for a node to come back.
@pytest.mark.timeout(400)
def test_a_download_goes_on_after_its_node_has_gone(
    space: Namespace, node: FakeNode, tmp_path: Path
) -> None:
    states: set[str] = set()

    def status() -> Object:
        found: Object = space.get("aimartifact", "demo").get("status", {})
        states.add(found.get("status", ""))
        return found

    def says(reason: str) -> bool:
        return bool(reasons({"conditions": [], **status()}).get(PODS) == f"False {reason}")

    wait_for = space.cluster.wait_for
    with silent_node(space) as silent, looking_after([space], "AIMArtifact", tmp_path):
        lost = FakeNode(space, on=silent)
        space.apply(custom("AIMArtifact", "demo", {"sourceUri": "hf://org/model", "size": "1Gi"}))
        [pod] = wait_for(lambda: lost.pods("download"), what="a pod")
        node.bind()
        # What is ready on such a node, Kubernetes says not to be.
        lost.patch(pod, {"conditions": [{"type": "Ready", "status": "True"}]})
        lost.tell("download", {"phase": "Running"})
        wait_for(lambda: says("NodeNotReady"), what="it is told")
        assert silent in json.dumps(status()["conditions"])
        chosen = "involvedObject.name=demo,reason=NodeNotReady"
        wait_for(lambda: space.kubectl("get", "events", "--field-selector", chosen, "-o", "name"))

        space.cluster.kubectl("delete", "node", silent)
        lost.clear()

        def next_pod() -> list[Object]:
            status()
            return [each for each in node.pods("download") if uid_of(each) != uid_of(pod)]

        def ready() -> bool:
            node.work()
            return bool(status().get("status") == "Ready")

        wait_for(next_pod, 180, "the next pod")
        wait_for(ready, what="the model is there")
    # Pending for a moment: the real scheduler knows no node for the next pod.
    assert "Degraded" in states
    assert "Failed" not in states
    assert "aim.eai.amd.com/retry-state" not in annotations_of(space.get("aimartifact", "demo"))
    assert name_of(pod) not in [name_of(each) for each in space.listed("pods")]


def evict(space: Namespace, pod: str) -> None:
    """As `kubectl drain` does it; the pod stays to be seen until somebody lets it go."""
    stays = [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/stays"}]
    space.kubectl("patch", "pod", pod, "--type=json", "-p", json.dumps(stays))
    about = {"metadata": {"name": pod, "namespace": space.name}}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", **about}
    where = f"/api/v1/namespaces/{space.name}/pods/{pod}/eviction"
    space.kubectl("create", "--raw", where, "-f", "-", input=json.dumps(eviction))


@pytest.mark.timeout(400)
def test_an_eviction_is_told_and_the_next_pod_goes_on(
    space: Namespace, node: FakeNode, tmp_path: Path
) -> None:
    def says(status: str, of_pods: str) -> bool:
        told = at(space.get("aimartifact", "demo"), "status", {})
        about_pods = reasons({"conditions": [], **told}).get(PODS)
        return (told.get("status"), about_pods) == (status, of_pods)

    def events() -> str:
        chosen = "involvedObject.name=demo,reason=PodEvicted,type=Warning"
        return space.kubectl("get", "events", "--field-selector", chosen, "-o", "name")

    wait_for = space.cluster.wait_for
    with looking_after([space], "AIMArtifact", tmp_path):
        space.apply(custom("AIMArtifact", "demo", {"sourceUri": "hf://org/model", "size": "1Gi"}))
        [pod] = wait_for(lambda: node.pods("download"), what="a pod")
        node.bind()
        node.tell("download", {"phase": "Running"})
        wait_for(lambda: says("Progressing", "True PodsReady"), what="it is at work")

        evict(space, name_of(pod))
        wait_for(lambda: says("Degraded", "False PodEvicted"), what="it is told")
        wait_for(events, what="an Event")

        node.patch(pod, {"phase": "Failed"})
        wait_for(lambda: node.pods("download"), 180, "the next pod")
        space.kubectl("patch", "pod", name_of(pod), "--type=merge", "-p", NO_FINALIZERS)

        def ready() -> bool:
            node.work()
            return says("Ready", "True PodsReady")

        wait_for(ready, what="the model is there")
    assert "aim.eai.amd.com/retry-state" not in annotations_of(space.get("aimartifact", "demo"))
