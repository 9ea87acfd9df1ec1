"""What is the case with an artifact and each of its parts, with reasons that programs read. Pure.

All of them are made anew each time: nothing of an earlier pass is left standing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from operator_shim import claims
from operator_shim.doubts import doubts
from operator_shim.failures import FINAL_CODES
from operator_shim.growing import Growing, asked_of
from operator_shim.jobs import JobState, Work, created
from operator_shim.objects import (
    ANNOTATION_RETRY,
    Object,
    at,
    condition_of,
    has_condition,
    is_deleted,
    name_of,
    timestamp,
    uid_of,
)
from operator_shim.observed import CHECK_SIZE, DOWNLOAD, Observation, Stage
from operator_shim.outcome import Outcome, outcome_of_job
from operator_shim.quantities import claim_size, display_size
from operator_shim.runtime_config import Missing
from operator_shim.starting import what_refuses
from operator_shim.telling import Condition, Verdict, written

STARTS_WITHIN = timedelta(seconds=10)
"""So long a pod may have no node before anybody is told."""
_ANOTHER, _THE_END = "another pod is about to start", "its Job is about to end"
SIZE_VALID = "SizeValid"
_MAY_WAIT = (JobState.RUNNING, JobState.ANOTHERS)
_TOO_LARGE = 1.25
_FEW = 5
_NUMBERS = re.compile(r"[0-9]+")


def verdict_of(seen: Observation) -> Verdict:  # noqa: PLR0911  # the first that holds
    """The worst of what is the case, said so that one look at it is enough."""
    if seen.stage is Stage.READY:
        return Verdict("Ready", "AllComponentsReady", f"the model is on claim {_claim(seen)}")
    if isinstance(seen.config, Missing):
        return Verdict("Failed", "ReferenceNotFound", seen.config.message)
    if seen.order.problems:
        return Verdict("Failed", "InvalidSpec", "; ".join(seen.order.problems))
    if seen.refusal:
        said = (f"the API server refuses: {seen.refusal}", what_refuses(seen.refusal))
        again = "; ".join(filter(None, (*said, "it is tried again")))
        return Verdict("Degraded", "InfrastructureError", again)
    if seen.failure:
        return _of_failure(seen, seen.failure)
    if seen.stage is not Stage.SIZING and seen.claim_trouble:
        return _of_outcome(seen.claim_trouble, f"claim {_claim(seen)}")
    if seen.stage is Stage.CLAIMING:
        return _progressing(_of_claim(seen).message)
    return _of_work(seen)


def conditions_of(seen: Observation) -> list[Object]:
    """All conditions, as the status has them."""
    verdict = verdict_of(seen)
    ready = Condition("Ready", verdict.status == "Ready", verdict.reason, verdict.message)
    of_size = (*_of_size(seen), *_of_sizing(seen))
    told = [ready, _of_config(seen), *doubts(verdict, seen.artifact), *of_size, *_of_volume(seen)]
    return [written(_steady(each, seen), seen.artifact, _now(seen)) for each in told]


def sentence(outcome: Outcome) -> str:
    """What went wrong, and what helps."""
    return "; ".join(filter(None, (outcome.message, outcome.hint)))


def percentage_of_pod(seen: Observation) -> int:
    """How much of the transfer the pod of this Job has told, in percent; 0 until one runs."""
    begun = [*seen.download.in_phase("Running"), *seen.download.in_phase("Succeeded")]
    return int(at(seen.artifact, "status.progress.percentage", 0)) if begun else 0


# -- the verdict -------------------------------------------------------------------------------


def _progressing(message: str) -> Verdict:
    return Verdict("Progressing", "Progressing", message)


def _of_outcome(outcome: Outcome, whose: str) -> Verdict:
    return Verdict(outcome.status, outcome.ready_reason, f"{whose}: {sentence(outcome)}")


def _of_failure(seen: Observation, failure: Outcome) -> Verdict:
    attempts = f" (attempt {seen.retry.attempts})" if seen.retry and seen.retry.attempts > 1 else ""
    what = "asking for the size" if seen.stage is Stage.SIZING else "the download"
    if seen.is_full and seen.growth.pending:
        return _progressing(f"{failure.message}; {_when(seen)}")
    cannot = sentence(seen.growth.trouble) if seen.is_full and seen.growth.trouble else ""
    said = f"{failure.message}; {cannot}" if cannot else sentence(failure)
    message = f"{what} failed{attempts}: {said}; {_when(seen)}"
    status = "Degraded" if failure.status == "Degraded" else "Failed"
    return Verdict(status, failure.ready_reason, message)


def _when(seen: Observation) -> str:
    due = seen.due
    if seen.is_full and seen.growth.pending:
        return (
            f"claim {_claim(seen)} grows from {_has(seen)} to {seen.growth.wanted}, and the"
            " download goes on as soon as it has"
        )
    if due is True:
        return "it is tried again now"
    if due is False:
        return (
            "it is not tried again before the spec, the runtime config or the annotation"
            f" {ANNOTATION_RETRY} changes"
        )
    return (
        f"it is tried again at {timestamp(due)}, or at once when the annotation {ANNOTATION_RETRY}"
        " is set to anything new"
    )


def _of_work(seen: Observation) -> Verdict:
    work, what = seen.work, _what(seen)
    if waiting := _in_vain(seen, work):
        return _of_outcome(waiting, ", ".join(filter(None, (what, _pod_of(work, waiting)))))
    return _progressing(f"{what}: {_pods(seen, work).message}")


def _what(seen: Observation) -> str:
    uri = seen.order.source_uri
    return f"the size of {uri} is asked for" if seen.stage is Stage.SIZING else f"downloading {uri}"


# -- the parts ---------------------------------------------------------------------------------


def _of_config(seen: Observation) -> Condition:
    config, kind = seen.config, "RuntimeConfigReady"
    if isinstance(config, Missing):
        return Condition(kind, False, "ReferenceNotFound", config.message)
    if config.found:
        return Condition(kind, True, "ConfigFound", f"{config.found} is taken into account")
    return Condition(
        kind, True, "DefaultConfigNotFound", "there is no runtime config: none is needed"
    )


def _of_size(seen: Observation) -> Iterator[Condition]:
    """Whether spec.size is right, as far as the model's is known."""
    says, has = seen.order.size, seen.discovered
    if not says or not has:
        return
    shown = f"spec.size says {display_size(says)}, and the model has {display_size(has)}"
    if says < has:
        said = f"{shown} ({has} bytes): set that, or leave spec.size away"
        yield Condition(SIZE_VALID, False, "SizeMismatch", said)
    elif says > has * _TOO_LARGE and claim_size(says, 0) != claim_size(has, 0):
        said = f"{shown}: the claim is larger than it need be; the next one may be smaller"
        yield Condition(SIZE_VALID, False, "SizeMismatch", said)
    elif condition_of(seen.artifact, SIZE_VALID):
        yield Condition(SIZE_VALID, True, "SizeAsSpecified", shown)


