"""AIMModelCache on a real API server: what users of the older kind apply, see, and have already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from operator_shim.artifact import reconcile
from operator_shim.config import Options
from operator_shim.keys import ARTIFACT, MODEL_CACHE, Key
from operator_shim.objects import Object, name_of, uid_of
from operator_shim.usage import note_usage
from tests.cluster.client import Cluster, Namespace
from tests.cluster.rights import wait_until_rights_are_seen
from tests.operator.fake_node import OPTIONS, FakeNode, Operator, OperatorsDoor, is_ready, says
from tests.operator.fakes import reasons
from tests.operator.kinds import custom, our_kinds

SPEC = {"sourceUri": "hf://org/model", "size": "1Gi"}
OWNED = "persistentvolumeclaims,jobs,serviceaccounts,roles,rolebindings"

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def kinds(control_plane: Cluster) -> Iterator[Cluster]:
    with our_kinds(control_plane) as cluster:
        yield cluster


class OlderOperator(Operator):
    """The operator for one AIMModelCache."""

    def __init__(self, door: OperatorsDoor, space: Namespace) -> None:
        super().__init__(door, space)
        self.key = Key(MODEL_CACHE, space.name, "demo")

    @property
    def artifact(self) -> Object:
        return self.space.get("aimmodelcache", self.key.name)


def is_available(status: Object) -> bool:
    return bool(status["status"] == "Available")


async def test_from_apply_to_available_and_gone(
    door: OperatorsDoor, space: Namespace, node: FakeNode
) -> None:
    space.apply(custom(MODEL_CACHE, "demo", SPEC))
    operator = OlderOperator(door, space)
    status = await operator.until(is_available, node.work)
    assert status["progress"]["displayPercentage"] == "100 %"
    said = reasons(status)
    assert said["Ready"] == "True Warm"
    assert said["StorageReady"] == "True PVCBound"
    assert said["Failure"] == "False NoFailure"
    writes = door.writes.total()
    for _ in range(3):
        await operator.look()
    assert door.writes.total() == writes
    [account] = space.listed("serviceaccount", "aim.eai.amd.com/cache.name=demo")
    [job] = space.listed("jobs")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "ARTIFACT_RESOURCE", "value": "aimmodelcaches"} in container["env"]
    who = f"--as=system:serviceaccount:{space.name}:{name_of(account)}"
    wait_until_rights_are_seen(space)
    can = ("auth", "can-i", "patch", "aimmodelcaches/demo", "--subresource=status", who)
    assert space.kubectl(*can).strip() == "yes"
    # Its claim and its Job go with it.
    space.kubectl("delete", "aimmodelcache", "demo", "--wait")
    space.cluster.wait_for(lambda: not space.listed(OWNED, "aim.eai.amd.com/cache.name=demo"))


async def test_deleted_while_its_job_runs_all_that_it_owns_goes(
    door: OperatorsDoor, space: Namespace, node: FakeNode
) -> None:
    space.apply(custom(MODEL_CACHE, "demo", SPEC))
    operator = OlderOperator(door, space)
    await operator.until(says("DownloadJobReady", "False JobRunning"))
    space.cluster.wait_for(lambda: node.pods("download"))
    space.kubectl("delete", "aimmodelcache", "demo")
    assert await reconcile(door, operator.key, OPTIONS) is None
    space.cluster.wait_for(lambda: not space.listed("pods"))
    space.cluster.wait_for(lambda: not space.listed(OWNED, "aim.eai.amd.com/cache.name=demo"))


async def test_what_an_older_operator_has_downloaded_is_never_downloaded_again(
    door: OperatorsDoor, space: Namespace, node: FakeNode
) -> None:
    space.apply(custom(MODEL_CACHE, "demo", SPEC))
    cache = space.get("aimmodelcache", "demo")
    space.apply(claim_of(cache))
    node.bind()
    [claim] = space.cluster.wait_for(lambda: bound(space))
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "Warm", "message": ""}
    status = {"status": "Available", "conditions": [{**ready, "lastTransitionTime": now}]}
    patch = ("--subresource=status", "--type=merge", "--patch", json.dumps({"status": status}))
    space.kubectl("patch", "aimmodelcache", "demo", *patch)
    operator = OlderOperator(door, space)
    status = await operator.look()
    assert status["status"] == "Available"
    assert status["persistentVolumeClaim"] == "demo-cache"
    assert [uid_of(each) for each in space.listed("pvc")] == [uid_of(claim)]
    assert space.listed("jobs") == []
    # It gets the label by which its events are heard.
    assert set(door.writes) == {"apply PersistentVolumeClaim", "apply status"}


def claim_of(cache: Object) -> dict[str, Any]:
    """The claim of a model cache, as an older operator made it."""
    owner = {
        "apiVersion": cache["apiVersion"],
        "kind": cache["kind"],
        "name": name_of(cache),
        "uid": uid_of(cache),
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{name_of(cache)}-cache", "ownerReferences": [owner]},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "2Gi"}},
            "storageClassName": "any",
        },
    }


def bound(space: Namespace) -> list[Object]:
    return [each for each in space.listed("pvc") if each["status"].get("phase") == "Bound"]


@pytest.mark.parametrize("kind", [ARTIFACT, MODEL_CACHE])
async def test_a_model_that_a_pod_mounts_is_told_when_it_was_last_used(
    door: OperatorsDoor, space: Namespace, node: FakeNode, kind: str
) -> None:
    space.apply(custom(kind, "demo", SPEC))
    older = kind == MODEL_CACHE
    operator = OlderOperator(door, space) if older else Operator(door, space)
    ready = await operator.until(is_available if older else is_ready, node.work)
    options = Options(namespaces=(space.name,), kinds=frozenset({kind}))
    await note_usage(door, options)
    assert "lastUsed" not in operator.status  # pods that filled it do not count
    space.apply(user_of(ready["persistentVolumeClaim"]))
    await note_usage(door, options)
    assert "lastUsed" not in operator.status  # not while the pod waits
    node.run("user")
    await note_usage(door, options)
    used = operator.status["lastUsed"]
    writes = door.writes.total()
    await note_usage(door, options)
    assert door.writes.total() == writes
    # The next word on the status leaves it.
    space.kubectl("annotate", kind, "demo", "aim.eai.amd.com/retry=again")
    spec = json.dumps({"spec": {"modelId": "org/model"}})
    space.kubectl("patch", kind, "demo", "--type=merge", "--patch", spec)
    await reconcile(door, operator.key, OPTIONS)
    assert operator.status["observedGeneration"] == 2
    assert operator.status["lastUsed"] == used


def user_of(claim: str) -> dict[str, Any]:
    """A pod that is nobody's, and reads a model."""
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    container = {
        "name": "any",
        "image": "registry.test/any:1",
        "volumeMounts": [{"name": "model", "mountPath": "/model"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    unprivileged = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "user"},
        "spec": {
            "containers": [container],
            "volumes": [volume],
            "securityContext": unprivileged,
        },
    }
