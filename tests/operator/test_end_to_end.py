"""The operator as a user meets it: installed by its chart on a real node, with our two images."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.cluster.client import Namespace
from tests.cluster.hub import hub_for_pods
from tests.cluster.programs import program
from tests.cluster.volumes import WAITING
from tests.images.build import DOWNLOADER, OPERATOR
from tests.images.need import need_image
from tests.operator.helm import Helm
from tests.operator.kinds import custom, our_kinds
from tests.operator.platform import READY_S, Platform, conditions, installed, message

# The cluster and the images may have to be made first.
pytestmark = pytest.mark.timeout(500)

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "artifact.yaml"
MIB = 1024 * 1024
WEIGHTS = random.Random(7).randbytes(20 * MIB)
FILES: Mapping[str, bytes | Path] = {
    "model-1.safetensors": WEIGHTS,
    "model-2.safetensors": WEIGHTS[: 19 * MIB],
    "config.json": b'{"model_type": "gpt2"}',
}
WANTED = {path: hashlib.sha256(bytes(data)).hexdigest() for path, data in FILES.items()}
GATED = "org/gated"
TOKEN = "hf_that_may_read_it"

LARGER = json.dumps({"spec": {"size": "2Gi"}})

Object = dict[str, Any]


@pytest.fixture(scope="module")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    for recipe in (OPERATOR, DOWNLOADER):
        cluster.import_image(need_image(recipe).archive)
    helm = Helm(tmp_path_factory.mktemp("helm"))
    with (
        our_kinds(cluster),
        cluster.namespace() as operators,
        cluster.namespace() as namespace,
        hub_for_pods(cluster, {"openai-community/gpt2": FILES}, None) as hub,
        installed(helm, operators, namespace),
    ):
        hub.add_repo(GATED, FILES, private=True, gated="manual")
        hub.add_token(TOKEN, reads=(GATED,))
        platform = Platform(namespace, operators, hub)
        platform.configure("default")
        yield platform


def assert_model(folder: Path) -> None:
    found = {path: hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in WANTED}
    assert found == WANTED
    assert [path.name for path in (folder / ".aim-downloader").iterdir()] == ["SHA256SUMS"]


@contextmanager
def watched(namespace: Namespace, name: str, to: Path) -> Iterator[None]:
    """`kubectl get --watch` beside it."""
    command = [program("kubectl"), "get", "aimartifact", name, "--watch", "-n", namespace.name]
    environment = {"KUBECONFIG": str(namespace.cluster.kubeconfig), "HOME": str(to.parent)}
    with (
        to.open("wb") as out,
        subprocess.Popen(command, env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield
        finally:
            process.terminate()


def test_a_model_gets_from_apply_to_ready_and_goes_with_its_artifact(
    platform: Platform, tmp_path: Path
) -> None:
    namespace, shown = platform.namespace, tmp_path / "shown"
    platform.hub.pace(8e6)
    namespace.kubectl("apply", "-f", str(EXAMPLE))
    with watched(namespace, "gpt2", shown):
        ready = platform.wait_for("gpt2", "Ready")
        namespace.cluster.wait_for(lambda: " Ready " in shown.read_text(), what="it is shown")
    platform.hub.pace(None)

    assert_model(platform.volume("gpt2"))
    status = ready["status"]
    size = sum(len(bytes(data)) for data in FILES.values())
    assert status["discoveredSizeBytes"] == size
    assert (status["allocatedSize"], status["displaySize"]) == ("1Gi", "39 MiB")
    assert status["progress"] == {
        "percentage": 100,
        "displayPercentage": "100 %",
        "downloadedBytes": size,
        "totalBytes": size,
        **{name: status["progress"][name] for name in status["progress"] if "Second" in name},
    }
    assert {status for status, _ in conditions(ready).values()} == {"True"}
    assert conditions(ready)["Ready"] == ("True", "AllComponentsReady")

    # Who watches sees it start, go on, and end.
    table = shown.read_text()
    assert table.split()[:3] == ["NAME", "STATUS", "MODE"]
    states = re.findall(r"^gpt2 +([A-Z]\w+) ", table, re.MULTILINE)
    assert (states[0], states[-1]) == ("Progressing", "Ready"), table
    assert set(states) == {"Progressing", "Ready"}, table
    assert any(0 < int(percent) < 100 for percent in re.findall(r"(\d+) %", table)), table

    # Who asks later reads what happened.
    def events() -> set[str]:
        told = namespace.kubectl("describe", "aimartifact", "gpt2").partition("Events:")[2]
        return set(told.split())

    # They are written after the status.
    happened = {"JobCreated", "SizeDiscovered", "ClaimCreated", "Ready"}
    namespace.cluster.wait_for(lambda: happened <= events(), what="the events")
    assert "Warning" not in events()

    belongings = platform.belongings("gpt2")
    kinds = {each.partition("/")[0].partition(".")[0] for each in belongings}
    assert kinds >= {"persistentvolumeclaim", "job", "serviceaccount", "role", "rolebinding"}
    namespace.kubectl("delete", "aimartifact", "gpt2")
    namespace.cluster.wait_for(lambda: not platform.belongings("gpt2"), what="all has gone")


def test_an_older_model_cache_gets_to_available_on_a_volume_that_waits_for_a_pod(
    platform: Platform,
) -> None:
    namespace = platform.namespace
    cache = custom("AIMModelCache", "older", {"sourceUri": "hf://openai-community/gpt2"})
    cache["spec"]["storageClassName"] = WAITING
    cache["metadata"]["annotations"] = {"aim.eai.amd.com/access-mode": "ReadWriteOnce"}
    storage: set[tuple[str, str]] = set()

    def available() -> Object:
        found = namespace.get("aimmodelcache", "older")
        if "status" in found:
            storage.add(conditions(found).get("StorageReady", ("", "")))
        return found if found.get("status", {}).get("status") == "Available" else {}

    namespace.apply(cache)
    found = namespace.cluster.wait_for(available, READY_S, "the model cache is Available")
    assert_model(namespace.volume(found["status"]["persistentVolumeClaim"]))
    assert conditions(found)["Ready"] == ("True", "Warm")
    assert conditions(found)["Failure"] == ("False", "NoFailure")
    assert found["status"]["progress"]["percentage"] == 100
    assert storage <= {
        *(("False", "PVCProvisioning"), ("False", "PVCPending"), ("True", "PVCBound")),
    }
    told = namespace.kubectl("describe", "aimmodelcache", "older")
    assert "Warning" not in told[told.index("Events:") :], told


def test_a_corrected_runtime_config_heals_what_a_wrong_token_stopped(platform: Platform) -> None:
    namespace = platform.namespace
    for name, token in (("old", "hf_of_nobody"), ("new", TOKEN)):
        namespace.kubectl("create", "secret", "generic", name, f"--from-literal=token={token}")
    platform.configure("gated", token_of("old"))
    platform.create("gated", f"hf://{GATED}", size="100Mi", runtimeConfigName="gated")
    failed = platform.wait_for("gated", "Failed")
    assert conditions(failed)["Ready"] == ("False", "AuthError")
    assert conditions(failed)["AuthValid"] == ("False", "AuthError")
    assert "HF_TOKEN" in message(failed)
    assert "hf_of_nobody" not in json.dumps(failed)
    # Another pod could not do better: there was one.
    assert len(downloads(platform, "gated")) == 1

    platform.configure("gated", token_of("new"))
    ready = platform.wait_for("gated", "Ready")
    assert conditions(ready)["AuthValid"] == ("True", "AuthenticationValid")
    assert_model(platform.volume("gated"))


def test_who_deletes_a_claim_gets_the_model_on_a_new_one(platform: Platform) -> None:
    namespace = platform.namespace
    platform.create("moved", "hf://openai-community/gpt2", size="100Mi")
    claim = platform.wait_for("moved", "Ready")["status"]["persistentVolumeClaim"]
    old = namespace.get("pvc", claim)
    namespace.kubectl("patch", "aimartifact", "moved", "--type=merge", "-p", LARGER)
    assert platform.artifact("moved")["status"]["status"] == "Ready"
    # Not after the ten minutes for which a Job that has ended is kept.
    namespace.kubectl("delete", "pvc", claim, "--timeout=150s")
    platform.wait_for("moved", "Ready")
    new = namespace.get("pvc", claim)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert_model(platform.volume("moved"))


def token_of(secret: str) -> Object:
    source = {"secretKeyRef": {"name": secret, "key": "token"}}
    return {"name": "HF_TOKEN", "valueFrom": source}


def downloads(platform: Platform, name: str) -> list[Any]:
    """The download pods of an artifact."""
    label = f"aim.eai.amd.com/cache.name={name},aim.eai.amd.com/component=download"
    return platform.namespace.listed("pods", label)


def test_a_model_that_does_not_exist_gets_no_volume(platform: Platform) -> None:
    # Without a token the Hub does not tell what is private from what is not there.
    platform.configure("known", {"name": "HF_TOKEN", "value": TOKEN})
    platform.create("absent", "hf://org/absent", runtimeConfigName="known")
    failed = platform.wait_for("absent", "Failed")
    assert conditions(failed)["Ready"] == ("False", "InvalidSpec")
    assert conditions(failed)["CheckSizeJobPodsReady"] == ("False", "SourceNotFound")
    assert "does not exist" in message(failed)
    assert "org/absent" in message(failed)
    assert not {each for each in platform.belongings("absent") if "persistentvolume" in each}


def test_shards_bring_a_model_though_the_operator_is_killed_meanwhile(platform: Platform) -> None:
    platform.hub.pace(3e6)
    # As under AIM Engine's own kind, which has no such field.
    manifest = custom("AIMArtifact", "shared", {"sourceUri": "hf://openai-community/gpt2"})
    manifest["metadata"]["annotations"] = {"aim.eai.amd.com/shards": "2"}
    platform.namespace.apply(manifest)
    wait_for = platform.namespace.cluster.wait_for
    wait_for(lambda: percentage(platform, "shared") > 0, READY_S, "the download has begun")
    [pod] = [each["metadata"] for each in platform.operators.listed("pods")]
    platform.operators.kubectl("delete", "pod", pod["name"], "--grace-period=0", "--force")
    assert platform.artifact("shared")["status"]["status"] == "Progressing"
    platform.hub.pace(None)

    ready = platform.wait_for("shared", "Ready")
    assert_model(platform.volume("shared"))
    assert len(downloads(platform, "shared")) == 2
    created = [each["metadata"]["uid"] for each in platform.operators.listed("pods")]
    assert pod["uid"] not in created
    assert ready["status"]["progress"]["percentage"] == 100


def percentage(platform: Platform, name: str) -> int:
    status = platform.artifact(name).get("status", {})
    found: int = status.get("progress", {}).get("percentage", 0)
    return found
