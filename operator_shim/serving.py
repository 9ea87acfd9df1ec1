"""What serves a model: an InferenceService, or a Deployment and a Service, with the caches. Pure.

The same order gives the same manifests, so they can be applied at the server again and again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from operator_shim.children import child, inherited, owner_reference
from operator_shim.names import derived_name, label_value
from operator_shim.objects import (
    GROUP,
    LABEL_SERVICE,
    Object,
    at,
    condition_of,
    generation_of,
    has_condition,
    name_of,
    namespace_of,
)
from operator_shim.retrying import inputs_hash
from operator_shim.runtime_config import RuntimeConfig, merged_env
from operator_shim.service_cache import LABEL_PARENT_SERVICE, MANAGER

INFERENCE_SERVICE, DEPLOYMENT = "InferenceService", "Deployment"
KINDS_OF_FORM = {INFERENCE_SERVICE: (INFERENCE_SERVICE,), DEPLOYMENT: (DEPLOYMENT, "Service")}
"""What is made in either form; KServe makes Services of its own, by the same name."""
CACHE_PATH = "/workspace/cache"
CONTAINER = "kserve-container"
LABEL_OF_KUBERNETES = "app.kubernetes.io/component"
COMPONENT = "inference"

_ANNOTATION_ORDER = f"{GROUP}/inputs"
_AUTOSCALER = "serving.kserve.io/autoscalerClass"
_GPU = "amd.com/gpu"
_PORT = 8000
_LONGEST_NAME = 63
_SUFFIX = len("-predictor-")
# To read hundreds of gigabytes takes longer than the ten minutes that Kubernetes grants.
_PATIENCE_S = 3600
_SHARED_MEMORY: Object = {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}


@dataclass(frozen=True)
class Mount:
    """A model in the container: the claim that has it, and where it is seen."""

    volume: str
    claim: str
    path: str


@dataclass(frozen=True)
class Serving:
    """What is to be served, and how."""

    service: Object
    model: Object
    template: Object = field(default_factory=dict)
    config: RuntimeConfig = field(default_factory=RuntimeConfig)
    mounts: tuple[Mount, ...] = ()
    form: str = DEPLOYMENT
    is_restricted: bool = False
    """Whether the namespace takes only pods that meet the level *restricted* of pod security."""


@dataclass(frozen=True)
class _Scaling:
    """How many there are of it."""

    least: int
    most: int
    rules: Object | bool
    """Whether, and by which rules, the number changes by itself."""

    @property
    def is_fixed(self) -> bool:
        """Whether an autoscaler would find nothing to do."""
        return not isinstance(self.rules, dict) and self.least >= self.most


@dataclass(frozen=True)
class Server:
    """How what serves a model is doing."""

    is_available: bool
    trouble: str
    """Why it will not come up by itself; empty while it may."""
    replicas: int
    wanted: int
    is_current: bool = True
    """Whether all of it is up, and as it was last asked for."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to wait for."""
        return self.is_available and self.is_current


def server_name(service: Object) -> str:
    """What serves a service's model; with the namespace it makes a name of a host."""
    limit = _LONGEST_NAME - _SUFFIX - len(namespace_of(service))
    return derived_name((name_of(service),), (namespace_of(service),), limit=max(limit, 10))


def selector_of(service: Object) -> dict[str, str]:
    """The labels of the pods that serve it; those of its downloads have the first one, too."""
    return {
        LABEL_SERVICE: label_value(name_of(service)),
        LABEL_OF_KUBERNETES: COMPONENT,
    }


def mounts_of_cache(cache: Object) -> tuple[Mount, ...]:
    """The models of a cache that are there, each at the path by which the image looks for it."""
    entries: Mapping[str, Object] = at(cache, "status.artifacts") or at(
        cache, "status.modelCaches", {}
    )
    mounts: dict[str, Mount] = {}
    volumes: dict[str, str] = {}
    for key in sorted(entries):
        entry = entries[key]
        claim = str(at(entry, "persistentVolumeClaim", ""))
        if claim and at(entry, "status") in ("Ready", "Available"):
            if claim not in volumes:
                volumes[claim] = _volume(str(at(entry, "name", key)), volumes.values())
            mount = Mount(volumes[claim], claim, _path(entry, volumes[claim]))
            # A pod with two mounts at one path is none.
            mounts.setdefault(mount.path, mount)
    return tuple(mounts.values())


