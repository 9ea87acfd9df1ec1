"""What the page on containers shows works on a real node: its commands, and its manifests."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.classification import classify
from tests.cluster import Cluster
from tests.cluster.artifacts import artifacts
from tests.cluster.client import Namespace, ending
from tests.cluster.hub import hub_for_pods, store_for_pods, xet_for_pods
from tests.cluster.manifests import container, pod, pod_spec
from tests.cluster.programs import search_path
from tests.cluster.volumes import FOLDERS
from tests.hub import HubServer
from tests.images.build import NAME as IMAGE
from tests.images.need import need_image
from tests.xet.need import need_server

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PAGE = (DOCS / "container.md").read_text("utf-8")
CRD_OF_KSERVE = Path(__file__).with_name("crds") / "clusterstoragecontainer.yaml"
OF_DOCS = "aim-downloader:latest"
WITHOUT_IMAGE = (
    "artifact.yaml",
    "service.yaml",
    "service-template.yaml",
    "status-role.yaml",
    "template-cache.yaml",
)
MODEL = "openai-community/gpt2"
URI = f"hf://{MODEL}"
SUMS = ".aim-downloader/SHA256SUMS"
MIB = 1024 * 1024
JOB_S = 180.0

WEIGHTS = random.Random(2).randbytes(6 * MIB)
FILES: Mapping[str, bytes | Path] = {
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": WEIGHTS[: 5 * MIB],
    "tf_model.h5": WEIGHTS[: 4 * MIB],
    "onnx/decoder_model.onnx": WEIGHTS[: 3 * MIB],
    "config.json": b'{"model_type": "gpt2"}',
    "README.md": b"# gpt2\n",
}
SIZE = sum(len(content) for content in FILES.values() if isinstance(content, bytes))
WANTED = {
    path: hashlib.sha256(content).hexdigest()
    for path, content in FILES.items()
    if isinstance(content, bytes)
}

# The cluster and the image may have to be made first.
pytestmark = pytest.mark.timeout(400)

Object = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def image(cluster: Cluster) -> None:
    """Our image, which the node has."""
    cluster.import_image(need_image().archive)


@pytest.fixture(scope="module")
def hub(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    need_server()
    with (
        store_for_pods(cluster, tmp_path_factory.mktemp("store")) as store,
        xet_for_pods(cluster, store) as xet,
        hub_for_pods(cluster, {MODEL: FILES}, xet) as hub,
    ):
        yield hub


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace() as namespace:
        yield namespace


# --- the examples, for this cluster ---------------------------------------------------------------


def manifest(name: str) -> str:
    """Its text, with the name that our image has on the node."""
    text = (EXAMPLES / name).read_text("utf-8")
    assert OF_DOCS in text or name in WITHOUT_IMAGE
    return text.replace(OF_DOCS, IMAGE)


def example(name: str, hub: HubServer) -> list[Object]:
    """Its objects, with two things added: the tests' Hub, and a class for the claims."""
    objects: list[Object] = list(yaml.safe_load_all(manifest(name)))
    for each in objects:
        if each["kind"] == "PersistentVolumeClaim":
            each["spec"]["storageClassName"] = FOLDERS
        for holder in holders_of_env(each):
            add_hub(holder, hub)
    return objects


def holders_of_env(each: Object) -> list[Object]:
    spec: Object = each.get("spec", {})
    if each["kind"] == "AIMArtifact":
        return [spec]
    found: list[Object] = spec.get("template", each).get("spec", {}).get("containers", [])
    return found


def add_hub(holder: Object, hub: HubServer) -> None:
    holder.setdefault("env", []).append({"name": "HF_ENDPOINT", "value": hub.endpoint})


def assert_model(folder: Path) -> None:
    """The files, right, and beside them the receipt alone."""
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*WANTED, SUMS}
    found = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in WANTED}
    assert found == WANTED
    listed = (line.split("  ", 1) for line in (folder / SUMS).read_text("utf-8").splitlines())
    assert {path: digest for digest, path in listed} == WANTED


