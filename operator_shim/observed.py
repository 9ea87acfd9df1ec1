"""What is known of one artifact: all that was fetched, read into one frozen Observation. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from operator_shim import claims, jobs, retrying
from operator_shim.config import Options
from operator_shim.growing import Growth, Storage, growth_of, volume_mark
from operator_shim.jobs import JobState, Work, work_of, work_of_another
from operator_shim.names import label_value
from operator_shim.objects import (
    ANNOTATION_RETRY_STATE,
    LABEL_ARTIFACT,
    Object,
    annotations_of,
    at,
    condition_of,
    has_condition,
    is_controlled_by,
    is_deleted,
    labels_of,
    moment_told,
    name_of,
    namespace_of,
    uid_of,
)
from operator_shim.order import Order, order_of
from operator_shim.outcome import Outcome, termination_message
from operator_shim.retrying import RetryState, due_at
from operator_shim.runtime_config import Missing, RuntimeConfig, resolve
from operator_shim.sizing import LARGEST, answered_size

CHECK_SIZE, DOWNLOAD = "CheckSizeJob", "DownloadJob"
"""What the conditions of the two Jobs begin with."""
REPLACED_AFTER = timedelta(minutes=10)
"""So old is a Job that waits in vain before it is replaced for the operator's own sake alone.

Two operators of different settings would otherwise replace each other's without end.
"""
_MOST_TOLD = 100
_TOLD = ("reason", "message", "hint", "status", "overall")
_REASON = re.compile(r"[A-Z][A-Za-z]{1,100}")


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
    storage: Storage = field(default_factory=Storage)
    """What is known of the claim's class, where it is needed."""
    no_growth: str = ""
    """Why the API server did not let the claim grow, in its words."""
    refusal: str = ""
    """What the API server did not let us do, in its words."""
    account: Object | None = None
    """Who the download's pods are, where it was made sure of in this pass."""
    holders: tuple[str, ...] = ()
    """The pods that keep a claim that is being deleted."""


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
    """Bytes of the model that a Job has told, now or earlier."""
    stage: Stage
    failure: Outcome | None
    """Why the Job of this stage failed; it stands until the next one is made."""
    retry: RetryState | None
    due: bool | datetime
    """Whether a Job may run: now, then, or not before an input changes."""
    growth: Growth
    """Whether the claim is too small, and grows."""
    holders: tuple[str, ...]
    """The pods that keep a claim that is being deleted."""
    lacks_account: bool
    """Whether no pod comes to run as its account may have gone."""
    refusal: str
    now: datetime

    @property
    def size(self) -> int:
        """Bytes that the claim is to have room for; 0 while unknown."""
        return max(self.order.size or 0, self.discovered or 0)

    @property
    def model_size(self) -> int:
        """Bytes of the model, as far as they are known; 0 while unknown."""
        return self.discovered or self.order.size or 0

    @property
    def is_full(self) -> bool:
        """Whether the model was found not to fit on the volume as it is now."""
        return (
            self.failure is not None
            and self.failure.reason == "StorageFull"
            and self.retry is not None
            and self.retry.volume == volume_mark(self.claim)
        )

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
        if work.state is not JobState.RUNNING or work.job is None or work.in_phase("Running"):
            return False
        if work.waiting is None and work.failed is None:
            return False
        if work.inputs not in ("", self.order.inputs):
            return True
        age = self.now.timestamp() - jobs.created(work.job)
        is_old = age > REPLACED_AFTER.total_seconds()
        return is_old and work.defaults not in ("", self.order.defaults)


def observe(found: Found, options: Options, now: datetime) -> Observation:
    """What follows from what was fetched."""
    artifact = found.artifact
    config = resolve(
        at(artifact, "spec.runtimeConfigName", ""), found.namespaced_config, found.cluster_config
    )
    usable = config if isinstance(config, RuntimeConfig) else RuntimeConfig()
    order = order_of(artifact, usable, options)
    sizing, download = _work(found, found.size_job), _work(found, found.download_job)
    told = _told_size(artifact, order, download)
    answer = told or _answer(artifact, order, sizing, found.logs)
    observation = Observation(
        artifact=artifact,
        config=config,
        order=order,
        claim=found.claim,
        claim_trouble=_claim_trouble(found, order),
        sizing=sizing,
        download=download,
        discovered=answer if isinstance(answer, int) else None,
        stage=Stage.BLOCKED,
        failure=None,
        retry=retrying.load(annotations_of(artifact).get(ANNOTATION_RETRY_STATE)),
        due=True,
        growth=Growth(),
        holders=found.holders,
        lacks_account=order.ours and found.account is None and jobs.may_lack_account(download),
        refusal=found.refusal,
        now=now,
    )
    observation = replace(observation, stage=_stage(observation))
    seen = _with_failure(observation, answer if isinstance(answer, Outcome) else None)
    return _with_growth(seen, found)


def _work(found: Found, job: Object | None) -> Work:
    if job is not None and _is_anothers(job, found.artifact):
        return work_of_another(job)
    return work_of(job, found.pods, found.logs, found.events)


def _is_anothers(job: Object, artifact: Object) -> bool:
    """Whether a Job of our name is not the artifact's; one that has lost its owner is."""
    if is_controlled_by(job, uid_of(artifact)):
        return False
    labelled = labels_of(job).get(LABEL_ARTIFACT) == label_value(name_of(artifact))
    owners = at(job, "metadata.ownerReferences", [])
    return not labelled or any(owner.get("controller") for owner in owners)