def mounts_of_server(server: Object) -> tuple[Mount, ...]:
    """The models that a server has now."""
    pod = pod_spec_of(server)
    claims = {
        each["name"]: claim
        for each in at(pod, "volumes", [])
        if (claim := at(each, "persistentVolumeClaim.claimName"))
    }
    containers = [each for each in at(pod, "containers", []) if each["name"] == CONTAINER]
    return tuple(
        Mount(mount["name"], claims[mount["name"]], mount["mountPath"])
        for container in containers
        for mount in at(container, "volumeMounts", [])
        if mount["name"] in claims
    )


def bounds_for_autoscaler(service: Object) -> tuple[int, int] | None:
    """How many pods an autoscaler may choose from; None where there is nothing to choose."""
    scaling = _scaling(service)
    return None if scaling.is_fixed else (scaling.least, scaling.most)


def pod_spec_of(server: Object) -> Object:
    """What its pods are made from."""
    path = "spec.predictor" if server["kind"] == INFERENCE_SERVICE else "spec.template.spec"
    found: Object = at(server, path, {})
    return found


def manifests(order: Serving) -> tuple[Object, ...]:
    """All that serves it; the first one is the server."""
    if order.form == INFERENCE_SERVICE:
        return (_inference_service(order),)
    return (_deployment(order), _service(order))


def server_of(object_: Object) -> Server:
    """How an InferenceService or a Deployment is doing."""
    if object_["kind"] == INFERENCE_SERVICE:
        return _of_inference_service(object_)
    return _of_deployment(object_)


def address_of(server: Object) -> str:
    """Where pods of the cluster reach it; empty while nobody has said so."""
    if server.get("kind") == DEPLOYMENT:
        # By the Service beside it, of the same name, at the port that nobody need name.
        return f"http://{name_of(server)}.{namespace_of(server)}.svc"
    told = at(server, "status.address.url") or at(server, "status.url", "")
    return str(told)


# -- how it is doing -------------------------------------------------------------------------------


def _of_inference_service(object_: Object) -> Server:
    ready = has_condition(object_, "Ready")
    wanted = _count(object_, "spec.predictor.minReplicas")
    wanted = 1 if wanted is None else wanted
    said = at(object_, "status.modelStatus.lastFailureInfo.message", "")
    return Server(ready, "" if ready else str(said), wanted if ready else 0, wanted)


def _of_deployment(object_: Object) -> Server:
    told, wanted = at(object_, "status", {}), _count(object_, "spec.replicas")
    wanted = 1 if wanted is None else wanted
    known = at(told, "observedGeneration", 0) >= generation_of(object_)
    available = has_condition(object_, "Available")
    trouble = ""
    for kind, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
        condition = condition_of(object_, kind)
        if known and condition and condition["status"] == bad and not trouble:
            trouble = str(condition.get("message", ""))
    total, updated, replicas = (
        _count(object_, f"status.{each}") or 0
        for each in ("replicas", "updatedReplicas", "availableReplicas")
    )
    current = known and total <= updated <= replicas and updated >= wanted
    return Server(available, trouble, replicas, wanted, current)


# -- what it is made of ----------------------------------------------------------------------------


def _inference_service(order: Serving) -> Object:
    scaling = _scaling(order.service)
    rules = scaling.rules if isinstance(scaling.rules, dict) else {}
    predictor = {
        "minReplicas": scaling.least,
        "maxReplicas": scaling.most,
        **({"autoScaling": rules} if rules else {}),
        **_pod(order),
    }
    annotations = {_AUTOSCALER: "keda" if scaling.rules else "none"}
    spec = {"predictor": predictor}
    return _made(order, "serving.kserve.io/v1beta1", INFERENCE_SERVICE, spec, annotations)


def _deployment(order: Serving) -> Object:
    labels, scaling, pod = selector_of(order.service), _scaling(order.service), _pod(order)
    pod["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": "http"}}
    parent = {LABEL_PARENT_SERVICE: label_value(name_of(order.service))}
    spec: Object = {
        "progressDeadlineSeconds": _PATIENCE_S,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": {**labels, **parent}}, "spec": pod},
    }
    if scaling.is_fixed:
        # Else it is the affair of an autoscaler.
        spec["replicas"] = scaling.least
    return _made(order, "apps/v1", DEPLOYMENT, spec, {})


def _service(order: Serving) -> Object:
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    spec = {"selector": selector_of(order.service), "ports": [port]}
    return _made(order, "v1", "Service", spec, {})


def _made(
    order: Serving, api_version: str, kind: str, spec: Object, annotations: dict[str, str]
) -> Object:
    service = order.service
    labels = {
        **inherited(service, order.config, LABEL_PARENT_SERVICE),
        **selector_of(service),
        f"{GROUP}/template": label_value(name_of(order.template)),
        f"{GROUP}/model": label_value(name_of(order.model)),
    }
    made = child(
        *(service, api_version, kind, server_name(service)),
        labels={key: value for key, value in labels.items() if value},
        manager=MANAGER,
        owner=owner_reference(service),
    )
    # What is asked for no longer is seen to be so only by this.
    made["metadata"]["annotations"] = {**annotations, _ANNOTATION_ORDER: inputs_hash(spec)}
    return {**made, "spec": spec}


