"""From an artifact to Ready: what is done in which situation, and what the status says then."""

from __future__ import annotations

import asyncio
import contextlib
import copy

import pytest

from operator_shim.artifact import LONGEST_S, PROGRESS_S, SOON_S
from operator_shim.cluster import ApiError
from operator_shim.keys import Key
from operator_shim.objects import (
    LABEL_ARTIFACT,
    Object,
    annotations_of,
    at,
    name_of,
    timestamp,
    uid_of,
)
from tests.operator.fakes import (
    CLAIM,
    DOWNLOAD,
    KEY,
    MODEL_BYTES,
    SIZE,
    START,
    FakeCluster,
    Killed,
    artifact,
    cluster_with,
    ended,
    ours,
    reasons,
    storage_class,
)

WITH_SIZE = {"size": "10Gi"}


async def downloading(spec: Object | None = None) -> FakeCluster:
    """A cluster in which the download Job has been made, and has no pod yet."""
    cluster = cluster_with(artifact(spec or WITH_SIZE))
    await cluster.settle()
    cluster.bind()
    await cluster.settle()
    assert cluster.has_job()
    return cluster


async def ready() -> FakeCluster:
    cluster = await downloading()
    cluster.pod(phase="Running")
    await cluster.settle()
    cluster.wait(minutes=5)
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    return cluster


# -- the road ------------------------------------------------------------------------------------


async def test_a_new_artifact_asks_for_its_size_and_nothing_else() -> None:
    cluster = cluster_with()
    again = await cluster.settle()
    assert {key.name for key in cluster.objects} == {"demo", SIZE}
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status) == {
        "Ready": "False Progressing",
        "RuntimeConfigReady": "True DefaultConfigNotFound",
        "CheckSizeJobReady": "False JobRunning",
        "CheckSizeJobPodsReady": "False PodsProgressing",
        "CachePvcReady": "False ResourceNotReady",
        "DownloadJobReady": "False ResourceNotReady",
        "DownloadJobPodsReady": "False NoPods",
        "DownloadComplete": "False Downloading",
    }
    assert again == PROGRESS_S


async def test_once_the_size_is_known_there_are_claim_account_and_download() -> None:
    cluster = cluster_with()
    await cluster.settle()
    cluster.tell_size()
    await cluster.settle()
    kinds = [key.kind for key in cluster.objects]
    assert {"PersistentVolumeClaim", "ServiceAccount", "Role", "RoleBinding"} < set(kinds)
    assert cluster.has_job()
    status = cluster.status
    assert status["discoveredSizeBytes"] == MODEL_BYTES
    assert status["displaySize"] == "8.5 GiB"
    assert status["persistentVolumeClaim"] == CLAIM
    assert (status["allocatedSize"], status["headroomPercent"]) == ("10Gi", 10)
    assert status["status"] == "Progressing"
    assert ("Normal", "SizeDiscovered", "the model has 8.5 GiB to download") in cluster.told


async def test_who_says_the_size_is_not_asked() -> None:
    cluster = await downloading({"size": "5Gi"})
    assert not cluster.has_job(SIZE)
    assert at(cluster.claim, "spec.resources.requests.storage") == "6Gi"
    assert "discoveredSizeBytes" not in cluster.status
    assert "CheckSizeJobReady" not in reasons(cluster.status)


async def test_ready_when_the_job_is_complete() -> None:
    cluster = await downloading()
    cluster.pod(phase="Running")
    cluster.patch(cluster.artifact, {"progress": {"percentage": 57}, "download": {"attempt": 1}})
    await cluster.settle()
    assert cluster.status["progress"] == {"percentage": 57}
    cluster.succeed()
    await cluster.settle()
    status = cluster.status
    assert status["status"] == "Ready"
    assert status["progress"] == {
        "percentage": 100,
        "displayPercentage": "100 %",
        "downloadedBytes": 10 * 2**30,
        "totalBytes": 10 * 2**30,
    }
    assert status["download"] == {"attempt": 1, "message": "Complete"}
    assert reasons(status) == {
        "Ready": "True AllComponentsReady",
        "RuntimeConfigReady": "True DefaultConfigNotFound",
        "CachePvcReady": "True Ready",
        "DownloadJobReady": "True Ready",
        "DownloadJobPodsReady": "True PodsReady",
        "DownloadComplete": "True Verified",
    }
    assert status["observedGeneration"] == 1
    assert cluster.told[-1] == ("Normal", "Ready", f"the model is on claim {CLAIM}")


async def test_ready_stays_when_the_job_has_gone_by_its_ttl() -> None:
    cluster = await ready()
    cluster.wait(minutes=11)
    writes = cluster.writes.total()
    cluster.remove("Job", "models", DOWNLOAD)
    assert await cluster.settle() is None
    assert cluster.status["status"] == "Ready"
    assert cluster.writes.total() == writes
    assert not cluster.has_job()


async def test_at_most_twelve_writes_and_few_events_from_nothing_to_ready() -> None:
    cluster = cluster_with()
    await cluster.settle()
    cluster.pod(SIZE, phase="Pending")
    await cluster.settle()
    cluster.remove("Pod", "models", name_of(cluster.of_kind("Pod")[0]))
    cluster.tell_size()
    await cluster.settle()
    cluster.bind()
    await cluster.settle()
    pod = cluster.pod(phase="Pending")
    await cluster.settle()
    pod["status"]["phase"] = "Running"
    await cluster.settle()
    for percentage in (10, 50, 90, 100):
        cluster.patch(cluster.artifact, {"progress": {"percentage": percentage}})
        await cluster.settle()
    cluster.succeed()
    await cluster.settle()
    cluster.remove("Job", "models", DOWNLOAD)
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert cluster.writes.total() <= 12, cluster.writes
    assert [reason for _, reason, _ in cluster.told] == [
        *("JobCreated", "SizeDiscovered", "ClaimCreated", "JobCreated", "Ready")
    ]


async def test_nothing_is_written_when_nothing_has_changed() -> None:
    cluster = await downloading()
    writes = cluster.writes.total()
    for _ in range(5):
        cluster.wait(minutes=5)
        await cluster.reconcile()
    assert cluster.writes.total() == writes


