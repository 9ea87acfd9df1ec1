"""What all that is made for an object has in common: its labels, and whom it goes with. Pure."""

from __future__ import annotations

from operator_shim.names import label_value
from operator_shim.objects import LABEL_MANAGED_BY, Object, labels_of, name_of, namespace_of, uid_of
from operator_shim.runtime_config import RuntimeConfig, propagated


def child(
    parent: Object,
    api_version: str,
    kind: str,
    name: str,
    *,
    labels: dict[str, str],
    manager: str,
    owner: Object | None = None,
) -> Object:
    """The beginning of a manifest.

    Args:
        parent: in whose namespace it is.
        api_version: of the child, as ``kind`` and ``name``.
        kind: of the child.
        name: of the child.
        labels: all of its own, and those that it inherits.
        manager: who applies it.
        owner: an owner reference (``owner_reference``); None: it outlives its parent.
    """
    metadata: Object = {
        "name": name,
        "namespace": namespace_of(parent),
        "labels": {**labels, LABEL_MANAGED_BY: manager},
    }
    if owner:
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def owner_reference(owner: Object, *, controller: bool = True) -> Object:
    """The reference by which a child goes with its owner; one of a child's owners controls it."""
    reference: Object = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
    }
    return reference | {"controller": True} if controller else reference


def inherited(parent: Object, config: RuntimeConfig, label_of_parent: str) -> dict[str, str]:
    """Labels that a parent's children have: what it passes on, and its own name."""
    return {
        **propagated(labels_of(parent), config),
        label_of_parent: label_value(name_of(parent)),
    }
