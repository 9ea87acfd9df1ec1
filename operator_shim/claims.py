"""What a claim is like, and why it has no volume, in words that a person can act on. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from operator_shim.failures import Outcome
from operator_shim.growing import Storage
from operator_shim.objects import (
    ANNOTATION_ACCESS_MODE,
    Object,
    annotations_of,
    at,
    name_of,
    seen_at,
)
from operator_shim.retrying import Failure

_IS_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_NO_CLASS = re.compile(r"no persistent volumes available.*no storage class is set", re.IGNORECASE)
_ABSENT = re.compile(r"storageclass\S* .*not found", re.IGNORECASE)
_ACCESS = re.compile(r"readwrite|read-write|access ?mode|multi_node|\bRWX\b", re.IGNORECASE)


def phase_of(claim: Object) -> str:
    """Pending, Bound or Lost."""
    return str(at(claim, "status.phase", "Pending"))


def trouble_of(
    claim: Object, events: Sequence[Object], storage: Storage | None = None
) -> Outcome | None:
    """Why the claim has no volume, by its events and class; None if it may yet get one."""
    if phase_of(claim) == "Lost":
        return _trouble(
            "PvcLost",
            f"the volume of claim {name_of(claim)} is gone",
            "bring its PersistentVolume back, or delete the claim: a new one is made then, and"
            " the model downloaded again",
            status="Degraded",
        )
    if phase_of(claim) == "Bound":
        return None
    if storage and storage.missing and not at(claim, "spec.volumeName"):
        return _no_class(claim, storage.named)
    # What events say of a class that has been made since no longer holds.
    there = storage is not None and storage.found is not None
    found = (said for event in _newest_first(events) if (said := _of_event(claim, event, there)))
    return next(found, None)


def wanted_otherwise(claim: Object, storage_class: str, access_mode: str) -> bool:
    """Whether by now another class or access mode is asked for: no claim can change its own."""
    named, modes = at(claim, "spec.storageClassName", ""), at(claim, "spec.accessModes", [])
    return bool(storage_class and storage_class != named) or access_mode not in modes


def to_be_made_anew(claim: Object, trouble: Outcome) -> Outcome:
    """The trouble of a claim that is wanted otherwise by now."""
    hint = (
        "by now another class or access mode is asked for: delete the claim"
        f" (`kubectl delete pvc {name_of(claim)}`), and it is made anew"
    )
    return replace(trouble, hint=hint)


def awaited_on(claim: Object) -> str:
    """The node for which its volume is being made, where its class has waited for the first pod."""
    pending = phase_of(claim) == "Pending"
    return annotations_of(claim).get(_SELECTED_NODE, "") if pending else ""


def mounted_by(pod: Object) -> Iterator[str]:
    """The claims that a pod has among its volumes."""
    for volume in at(pod, "spec.volumes", []):
        if claim := at(volume, "persistentVolumeClaim.claimName"):
            yield claim


def is_default(storage_class: Object) -> bool:
    """Whether claims that name no class get this one."""
    return annotations_of(storage_class).get(_IS_DEFAULT) == "true"


def _no_class(claim: Object, named: str) -> Outcome:
    anew = f"then delete the claim (`kubectl delete pvc {name_of(claim)}`): it is made anew"
    where = "spec.storageClassName, or storage.defaultStorageClassName in the runtime config"
    if not named:
        return _trouble(
            "NoDefaultStorageClass",
            "no storage class is named, and the cluster has no default one",
            f"make one the default; or set {where}, {anew}",
        )
    return _trouble(
        "StorageClassNotFound",
        f"there is no storage class {named!r}",
        f"create that class; or correct {where}, {anew}",
    )


def _of_event(claim: Object, event: Object, class_is_there: bool) -> Outcome | None:
    message = event.get("message") or event.get("note") or ""
    if _NO_CLASS.search(message):
        return None if class_is_there else _no_class(claim, "")
    if event.get("reason") != "ProvisioningFailed":
        return None
    if _ABSENT.search(message):
        named = at(claim, "spec.storageClassName", "")
        return None if class_is_there else replace(_no_class(claim, named or "?"), message=message)
    hint = "see what the provisioner of its storage class says"
    if _ACCESS.search(message):
        hint = (
            "the class seems not to offer this access mode: take another class, or set the"
            f" annotation {ANNOTATION_ACCESS_MODE}: ReadWriteOnce; then delete the claim"
            f" (`kubectl delete pvc {name_of(claim)}`): it is made anew"
        )
    return _trouble("PvcProvisioningFailed", message or "no volume can be made", hint)


def _trouble(reason: str, message: str, hint: str, status: str = "Pending") -> Outcome:
    return Outcome(
        reason,
        message,
        hint,
        failure=Failure.INFRASTRUCTURE,
        status=status,
        overall="InfrastructureError" if status == "Degraded" else "",
    )


def _newest_first(events: Sequence[Object]) -> list[Object]:
    return sorted(events, key=seen_at, reverse=True)