def _of_sizing(seen: Observation) -> Iterator[Condition]:
    if not seen.discovered and (seen.order.size or seen.stage is Stage.READY):
        return
    if seen.order.size and not condition_of(seen.artifact, f"{CHECK_SIZE}Ready"):
        # The download has told it: nobody was asked.
        return
    if seen.discovered:
        told = f"the model has {seen.discovered} bytes"
        yield Condition(f"{CHECK_SIZE}Ready", True, "Ready", told)
        yield Condition(f"{CHECK_SIZE}PodsReady", True, "PodsReady", told)
        if condition_of(seen.artifact, "CheckSizeOutputReady"):
            # Another operator's: nobody else takes it back.
            yield Condition("CheckSizeOutputReady", True, "Ready", told)
        return
    if seen.stage is Stage.SIZING and seen.failure and seen.failure.reason == "InvalidSizeOutput":
        yield Condition("CheckSizeOutputReady", False, "InvalidSizeOutput", sentence(seen.failure))
    failure = seen.failure if seen.stage is Stage.SIZING else None
    yield from _of_job(seen, CHECK_SIZE, seen.sizing, failure)


def _of_volume(seen: Observation) -> Iterator[Condition]:
    yield _of_claim(seen)
    if seen.stage is Stage.READY:
        done = f"the model is complete and verified on claim {_claim(seen)}"
        yield Condition(f"{DOWNLOAD}Ready", True, "Ready", done)
        yield Condition(f"{DOWNLOAD}PodsReady", True, "PodsReady", done)
        yield Condition("DownloadComplete", True, "Verified", done)
        return
    failure = seen.failure if seen.stage is Stage.DOWNLOADING else None
    yield from _of_job(seen, DOWNLOAD, seen.download, failure)
    yield _complete(seen, failure)


