"""An AIMArtifact is told of its download by the pod, and a real API server has the last word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from aim_downloader.config import Config
from aim_downloader.events import (
    FileStarted,
    PlanMade,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)
from aim_downloader.http_client.cluster import ApiServer
from aim_downloader.reporters.artifact_status import ArtifactStatus
from aim_downloader.reporters.kubernetes import Artifact, KubernetesReporter, kubernetes_reporter
from tests.cluster import Cluster, KubectlError
from tests.cluster.addresses import API_SERVER
from tests.cluster.artifacts import AIM_ENGINE, OURS, artifact, artifacts, set_status
from tests.cluster.client import Namespace
from tests.cluster.fixtures import leave_out
from tests.cluster.rights import wait_until_rights_are_seen

# The cluster may have to be made first.
pytestmark = pytest.mark.timeout(400)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OFTEN = 0.05
PLANNED = PlanMade("/cache", 1, 1000, 1, 1000, 0, 0, 0, 0, 0, 0, 0, "")
STARTED = FileStarted("model.bin", 1000, 0, "HF_TRANSFER", 2, 2)
SAMPLE = RunProgressed(570, 1000, 570, 0, 1, 42.0, 10.0, 8, verifying=False, active=())
PUBLISHED = SnapshotPublished("/cache", COMMIT, 1, 1000, 1000, 12.0)
BEGINNING = (SnapshotResolved("hf://org/model", COMMIT, 1, 1000), PLANNED, STARTED)

OF_OPERATOR = {
    "status": "Progressing",
    "mode": "Shared",
    "discoveredSizeBytes": 1000,
    "displaySize": "1000 B",
    "persistentVolumeClaim": "demo-cache-0a1b2c3d",
    "conditions": [
        {
            "type": "DownloadComplete",
            "status": "False",
            "reason": "Downloading",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ],
}
UNDER_WAY = {
    "progress": {
        "percentage": 57,
        "displayPercentage": "57 %",
        "downloadedBytes": 570,
        "totalBytes": 1000,
    },
    "download": {
        "protocol": "HF_TRANSFER",
        "attempt": 2,
        "totalAttempts": 2,
        "protocolSequence": "XET,HF_TRANSFER",
        "message": "Downloading with HF_TRANSFER",
    },
}
ONLY_OURS = {
    "progress": {"bytesPerSecond": 42, "remainingSeconds": 10},
    "download": {"revision": COMMIT},
}
COMPLETE = {
    "progress": {
        "percentage": 100,
        "displayPercentage": "100 %",
        "downloadedBytes": 1000,
        "totalBytes": 1000,
    },
    "download": UNDER_WAY["download"] | {"message": "Complete"},
}

# What the operator grants the pod: one verb, on the status of these.
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "downloader"},
    "rules": [
        {
            "apiGroups": ["aim.eai.amd.com"],
            "resources": ["aimartifacts/status"],
            "resourceNames": ["demo", "deleted"],
            "verbs": ["patch"],
        }
    ],
}


@dataclass(frozen=True)
class Recorded(ApiServer):
    """Remembers what was sent to the API server."""

    patches: list[Any] = field(default_factory=list)

    def merge_patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.patches.append(body["status"])
        return ApiServer.merge_patch(self, path, body)


class Pod:
    """Where the downloader is at work: in a namespace, with a token of its service account."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        self.folder = folder
        self.told: list[str] = []
        folder.mkdir()
        authorities = namespace.get("configmap", "kube-root-ca.crt")["data"]["ca.crt"]
        (folder / "ca.crt").write_text(authorities)
        self.renew_token()

    def renew_token(self) -> None:
        token = self.namespace.kubectl("create", "token", "downloader")
        (self.folder / "token").write_text(token)

    @contextmanager
    def reporting(self, reporter: KubernetesReporter) -> Iterator[KubernetesReporter]:
        """Only what the reporter starts is in the network of pods."""
        with self.namespace.cluster.network():
            reporter.__enter__()
        try:
            yield reporter
        finally:
            reporter.__exit__()

    def reporter(self, name: str) -> AbstractContextManager[KubernetesReporter]:
        environ = {
            "KUBERNETES_SERVICE_HOST": API_SERVER,
            "KUBERNETES_SERVICE_PORT": "443",
            "ARTIFACT_NAMESPACE": self.namespace.name,
            "ARTIFACT_NAME": name,
        }
        config = Config(progress_interval=OFTEN)
        found = kubernetes_reporter(environ, config, self.told.append, self.folder)
        assert found is not None
        return self.reporting(found)

    def status(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = self.namespace.get("aimartifact", name).get("status", {})
        return found


@pytest.fixture(params=[AIM_ENGINE])
def pod(request: pytest.FixtureRequest, control_plane: Cluster, tmp_path: Path) -> Iterator[Pod]:
    if control_plane.pid is None:
        leave_out("the network of the cluster of KUBECONFIG is out of reach")
    with artifacts(control_plane, request.param) as namespace:
        namespace.kubectl("create", "serviceaccount", "downloader")
        namespace.apply(ROLE, artifact("demo"), artifact("other"))
        account = f"--serviceaccount={namespace.name}:downloader"
        namespace.kubectl("create", "rolebinding", "downloader", "--role=downloader", account)
        wait_until_rights_are_seen(namespace)
        yield Pod(namespace, tmp_path / "account")


def merged(*statuses: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in statuses:
        for name, value in status.items():
            found[name] = found.get(name, {}) | value if isinstance(value, dict) else value
    return found


def wait_for(pod: Pod, status: Mapping[str, Any]) -> None:
    pod.namespace.cluster.wait_for(lambda: pod.status() == status, 60, f"{pod.status()}")


@pytest.mark.parametrize(("pod", "kept"), [(AIM_ENGINE, {}), (OURS, ONLY_OURS)], indirect=["pod"])
def test_the_artifact_says_how_far_its_download_is(pod: Pod, kept: dict[str, Any]) -> None:
    set_status(pod.namespace, "demo", OF_OPERATOR)
    with pod.reporter("demo") as report:
        for event in (*BEGINNING, SAMPLE):
            report(event)
        wait_for(pod, merged(OF_OPERATOR, UNDER_WAY, kept))
        table = pod.namespace.kubectl("get", "aimart", "demo", "-o", "wide", "--no-headers")
        assert " ".join(table.split()[1:9]) == "Progressing Shared 1000 B 57 % HF_TRANSFER 2"
        report(PUBLISHED)
    revision = {"download": {"revision": COMMIT}} if kept else {}
    assert pod.status() == merged(OF_OPERATOR, COMPLETE, revision)
    assert pod.told == []


@pytest.mark.parametrize(
    ("pod", "times"), [(AIM_ENGINE, 1), (OURS, 4)], indirect=["pod"], ids=["once", "each time"]
)
def test_fields_that_the_kind_does_not_keep_are_sent_once(pod: Pod, times: int) -> None:
    server = Recorded(f"https://{API_SERVER}:443", pod.folder)
    place, status = Artifact(pod.namespace.name, "demo"), ArtifactStatus(("HTTP",))
    reporter = KubernetesReporter(server, place, status, OFTEN, pod.told.append)
    with pod.reporting(reporter) as report:
        report(PLANNED)
        for done in (100, 200, 300, 400):
            report(replace(SAMPLE, bytes_done=done, rate=float(done)))
            wait_for_patch(server, done)
    told = [patch for patch in server.patches if patch.get("progress", {}).get("bytesPerSecond")]
    assert len(told) == times


def wait_for_patch(server: Recorded, done: int) -> None:
    deadline = time.monotonic() + 60
    while not any(patch["progress"].get("downloadedBytes") == done for patch in server.patches):
        assert time.monotonic() < deadline, server.patches
        time.sleep(OFTEN)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("other", "403, no permission to patch the status of AIMArtifact"),
        ("deleted", "404, it knows no AIMArtifact"),
    ],
)
def test_what_is_not_granted_or_not_there_is_told_once(pod: Pod, name: str, line: str) -> None:
    with pod.reporter(name) as report:
        for event in (*BEGINNING, SAMPLE, PUBLISHED):
            report(event)
            time.sleep(2 * OFTEN)
    where = f"{line} {pod.namespace.name}/{name}"
    assert pod.told == [f"Kubernetes is not told of the progress: the API server answered {where}"]
    assert pod.status("other") == {}


def test_a_token_that_is_refused_may_be_replaced(pod: Pod) -> None:
    (pod.folder / "token").write_text("of-yesterday")
    with pod.reporter("demo") as report:
        pod.namespace.cluster.wait_for(lambda: pod.told)
        pod.renew_token()
        report(PUBLISHED)
    assert [line.rpartition(": ")[2] for line in pod.told] == [
        "the API server answered 401",
        "Kubernetes is told of the progress again",
    ]
    assert pod.status()["progress"]["percentage"] == 100


def test_the_kind_has_the_rules_of_aim_engine(pod: Pod) -> None:
    refusals = [
        ({"sourceUri": "ftp://org/model"}, "should match"),
        ({"sourceUri": "hf://org/another"}, "sourceUri is immutable"),
        ({"modelId": "no-slash"}, "should match"),
        ({"size": "many"}, "should match"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "Duplicate value"),
    ]
    for change, refused in refusals:
        changed = artifact("demo")
        changed["spec"] |= change
        with pytest.raises(KubectlError, match=refused):
            pod.namespace.kubectl("replace", "-f", "-", input=json.dumps(changed))
    with pytest.raises(KubectlError, match="percentage"):
        set_status(pod.namespace, "demo", {"progress": {"percentage": 101}})