# --- commands -------------------------------------------------------------------------------------


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[2:].partition("  #")[0] for line in lines if line.startswith("$ kubectl ")]


@pytest.fixture
def shell_environment(namespace: Namespace, tmp_path: Path) -> Mapping[str, str]:
    """As of somebody whose kubectl is about this namespace."""
    own = shutil.copy(namespace.cluster.kubeconfig, tmp_path / "kubeconfig")
    environment = {"KUBECONFIG": str(own), "PATH": search_path(os.environ), "HOME": str(tmp_path)}
    words = ["kubectl", "config", "set-context", "--current", f"--namespace={namespace.name}"]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    return environment


def test_the_shown_commands_bring_a_model(
    namespace: Namespace, hub: HubServer, tmp_path: Path, shell_environment: Mapping[str, str]
) -> None:
    folder = tmp_path / "docs" / "examples"
    folder.mkdir(parents=True)
    for path in EXAMPLES.glob("*.yaml"):
        (folder / path.name).write_text(yaml.safe_dump_all(example(path.name, hub)))
    assert len(commands()) >= 6
    said = {}
    for command in commands():
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=shell_environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=JOB_S,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        said[command] = done.stdout
    answer = json.loads(said["kubectl logs size-gpt2"].splitlines()[-1])
    assert answer == {"url": URI, "sizeBytes": SIZE}
    assert_model(namespace.volume("gpt2"))


def test_a_volume_is_checked_in_a_cluster_that_may_not_write_to_it(
    namespace: Namespace, hub: HubServer
) -> None:
    namespace.apply(*example("job.yaml", hub))
    assert namespace.wait_for_job("download-gpt2", JOB_S) == "Complete"
    checking = container(
        IMAGE, command=["aim-downloader", "verify", "/cache"], mounts={"gpt2": "/cache"}
    )
    checking["volumeMounts"][0]["readOnly"] = True
    namespace.apply(pod("check", pod_spec(checking, claims=["gpt2"])))
    assert namespace.wait_for_end("check", JOB_S)["exitCode"] == 0, namespace.logs("check")


# --- examples -------------------------------------------------------------------------------------


def test_four_pods_share_a_model(namespace: Namespace, hub: HubServer) -> None:
    namespace.apply(*example("shared-job.yaml", hub))
    assert namespace.wait_for_job("download-gpt2-shared", JOB_S) == "Complete"
    pods = namespace.pods_of("download-gpt2-shared")
    messages = [json.loads(ending(each)["message"]) for each in pods]
    assert [each["outcome"] for each in messages] == ["complete"] * 4
    # Each has fetched one of the large files.
    assert all(each["bytesReceived"] >= 3 * MIB for each in messages)
    assert_model(namespace.volume("gpt2-shared"))


def test_one_account_shows_one_artifact_and_may_do_nothing_else(
    cluster: Cluster, hub: HubServer
) -> None:
    with artifacts(cluster) as namespace:
        namespace.apply(
            *example("aim-engine-artifact.yaml", hub), *example("status-role.yaml", hub)
        )
        claim, job = example("job.yaml", hub)
        namespace.apply(claim, with_shown_lines(namespace, job))
        assert namespace.wait_for_job("download-gpt2", JOB_S) == "Complete"
        status = namespace.get("aimartifact", "gpt2")["status"]
        assert (status["progress"]["percentage"], status["progress"]["totalBytes"]) == (100, SIZE)
        more = rights(namespace, "download-gpt2") - rights(namespace, "default")
        assert [right.split() for right in more] == [
            ["aimartifacts.aim.eai.amd.com/status", "[]", "[gpt2]", "[patch]"]
        ]


