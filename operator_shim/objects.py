"""Kubernetes objects as plain dicts: how to read them, and the names of our group's marks."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]

GROUP = "aim.eai.amd.com"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

LABEL_ARTIFACT = f"{GROUP}/cache.name"
LABEL_CACHE_TYPE = f"{GROUP}/cache.type"
LABEL_COMPONENT = f"{GROUP}/component"
LABEL_SOURCE_MODEL = f"{GROUP}/source-model"
# Without the prefix of the group, as AIM Engine has it.
LABEL_TEMPLATE_CREATED = "template-created"
LABEL_PARENT_ARTIFACT = f"{GROUP}/artifact.name"
LABEL_SERVICE = f"{GROUP}/service"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"

ANNOTATION_PAUSED = f"{GROUP}/reconciliation-paused"
ANNOTATION_RETRY = f"{GROUP}/retry"
ANNOTATION_RETRY_STATE = f"{GROUP}/retry-state"
ANNOTATION_ACCESS_MODE = f"{GROUP}/access-mode"
ANNOTATION_SHARDS = f"{GROUP}/shards"
ANNOTATION_FOREIGN_IMAGE = f"{GROUP}/foreign-image"
ANNOTATION_RESOURCES = f"{GROUP}/resources"


def at(object_: Object, path: str, default: Any = None) -> Any:
    """What stands at a path of keys, ``spec.size``; the default where nothing, or null, does."""
    value: Any = object_
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return default if value is None else value


def name_of(object_: Object) -> str:
    """Its name; empty while it has none."""
    return str(at(object_, "metadata.name", ""))


def namespace_of(object_: Object) -> str:
    """Its namespace; empty for one that belongs to the whole cluster."""
    return str(at(object_, "metadata.namespace", ""))


def uid_of(object_: Object) -> str:
    """Its UID; empty for one that no server has seen."""
    return str(at(object_, "metadata.uid", ""))


def generation_of(object_: Object) -> int:
    """Which version of its spec this is."""
    return int(at(object_, "metadata.generation", 0))


def labels_of(object_: Object) -> dict[str, str]:
    """Its labels, as a dict of their own."""
    return dict(at(object_, "metadata.labels", {}))


def annotations_of(object_: Object) -> dict[str, str]:
    """Its annotations, as a dict of their own."""
    return dict(at(object_, "metadata.annotations", {}))


def is_deleted(object_: Object) -> bool:
    """Whether it has been asked to go, and is only here until that is done."""
    return at(object_, "metadata.deletionTimestamp") is not None


def is_paused(object_: Object) -> bool:
    """Whether we are to keep our hands off it, until it is deleted."""
    return annotations_of(object_).get(ANNOTATION_PAUSED) == "true"


def is_edited(object_: Object, manager: str) -> bool:
    """Whether others than this field manager have had a hand in its spec."""
    return any(
        each.get("manager") != manager and "f:spec" in each.get("fieldsV1", {})
        for each in at(object_, "metadata.managedFields", [])
    )


def is_controlled_by(object_: Object, uid: str) -> bool:
    """Whether the object with this UID is its one controlling owner."""
    owners = at(object_, "metadata.ownerReferences", [])
    return any(owner.get("controller") and owner.get("uid") == uid for owner in owners)


def condition_of(object_: Object, kind: str) -> Object | None:
    """The condition of this type; None where there is none."""
    conditions = at(object_, "status.conditions", [])
    return next((each for each in conditions if each.get("type") == kind), None)


def has_condition(object_: Object, kind: str) -> bool:
    """Whether the condition of this type is there, and true."""
    condition = condition_of(object_, kind)
    return condition is not None and condition.get("status") == "True"


def seen_at(event: Object) -> str:
    """When an Event was last seen; there are three fields for it, by the age of its API."""
    seen = (at(event, "series.lastObservedTime"), event.get("lastTimestamp"))
    return next(filter(None, (*seen, event.get("eventTime"))), "")


def reference_to(object_: Object) -> Object:
    """How a status names an object."""
    reference = {
        "name": name_of(object_),
        "namespace": namespace_of(object_),
        "scope": "Namespace" if namespace_of(object_) else "Cluster",
        "kind": object_["kind"],
        "uid": uid_of(object_),
    }
    return {field: value for field, value in reference.items() if value}


def moment(text: str) -> datetime:
    """A time as Kubernetes writes it, in UTC.

    Raises:
        ValueError: this is none.
    """
    # The API server takes them in small letters, too, and with a leap second.
    read = datetime.fromisoformat(re.sub(r":60(?=[.Z+-]|$)", ":59", text.upper()))
    try:
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is out of range") from error


def moment_told(text: object) -> datetime | None:
    """A time in a status, into which others may write, too; None where it cannot be read."""
    try:
        return moment(str(text))
    except ValueError:
        return None


def timestamp(when: datetime) -> str:
    """A time as Kubernetes writes it: in UTC, to the second."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
