"""Pods with our image bring models onto volumes, as real Jobs under a limit, whatever happens."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.artifacts import artifact, artifacts
from tests.cluster.client import Namespace, ending
from tests.cluster.enclosure import run_inside
from tests.cluster.hub import hub_for_pods
from tests.cluster.manifests import container, pod, pod_spec
from tests.cluster.pods import (
    IMAGE,
    JOB_S,
    MIB,
    MODEL,
    SIZE,
    URI,
    WANTED,
    WEIGHTS,
    Bringing,
    assert_model_is_there,
    hashes,
)
from tests.cluster.rights import wait_until_rights_are_seen
from tests.hub import HubServer
from tests.hub.scripted import ScriptedServer
from tests.xet import XetFront

# The cluster and the image may have to be made first.
pytestmark = pytest.mark.timeout(400)

TOKEN = "hf_that_the_hub_does_not_know"


@pytest.fixture
def namespace(namespace: Namespace, image: str) -> Namespace:
    namespace.claim("model")
    return namespace


@pytest.mark.parametrize("protocol", ["XET", "HF_TRANSFER", "HTTP"])
def test_each_protocol_brings_a_model(namespace: Namespace, hub: HubServer, protocol: str) -> None:
    bringing = Bringing(namespace)
    bringing.begin(hub, {"AIM_DOWNLOADER_PROTOCOL": protocol})
    assert bringing.verdict() == "Complete"
    assert_model_is_there(bringing.folder())
    assert f"SUCCESS: {protocol} (attempt 1/1)" in bringing.log()
    message = bringing.message()
    assert (message["outcome"], message["exitCode"], message["error"]) == ("complete", 0, None)
    assert (message["protocol"], message["bytes"], message["uri"]) == (protocol, SIZE, URI)
    assert re.fullmatch("[0-9a-f]{40}", message["revision"])


def test_a_model_larger_than_the_memory_that_is_allowed(
    cluster: Cluster, namespace: Namespace, xet: XetFront, tmp_path: Path
) -> None:
    big = tmp_path / "big.safetensors"
    with big.open("wb") as opened:
        for _ in range(26):
            opened.write(WEIGHTS)
    with hub_for_pods(cluster, {"org/model": {"big.safetensors": big}}, xet) as hub:
        bringing = Bringing(namespace)
        bringing.begin(hub)
        assert bringing.verdict() == "Complete"
    there = bringing.folder() / "big.safetensors"
    assert there.stat().st_size == 26 * len(WEIGHTS) > 512 * MIB
    with there.open("rb") as opened, big.open("rb") as wanted:
        assert hashlib.file_digest(opened, "sha256").digest() == (
            hashlib.file_digest(wanted, "sha256").digest()
        )


# --- what becomes of it when a pod does not live to its end ---------------------------------------


def kill(bringing: Bringing) -> None:
    """SIGKILL for all that is in the container, as when the node runs out of memory."""
    status = bringing.namespace.get("pod", bringing.last_pod())["status"]
    container_id = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    pid = bringing.namespace.cluster.pid
    assert pid is not None
    run_inside(
        pid, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", "--all", container_id
    )


def drain(bringing: Bringing) -> None:
    """The pod is asked to go, and has its time for that."""
    bringing.namespace.kubectl("delete", "pod", bringing.last_pod())


@pytest.mark.parametrize(
    ("end", "protocol"), [(kill, "XET"), (drain, "HTTP")], ids=["killed", "drained"]
)
def test_the_next_pod_goes_on_where_the_last_one_stopped(
    namespace: Namespace,
    hub: HubServer,
    xet: XetFront,
    protocol: str,
    end: Callable[[Bringing], None],
) -> None:
    server: ScriptedServer = hub if protocol == "HTTP" else xet
    server.pace(6 * MIB)
    bringing = Bringing(namespace)
    bringing.begin(hub, {"AIM_DOWNLOADER_PROTOCOL": protocol})
    server.wait_for_bytes(16 * MIB)
    first = bringing.last_pod()
    end(bringing)
    server.pace(None)
    assert bringing.verdict() == "Complete"
    assert bringing.last_pod() != first
    assert_model_is_there(bringing.folder())
    assert bringing.message()["bytesReceived"] < SIZE - 2 * MIB
    assert "on disk already" in bringing.log() or "already there: " in bringing.log()


def test_two_pods_on_one_volume_do_the_work_of_one(namespace: Namespace, hub: HubServer) -> None:
    hub.pace(12 * MIB)
    both = [Bringing(namespace, name) for name in ("one", "other")]
    for each in both:
        each.begin(hub, {"AIM_DOWNLOADER_PROTOCOL": "HTTP"})
    assert [each.verdict() for each in both] == ["Complete", "Complete"]
    assert_model_is_there(both[0].folder())
    assert hub.bytes_sent() < 1.25 * SIZE


def test_pods_share_the_work(namespace: Namespace, hub: HubServer) -> None:
    indexed = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimitPerIndex": 2,
        "backoffLimit": 4,
    }
    bringing = Bringing(namespace, more=indexed)
    bringing.begin(hub, {"AIM_DOWNLOADER_PROTOCOL": "HTTP", "AIM_DOWNLOADER_SHARDS": "2"})
    assert bringing.verdict() == "Complete"
    assert_model_is_there(bringing.folder())
    assert hub.bytes_sent() < 1.1 * SIZE
    messages = [json.loads(ending(each)["message"]) for each in namespace.pods_of("bring")]
    assert [each["outcome"] for each in messages] == ["complete", "complete"]
    assert all(0 < each["bytesReceived"] < SIZE for each in messages)


# --- what ends it for good ------------------------------------------------------------------------


def assert_failed(bringing: Bringing, code: int, error: str) -> None:
    """One pod, which says why: in its exit code, its message, and its log."""
    assert bringing.verdict() == "Failed"
    end, message = bringing.ending(), bringing.message()
    assert (end["exitCode"], message["exitCode"]) == (code, code)
    assert (message["outcome"], message["error"]) == ("failed", error)
    assert len(namespace_pods := bringing.namespace.pods_of(bringing.name)) == 1, namespace_pods


def test_a_volume_that_is_too_small(namespace: Namespace, hub: HubServer) -> None:
    namespace.claim("small", "16Mi", small=True)
    bringing = Bringing(namespace, claim="small")
    bringing.begin(hub)
    assert_failed(bringing, 73, "InsufficientSpaceError")
    assert hub.bytes_sent() == 0


def test_a_volume_that_fills_up_on_the_way(namespace: Namespace, hub: HubServer) -> None:
    namespace.claim("small", "48Mi", small=True)
    hub.pace(6 * MIB)
    bringing = Bringing(namespace, claim="small")
    bringing.begin(hub, {"AIM_DOWNLOADER_PROTOCOL": "HTTP"})
    hub.wait_for_bytes(8 * MIB)
    fill(bringing.folder() / "of-somebody-else")
    assert_failed(bringing, 73, "InsufficientSpaceError")
    assert set(hashes(bringing.folder()).items()) < set(WANTED.items())


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as opened:
        try:
            while opened.write(bytes(MIB)):
                pass
        except OSError:
            return


def test_a_wrong_token_is_told_and_not_shown(namespace: Namespace, hub: HubServer) -> None:
    bringing = Bringing(namespace)
    bringing.begin(hub, {"HF_TOKEN": TOKEN})
    assert_failed(bringing, 77, "AccessDeniedError")
    assert TOKEN not in bringing.log() + json.dumps(bringing.ending())


def test_without_a_network(namespace: Namespace) -> None:
    bringing = Bringing(namespace, more={"backoffLimit": 0})
    # No name is known in the network of the cluster.
    bringing.begin(None)
    assert_failed(bringing, 75, "SourceError")


# --- beside others --------------------------------------------------------------------------------


def test_as_an_init_container_of_kserve(namespace: Namespace, hub: HubServer) -> None:
    # As KServe makes it: source and destination, an emptyDir, and no word of ours.
    first = container(
        IMAGE,
        name="storage-initializer",
        arguments=[URI, "/mnt/models"],
        environment={"HF_ENDPOINT": hub.endpoint},
        mounts={"kserve-provision-location": "/mnt/models"},
    )
    script = "import os; print(sorted(os.listdir('/mnt/models')))"
    server = container(
        IMAGE,
        command=["python", "-c", script],
        mounts={"kserve-provision-location": "/mnt/models"},
        name="kserve-container",
    )
    volume = {"name": "kserve-provision-location", "emptyDir": {}}
    spec = pod_spec(server, initContainers=[first]) | {"volumes": [volume]}
    namespace.apply(pod("predictor", spec))
    assert namespace.wait_for_end("predictor", JOB_S)["exitCode"] == 0
    assert all(repr(path.split("/")[0]) in namespace.logs("predictor") for path in MODEL)


def test_its_progress_is_seen_in_the_artifact(cluster: Cluster, hub: HubServer) -> None:
    hub.pace(6 * MIB)
    with artifacts(cluster) as namespace:
        namespace.claim("model")
        namespace.apply(artifact("demo", URI))
        namespace.kubectl("create", "serviceaccount", "bring")
        role = "--verb=patch --resource=aimartifacts.aim.eai.amd.com/status --resource-name=demo"
        namespace.kubectl("create", "role", "bring", *role.split())
        account = f"--serviceaccount={namespace.name}:bring"
        namespace.kubectl("create", "rolebinding", "bring", "--role=bring", account)
        wait_until_rights_are_seen(namespace)
        bringing = Bringing(namespace)
        told = {"ARTIFACT_NAME": "demo", "ARTIFACT_NAMESPACE": namespace.name}
        bringing.begin(
            hub,
            told | {"AIM_DOWNLOADER_PROTOCOL": "HTTP"},
            serviceAccountName="bring",
            automountServiceAccountToken=True,
        )

        def percentage() -> int:
            status = namespace.get("aimartifact", "demo").get("status", {})
            found: int = status.get("progress", {}).get("percentage", 0)
            return found

        seen = cluster.wait_for(percentage, JOB_S, "the artifact tells of progress")
        assert 0 < seen < 100
        hub.pace(None)
        assert bringing.verdict() == "Complete"
        status = namespace.get("aimartifact", "demo")["status"]
        assert (status["progress"]["percentage"], status["progress"]["totalBytes"]) == (100, SIZE)
        assert status["download"]["protocol"] == "HTTP"
