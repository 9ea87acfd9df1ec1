"""What should be there for a template cache: an artifact for each model that nobody holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from operator_shim import names
from operator_shim.cache_spec import DEDICATED, mode_of_cache, template_name
from operator_shim.children import child, inherited, owner_reference
from operator_shim.keys import ARTIFACT, TEMPLATE
from operator_shim.objects import (
    API_VERSION,
    GROUP,
    LABEL_TEMPLATE_CREATED,
    Object,
    at,
    is_edited,
    labels_of,
    name_of,
)
from operator_shim.ranking import is_usable
from operator_shim.runtime_config import RuntimeConfig
from operator_shim.template_cache_observed import Observation, Place

MANAGER = "aim-template-cache-controller"
"""Who applies; the same as in AIM Engine, so that either can take over from the other."""
LABEL_CACHE = f"{GROUP}/template-cache.name"


def missing(seen: Observation) -> Iterator[Object]:
    """The artifacts that are to be made."""
    for index, place in enumerate(seen.places):
        if place.artifact is None and place.obstacle is None and not seen.is_blocked:
            yield _artifact(seen, place, index)


def outdated(seen: Observation) -> Iterator[Object]:
    """Those of this cache's making that it wants otherwise now, as they should be."""
    for index, place in enumerate(seen.places):
        if place.artifact is not None and not seen.is_blocked:
            wanted = _artifact(seen, place, index)
            if _is_outdated(seen, place.artifact, wanted):
                yield wanted


def creator_label(cache: Object) -> str:
    """What artifacts say of the cache that has made them; of a long name the end is a hash."""
    return names.label_value(name_of(cache))


def _artifact(seen: Observation, place: Place, index: int) -> Object:
    there, cache = place.artifact or {}, seen.cache
    scope = "Namespace" if (seen.template or {}).get("kind") == TEMPLATE else "Cluster"
    labels = {
        LABEL_TEMPLATE_CREATED: "true",
        f"{GROUP}/template.name": names.label_value(template_name(cache)),
        f"{GROUP}/template.scope": scope,
        f"{GROUP}/template.index": str(index),
    }
    config = seen.config if isinstance(seen.config, RuntimeConfig) else RuntimeConfig()
    made = child(
        cache,
        API_VERSION,
        ARTIFACT,
        name_of(there) or place.name,
        labels=inherited(cache, config, LABEL_CACHE) | labels,
        manager=MANAGER,
        owner=owner_reference(cache) if mode_of_cache(cache) == DEDICATED else None,
    )
    spec = {
        "sourceUri": at(there, "spec.sourceUri", place.source.uri),
        "modelId": place.source.models[0],
        "size": place.source.size,
        "env": list(place.source.env),
        "storageClassName": at(there, "spec.storageClassName")
        or at(cache, "spec.storageClassName"),
        "runtimeConfigName": at(cache, "spec.runtimeConfigName"),
        "modelDownloadImage": at(cache, "spec.downloadImage"),
        "imagePullSecrets": at(cache, "spec.imagePullSecrets"),
    }
    return made | {"spec": {field: value for field, value in spec.items() if value}}


def _is_outdated(seen: Observation, artifact: Object, wanted: Object) -> bool:
    """Whether what this cache has made, and nobody has changed since, is wanted otherwise now."""
    if artifact["kind"] != ARTIFACT or is_usable(artifact) or is_edited(artifact, MANAGER):
        return False
    if labels_of(artifact).get(LABEL_CACHE) != creator_label(seen.cache):
        return False
    exact = ("env", "imagePullSecrets", "runtimeConfigName")
    there, spec = at(artifact, "spec", {}), wanted["spec"]
    return any((there.get(field) or None) != spec.get(field) for field in exact) or any(
        spec[field] != there.get(field) for field in ("modelDownloadImage", "size") if field in spec
    )
