"""The states of an artifact as one table, row by row as AIM Engine's; then every bad day.

Where a row is better than AIM Engine's, its id says so.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from operator_shim.artifact import PROGRESS_S
from operator_shim.objects import Object, annotations_of, at, name_of, timestamp, uid_of
from tests.operator.fakes import (
    CLAIM,
    DOWNLOAD,
    KEY,
    OPTIONS,
    SIZE,
    FakeCluster,
    artifact,
    cluster_with,
    ended,
    ours,
    reasons,
    storage_class,
)

Act = Callable[[FakeCluster], Awaitable[None]]

ON_NODE = [{"type": "PodScheduled", "status": "True"}]
NO_NODE = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]


def waiting(reason: str, said: str) -> Object:
    """A pod whose container does not start."""
    state = [{"image": "x", "state": {"waiting": {"reason": reason, "message": said}}}]
    return {"phase": "Pending", "conditions": ON_NODE, "containerStatuses": state}


async def new(cluster: FakeCluster) -> None:
    await cluster.settle()


async def sized(cluster: FakeCluster) -> None:
    await new(cluster)
    cluster.tell_size()
    await cluster.settle()


async def bound(cluster: FakeCluster) -> None:
    await sized(cluster)
    cluster.bind()
    await cluster.settle()


async def running(cluster: FakeCluster, percentage: int = 40) -> None:
    await bound(cluster)
    cluster.pod(phase="Running")
    cluster.patch(cluster.artifact, {"progress": {"percentage": percentage}})
    await cluster.settle()


async def complete(cluster: FakeCluster) -> None:
    await running(cluster)
    cluster.wait(minutes=5)
    cluster.succeed()
    await cluster.settle()


def with_pod(**status: Any) -> Act:
    async def act(cluster: FakeCluster) -> None:
        await bound(cluster)
        cluster.pod(**status)
        await cluster.settle()

    return act


async def received(cluster: FakeCluster) -> None:
    await running(cluster, 100)


async def done(cluster: FakeCluster) -> None:
    await received(cluster)
    cluster.of_kind("Pod")[-1]["status"] = {"phase": "Succeeded"}
    await cluster.settle()


async def failed_pod(cluster: FakeCluster) -> None:
    await running(cluster)
    cluster.of_kind("Pod")[-1]["status"] = ours(75, "the Hub cannot be reached")
    await cluster.settle()


async def failed_pod_at_100(cluster: FakeCluster) -> None:
    await received(cluster)
    cluster.of_kind("Pod")[-1]["status"] = ours(65, "a.bin is damaged")
    await cluster.settle()


async def third_pod(cluster: FakeCluster) -> None:
    await failed_pod(cluster)
    for _ in range(2):
        cluster.wait(seconds=20)
        cluster.pod(phase="Running")
        await cluster.settle()
        cluster.of_kind("Pod")[-1]["status"] = ours(75, "the Hub cannot be reached")
        await cluster.settle()
    cluster.of_kind("Pod")[-1]["status"] = {"phase": "Running"}
    await cluster.settle()


async def third_pod_ends_well(cluster: FakeCluster) -> None:
    await third_pod(cluster)
    cluster.succeed()
    await cluster.settle()


async def failed(cluster: FakeCluster) -> None:
    await failed_pod(cluster)
    cluster.fail()
    await cluster.settle()


async def failed_at_100(cluster: FakeCluster) -> None:
    await received(cluster)
    cluster.of_kind("Pod")[-1]["status"] = ours(65, "a.bin is damaged")
    cluster.fail()
    await cluster.settle()


async def failed_and_gone(cluster: FakeCluster) -> None:
    await failed(cluster)
    cluster.remove("Job", "models", DOWNLOAD)
    await cluster.settle()


async def tried_again(cluster: FakeCluster) -> None:
    await failed(cluster)
    again = await cluster.settle()
    assert again is not None
    cluster.wait(seconds=again)
    await cluster.settle()


async def job_gone(cluster: FakeCluster) -> None:
    await complete(cluster)
    cluster.wait(minutes=11)
    cluster.remove("Job", "models", DOWNLOAD)
    await cluster.settle()


HAS: dict[str, set[str]] = {
    "nothing": {SIZE},
    "all": {SIZE, CLAIM, DOWNLOAD},
    "claim": {SIZE, CLAIM},
}


@pytest.mark.parametrize(
    ("reach", "there", "status", "pods", "done", "shown"),
    [
        pytest.param(
            *(new, "nothing", "Progressing", "False NoPods", "False Downloading", None),
            id="0, 1: new, size unknown: a size Job",
        ),
        pytest.param(
            *(sized, "all", "Progressing", "False PodsStarting", "False Downloading", None),
            id="2, 3: size known: a claim, and a download in whatever phase that is",
        ),
        pytest.param(
            *(with_pod(phase="Pending", conditions=NO_NODE), "all", "Pending"),
            *("False FailedScheduling", "False Downloading", None),
            id="4: unschedulable",
        ),
        pytest.param(
            *(with_pod(phase="Pending", conditions=ON_NODE), "all", "Progressing"),
            *("False PodsStarting", "False Downloading", None),
            id="4: pulling",
        ),
        pytest.param(
            *(running, "all", "Progressing", "True PodsReady", "False Downloading", 40),
            id="5: at work",
        ),
        pytest.param(
            *(received, "all", "Progressing", "True PodsReady", "True Verifying", 100),
            id="6: all bytes are there",
        ),
        pytest.param(
            *(done, "all", "Progressing", "True PodsReady", "True Verifying", 100),
            id="6: its pod has ended well, its Job not yet",
        ),
        pytest.param(
            *(complete, "all", "Ready", "True PodsReady", "True Verified", 100),
            id="7: Job complete",
        ),
        pytest.param(
            *(failed_pod, "all", "Progressing", "False PodFailed", "False Downloading", 40),
            id="8: a pod failed, retries remain: not Failed (better)",
        ),
        pytest.param(
            *(failed_pod_at_100, "all", "Progressing", "False PodFailed", "False Downloading", 0),
            id="8: a pod failed after 100 %: what it told is not the next one's (better)",
        ),
        pytest.param(
            *(third_pod, "all", "Progressing", "True PodsReady", "False Downloading", 40),
            id="8: two failed pods, and a third at work: not Failed (better)",
        ),
        pytest.param(
            *(third_pod_ends_well, "all", "Ready", "True PodsReady", "True Verified", 100),
            id="8: two failed pods, and a third that succeeds: nothing is left of them (better)",
        ),
        pytest.param(
            *(failed, "all", "Failed", "False PodFailed", "False Downloading", "N/A"),
            id="9: Job failed",
        ),
        pytest.param(
            *(failed_at_100, "all", "Failed", "False PodFailed", "False VerificationFailed"),
            *("N/A",),
            id="9: Job failed after 100 %",
        ),
        pytest.param(
            *(failed_and_gone, "claim", "Failed", "False PodFailed", "False Downloading", "N/A"),
            id="9: failed Job gone before its time: why is still told (better)",
        ),
        pytest.param(
            *(tried_again, "all", "Progressing", "False PodsStarting", "False Downloading", 0),
            id="10: its time has come: a new Job, and no percentage of the old (better)",
        ),
        pytest.param(
            *(job_gone, "claim", "Ready", "True PodsReady", "True Verified", 100),
            id="11: Ready, and Job removed by its TTL",
        ),
    ],
)
async def test_row_by_row(
    reach: Act, there: str, status: str, pods: str, done: str, shown: int | str | None
) -> None:
    cluster = cluster_with()
    await reach(cluster)
    kinds = ("PersistentVolumeClaim", "Job")
    assert {key.name for key in cluster.objects if key.kind in kinds} == HAS[there]
    assert cluster.status["status"] == status
    told = reasons(cluster.status)
    assert told["DownloadJobPodsReady"] == pods
    assert told["DownloadComplete"] == done
    progress = cluster.status.get("progress") or {}
    if isinstance(shown, int):
        assert progress["percentage"] == shown
    else:
        assert progress.get("displayPercentage") == shown
    if status == "Ready":
        assert {each.split()[0] for each in told.values()} == {"True"}
    # Whatever is the case is told once.
    writes = cluster.writes.total()
    await cluster.settle()
    assert cluster.writes.total() == writes


# -- bad days --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BadDay:
    """What happens, what is told of it, and what helps."""

    strike: Act
    status: str
    ready: str
    """The reason of the condition Ready."""
    told: str
    """A condition, and its reason: also that of the Event."""
    words: tuple[str, ...]
    """What the message of Ready says: what failed, and what to do."""
    cure: Act
    begin: Act = bound
    spec: Object = field(default_factory=dict)
    event: str = ""
    """The reason of the Warning event, if it is another."""


def pod(**status: Any) -> Act:
    async def act(cluster: FakeCluster) -> None:
        cluster.pod(**status)
        await cluster.settle()

    return act


SAID_OF_JOB = {"DeadlineExceeded": "Job was active longer than specified deadline"}


def ends(why: str = "BackoffLimitExceeded", /, **status: Any) -> Act:
    """A pod ends so, and its Job with it."""

    async def act(cluster: FakeCluster) -> None:
        cluster.pod(**status)
        cluster.fail(reason=why, message=SAID_OF_JOB.get(why, ""))
        await cluster.settle()

    return act


async def no_pod_at_the_deadline(cluster: FakeCluster) -> None:
    cluster.fail(reason="DeadlineExceeded", message=SAID_OF_JOB["DeadlineExceeded"])
    await cluster.settle()


def unmade(said: str) -> Act:
    """Pods of the Job cannot be made."""

    async def act(cluster: FakeCluster) -> None:
        cluster.wait(seconds=30)
        about = {"type": "Warning", "reason": "FailedCreate", "message": f"Error creating: {said}"}
        stamp = timestamp(cluster.now)
        cluster.about[uid_of(cluster.job())] = [{**about, "lastTimestamp": stamp}]
        await cluster.settle()

    return act


def classes(**found: Object) -> Act:
    async def act(cluster: FakeCluster) -> None:
        cluster.classes = found
        await cluster.settle()

    return act


def provisioning(said: str) -> Act:
    async def act(cluster: FakeCluster) -> None:
        event = {"type": "Warning", "reason": "ProvisioningFailed", "message": said}
        cluster.about[uid_of(cluster.claim)] = [event]
        await cluster.settle()

    return act


async def lose_volume(cluster: FakeCluster) -> None:
    cluster.bind("Lost")
    await cluster.settle()


async def suspend(cluster: FakeCluster) -> None:
    cluster.job()["spec"]["suspend"] = True
    await cluster.settle()


async def resume(cluster: FakeCluster) -> None:
    cluster.job()["spec"]["suspend"] = False
    await cluster.settle()


async def volume(cluster: FakeCluster) -> None:
    cluster.bind()
    await cluster.settle()


async def new_claim(cluster: FakeCluster) -> None:
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    await cluster.settle()
    cluster.bind()
    await cluster.settle()


async def pod_starts(cluster: FakeCluster) -> None:
    """What the pod waited for is there by now."""
    cluster.of_kind("Pod")[-1]["status"] = {"phase": "Running"}
    await cluster.settle()


async def pod_has_gone(cluster: FakeCluster) -> None:
    """And the next one is at work."""
    cluster.remove("Pod", "models", name_of(cluster.of_kind("Pod")[-1]))
    await pod_is_made(cluster)


async def pod_is_made(cluster: FakeCluster) -> None:
    cluster.pod(phase="Running")
    await cluster.settle()


async def time_passes(cluster: FakeCluster) -> None:
    again = await cluster.settle()
    assert again is not None
    assert again <= 3602
    cluster.wait(seconds=again)
    await cluster.settle()


async def another_image(cluster: FakeCluster) -> None:
    cluster.artifact["spec"]["modelDownloadImage"] = "registry.test/right:1"
    await cluster.settle()


async def other_resources(cluster: FakeCluster) -> None:
    marks = cluster.artifact["metadata"]["annotations"]
    marks["aim.eai.amd.com/resources"] = '{"limits": {"memory": "1Gi"}}'
    await cluster.settle()


async def retry(cluster: FakeCluster) -> None:
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/retry"] = "please"
    await cluster.settle()


async def config(cluster: FakeCluster) -> None:
    cluster.put(
        {
            "apiVersion": "aim.eai.amd.com/v1alpha1",
            "kind": "AIMRuntimeConfig",
            "metadata": {"name": "default", "namespace": "models"},
            "spec": {"env": [{"name": "HF_TOKEN", "value": "right"}]},
        }
    )
    await cluster.settle()


EVICTED: Object = {"phase": "Failed", "reason": "Evicted", "message": "low on resource: memory"}
DISK: Object = {"storageClassName": "disks"}
DISRUPTED: Object = {
    "phase": "Failed",
    "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}],
}
DRAINED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
STOPPED = ended(143, json.dumps({"outcome": "cancelled", "exitCode": 143, "message": "SIGTERM"}))
PODS, JOB, VOLUME = "DownloadJobPodsReady", "DownloadJobReady", "CachePvcReady"

BAD_DAYS = {
    "image needs a password": BadDay(
        pod(**waiting("ErrImagePull", "pull access denied: 401 Unauthorized")),
        *("Failed", "AuthError", f"{PODS} ImagePullAuthFailure"),
        ("pull access denied", "spec.imagePullSecrets"),
        another_image,
    ),
    "image does not exist": BadDay(
        pod(**waiting("ErrImagePull", "manifest unknown")),
        *("Failed", "ReferenceNotFound", f"{PODS} ImageNotFound"),
        ("manifest unknown", "correct spec.modelDownloadImage"),
        another_image,
    ),
    "registry is away": BadDay(
        pod(**waiting("ErrImagePull", "i/o timeout")),
        *("Degraded", "InfrastructureError", f"{PODS} ImagePullBackOff"),
        ("i/o timeout", "pulled again by itself"),
        pod_starts,
    ),
    "Secret is missing": BadDay(
        pod(**waiting("CreateContainerConfigError", 'secret "hf" not found')),
        *("Failed", "ReferenceNotFound", f"{PODS} CreateContainerConfigError"),
        ("Secret 'hf' does not exist", "create it"),
        pod_starts,
    ),
    "no node has room": BadDay(
        pod(phase="Pending", conditions=NO_NODE),
        *("Pending", "Progressing", f"{PODS} FailedScheduling"),
        ("Insufficient cpu", "add a node"),
        pod_starts,
    ),
    "quota allows no pod": BadDay(
        unmade(f'pods "{DOWNLOAD}-x7k2p" is forbidden: exceeded quota: none, requested: pods=1'),
        *("Pending", "Progressing", f"{PODS} FailedCreate"),
        ("exceeded quota: none", "raise it"),
        pod_is_made,
    ),
    "LimitRange allows no such pod": BadDay(
        unmade('pods "x" is forbidden: minimum memory usage per Container is 1Gi, but 256Mi'),
        *("Degraded", "InfrastructureError", f"{PODS} FailedCreate"),
        ("minimum memory usage", "annotation aim.eai.amd.com/resources"),
        other_resources,
    ),
    "pod security allows no such pod": BadDay(
        unmade('pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile'),
        *("Degraded", "InfrastructureError", f"{PODS} FailedCreate"),
        ("violates PodSecurity", "level `restricted`"),
        another_image,
    ),
    "a webhook allows no pod": BadDay(
        unmade('admission webhook "policy.example" denied the request: no label team'),
        *("Degraded", "InfrastructureError", f"{PODS} FailedCreate"),
        ("no label team", "see what that webhook asks for"),
        pod_is_made,
    ),
    "Job is suspended": BadDay(
        suspend,
        *("Pending", "Progressing", f"{JOB} JobSuspended"),
        ("is suspended", "spec.suspend"),
        resume,
        event="JobSuspended",
    ),
    "storage class is missing": BadDay(
        classes(),
        *("Pending", "StorageClassNotFound", f"{VOLUME} StorageClassNotFound"),
        ("there is no storage class 'disks'", "create that class"),
        classes(disks=storage_class("disks")),
        begin=sized,
        spec=DISK,
    ),
    "no default storage class": BadDay(
        classes(other=storage_class("other")),
        *("Pending", "NoDefaultStorageClass", f"{VOLUME} NoDefaultStorageClass"),
        ("the cluster has no default one", "spec.storageClassName"),
        classes(other=storage_class("other", is_default=True)),
        begin=sized,
    ),
    "provisioning fails": BadDay(
        provisioning("the pool is full"),
        *("Pending", "PvcProvisioningFailed", f"{VOLUME} PvcProvisioningFailed"),
        ("the pool is full", "see what the provisioner"),
        volume,
        begin=sized,
    ),
    "volume is lost": BadDay(
        lose_volume,
        *("Degraded", "InfrastructureError", f"{VOLUME} PvcLost"),
        ("is gone", "delete the claim"),
        new_claim,
    ),
    "volume of a Ready model is lost": BadDay(
        lose_volume,
        *("Degraded", "InfrastructureError", f"{VOLUME} PvcLost"),
        ("is gone", "bring its PersistentVolume back"),
        volume,
        begin=complete,
    ),
    "memory runs out": BadDay(
        ends(**ended(137, reason="OOMKilled")),
        *("Failed", "PodOOMKilled", f"{PODS} PodOOMKilled"),
        ("the kernel killed it", "raise its memory limit with spec.resources"),
        other_resources,
    ),
    # By its policy our Job goes on after those.
    "pod is evicted": BadDay(
        pod(**EVICTED),
        *("Progressing", "Progressing", f"{PODS} PodEvicted"),
        ("low on resource: memory", "another pod is about to start"),
        pod_is_made,
        event="Retrying",
    ),
    "pod is about to be evicted": BadDay(
        pod(phase="Running", conditions=[*ON_NODE, *DRAINED]),
        *("Degraded", "InfrastructureError", f"{PODS} PodEvicted"),
        ("as for a drained node", "goes on where it stopped"),
        pod_has_gone,
    ),
    "node goes": BadDay(
        pod(**DISRUPTED),
        *("Progressing", "Progressing", f"{PODS} PodEvicted"),
        ("its node is gone", "another pod is about to start"),
        pod_is_made,
        event="Retrying",
    ),
    "pod is evicted, and its Job, which another operator has made, ends": BadDay(
        ends(**EVICTED),
        *("Degraded", "InfrastructureError", f"{PODS} PodEvicted"),
        ("low on resource: memory", "goes on where it stopped"),
        time_passes,
    ),
    "deadline of the Job": BadDay(
        ends("DeadlineExceeded", **STOPPED),
        *("Failed", "JobDeadlineExceeded", f"{JOB} JobDeadlineExceeded"),
        ("longer than specified deadline", "activeDeadlineSeconds"),
        time_passes,
        event="JobDeadlineExceeded",
    ),
    "deadline of the Job, whose pods are gone": BadDay(
        no_pod_at_the_deadline,
        *("Failed", "JobDeadlineExceeded", f"{JOB} JobDeadlineExceeded"),
        ("longer than specified deadline", "activeDeadlineSeconds"),
        time_passes,
        event="JobDeadlineExceeded",
    ),
    "deadline of the pod": BadDay(
        ends("DeadlineExceeded", phase="Failed", reason="DeadlineExceeded"),
        *("Failed", "PodDeadlineExceeded", f"{JOB} JobDeadlineExceeded"),
        ("longer than it may", "give it more time"),
        time_passes,
        event="PodDeadlineExceeded",
    ),
    "token may not read it": BadDay(
        ends(**ours(77, "gated", error="AccessDeniedError")),
        *("Failed", "AuthError", f"{PODS} AuthError"),
        ("gated", "HF_TOKEN", "tried again at"),
        config,
    ),
    "token may not read it, and nobody tells us that it may now": BadDay(
        ends(**ours(77, "gated", error="AccessDeniedError")),
        *("Failed", "AuthError", f"{PODS} AuthError"),
        ("gated",),
        time_passes,
    ),
    "no such repository": BadDay(
        ends(**ours(66, "there is no such repository")),
        *("Failed", "InvalidSpec", f"{PODS} SourceNotFound"),
        ("there is no such repository", "aim.eai.amd.com/retry"),
        retry,
    ),
    "Hub is away": BadDay(
        ends(**ours(75, "the Hub cannot be reached")),
        *("Failed", "PodFailed", f"{PODS} PodFailed"),
        ("the Hub cannot be reached", "tried again at"),
        time_passes,
    ),
}


@pytest.mark.parametrize("day", BAD_DAYS.values(), ids=BAD_DAYS)
async def test_a_bad_day_has_a_state_a_reason_words_and_a_way_back(day: BadDay) -> None:
    cluster = cluster_with(artifact(day.spec))
    cluster.classes = {name: storage_class(name) for name in ("disks", "standard")}
    cluster.classes["standard"] = storage_class("standard", is_default=True)
    await day.begin(cluster)
    before = len(cluster.told)
    await day.strike(cluster)
    condition, reason = day.told.split()
    assert cluster.status["status"] == day.status
    assert reasons(cluster.status)["Ready"] == f"False {day.ready}"
    assert reasons(cluster.status)[condition] == f"False {reason}"
    for words in day.words:
        assert words in message(cluster, "Ready")
    # People hear of it once, and it is written once.
    warned = [each for kind, each, _ in cluster.told[before:] if kind == "Warning"]
    assert warned == [day.event or reason]
    writes, events = cluster.writes.total(), len(cluster.told)
    cluster.wait(seconds=15)
    await cluster.settle()
    assert (cluster.writes.total(), len(cluster.told)) == (writes, events)
    # The way back.
    await day.cure(cluster)
    cluster.bind()
    await cluster.settle()
    assert cluster.status["status"] in ("Progressing", "Ready")
    cluster.wait(minutes=1)
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert {each.split()[0] for each in reasons(cluster.status).values()} == {"True"}
    assert "aim.eai.amd.com/retry-state" not in annotations_of(cluster.artifact)
    assert len([each for _, each, _ in cluster.told if each == (day.event or reason)]) == 1


# -- more than one thing at a time ---------------------------------------------------------------


@pytest.mark.parametrize("gone", ["by hand", "by hand, its pods stay"])
async def test_a_job_that_somebody_deleted_is_made_anew_at_once(gone: str) -> None:
    cluster = cluster_with()
    await running(cluster)
    old = uid_of(cluster.job())
    if gone == "by hand":
        cluster.remove("Job", "models", DOWNLOAD)
    else:
        job = cluster.objects.pop(KEY._replace(kind="Job", name=DOWNLOAD))
        assert uid_of(job) == old
    await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"
    lost = [said for *about, said in cluster.told if about == ["Warning", "JobLost"]]
    assert lost == [f"Job {DOWNLOAD} was at work when last seen, and is gone: a new one goes on"]
    # The percentage is not that of the pod that has gone.
    assert cluster.status["progress"]["percentage"] == 0


async def test_an_account_that_comes_a_moment_after_the_job_is_no_trouble() -> None:
    cluster = cluster_with()
    await bound(cluster)
    said = 'Error creating: pods "x-" is forbidden: error looking up service account: not found'
    stamp = timestamp(cluster.now)
    event = {"type": "Warning", "reason": "FailedCreate", "message": said, "lastTimestamp": stamp}
    cluster.about[uid_of(cluster.job())] = [event]
    assert await cluster.settle() == PROGRESS_S
    assert cluster.status["status"] == "Progressing"
    cluster.wait(seconds=PROGRESS_S)
    await cluster.settle()
    assert cluster.status["status"] == "Degraded"


def unmounted(said: str) -> Act:
    """A pod waits for a volume."""

    async def act(cluster: FakeCluster) -> None:
        containers = waiting("ContainerCreating", "")["containerStatuses"]
        pod = cluster.pod(phase="Pending", conditions=ON_NODE, containerStatuses=containers)
        event = {"type": "Warning", "reason": "FailedMount", "message": said}
        cluster.about[uid_of(pod)] = [event]
        await cluster.settle()

    return act


@pytest.mark.parametrize(
    "strike",
    [
        unmade(f'pods "{DOWNLOAD}-x7k2p" is forbidden: serviceaccount "{DOWNLOAD}" not found'),
        unmounted(f'failed to fetch token: serviceaccounts "{DOWNLOAD}" not found'),
    ],
    ids=["no pod can be made", "a pod gets no token"],
)
async def test_an_account_that_goes_comes_again_though_the_job_is_there(strike: Act) -> None:
    cluster = cluster_with()
    await bound(cluster)
    rights = ("ServiceAccount", "Role", "RoleBinding")
    before = [name_of(each) for kind in rights for each in cluster.of_kind(kind)]
    for kind in rights:
        (gone,) = cluster.of_kind(kind)
        cluster.remove(kind, "models", name_of(gone))
    await strike(cluster)
    assert [name_of(each) for kind in rights for each in cluster.of_kind(kind)] == before
    assert "the operator makes it again" in message(cluster, PODS)
    writes = cluster.writes.total()
    assert await cluster.reconcile() == PROGRESS_S
    assert cluster.writes.total() == writes


async def test_what_could_not_be_made_before_a_pod_came_says_nothing_of_it() -> None:
    cluster = cluster_with()
    await bound(cluster)
    await unmade("exceeded quota: none")(cluster)
    cluster.wait(seconds=30)
    pod = cluster.pod(phase="Running")
    await cluster.settle()
    pod["status"] = ours(75, "the Hub cannot be reached")
    await cluster.settle()
    assert reasons(cluster.status)[PODS] == "False PodFailed"


async def test_words_that_differ_only_in_numbers_and_names_of_pods_cost_no_write() -> None:
    cluster = cluster_with()
    await bound(cluster)
    await unmade(f'pods "{DOWNLOAD}-aaaaa" is forbidden: exceeded quota: q, used: pods=7')(cluster)
    writes, events = cluster.writes.total(), len(cluster.told)
    for number in range(5):
        said = f'pods "{DOWNLOAD}-bbbb{number}" is forbidden: exceeded quota: q, used: pods=3'
        await unmade(said)(cluster)
    assert (cluster.writes.total(), len(cluster.told)) == (writes, events)


async def test_size_jobs_that_failed_do_not_count_for_the_download() -> None:
    cluster = cluster_with()
    await new(cluster)
    for _ in range(3):
        cluster.pod(SIZE, **ended(1))
        cluster.fail(SIZE)
        again = await cluster.settle()
        assert again is not None
        cluster.wait(seconds=again)
        await cluster.settle()
    cluster.tell_size()
    await cluster.settle()
    cluster.pod(**ours(75, "the Hub cannot be reached"))
    cluster.fail()
    again = await cluster.settle()
    assert again is not None
    assert again < 75
    assert "(attempt" not in message(cluster, "Ready")


async def test_a_size_that_another_has_found_ends_the_wait_for_the_next_size_job() -> None:
    cluster = cluster_with()
    await new(cluster)
    cluster.pod(SIZE, **ours(66, "there is no such repository"))
    cluster.fail(SIZE)
    await cluster.settle()
    assert cluster.status["status"] == "Failed"
    cluster.patch(cluster.artifact, {"discoveredSizeBytes": 5000})
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert cluster.has_job()


@pytest.mark.parametrize("job", ["at work", "about to be gone"])
async def test_a_status_that_says_ready_does_not_make_half_a_model_ready(job: str) -> None:
    cluster = cluster_with()
    await running(cluster)
    if job != "at work":
        cluster.job()["metadata"]["deletionTimestamp"] = timestamp(cluster.now)
    stamp = timestamp(cluster.now)
    true = {"type": "Ready", "status": "True", "reason": "AllComponentsReady", "message": ""}
    cluster.status["status"] = "Ready"
    cluster.status["conditions"] = [{**true, "lastTransitionTime": stamp}]
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"


@pytest.mark.parametrize("reach", [running, job_gone], ids=["at work", "Ready"])
async def test_a_status_that_names_another_claim_is_put_right(reach: Act) -> None:
    cluster = cluster_with()
    await reach(cluster)
    cluster.patch(cluster.artifact, {"persistentVolumeClaim": "another", "allocatedSize": "1Ti"})
    await cluster.settle()
    assert cluster.status["persistentVolumeClaim"] == CLAIM
    assert cluster.status["allocatedSize"] == "10Gi"


async def test_a_status_with_a_size_that_no_model_has_lets_no_claim_grow() -> None:
    cluster = cluster_with(artifact({"size": "8Gi"}))
    cluster.classes = {"standard": storage_class("standard", is_default=True, grows=True)}
    await new(cluster)
    cluster.bind()
    cluster.patch(cluster.artifact, {"discoveredSizeBytes": 2**62})
    await cluster.settle()
    assert at(cluster.claim, "spec.resources.requests.storage") == "9Gi"


@pytest.mark.parametrize(
    ("minutes", "again"), [(0, 10), (1, 10), (3, 30), (5.5, 55), (6, 60), (600, 60)]
)
async def test_the_longer_a_job_takes_the_less_often_it_is_looked_at(
    minutes: float, again: float
) -> None:
    cluster = cluster_with()
    await running(cluster)
    cluster.wait(minutes=minutes)
    assert await cluster.settle() == again


@pytest.mark.parametrize("stamp", ["0000-01-01T00:00:00Z", "2026-01-31T10:00:00|02:00"])
async def test_a_time_that_the_server_takes_and_nobody_can_read_stops_nothing(stamp: str) -> None:
    cluster = cluster_with()
    await job_gone(cluster)
    for condition in cluster.status["conditions"]:
        condition["lastTransitionTime"] = stamp
    await cluster.settle()
    # Of which claim it was said cannot be known.
    assert cluster.status["status"] == "Progressing"
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


ANOTHER = type(OPTIONS)(default_download_image="registry.test/another:2")


@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(ends(**ours(66, "there is no such repository")), id="failed"),
        pytest.param(pod(**waiting("ErrImagePull", "i/o timeout")), id="waits"),
        pytest.param(pod(phase="Running"), id="at work"),
    ],
)
async def test_two_operators_of_different_images_do_not_fight(strike: Act) -> None:
    cluster = cluster_with()
    await bound(cluster)
    await strike(cluster)
    old = uid_of(cluster.job())
    writes = cluster.writes.total()
    for _ in range(5):
        cluster.wait(seconds=10)
        await cluster.reconcile(options=ANOTHER)
        await cluster.reconcile()
    assert uid_of(cluster.job()) == old
    assert cluster.writes.total() == writes


async def test_a_pod_that_is_on_its_way_is_left_to_go_on_though_the_spec_has_changed() -> None:
    cluster = cluster_with()
    await bound(cluster)
    await pod(phase="Pending", conditions=ON_NODE)(cluster)
    old = uid_of(cluster.job())
    await another_image(cluster)
    assert uid_of(cluster.job()) == old


@pytest.mark.parametrize(
    ("reason", "told"),
    [("3: no such thing!", "nosuchthing"), ("Err" * 99, ("Err" * 99)[:128]), ("-", "Unknown")],
)
async def test_a_reason_that_the_server_would_not_take_is_made_one(reason: str, told: str) -> None:
    cluster = cluster_with()
    await bound(cluster)
    await pod(**waiting(reason, "what the node says"))(cluster)
    assert reasons(cluster.status)[PODS] == f"False {told}"
    assert "what the node says" in message(cluster, "Ready")


async def test_of_many_pods_that_wait_a_few_are_asked_why() -> None:
    class Counting(FakeCluster):
        asked = 0

        async def events_of(self, uid: str, namespace: str) -> list[Object]:
            self.asked += 1
            return await super().events_of(uid, namespace)

    cluster = Counting()
    cluster.put(artifact({"size": "5Gi", "shards": 200}))
    await cluster.settle()
    cluster.bind()
    for _ in range(200):
        cluster.pod(phase="Pending", conditions=ON_NODE)
    event = {"type": "Warning", "reason": "FailedMount", "message": "the server is away"}
    cluster.about = {uid_of(each): [event] for each in cluster.of_kind("Pod")}
    cluster.asked = 0
    await cluster.reconcile()
    assert cluster.asked <= 10
    assert reasons(cluster.status)[PODS] == "False FailedMount"


async def test_a_corrected_default_image_cures_what_waits_for_the_wrong_one() -> None:
    cluster = cluster_with()
    await bound(cluster)
    await pod(**waiting("ErrImagePull", "manifest unknown"))(cluster)
    cluster.wait(minutes=11)
    await cluster.settle(ANOTHER)
    container = at(cluster.job(), "spec.template.spec.containers")[0]
    assert container["image"] == "registry.test/another:2"


async def test_hostile_words_in_the_note_about_retries_do_no_harm() -> None:
    cluster = cluster_with()
    await failed(cluster)
    cluster.remove("Job", "models", DOWNLOAD)
    marks = annotations_of(cluster.artifact)
    note = marks["aim.eai.amd.com/retry-state"]
    hostile = note.replace('"reason":"PodFailed"', '"reason":"no reason","status":"Ready"')
    assert hostile != note
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/retry-state"] = hostile
    await cluster.settle()
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)[PODS] == "False JobFailed"


async def test_a_claim_deleted_while_ready_is_filled_anew_and_never_ready_when_empty() -> None:
    cluster = cluster_with()
    await complete(cluster)
    cluster.wait(minutes=1)
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    seen = []
    for _ in range(6):
        await cluster.reconcile()
        seen.append(cluster.status["status"])
    cluster.bind()
    await cluster.settle()
    assert set(seen) == {"Progressing"}
    assert ("Warning", "ModelLost") in [each[:2] for each in cluster.told]
    assert name_of(cluster.claim) == CLAIM
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


@pytest.mark.parametrize("reach", [bound, complete, failed], ids=["empty", "full", "failed"])
@pytest.mark.parametrize("taken", ["ownerReferences", "labels"])
async def test_a_claim_that_lost_its_owner_or_its_label_gets_it_back(
    reach: Act, taken: str
) -> None:
    cluster = cluster_with()
    await reach(cluster)
    cluster.claim["spec"]["accessModes"] = ["ReadWriteOnce"]
    cluster.claim["spec"]["volumeName"] = "pvc-1"
    before = {**cluster.claim["metadata"]}
    del cluster.claim["metadata"][taken]
    await cluster.settle()
    assert cluster.claim["metadata"][taken] == before[taken]
    # What cannot be changed is left as it is.
    assert cluster.claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert cluster.claim["spec"]["volumeName"] == "pvc-1"
    cluster.remove(*KEY)
    assert not cluster.of_kind("PersistentVolumeClaim")


async def test_a_claim_that_another_object_controls_is_left_to_it() -> None:
    cluster = cluster_with()
    await bound(cluster)
    theirs = [{"kind": "Other", "name": "x", "uid": "theirs", "controller": True}]
    cluster.claim["metadata"]["ownerReferences"] = theirs
    writes = cluster.writes.total()
    await cluster.settle()
    assert cluster.claim["metadata"]["ownerReferences"] == theirs
    assert cluster.writes.total() == writes


def message(cluster: FakeCluster, kind: str) -> str:
    """What a condition says."""
    found = next(each for each in cluster.status["conditions"] if each["type"] == kind)
    return str(found["message"])
