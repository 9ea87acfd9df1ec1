"""What one pass writes about one object: what it makes, what it takes away, what it tells.

Only what differs is written, by server-side apply, under the name of one field manager.
"""

from __future__ import annotations

import logging

from operator_shim.cluster import ApiError, Cluster
from operator_shim.keys import key_of
from operator_shim.objects import Object, annotations_of, at, name_of, namespace_of, uid_of
from operator_shim.telling import EventNote, differs

_INVALID = 422
# Of these people hear when they are made: kind, reason of the Event, what it is called.
_CREATED = {
    "PersistentVolumeClaim": ("ClaimCreated", "claim"),
    "Job": ("JobCreated", "Job"),
    "AIMArtifact": ("ArtifactCreated", "AIMArtifact"),
    "AIMTemplateCache": ("CacheCreated", "AIMTemplateCache"),
}

log = logging.getLogger(__name__)


class Acting:
    """The writes of one pass over ``about``, as this field manager."""

    def __init__(self, cluster: Cluster, about: Object, manager: str) -> None:
        self._cluster = cluster
        self._about = about
        self._manager = manager
        self._notes: list[EventNote] = []

    def note(self, note: EventNote) -> None:
        """Something that people are to hear of, once the status says so, too."""
        about = key_of(self._about["kind"], self._about)
        level = logging.WARNING if note.kind == "Warning" else logging.INFO
        log.log(level, "%s: %s", note.reason, note.message, extra={"object": about})
        self._notes.append(note)

    async def make(self, wanted: Object) -> Object:
        """What the server has of it; it is not asked to write what it has already.

        Raises:
            ApiError: it was refused.
        """
        kind, name, namespace = wanted["kind"], name_of(wanted), namespace_of(wanted)
        if kind not in _CREATED:
            there = await self._cluster.get(kind, name, namespace)
            if there is not None and holds(there, wanted):
                return there
            return await self._cluster.apply(wanted, self._manager)
        try:
            made = await self._cluster.apply(wanted, self._manager)
        except ApiError as error:
            # What another operator has made meanwhile cannot be changed into ours, and need not be.
            invalid = error.status == _INVALID
            there = await self._cluster.get(kind, name, namespace) if invalid else None
            if there is None:
                raise
            return there
        self._tell_of(wanted)
        return made

    async def make_first(self, wanted: Object) -> Object | None:
        """What the server has of it; None where another was first, who is left alone.

        Raises:
            ApiError: it was refused.
        """
        made = await self._cluster.create(wanted, self._manager)
        if made is not None:
            self._tell_of(wanted)
        return made

    async def remove(
        self, kind: str, object_: Object, note: EventNote, *, unchanged: bool = False
    ) -> None:
        """Delete this very object, and tell of it; if so asked, only as long as it is as it was.

        Raises:
            ApiError: it was refused.
        """
        name, namespace = name_of(object_), namespace_of(object_)
        version = at(object_, "metadata.resourceVersion", "") if unchanged else ""
        await self._cluster.delete(kind, name, namespace, uid_of(object_), version)
        self.note(note)

    async def annotate(self, annotation: str, value: str | None) -> None:
        """Let the object have this annotation of ours, and no other of our manager's.

        Raises:
            ApiError: it was refused.
        """
        if value != annotations_of(self._about).get(annotation):
            wanted = {annotation: value} if value else {}
            await self._cluster.apply(part_of(self._about, wanted), self._manager)

    async def report(self, status: Object) -> bool:
        """Write the status if it says anything new; whether it did.

        Raises:
            ApiError: it was refused.
        """
        if not differs(status, at(self._about, "status", {})):
            return False
        told = {**part_of(self._about), "status": status}
        await self._cluster.apply_status(told, self._manager)
        return True

    async def publish(self, first: str = "") -> None:
        """Post what was noted as Events; those with the reason ``first`` before the others.

        One that cannot be posted is lost: the log has it, and what is the case says the status.
        """
        notes, self._notes = self._notes, []
        try:
            for note in sorted(notes, key=lambda note: note.reason != first):
                await self._cluster.post_event(self._about, note.kind, note.reason, note.message)
        except ApiError as error:
            about = key_of(self._about["kind"], self._about)
            if not error.of_ending_namespace:
                # All objects have the same trouble, in each of their passes.
                trouble = f"Event {error.status} {error.reason}"
                what = {"object": about, "trouble": trouble}
                log.warning("Events are lost (told now and then): %s", error, extra=what)

    def _tell_of(self, made: Object) -> None:
        reason, what = _CREATED[made["kind"]]
        self.note(EventNote("Normal", reason, f"made {what} {name_of(made)}"))


def holds(there: object, wanted: object) -> bool:
    """Whether all that is wanted is there, whatever else may be."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            holds(there.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list) and len(there) == len(wanted) and all(map(holds, there, wanted))
        )
    return there == wanted


def part_of(object_: Object, annotations: dict[str, str] | None = None) -> Object:
    """What we have to say of an object. Of one that was made anew meanwhile, nothing."""
    metadata: Object = {"name": name_of(object_), "uid": uid_of(object_)}
    if namespace := namespace_of(object_):
        metadata["namespace"] = namespace
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": object_["apiVersion"], "kind": object_["kind"], "metadata": metadata}
