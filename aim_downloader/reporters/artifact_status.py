"""Pure: what the status of an AIMArtifact says of a run, and the patch that makes it say so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from aim_downloader.errors import AllProtocolsFailedError
from aim_downloader.events import (
    Event,
    FileStarted,
    PlanMade,
    ProtocolLeft,
    ProtocolSwitched,
    RunCancelled,
    RunFailed,
    RunProgressed,
    SnapshotPublished,
    SnapshotResolved,
)

Fields: TypeAlias = dict[str, Any]
"""A part of an object; None stands for a field that is not there."""
Place: TypeAlias = tuple[str, ...]
"""The names on the way to a field."""


@dataclass(frozen=True, slots=True)
class ArtifactStatus:
    """How far the run is. ``total`` is None until the plan is made, ``protocol`` until one began.

    ``attempt`` is the furthest place in ``protocols`` that any file has reached. Of several models
    the first one that has failed is told of to the end.
    """

    protocols: tuple[str, ...]
    revision: str | None = None
    done: int = 0
    total: int | None = None
    rate: int | None = None
    remaining: int | None = None
    protocol: str | None = None
    attempt: int | None = None
    message: str | None = None
    published: bool = False
    failed: bool = False

    @property
    def percentage(self) -> int:
        """Rounded down; 100 means that all bytes are there, for AIM Engine: to be verified."""
        if self.published:
            return 100
        return min(100, 100 * self.done // self.total) if self.total else 0

    def after(self, event: Event) -> ArtifactStatus:
        """The status when this has happened too."""
        return self if self.failed else self._after(event)

    def _after(self, event: Event) -> ArtifactStatus:  # noqa: PLR0911  # a table of events
        match event:
            case SnapshotResolved():
                return ArtifactStatus(self.protocols, revision=event.commit or None)
            case PlanMade():
                return replace(self, done=event.held_bytes, total=event.bytes, published=False)
            case RunProgressed():
                return self._at(event)
            case FileStarted():
                return self._with(event)
            case ProtocolSwitched(failed=failed) | ProtocolLeft(protocol=failed):
                if failed == self.protocol:
                    return replace(self, message=f"Failed with {failed}")
            case SnapshotPublished():
                return self._complete(event)
            case RunFailed():
                return self._failed(event)
            case RunCancelled():
                return replace(self, rate=None, remaining=None)
        return self

    def as_fields(self) -> Fields:
        """The fields of the object's status."""
        total = self.total
        return {
            "progress": {
                "percentage": self.percentage,
                "displayPercentage": f"{self.percentage} %",
                "downloadedBytes": None if total is None else min(self.done, total),
                "totalBytes": total,
                "bytesPerSecond": self.rate,
                "remainingSeconds": self.remaining,
            },
            "download": {
                "protocol": self.protocol,
                "attempt": self.attempt,
                "totalAttempts": len(self.protocols),
                "protocolSequence": ",".join(self.protocols),
                "message": self.message,
                "revision": self.revision,
            },
        }

    def _at(self, sample: RunProgressed) -> ArtifactStatus:
        # Until there is a plan, samples count what is read through, not the model.
        if self.total is None:
            return self
        received = sample.bytes_done >= sample.bytes_total > 0
        return replace(
            self,
            done=sample.bytes_done,
            total=sample.bytes_total,
            rate=round(sample.rate),
            remaining=None if sample.eta is None else max(0, round(sample.eta)),
            message="Verifying integrity..." if received and self.protocol else self.message,
        )

    def _with(self, started: FileStarted) -> ArtifactStatus:
        if started.attempt > (self.attempt or 0):
            furthest = replace(self, protocol=started.protocol, attempt=started.attempt)
        elif started.protocol == self.protocol:
            furthest = self
        else:
            return self  # a file that is not as far as others
        return replace(furthest, message=f"Downloading with {started.protocol}")

    def _complete(self, event: SnapshotPublished) -> ArtifactStatus:
        return replace(
            self,
            revision=event.commit or None,
            done=event.bytes,
            total=event.bytes,
            rate=None,
            remaining=None,
            message="Complete",
            published=True,
        )

    def _failed(self, event: RunFailed) -> ArtifactStatus:
        if event.error == AllProtocolsFailedError.__name__:
            message: str | None = f"All {len(self.protocols)} attempts exhausted"
        else:
            message = f"Failed with {self.protocol}" if self.protocol else None
        return replace(self, rate=None, remaining=None, message=message, failed=True)


def merge_patch(known: Fields | None, wanted: Fields) -> Fields:
    """The merge patch (RFC 7386) that makes ``known`` fields the ``wanted`` ones.

    Of an object that is not known (None) every field is named: it may be of an earlier run.
    """
    patch: Fields = {}
    for name, value in wanted.items():
        there = None if known is None else known.get(name)
        if isinstance(value, dict):
            inner = None if known is None else there if isinstance(there, dict) else {}
            if changed := merge_patch(inner, value):
                patch[name] = changed
        elif known is None or there != value:
            patch[name] = value
    return patch


def pruned(patch: Fields, answer: Fields, below: Place = ()) -> set[Place]:
    """The places of fields that a patch has set, and the object lacks: its kind knows none such."""
    missing: set[Place] = set()
    for name, value in patch.items():
        there = answer.get(name)
        if isinstance(value, dict):
            inner = there if isinstance(there, dict) else {}
            missing |= pruned(value, inner, (*below, name))
        elif value is not None and there is None:
            missing.add((*below, name))
    return missing


def without(fields: Fields, places: set[Place], below: Place = ()) -> Fields:
    """The fields but those at ``places``."""
    return {
        name: without(value, places, (*below, name)) if isinstance(value, dict) else value
        for name, value in fields.items()
        if (*below, name) not in places
    }
