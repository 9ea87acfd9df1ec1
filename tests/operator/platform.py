"""The operator as a user has it: installed by its chart, in a cluster whose pods find a Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import KubectlError
from tests.cluster.client import Namespace
from tests.cluster.volumes import FOLDERS
from tests.hub import HubServer
from tests.images.build import DOWNLOADER, OPERATOR
from tests.operator.helm import Helm
from tests.operator.kinds import custom

READY_S = 180.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Platform:
    """A namespace that an operator looks after, and the Hub that its pods find."""

    namespace: Namespace
    operators: Namespace
    hub: HubServer

    def create(self, name: str, uri: str, **spec: object) -> None:
        self.namespace.apply(custom("AIMArtifact", name, {"sourceUri": uri, **spec}))

    def configure(self, name: str, *env: Object, storage: str = FOLDERS) -> None:
        """Makes a runtime config, or corrects it."""
        endpoint = [
            {"name": "HF_ENDPOINT", "value": self.hub.endpoint},
            {"name": "PROGRESS_INTERVAL", "value": "0.3"},
        ]
        chosen = {"defaultStorageClassName": storage} if storage else {}
        spec = {"storage": chosen, "env": [*endpoint, *env]}
        self.namespace.apply(custom("AIMRuntimeConfig", name, spec))

    def artifact(self, name: str) -> Object:
        return self.namespace.get("aimartifact", name)

    def wait_for(self, name: str, status: str) -> Object:
        """The artifact, once that is its status."""

        def is_so(found: Object) -> bool:
            return bool(found.get("status", {}).get("status") == status)

        return self.wait_until(name, is_so, f"{name} is {status}")

    def wait_until(self, name: str, is_so: Callable[[Object], bool], what: str) -> Object:
        """The artifact, once it is so."""

        def look() -> Object:
            found = self.artifact(name)
            return found if is_so(found) else {}

        try:
            return self.namespace.cluster.wait_for(look, READY_S, what)
        except TimeoutError:
            print(self.namespace.kubectl("describe", "aimartifact", name))
            print(log_of(self.operators))
            raise

    def volume(self, name: str) -> Path:
        return self.namespace.volume(self.artifact(name)["status"]["persistentVolumeClaim"])

    def belongings(self, name: str) -> set[str]:
        """What there is for an artifact, beside itself."""
        kinds = "pvc,jobs,pods,serviceaccounts,roles,rolebindings"
        label = f"aim.eai.amd.com/cache.name={name}"
        found = self.namespace.kubectl("get", kinds, "--selector", label, "--output", "name")
        return set(found.split())


@contextmanager
def installed(helm: Helm, operators: Namespace, *namespaces: Namespace) -> Iterator[None]:
    """The chart's objects; all cluster-wide ones have names of their own, and go again."""
    image, _, tag = OPERATOR.name.rpartition(":")
    values = {
        "crds.install": "false",
        "image.repository": image,
        "image.tag": tag,
        "image.pullPolicy": "Never",
        # Others have artifacts in this cluster, too.
        "namespaces": f"{{{','.join(each.name for each in namespaces)}}}",
        "options.defaultDownloadImage": DOWNLOADER.name,
        "resources.requests.cpu": "10m",
        "options.downloadResources.requests.cpu": "10m",
        "options.downloadResources.limits.memory": "512Mi",
    }
    flags = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    release = f"aim-operator-{operators.name}"
    chart = helm.template(*flags, name=release, namespace=operators.name)
    cluster = operators.cluster
    cluster.kubectl("apply", "-f", "-", input=chart)
    try:
        try:
            operators.kubectl("rollout", "status", f"deployment/{release}", "--timeout=150s")
        except KubectlError:
            print(log_of(operators))
            raise
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", "--wait=false", input=chart)


def log_of(operators: Namespace) -> str:
    """The end of what the operator has said."""
    return operators.kubectl("logs", "-l", "app.kubernetes.io/name=aim-operator", "--tail=50")


def conditions(artifact: Object) -> dict[str, tuple[str, str]]:
    return {
        each["type"]: (each["status"], each["reason"]) for each in artifact["status"]["conditions"]
    }


def message(artifact: Object, kind: str = "Ready") -> str:
    [found] = [each["message"] for each in artifact["status"]["conditions"] if each["type"] == kind]
    assert isinstance(found, str)
    return found