def _of_claim(seen: Observation) -> Condition:
    kind, claim = "CachePvcReady", seen.claim
    if claim is None:
        waits = "the size is not known yet" if seen.stage is Stage.SIZING else "it is not there yet"
        return Condition(kind, False, "ResourceNotReady", f"no claim: {waits}")
    if is_deleted(claim):
        return Condition(kind, False, "ResourceNotReady", _of_deleted(seen))
    if seen.claim_trouble:
        return Condition(kind, False, seen.claim_trouble.reason, sentence(seen.claim_trouble))
    if claims.phase_of(claim) == "Bound":
        return _of_bound(seen, kind)
    node = claims.awaited_on(claim)
    why = f"it is being made for node {node}" if node else "some classes wait for the first pod"
    return Condition(kind, False, "PvcPending", f"claim {_claim(seen)} has no volume yet; {why}")


def _of_deleted(seen: Observation) -> str:
    said = f"claim {_claim(seen)} is being deleted: once no pod mounts it, it goes, and a new one"
    if not seen.holders:
        return f"{said} is made"
    named = " ".join(seen.holders[:_FEW])
    more = len(seen.holders) - _FEW
    others = f", and {more} more" if more > 0 else ""
    return (
        f"{said} is made; where a service has gone over to another artifact, its pods go by"
        f" themselves; else delete those that mount it (`kubectl delete pod {named}`{others}): a"
        " rolling restart does not end, as its new pods wait for a claim"
    )


def _of_bound(seen: Observation, kind: str) -> Condition:
    growth, has = seen.growth, f"claim {_claim(seen)} has a volume"
    if growth.trouble and seen.is_full:
        return Condition(kind, False, growth.trouble.reason, sentence(growth.trouble))
    if growth.trouble:
        # What there is may do: it has some headroom.
        return Condition(kind, True, "Ready", f"{has}; {sentence(growth.trouble)}")
    if growth.state is Growing.NO:
        return Condition(kind, True, "Ready", has)
    said = f"claim {_claim(seen)} grows from {_has(seen)} to {growth.wanted}"
    if growth.state is Growing.NEEDS_POD:
        said = f"{said}, which is done when a pod mounts it"
    return Condition(kind, False, "Resizing", said)


def _has(seen: Observation) -> str:
    claim = seen.claim or {}
    return str(at(claim, "status.capacity.storage") or asked_of(claim))


def _of_job(
    seen: Observation, prefix: str, work: Work, failure: Outcome | None
) -> Iterator[Condition]:
    if failure and failure.reason == "InvalidSizeOutput":
        yield Condition(f"{prefix}Ready", True, "Ready", "the Job is complete")
        return
    if failure:
        said = f"the Job failed; {_when(seen)}"
        yield Condition(f"{prefix}Ready", False, _reason_of_job(work), said)
        yield Condition(f"{prefix}PodsReady", False, failure.reason, _named(work, failure))
        return
    yield _job(prefix, work)
    yield replace(_pods(seen, work), type=f"{prefix}PodsReady")


def _job(prefix: str, work: Work) -> Condition:
    kind = f"{prefix}Ready"
    waits = work.waiting if work.state in _MAY_WAIT else None
    if waits and waits.reason in ("JobSuspended", "JobOfAnother"):
        return Condition(kind, False, waits.reason, sentence(waits))
    if work.job is None:
        return Condition(kind, False, "ResourceNotReady", "no Job yet")
    name = name_of(work.job)
    if work.state is JobState.GOING:
        return Condition(kind, False, "ResourceNotReady", f"Job {name} is being removed")
    if work.state is JobState.COMPLETE:
        return Condition(kind, True, "Ready", f"Job {name} is complete")
    if work.state is JobState.FAILED:
        return Condition(kind, False, _reason_of_job(work), f"Job {name} has failed")
    said = "goes on once its pod does" if work.waiting else "is at work"
    return Condition(kind, False, "JobRunning", f"Job {name} {said}")


def _reason_of_job(work: Work) -> str:
    said = outcome_of_job(work.job) if work.job else None
    return said.reason if said and said.reason.startswith("Job") else "JobFailed"


def _pods(seen: Observation, work: Work) -> Condition:
    """How the pods of a Job are whose failure, if any, is not what counts now."""
    if work.state is JobState.FAILED and work.failed:
        return Condition("", False, work.failed.reason, _named(work, work.failed))
    if waiting := _in_vain(seen, work):
        return Condition("", False, waiting.reason, _named(work, waiting))
    if work.state is JobState.COMPLETE or work.in_phase("Succeeded"):
        return Condition("", True, "PodsReady", "its pod has ended well")
    failed = work.in_phase("Failed") if work.failed else []
    again = (
        f" (after {_counted(failed)}: {sentence(work.failed)})" if work.failed and failed else ""
    )
    running = work.in_phase("Running")
    if running and work is seen.download:
        return Condition("", True, "PodsReady", f"pod {name_of(running[-1])} is at work{again}")
    if running or (work is seen.sizing and work.job and not again and not _waits(seen, work)):
        # It takes seconds: each step told would be one more write.
        return Condition("", False, "PodsProgressing", f"its pod starts, or is at work{again}")
    return _starting(seen, work, again)


