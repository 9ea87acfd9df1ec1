"""What should be there for an artifact: its claim, its two Jobs, the account of its pods. Pure.

The same observation gives the same manifests, so they can be applied at the server again and again.
"""

from __future__ import annotations

from collections.abc import Iterator

from operator_shim import names
from operator_shim.children import child, inherited, owner_reference
from operator_shim.failures import FINAL_CODES
from operator_shim.growing import asked_of
from operator_shim.jobs import (
    ANNOTATION_ASKED,
    ANNOTATION_CLAIM,
    ANNOTATION_DEFAULTS,
    ANNOTATION_INPUTS,
)
from operator_shim.keys import ARTIFACT, MODEL_CACHE
from operator_shim.objects import (
    GROUP,
    LABEL_ARTIFACT,
    LABEL_CACHE_TYPE,
    LABEL_COMPONENT,
    LABEL_PARENT_ARTIFACT,
    LABEL_SOURCE_MODEL,
    LABEL_TEMPLATE_CREATED,
    Object,
    at,
    is_controlled_by,
    is_deleted,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.observed import Observation
from operator_shim.quantities import claim_size
from operator_shim.runtime_config import RuntimeConfig, merged_env

MANAGER = "aim-artifact-controller"
"""Who applies; the same as in AIM Engine, so that either can take over from the other."""
GROWER = f"{MANAGER}-growth"
"""Who asks for more room: it has a say in that alone, whoever has made the claim."""
MARKER = f"{MANAGER}-marks"
"""Who says whose a claim or a Job is; nothing else of it, as it cannot be changed."""
DOWNLOAD_TTL = 600
SIZE_TTL = 300
RETRIES = 2
"""So many more pods has a Job after the first has failed."""

_USER = 1000
_PLURALS = {ARTIFACT: "aimartifacts", MODEL_CACHE: "aimmodelcaches"}
_SIZE_RESOURCES: Object = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"memory": "256Mi"},
}


def claim(seen: Observation) -> Object:
    """The claim that the model comes onto."""
    order = seen.order
    labels = {
        LABEL_ARTIFACT: _label(seen),
        LABEL_SOURCE_MODEL: names.source_label(order.source_uri),
    }
    if labels_of(seen.artifact).get(LABEL_TEMPLATE_CREATED) == "true":
        labels[LABEL_CACHE_TYPE] = "template-cache"
    spec: Object = {
        "accessModes": [order.access_mode],
        "resources": {"requests": {"storage": claim_size(seen.size, order.headroom_percent)}},
    }
    if order.storage_class:
        spec["storageClassName"] = order.storage_class
    name = names.claim_name(name_of(seen.artifact), uid_of(seen.artifact))
    return _child(seen, "v1", "PersistentVolumeClaim", name, labels) | {"spec": spec}


def marks(seen: Observation) -> Iterator[Object]:
    """What makes a claim or a Job the artifact's, of each from which some of it was taken away.

    Without its owner it would stay for ever, without its label nobody would hear of it.
    """
    made = ((seen.claim, claim), (seen.sizing.job, size_job), (seen.download.job, download_job))
    for there, make in made:
        if there is not None and not is_deleted(there) and _has_lost_one(seen, there):
            wanted = make(seen)
            fields = ("namespace", "labels", "ownerReferences")
            metadata = {field: wanted["metadata"][field] for field in fields}
            metadata |= {"name": name_of(there), "uid": uid_of(there)}
            yield {each: wanted[each] for each in ("apiVersion", "kind")} | {"metadata": metadata}


def _has_lost_one(seen: Observation, there: Object) -> bool:
    """Whether one of the two is gone; with neither it is somebody else's."""
    uid = uid_of(seen.artifact)
    owned = is_controlled_by(there, uid)
    labelled = labels_of(there).get(LABEL_ARTIFACT) == _label(seen)
    others = (each for each in at(there, "metadata.ownerReferences", []) if each.get("uid") != uid)
    return owned != labelled and not any(owner.get("controller") for owner in others)


def larger_claim(seen: Observation) -> Object:
    """What is there of the claim once it asks for more."""
    claim = seen.claim or {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name_of(claim),
            "namespace": namespace_of(seen.artifact),
            "uid": uid_of(claim),
        },
        "spec": {"resources": {"requests": {"storage": seen.growth.wanted}}},
    }


def size_job(seen: Observation) -> Object:
    """The Job that asks how large the model is."""
    container = {
        **_container("check-size", seen),
        "command": ["/check-size.sh"],
        "env": list(seen.order.env),
        "resources": _SIZE_RESOURCES,
    }
    name = names.size_job_name(name_of(seen.artifact), uid_of(seen.artifact))
    spec = {
        "backoffLimit": RETRIES,
        "ttlSecondsAfterFinished": SIZE_TTL,
        **_policy(seen, "check-size"),
    }
    return _job(seen, name, "check-size", spec, _pod(seen, container), {})


