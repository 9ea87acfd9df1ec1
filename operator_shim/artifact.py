"""One pass over one artifact: fetch, observe, plan, act, report. It may stop anywhere.

Nothing is kept between two passes, and each begins with what the server has; so one that was cut
short, or ran twice, leaves nothing that the next does not take from there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from operator_shim import claims, desired, legacy, names
from operator_shim.acting import Acting
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.desired import GROWER, MANAGER, MARKER
from operator_shim.growing import Growing, Storage, asked_of
from operator_shim.jobs import JobState, created, needs_events_of
from operator_shim.keys import CLUSTER_RUNTIME_CONFIG, MODEL_CACHE, RUNTIME_CONFIG, Key
from operator_shim.objects import (
    ANNOTATION_RETRY_STATE,
    LABEL_ARTIFACT,
    Object,
    at,
    condition_of,
    is_controlled_by,
    is_deleted,
    is_paused,
    labels_of,
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

PROGRESS_S, LONGEST_S = 10.0, 60.0
"""How often a Job that runs is looked at: what its pod tells in the status wakes nobody."""
SOON_S = 2.0
"""When to look again for what is about to be gone."""

_STEPS = 5
_ENOUGH = 10


@dataclass(frozen=True)
class Step:
    """What to do now, and after how many seconds to look again (None: once something happens)."""

    apply: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    grow: Object | None = None
    """The claim, as it asks for more."""
    mark: tuple[Object, ...] = ()
    """The claim and the Jobs that are to be the artifact's again."""
    again: float | None = None


def plan(seen: Observation) -> Step:
    """The next step towards Ready. Pure."""
    if marks := tuple(desired.marks(seen)):
        return Step(mark=marks)
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
    if artifact is None or is_deleted(artifact) or is_paused(artifact):
        return None
    stored = {**artifact, "kind": key.kind}
    acting = Acting(cluster, stored, MANAGER)
    found = await _fetch(cluster, legacy.read(stored))
    found, refused = await _act(cluster, acting, found, options, clock)
    seen = observe(found, options, clock())
    await _report(acting, seen, stored)
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
    if seen.growth.state is Growing.WANTED:
        return Step(grow=desired.larger_claim(seen))
    account = desired.account(seen) if seen.order.ours else []
    if seen.lacks_account and not (seen.is_stale or seen.is_stuck):
        return Step(apply=tuple(account), again=PROGRESS_S)
    return _run(seen, lambda: (*account, desired.download_job(seen)))


def _run(seen: Observation, make: Callable[[], Iterable[Object]]) -> Step:
    """The step that brings the Job of this stage to its end."""
    work = seen.work
    if work.state is JobState.ANOTHERS:
        # It bears no mark of ours, so nobody tells us when it goes.
        return Step(again=LONGEST_S)
    if work.job is None:
        return Step(apply=tuple(make())) if seen.due is True else _later(seen)
    if work.state is JobState.GOING:
        return Step(again=SOON_S)
    if seen.is_stale or seen.is_stuck:
        return Step(delete=(work.job,))
    if seen.failure:
        return Step(delete=(work.job,)) if seen.due is True else _later(seen)
    return Step(again=_patience(seen))


def _patience(seen: Observation) -> float:
    """The longer a Job takes, the less often it is looked at: what its pods do wakes us anyway."""
    age = seen.now.timestamp() - created(seen.work.job) if seen.work.job else 0.0
    return min(max(PROGRESS_S, age / 6), LONGEST_S)


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
    if artifact["kind"] == MODEL_CACHE:
        older_claim, older_job = names.older_claim_name(name), names.older_job_name(name)
        claim = claim or await _older(cluster, artifact, "PersistentVolumeClaim", older_claim)
        download_job = download_job or await _older(cluster, artifact, "Job", older_job)
    # After the Jobs: the pod of a Job that is seen to be complete must be seen to have ended.
    of_artifact = f"{LABEL_ARTIFACT}={names.label_value(name)}"
    has_jobs = size_job or download_job
    pods = await cluster.listed("Pod", namespace, of_artifact) if has_jobs else []
    found = Found(artifact, claim, size_job, download_job, tuple(pods), namespaced, of_cluster)
    if claim and is_deleted(claim):
        found = replace(found, holders=await _holders(cluster, claim))
    return await _listened(cluster, found)


async def _holders(cluster: Cluster, claim: Object) -> tuple[str, ...]:
    """The pods for which a claim stays that is being deleted, but for those that go anyway."""
    pods = await cluster.listed("Pod", namespace_of(claim))
    holding = (
        name_of(each)
        for each in pods
        if at(each, "spec.nodeName")
        and not is_deleted(each)
        and LABEL_ARTIFACT not in labels_of(each)
        and name_of(claim) in claims.mounted_by(each)
    )
    return tuple(sorted(holding))


async def _older(cluster: Cluster, cache: Object, kind: str, name: str) -> Object | None:
    """What has an older name, if it was made for this very cache."""
    found = await cluster.get(kind, name, namespace_of(cache))
    return found if found and is_controlled_by(found, uid_of(cache)) else None


