"""What goes with a template cache that is deleted: models that are there stay, others go. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from operator_shim.objects import (
    LABEL_TEMPLATE_CREATED,
    Object,
    at,
    is_controlled_by,
    is_deleted,
    labels_of,
    uid_of,
)
from operator_shim.ranking import is_usable
from operator_shim.template_cache_desired import LABEL_CACHE, creator_label


def leftovers(
    cache: Object, artifacts: Collection[Object], caches: Collection[Object]
) -> Iterator[Object]:
    """The artifacts that nobody needs once the cache is gone.

    Those are of its own making, or of that of a cache that went before and left them to this one,
    as it waited for them.
    """
    # It is being deleted, too.
    others = [each for each in caches if not is_deleted(each)]
    creators = {creator_label(each) for each in others}
    awaited = {uid for each in others for uid in _uses(each)}
    used = _uses(cache)
    for artifact in artifacts:
        creator = labels_of(artifact).get(LABEL_CACHE)
        left_to_us = creator not in creators and uid_of(artifact) in used
        ours = creator == creator_label(cache) or (
            labels_of(artifact).get(LABEL_TEMPLATE_CREATED) == "true" and left_to_us
        )
        if ours and _may_go(artifact, cache) and uid_of(artifact) not in awaited:
            yield artifact


def _uses(cache: Object) -> set[str]:
    """The UIDs of the artifacts that a cache has named as its own."""
    entries = at(cache, "status.artifacts", {}).values()
    return {str(entry["uid"]) for entry in entries if entry.get("uid")}


def _may_go(artifact: Object, cache: Object) -> bool:
    if is_usable(artifact) or is_deleted(artifact):
        return False
    is_free = not at(artifact, "metadata.ownerReferences", [])
    return is_free or is_controlled_by(artifact, uid_of(cache))
