"""Finalizers of ours, one of a kind, and what is cleared away before they are taken off."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence

from operator_shim.acting import Acting
from operator_shim.cluster import ApiError, Cluster
from operator_shim.objects import Object, at, is_deleted, name_of
from operator_shim.telling import EventNote

_FORBIDDEN, _NOT_FOUND = 403, 404


def has_finalizer(object_: Object, finalizer: str) -> bool:
    """Whether the object cannot go before we say so."""
    return finalizer in at(object_, "metadata.finalizers", [])


async def hold(cluster: Cluster, object_: Object, finalizer: str) -> Object | None:
    """The object with our finalizer; None where it has changed meanwhile, or is gone.

    Raises:
        ApiError: it was refused.
    """
    if has_finalizer(object_, finalizer):
        return object_
    return await _patched(cluster, object_, [*_of(object_), finalizer])


async def release(cluster: Cluster, object_: Object, finalizer: str) -> Object | None:
    """The object without our finalizer; None where it has changed meanwhile, or is gone.

    Raises:
        ApiError: it was refused.
    """
    others = [each for each in _of(object_) if each != finalizer]
    return await _patched(cluster, object_, others)


async def namespace_ends(cluster: Cluster, name: str) -> bool:
    """Whether a namespace goes with all that is in it, or may not be read: nothing is kept then.

    Raises:
        ApiError: the API server is out of reach.
    """
    try:
        namespace = await cluster.get("Namespace", name)
    except ApiError as error:
        if error.status == _FORBIDDEN:
            return True
        raise
    return namespace is None or is_deleted(namespace)


async def clear(
    acting: Acting, kind: str, leftovers: Awaitable[Iterable[Object]], reason: str, said: str
) -> bool:
    """Delete what nobody needs any more; False where some of it is not what it was when listed.

    Args:
        acting: as whom.
        kind: of the leftovers.
        leftovers: as they are listed.
        reason: of the Events that tell of it.
        said: in those, behind the name.

    Raises:
        ApiError: it was refused; an Event says so.
    """
    try:
        for each in await leftovers:
            note = EventNote("Normal", reason, f"{kind} {name_of(each)} {said}")
            # It may have become Ready since, or be needed.
            await acting.remove(kind, each, note, unchanged=True)
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