async def _listened(cluster: Cluster, found: Found) -> Found:
    """What was found, with the logs and events that say what the objects do not."""
    namespace = namespace_of(found.artifact)
    logs: dict[str, list[str]] = {}
    for pod in found.pods:
        if lines := _lines_wanted(found, pod):
            logs[uid_of(pod)] = await _log(cluster, pod, lines)
    about = [uid_of(each) for each in _speechless(found)]
    events = {uid: await cluster.events_of(uid, namespace) for uid in about}
    return replace(found, logs=logs, events=events)


def _speechless(found: Found) -> Iterator[Object]:
    """What may not go on, of which only events say why."""
    # Of many shards' pods a few tell what all of them wait for.
    yield from itertools.islice(filter(needs_events, found.pods), _ENOUGH)
    for job in (found.size_job, found.download_job):
        if job and needs_events_of(job, found.pods):
            yield job
    if found.claim and claims.phase_of(found.claim) == "Pending":
        yield found.claim


def _class_matters(seen: Observation) -> bool:
    """Whether the storage class says why the claim has no volume, or whether it can grow."""
    if seen.claim is None or seen.stage is Stage.READY:
        return False
    return claims.phase_of(seen.claim) == "Pending" or seen.growth.state is Growing.WANTED


async def _with_class(cluster: Cluster, found: Found) -> Found:
    """What was found, with what can be known of the claim's class."""
    named = at(found.claim or {}, "spec.storageClassName", "")
    try:
        if named:
            there = await cluster.get("StorageClass", named)
        else:
            there = next(filter(claims.is_default, await cluster.listed("StorageClass")), None)
    except ApiError as error:
        # Without the right to read classes the claim's events tell, and the server's refusals.
        if error.status:
            return found
        raise
    return replace(found, storage=Storage(known=True, named=named, found=there))


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
    cluster: Cluster,
    acting: Acting,
    found: Found,
    options: Options,
    clock: Callable[[], datetime],
) -> tuple[Found, ApiError | None]:
    """Takes all steps that can be taken now; returns what there is then, and what was refused."""
    asked = False
    for _ in range(_STEPS):
        seen = observe(found, options, clock())
        if not asked and _class_matters(seen):
            asked, found = True, await _with_class(cluster, found)
            seen = observe(found, options, clock())
        step = plan(seen)
        try:
            for lost in step.mark:
                found = _with(found, await _marked(cluster, acting, lost))
            if step.grow:
                found = await _grown(cluster, acting, found, step.grow)
            for job in step.delete:
                found = await _deleted(acting, found, job, clock())
            for wanted in step.apply:
                found = await _made(acting, seen, found, wanted)
        except ApiError as error:
            if not error.refused:
                raise
            return replace(found, refusal=str(error)), error
        if step == Step(again=step.again):
            break
    return found, None


async def _marked(cluster: Cluster, acting: Acting, marks: Object) -> Object:
    """Gives a claim or a Job back what makes it the artifact's; returns it."""
    what = "Job" if marks["kind"] == "Job" else "claim"
    said = f"{what} {name_of(marks)} had lost its owner, or its label, and has it again"
    made = await cluster.apply(marks, MARKER)
    acting.note(EventNote("Normal", f"{what.capitalize()}Marked", said))
    return made


async def _grown(cluster: Cluster, acting: Acting, found: Found, larger: Object) -> Found:
    """Lets the claim ask for more; returns what was found, with it or why it may not."""
    had, has = asked_of(found.claim or {}), asked_of(larger)
    try:
        claim = await cluster.apply(larger, GROWER)
    except ApiError as error:
        # The server has understood: no class that lets claims grow, a quota.
        if error.status not in (403, 422):
            raise
        return replace(found, no_growth=str(error))
    said = f"claim {name_of(larger)} is to grow from {had} to {has}"
    acting.note(EventNote("Normal", "ClaimGrows", said))
    return replace(found, claim=claim)


async def _made(acting: Acting, seen: Observation, found: Found, wanted: Object) -> Found:
    """Makes one object; returns what was found, with it."""
    before = condition_of(seen.artifact, f"{seen.prefix}Ready") or {}
    if wanted["kind"] == "Job" and before.get("reason") == "JobRunning":
        said = f"Job {name_of(wanted)} was at work when last seen, and is gone: a new one goes on"
        acting.note(EventNote("Warning", "JobLost", said))
    return _with(found, await acting.make(wanted))


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
        case "ServiceAccount":
            return replace(found, account=made)
        case _:
            return found


# -- report ------------------------------------------------------------------------------------


async def _report(acting: Acting, seen: Observation, stored: Object) -> None:
    await acting.annotate(ANNOTATION_RETRY_STATE, seen.retry.dump() if seen.retry else None)
    status = status_of(seen)
    if await acting.report(legacy.told(status, stored, seen.now)):
        for note in events_of(seen.artifact, {**seen.artifact, "status": status}):
            acting.note(note)
    # The size is why the claim was made in the same pass.
    await acting.publish(first="SizeDiscovered")