def download_job(seen: Observation) -> Object:
    """The Job that brings the model onto the claim, which is there."""
    order, claim = seen.order, seen.claim or {}
    container = {
        **_container("model-download", seen),
        "env": list(merged_env(order.env, _defaults(seen))),
        "resources": order.resources,
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
    }
    pod = _pod(seen, container)
    # Or the kubelet walks through a full volume before each start.
    pod["securityContext"] |= {"fsGroup": _USER, "fsGroupChangePolicy": "OnRootMismatch"}
    pod["volumes"] = [{"name": "cache", "persistentVolumeClaim": {"claimName": name_of(claim)}}]
    if order.ours:
        pod |= {"serviceAccountName": _account(seen), "automountServiceAccountToken": True}
    name = names.download_job_name(name_of(seen.artifact), uid_of(seen.artifact))
    spec = {
        "ttlSecondsAfterFinished": DOWNLOAD_TTL,
        **_pods_of_job(order.shards),
        **_policy(seen, "model-download"),
    }
    filled = {ANNOTATION_CLAIM: uid_of(claim), ANNOTATION_ASKED: asked_of(claim)}
    return _job(seen, name, "download", spec, pod, filled)


def account(seen: Observation) -> list[Object]:
    """Who the download pods are: they may patch the status of this one artifact, and no more."""
    name, namespace = _account(seen), namespace_of(seen.artifact)
    labels = {LABEL_ARTIFACT: _label(seen)}
    rule = {
        "apiGroups": [GROUP],
        "resources": [f"{_PLURALS[seen.artifact['kind']]}/status"],
        "resourceNames": [name_of(seen.artifact)],
        "verbs": ["patch"],
    }
    rbac = "rbac.authorization.k8s.io"
    return [
        _child(seen, "v1", "ServiceAccount", name, labels)
        | {"automountServiceAccountToken": False},
        _child(seen, f"{rbac}/v1", "Role", name, labels) | {"rules": [rule]},
        _child(seen, f"{rbac}/v1", "RoleBinding", name, labels)
        | {
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        },
    ]


def _child(
    seen: Observation, api_version: str, kind: str, name: str, labels: dict[str, str]
) -> Object:
    """What all that belongs to an artifact has in common: it goes with the artifact."""
    return child(
        seen.artifact,
        api_version,
        kind,
        name,
        labels={**_inherited(seen), **labels},
        manager=MANAGER,
        owner=owner_reference(seen.artifact),
    )


def _inherited(seen: Observation) -> dict[str, str]:
    config = seen.config if isinstance(seen.config, RuntimeConfig) else RuntimeConfig()
    return inherited(seen.artifact, config, LABEL_PARENT_ARTIFACT)


def _label(seen: Observation) -> str:
    return names.label_value(name_of(seen.artifact))


def _account(seen: Observation) -> str:
    return names.account_name(name_of(seen.artifact), uid_of(seen.artifact))


def _job(
    seen: Observation,
    name: str,
    component: str,
    spec: Object,
    pod: Object,
    annotations: dict[str, str],
) -> Object:
    labels = {
        LABEL_ARTIFACT: _label(seen),
        LABEL_CACHE_TYPE: "artifact",
        LABEL_COMPONENT: component,
    }
    job = _child(seen, "batch/v1", "Job", name, labels)
    job["metadata"]["annotations"] = {
        ANNOTATION_INPUTS: seen.order.inputs,
        ANNOTATION_DEFAULTS: seen.order.defaults,
        **annotations,
    }
    template = {"metadata": {"labels": {**_inherited(seen), **labels}}, "spec": pod}
    return job | {"spec": {**spec, "template": template}}


def _pods_of_job(shards: int) -> Object:
    """How many pods there are, and how many more of each when they fail."""
    if shards == 1:
        return {"backoffLimit": RETRIES}
    return {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": shards,
        "backoffLimitPerIndex": RETRIES,
    }


def _policy(seen: Observation, container: str) -> Object:
    """What a pod's end means for its Job; another's image may use these codes for anything."""
    rules: list[Object] = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    if seen.order.ours:
        codes = {"containerName": container, "operator": "In", "values": list(FINAL_CODES)}
        rules.append({"action": "FailJob", "onExitCodes": codes})
    return {"podFailurePolicy": {"rules": rules}}


def _pod(seen: Observation, container: Object) -> Object:
    """The spec of a pod that meets the level *restricted* of pod security."""
    pod: Object = {
        **seen.order.pod,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if seen.order.pull_secrets:
        pod["imagePullSecrets"] = list(seen.order.pull_secrets)
    return pod


def _container(name: str, seen: Observation) -> Object:
    security: Object = {
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    if seen.order.ours:
        # Ours writes nothing but the model.
        security["readOnlyRootFilesystem"] = True
    return {
        "name": name,
        "image": seen.order.image,
        "imagePullPolicy": "IfNotPresent",
        "args": [seen.order.source_uri],
        "securityContext": security,
    }


def _defaults(seen: Observation) -> list[Object]:
    """Environment of the download that the artifact or its config may set otherwise."""
    values = {
        "AIM_DOWNLOADER_PROTOCOL": "XET,HF_TRANSFER",
        "TMPDIR": "/tmp",  # noqa: S108  # in the pod
        "HF_HOME": "/tmp/.hf",  # noqa: S108
        "EXPECTED_SIZE_BYTES": str(seen.model_size),
        "MOUNT_PATH": "/cache",
        "ARTIFACT_NAME": name_of(seen.artifact),
        "ARTIFACT_NAMESPACE": namespace_of(seen.artifact),
        "STALL_TIMEOUT": "120",
        "TARGET_DIR": "/cache",
    }
    if seen.artifact["kind"] != ARTIFACT:
        values["ARTIFACT_RESOURCE"] = _PLURALS[seen.artifact["kind"]]
    if seen.order.shards > 1:
        values["AIM_DOWNLOADER_SHARDS"] = str(seen.order.shards)
    return [{"name": name, "value": value} for name, value in values.items()]