def _scaling(service: Object) -> _Scaling:
    least, most = _count(service, "spec.minReplicas"), _count(service, "spec.maxReplicas")
    rules = at(service, "spec.autoScaling")
    if least is None and most is None and rules is None:
        fixed = _count(service, "spec.replicas")
        fixed = 1 if fixed is None else fixed
        return _Scaling(fixed, fixed, False)
    least = 1 if least is None else least
    return _Scaling(least, most or least, rules or True)


def _count(object_: Object, path: str) -> int | None:
    """A number; what is none counts as not there, as not every CRD refuses it."""
    found = at(object_, path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _pod(order: Serving) -> Object:
    service = order.service
    claims = {each.volume: each.claim for each in order.mounts}
    volumes = [
        {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for name, claim in claims.items()
    ]
    pod: Object = {
        "containers": [_container(order)],
        "volumes": [_SHARED_MEMORY, *volumes],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }
    if order.is_restricted:
        pod["securityContext"]["runAsNonRoot"] = True
    if account := at(service, "spec.serviceAccountName"):
        pod["serviceAccountName"] = account
    else:
        # Who names no account has no use for its token.
        pod["automountServiceAccountToken"] = False
    if secrets := at(service, "spec.imagePullSecrets"):
        pod["imagePullSecrets"] = secrets
    return pod


def _container(order: Serving) -> Object:
    mounts = [
        {"name": each.volume, "mountPath": each.path, "readOnly": True} for each in order.mounts
    ]
    security: Object = {"allowPrivilegeEscalation": False}
    if order.is_restricted:
        security["capabilities"] = {"drop": ["ALL"]}
    container: Object = {
        "name": CONTAINER,
        "image": at(order.model, "spec.image", ""),
        "env": list(_env(order)),
        "ports": [{"containerPort": _PORT, "name": "http", "protocol": "TCP"}],
        "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}, *mounts],  # noqa: S108
        "securityContext": security,
    }
    resources = _resources(order)
    return container | {"resources": resources} if resources else container


def _env(order: Serving) -> tuple[Object, ...]:
    usual = [
        {"name": "AIM_CACHE_PATH", "value": CACHE_PATH},
        {"name": "VLLM_ENABLE_METRICS", "value": "true"},
    ]
    return merged_env(
        at(order.service, "spec.env", []),
        at(order.template, "spec.env", []),
        list(_env_of_profile(order)),
        order.config.env,
        usual,
    )


def _env_of_profile(order: Serving) -> Iterator[Object]:
    for name in ("metric", "precision"):
        asked = at(order.service, f"spec.overrides.{name}")
        told = asked or at(order.template, f"spec.{name}")
        if told:
            yield {"name": f"AIM_{name.upper()}", "value": str(told)}
    if profile := at(order.template, "spec.profileId"):
        yield {"name": "AIM_PROFILE_ID", "value": str(profile)}


def _resources(order: Serving) -> Object:
    """The service's over the template's over what the profile needs, each by its name."""
    gpus = _count(order.template, "status.profile.metadata.gpuCount")
    of_profile = {kind: {_GPU: str(gpus)} for kind in ("requests", "limits")} if gpus else {}
    layers = [
        of_profile,
        at(order.template, "spec.resources", {}),
        at(order.service, "spec.resources", {}),
    ]
    merged: Object = {}
    for layer in layers:
        for kind, amounts in layer.items() if isinstance(layer, dict) else ():
            merged[kind] = (
                {**merged.get(kind, {}), **amounts} if isinstance(amounts, dict) else amounts
            )
    return merged


def _volume(artifact: str, taken: Collection[str]) -> str:
    name = re.sub(r"[^a-z0-9-]", "-", artifact.lower()).strip("-")
    if not 0 < len(name) <= _LONGEST_NAME or name in (*taken, _SHARED_MEMORY["name"]):
        return derived_name((artifact,), (artifact,))
    return name


def _path(entry: Object, volume: str) -> str:
    """Where the model is seen; nothing in its name leads out of there."""
    model = str(at(entry, "model", ""))
    parts = [re.sub(r"[^A-Za-z0-9._-]", "_", part) for part in model.split("/") if part]
    # One that stood for a folder would be in the way of the others in there.
    is_name = parts and not {".", ".."}.intersection(parts)
    return "/".join([CACHE_PATH, *(parts if is_name else [volume])])
