"""One pass over one service template, of a namespace or of the cluster, as far as caches need it.

Which models a template takes is for its own controller to find out. Where the template itself says
it, and nobody else tells its status, we do; and a template may ask for a cache of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from operator_shim.acting import Acting
from operator_shim.cache_spec import template_kinds, template_name
from operator_shim.children import child, inherited, owner_reference
from operator_shim.cluster import Cluster
from operator_shim.config import Options
from operator_shim.keys import CLUSTER_RUNTIME_CONFIG, RUNTIME_CONFIG, TEMPLATE, TEMPLATE_CACHE, Key
from operator_shim.objects import (
    API_VERSION,
    GROUP,
    Object,
    at,
    generation_of,
    is_controlled_by,
    is_deleted,
    is_paused,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.runtime_config import Missing, RuntimeConfig, config_name, resolve
from operator_shim.telling import Condition, EventNote, written

MANAGER = "aim-service-template-controller"
"""Who applies; the same as in AIM Engine, so that either can take over from the other."""
LABEL_TEMPLATE = f"{GROUP}/service-template.name"


async def reconcile(
    cluster: Cluster,
    key: Key,
    options: Options,  # noqa: ARG001  # every kind's pass is called alike
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> float | None:
    """One pass; there is nothing to look for again before something happens.

    Raises:
        ApiError: the API server is out of reach, or refuses what we ask for.
    """
    template = await cluster.get(key.kind, key.name, key.namespace)
    if template is None or is_deleted(template) or is_paused(template):
        return None
    template = {**template, "kind": key.kind}
    await _provide(cluster, template, status_of(template, clock()))
    return None


def status_of(template: Object, now: datetime) -> Object | None:
    """The status of a template that names its models itself; None where it is not ours to tell."""
    sources, tellers = at(template, "spec.modelSources", []), _tellers(template)
    if not tellers <= {MANAGER}:
        return None
    if not sources:
        # What we have told goes when it is not applied again.
        return {"observedGeneration": generation_of(template)} if tellers else None
    counted = "1 model" if len(sources) == 1 else f"{len(sources)} models"
    said = f"{counted}, as spec.modelSources says"
    told = (
        Condition("Discovered", True, "InlineModelSources", said),
        Condition("Ready", True, "AllComponentsReady", said),
    )
    return {
        "status": "Ready",
        "modelSources": sources,
        "observedGeneration": generation_of(template),
        "conditions": [written(each, template, now) for each in told],
    }


def cache_of(template: Object, config: RuntimeConfig) -> Object:
    """The cache that a template asks for; it goes with the template."""
    made = child(
        template,
        API_VERSION,
        TEMPLATE_CACHE,
        name_of(template),
        labels=inherited(template, config, LABEL_TEMPLATE),
        manager=MANAGER,
        owner=owner_reference(template),
    )
    spec = {
        "templateName": name_of(template),
        "templateScope": "Namespace",
        "mode": "Shared",
        "env": at(template, "spec.caching.env"),
        "runtimeConfigName": at(template, "spec.runtimeConfigName"),
    }
    return made | {"spec": {field: value for field, value in spec.items() if value}}


async def _provide(cluster: Cluster, template: Object, status: Object | None) -> None:
    """Make its cache, and tell how it is: services that hear of a Ready template find the cache."""
    acting = Acting(cluster, template, MANAGER)
    try:
        if template["kind"] == TEMPLATE and at(template, "spec.caching.enabled"):
            await _give_cache(cluster, acting, template)
    finally:
        if status:
            await acting.report(status)
    await acting.publish()


async def _give_cache(cluster: Cluster, acting: Acting, template: Object) -> None:
    """Make the cache, unless the template has one; what bears its name else is left as it is."""
    here = namespace_of(template)
    caches = await cluster.listed(TEMPLATE_CACHE, here)
    if any(is_controlled_by(each, uid_of(template)) for each in caches):
        return
    bearer = next((each for each in caches if name_of(each) == name_of(template)), None)
    if bearer:
        await _tell_of(cluster, acting, template, bearer)
        return
    name = config_name(template)
    namespaced = await cluster.get(RUNTIME_CONFIG, name, here)
    config = resolve(name, namespaced, await cluster.get(CLUSTER_RUNTIME_CONFIG, name))
    await acting.make(
        cache_of(template, RuntimeConfig() if isinstance(config, Missing) else config)
    )


async def _tell_of(cluster: Cluster, acting: Acting, template: Object, bearer: Object) -> None:
    """Say, where that is not said already, that the name of its cache is somebody else's."""
    if template_name(bearer) == name_of(template) and TEMPLATE in template_kinds(bearer):
        return
    said = (
        f"spec.caching.enabled: AIMTemplateCache {name_of(bearer)} is there already, of template"
        f" {template_name(bearer)}: delete it, or give this template another name"
    )
    events = await cluster.events_of(uid_of(template), namespace_of(template))
    if said not in {each.get("message") for each in events}:
        acting.note(EventNote("Warning", "CacheNotMade", said))


def _tellers(template: Object) -> set[str]:
    """The field managers of its overall status."""
    # The default of AIM Engine's CRD becomes part of what anybody writes beside it.
    is_default = at(template, "status.status") == "Pending"
    needed = {"f:status", "f:conditions"} if is_default else {"f:status"}
    return {
        str(each.get("manager"))
        for each in at(template, "metadata.managedFields", [])
        if each.get("subresource") == "status" and needed <= set(at(each, "fieldsV1.f:status", {}))
    }
