"""A Job and its pods: how far they are, and what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from operator_shim.objects import (
    GROUP,
    Object,
    annotations_of,
    at,
    has_condition,
    is_controlled_by,
    is_deleted,
    moment,
    uid_of,
)
from operator_shim.outcome import Outcome, outcome_of_job, outcome_of_pod, worst

ANNOTATION_CLAIM = f"{GROUP}/claim-uid"
"""Of a download Job: the claim that it fills. One of the same name may have taken its place."""
ANNOTATION_INPUTS = f"{GROUP}/inputs"
"""Of a Job: the hash of what it was made from."""


class JobState(StrEnum):
    """How far a Job is."""

    ABSENT = "absent"
    GOING = "going"
    """It has been deleted, and is not gone yet."""
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class Work:
    """One of an artifact's two Jobs."""

    state: JobState = JobState.ABSENT
    job: Object | None = None
    pods: tuple[Object, ...] = ()
    """Its own, the oldest first; not those of an earlier Job of the same name."""
    failed: Outcome | None = None
    """Why the Job failed, or pods of it so far."""
    waiting: Outcome | None = None
    """What a pod waits for in vain."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """By the pod's UID."""

    @property
    def uid(self) -> str:
        """Of the Job."""
        return uid_of(self.job or {})

    @property
    def inputs(self) -> str:
        """Of what the Job was made; empty for one that another operator made."""
        return annotations_of(self.job or {}).get(ANNOTATION_INPUTS, "")

    def in_phase(self, phase: str) -> list[Object]:
        """Its pods that are in this phase."""
        return [pod for pod in self.pods if at(pod, "status.phase", "Pending") == phase]


def work_of(
    job: Object | None,
    pods: Iterable[Object],
    logs: Mapping[str, Sequence[str]],
    events: Mapping[str, Sequence[Object]],
) -> Work:
    """How far a Job is.

    Args:
        job: as the server has it; None where there is none.
        pods: of this artifact, also those of other Jobs.
        logs: the last lines of pods' logs, by UID.
        events: about pods, by UID.
    """
    if job is None:
        return Work()
    own = tuple(sorted((pod for pod in pods if is_controlled_by(pod, uid_of(job))), key=_age))
    outcomes = {
        uid_of(pod): outcome
        for pod in own
        if (outcome := outcome_of_pod(pod, logs.get(uid_of(pod), ()), events.get(uid_of(pod), ())))
    }
    ended = [outcomes.get(uid_of(pod)) for pod in own if at(pod, "status.phase") == "Failed"]
    live = [outcomes.get(uid_of(pod)) for pod in own if at(pod, "status.phase") != "Failed"]
    return Work(
        state=_state(job),
        job=job,
        pods=own,
        failed=_why_failed(job, worst(ended)),
        waiting=worst(live),
        outcomes=outcomes,
    )


def fills(job: Object, claim: Object) -> bool:
    """Whether a download Job is for this very claim, not for an earlier one of the same name."""
    uid = annotations_of(job).get(ANNOTATION_CLAIM)
    if uid is not None:
        return uid == uid_of(claim)
    # Another operator's Job does not say; but its claim was there first.
    return created(claim) <= created(job)


def created(object_: Object) -> float:
    """When the server got to know an object, in seconds."""
    return moment(at(object_, "metadata.creationTimestamp")).timestamp()


def _why_failed(job: Object, by_pods: Outcome | None) -> Outcome | None:
    by_job = outcome_of_job(job)
    if by_job is None or by_pods is None:
        return by_pods or by_job
    # The pod has the words; that its code was final, the Job may know better.
    if by_job.exit_code is not None and by_job.exit_code == by_pods.exit_code:
        return worst((replace(by_job, message=by_pods.message), by_pods))
    return by_pods


def _state(job: Object) -> JobState:
    if is_deleted(job):
        return JobState.GOING
    if has_condition(job, "Complete"):
        return JobState.COMPLETE
    return JobState.FAILED if has_condition(job, "Failed") else JobState.RUNNING


def _age(pod: Object) -> str:
    return str(at(pod, "metadata.creationTimestamp", ""))
