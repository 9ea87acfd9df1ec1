"""What an artifact's status says, and what people are told when it changes. Pure."""

from __future__ import annotations

from operator_shim.conditions import SIZE_VALID, conditions_of, verdict_of
from operator_shim.jobs import JobState, created
from operator_shim.objects import Object, at, condition_of, generation_of, moment_told, name_of
from operator_shim.observed import Observation, Stage
from operator_shim.quantities import display_size
from operator_shim.telling import EventNote

_TROUBLE = ("Failed", "Degraded", "Pending")
_PARTS = (
    *("RuntimeConfigReady", "CachePvcReady", "CheckSizeOutputReady"),
    *("CheckSizeJobPodsReady", "DownloadJobPodsReady"),
)
_USUAL = ("ResourceNotReady", "PvcPending", "NoPods", "PodsStarting")
_NONE, _NOT_KNOWN = "0 %", "N/A"
"""What we tell of a progress that no pod tells of."""


def status_of(seen: Observation) -> Object:
    """All of the status that is ours to tell now.

    ``progress`` and ``download`` are the pod's while there is one: they are in it only when the
    Job has ended, or when what an earlier pod told no longer holds.
    """
    before = at(seen.artifact, "status", {})
    status: Object = {
        "status": verdict_of(seen).status,
        "mode": "Dedicated" if at(seen.artifact, "metadata.ownerReferences", []) else "Shared",
        "observedGeneration": generation_of(seen.artifact),
        "conditions": conditions_of(seen),
        **_of_claim(seen, before),
        **_of_progress(seen, before),
    }
    if seen.discovered:
        status["discoveredSizeBytes"] = seen.discovered
    if seen.model_size:
        status["displaySize"] = display_size(seen.model_size)
    return status


def events_of(before: Object, after: Object) -> list[EventNote]:
    """What to tell people when the status turns from one into the other."""
    notes = []
    size = at(after, "status.discoveredSizeBytes")
    if size and not (at(before, "status.discoveredSizeBytes") or at(after, "spec.size")):
        notes.append(
            EventNote("Normal", "SizeDiscovered", f"the model has {display_size(size)} to download")
        )
    notes += [*_mismatch(before, after), *_retrying(before, after)]
    was, now = (_summary(each) for each in (before, after))
    if was != now:
        status, reason = now
        message = at(condition_of(after, "Ready") or {}, "message", "")
        if status == "Ready":
            notes.append(EventNote("Normal", "Ready", message))
        elif status in _TROUBLE:
            notes.append(EventNote("Warning", _cause(after) or reason, message))
        elif was[0] == "Ready":
            notes.append(EventNote("Warning", "ModelLost", message))
    return notes


def _mismatch(before: Object, after: Object) -> list[EventNote]:
    """A note for a spec.size that has turned out to be wrong."""
    was, now = condition_of(before, SIZE_VALID) or {}, condition_of(after, SIZE_VALID) or {}
    if now.get("status") != "False" or was.get("status") == "False":
        return []
    return [EventNote("Warning", now["reason"], now["message"])]


def _of_claim(seen: Observation, before: Object) -> Object:
    """What is told of the claim, once there is one."""
    if seen.claim is None:
        known = ("persistentVolumeClaim", "allocatedSize", "headroomPercent")
        return {field: before[field] for field in known if field in before}
    allocated = at(seen.claim, "spec.resources.requests.storage")
    first = {} if _is_another(seen.claim, seen.artifact) else before
    # Others mount what is named here, and who downloads may write it, too.
    told = {"persistentVolumeClaim": name_of(seen.claim)}
    if allocated:
        headroom = first.get("headroomPercent", seen.order.headroom_percent)
        told |= {"allocatedSize": allocated, "headroomPercent": headroom}
    return told


def _is_another(claim: Object, artifact: Object) -> bool:
    """Whether the claim was made after the status last had news of one."""
    told = condition_of(artifact, "CachePvcReady")
    since = moment_told(told["lastTransitionTime"]) if told else None
    return since is not None and created(claim) > since.timestamp()


def _of_progress(seen: Observation, before: Object) -> Object:
    told = before.get("progress") or {}
    if seen.stage is Stage.READY:
        return _whole(seen, before)
    if seen.failure or verdict_of(seen).status == "Failed":
        return {"progress": {"displayPercentage": _NOT_KNOWN}}
    if told and seen.stage is Stage.SIZING:
        # Nothing that a size is asked for has a progress.
        return {"progress": {"percentage": 0, "displayPercentage": ""}}
    if told and _is_fresh(seen):
        return _nothing(told, before.get("download") or {})
    if told.get("displayPercentage") in (_NONE, _NOT_KNOWN):
        # Until a pod tells more. Were it taken back, nothing might be left, and the server makes
        # that a null, which it does not take.
        return _nothing({}, {})
    return {}


def _is_fresh(seen: Observation) -> bool:
    """Whether no pod of this Job can have told anything yet."""
    if seen.stage is not Stage.DOWNLOADING or seen.is_stale:
        return True
    begun = (JobState.RUNNING, JobState.COMPLETE)
    if seen.download.state not in begun or not seen.download.pods:
        return True
    # Its last pod has failed when all had come: the next begins to read it through.
    ended = len(seen.download.in_phase("Failed")) == len(seen.download.pods)
    return ended and at(seen.artifact, "status.progress.percentage", 0) >= 100


def _whole(seen: Observation, before: Object) -> Object:
    told: Object = {"progress": {"percentage": 100, "displayPercentage": "100 %"}}
    if seen.model_size:
        told["progress"] |= {"downloadedBytes": seen.model_size, "totalBytes": seen.model_size}
    if before.get("download"):
        told["download"] = {"message": "Complete"}
    return told


def _nothing(progress: Object, download: Object) -> Object:
    told: Object = {"progress": {"percentage": 0, "displayPercentage": _NONE}}
    if "downloadedBytes" in progress:
        told["progress"]["downloadedBytes"] = 0
    if download.get("message"):
        told["download"] = {"message": ""}
    return told


def _summary(artifact: Object) -> tuple[str, str]:
    ready = condition_of(artifact, "Ready") or {}
    return at(artifact, "status.status", ""), _cause(artifact) or ready.get("reason", "")


def _cause(artifact: Object) -> str:
    """The reason of the part that is to blame, which says more than that of the whole."""
    if at(artifact, "status.status") not in _TROUBLE:
        return ""
    reasons = [
        told["reason"]
        for kind in _PARTS
        if (told := condition_of(artifact, kind)) and told["status"] == "False"
    ]
    return next((reason for reason in reasons if reason not in _USUAL), "")


def _retrying(before: Object, after: Object) -> list[EventNote]:
    """A note for a pod that has failed while its Job goes on with another."""
    if at(after, "status.status") != "Progressing":
        return []
    for kind in ("CheckSizeJobPodsReady", "DownloadJobPodsReady"):
        was, now = condition_of(before, kind) or {}, condition_of(after, kind) or {}
        message = now.get("message", "")
        if was.get("message") != message and "another pod is about to start" in message:
            return [EventNote("Warning", "Retrying", message)]
    return []
