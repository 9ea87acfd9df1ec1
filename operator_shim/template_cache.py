"""One pass over one template cache: fetch, observe, make what is missing, report. And its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from operator_shim import legacy
from operator_shim.acting import Acting
from operator_shim.cache_spec import template_kinds, template_name
from operator_shim.cleanup import leftovers
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.finalizers import Estate, look_after
from operator_shim.keys import (
    ARTIFACT,
    CLUSTER_RUNTIME_CONFIG,
    DOWNLOADS,
    RUNTIME_CONFIG,
    TEMPLATE,
    TEMPLATE_CACHE,
    Key,
)
from operator_shim.matching import default_class_of
from operator_shim.objects import GROUP, Object, at, name_of, namespace_of
from operator_shim.telling import EventNote
from operator_shim.template_cache_desired import MANAGER, missing, outdated
from operator_shim.template_cache_observed import Found, observe
from operator_shim.template_cache_status import events_of, status_of

FINALIZER = f"{GROUP}/artifactcleanup"

_FORBIDDEN = 403
_MAKING: WeakKeyDictionary[Cluster, asyncio.Lock] = WeakKeyDictionary()


async def reconcile(
    cluster: Cluster,
    key: Key,
    options: Options,  # noqa: ARG001  # every kind's pass is called alike
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> float | None:
    """One pass; returns after how many seconds to look again, None once something happens.

    Raises:
        ApiError: the API server is out of reach, or refuses what we ask for; the latter is told in
            the status before.
    """
    return await look_after(cluster, key, _ESTATE, lambda cache: _provide(cluster, cache, clock))


# -- life --------------------------------------------------------------------------------------


async def _provide(cluster: Cluster, cache: Object, clock: Callable[[], datetime]) -> None:
    """Let the cache have its models, and say how far they are."""
    acting = Acting(cluster, cache, MANAGER)
    found = await _fetch(cluster, cache)
    if any(missing(observe(found, clock()))):
        # Of caches that want a model at the same moment one makes it, and the others find it.
        async with _MAKING.setdefault(cluster, asyncio.Lock()):
            found, refused = await _act(cluster, acting, await _fetch(cluster, cache), clock())
    else:
        found, refused = await _act(cluster, acting, found, clock())
    status = status_of(observe(found, clock()))
    await acting.report(status)
    for note in events_of(cache, {**cache, "status": status}):
        acting.note(note)
    await acting.publish()
    if refused:
        raise refused


async def _fetch(cluster: Cluster, cache: Object) -> Found:
    here = namespace_of(cache)
    lists = (
        (RUNTIME_CONFIG, here),
        (CLUSTER_RUNTIME_CONFIG, ""),
        *((kind, here) for kind in DOWNLOADS),
    )
    template, default_class, (namespaced, of_cluster, *artifacts) = await asyncio.gather(
        _template(cluster, cache),
        _default_class(cluster, cache),
        asyncio.gather(*(cluster.listed_if_known(*each) for each in lists)),
    )
    return Found(
        cache=cache,
        template=template,
        namespaced_configs=namespaced,
        cluster_configs=of_cluster,
        artifacts=[legacy.read(each) for kind in artifacts for each in kind],
        default_class=default_class,
    )


async def _template(cluster: Cluster, cache: Object) -> Object | None:
    for kind in template_kinds(cache):
        place = namespace_of(cache) if kind == TEMPLATE else ""
        if found := await cluster.get(kind, template_name(cache), place):
            return {**found, "kind": kind}
    return None


async def _default_class(cluster: Cluster, cache: Object) -> str:
    """The cluster's default class, where it matters and may be known."""
    if not at(cache, "spec.storageClassName"):
        return ""
    try:
        return default_class_of(await cluster.listed("StorageClass"))
    except ApiError as error:
        if error.status == _FORBIDDEN:
            return ""
        raise


async def _act(
    cluster: Cluster, acting: Acting, found: Found, now: datetime
) -> tuple[Found, ApiError | None]:
    """Makes and changes artifacts; returns what there is then, and what was refused."""
    seen, refused = observe(found, now), None
    changed = list(outdated(seen))
    for wanted in (*missing(seen), *changed):
        try:
            if wanted in changed:
                await _change(cluster, acting, wanted)
            else:
                made = {**await acting.make(wanted), "kind": ARTIFACT}
                found = replace(found, artifacts=[*found.artifacts, made])
        except ApiError as error:
            if not error.refused:
                raise
            # One model that cannot be had is no reason to wait with the others.
            refused = refused or error
    return replace(found, refusal=str(refused or "")), refused


async def _change(cluster: Cluster, acting: Acting, wanted: Object) -> None:
    await cluster.apply(wanted, MANAGER)
    said = f"AIMArtifact {name_of(wanted)} is told what the cache wants now"
    acting.note(EventNote("Normal", "ArtifactChanged", said))


# -- end ---------------------------------------------------------------------------------------


async def _leftovers(cluster: Cluster, cache: Object) -> Iterable[Object]:
    """The artifacts that nobody needs any more."""
    here = namespace_of(cache)
    artifacts = await cluster.listed_if_known(ARTIFACT, here)
    caches = await cluster.listed_if_known(TEMPLATE_CACHE, here)
    return leftovers(cache, artifacts, caches)


_ESTATE = Estate(
    *(FINALIZER, MANAGER, ARTIFACT, "ArtifactRemoved"),
    "is not Ready, and nobody else waits for it",
    _leftovers,
)
