"""AIMModelCache: the engine of AIMArtifact, in older words; and what older operators have left."""

from __future__ import annotations

from typing import Any

import pytest

from operator_shim import legacy
from operator_shim.keys import ARTIFACT, MODEL_CACHE, Key
from operator_shim.objects import Object, condition_of, name_of, timestamp, uid_of
from tests.operator.fakes import START, UID, FakeCluster, artifact, ended, ours, reasons

KEY = Key(MODEL_CACHE, "models", "demo")
CLAIM, JOB = "demo-cache", "demo-cache-download"
SINCE = timestamp(START)


def told(kind: str, status: str, reason: str, message: str = "it is so") -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": SINCE,
        "observedGeneration": 1,
    }


def status(word: str, ready: str, claim: str) -> Object:
    """What the engine says of an artifact."""
    conditions = [
        told("Ready", "True" if word == "Ready" else "False", ready),
        told("CachePvcReady", "True" if claim == "Ready" else "False", claim),
        told("DownloadJobPodsReady", "False", "StorageFull"),
    ]
    return {"status": word, "mode": "Shared", "conditions": conditions}


def model_cache(status: Object | None = None, **metadata: Any) -> Object:
    return {**artifact({"size": "1Gi"}, status=status, **metadata), "kind": MODEL_CACHE}


# -- the words -------------------------------------------------------------------------------------

OLDER = ("Ready", "StorageReady", "Progressing", "Failure")
WARM = "True Warm"
NO_FAILURE = "False NoFailure"


@pytest.mark.parametrize(
    ("word", "ready", "claim", "shown", "older"),
    [
        (
            "Ready",
            "AllComponentsReady",
            "Ready",
            "Available",
            (WARM, "True PVCBound", "False Warm", NO_FAILURE),
        ),
        (
            "Progressing",
            "Progressing",
            "ResourceNotReady",
            "Progressing",
            ("False WaitingForPVC", "False PVCProvisioning", "True WaitingForPVC", NO_FAILURE),
        ),
        (
            "Progressing",
            "Progressing",
            "PvcPending",
            "Progressing",
            ("False WaitingForPVC", "False PVCPending", "True WaitingForPVC", NO_FAILURE),
        ),
        (
            "Pending",
            "StorageClassNotFound",
            "StorageClassNotFound",
            "Pending",
            ("False WaitingForPVC", "False PVCPending", "True WaitingForPVC", NO_FAILURE),
        ),
        (
            "Progressing",
            "Progressing",
            "Ready",
            "Progressing",
            ("False Downloading", "True PVCBound", "True Downloading", NO_FAILURE),
        ),
        (
            "Failed",
            "StorageFull",
            "Ready",
            "Failed",
            ("False StorageFull", "True PVCBound", "False RetryBackoff", "True DownloadFailed"),
        ),
        (
            "Degraded",
            "InfrastructureError",
            "Ready",
            "Progressing",
            ("False InfrastructureError", "True PVCBound", "True RetryBackoff", NO_FAILURE),
        ),
        (
            "Degraded",
            "InfrastructureError",
            "PvcLost",
            "Failed",
            ("False InfrastructureError", "False PVCLost", "False RetryBackoff", "True PVCLost"),
        ),
        (
            "NotAvailable",
            "NotAvailable",
            "Ready",
            "Failed",
            ("False NotAvailable", "True PVCBound", "False RetryBackoff", "True DownloadFailed"),
        ),
    ],
)
def test_it_is_told_in_older_words(
    word: str, ready: str, claim: str, shown: str, older: tuple[str, ...]
) -> None:
    found = legacy.told(status(word, ready, claim), model_cache(), START)
    assert found["status"] == shown
    assert found["mode"] == "Shared"
    said = reasons(found)
    assert tuple(said[each] for each in OLDER) == older
    # Those of the parts stay.
    assert said["CachePvcReady"].endswith(claim)
    assert said["DownloadJobPodsReady"] == "False StorageFull"
    assert len(said) == len(found["conditions"])
    if word != "NotAvailable":  # which the engine never says of an artifact
        back = legacy.read(model_cache(found))["status"]
        assert back["status"] == word
        # The older words have no reason for what is waited for.
        known = "Progressing" if word == "Pending" else ready
        assert reasons(back)["Ready"] == reasons(status(word, known, claim))["Ready"]


@pytest.mark.parametrize(
    ("word", "condition", "read", "reason"),
    [
        ("Available", ("True", "Warm"), "Ready", "True AllComponentsReady"),
        # Between the oldest operator and the present one the status was Ready.
        ("Ready", ("True", "AllComponentsReady"), "Ready", "True AllComponentsReady"),
        ("Ready", ("True", "DownloadComplete"), "Ready", "True AllComponentsReady"),
        ("Progressing", ("False", "Downloading"), "Progressing", "False Progressing"),
        ("Progressing", ("False", "WaitingForPVC"), "Progressing", "False Progressing"),
        ("Failed", ("False", "Downloading"), "Failed", "False Progressing"),
    ],
)
def test_what_older_operators_have_told_is_understood(
    word: str, condition: tuple[str, str], read: str, reason: str
) -> None:
    stored = {"status": word, "conditions": [told("Ready", *condition)]}
    found = legacy.read(model_cache(stored))["status"]
    assert found["status"] == read
    assert reasons(found)["Ready"] == reason


