"""A service on a real node: from nothing to a pod that reads its models, and what others share."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.cluster.client import Namespace
from tests.cluster.hub import hub_for_pods
from tests.images.build import DOWNLOADER, OPERATOR
from tests.images.need import need_image
from tests.operator.helm import Helm
from tests.operator.kinds import custom, our_kinds
from tests.operator.model_image import NAME, model_image
from tests.operator.platform import READY_S, Platform, installed

# The cluster and the images may have to be made first.
pytestmark = pytest.mark.timeout(600)

BYTES = random.Random(9).randbytes(3 * 1024 * 1024)
MODELS: Mapping[str, Mapping[str, bytes | Path]] = {
    "org/one": {"model.safetensors": BYTES, "config.json": b'{"model_type": "gpt2"}'},
    "org/two": {"deep/adapter.bin": BYTES[::-1], "config.json": b"{}"},
}
WANTED = {
    f"{model}/{path}": hashlib.sha256(bytes(data)).hexdigest()
    for model, files in MODELS.items()
    for path, data in files.items()
    if isinstance(data, bytes)
}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def platform(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    for recipe in (OPERATOR, DOWNLOADER):
        cluster.import_image(need_image(recipe).archive)
    folder = tmp_path_factory.mktemp("model")
    model_image(need_image(DOWNLOADER).archive, folder / "model.tar")
    cluster.import_image(folder / "model.tar")
    helm = Helm(tmp_path_factory.mktemp("helm"))
    with (
        our_kinds(cluster),
        cluster.namespace() as operators,
        cluster.namespace() as namespace,
        hub_for_pods(cluster, MODELS, None) as hub,
        installed(helm, operators, namespace),
    ):
        platform = Platform(namespace, operators, hub)
        platform.configure("default")
        yield platform


def test_two_services_share_what_the_first_has_brought(platform: Platform) -> None:
    namespace, wait_for = platform.namespace, platform.namespace.cluster.wait_for
    sources = [{"modelId": model, "sourceUri": f"hf://{model}"} for model in MODELS]
    namespace.apply(
        custom("AIMModel", "pair", {"image": NAME}),
        custom("AIMServiceTemplate", "pair", {"modelName": "pair", "modelSources": sources}),
        service("first", {"image": NAME}),
    )
    first = running(platform, "first")
    assert read_by(namespace, "first") == {"files": WANTED, "writable": [], "shm": True}
    [cache] = namespace.listed("aimtemplatecaches")
    assert first["status"]["cache"]["templateCacheRef"]["uid"] == cache["metadata"]["uid"]
    assert [each["kind"] for each in cache["metadata"]["ownerReferences"]] == ["AIMServiceTemplate"]
    for kind in ("pvc", "jobs", "aimartifacts"):
        made_for_it = namespace.listed(kind, "aim.eai.amd.com/service.name=first")
        assert len(made_for_it) >= len(MODELS), kind

    platform.hub.clear_log()
    namespace.apply(service("second", {"name": "pair"}))
    second = running(platform, "second")
    assert read_by(namespace, "second")["files"] == WANTED
    assert [each.path for each in platform.hub.log] == []
    assert second["status"]["cache"] == first["status"]["cache"]

    pods = uids(namespace, "second")
    namespace.kubectl("delete", "aimservice", "first", "--timeout=150s")
    wait_for(lambda: not uids(namespace, "first"), READY_S, "the first one's pods are gone")
    assert uids(namespace, "second") == pods
    assert running(platform, "second")
    assert namespace.listed("aimtemplatecaches")
    assert len(namespace.listed("pvc")) == len(MODELS)


def service(name: str, model: Object) -> Object:
    resources = {"requests": {"cpu": "10m"}, "limits": {"memory": "128Mi"}}
    spec = {"model": model, "caching": {"mode": "Shared"}, "resources": resources}
    return custom("AIMService", name, spec)


def running(platform: Platform, name: str) -> Object:
    """The service, once it runs."""

    def look() -> Object:
        found = platform.namespace.get("aimservice", name)
        return found if found.get("status", {}).get("status") == "Running" else {}

    try:
        return platform.namespace.cluster.wait_for(look, READY_S, f"{name} runs")
    except TimeoutError:
        for kind in ("aimservice", "aimtemplatecache", "aimservicetemplate", "aimartifact", "pods"):
            print(platform.namespace.kubectl("describe", kind))
        print(
            platform.operators.kubectl(
                "logs", "-l", "app.kubernetes.io/name=aim-operator", "--tail=80"
            )
        )
        raise


def pods_of(name: str) -> str:
    return f"aim.eai.amd.com/service={name},app.kubernetes.io/component=inference"


def uids(namespace: Namespace, name: str) -> set[str]:
    return {each["metadata"]["uid"] for each in namespace.listed("pods", pods_of(name))}


def read_by(namespace: Namespace, name: str) -> Object:
    """What the pod of a service has found below AIM_CACHE_PATH, without our bookkeeping."""
    [pod] = namespace.listed("pods", pods_of(name))
    told: Object = json.loads(namespace.logs(pod["metadata"]["name"]))
    ours = {
        path: digest for path, digest in told["files"].items() if "/.aim-downloader/" not in path
    }
    return {**told, "files": ours}
