"""What is known of one artifact: all that was fetched, read into one frozen Observation. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from operator_shim import claims, jobs, retrying
from operator_shim.config import Options
from operator_shim.jobs import JobState, Work, work_of
from operator_shim.objects import (
    ANNOTATION_RETRY_STATE,
    Object,
    annotations_of,
    at,
    condition_of,
    is_deleted,
    moment,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.order import Order, order_of
from operator_shim.outcome import Outcome
from operator_shim.retrying import Failure, RetryState
from operator_shim.runtime_config import Missing, RuntimeConfig, resolve
from operator_shim.sizing import answered_size

CHECK_SIZE, DOWNLOAD = "CheckSizeJob", "DownloadJob"
"""What the conditions of the two Jobs begin with."""
_UNDER_WAY = (
    *("ResourceNotReady", "JobRunning", "NoPods"),
    *("PodsStarting", "PodsPending", "PodsProgressing"),
)


@dataclass(frozen=True)
class Found:
    """What was fetched, as the server has it."""

    artifact: Object
    claim: Object | None = None
    size_job: Object | None = None
    download_job: Object | None = None
    pods: tuple[Object, ...] = ()
    namespaced_config: Object | None = None
    cluster_config: Object | None = None
    logs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The last lines of pods' logs, by UID, where they are needed."""
    events: Mapping[str, Sequence[Object]] = field(default_factory=dict)
    """Events by the UID of what they are about, where they are needed."""
    refusal: str = ""
    """What the API server did not let us do, in its words."""


class Stage(StrEnum):
    """What is to be done next."""

    READY = "ready"
    BLOCKED = "blocked"
    """Something in the spec or the config must change first."""
    SIZING = "sizing"
    CLAIMING = "claiming"
    DOWNLOADING = "downloading"


@dataclass(frozen=True)
class Observation:
    """One artifact, and all that belongs to it, at one moment."""

    artifact: Object
    config: RuntimeConfig | Missing
    order: Order
    claim: Object | None
    claim_trouble: Outcome | None
    sizing: Work
    download: Work
    discovered: int | None
    """Bytes that the size Job has told, now or earlier."""
    stage: Stage
    failure: Outcome | None
    """Why the Job of this stage failed; it stands until the next one is made."""
    retry: RetryState | None
    due: bool | datetime
    """Whether a Job may run: now, then, or not before an input changes."""
    refusal: str
    now: datetime

    @property
    def size(self) -> int:
        """Bytes that the claim is made for; 0 while unknown."""
        return self.order.size or self.discovered or 0

    @property
    def work(self) -> Work:
        """The Job of this stage."""
        return self.sizing if self.stage is Stage.SIZING else self.download

    @property
    def prefix(self) -> str:
        """What the types of this stage's conditions begin with."""
        return CHECK_SIZE if self.stage is Stage.SIZING else DOWNLOAD

    @property
    def is_stale(self) -> bool:
        """Whether the Job of this stage fills an earlier claim, not this one."""
        return (
            self.stage is Stage.DOWNLOADING
            and self.claim is not None
            and self.download.job is not None
            and not jobs.fills(self.download.job, self.claim)
        )

    @property
    def is_stuck(self) -> bool:
        """Whether the Job goes nowhere, and was made from what is asked for no longer."""
        work = self.work
        return (
            work.state is JobState.RUNNING
            and (work.waiting is not None or work.failed is not None)
            and not work.in_phase("Running")
            and work.inputs not in ("", self.order.inputs)
        )


def observe(found: Found, options: Options, now: datetime) -> Observation:
    """What follows from what was fetched."""
    artifact = found.artifact
    config = resolve(
        at(artifact, "spec.runtimeConfigName", ""), found.namespaced_config, found.cluster_config
    )
    usable = config if isinstance(config, RuntimeConfig) else RuntimeConfig()
    order = order_of(artifact, usable, options)
    sizing = work_of(found.size_job, found.pods, found.logs, found.events)
    answer = _answer(artifact, order, sizing, found.logs)
    observation = Observation(
        artifact=artifact,
        config=config,
        order=order,
        claim=found.claim,
        claim_trouble=_claim_trouble(found),
        sizing=sizing,
        download=work_of(found.download_job, found.pods, found.logs, found.events),
        discovered=answer if isinstance(answer, int) else None,
        stage=Stage.BLOCKED,
        failure=None,
        retry=retrying.load(annotations_of(artifact).get(ANNOTATION_RETRY_STATE)),
        due=True,
        refusal=found.refusal,
        now=now,
    )
    observation = replace(observation, stage=_stage(observation))
    return _with_failure(observation, answer if isinstance(answer, Outcome) else None)