@pytest.mark.parametrize(
    "object_",
    [
        artifact(status={"status": "Ready", "conditions": [told("Ready", "True", "Warm")]}),
        artifact(),
        model_cache(),
        model_cache({}),
    ],
)
def test_others_and_such_as_say_nothing_yet_are_read_as_they_are(object_: Object) -> None:
    assert legacy.read(object_) == object_


def test_an_artifact_is_told_in_its_own_words() -> None:
    ready = status("Ready", "AllComponentsReady", "Ready")
    assert legacy.told(ready, artifact(), START) == ready


def test_the_time_of_a_condition_moves_when_it_changes() -> None:
    first = legacy.told(status("Progressing", "Progressing", "PvcPending"), model_cache(), START)
    later = START.replace(hour=12)
    stored = model_cache(first)
    again = legacy.told(status("Progressing", "Progressing", "PvcPending"), stored, later)
    assert again == first
    bound = legacy.told(status("Progressing", "Progressing", "Ready"), stored, later)
    since = {each["type"]: each["lastTransitionTime"] for each in bound["conditions"]}
    assert since["StorageReady"] == since["Ready"] == timestamp(later)
    assert since["Failure"] == SINCE


# -- the engine ------------------------------------------------------------------------------------


class OlderCluster(FakeCluster):
    """One in which the older kind is looked after."""

    async def look(self) -> float | None:
        """Passes, until one has written nothing."""
        for _ in range(10):
            before = self.writes.total()
            again = await self.reconcile(KEY)
            if self.writes.total() == before:
                return again
        raise AssertionError("the operator writes and writes")

    @property
    def status(self) -> Object:
        found: Object = self.objects[KEY]["status"]
        return found


@pytest.fixture
def cluster() -> OlderCluster:
    cluster = OlderCluster()
    cluster.put(model_cache())
    return cluster


async def test_it_becomes_available(cluster: OlderCluster) -> None:
    await cluster.look()
    assert cluster.status["status"] == "Progressing"
    assert reasons(cluster.status)["StorageReady"] == "False PVCPending"
    cluster.bind()
    cluster.pod(phase="Running")
    await cluster.look()
    assert reasons(cluster.status)["Ready"] == "False Downloading"
    cluster.succeed()
    cluster.wait(minutes=1)
    await cluster.look()
    assert cluster.status["status"] == "Available"
    assert cluster.status["progress"]["displayPercentage"] == "100 %"
    assert reasons(cluster.status)["Ready"] == WARM
    # It stays so without its Job, and nothing is said twice.
    cluster.remove("Job", "models", name_of(cluster.job()))
    cluster.wait(days=1)
    writes = cluster.writes.total()
    assert await cluster.look() is None
    assert cluster.writes.total() == writes
    assert not cluster.of_kind("Job")
    assert [told[1] for told in cluster.told].count("Ready") == 1


async def test_a_lost_volume_is_a_failure_until_it_is_back(cluster: OlderCluster) -> None:
    await cluster.look()
    cluster.bind()
    cluster.succeed()
    await cluster.look()
    cluster.bind("Lost")
    await cluster.look()
    assert cluster.status["status"] == "Failed"
    assert reasons(cluster.status)["Failure"] == "True PVCLost"
    cluster.bind()
    await cluster.look()
    assert cluster.status["status"] == "Available"


async def test_after_a_failure_it_says_which_and_waits(cluster: OlderCluster) -> None:
    await cluster.look()
    cluster.bind()
    cluster.pod(**ours(77, "the model is gated"))
    cluster.fail()
    await cluster.look()
    assert cluster.status["status"] == "Failed"
    said = reasons(cluster.status)
    assert said["Failure"] == "True DownloadFailed"
    assert said["Ready"] == "False AuthError"
    failure = condition_of(cluster.objects[KEY], "Failure") or {}
    assert "the model is gated" in failure["message"]
    cluster.wait(hours=2)
    await cluster.look()
    assert cluster.status["status"] == "Progressing"
    assert [told[1] for told in cluster.told].count("AuthError") == 1


async def test_its_pods_tell_it_and_no_artifact(cluster: OlderCluster) -> None:
    await cluster.look()
    container = cluster.job()["spec"]["template"]["spec"]["containers"][0]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert env["ARTIFACT_RESOURCE"] == "aimmodelcaches"
    assert env["ARTIFACT_NAME"] == "demo"
    [role] = cluster.of_kind("Role")
    assert role["rules"][0]["resources"] == ["aimmodelcaches/status"]