async def test_one_that_is_paused_or_on_its_way_out_is_left_alone() -> None:
    paused = artifact(annotations={"aim.eai.amd.com/reconciliation-paused": "true"})
    leaving = artifact(deletionTimestamp=timestamp(START))
    for each in (paused, leaving):
        cluster = cluster_with(each)
        assert await cluster.reconcile() is None
        assert not cluster.writes
    assert await FakeCluster().reconcile() is None


# -- pods ----------------------------------------------------------------------------------------


async def test_where_nothing_may_begin_no_pod_is_told_of() -> None:
    cluster = cluster_with(artifact({"runtimeConfigName": "nowhere"}))
    await cluster.settle()
    assert cluster.status["status"] == "Failed"
    assert cluster.status["progress"] == {"displayPercentage": "N/A"}
    assert reasons(cluster.status)["CheckSizeJobPodsReady"] == "False NoPods"
    assert message(cluster, "DownloadComplete") == "no download is under way"


async def test_no_progress_is_shown_before_a_download_whatever_has_failed() -> None:
    cluster = cluster_with(artifact({"runtimeConfigName": "nowhere"}))
    await cluster.settle()
    del cluster.artifact["spec"]["runtimeConfigName"]
    await cluster.settle()
    assert cluster.has_job(SIZE)
    assert cluster.status["progress"]["displayPercentage"] == ""
    cluster.tell_size()
    await cluster.settle()
    assert cluster.status["progress"]["displayPercentage"] == "0 %"


async def test_a_volume_that_is_being_made_is_no_trouble_until_it_takes_long() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    await cluster.settle()
    said = "0/1 nodes: pod has unbound immediate PersistentVolumeClaims"
    condition = {"type": "PodScheduled", "status": "False", "message": said}
    cluster.pod(phase="Pending", conditions=[condition])
    again = await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False PodsStarting"
    assert again is not None
    cluster.wait(seconds=again + 1)
    await cluster.settle()
    assert cluster.status["status"] == "Pending"
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False FailedScheduling"


NO_NODE = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient cpu"}]
ON_NODE = [{"type": "PodScheduled", "status": "True"}]
IMAGE_GONE = {"reason": "ErrImagePull", "message": "manifest unknown"}


@pytest.mark.parametrize(
    ("pod", "percentage", "status", "pods_ready", "complete"),
    [
        ({"phase": "Pending"}, None, "Progressing", "False PodsStarting", "False Downloading"),
        (
            {"phase": "Pending", "conditions": NO_NODE},
            None,
            "Pending",
            "False FailedScheduling",
            "False Downloading",
        ),
        (
            {"phase": "Pending", "conditions": ON_NODE},
            None,
            "Progressing",
            "False PodsStarting",
            "False Downloading",
        ),
        (
            {
                "phase": "Pending",
                "conditions": ON_NODE,
                "containerStatuses": [{"image": "x", "state": {"waiting": IMAGE_GONE}}],
            },
            None,
            "Failed",
            "False ImageNotFound",
            "False Downloading",
        ),
        # What an earlier pod has told counts for nothing.
        ({"phase": "Pending"}, 100, "Progressing", "False PodsStarting", "False Downloading"),
        ({"phase": "Running"}, 0, "Progressing", "True PodsReady", "False Downloading"),
        ({"phase": "Running"}, 99, "Progressing", "True PodsReady", "False Downloading"),
        ({"phase": "Running"}, 100, "Progressing", "True PodsReady", "True Verifying"),
        # One has failed, and there will be two more.
        (ended(1), 40, "Progressing", "False PodFailed", "False Downloading"),
        (ours(75, "no route"), 40, "Progressing", "False PodFailed", "False Downloading"),
    ],
)
async def test_what_a_pod_of_the_download_means(
    pod: Object, percentage: int | None, status: str, pods_ready: str, complete: str
) -> None:
    cluster = await downloading()
    cluster.pod(**pod)
    if percentage is not None:
        cluster.patch(cluster.artifact, {"progress": {"percentage": percentage}})
    await cluster.settle()
    assert cluster.status["status"] == status
    assert reasons(cluster.status)["DownloadJobPodsReady"] == pods_ready
    assert reasons(cluster.status)["DownloadComplete"] == complete


async def test_a_pod_without_a_node_for_long_is_told_as_pending() -> None:
    cluster = await downloading()
    cluster.pod(phase="Pending")
    cluster.wait(seconds=30)
    await cluster.settle()
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False PodsPending"


async def test_a_failed_pod_and_then_a_good_one_is_ready_with_nothing_left_of_the_failure() -> None:
    cluster = await downloading()
    cluster.pod(**ours(75, "the Hub cannot be reached"))
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert "the Hub cannot be reached" in message(cluster, "Ready")
    assert cluster.told[-1][:2] == ("Warning", "Retrying")
    cluster.wait(seconds=20)
    cluster.pod(phase="Running")
    await cluster.settle()
    assert "1 failed pod: the Hub cannot be reached" in message(cluster, "DownloadJobPodsReady")
    cluster.succeed()
    await cluster.settle()
    assert {each.split()[0] for each in reasons(cluster.status).values()} == {"True"}


async def test_a_pod_after_which_there_is_no_other_is_not_told_as_retried() -> None:
    cluster = await downloading()
    cluster.pod(**ours(66, "there is no such repository"))
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert "its Job is about to end" in message(cluster, "Ready")
    assert "Retrying" not in [reason for _, reason, _ in cluster.told]


async def test_a_pod_that_only_prints_such_words_has_another_after_it() -> None:
    cluster = await downloading()
    pod = cluster.pod(**ended(1))
    cluster.printed[name_of(pod)] = ["Repository Not Found: org/model"]
    await cluster.settle()
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False SourceNotFound"
    assert "another pod is about to start" in message(cluster, "Ready")


# -- failures ------------------------------------------------------------------------------------


async def failed(code: int, said: str, **job: str) -> FakeCluster:
    cluster = await downloading()
    cluster.pod(**ours(code, said))
    cluster.fail(**job)
    await cluster.settle()
    return cluster


