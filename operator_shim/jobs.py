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
    name_of,
    uid_of,
)
from operator_shim.outcome import (
    DEADLINE,
    Outcome,
    outcome_of_job,
    outcome_of_pod,
    termination_message,
    worst,
)
from operator_shim.retrying import Failure
from operator_shim.starting import not_made

ANNOTATION_CLAIM = f"{GROUP}/claim-uid"
"""Of a download Job: the claim that it fills. One of the same name may have taken its place."""
ANNOTATION_ASKED = f"{GROUP}/claim-size"
"""Of a download Job: what that claim asked for when the Job was made. It may grow meanwhile."""
ANNOTATION_INPUTS = f"{GROUP}/inputs"
"""Of a Job: the hash of what it was made from."""
ANNOTATION_DEFAULTS = f"{GROUP}/defaults"
"""Of a Job: the hash of what the operator that made it had to add of its own."""
_LIVE = ("Pending", "Running", "Unknown")


class JobState(StrEnum):
    """How far a Job is."""

    ABSENT = "absent"
    GOING = "going"
    """It has been deleted, and is not gone yet."""
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    ANOTHERS = "another's"
    """Somebody else has made one of its name: what that has done says nothing."""


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
    """What a pod, or the Job itself, waits for in vain."""
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

    @property
    def defaults(self) -> str:
        """The same of what the operator adds."""
        return annotations_of(self.job or {}).get(ANNOTATION_DEFAULTS, "")

    @property
    def asked(self) -> str:
        """What its claim asked for when it was made; empty for another operator's."""
        return annotations_of(self.job or {}).get(ANNOTATION_ASKED, "")

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
        events: about pods, and about Jobs that have none, by UID.
    """
    if job is None:
        return Work()
    own = _own(job, pods)
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
        failed=_why_failed(job, own, worst(ended)),
        waiting=worst(live) or _held_back(job, own, events.get(uid_of(job), ())),
        outcomes=outcomes,
    )


def work_of_another(job: Object) -> Work:
    """What is known where somebody else's Job has the name of the artifact's."""
    name = name_of(job)
    trouble = Outcome(
        "JobOfAnother",
        f"Job {name} is somebody else's, and has the name of the artifact's own",
        f"see who has made it, and delete it (`kubectl delete job {name}`)",
        failure=Failure.INFRASTRUCTURE,
    )
    return Work(state=JobState.ANOTHERS, waiting=trouble)


def needs_events_of(job: Object | None, pods: Iterable[Object]) -> bool:
    """Whether only the Job's events can say why it has no pod at work."""
    if job is None or _state(job) is not JobState.RUNNING:
        return False
    return not any(at(pod, "status.phase", "Pending") in _LIVE for pod in _own(job, pods))


def may_lack_account(work: Work) -> bool:
    """Whether no pod comes to run for a reason that the lack of their account may be."""
    waiting = work.waiting if work.state is JobState.RUNNING else None
    return waiting is not None and waiting.reason in ("FailedCreate", "FailedMount")


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


def _why_failed(job: Object, own: Sequence[Object], by_pods: Outcome | None) -> Outcome | None:
    by_job = outcome_of_job(job)
    if by_job is None or by_pods is None:
        return by_pods or by_job
    if by_job.reason == DEADLINE and by_pods.failure is Failure.INFRASTRUCTURE:
        # All that the pod knows is that it was ended.
        return by_job
    if any(map(termination_message, own)):
        return by_pods
    # The pod has the words; that its code was final, the Job may know better.
    if by_job.exit_code is not None and by_job.exit_code == by_pods.exit_code:
        return worst((replace(by_job, message=by_pods.message), by_pods))
    return by_pods


def _own(job: Object, pods: Iterable[Object]) -> tuple[Object, ...]:
    return tuple(sorted((pod for pod in pods if is_controlled_by(pod, uid_of(job))), key=_age))


def _held_back(job: Object, own: Sequence[Object], events: Sequence[Object]) -> Outcome | None:
    """Why the Job has no pod at work."""
    name = name_of(job)
    if at(job, "spec.suspend"):
        return Outcome(
            "JobSuspended",
            f"Job {name} is suspended",
            "see who, or which queue, holds it back; it goes on once its spec.suspend is false",
            failure=Failure.INFRASTRUCTURE,
            status="Pending",
            overall="Progressing",
        )
    if not needs_events_of(job, own):
        return None
    return not_made(events, _age(own[-1]) if own else "", name)


def _state(job: Object) -> JobState:
    if is_deleted(job):
        return JobState.GOING
    if has_condition(job, "Complete"):
        return JobState.COMPLETE
    return JobState.FAILED if has_condition(job, "Failed") else JobState.RUNNING


def _age(pod: Object) -> str:
    return str(at(pod, "metadata.creationTimestamp", ""))
