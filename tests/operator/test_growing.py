"""Claims that are too small: what they grow to, when the download goes on, what is said if not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from operator_shim.artifact import PROGRESS_S
from operator_shim.cluster import ApiError
from operator_shim.growing import Growing, Growth, Storage, growth_of
from operator_shim.objects import Object, at, name_of, uid_of
from tests.operator.fakes import (
    CLAIM,
    DOWNLOAD,
    MODEL_BYTES,
    FakeCluster,
    artifact,
    cluster_with,
    ended,
    ours,
    reasons,
    storage_class,
)

GI = 2**30
GROWS = Storage(known=True, named="grows", found=storage_class("grows", grows=True))
FIXED = Storage(known=True, named="fixed", found=storage_class("fixed"))


def claim(asks: str, has: str = "", phase: str = "Bound", **status: Any) -> Object:
    told = {"phase": phase, **({"capacity": {"storage": has}} if has else {}), **status}
    metadata = {"name": "c", "uid": "u"}
    return {"metadata": metadata, "spec": {"resources": {"requests": {"storage": asks}}}} | {
        "status": told
    }


def growth(
    found: Object | None,
    needed: int = 10 * GI,
    storage: Storage = GROWS,
    *,
    is_full: bool = False,
    refusal: str = "",
) -> Growth:
    return growth_of(
        found, storage, needed=needed, headroom_percent=10, is_full=is_full, refusal=refusal
    )


# -- the rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "is_full", "wanted"),
    [
        (claim("11Gi", "11Gi"), False, ""),
        (claim("20Gi", "20Gi"), False, ""),
        (claim("6Gi", "6Gi"), False, "11Gi"),
        (claim("6Gi"), False, "11Gi"),
        # It asks for little, and has been given much.
        (claim("6Gi", "20Gi"), False, ""),
        # Enough for the model is tried first, and then a quarter more each time.
        (claim("6Gi", "6Gi"), True, "11Gi"),
        (claim("11Gi", "11Gi"), True, "14Gi"),
        (claim("14Gi", "14Gi"), True, "18Gi"),
        (claim("18Gi", "18Gi"), True, "22Gi"),
        # What has no volume, or is on its way out, is left alone.
        (claim("6Gi", phase="Pending"), False, ""),
        (claim("6Gi", phase="Lost"), False, ""),
        (None, False, ""),
    ],
)
def test_what_a_claim_is_to_ask_for(found: Object | None, is_full: bool, wanted: str) -> None:
    state = Growing.WANTED if wanted else Growing.NO
    assert growth(found, is_full=is_full) == Growth(state, wanted)


def test_a_claim_grows_to_twice_of_what_is_enough_and_no_further() -> None:
    for size in ("22Gi", "30Gi"):
        made = growth(claim(size, size), is_full=True)
        assert made.trouble is not None
        assert made.trouble.reason == "ExpansionLimit"
        assert "a larger spec.size" in made.trouble.hint
    # A larger model is another matter.
    assert growth(claim("22Gi", "22Gi"), 30 * GI, is_full=True).wanted == "33Gi"


@pytest.mark.parametrize(
    ("storage", "refusal", "reason"),
    [
        (GROWS, "", ""),
        (FIXED, "", "ExpansionNotAllowed"),
        (Storage(known=True), "", "ExpansionNotAllowed"),
        (Storage(known=True, named="gone"), "", "ExpansionNotAllowed"),
        # Who may not read classes tries it, and hears.
        (Storage(), "", ""),
        (Storage(), "only dynamically provisioned pvc can be resized", "ExpansionRefused"),
        (GROWS, "exceeded quota: requests.storage", "ExpansionRefused"),
    ],
)
def test_why_a_claim_cannot_grow(storage: Storage, refusal: str, reason: str) -> None:
    made = growth(claim("6Gi", "6Gi"), storage=storage, refusal=refusal)
    assert (made.trouble.reason if made.trouble else "") == reason
    assert (made.state is Growing.IMPOSSIBLE) is bool(reason)
    if made.trouble:
        assert refusal in made.trouble.message
        assert "kubectl delete pvc c" in made.trouble.hint


def told(kind: str, message: str = "") -> list[Object]:
    return [{"type": kind, "status": "True", "message": message}]


def step(name: str) -> Object:
    return {"storage": name}


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        ({}, Growing.UNDER_WAY, ""),
        ({"conditions": told("Resizing")}, Growing.UNDER_WAY, ""),
        (
            {"allocatedResourceStatuses": step("ControllerResizeInProgress")},
            Growing.UNDER_WAY,
            "",
        ),
        ({"conditions": told("FileSystemResizePending")}, Growing.NEEDS_POD, ""),
        ({"allocatedResourceStatuses": step("NodeResizePending")}, Growing.NEEDS_POD, ""),
        (
            {"conditions": told("ControllerResizeError", "pool is full")},
            Growing.IMPOSSIBLE,
            "pool is full",
        ),
        ({"conditions": told("NodeResizeError", "no resize2fs")}, Growing.IMPOSSIBLE, "resize2fs"),
        (
            {"allocatedResourceStatuses": step("ControllerResizeInfeasible")},
            Growing.IMPOSSIBLE,
            "ControllerResizeInfeasible",
        ),
        (
            {"allocatedResourceStatuses": step("NodeResizeInfeasible")},
            Growing.IMPOSSIBLE,
            "NodeResizeInfeasible",
        ),
    ],
)
def test_how_far_a_claim_is_that_has_asked(status: Object, state: Growing, words: str) -> None:
    made = growth(claim("11Gi", "6Gi", **status))
    assert made.state is state
    assert made.wanted == "11Gi"
    if made.trouble:
        assert made.trouble.reason == "ExpansionFailed"
        assert words in made.trouble.message


# -- in a cluster --------------------------------------------------------------------------------


async def downloading(size: str = "5Gi", *, grows: bool = True) -> FakeCluster:
    """A download onto a claim of 6Gi, whose class lets it grow or not."""
    cluster = cluster_with(artifact({"size": size, "storageClassName": "disks"}))
    cluster.classes = {"disks": storage_class("disks", grows=grows)}
    await cluster.settle()
    resized(cluster)
    await cluster.settle()
    cluster.pod(phase="Running")
    await cluster.settle()
    return cluster


def asks(cluster: FakeCluster) -> str:
    return str(at(cluster.claim, "spec.resources.requests.storage"))


def resized(cluster: FakeCluster) -> None:
    """The volume is as large as the claim asks for."""
    cluster.claim["status"] = {"phase": "Bound", "capacity": {"storage": asks(cluster)}}


async def full(cluster: FakeCluster, total: int = 0) -> float | None:
    """The download ends as its volume is full; it tells how many bytes the model has."""
    status = ours(73, "the disk is full", error="InsufficientSpaceError")
    end = status["containerStatuses"][0]["state"]["terminated"]
    end["message"] = json.dumps({**json.loads(end["message"]), "totalBytes": total})
    at_work = [pod for pod in cluster.of_kind("Pod") if at(pod, "status.phase") == "Running"]
    for pod in at_work or [cluster.pod()]:
        pod["status"] = status
    cluster.fail(reason="PodFailurePolicy")
    return await cluster.settle()


def message(cluster: FakeCluster, kind: str) -> str:
    found = next(each for each in cluster.status["conditions"] if each["type"] == kind)
    return str(found["message"])


def warnings(cluster: FakeCluster) -> list[str]:
    return [reason for kind, reason, _ in cluster.told if kind == "Warning"]


async def test_a_full_claim_grows_to_what_the_model_needs_and_the_download_goes_on() -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    await full(cluster, MODEL_BYTES)
    assert asks(cluster) == "10Gi"
    # What is about to go on has not failed.
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)["CachePvcReady"] == "False Resizing"
    assert f"claim {CLAIM} grows from 6Gi to 10Gi" in message(cluster, "Ready")
    assert ("Normal", "ClaimGrows", f"claim {CLAIM} is to grow from 6Gi to 10Gi") in cluster.told
    # Not before there is room.
    cluster.wait(minutes=20)
    await cluster.settle()
    assert uid_of(cluster.job()) == old
    resized(cluster)
    await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert reasons(cluster.status)["CachePvcReady"] == "True Ready"
    assert (cluster.status["allocatedSize"], cluster.status["displaySize"]) == ("10Gi", "8.5 GiB")
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert cluster.status["progress"]["totalBytes"] == MODEL_BYTES


async def test_the_resizer_may_wait_for_the_pod_of_the_next_job() -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    await full(cluster, MODEL_BYTES)
    cluster.claim["status"]["conditions"] = told("FileSystemResizePending")
    again = await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert again == PROGRESS_S
    assert "when a pod mounts it" in message(cluster, "CachePvcReady")


async def test_a_larger_spec_size_waits_for_the_claim_too() -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    await full(cluster)
    cluster.artifact["spec"]["size"] = "20Gi"
    await cluster.settle()
    assert asks(cluster) == "22Gi"
    assert uid_of(cluster.job()) == old
    resized(cluster)
    await cluster.settle()
    assert uid_of(cluster.job()) != old


async def test_a_claim_that_never_grows_is_tried_again_within_the_hour_all_the_same() -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    again = await full(cluster, MODEL_BYTES)
    assert again is not None
    assert 3000 < again <= 3602
    cluster.wait(seconds=again)
    await cluster.settle()
    assert uid_of(cluster.job()) != old


async def test_a_claim_that_is_full_of_other_things_grows_a_quarter_each_time_up_to_twice() -> None:
    cluster = await downloading()
    grown = []
    for _ in range(8):
        await full(cluster, 5 * GI)
        grown.append(asks(cluster))
        resized(cluster)
        await cluster.settle()
    assert grown[:4] == ["8Gi", "10Gi", "12Gi", "12Gi"]
    assert grown[-1] == "12Gi"
    await full(cluster, 5 * GI)
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["CachePvcReady"] == "False ExpansionLimit"
    assert "twice the 6Gi" in message(cluster, "Ready")


async def test_a_volume_that_may_not_be_written_to_does_not_grow_and_is_soon_tried_again() -> None:
    cluster = await downloading()
    cluster.of_kind("Pod")[0]["status"] = ours(73, "no right to write", error="StorageError")
    said = "Container x for pod models/y failed with exit code 73 matching FailJob rule at index 1"
    cluster.fail(reason="PodFailurePolicy", message=said)
    again = await cluster.settle()
    assert asks(cluster) == "6Gi"
    assert reasons(cluster.status)["Ready"] == "False PodFailed"
    assert again is not None
    assert again < 80


async def test_another_image_that_prints_that_the_disk_is_full_lets_the_claim_grow_too() -> None:
    cluster = await downloading()
    cluster.artifact["metadata"]["annotations"]["aim.eai.amd.com/foreign-image"] = "true"
    pod = cluster.of_kind("Pod")[0]
    pod["status"] = ended(1)
    cluster.printed[name_of(pod)] = ["OSError: [Errno 28] No space left on device"]
    cluster.fail()
    await cluster.settle()
    assert asks(cluster) == "8Gi"


@pytest.mark.parametrize(
    ("grows", "readable", "refusal", "reason"),
    [
        (False, True, "", "ExpansionNotAllowed"),
        (False, False, "only dynamically provisioned pvc can be resized", "ExpansionRefused"),
        (True, True, "exceeded quota: storage", "ExpansionRefused"),
    ],
)
async def test_a_full_claim_that_cannot_grow_is_told_with_what_to_do(
    grows: bool, readable: bool, refusal: str, reason: str
) -> None:
    cluster = await downloading(grows=grows)
    if not readable:
        cluster.classes = None
    if refusal:
        refused = ApiError("cannot apply", 403, "Forbidden", refusal)
        cluster.refuse = lambda wanted: refused if name_of(wanted) == CLAIM else None
    await full(cluster, MODEL_BYTES)
    assert asks(cluster) == "6Gi"
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["Ready"] == "False StorageFull"
    assert reasons(cluster.status)["CachePvcReady"] == f"False {reason}"
    for said in ("the disk is full", "6Gi and needs 10Gi", "kubectl delete pvc", "tried again at"):
        assert said in message(cluster, "Ready")
    assert refusal in message(cluster, "Ready")
    assert warnings(cluster).count(reason) == 1
    # Said once, however often it is looked at.
    writes = cluster.writes.total()
    for _ in range(3):
        cluster.wait(minutes=5)
        await cluster.settle()
    assert cluster.writes.total() == writes
    assert warnings(cluster).count(reason) == 1


async def test_what_was_full_goes_on_at_once_on_a_new_claim() -> None:
    cluster = await downloading(grows=False)
    old = uid_of(cluster.job())
    await full(cluster, MODEL_BYTES)
    cluster.remove("PersistentVolumeClaim", "models", CLAIM)
    await cluster.settle()
    assert asks(cluster) == "10Gi"
    resized(cluster)
    await cluster.settle()
    assert cluster.has_job()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"


async def test_what_was_full_goes_on_once_somebody_has_let_the_claim_grow() -> None:
    cluster = await downloading(grows=False)
    old = uid_of(cluster.job())
    await full(cluster, MODEL_BYTES)
    cluster.classes = {"disks": storage_class("disks", grows=True)}
    await cluster.settle()
    resized(cluster)
    await cluster.settle()
    assert uid_of(cluster.job()) != old


@pytest.mark.parametrize("when", ["before it failed", "after it failed", "once a pod mounts it"])
async def test_a_claim_that_grew_while_its_job_worked_grows_no_further(when: str) -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    cluster.patch(cluster.artifact, {"progress": {"percentage": 3, "totalBytes": MODEL_BYTES}})
    await cluster.settle()
    if when == "before it failed":
        resized(cluster)
        await cluster.settle()
    elif when == "once a pod mounts it":
        cluster.claim["status"]["conditions"] = told("FileSystemResizePending")
        await cluster.settle()
    await full(cluster, MODEL_BYTES)
    if when == "after it failed":
        assert uid_of(cluster.job()) == old
        assert "grows from 6Gi to 10Gi" in message(cluster, "Ready")
        resized(cluster)
        await cluster.settle()
    assert uid_of(cluster.job()) != old
    assert cluster.status["status"] == "Progressing"
    assert asks(cluster) == "10Gi"
    # The next one has known it as it is.
    resized(cluster)
    cluster.pod(phase="Running")
    await full(cluster, MODEL_BYTES)
    assert asks(cluster) == "13Gi"


async def test_a_larger_spec_size_lets_the_claim_grow_while_the_download_goes_on() -> None:
    cluster = await downloading()
    old = uid_of(cluster.job())
    cluster.artifact["spec"]["size"] = "20Gi"
    await cluster.settle()
    assert asks(cluster) == "22Gi"
    assert uid_of(cluster.job()) == old
    assert cluster.status["status"] == "Progressing"


async def test_a_claim_of_a_class_that_cannot_grow_is_no_failure_while_it_may_do() -> None:
    cluster = await downloading(grows=False)
    cluster.artifact["spec"]["size"] = "20Gi"
    await cluster.settle()
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)["CachePvcReady"] == "True Ready"
    assert "lets no claim grow" in message(cluster, "CachePvcReady")
    cluster.succeed()
    await cluster.settle()
    assert cluster.status["status"] == "Ready"


async def test_a_pod_that_tells_of_a_larger_model_lets_the_claim_grow_before_it_is_full() -> None:
    cluster = await downloading()
    cluster.patch(cluster.artifact, {"progress": {"percentage": 3, "totalBytes": MODEL_BYTES}})
    await cluster.settle()
    assert asks(cluster) == "10Gi"
    assert cluster.status["discoveredSizeBytes"] == MODEL_BYTES
    assert reasons(cluster.status)["SizeValid"] == "False SizeMismatch"
    assert "spec.size says 5 GiB, and the model has 8.5 GiB" in message(cluster, "SizeValid")
    assert warnings(cluster) == ["SizeMismatch"]
    cluster.artifact["spec"]["size"] = str(MODEL_BYTES)
    await cluster.settle()
    assert reasons(cluster.status)["SizeValid"] == "True SizeAsSpecified"


@pytest.mark.parametrize(
    ("size", "model", "mismatch"),
    [
        ("9Gi", MODEL_BYTES, False),  # a little more, as people write it
        ("10Gi", MODEL_BYTES, False),
        ("20Gi", MODEL_BYTES, True),
        ("8Gi", MODEL_BYTES, True),
        ("500Mi", 10 * 2**20, False),  # no claim is smaller than 1Gi
    ],
)
async def test_a_spec_size_that_was_wrong_is_told(size: str, model: int, mismatch: bool) -> None:
    cluster = await downloading(size)
    cluster.succeed()
    said = {"outcome": "complete", "exitCode": 0, "bytes": model}
    end = {"exitCode": 0, "reason": "Completed", "message": json.dumps(said)}
    state = [{"name": "model-download", "state": {"terminated": end}}]
    cluster.of_kind("Pod")[0]["status"]["containerStatuses"] = state
    await cluster.settle()
    assert cluster.status["status"] == "Ready"
    assert cluster.status["progress"]["totalBytes"] == model
    assert ("SizeValid" in reasons(cluster.status)) is mismatch
    assert ("SizeMismatch" in warnings(cluster)) is mismatch
    # The Job's end takes nothing of it away.
    cluster.remove("Job", "models", DOWNLOAD)
    writes = cluster.writes.total()
    await cluster.settle()
    assert cluster.writes.total() == writes
    # Nor is it told again with the next status.
    cluster.artifact["metadata"]["generation"] = 7
    await cluster.settle()
    assert cluster.status["observedGeneration"] == 7
    assert warnings(cluster).count("SizeMismatch") == int(mismatch)


async def test_no_growth_is_asked_for_twice() -> None:
    cluster = await downloading()
    await full(cluster, MODEL_BYTES)
    writes = cluster.writes.total()
    for _ in range(3):
        cluster.wait(minutes=5)
        await cluster.settle()
    assert cluster.writes.total() == writes


async def test_a_config_with_more_headroom_makes_no_claim_larger() -> None:
    cluster = await downloading()
    config = {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMRuntimeConfig",
        "metadata": {"name": "default", "namespace": "models"},
        "spec": {"storage": {"pvcHeadroomPercent": 100}},
    }
    cluster.put(config)
    await cluster.settle()
    assert asks(cluster) == "6Gi"