@pytest.mark.parametrize(
    ("code", "status", "ready", "retried"),
    [
        (69, "Failed", "PodFailed", True),
        (75, "Failed", "PodFailed", True),
        (77, "Failed", "AuthError", True),
        (66, "Failed", "InvalidSpec", False),
        (2, "Failed", "InvalidSpec", False),
        (73, "Failed", "StorageFull", True),
    ],
)
async def test_a_failed_job_is_told_with_what_helps_and_when_it_is_tried_again(
    code: int, status: str, ready: str, retried: bool
) -> None:
    cluster = await failed(code, "what went wrong")
    assert cluster.status["status"] == status
    assert reasons(cluster.status)["Ready"] == f"False {ready}"
    assert reasons(cluster.status)["DownloadJobReady"] == "False JobBackoffLimitExceeded"
    assert cluster.status["progress"]["displayPercentage"] == "N/A"
    assert "what went wrong; " in message(cluster, "Ready")
    again = "tried again at 2026-01-31T1" if retried else "not tried again before the spec"
    assert again in message(cluster, "Ready")
    assert cluster.told[-1][0] == "Warning"
    assert "what went wrong" in cluster.told[-1][2]


async def test_a_failed_job_is_made_anew_when_its_time_has_come_and_not_before() -> None:
    cluster = await failed(75, "the Hub cannot be reached")
    old = uid_of(cluster.job())
    again = await cluster.settle()
    assert again is not None
    assert 60 <= again <= 75
    cluster.wait(seconds=30)
    await cluster.settle()
    assert uid_of(cluster.job()) == old
    cluster.wait(seconds=again - 30)
    await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"
    assert cluster.status["progress"]["displayPercentage"] == "0 %"
    cluster.pod(**ours(75, "still not"))
    cluster.fail()
    again = await cluster.settle()
    assert again is not None
    assert again > 119
    assert "(attempt 2)" in message(cluster, "Ready")


@pytest.mark.parametrize("gone", [("Job", DOWNLOAD), ("Pod", None)])
async def test_what_failed_is_still_told_when_job_or_pods_are_gone(
    gone: tuple[str, str | None],
) -> None:
    cluster = await failed(66, "there is no such repository")
    before = cluster.status
    kind, name = gone
    cluster.remove(kind, "models", name or name_of(cluster.of_kind(kind)[0]))
    cluster.wait(hours=3)
    assert await cluster.settle() is None
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["Ready"] == "False InvalidSpec"
    assert message(cluster, "Ready").count("there is no such repository") == 1
    assert reasons(cluster.status) == reasons(before) or kind == "Job"
    if kind == "Job":
        assert not cluster.has_job()


