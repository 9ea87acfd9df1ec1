"""One pass over one artifact: fetch, observe, plan, act, report. It may stop anywhere.

Nothing is kept between two passes, and each begins with what the server has; so one that was cut
short, or ran twice, leaves nothing that the next does not take from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from operator_shim import claims, desired, names
from operator_shim.acting import Acting
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.desired import MANAGER
from operator_shim.jobs import JobState
from operator_shim.keys import CLUSTER_RUNTIME_CONFIG, RUNTIME_CONFIG, Key
from operator_shim.objects import (
    ANNOTATION_PAUSED,
    ANNOTATION_RETRY_STATE,
    LABEL_ARTIFACT,
    Object,
    annotations_of,
    at,
    is_controlled_by,
    is_deleted,
    name_of,
    namespace_of,
    timestamp,
    uid_of,
)
from operator_shim.observed import Found, Observation, Stage, observe
from operator_shim.outcome import LOG_LINES, needs_events, needs_log
from operator_shim.runtime_config import DEFAULT_NAME
from operator_shim.sizing import LINES
from operator_shim.status import events_of, status_of
from operator_shim.telling import EventNote

PROGRESS_S = 10.0
"""How often a Job that runs is looked at: what its pod tells in the status wakes nobody."""
SOON_S = 2.0
"""When to look again for what is about to be gone."""

_STEPS = 4
# The server has understood, and says no: a quota, a policy, a right of ours.
_REFUSALS = (400, 403, 404, 413, 422)


@dataclass(frozen=True)
class Step:
    """What to do now, and after how many seconds to look again (None: once something happens)."""

    apply: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    again: float | None = None


def plan(seen: Observation) -> Step:
    """The next step towards Ready. Pure."""
    if seen.refusal or seen.stage in (Stage.READY, Stage.BLOCKED):
        return Step()
    if at(seen.artifact, "status.status") == "Ready":
        # Who reads the status hears that the model is gone before there is a new, empty claim.
        return Step(again=0)
    if seen.stage is Stage.SIZING:
        return _run(seen, lambda: (desired.size_job(seen),))
    return _claim(seen) if seen.stage is Stage.CLAIMING else _download(seen)


async def reconcile(
    cluster: Cluster,
    key: Key,
    options: Options,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> float | None:
    """One pass; returns after how many seconds to look again, None once something happens.

    Raises:
        ApiError: the API server is out of reach, or refuses what we ask for; the latter is told in
            the status before.
    """
    artifact = await cluster.get(key.kind, key.name, key.namespace)
    if artifact is None or is_deleted(artifact) or _is_paused(artifact):
        return None
    artifact = {**artifact, "kind": key.kind}
    acting = Acting(cluster, artifact, MANAGER)
    found = await _fetch(cluster, artifact)
    found, refused = await _act(acting, found, options, clock)
    if refused and _namespace_ends(refused):
        return None
    seen = observe(found, options, clock())
    try:
        await _report(acting, seen)
    except ApiError as error:
        if _namespace_ends(error):
            return None
        raise
    if refused:
        raise refused
    return plan(seen).again


# -- plan --------------------------------------------------------------------------------------


def _claim(seen: Observation) -> Step:
    if seen.claim is None:
        return Step(apply=(desired.claim(seen),))
    # It goes once no pod names it, be that at work or at its end.
    job, there = seen.download.job, (JobState.RUNNING, JobState.COMPLETE, JobState.FAILED)
    return Step(delete=(job,)) if job and seen.download.state in there else Step(again=PROGRESS_S)


def _download(seen: Observation) -> Step:
    if claims.phase_of(seen.claim or {}) == "Lost":
        return Step()
    account = desired.account(seen) if seen.order.ours else []
    return _run(seen, lambda: (*account, desired.download_job(seen)))


def _run(seen: Observation, make: Callable[[], Iterable[Object]]) -> Step:
    """The step that brings the Job of this stage to its end."""
    work = seen.work
    if work.job is None:
        return Step(apply=tuple(make())) if seen.due is True else _later(seen)
    if work.state is JobState.GOING:
        return Step(again=SOON_S)
    if seen.is_stale or seen.is_stuck:
        return Step(delete=(work.job,))
    if seen.failure:
        return Step(delete=(work.job,)) if seen.due is True else _later(seen)
    return Step(again=PROGRESS_S)


def _later(seen: Observation) -> Step:
    if isinstance(seen.due, datetime):
        return Step(again=max(0.0, (seen.due - seen.now).total_seconds()) + 1)
    return Step()


# -- fetch -------------------------------------------------------------------------------------


async def _fetch(cluster: Cluster, artifact: Object) -> Found:
    name, uid, namespace = name_of(artifact), uid_of(artifact), namespace_of(artifact)
    config = at(artifact, "spec.runtimeConfigName") or DEFAULT_NAME
    claim, size_job, download_job, namespaced, of_cluster = await asyncio.gather(
        cluster.get("PersistentVolumeClaim", names.claim_name(name, uid), namespace),
        cluster.get("Job", names.size_job_name(name, uid), namespace),
        cluster.get("Job", names.download_job_name(name, uid), namespace),
        cluster.get(RUNTIME_CONFIG, config, namespace),
        cluster.get(CLUSTER_RUNTIME_CONFIG, config),
    )
    # After the Jobs: the pod of a Job that is seen to be complete must be seen to have ended.
    pods = await cluster.listed("Pod", namespace, f"{LABEL_ARTIFACT}={names.label_value(name)}")
    found = Found(artifact, claim, size_job, download_job, tuple(pods), namespaced, of_cluster)
    return await _listened(cluster, found)


async def _listened(cluster: Cluster, found: Found) -> Found:
    """What was found, with the logs and events that say what the objects do not."""
    namespace = namespace_of(found.artifact)
    logs: dict[str, list[str]] = {}
    events: dict[str, list[Object]] = {}
    for pod in found.pods:
        lines = _lines_wanted(found, pod)
        if lines:
            logs[uid_of(pod)] = await _log(cluster, pod, lines)
        if needs_events(pod):
            events[uid_of(pod)] = await cluster.events_of(uid_of(pod), namespace)
    if found.claim and claims.phase_of(found.claim) == "Pending":
        events[uid_of(found.claim)] = await cluster.events_of(uid_of(found.claim), namespace)
    return replace(found, logs=logs, events=events)


def _lines_wanted(found: Found, pod: Object) -> int:
    """How much of a pod's log matters."""
    if needs_log(pod):
        return LOG_LINES
    answers = found.size_job is not None and is_controlled_by(pod, uid_of(found.size_job))
    known = at(found.artifact, "status.discoveredSizeBytes")
    ended_well = at(pod, "status.phase") == "Succeeded"
    return LINES if answers and ended_well and not known else 0


