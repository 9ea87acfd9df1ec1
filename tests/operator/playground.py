"""The operator in the cluster of a developer, with a service that is small enough for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from deploy.manifests import CHART, helm
from tests.cluster.client import Cluster
from tests.images import build
from tests.images.tools import BuildError
from tests.operator.helm import Helm, HelmError
from tests.operator.kinds import custom
from tests.operator.model_image import NAME, model_image

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "artifact.yaml"
SERVICE = "gpt2-chat"
_MODEL = "openai-community/gpt2"


def operator(cluster: Cluster, folder: Path, endpoint: str, say: Callable[[str], None]) -> str:
    """Installs it for the namespace default, writes examples, and gives what is to be read."""
    if trouble := _install(cluster, say):
        say(f"there is no operator: {trouble}")
        return ""
    # So that the examples need not name the Hub.
    env = [{"name": "HF_ENDPOINT", "value": endpoint}]
    cluster.apply(custom("AIMRuntimeConfig", "default", {"env": env}))
    (folder / "artifact.yaml").write_text(EXAMPLE.read_text("utf-8"), "utf-8")
    sources = [{"modelId": _MODEL, "sourceUri": f"hf://{_MODEL}"}]
    service = [
        custom("AIMModel", "small", {"image": NAME}),
        custom("AIMServiceTemplate", "small", {"modelName": "small", "modelSources": sources}),
        custom("AIMService", SERVICE, {"model": {"image": NAME}, "caching": {"mode": "Shared"}}),
    ]
    (folder / "service.yaml").write_text(yaml.safe_dump_all(service, sort_keys=False), "utf-8")
    return f"""
The operator looks after the namespace default; its log:
  kubectl -n aim-operator logs deployment/aim-operator

A model, as in docs/operator.md, and a small service that finds it there and says what it has read,
as in docs/caching.md:

kubectl apply -f {folder}/artifact.yaml
kubectl wait aimartifact/gpt2 --for=condition=Ready --timeout=5m
kubectl describe aimartifact gpt2
kubectl apply -f {folder}/service.yaml
kubectl wait aimservice/{SERVICE} --for=condition=Ready --timeout=5m
kubectl get aimservices,aimtemplatecaches,aimartifacts
kubectl logs --selector aim.eai.amd.com/service.name={SERVICE}
"""


def _install(cluster: Cluster, say: Callable[[str], None]) -> str:
    """What is in the way, if anything is."""
    if not helm():
        return "Helm is missing, which tests/setup-servers builds"
    try:
        _bring_images(cluster, say)
        image, _, tag = build.OPERATOR.name.rpartition(":")
        values = {
            "image.repository": image,
            "image.tag": tag,
            "image.pullPolicy": "Never",
            "options.defaultDownloadImage": build.DOWNLOADER.name,
            # Tests that use this cluster have operators of their own.
            "namespaces": "{default}",
            "resources.requests.cpu": "10m",
            "options.downloadResources.requests.cpu": "10m",
            "options.downloadResources.limits.memory": "512Mi",
        }
        flags = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        tool = Helm(cluster.kubeconfig.parent, cluster.kubeconfig)
        where = ("--namespace", "aim-operator", "--create-namespace")
        tool.run("install", "aim-operator", CHART, *where, *flags)
    except (BuildError, HelmError) as error:
        return str(error)
    return ""


def _bring_images(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Gives the node the operator's image, and that of a small model server."""
    ours = build.image_of_these_sources(say, build.OPERATOR) / "image.tar"
    cluster.import_image(ours)
    model = cluster.kubeconfig.with_name("model.tar")
    model_image(build.image_of_these_sources(say) / "image.tar", model)
    cluster.import_image(model)