class SilentNode(FakeCluster):
    """A node of which no log can be had."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.error = ApiError("cannot read the log", status, "", "the node does not answer")

    async def logs(self, pod: str, namespace: str, container: str, lines: int = 50) -> list[str]:
        raise self.error


@pytest.mark.parametrize("status", [500, 502, 0])
async def test_what_failed_is_told_though_no_log_can_be_had(status: int) -> None:
    cluster = SilentNode(status)
    cluster.put(artifact({**WITH_SIZE, "modelDownloadImage": "amdenterpriseai/kserve:1"}))
    await cluster.settle()
    cluster.bind()
    await cluster.settle()
    cluster.pod(**ended(1))
    cluster.fail()
    if status:
        await cluster.settle()
        assert cluster.status["status"] == "Failed"
        assert "exit code 1" in message(cluster, "Ready")
        return
    # Nobody answers at all: the next pass may hear more.
    with pytest.raises(ApiError):
        await cluster.reconcile()
    assert cluster.status["status"] == "Progressing"


async def test_words_of_a_pod_that_cannot_be_shown_are_left_out() -> None:
    cluster = await failed(75, "red \x1b[31m, half \ud800 a letter,\x00 next\nline, ünd Ω …")
    said = message(cluster, "Ready")
    assert said.isprintable()
    for words in ("red", "half", "a letter,", "next line, ünd Ω …; "):
        assert words in said
    assert all(words.isprintable() for *_, words in cluster.told)


@pytest.mark.parametrize("job_is_there", [True, False])
async def test_what_failed_is_still_told_after_something_else_was_wrong(job_is_there: bool) -> None:
    cluster = await failed(77, "the token may not read it")
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/access-mode"] = "Any"
    await cluster.settle()
    assert reasons(cluster.status)["Ready"] == "False InvalidSpec"
    assert reasons(cluster.status)["DownloadJobReady"] == "False JobBackoffLimitExceeded"
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False AuthError"
    if not job_is_there:
        cluster.remove("Job", "models", DOWNLOAD)
        await cluster.settle()
        assert reasons(cluster.status)["DownloadJobPodsReady"] == "False NoPods"
    del cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/access-mode"]
    await cluster.settle()
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False AuthError"
    assert reasons(cluster.status)["Ready"] == "False AuthError"
    assert "the token may not read it" in message(cluster, "Ready")


async def test_what_a_failed_job_says_is_told_though_nobody_has_heard_its_pods() -> None:
    cluster = await downloading()
    cluster.pod(**ours(77, "the token may not read it"))
    cluster.fail()
    # Killed between the two writes: what failed is counted, and not told.
    cluster.writes_left = 1
    with pytest.raises(Killed):
        await cluster.reconcile()
    cluster.writes_left = None
    cluster.remove("Pod", "models", name_of(cluster.of_kind("Pod")[0]))
    await cluster.settle()
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["DownloadJobPodsReady"] == "False AuthError"


async def test_a_failed_job_is_not_told_as_at_work_while_its_claim_goes() -> None:
    cluster = await failed(75, "the Hub cannot be reached")
    cluster.claim["metadata"]["deletionTimestamp"] = timestamp(cluster.now)
    cluster.job()["metadata"]["finalizers"] = ["someone/else"]
    await cluster.reconcile()
    assert "Retrying" not in [reason for _, reason, _ in cluster.told]
    assert "JobRunning" not in reasons(cluster.status)["DownloadJobReady"]


@pytest.mark.parametrize("change", ["spec", "annotation", "config"])
async def test_a_changed_input_is_tried_at_once(change: str) -> None:
    cluster = await failed(66, "there is no such repository")
    env = [{"name": "HF_ENDPOINT", "value": "https://mirror"}]
    if change == "spec":
        cluster.artifact["spec"]["env"] = env
    elif change == "annotation":
        cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/retry"] = "now"
    else:
        cluster.put(runtime_config(env=env))
    old = uid_of(cluster.job())
    await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert "aim.eai.amd.com/retry-state" not in annotations_of(cluster.artifact)


async def test_a_job_that_waits_for_its_image_in_vain_is_made_anew_with_another_image() -> None:
    cluster = await downloading()
    waiting = [{"image": "x", "state": {"waiting": IMAGE_GONE}}]
    cluster.pod(phase="Pending", conditions=ON_NODE, containerStatuses=waiting)
    await cluster.settle()
    assert reasons(cluster.status)["Ready"] == "False ReferenceNotFound"
    cluster.artifact["spec"]["modelDownloadImage"] = "registry.test/other:2"
    await cluster.settle()
    image = at(cluster.job(), "spec.template.spec.containers")[0]["image"]
    assert image == "registry.test/other:2"


async def test_a_job_at_work_is_not_touched_by_a_changed_spec() -> None:
    cluster = await downloading()
    cluster.pod(phase="Running")
    old = uid_of(cluster.job())
    cluster.artifact["spec"]["env"] = [{"name": "A", "value": "b"}]
    await cluster.settle()
    assert uid_of(cluster.job()) == old


async def test_nor_is_one_whose_second_pod_is_at_work() -> None:
    cluster = await downloading()
    cluster.pod(**ended(1))
    cluster.pod(phase="Running")
    old = uid_of(cluster.job())
    cluster.artifact["spec"]["env"] = [{"name": "A", "value": "b"}]
    await cluster.settle()
    assert uid_of(cluster.job()) == old


async def test_a_job_that_fails_after_its_inputs_have_changed_is_made_anew_at_once() -> None:
    cluster = await downloading()
    cluster.pod(phase="Running")
    cluster.artifact["spec"]["env"] = [{"name": "A", "value": "b"}]
    await cluster.settle()
    old = uid_of(cluster.job())
    cluster.of_kind("Pod")[0]["status"] = ours(66, "there is no such repository")
    cluster.fail()
    await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"


async def test_a_job_on_its_way_out_is_waited_for() -> None:
    cluster = await failed(66, "there is no such repository")
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/retry"] = "1"
    cluster.job()["metadata"]["deletionTimestamp"] = timestamp(cluster.now)
    old = uid_of(cluster.job())
    assert await cluster.settle() == SOON_S
    assert uid_of(cluster.job()) == old
    assert not cluster.writes["delete"]


@pytest.mark.parametrize("answer", ["", "no JSON", '{"url": "hf://x", "sizeBytes": 0}', "[1]"])
async def test_an_answer_without_a_size_is_told_and_asked_for_again(answer: str) -> None:
    cluster = cluster_with()
    await cluster.settle()
    cluster.tell_size(answer or "\n")
    again = await cluster.settle()
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["CheckSizeOutputReady"] == "False InvalidSizeOutput"
    assert "set spec.size" in message(cluster, "Ready")
    assert again is not None
    cluster.wait(seconds=again)
    await cluster.settle()
    assert "CheckSizeOutputReady" not in reasons(cluster.status)
    cluster.tell_size()
    await cluster.settle()
    assert cluster.has_job()


async def test_a_failed_size_job_is_told_and_made_anew() -> None:
    cluster = cluster_with()
    await cluster.settle()
    cluster.pod(SIZE, **ended(1))
    cluster.printed[name_of(cluster.of_kind("Pod")[0])] = ["Repository Not Found: org/model"]
    cluster.fail(SIZE)
    again = await cluster.settle()
    assert reasons(cluster.status)["CheckSizeJobPodsReady"] == "False SourceNotFound"
    assert cluster.status["progress"] == {"displayPercentage": "N/A"}
    old = uid_of(cluster.job(SIZE))
    assert again is not None
    cluster.wait(seconds=again)
    await cluster.settle()
    assert uid_of(cluster.job(SIZE)) != old


async def test_a_size_job_that_fails_beside_an_old_download_is_made_anew() -> None:
    cluster = await downloading()
    cluster.wait(minutes=1)
    anew = {**cluster.claim, "metadata": {"name": CLAIM, "namespace": "models"}}
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    cluster.put(anew)
    del cluster.artifact["spec"]["size"]
    await cluster.settle()
    cluster.pod(SIZE, **ended(1))
    cluster.fail(SIZE)
    await cluster.settle()
    assert cluster.status["status"] == "Failed"


# -- claims --------------------------------------------------------------------------------------


async def test_a_claim_that_is_there_is_taken_as_it_is() -> None:
    theirs = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": "models", "labels": {"theirs": "yes"}},
        "spec": {"resources": {"requests": {"storage": "77Gi"}}},
        "status": {"phase": "Bound"},
    }
    cluster = cluster_with(artifact(WITH_SIZE), theirs)
    await cluster.settle()
    assert cluster.claim["spec"] == theirs["spec"]
    assert cluster.claim["metadata"]["labels"] == {"theirs": "yes"}
    assert cluster.status["allocatedSize"] == "77Gi"
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


async def test_another_operators_ready_artifact_stays_ready() -> None:
    cluster = await ready()
    cluster.remove("Job", "models", DOWNLOAD)
    their_status = {
        "status": "Ready",
        "persistentVolumeClaim": CLAIM,
        "conditions": [
            {
                **condition,
                "lastTransitionTime": timestamp(cluster.now),
                "message": "All components ready",
            }
            for condition in cluster.status["conditions"]
            if condition["type"] == "Ready"
        ],
    }
    cluster.artifact["status"] = their_status
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert not cluster.has_job()


async def test_an_answer_that_another_operator_could_not_use_is_told_as_past() -> None:
    cluster = cluster_with()
    await cluster.settle()
    theirs = {"reason": "InvalidSizeOutput", "message": "", "lastTransitionTime": timestamp(START)}
    condition = {"type": "CheckSizeOutputReady", "status": "False", **theirs}
    cluster.status["conditions"].append(condition)
    await cluster.settle()
    cluster.tell_size()
    for _ in range(2):
        await cluster.settle()
        assert reasons(cluster.status)["CheckSizeOutputReady"] == "True Ready"


@pytest.mark.parametrize("job_is_there", [True, False])
async def test_a_claim_that_vanished_is_made_and_filled_anew(job_is_there: bool) -> None:
    cluster = await ready()
    cluster.wait(minutes=1)
    old = uid_of(cluster.job())
    if not job_is_there:
        cluster.remove("Job", "models", DOWNLOAD)
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    assert await cluster.reconcile() == 0
    # First it is said, then there is an empty claim.
    assert cluster.status["status"] == "Progressing"
    assert not cluster.of_kind("PersistentVolumeClaim")
    await cluster.settle()
    cluster.bind()
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert uid_of(cluster.job()) != old
    assert cluster.status["progress"]["percentage"] == 0
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


async def test_a_claim_that_somebody_replaced_is_not_taken_for_the_full_one() -> None:
    cluster = await ready()
    cluster.remove("Job", "models", DOWNLOAD)
    cluster.wait(minutes=1)
    replaced = {**cluster.claim, "metadata": {"name": CLAIM, "namespace": "models"}}
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    cluster.put(replaced)
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert cluster.has_job()


@pytest.mark.parametrize(
    ("event", "reason", "hint"),
    [
        (
            ("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found'),
            "StorageClassNotFound",
            "create that class",
        ),
        (
            (
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            ),
            "NoDefaultStorageClass",
            "spec.storageClassName",
        ),
        (
            ("ProvisioningFailed", "NodePath only supports ReadWriteOnce access modes"),
            "PvcProvisioningFailed",
            "access-mode: ReadWriteOnce",
        ),
        (("ProvisioningFailed", "quota exceeded"), "PvcProvisioningFailed", "provisioner"),
    ],
)
async def test_why_a_claim_has_no_volume_is_told_by_its_events(
    event: tuple[str, str], reason: str, hint: str
) -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    cluster.classes = None
    await cluster.settle()
    told = {"type": "Warning", "reason": event[0], "message": event[1]}
    cluster.about[uid_of(cluster.claim)] = [told]
    await cluster.settle()
    assert cluster.status["status"] == "Pending"
    assert reasons(cluster.status)["CachePvcReady"] == f"False {reason}"
    assert event[1].split(";")[0][:20] in message(cluster, "Ready") or reason.startswith("No")
    assert hint in message(cluster, "Ready")
    assert cluster.told[-1][:2] == ("Warning", reason)


@pytest.mark.parametrize(
    ("spec", "annotations", "expected"),
    [
        ({}, {}, "create that class"),
        ({"storageClassName": "other"}, {}, "by now another class or access mode is asked for"),
        ({}, {"aim.eai.amd.com/access-mode": "ReadWriteOncePod"}, "by now another class or access"),
    ],
)
async def test_who_has_corrected_the_class_or_mode_is_told_what_is_left_to_do(
    spec: Object, annotations: Object, expected: str
) -> None:
    cluster = cluster_with(artifact({**WITH_SIZE, "storageClassName": "nope"}))
    cluster.classes = {}
    await cluster.settle()
    assert "create that class" in message(cluster, "Ready")
    cluster.artifact["spec"] |= spec
    cluster.artifact["metadata"].setdefault("annotations", {}).update(annotations)
    await cluster.settle()
    assert expected in message(cluster, "Ready")
    assert f"kubectl delete pvc {CLAIM}" in message(cluster, "Ready")


async def test_a_lost_volume_is_degraded() -> None:
    cluster = await ready()
    cluster.bind("Lost")
    await cluster.settle()
    assert cluster.status["status"] == "Degraded"
    assert reasons(cluster.status)["CachePvcReady"] == "False PvcLost"


async def test_onto_a_lost_volume_nothing_is_downloaded() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    cluster.refuse = no_jobs
    with pytest.raises(ApiError):
        await cluster.reconcile()
    cluster.bind("Lost")
    cluster.refuse = lambda _: None
    await cluster.settle()
    assert not cluster.has_job()
    assert cluster.status["status"] == "Degraded"


async def test_a_clock_that_is_behind_the_servers_does_not_make_a_claim_look_new() -> None:
    cluster = await downloading()
    cluster.wait(hours=-1)
    cluster.succeed()
    await cluster.settle()
    cluster.remove("Job", "models", DOWNLOAD)
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert not cluster.has_job()


async def test_what_the_claim_asks_for_is_told_and_the_headroom_that_it_was_made_with() -> None:
    cluster = await downloading()
    cluster.put(runtime_config(storage={"pvcHeadroomPercent": 50}))
    cluster.claim["spec"]["resources"]["requests"]["storage"] = "99Gi"
    await cluster.settle()
    assert (cluster.status["allocatedSize"], cluster.status["headroomPercent"]) == ("99Gi", 10)


@pytest.mark.parametrize("seen_gone", [True, False])
async def test_of_a_new_claim_its_own_size_is_told(seen_gone: bool) -> None:
    cluster = await downloading()
    cluster.wait(minutes=1)
    cluster.artifact["spec"]["size"] = "20Gi"
    cluster.put(runtime_config(storage={"pvcHeadroomPercent": 50}))
    if seen_gone:
        cluster.remove("PersistentVolumeClaim", "models", CLAIM)
        await cluster.settle()
    else:
        anew = {**cluster.claim, "metadata": {"name": CLAIM, "namespace": "models"}}
        anew["spec"] = {"resources": {"requests": {"storage": "30Gi"}}}
        cluster.remove("PersistentVolumeClaim", "models", CLAIM)
        cluster.put(anew)
        await cluster.settle()
    assert (cluster.status["allocatedSize"], cluster.status["headroomPercent"]) == ("30Gi", 50)
    cluster.bind()
    await cluster.settle()
    assert cluster.status["allocatedSize"] == "30Gi"


async def test_a_claim_on_its_way_out_is_waited_for() -> None:
    cluster = await ready()
    cluster.claim["metadata"]["deletionTimestamp"] = timestamp(cluster.now)
    # Somebody's pod may hold it for days; that it is gone is heard.
    assert await cluster.settle() == PROGRESS_S
    assert cluster.status["status"] == "Progressing"
    assert "is being deleted" in message(cluster, "Ready")
    # A pod that has ended would still hold it, for as long as its Job is kept.
    assert not cluster.has_job()
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    await cluster.settle()
    assert not at(cluster.claim, "metadata.deletionTimestamp")
    assert cluster.has_job()


async def test_who_keeps_a_claim_that_is_to_go_is_told_with_what_to_do() -> None:
    cluster = await ready()
    volumes = [{"name": "model", "persistentVolumeClaim": {"claimName": CLAIM}}]
    goes = {"deletionTimestamp": timestamp(cluster.now)}
    of_job = {"labels": {LABEL_ARTIFACT: "demo"}}
    for name, spec, metadata in (
        # The operator takes its own Job away.
        ("downloads", {"nodeName": "one", "volumes": volumes}, of_job),
        ("serves-1", {"nodeName": "one", "volumes": volumes}, {}),
        ("serves-2", {"nodeName": "two", "volumes": volumes}, {}),
        # A new one has no node before the claim is there, and what goes already need not be told.
        ("waits", {"volumes": volumes}, {}),
        ("goes", {"nodeName": "one", "volumes": volumes}, goes),
        ("another", {"nodeName": "one", "volumes": []}, {}),
    ):
        about = {"name": name, "namespace": "models", **metadata}
        cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})
    cluster.claim["metadata"]["deletionTimestamp"] = timestamp(cluster.now)
    await cluster.settle()
    assert "`kubectl delete pod serves-1 serves-2`):" in message(cluster, "Ready")
    assert "a service has gone over to another artifact, its pods go by" in message(
        cluster, "Ready"
    )
    lost = next(said for _, reason, said in cluster.told if reason == "ModelLost")
    assert "`kubectl delete pod serves-1 serves-2`):" in lost
    cluster.remove("Pod", "models", "serves-1")
    await cluster.settle()
    assert "`kubectl delete pod serves-2`):" in message(cluster, "CachePvcReady")
    cluster.remove("Pod", "models", "serves-2")
    await cluster.settle()
    assert "kubectl" not in message(cluster, "Ready")


# -- what the spec and the configs say -----------------------------------------------------------


def runtime_config(name: str = "default", **spec: object) -> Object:
    return {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMRuntimeConfig",
        "metadata": {"name": name, "namespace": "models"},
        "spec": spec,
    }


async def test_a_missing_config_blocks_until_it_is_there() -> None:
    cluster = cluster_with(artifact({**WITH_SIZE, "runtimeConfigName": "fast"}))
    await cluster.settle()
    assert list(cluster.objects) == [KEY]
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["Ready"] == "False ReferenceNotFound"
    assert reasons(cluster.status)["ConfigValid"] == "False ReferenceNotFound"
    cluster.put(runtime_config("fast", storage={"defaultStorageClassName": "nvme"}))
    await cluster.settle()
    assert cluster.claim["spec"]["storageClassName"] == "nvme"
    assert reasons(cluster.status)["ConfigValid"] == "True ConfigurationValid"
    assert reasons(cluster.status)["RuntimeConfigReady"] == "True ConfigFound"
    assert message(cluster, "RuntimeConfigReady") == "AIMRuntimeConfig fast is taken into account"


async def test_a_ready_model_stays_ready_without_its_config() -> None:
    cluster = await ready()
    cluster.artifact["spec"]["runtimeConfigName"] = "gone"
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert reasons(cluster.status)["RuntimeConfigReady"] == "False ReferenceNotFound"


@pytest.mark.parametrize(
    ("spec", "annotations", "told"),
    [
        ({"shards": 4, "accessMode": "ReadWriteOnce"}, {}, "4 shards cannot write to one"),
        ({}, {"shards": "four"}, "'four' is no number"),
        ({}, {"access-mode": "Any"}, "'Any' is none of"),
        ({}, {"resources": "much"}, "write it as"),
        ({}, {"resources": '{"limits":' * 40_000}, "write it as"),
        ({}, {"resources": '{"requests": {"cpu": "lots"}}'}, "'lots' is no amount of cpu"),
        ({}, {"resources": '{"requests": "much"}'}, "write it as"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, {}, "'2 GB' is no amount of memory"),
        (
            {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": "900m"}}, "size": None},
            *({}, "spec.resources: requests 1 of cpu, more than its limit of 900m"),
        ),
        ({}, {"shards": "0000005000"}, "'0000005000' is no number"),
        ({}, {"shards": "1001"}, "'1001' is no number"),
        ({"size": "-1Gi"}, {}, "spec.size"),
        ({"size": "7.5Ei"}, {}, "is more than any model has"),
        ({"shards": 4}, {"foreign-image": "true"}, "need our image"),
    ],
)
async def test_what_cannot_be_is_refused_with_words(
    spec: Object, annotations: dict[str, str], told: str
) -> None:
    marks = {f"aim.eai.amd.com/{key}": value for key, value in annotations.items()}
    cluster = cluster_with(artifact({**WITH_SIZE, **spec}, marks))
    await cluster.settle()
    assert list(cluster.objects) == [KEY]
    assert reasons(cluster.status)["Ready"] == "False InvalidSpec"
    assert told in message(cluster, "Ready")


async def test_what_the_server_refuses_is_told_and_tried_again() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    cluster.refuse = no_jobs
    for _ in range(3):
        with pytest.raises(ApiError):
            await cluster.reconcile()
    assert cluster.status["status"] == "Degraded"
    assert reasons(cluster.status)["DependenciesReachable"] == "False InfrastructureError"
    assert "exceeded quota" in message(cluster, "Ready")
    assert cluster.status["persistentVolumeClaim"] == CLAIM
    assert cluster.writes["apply status"] == 1
    cluster.refuse = lambda _: None
    await cluster.settle()
    assert cluster.has_job()
    assert reasons(cluster.status)["DependenciesReachable"] == "True Reachable"


async def test_a_quota_that_allows_no_claim_is_told_with_what_to_do() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    why = "exceeded quota: disks, requested: requests.storage=11Gi, limited: requests.storage=1Gi"
    full = ApiError("cannot apply PersistentVolumeClaim", 403, "Forbidden", why)
    cluster.refuse = lambda each: full if each["kind"] == "PersistentVolumeClaim" else None
    with pytest.raises(ApiError):
        await cluster.reconcile()
    assert cluster.status["status"] == "Degraded"
    assert why in message(cluster, "Ready")
    assert "free some of the namespace's quota" in message(cluster, "Ready")
    assert message(cluster, "Ready").endswith("or raise it; it is tried again")


async def test_a_namespace_on_its_way_out_is_left_alone() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    why = "forbidden: unable to create new content because it is being terminated"
    cluster.refuse = lambda wanted: ApiError("cannot apply", 403, "Forbidden", why)
    with pytest.raises(ApiError):
        await cluster.reconcile()
    assert "status" not in cluster.artifact


@pytest.mark.parametrize("status", [0, 403, 429, 500])
async def test_an_event_that_cannot_be_posted_holds_nothing_up(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    lost = ApiError("cannot create Event", status, "Reason", "no Events now")
    cluster.refuse = lambda wanted: lost if wanted["kind"] == "Event" else None
    assert await cluster.reconcile() == PROGRESS_S
    assert cluster.has_job()
    assert cluster.status["status"] == "Progressing"
    # Of one pass it is said once.
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        "Events are lost (told now and then): cannot create Event: no Events now"
    ]


@pytest.mark.parametrize(
    "said",
    [
        'Internal error occurred: failed calling webhook "policy.example": no endpoints',
        "failed to create typed patch object (models/x; batch/v1, Kind=Job): .spec: wrong",
        "failed to convert new object to proper version: unable to parse quantity",
    ],
)
async def test_a_refusal_that_calls_itself_an_error_of_the_server_is_told(said: str) -> None:
    cluster = cluster_with(artifact(WITH_SIZE))
    away = ApiError("cannot apply Job", 500, "InternalError", said)
    cluster.refuse = lambda wanted: away if wanted["kind"] == "Job" else None
    with pytest.raises(ApiError):
        await cluster.reconcile()
    assert cluster.status["status"] == "Degraded"
    assert said in message(cluster, "Ready")


@pytest.mark.parametrize("percent", [10**9, 10**18])
async def test_a_headroom_that_nobody_can_mean_lets_no_claim_grow(percent: int) -> None:
    cluster = await downloading({"size": "1Gi"})
    cluster.classes = {"standard": storage_class("standard", is_default=True, grows=True)}
    cluster.status["headroomPercent"] = percent
    asked = at(cluster.claim, "spec.resources.requests.storage")
    await cluster.reconcile()
    assert at(cluster.claim, "spec.resources.requests.storage") == asked


# -- bad days ------------------------------------------------------------------------------------


async def road(cluster: FakeCluster) -> None:
    """The cluster and the operator, each in its turn, until all is done."""
    await cluster.settle()
    if cluster.has_job(SIZE) and not at(cluster.job(SIZE), "status"):
        cluster.tell_size()
    await cluster.settle()
    cluster.bind()
    await cluster.settle()
    if not at(cluster.job(), "status"):
        cluster.pod(phase="Running")
    await cluster.settle()
    cluster.wait(minutes=1)
    cluster.succeed()
    await cluster.settle()


def left(cluster: FakeCluster) -> Object:
    """What is there in the end, but for when and how often."""
    names = sorted((key.kind, key.name) for key in cluster.objects if key.kind != "Pod")
    status = {**cluster.status}
    status["conditions"] = reasons(status)
    return {"names": names, "status": status}


async def test_killed_before_any_write_and_started_anew_it_ends_the_same() -> None:
    whole = cluster_with()
    await road(whole)
    kills = 0
    while True:
        cluster = cluster_with()
        cluster.writes_left = kills
        try:
            await road(cluster)
        except Killed:
            cluster.writes_left = None
            await road(cluster)
        else:
            break
        assert left(cluster) == left(whole), f"killed after {kills} writes"
        assert cluster.writes.total() <= whole.writes.total() + 2
        kills += 1
    assert kills == whole.writes.total()
    assert left(whole)["status"]["status"] == "Ready"


async def test_killed_before_any_write_after_the_claim_has_vanished() -> None:
    for kills in range(8):
        cluster = await ready()
        cluster.wait(minutes=1)
        cluster.remove("PersistentVolumeClaim", "models", CLAIM)
        cluster.writes_left = kills
        with contextlib.suppress(Killed):
            await cluster.settle()
        cluster.writes_left = None
        if cluster.of_kind("PersistentVolumeClaim"):
            assert cluster.status["status"] != "Ready"
        await cluster.settle()
        cluster.bind()
        await cluster.settle()
        assert cluster.status["status"] == "Progressing", kills
        cluster.succeed()
        await cluster.settle()
        assert cluster.status["status"] == "Ready"


async def test_a_job_that_ends_while_it_is_looked_at_is_seen_with_its_pods() -> None:
    class EndsMeanwhile(FakeCluster):
        async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
            await asyncio.sleep(0)
            if name == SIZE and self.has_job(SIZE) and not at(self.job(SIZE), "status"):
                self.tell_size()
            return await super().get(kind, name, namespace)

    cluster = EndsMeanwhile()
    cluster.put(artifact())
    await cluster.reconcile()
    await cluster.reconcile()
    assert cluster.status["discoveredSizeBytes"] == MODEL_BYTES
    assert "CheckSizeOutputReady" not in reasons(cluster.status)


async def test_two_operators_at_once_do_no_harm() -> None:
    cluster = cluster_with()
    await cluster.settle()
    writes = cluster.writes.total()
    await cluster.reconcile()
    await cluster.reconcile()
    assert cluster.writes.total() == writes


@pytest.mark.parametrize("name", [SIZE, DOWNLOAD])
async def test_a_job_that_another_operator_makes_meanwhile_is_taken_as_it_is(name: str) -> None:
    cluster = cluster_with(artifact({} if name == SIZE else WITH_SIZE))

    def they_are_faster(wanted: Object) -> ApiError | None:
        if name_of(wanted) != name:
            return None
        cluster.refuse = lambda _: None
        theirs = {**wanted, "metadata": {**wanted["metadata"], "uid": "theirs"}}
        cluster.put(theirs)
        return ApiError("cannot apply Job", 422, "Invalid", "spec.template: field is immutable")

    cluster.refuse = they_are_faster
    await cluster.reconcile()
    assert uid_of(cluster.job(name)) == "theirs"
    assert cluster.status["status"] == "Progressing"
    assert "JobCreated" not in [reason for _, reason, _ in cluster.told]


@pytest.mark.parametrize("minutes", [1, -60])
async def test_what_a_job_waits_for_is_told_whatever_our_clock_says(minutes: int) -> None:
    cluster = await downloading()
    said = "pods are forbidden: exceeded quota: pods"
    cluster.about[uid_of(cluster.job())] = [
        {"type": "Warning", "reason": "FailedCreate", "message": said, "lastTimestamp": "9"}
    ]
    cluster.wait(minutes=minutes)
    await cluster.settle()
    # No pod is named where there is none.
    assert message(cluster, "Ready").startswith(
        "downloading hf://org/model: its pods cannot be made: pods are forbidden"
    )


MADE = {"claim": ("PersistentVolumeClaim", CLAIM), "size": ("Job", SIZE), "Job": ("Job", DOWNLOAD)}


@pytest.mark.parametrize("what", MADE)
@pytest.mark.parametrize("field", ["ownerReferences", "labels"])
async def test_a_mark_that_somebody_takes_away_is_put_back(what: str, field: str) -> None:
    cluster = cluster_with(artifact()) if what == "size" else await downloading()
    await cluster.settle()
    kind, name = MADE[what]
    key = Key(kind, "models", name)
    before = copy.deepcopy(cluster.objects[key])
    del cluster.objects[key]["metadata"][field]
    writes = cluster.writes.total()
    await cluster.settle()
    assert cluster.objects[key] == before
    assert cluster.writes.total() == writes + 1
    assert cluster.told[-1][1] == ("JobMarked" if kind == "Job" else "ClaimMarked")


@pytest.mark.parametrize("what", MADE)
async def test_what_bears_neither_mark_or_another_owner_is_somebody_elses(what: str) -> None:
    cluster = cluster_with(artifact()) if what == "size" else await downloading()
    await cluster.settle()
    kind, name = MADE[what]
    key = Key(kind, "models", name)
    metadata = cluster.objects[key]["metadata"]
    labels, writes = metadata.pop("labels"), cluster.writes["apply"]
    metadata["ownerReferences"] = []
    await cluster.settle()
    assert cluster.objects[key]["metadata"]["ownerReferences"] == []
    metadata = cluster.objects[key]["metadata"]
    metadata["labels"] = labels
    metadata["ownerReferences"] = [{"kind": "Other", "uid": "other", "controller": True}]
    await cluster.settle()
    owners = cluster.objects[key]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["other"]
    assert (cluster.writes["apply"], cluster.writes["delete"]) == (writes, 0)


THEIRS = [{"kind": "Other", "uid": "other", "controller": True}]


@pytest.mark.parametrize("name", [SIZE, DOWNLOAD])
@pytest.mark.parametrize("owners", [[], THEIRS], ids=["nobody's", "another's"])
@pytest.mark.parametrize("end", ["Complete", "Failed", "Suspended"])
async def test_somebody_elses_job_of_that_name_is_told_and_says_nothing(
    name: str, owners: list[Object], end: str
) -> None:
    cluster = cluster_with(artifact({} if name == SIZE else WITH_SIZE))
    metadata: Object = {"name": name, "namespace": "models", "ownerReferences": owners}
    if owners:
        metadata["labels"] = {LABEL_ARTIFACT: "demo"}
    theirs = cluster.put(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata,
            "spec": {"template": {"metadata": {"labels": {}}, "spec": {}}},
            "status": {"conditions": [{"type": end, "status": "True"}]},
        }
    )
    before = copy.deepcopy(theirs)
    assert await cluster.settle() == LONGEST_S
    if name == DOWNLOAD:
        cluster.bind()
        assert await cluster.settle() == LONGEST_S
    prefix = "CheckSizeJob" if name == SIZE else "DownloadJob"
    assert cluster.job(name) == before
    assert cluster.status["status"] == "Failed"
    for kind in ("Ready", f"{prefix}Ready", f"{prefix}PodsReady"):
        assert reasons(cluster.status)[kind] == "False JobOfAnother"
    assert f"delete it (`kubectl delete job {name}`)" in message(cluster, "Ready")
    assert [reason for kind, reason, _ in cluster.told if kind == "Warning"] == ["JobOfAnother"]
    # The way back.
    cluster.remove("Job", "models", name)
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert uid_of(cluster.job(name)) != uid_of(before)


async def test_a_ready_model_stays_so_beside_somebody_elses_job() -> None:
    cluster = await ready()
    job = cluster.job()
    job["metadata"] |= {"labels": {}, "ownerReferences": []}
    job["status"] = {}
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


async def test_what_belongs_to_an_artifact_goes_with_it() -> None:
    cluster = await downloading()
    cluster.remove(*KEY)
    assert not cluster.objects
    assert await cluster.reconcile() is None


async def test_an_artifact_made_anew_in_the_middle_of_a_pass_is_not_told_of_the_old_one() -> None:
    cluster = cluster_with(artifact(WITH_SIZE))

    def made_anew(wanted: Object) -> ApiError | None:
        if "status" in wanted and uid_of(cluster.artifact) == uid_of(wanted):
            cluster.remove(*KEY)
            named = {"name": "demo", "namespace": "models"}
            cluster.put({**artifact(WITH_SIZE), "metadata": named})
        return None

    cluster.refuse = made_anew
    with pytest.raises(ApiError):
        await cluster.reconcile()
    assert "status" not in cluster.artifact
    assert not cluster.has_job()


def no_jobs(wanted: Object) -> ApiError | None:
    """A quota that has no room for a Job."""
    if wanted["kind"] != "Job":
        return None
    return ApiError("cannot apply Job", 403, "Forbidden", "exceeded quota: jobs")


def message(cluster: FakeCluster, kind: str) -> str:
    """What a condition says."""
    told = next(each for each in cluster.status["conditions"] if each["type"] == kind)
    return str(told["message"])