async def _log(cluster: Cluster, pod: Object, lines: int) -> list[str]:
    container = at(pod, "spec.containers")[0]["name"]
    try:
        return await cluster.logs(name_of(pod), namespace_of(pod), container, lines)
    except ApiError as error:
        # The pod's node does not answer; the next Job may run on another.
        if error.status:
            return []
        raise


# -- act ---------------------------------------------------------------------------------------


async def _act(
    acting: Acting, found: Found, options: Options, clock: Callable[[], datetime]
) -> tuple[Found, ApiError | None]:
    """Takes all steps that can be taken now; returns what there is then, and what was refused."""
    for _ in range(_STEPS):
        step = plan(observe(found, options, clock()))
        try:
            for job in step.delete:
                found = await _deleted(acting, found, job, clock())
            for wanted in step.apply:
                found = _with(found, await acting.make(wanted))
        except ApiError as error:
            if error.status not in _REFUSALS:
                raise
            return replace(found, refusal=str(error)), error
        if not step.apply and not step.delete:
            break
    return found, None


async def _deleted(acting: Acting, found: Found, job: Object, now: datetime) -> Found:
    """Deletes a Job; returns what was found, with the Job about to be gone."""
    note = EventNote("Normal", "JobRemoved", f"Job {name_of(job)} makes room for a new one")
    await acting.remove("Job", job, note)
    metadata = {**job["metadata"], "deletionTimestamp": timestamp(now)}
    return _with(found, {**job, "kind": "Job", "metadata": metadata})


def _with(found: Found, made: Object) -> Found:
    match made["kind"]:
        case "PersistentVolumeClaim":
            return replace(found, claim=made)
        case "Job" if name_of(made) == names.size_job_name(
            name_of(found.artifact), uid_of(found.artifact)
        ):
            return replace(found, size_job=made)
        case "Job":
            return replace(found, download_job=made)
        case _:
            return found


# -- report ------------------------------------------------------------------------------------


async def _report(acting: Acting, seen: Observation) -> None:
    await acting.annotate(ANNOTATION_RETRY_STATE, seen.retry.dump() if seen.retry else None)
    status = status_of(seen)
    if await acting.report(status):
        for note in events_of(seen.artifact, {**seen.artifact, "status": status}):
            acting.note(note)
    # The size is why the claim was made in the same pass.
    await acting.publish(first="SizeDiscovered")


def _namespace_ends(error: ApiError) -> bool:
    """Whether nothing can be made any more, as all that is there goes with its namespace."""
    return "being terminated" in str(error)


def _is_paused(artifact: Object) -> bool:
    return annotations_of(artifact).get(ANNOTATION_PAUSED) == "true"
