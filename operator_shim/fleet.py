"""What is known of all artifacts, or of all that uses them, from events. Pure; for the metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from operator_shim import legacy
from operator_shim.keys import Key, key_of
from operator_shim.objects import (
    ANNOTATION_RETRY_STATE,
    Object,
    annotations_of,
    at,
    condition_of,
    moment,
    moment_told,
    uid_of,
)
from operator_shim.quantities import parse_quantity
from operator_shim.retrying import Failure, load

NEW = "New"
"""The status of one of which nothing has been told yet."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one artifact said last."""

    uid: str
    status: str
    size: int
    """Bytes of the model; 0 while that is not known."""
    downloaded: int
    speed: int
    failure: Failure | None
    """Of what class its last failure is, as long as that has not been overcome."""
    failed_job: str
    created: float
    ready: float | None
    """Since when it is Ready."""
    was_ready: bool = False
    """Whether it has been Ready before: what is lost and comes back is not counted twice."""

    @property
    def is_ready(self) -> bool:
        """Whether its model can be used."""
        return self.status == "Ready"

    @property
    def remaining(self) -> int:
        """The bytes that are still to come."""
        return 0 if self.is_ready else max(0, self.size - self.downloaded)


@dataclass(frozen=True, slots=True)
class Change:
    """What is new since an artifact was last seen. Of one that is seen first, nothing is."""

    bytes: int = 0
    failure: Failure | None = None
    seconds: float | None = None
    """From its creation until it was Ready for the first time."""


@dataclass
class Fleet:
    """All artifacts that there are now."""

    known: dict[Key, Facts] = field(default_factory=dict)
    _seen: dict[Key, float] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Key, Facts]]:
        return iter(self.known.items())

    def see(self, kind: str, artifact: Object, now: float) -> Change:
        """An artifact is there, and says this; ``now`` is of a clock that only goes forward."""
        key, facts = key_of(kind, artifact), _facts(legacy.read({**artifact, "kind": kind}))
        before = self.known.get(key)
        self._seen[key] = now
        if before is None or before.uid != facts.uid:
            self.known[key] = facts
            return Change()
        was_ready = before.was_ready or before.is_ready
        self.known[key] = replace(facts, was_ready=was_ready)
        return _change(before, facts)

    def forget(self, key: Key) -> None:
        """An artifact is gone."""
        self.known.pop(key, None)
        self._seen.pop(key, None)

    def keep(self, there: Collection[Key], since: float) -> None:
        """A list that was begun at this time had these: others are gone, unless seen after it."""
        for key in [each for each in self.known if each not in there]:
            if self._seen[key] < since:
                self.forget(key)


def _facts(artifact: Object) -> Facts:
    told = at(artifact, "status.progress", {})
    state = load(annotations_of(artifact).get(ANNOTATION_RETRY_STATE))
    ready = condition_of(artifact, "Ready") or {}
    is_ready, since = ready.get("status") == "True", moment_told(ready.get("lastTransitionTime"))
    status = str(at(artifact, "status.status", NEW))
    return Facts(
        uid=uid_of(artifact),
        status=status,
        size=int(told.get("totalBytes") or 0) or _size(artifact),
        downloaded=int(told.get("downloadedBytes") or 0),
        speed=int(told.get("bytesPerSecond") or 0) if status == "Progressing" else 0,
        failure=state.failure if state else None,
        failed_job=state.job if state else "",
        created=moment(at(artifact, "metadata.creationTimestamp")).timestamp(),
        ready=since.timestamp() if is_ready and since else None,
    )


def _size(artifact: Object) -> int:
    if found := at(artifact, "status.discoveredSizeBytes"):
        return int(found)
    try:
        return parse_quantity(at(artifact, "spec.size", 0))
    except ValueError:
        return 0


def _change(before: Facts, now: Facts) -> Change:
    failed = now.failure if now.failed_job != before.failed_job else None
    is_first = now.is_ready and now.ready is not None and not (before.is_ready or before.was_ready)
    return Change(
        bytes=max(0, now.downloaded - before.downloaded),
        failure=failed,
        seconds=max(0.0, now.ready - now.created) if is_first and now.ready else None,
    )
