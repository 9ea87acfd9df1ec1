"""Whose affair a change of another object is: who follows whom, as far as events have told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from operator_shim.cache_spec import template_name
from operator_shim.keys import (
    ARTIFACT,
    CLUSTER_MODEL,
    CLUSTER_RUNTIME_CONFIG,
    CLUSTER_TEMPLATE,
    MODEL,
    MODEL_CACHE,
    RUNTIME_CONFIG,
    SERVICE,
    TEMPLATE,
    TEMPLATE_CACHE,
    Key,
    key_of,
)
from operator_shim.objects import (
    Object,
    annotations_of,
    at,
    condition_of,
    generation_of,
    is_deleted,
    is_paused,
    labels_of,
    name_of,
    namespace_of,
)
from operator_shim.runtime_config import config_name

_ANY = ""
"""In place of a name: all objects of a kind in the namespace."""
_ALL = 100

FOLLOWED = {
    RUNTIME_CONFIG: (),
    CLUSTER_RUNTIME_CONFIG: (),
    ARTIFACT: (TEMPLATE_CACHE,),
    MODEL_CACHE: (TEMPLATE_CACHE,),
    TEMPLATE: (TEMPLATE_CACHE, SERVICE),
    CLUSTER_TEMPLATE: (TEMPLATE_CACHE, SERVICE),
    TEMPLATE_CACHE: (SERVICE, TEMPLATE),
    MODEL: (SERVICE,),
    CLUSTER_MODEL: (SERVICE,),
}
"""The kinds that others look at, and which others; runtime configs are looked at by all."""


class Followers:
    """Remembers what each object looks at. One that is not known yet looks once it is."""

    def __init__(self) -> None:
        self._interests: dict[Key, frozenset[Key]] = {}
        self._followers: dict[Key, set[Key]] = defaultdict(set)

    def learn(self, kind: str, object_: Object) -> bool:
        """An object is there, or is not what it was; whether it looks at more than before."""
        key, now = key_of(kind, object_), frozenset(interests(kind, object_))
        before = self._interests.get(key, frozenset())
        for gone in before - now:
            self._drop(gone, key)
        for new in now - before:
            self._followers[new].add(key)
        self._interests[key] = now
        return any(not before.intersection((each, each._replace(name=_ANY))) for each in now)

    def forget(self, kind: str, object_: Object) -> None:
        """An object is gone."""
        key = key_of(kind, object_)
        for gone in self._interests.pop(key, frozenset()):
            self._drop(gone, key)

    def of(self, leader: Key) -> set[Key]:
        """Those that look at this object."""
        wanted = (leader, leader._replace(name=_ANY))
        return {each for key in wanted for each in self._followers.get(key, ())} - {leader}

    def _drop(self, leader: Key, follower: Key) -> None:
        self._followers[leader].discard(follower)
        if not self._followers[leader]:
            del self._followers[leader]


def interests(kind: str, object_: Object) -> Iterator[Key]:
    """What an object's state depends on, beside itself and what belongs to it. Pure."""
    here = namespace_of(object_)
    config = config_name(object_)
    if here:
        yield Key(RUNTIME_CONFIG, here, config)
    yield Key(CLUSTER_RUNTIME_CONFIG, "", config)
    match kind:
        case "AIMTemplateCache":
            yield from _of_cache(object_, here)
        case "AIMService":
            yield from _of_service(object_, here)
        case "AIMServiceTemplate":
            yield Key(TEMPLATE_CACHE, here, name_of(object_))


def asked(object_: Object) -> tuple[object, ...]:
    """What changes when somebody wants something of an object, not when its state is told. Pure."""
    return (
        generation_of(object_),
        is_deleted(object_),
        labels_of(object_),
        annotations_of(object_),
        at(object_, "metadata.ownerReferences", []),
        at(object_, "metadata.finalizers", []),
        # Of what a pod tells of its progress this alone changes what we say.
        at(object_, "status.progress.percentage") == _ALL,
    )


def told(object_: Object) -> tuple[object, ...]:
    """What of an object its followers go by. Pure."""
    ready = condition_of(object_, "Ready") or {}
    fields = (
        *("status", "observedGeneration", "persistentVolumeClaim"),
        *("modelSources", "profile", "artifacts"),
    )
    return (
        is_paused(object_),
        *(at(object_, f"status.{field}") for field in fields),
        *(ready.get(field) for field in ("status", "reason", "message")),
    )


def _of_cache(cache: Object, here: str) -> Iterator[Key]:
    yield Key(TEMPLATE, here, template_name(cache))
    yield Key(CLUSTER_TEMPLATE, "", template_name(cache))
    # Any that comes may be the one that is waited for.
    listed = at(cache, "status.artifacts", {}) if at(cache, "status.status") == "Ready" else {}
    for kind in (ARTIFACT, MODEL_CACHE):
        for name in {at(each, "name", key) for key, each in listed.items()} or {_ANY}:
            yield Key(kind, here, name)


def _of_service(service: Object, here: str) -> Iterator[Key]:
    # One that runs stays with what it has; another waits for any that comes.
    runs = at(service, "status.status") == "Running"
    known = at(service, "status", {}) if runs else {}
    template = at(service, "spec.template.name") or at(known, "resolvedTemplate.name", _ANY)
    model = at(service, "spec.model.name") or at(known, "resolvedModel.name", _ANY)
    yield Key(TEMPLATE, here, template)
    yield Key(CLUSTER_TEMPLATE, "", template)
    yield Key(MODEL, here, model)
    yield Key(CLUSTER_MODEL, "", model)
    yield Key(TEMPLATE_CACHE, here, at(known, "cache.templateCacheRef.name", _ANY))