def with_shown_lines(namespace: Namespace, job: Object) -> Object:
    """The Job, with the lines for its pods that the page shows beside this example."""
    [lines] = re.findall(r"^```yaml\n(serviceAccountName.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    patch = {"spec": {"template": {"spec": yaml.safe_load(lines)}}}
    words = ("patch", "--local", "-f", "-", "-o", "json", "--patch", json.dumps(patch))
    merged: Object = json.loads(namespace.kubectl(*words, input=json.dumps(job)))
    return merged


def rights(namespace: Namespace, account: str) -> set[str]:
    somebody = f"--as=system:serviceaccount:{namespace.name}:{account}"
    return set(namespace.kubectl("auth", "can-i", "--list", somebody).splitlines())


def test_a_job_that_cannot_succeed_ends_at_once_and_says_why(
    cluster: Cluster, hub: HubServer
) -> None:
    """Also where it may not show its progress: no line about that hides the cause."""
    hub.add_token("hf_of_somebody")
    with artifacts(cluster) as namespace:
        claim, job = example("job.yaml", hub)
        job = with_shown_lines(namespace, job)
        spec = job["spec"]["template"]["spec"]
        spec["serviceAccountName"] = "default"
        [download] = spec["containers"]
        download["args"] = ["hf://openai-community/gone"]
        download["env"].append({"name": "HF_TOKEN", "value": "hf_of_somebody"})
        namespace.apply(claim, job)
        assert namespace.wait_for_job("download-gpt2", JOB_S) == "Failed"
        [only] = namespace.pods_of("download-gpt2")
        assert ending(only)["exitCode"] == 66
        log = namespace.logs(only["metadata"]["name"])
        assert "no permission to patch the status" in log
        assert classify(log.splitlines()) == "not found"


# --- AIM Engine -----------------------------------------------------------------------------------

ENGINE = "aim.eai.amd.com"
UPDATER = "aim-engine-artifact-status-updater"
# What AIM Engine installs, and what it grants to every pod of a namespace.
RIGHTS: list[Object] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": UPDATER},
        "rules": [
            {
                "apiGroups": [ENGINE],
                "resources": ["aimartifacts/status"],
                "verbs": ["get", "patch", "update"],
            }
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": UPDATER},
        "subjects": [{"kind": "ServiceAccount", "name": "default"}],
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": UPDATER,
        },
    },
]


def job_of_engine(component: str, container: Object, **spec: object) -> Object:
    """A Job as AIM Engine makes it: with no seccomp profile, and the namespace's usual account."""
    labels = {
        f"{ENGINE}/cache.name": "gpt2",
        f"{ENGINE}/cache.type": "artifact",
        f"{ENGINE}/component": component,
    }
    user = {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True}
    pod: Object = {"restartPolicy": "Never", "securityContext": user, "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"gpt2-{component}-9179ba0d", "labels": labels},
        "spec": {
            "backoffLimit": 2,
            "ttlSecondsAfterFinished": 600,
            "template": {"metadata": {"labels": labels}, "spec": pod | spec},
        },
    }


