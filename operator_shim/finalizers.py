"""Finalizers of ours, one of a kind, and what is cleared away before they are taken off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from operator_shim.acting import Acting
from operator_shim.cluster import ApiError, Cluster
from operator_shim.keys import Key
from operator_shim.objects import Object, at, is_deleted, is_paused, name_of, namespace_of
from operator_shim.telling import EventNote

SOON_S = 2.0
"""When to look again at what was changed while we looked."""

_FORBIDDEN, _NOT_FOUND = 403, 404


@dataclass(frozen=True)
class Estate:
    """What an object of a kind leaves behind that nobody else needs, and what is said of it."""

    finalizer: str
    manager: str
    """As whom it is taken away."""
    kind: str
    reason: str
    """Of the Events that tell of it."""
    said: str
    """In those, behind the name."""
    leftovers: Callable[[Cluster, Object], Awaitable[Iterable[Object]]]


async def look_after(
    cluster: Cluster,
    key: Key,
    estate: Estate,
    live: Callable[[Object], Awaitable[float | None]],
) -> float | None:
    """One pass over an object that leaves something behind; after how many seconds to look again.

    Args:
        cluster: where it is.
        key: of the object.
        estate: what it leaves behind.
        live: the pass itself, over an object that holds our finalizer and is not to go.

    Raises:
        ApiError: it was refused; an Event says so where what is left is not to be had away.
    """
    found = await cluster.get(key.kind, key.name, key.namespace)
    if found is None:
        return None
    object_ = {**found, "kind": key.kind}
    if is_deleted(object_):
        return None if await _let_go(cluster, object_, estate) else SOON_S
    if is_paused(object_):
        return None
    held = await _hold(cluster, object_, estate.finalizer)
    return SOON_S if held is None else await live(held)


async def _hold(cluster: Cluster, object_: Object, finalizer: str) -> Object | None:
    """The object with our finalizer; None where it has changed meanwhile, or is gone."""
    if _has(object_, finalizer):
        return object_
    return await _patched(cluster, object_, [*_of(object_), finalizer])


async def _let_go(cluster: Cluster, object_: Object, estate: Estate) -> bool:
    """Take away what nobody needs any more, and let the object go; False: it is to be tried again.

    Nothing is taken away where all that is there goes with the namespace.
    """
    if not _has(object_, estate.finalizer):
        return True
    if not await _namespace_ends(cluster, namespace_of(object_)):
        acting = Acting(cluster, object_, estate.manager)
        if not await _clear(acting, estate, estate.leftovers(cluster, object_)):
            return False
    others = [each for each in _of(object_) if each != estate.finalizer]
    return await _patched(cluster, object_, others) is not None


async def _namespace_ends(cluster: Cluster, name: str) -> bool:
    """Whether a namespace goes with all that is in it, or may not be read: nothing is kept then."""
    try:
        namespace = await cluster.get("Namespace", name)
    except ApiError as error:
        if error.status == _FORBIDDEN:
            return True
        raise
    return namespace is None or is_deleted(namespace)


async def _clear(acting: Acting, estate: Estate, leftovers: Awaitable[Iterable[Object]]) -> bool:
    """Delete what is left; False where some of it is not what it was when listed."""
    try:
        for each in await leftovers:
            said = f"{estate.kind} {name_of(each)} {estate.said}"
            # It may have become Ready since, or be needed.
            note = EventNote("Normal", estate.reason, said)
            await acting.remove(estate.kind, each, note, unchanged=True)
    except ApiError as error:
        if error.conflict:
            return False
        if error.refused:
            said = f"it stays until what it leaves behind is gone: {error}; {error.hint}"
            acting.note(EventNote("Warning", "CleanupFailed", said.rstrip("; ")))
        raise
    finally:
        await acting.publish()
    return True


def _has(object_: Object, finalizer: str) -> bool:
    """Whether the object cannot go before we say so."""
    return finalizer in _of(object_)


def _of(object_: Object) -> list[str]:
    return list(at(object_, "metadata.finalizers", []))


async def _patched(cluster: Cluster, object_: Object, finalizers: Sequence[str]) -> Object | None:
    try:
        patched = await cluster.patch_finalizers(object_, finalizers)
    except ApiError as error:
        if error.conflict or error.status == _NOT_FOUND:
            return None
        raise
    return {**patched, "kind": object_["kind"]}
