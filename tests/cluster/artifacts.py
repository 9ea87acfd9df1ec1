"""The kind AIMArtifact in a cluster: as AIM Engine has it, or ours, with what only we tell."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deploy.manifests import HERE
from tests.cluster.client import Cluster, Namespace

AIM_ENGINE, OURS = "of AIM Engine", "ours"
KIND = "aimartifacts.aim.eai.amd.com"
_CRDS = Path(__file__).with_name("crds")


@contextmanager
def artifacts(cluster: Cluster, kind: str = AIM_ENGINE) -> Iterator[Namespace]:
    """A namespace in which artifacts are of this kind; as a cluster has but one, tests wait."""
    # Beside the kubeconfig all users of a cluster meet.
    with cluster.kubeconfig.with_name("artifacts.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster.kubectl("apply", "-f", "-", input=_definition(kind))
        cluster.kubectl("wait", f"crd/{KIND}", "--for=condition=Established", "--timeout=150s")
        with cluster.namespace() as namespace:
            namespace.apply(artifact("probe"))
            # A changed kind is in force a little later.
            cluster.wait_for(lambda: _keeps_revision(namespace) is (kind == OURS))
            yield namespace


def artifact(name: str, source: str = "hf://org/model") -> dict[str, Any]:
    """The manifest of an artifact."""
    return {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMArtifact",
        "metadata": {"name": name},
        "spec": {"sourceUri": source},
    }


def set_status(namespace: Namespace, name: str, status: dict[str, Any]) -> dict[str, Any]:
    """Changes the status as an operator does; returns what it is then."""
    patch = ["--type=merge", "--patch", json.dumps({"status": status})]
    said = namespace.kubectl(
        "patch", "aimartifact", name, "--subresource=status", *patch, "-o", "json"
    )
    found: dict[str, Any] = json.loads(said).get("status", {})
    return found


def _definition(kind: str) -> str:
    if kind == AIM_ENGINE:
        return (_CRDS / "aimartifact.yaml").read_text("utf-8")
    ours = yaml.safe_load_all((HERE / "crds.yaml").read_text("utf-8"))
    return json.dumps(next(each for each in ours if each and each["metadata"]["name"] == KIND))


def _keeps_revision(namespace: Namespace) -> bool:
    status = set_status(namespace, "probe", {"download": {"attempt": 1, "revision": "any"}})
    return "revision" in status["download"]
