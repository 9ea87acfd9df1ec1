"""Manifests of pods and Jobs as careful clusters want them: restricted in all they can be."""

from collections.abc import Mapping, Sequence
from typing import Any

SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def container(
    image: str,
    *,
    command: Sequence[str] | None = None,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    memory: str = "512Mi",
    mounts: Mapping[str, str] | None = None,
    name: str = "main",
) -> dict[str, Any]:
    """A container of an image that the node has; ``mounts`` are from volume to path."""
    made: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
        "resources": {"limits": {"memory": memory}, "requests": {"memory": "32Mi", "cpu": "10m"}},
        "securityContext": SECURITY,
        "volumeMounts": [
            {"name": volume, "mountPath": path} for volume, path in (mounts or {}).items()
        ],
    }
    return made | ({"command": list(command)} if command else {})


def pod_spec(
    *containers: Mapping[str, Any], claims: Sequence[str] = (), **more: object
) -> dict[str, Any]:
    """The spec of a pod that runs once; each claim is a volume of the same name."""
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "containers": list(containers),
        "volumes": volumes,
        **more,
    }


def pod(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def job(name: str, spec: Mapping[str, Any], **more: object) -> dict[str, Any]:
    """A Job of such a pod; ``more`` are fields of its spec, as backoffLimit."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": spec}, **more},
    }