def _starting(seen: Observation, work: Work, again: str) -> Condition:
    pending = work.in_phase("Pending")
    if _waits(seen, work):
        awaited = "its volume" if claims.awaited_on(seen.claim or {}) else "a node"
        message = f"pod {name_of(pending[-1])} waits for {awaited}{again}"
        return Condition("", False, "PodsPending", message)
    if again and work.failed and not pending:
        is_final = work.state is JobState.GOING or (
            seen.order.ours and work.failed.exit_code in FINAL_CODES
        )
        message = f"{_named(work, work.failed)}; {_THE_END if is_final else _ANOTHER}"
        return Condition("", False, work.failed.reason, message)
    if work.job is None:
        return Condition("", False, "NoPods", "no pod yet")
    return Condition("", False, "PodsStarting", f"its pod is about to start{again}")


def _in_vain(seen: Observation, work: Work) -> Outcome | None:
    """What a pod waits for in vain. The volume of a claim that is new is only being made."""
    waiting = work.waiting if work.state in _MAY_WAIT else None
    if waiting and waiting.reason == "FailedCreate" and _is_new(seen, work.job):
        # Its account may just not have come around yet.
        return None
    if waiting is None or seen.claim is None or seen.claim_trouble:
        return waiting
    return None if _is_new(seen, seen.claim) and "unbound" in waiting.message else waiting


def _is_new(seen: Observation, object_: Object | None) -> bool:
    age = seen.now.timestamp() - created(object_) if object_ else 0
    # Our clock may be behind the server's.
    return abs(age) < STARTS_WITHIN.total_seconds()


def _waits(seen: Observation, work: Work) -> bool:
    """Whether the last of its pods has had no node for too long."""
    pending = work.in_phase("Pending")
    if not pending or has_condition(pending[-1], "PodScheduled"):
        return False
    age = seen.now.timestamp() - created(pending[-1])
    return age > STARTS_WITHIN.total_seconds()


def _complete(seen: Observation, failure: Outcome | None) -> Condition:
    kind = "DownloadComplete"
    percentage = int(at(seen.artifact, "status.progress.percentage", 0))
    if failure and percentage >= 100:
        return Condition(kind, False, "VerificationFailed", sentence(failure))
    if failure is None and percentage_of_pod(seen) >= 100:
        return Condition(kind, True, "Verifying", "all bytes are there, and are verified")
    # AIM Engine has no other reason where nothing has begun.
    is_begun = seen.stage is Stage.DOWNLOADING
    said = "the model is not complete yet" if is_begun else "no download is under way"
    return Condition(kind, False, "Downloading", said)


# -- words -------------------------------------------------------------------------------------


def _claim(seen: Observation) -> str:
    return name_of(seen.claim or {})


def _counted(pods: Sequence[Object]) -> str:
    return "1 failed pod" if len(pods) == 1 else f"{len(pods)} failed pods"


def _pod_of(work: Work, outcome: Outcome) -> str:
    whose = [pod for pod in work.pods if work.outcomes.get(uid_of(pod)) == outcome]
    return f"pod {name_of(whose[-1])}" if whose else ""


def _named(work: Work, outcome: Outcome) -> str:
    return ": ".join(filter(None, (_pod_of(work, outcome), sentence(outcome))))


def _steady(told: Condition, seen: Observation) -> Condition:
    """The condition; while something is waited for, other numbers in its message are no news."""
    before = condition_of(seen.artifact, told.type)
    if seen.work.waiting is None or told.true or before is None:
        return told
    if (before["status"], before["reason"]) != ("False", told.reason):
        return told
    alike = _NUMBERS.sub("", before["message"]) == _NUMBERS.sub("", told.message)
    return replace(told, message=before["message"]) if alike else told


def _now(seen: Observation) -> datetime:
    """The time; never before the claim was made, whose age later tells whether it is still it."""
    made = at(seen.claim or {}, "metadata.creationTimestamp")
    if made is None:
        return seen.now
    return max(seen.now, datetime.fromtimestamp(created(seen.claim or {}), tz=seen.now.tzinfo))