def _claim_trouble(found: Found) -> Outcome | None:
    claim = found.claim
    return claims.trouble_of(claim, found.events.get(uid_of(claim), ())) if claim else None


def _answer(
    artifact: Object, order: Order, sizing: Work, logs: Mapping[str, Sequence[str]]
) -> int | Outcome | None:
    """The size that was told, what is wrong with the answer, or None while there is none."""
    known: int = at(artifact, "status.discoveredSizeBytes", 0)
    if known > 0:
        return known
    if order.size or sizing.state is not JobState.COMPLETE:
        return None
    pods = sizing.in_phase("Succeeded")
    return answered_size(logs.get(uid_of(pods[-1]), ()) if pods else ())


def _stage(seen: Observation) -> Stage:
    # A model that is there does not go because a config does.
    if _is_ready(seen):
        return Stage.READY
    if isinstance(seen.config, Missing) or seen.order.problems:
        return Stage.BLOCKED
    if not seen.size:
        return Stage.SIZING
    if seen.claim is None or is_deleted(seen.claim):
        return Stage.CLAIMING
    return Stage.DOWNLOADING


def _is_ready(seen: Observation) -> bool:
    claim, job = seen.claim, seen.download.job
    if claim is None or is_deleted(claim) or claims.phase_of(claim) != "Bound":
        return False
    if job is not None and seen.download.state is JobState.COMPLETE and jobs.fills(job, claim):
        return True
    return _was_ready_on(seen.artifact, claim)


def _was_ready_on(artifact: Object, claim: Object) -> bool:
    """Whether the status says Ready, and of this claim: a later one cannot hold the model."""
    ready = condition_of(artifact, "Ready")
    if at(artifact, "status.status") != "Ready" or ready is None or ready["status"] != "True":
        return False
    return jobs.created(claim) <= moment(ready["lastTransitionTime"]).timestamp()


def _with_failure(seen: Observation, answer: Outcome | None) -> Observation:
    """The observation with the failure of its stage, and when it is tried again."""
    if seen.stage is Stage.READY:
        return replace(seen, retry=None)
    if seen.stage not in (Stage.SIZING, Stage.DOWNLOADING) or seen.is_stale:
        return seen
    work = seen.work
    failure = work.failed if work.state is JobState.FAILED else answer
    if work.state is JobState.FAILED and seen.retry and seen.retry.job == work.uid:
        # Its pods may have gone since, and with them what they had to say.
        failure = failure if work.outcomes else _remembered(seen, seen.retry, failure)
    if failure is None:
        due = retrying.due(seen.retry, seen.order.inputs, seen.now)
        waits = work.state is JobState.ABSENT and due is not True and seen.retry is not None
        remembered = _remembered(seen, seen.retry) if waits and seen.retry else None
        return replace(seen, failure=remembered, due=due)
    name = f"{namespace_of(seen.artifact)}/{name_of(seen.artifact)}"
    inputs = work.inputs or seen.order.inputs
    state = retrying.after_failure(
        seen.retry, failure.failure, inputs, seen.now, name=name, job=work.uid
    )
    due = retrying.due(state, seen.order.inputs, seen.now)
    return replace(seen, failure=failure, retry=state, due=due)


def _remembered(seen: Observation, state: RetryState, by_job: Outcome | None = None) -> Outcome:
    """Why a Job failed that is gone, or its pods, as the status still says it."""
    kinds = (f"{seen.prefix}PodsReady", "CheckSizeOutputReady", f"{seen.prefix}Ready")
    told = [condition_of(seen.artifact, kind) for kind in kinds]
    false = next((each for each in told if each and _blames(each)), None)
    if false is None and by_job:
        return replace(by_job, failure=state.failure)
    reason = false["reason"] if false else "JobFailed"
    message = false["message"] if false else "the last Job failed, and is gone"
    # What the status says of the whole may since be about something else.
    if reason == "PodEvicted" and state.failure is Failure.INFRASTRUCTURE:
        status, overall = "Degraded", "InfrastructureError"
    else:
        wrong = reason == "SourceNotFound" or state.failure is Failure.PERMANENT
        status, overall = "Failed", "InvalidSpec" if wrong else ""
    return Outcome(reason, message, failure=state.failure, status=status, overall=overall)


def _blames(condition: Object) -> bool:
    """Whether it says what went wrong, rather than how far a Job is."""
    return condition["status"] == "False" and condition["reason"] not in _UNDER_WAY