def _claim_trouble(found: Found, order: Order) -> Outcome | None:
    claim = found.claim
    if claim is None:
        return None
    trouble = claims.trouble_of(claim, found.events.get(uid_of(claim), ()), found.storage)
    if trouble is None or claims.phase_of(claim) == "Lost":
        return trouble
    if claims.wanted_otherwise(claim, order.storage_class or "", order.access_mode):
        return claims.to_be_made_anew(claim, trouble)
    return trouble


def _told_size(artifact: Object, order: Order, download: Work) -> int | None:
    """Bytes of the model, as the pods of the download have found them; None while none has."""
    # Of several shards each speaks of its own part, and of others' images one knows nothing.
    if not order.ours or order.shards > 1:
        return None
    for pod in reversed(download.pods):
        said = termination_message(pod)
        total = (said.bytes if said.outcome == "complete" else said.total_bytes) if said else 0
        if 0 < total <= LARGEST:
            return total
    told = at(artifact, "status.progress.totalBytes", 0)
    begun = download.state is JobState.RUNNING and download.in_phase("Running")
    return told if begun and 0 < told <= LARGEST else None


def _answer(
    artifact: Object, order: Order, sizing: Work, logs: Mapping[str, Sequence[str]]
) -> int | Outcome | None:
    """The size that was told, what is wrong with the answer, or None while there is none."""
    known: int = at(artifact, "status.discoveredSizeBytes", 0)
    if 0 < known <= LARGEST:
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
    if job is not None and jobs.fills(job, claim):
        # Whatever the status says: pods may write it, and people.
        return has_condition(job, "Complete")
    return _was_ready_on(seen.artifact, claim)


def _was_ready_on(artifact: Object, claim: Object) -> bool:
    """Whether the status says Ready, and of this claim: a later one cannot hold the model."""
    ready = condition_of(artifact, "Ready")
    if at(artifact, "status.status") != "Ready" or ready is None or ready["status"] != "True":
        return False
    since = moment_told(ready["lastTransitionTime"])
    return since is not None and jobs.created(claim) <= since.timestamp()


def _with_failure(seen: Observation, answer: Outcome | None) -> Observation:
    """The observation with the failure of its stage, and when it is tried again."""
    if seen.stage is Stage.READY:
        return replace(seen, retry=None)
    if seen.stage not in (Stage.SIZING, Stage.DOWNLOADING) or seen.is_stale:
        return seen
    work = seen.work
    # What failed of the other stage has no say in this one.
    retry = seen.retry if seen.retry and seen.retry.of == seen.prefix else None
    failure = work.failed if work.state is JobState.FAILED else answer
    if work.state is JobState.FAILED and retry and retry.job == work.uid and not work.outcomes:
        # Its pods have gone since, and with them what they had to say.
        failure = _remembered(retry)
    claim = seen.claim if seen.stage is Stage.DOWNLOADING else None
    volume = volume_mark(claim)
    if failure is None:
        due = retrying.due(retry, seen.order.inputs, seen.now, volume)
        waits = work.state is JobState.ABSENT and due is not True and retry is not None
        return replace(seen, failure=_remembered(retry) if waits and retry else None, due=due)
    state = retrying.after_failure(
        retry,
        failure.failure,
        work.inputs or seen.order.inputs,
        seen.now,
        name=f"{namespace_of(seen.artifact)}/{name_of(seen.artifact)}",
        job=work.uid,
        of=seen.prefix,
        volume=volume_mark(claim, work.asked),
        told=_kept(failure),
    )
    due = retrying.due(state, seen.order.inputs, seen.now, volume)
    return replace(seen, failure=failure, retry=state, due=due)


def _kept(failure: Outcome) -> dict[str, str]:
    """What is told of a failure, for when its Job and its pods are gone."""
    fields = {name: getattr(failure, name) for name in _TOLD}
    return {name: words for name, words in fields.items() if words}


def _remembered(state: RetryState) -> Outcome:
    """Why a Job failed that is gone, or its pods."""
    told = state.told
    # Anybody may write annotations; not all words can be a reason or a status.
    reasons = {
        name: told[name] for name in ("reason", "overall") if _REASON.fullmatch(told.get(name, ""))
    }
    return Outcome(
        reasons.get("reason", "JobFailed"),
        told.get("message", "the last Job failed, and is gone"),
        told.get("hint", ""),
        failure=state.failure,
        status="Degraded" if told.get("status") == "Degraded" else "Failed",
        overall=reasons.get("overall", ""),
    )


def _with_growth(seen: Observation, found: Found) -> Observation:
    """The observation with what is to be done about the size of its claim."""
    if seen.stage is not Stage.DOWNLOADING or seen.is_stale:
        return seen
    # What the claim was made with: a config that has changed since makes no volume larger.
    headroom = at(seen.artifact, "status.headroomPercent", -1)
    if not 0 <= headroom <= _MOST_TOLD:
        # Pods may write it, too.
        headroom = seen.order.headroom_percent
    growth = growth_of(
        seen.claim,
        found.storage,
        needed=seen.size,
        headroom_percent=headroom,
        is_full=seen.is_full,
        refusal=found.no_growth,
    )
    seen = replace(seen, growth=growth)
    if seen.is_full and growth.pending and seen.retry and seen.retry.next:
        # It would not fit before, whatever else has changed.
        return replace(seen, due=due_at(seen.retry.next, seen.now))
    return seen