async def test_an_artifacts_pods_need_not_be_told_which_kind_it_is() -> None:
    cluster = FakeCluster()
    cluster.put(artifact({"size": "1Gi"}))
    await cluster.settle()
    container = cluster.job()["spec"]["template"]["spec"]["containers"][0]
    assert "ARTIFACT_RESOURCE" not in {each["name"] for each in container["env"]}


async def test_what_it_owns_goes_with_it(cluster: OlderCluster) -> None:
    await cluster.look()
    made = {kind for kind in ("PersistentVolumeClaim", "Job") if cluster.of_kind(kind)}
    cluster.remove(*KEY)
    assert made == {"PersistentVolumeClaim", "Job"}
    assert cluster.objects == {}


# -- what older operators have left ----------------------------------------------------------------


def left(kind: str, name: str, owner: str = UID, **more: Any) -> Object:
    """What an older operator made; without any label of today."""
    owners = [{"apiVersion": "v1", "kind": MODEL_CACHE, "name": "demo", "uid": owner}]
    owners[0] |= {"controller": True}  # type: ignore[dict-item]
    metadata = {"name": name, "namespace": "models", "ownerReferences": owners}
    api = "batch/v1" if kind == "Job" else "v1"
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}


BOUND: Object = {
    "status": {"phase": "Bound"},
    "spec": {"resources": {"requests": {"storage": "2Gi"}}},
}
COMPLETE: Object = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}


@pytest.mark.parametrize("word", ["Available", "Ready"])
async def test_a_model_that_is_there_is_taken_over_as_it_is(word: str) -> None:
    cluster = OlderCluster()
    cluster.put(left("PersistentVolumeClaim", CLAIM, **BOUND))
    ready = {"status": word, "conditions": [told("Ready", "True", "Warm")]}
    cluster.put(model_cache(ready))
    await cluster.look()
    assert cluster.status["status"] == "Available"
    assert cluster.status["persistentVolumeClaim"] == CLAIM
    assert [name_of(each) for each in cluster.of_kind("PersistentVolumeClaim")] == [CLAIM]
    assert not cluster.of_kind("Job")


async def test_an_older_job_that_is_at_work_is_left_to_end() -> None:
    cluster = OlderCluster()
    cluster.put(left("PersistentVolumeClaim", CLAIM, **BOUND))
    cluster.put(left("Job", JOB, spec={}))
    cluster.put(model_cache({"status": "Progressing"}))
    await cluster.look()
    assert reasons(cluster.status)["Ready"] == "False Downloading"
    assert [name_of(each) for each in cluster.of_kind("Job")] == [JOB]
    cluster.objects[Key("Job", "models", JOB)] |= COMPLETE
    await cluster.look()
    assert cluster.status["status"] == "Available"


async def test_an_older_job_that_failed_makes_room_and_its_claim_is_filled_by_ours() -> None:
    cluster = OlderCluster()
    cluster.put(left("PersistentVolumeClaim", CLAIM, **BOUND))
    cluster.put(left("Job", JOB, spec={}))
    cluster.put(model_cache({"status": "Progressing"}))
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    cluster.objects[Key("Job", "models", JOB)]["status"] = {"conditions": [condition]}
    await cluster.look()
    assert cluster.status["status"] == "Failed"
    for _ in range(3):
        cluster.wait(hours=2)
        await cluster.look()
    [job] = cluster.of_kind("Job")
    assert name_of(job) != JOB
    [volume] = job["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": CLAIM}
    assert len(cluster.of_kind("PersistentVolumeClaim")) == 1


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "Job"])
async def test_of_that_name_only_what_it_controls_is_taken(kind: str) -> None:
    cluster = OlderCluster()
    name = CLAIM if kind == "PersistentVolumeClaim" else JOB
    more = BOUND if kind == "PersistentVolumeClaim" else COMPLETE
    cluster.put(left(kind, name, owner="another's", **more))
    cluster.put(model_cache())
    await cluster.look()
    assert cluster.status["status"] == "Progressing"
    assert len(cluster.of_kind(kind)) == 2
    assert cluster.status["persistentVolumeClaim"] != CLAIM


async def test_an_artifact_takes_over_nothing_by_an_older_name() -> None:
    cluster = FakeCluster()
    cluster.put(left("PersistentVolumeClaim", CLAIM, **BOUND))
    cluster.put(artifact({"size": "1Gi"}))
    await cluster.settle()
    assert len(cluster.of_kind("PersistentVolumeClaim")) == 2
    assert uid_of(cluster.claim)


async def test_an_artifact_and_a_model_cache_of_one_name_do_not_meet() -> None:
    cluster = OlderCluster()
    cluster.put(model_cache(uid="0000-1"))
    cluster.put(artifact({"size": "1Gi"}))
    await cluster.look()
    await cluster.settle()
    jobs = {name_of(each) for each in cluster.of_kind("Job")}
    cluster.pod(**ended(75))  # the artifact's
    cluster.fail()
    await cluster.settle()
    await cluster.look()
    assert len(jobs) == 2
    assert cluster.objects[Key(ARTIFACT, "models", "demo")]["status"]["status"] == "Failed"
    assert cluster.status["status"] == "Progressing"
