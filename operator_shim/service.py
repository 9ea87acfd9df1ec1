"""One pass over one service: fetch, observe, make its cache and its server, report. And its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from operator_shim.acting import Acting
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.finalizers import SOON_S, Estate, look_after
from operator_shim.keys import (
    CLUSTER_MODEL,
    CLUSTER_RUNTIME_CONFIG,
    CLUSTER_TEMPLATE,
    MODEL,
    RUNTIME_CONFIG,
    SERVERS,
    SERVICE,
    TEMPLATE,
    TEMPLATE_CACHE,
    Key,
)
from operator_shim.objects import (
    GROUP,
    Object,
    at,
    is_controlled_by,
    is_deleted,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.outcome import needs_events
from operator_shim.runtime_config import Missing, RuntimeConfig, config_name
from operator_shim.service_cache import MANAGER, going_with, outdated, wanted_cache
from operator_shim.service_observed import Found, Observation, observe
from operator_shim.service_status import events_of, status_of
from operator_shim.serving import (
    INFERENCE_SERVICE,
    Serving,
    manifests,
    mounts_of_server,
    selector_of,
    server_name,
    server_of,
)
from operator_shim.telling import EventNote

FINALIZER = f"{GROUP}/template-cache-cleanup"
STARTING_S = 10.0
"""How often a server that is on its way is looked at: pods tell why, and wake nobody."""


async def reconcile(
    cluster: Cluster,
    key: Key,
    options: Options,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> float | None:
    """One pass; returns after how many seconds to look again, None once something happens.

    Raises:
        ApiError: the API server is out of reach, or refuses what we ask for; the latter is told in
            the status before.
    """
    return await look_after(
        cluster, key, _ESTATE, lambda service: _serve(cluster, service, options, clock)
    )


# -- life --------------------------------------------------------------------------------------


async def _serve(
    cluster: Cluster, service: Object, options: Options, clock: Callable[[], datetime]
) -> float | None:
    """Let the service have its cache and its server, and say how far they are."""
    acting = Acting(cluster, service, MANAGER)
    found = await _fetch(cluster, service)
    found, refused = await _act(cluster, acting, found, options, clock())
    seen = observe(await _listened(cluster, found), clock())
    status = status_of(seen)
    if await acting.report(status):
        for note in events_of(service, {**service, "status": status}):
            acting.note(note)
    await acting.publish()
    if refused:
        raise refused
    return _again(seen)


def _again(seen: Observation) -> float | None:
    if seen.cache is None and seen.obstacle is not None and is_deleted(seen.obstacle):
        return SOON_S
    if seen.is_bearer_going:
        return SOON_S
    return STARTING_S if seen.server and not seen.server.is_done else None


async def _fetch(cluster: Cluster, service: Object) -> Found:
    here, config = namespace_of(service), config_name(service)
    namespaced, of_cluster, namespace, named = await asyncio.gather(
        cluster.get(RUNTIME_CONFIG, config, here),
        cluster.get(CLUSTER_RUNTIME_CONFIG, config),
        _namespace(cluster, here),
        _named_servers(cluster, service),
    )
    servers = [
        each for each in named if is_controlled_by(each, uid_of(service)) and not is_deleted(each)
    ]
    models, cluster_models, templates, cluster_templates = await asyncio.gather(
        cluster.listed_if_known(MODEL, here),
        cluster.listed_if_known(CLUSTER_MODEL),
        cluster.listed_if_known(TEMPLATE, here),
        cluster.listed_if_known(CLUSTER_TEMPLATE),
    )
    # After the templates: one that is seen to be Ready has made its own cache before.
    caches = await cluster.listed_if_known(TEMPLATE_CACHE, here)
    return Found(
        service,
        namespaced,
        of_cluster,
        models=[*models, *cluster_models],
        templates=[*templates, *cluster_templates],
        caches=caches,
        servers=[each for each in servers if each["kind"] in SERVERS],
        bearers=[each for each in named if each not in servers],
        has_kserve=not servers and INFERENCE_SERVICE in await cluster.served(),
        namespace=namespace,
    )


async def _named_servers(cluster: Cluster, service: Object) -> Sequence[Object]:
    """What bears the name of its server; of one kind or the other, as it was made once."""
    kinds, name, here = (*SERVERS, "Service"), server_name(service), namespace_of(service)
    there = await asyncio.gather(*(cluster.get(kind, name, here) for kind in kinds))
    return [
        {**each, "kind": kind} for kind, each in zip(kinds, there, strict=True) if each is not None
    ]


async def _namespace(cluster: Cluster, name: str) -> Object | None:
    """The namespace, as far as we may know it."""
    try:
        return await cluster.get("Namespace", name)
    except ApiError as error:
        if error.status == 403:
            return None
        raise


async def _act(
    cluster: Cluster, acting: Acting, found: Found, options: Options, now: datetime
) -> tuple[Found, ApiError | None]:
    """Makes the cache, makes or changes the server; returns what there is, and what was refused."""
    try:
        found = await _with_cache(cluster, acting, found, options, now)
        found = replace(found, servers=await _applied(acting, observe(found, now)))
    except ApiError as error:
        if not error.refused:
            raise
        return replace(found, refusal=str(error)), error
    return found, None


async def _with_cache(
    cluster: Cluster, acting: Acting, found: Found, options: Options, now: datetime
) -> Found:
    """What there is once there is a cache, and as the service wants it, where that is its own."""
    seen = observe(found, now)
    wanted = _order_of_cache(seen, options)
    if seen.needs_cache and wanted:
        # Of services that want one at the same moment one makes it, and the others find it.
        await acting.make_first(wanted)
    elif seen.cache and wanted and (changed := outdated(seen.cache, wanted)):
        await cluster.patch_spec(seen.cache, changed, MANAGER)
        said = f"AIMTemplateCache {name_of(wanted)} is told what the service wants now"
        acting.note(EventNote("Normal", "CacheChanged", said))
    else:
        return found
    caches = await cluster.listed_if_known(TEMPLATE_CACHE, namespace_of(found.service))
    return replace(found, caches=caches)


def _order_of_cache(seen: Observation, options: Options) -> Object | None:
    """What a cache of the service is to be like; None while that is not known. Pure."""
    if seen.template is None or isinstance(seen.config, Missing):
        return None
    return wanted_cache(
        *(seen.cache_name, seen.service, seen.template, seen.config),
        owned_by_template=options.shared_cache_owner == "template",
    )


async def _applied(acting: Acting, seen: Observation) -> Sequence[Object]:
    """The server, once it is as it should be; what there is, where nothing is to be changed."""
    before = seen.server_object
    order = order_of(seen)
    if order is None:
        return [before] if before else []
    made = [{**await acting.make(each), "kind": each["kind"]} for each in manifests(order)]
    if before is None:
        said = f"made {seen.form} {name_of(made[0])}"
        acting.note(EventNote("Normal", "ServerCreated", said))
    elif at(before, "metadata.generation") != at(made[0], "metadata.generation"):
        said = f"changed {seen.form} {name_of(made[0])}"
        if order.mounts != mounts_of_server(before):
            claims = dict.fromkeys(each.claim for each in order.mounts)
            said = f"{said}: it mounts {', '.join(claims)} now"
        acting.note(EventNote("Normal", "ServerChanged", said))
    return made[:1]


def order_of(seen: Observation) -> Serving | None:
    """What the server is to be like; None while it is not to be made or changed. Pure."""
    mounts = seen.mounts
    if mounts is None or seen.model is None or not isinstance(seen.config, RuntimeConfig):
        return None
    return Serving(
        service=seen.service,
        model=seen.model,
        template=seen.template or {},
        config=seen.config,
        mounts=mounts,
        form=seen.form,
        is_restricted=seen.is_restricted,
    )


async def _listened(cluster: Cluster, found: Found) -> Found:
    """What was found, with the pods of a server that is on its way, and what is said of them."""
    if not found.servers or server_of(found.servers[0]).is_done:
        return found
    here = namespace_of(found.service)
    selector = ",".join(f"{key}={value}" for key, value in selector_of(found.service).items())
    pods = await cluster.listed("Pod", here, selector)
    events = {
        uid_of(pod): await cluster.events_of(uid_of(pod), here) for pod in pods if needs_events(pod)
    }
    return replace(found, pods=pods, events=events)


# -- end ---------------------------------------------------------------------------------------


async def _leftovers(cluster: Cluster, service: Object) -> Iterable[Object]:
    """The caches that nobody needs any more."""
    here = namespace_of(service)
    caches = await cluster.listed_if_known(TEMPLATE_CACHE, here)
    services = await cluster.listed_if_known(SERVICE, here)
    return going_with(service, caches, services)


_ESTATE = Estate(
    *(FINALIZER, MANAGER, TEMPLATE_CACHE, "CacheRemoved"),
    "is not Ready, and no other service needs it",
    _leftovers,
)
