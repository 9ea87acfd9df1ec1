"""Which cache a service uses, which is made for it, and which goes when the service goes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from operator_shim.cache_spec import DEDICATED, SHARED, mode_of_cache, template_kinds, template_name
from operator_shim.caching_mode import mode_of
from operator_shim.children import child, inherited, owner_reference
from operator_shim.keys import CLUSTER_TEMPLATE, TEMPLATE, TEMPLATE_CACHE
from operator_shim.names import derived_name, label_value
from operator_shim.objects import (
    API_VERSION,
    GROUP,
    LABEL_SERVICE,
    Object,
    at,
    generation_of,
    is_controlled_by,
    is_deleted,
    is_edited,
    is_paused,
    labels_of,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.ranking import READY, is_usable, rank, state_of
from operator_shim.runtime_config import RuntimeConfig, merged_env

MANAGER = "aim-service-controller"
"""Who applies; the same as in AIM Engine, so that either can take over from the other."""
_FOLLOWS = ("env", "imagePullSecrets", "runtimeConfigName")
LABEL_PARENT_SERVICE = f"{GROUP}/service.name"


def cache_state(cache: Object) -> str:
    """How far a cache is; what its status says of an earlier spec does not count."""
    told = at(cache, "status.observedGeneration")
    stale = told is not None and told != generation_of(cache)
    state = state_of(cache) if at(cache, "status.status") else "Pending"
    return "Progressing" if stale and state == READY else state


def cache_name(service: Object, template: Object, caches: Iterable[Object] = ()) -> str:
    """The cache that is made for a service; all services that share one agree on its name.

    Args:
        service: it is made for.
        template: says which models.
        caches: that of a template of the same name, but of the other scope, may bear the name.
    """
    parts, hashed = [name_of(template)], [namespace_of(service)]
    if mode_of(service) == DEDICATED:
        parts, hashed = [*parts, name_of(service)], [uid_of(service)]
    name = derived_name(parts, hashed)
    bearer = next((each for each in caches if name_of(each) == name), None)
    if bearer and template_name(bearer) == name_of(template) and not _is_of(bearer, template):
        return derived_name(parts, [*hashed, _scope(template)])
    return name


def find_cache(service: Object, template: Object, caches: Sequence[Object]) -> Object | None:
    """The cache that a service uses: while that is Ready the one that it has used so far."""
    fitting = [
        each
        for each in caches
        if not is_deleted(each)
        and mode_of_cache(each) == mode_of(service)
        and _is_of(each, template)
        and _has_all(each, template)
    ]
    if mode_of(service) == DEDICATED:
        fitting = [each for each in fitting if is_controlled_by(each, uid_of(service))]
    known = at(service, "status.cache.templateCacheRef.uid", "")
    return min(fitting, key=lambda each: _preference(each, known), default=None)


def wanted_cache(
    name: str,
    service: Object,
    template: Object,
    config: RuntimeConfig,
    *,
    owned_by_template: bool,
) -> Object:
    """The cache that is made where none is found.

    Args:
        name: of the cache.
        service: it is made for.
        template: says which models.
        config: the service's.
        owned_by_template: whether a Shared one goes with the template; else it goes with nobody.
    """
    mode = mode_of(service)
    owner = owner_reference(service) if mode == DEDICATED else None
    if mode == SHARED and owned_by_template:
        owner = owner_reference(template, controller=False)
    labels = {
        **inherited(service, config, LABEL_PARENT_SERVICE),
        LABEL_SERVICE: label_value(name_of(service)),
    }
    named = at(service, "spec.storage.defaultStorageClassName") or config.storage_class
    optional = {
        "storageClassName": named,
        "env": list(_env(service, template)),
        "runtimeConfigName": at(service, "spec.runtimeConfigName"),
        "imagePullSecrets": at(service, "spec.imagePullSecrets"),
    }
    spec = {
        "templateName": name_of(template),
        "templateScope": _scope(template),
        "mode": mode,
        **{field: value for field, value in optional.items() if value},
    }
    made = child(
        *(service, API_VERSION, TEMPLATE_CACHE, name), labels=labels, manager=MANAGER, owner=owner
    )
    return {**made, "spec": spec}


def outdated(cache: Object, wanted: Object) -> Object:
    """What a service wants otherwise now in the spec of a cache that it made; None: it is to go.

    One that is Ready has been brought already, and is left as it is; so is what others have edited.
    """
    if is_usable(cache) or is_paused(cache) or is_edited(cache, MANAGER):
        return {}
    makers = {labels_of(each).get(LABEL_SERVICE) for each in (cache, wanted)}
    if len(makers) > 1 or name_of(cache) != name_of(wanted):
        return {}
    return {
        field: wanted["spec"].get(field)
        for field in _FOLLOWS
        if (at(cache, f"spec.{field}") or None) != wanted["spec"].get(field)
    }


def going_with(
    service: Object, caches: Iterable[Object], services: Sequence[Object]
) -> list[Object]:
    """Caches that a service leaves behind, that are not Ready, and that nobody waits for.

    Args:
        service: the one that goes.
        caches: all of its namespace.
        services: all of its namespace.
    """
    others = [each for each in services if not is_deleted(each)]
    living = {label_value(name_of(each)) for each in others}
    return [
        cache
        for cache in caches
        if not is_deleted(cache)
        and not is_usable(cache)
        and _was_made_for(cache, service, living)
        and not any(_uses(each, cache) for each in others)
    ]


def _is_of(cache: Object, template: Object) -> bool:
    """Whether these are this template's models, and not those of its namesake of another scope."""
    if template_name(cache) != name_of(template):
        return False
    kinds, kind = template_kinds(cache), TEMPLATE if namespace_of(template) else CLUSTER_TEMPLATE
    if kind not in kinds:
        return False
    # It may have found the one that is looked for first.
    return kind == kinds[0] or at(cache, "status.resolvedTemplateKind") != kinds[0]


def _has_all(cache: Object, template: Object) -> bool:
    """Whether a cache that names models of its own has those of the template among them."""
    its, wanted = at(cache, "spec.modelSources"), at(template, "status.modelSources", [])
    return not its or _uris(wanted) <= _uris(its)


def _uris(sources: Iterable[Object]) -> set[str]:
    return {str(at(each, "sourceUri", "")).rstrip("/") for each in sources}


def _scope(template: Object) -> str:
    return "Namespace" if namespace_of(template) else "Cluster"


def _preference(cache: Object, known: str) -> tuple[bool, int, str]:
    is_in_use = bool(known) and uid_of(cache) == known and cache_state(cache) == READY
    return not is_in_use, -rank(cache_state(cache)), name_of(cache)


def _env(service: Object, template: Object) -> tuple[Object, ...]:
    of_caching = at(template, "spec.caching.env", []) if namespace_of(template) else []
    return merged_env(at(service, "spec.env", []), of_caching, at(template, "spec.env", []))


def _was_made_for(cache: Object, service: Object, living: set[str]) -> bool:
    """Whether a service made it: this one, or one that is gone and has left it to this one."""
    maker = labels_of(cache).get(LABEL_SERVICE)
    if maker == label_value(name_of(service)):
        return True
    return maker is not None and maker not in living and _uses(service, cache)


def _uses(service: Object, cache: Object) -> bool:
    """Whether a service has this cache, or waits for it."""
    if at(service, "status.cache.templateCacheRef.uid") == uid_of(cache):
        return True
    if DEDICATED in (mode_of(service), mode_of_cache(cache)):
        return False
    template = at(service, "spec.template.name") or at(service, "status.resolvedTemplate.name")
    return bool(template == template_name(cache))
