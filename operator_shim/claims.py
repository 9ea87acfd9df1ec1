"""What a claim is like, and why it has no volume, in words that a person can act on. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from operator_shim.failures import Outcome
from operator_shim.objects import ANNOTATION_ACCESS_MODE, Object, at, name_of
from operator_shim.retrying import Failure

_NO_CLASS = re.compile(r"no persistent volumes available.*no storage class is set", re.IGNORECASE)
_ABSENT = re.compile(r"storageclass\S* .*not found", re.IGNORECASE)
_ACCESS = re.compile(r"readwrite|read-write|access ?mode|multi_node|\bRWX\b", re.IGNORECASE)


def phase_of(claim: Object) -> str:
    """Pending, Bound or Lost."""
    return str(at(claim, "status.phase", "Pending"))


def trouble_of(claim: Object, events: Sequence[Object]) -> Outcome | None:
    """Why the claim has no volume, as far as its events tell; None if it may yet get one."""
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
    said = next((said for event in _newest_first(events) if (said := _of_event(event))), None)
    return said


def _of_event(event: Object) -> Outcome | None:
    message = event.get("message") or ""
    if _NO_CLASS.search(message):
        return _trouble(
            "NoDefaultStorageClass",
            "no storage class is named, and the cluster has no default one",
            "set spec.storageClassName, or storage.defaultStorageClassName in the runtime config",
        )
    if event.get("reason") != "ProvisioningFailed":
        return None
    if _ABSENT.search(message):
        return _trouble(
            "StorageClassNotFound",
            message,
            "create that class; or delete the artifact, and make it with another"
            " spec.storageClassName",
        )
    hint = "see what the provisioner of its storage class says"
    if _ACCESS.search(message):
        hint = (
            "the class seems not to offer this access mode: make the artifact with another class,"
            f" or with the annotation {ANNOTATION_ACCESS_MODE}: ReadWriteOnce"
        )
    return _trouble("PvcProvisioningFailed", message, hint)


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
    return sorted(events, key=lambda event: event.get("lastTimestamp") or "", reverse=True)
