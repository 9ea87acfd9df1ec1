"""Which object a piece of work is about, and whose affair an event of an object is."""

from __future__ import annotations

from typing import NamedTuple

from operator_shim.objects import LABEL_ARTIFACT, Object, at, labels_of, name_of, namespace_of

ARTIFACT = "AIMArtifact"
RUNTIME_CONFIG = "AIMRuntimeConfig"
CLUSTER_RUNTIME_CONFIG = "AIMClusterRuntimeConfig"
RUNTIME_CONFIGS = (RUNTIME_CONFIG, CLUSTER_RUNTIME_CONFIG)
CHILDREN = ("PersistentVolumeClaim", "Job", "Pod")


class Key(NamedTuple):
    """An object's name in full; the namespace is empty for one of the whole cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {place}{self.name}"


def key_of(kind: str, object_: Object) -> Key:
    """The key of an object of this kind."""
    return Key(kind, namespace_of(object_), name_of(object_))


def concerned(kind: str, object_: Object) -> Key | None:
    """Who is to look when this object has changed: itself, or the artifact that it is made for."""
    if kind not in CHILDREN:
        return key_of(kind, object_)
    name = _owner(object_) or labels_of(object_).get(LABEL_ARTIFACT)
    return Key(ARTIFACT, namespace_of(object_), name) if name else None


def _owner(child: Object) -> str | None:
    """The artifact that controls it. A label holds only the beginning of a long name."""
    for owner in at(child, "metadata.ownerReferences", []):
        if owner.get("controller") and owner.get("kind") == ARTIFACT:
            return str(owner["name"])
    return None
