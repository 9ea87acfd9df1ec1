"""Which object a piece of work is about, and whose affair an event of an object is."""

from __future__ import annotations

from typing import NamedTuple

from operator_shim.objects import (
    GROUP,
    LABEL_ARTIFACT,
    Object,
    at,
    labels_of,
    name_of,
    namespace_of,
)

ARTIFACT = "AIMArtifact"
MODEL_CACHE = "AIMModelCache"
TEMPLATE_CACHE = "AIMTemplateCache"
TEMPLATE = "AIMServiceTemplate"
CLUSTER_TEMPLATE = "AIMClusterServiceTemplate"
SERVICE = "AIMService"
MODEL = "AIMModel"
CLUSTER_MODEL = "AIMClusterModel"
RUNTIME_CONFIG = "AIMRuntimeConfig"
CLUSTER_RUNTIME_CONFIG = "AIMClusterRuntimeConfig"

OURS = (
    *(ARTIFACT, MODEL_CACHE, TEMPLATE_CACHE, TEMPLATE, CLUSTER_TEMPLATE, SERVICE),
    *(MODEL, CLUSTER_MODEL, RUNTIME_CONFIG, CLUSTER_RUNTIME_CONFIG),
)
"""All kinds of our group."""
DOWNLOADS = (ARTIFACT, MODEL_CACHE)
"""The kinds that have a claim and Jobs of their own."""
USERS = (TEMPLATE_CACHE, SERVICE)
"""The kinds for which artifacts are made."""
CHILDREN = ("PersistentVolumeClaim", "Job", "Pod")
"""What belongs to those."""
SERVERS = ("InferenceService", "Deployment")
"""What serves a service's model; one of them belongs to it."""


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


def owner_of(object_: Object) -> Key | None:
    """The object of ours that controls it, by whom it was made."""
    for owner in at(object_, "metadata.ownerReferences", []):
        if owner.get("controller") and str(owner.get("apiVersion")).startswith(f"{GROUP}/"):
            return Key(str(owner["kind"]), namespace_of(object_), str(owner["name"]))
    return None


def keepers_of(child: Object) -> tuple[Key, ...]:
    """Who is to look when something that was made for an object of ours has changed."""
    if owner := owner_of(child):
        return (owner,)
    # A pod is controlled by its Job. A label holds only the beginning of a long name.
    name = labels_of(child).get(LABEL_ARTIFACT)
    return tuple(Key(kind, namespace_of(child), name) for kind in DOWNLOADS) if name else ()