def size_job(artifact: Object) -> Object:
    spec = artifact["spec"]
    container = {
        "name": "check-size",
        "image": spec["modelDownloadImage"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/check-size.sh"],
        "args": [spec["sourceUri"]],
        "env": spec["env"],
    }
    return job_of_engine("check-size", container)


def download_job(artifact: Object, size: int) -> Object:
    spec, metadata = artifact["spec"], artifact["metadata"]
    built_in = {
        "AIM_DOWNLOADER_PROTOCOL": "XET,HF_TRANSFER",
        "TMPDIR": "/tmp",
        "HF_HOME": "/tmp/.hf",
        "EXPECTED_SIZE_BYTES": str(size),
        "MOUNT_PATH": "/cache",
        "ARTIFACT_NAME": metadata["name"],
        "ARTIFACT_NAMESPACE": metadata["namespace"],
        "STALL_TIMEOUT": "120",
        "TARGET_DIR": "/cache",
    }
    environment = built_in | {each["name"]: each["value"] for each in spec["env"]}
    user = {"runAsUser": 1000, "runAsGroup": 1000}
    container = {
        "name": "model-download",
        "image": spec["modelDownloadImage"],
        "imagePullPolicy": "IfNotPresent",
        "args": [spec["sourceUri"]],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "securityContext": user,
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    volume = {"name": "cache", "persistentVolumeClaim": {"claimName": "gpt2-cache-9179ba0d"}}
    return job_of_engine(
        "download",
        container,
        securityContext=user | {"runAsNonRoot": True, "fsGroup": 1000},
        volumes=[volume],
    )


def test_aim_engine_downloads_by_the_image_that_an_artifact_names(
    cluster: Cluster, hub: HubServer
) -> None:
    with artifacts(cluster) as namespace:
        level = "pod-security.kubernetes.io/enforce=baseline"
        namespace.kubectl("label", "namespace", namespace.name, "--overwrite", level)
        subject = {"namespace": namespace.name}
        role, binding = RIGHTS
        subjects = [{**each, **subject} for each in binding["subjects"]]
        namespace.apply(role, {**binding, "subjects": subjects})
        namespace.apply(*example("aim-engine-artifact.yaml", hub))
        artifact = namespace.get("aimartifact", "gpt2")

        namespace.apply(size_job(artifact))
        assert namespace.wait_for_job("gpt2-check-size-9179ba0d", JOB_S) == "Complete"
        [sizing] = namespace.pods_of("gpt2-check-size-9179ba0d")
        log = namespace.logs(sizing["metadata"]["name"], "check-size")
        answer = json.loads(log.splitlines()[-1])
        assert answer == {"url": URI, "sizeBytes": SIZE}

        namespace.claim("gpt2-cache-9179ba0d")
        namespace.apply(download_job(artifact, answer["sizeBytes"]))
        assert namespace.wait_for_job("gpt2-download-9179ba0d", JOB_S) == "Complete"
        status = namespace.get("aimartifact", "gpt2")["status"]
        assert status["progress"]["percentage"] == 100
        assert status["download"]["protocolSequence"] == "XET,HF_TRANSFER,HTTP"
        assert_model(namespace.volume("gpt2-cache-9179ba0d"))


# --- KServe ---------------------------------------------------------------------------------------

KIND_OF_KSERVE = "crd/clusterstoragecontainers.serving.kserve.io"
VOLUME = "kserve-provision-location"
READ = """
import hashlib, json, sys
sha256 = lambda path: hashlib.file_digest(open(path, "rb"), "sha256").hexdigest()
print(json.dumps({path: sha256(path) for path in sys.argv[1:]}))
"""


@pytest.mark.parametrize("revision", ["", ":{commit}"], ids=["newest", "older"])
def test_kserve_starts_its_servers_with_the_models_of_the_hub(
    namespace: Namespace, hub: HubServer, revision: str
) -> None:
    name = f"of/{'older' if revision else 'newest'}"
    repository = hub.add_repo(name, FILES, xet=False)
    older = repository.head
    repository.commit({"config.json": b"{}"})
    namespace.kubectl("apply", "-f", str(CRD_OF_KSERVE))
    namespace.kubectl("wait", KIND_OF_KSERVE, "--for=condition=Established", "--timeout=150s")
    namespace.apply(manifest("kserve-storage-container.yaml"))
    accepted = namespace.get("clusterstoragecontainer", "aim-downloader")["spec"]
    assert accepted["supportedUriFormats"] == [{"prefix": "hf://"}]

    mount = {"name": VOLUME, "mountPath": "/mnt/models"}
    initializer = accepted["container"] | {
        "args": [f"hf://{name}{revision.format(commit=older)}", "/mnt/models"],
        "volumeMounts": [mount],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    add_hub(initializer, hub)
    server = container(IMAGE, command=["python", "-c", READ, *WANTED], name="kserve-container") | {
        "workingDir": "/mnt/models"
    }
    server["volumeMounts"] = [mount | {"readOnly": True}]
    spec = pod_spec(server, initContainers=[initializer])
    namespace.apply(pod("predictor", spec | {"volumes": [{"name": VOLUME, "emptyDir": {}}]}))
    assert namespace.wait_for_end("predictor", JOB_S)["exitCode"] == 0
    newest = WANTED | {"config.json": hashlib.sha256(b"{}").hexdigest()}
    assert json.loads(namespace.logs("predictor")) == (WANTED if revision else newest)
