"""What is read from an artifact, its claim, its Jobs and their pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from operator_shim.claims import trouble_of
from operator_shim.config import Options
from operator_shim.failures import Outcome
from operator_shim.growing import Storage
from operator_shim.jobs import JobState, fills, work_of
from operator_shim.objects import Object, timestamp
from operator_shim.observed import Found, Stage, observe
from operator_shim.order import ENGINE_IMAGE, Order, order_of
from operator_shim.retrying import Failure
from operator_shim.runtime_config import RuntimeConfig
from operator_shim.sizing import answered_size
from tests.operator.fakes import OPTIONS, START, UID, artifact, ended, ours

DEFAULT = OPTIONS.default_download_image


def order(
    spec: Object | None = None,
    annotations: dict[str, str] | None = None,
    config: RuntimeConfig | None = None,
    options: Options = OPTIONS,
) -> Order:
    marks = {f"aim.eai.amd.com/{key}": value for key, value in (annotations or {}).items()}
    return order_of(artifact(spec, marks), config or RuntimeConfig(), options)


# -- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "keep", "annotation", "image", "ours_"),
    [
        (None, False, None, DEFAULT, True),
        ("", False, None, DEFAULT, True),
        (ENGINE_IMAGE, False, None, DEFAULT, True),
        (ENGINE_IMAGE, True, None, ENGINE_IMAGE, False),
        ("mirror/aim-downloader:2", False, None, "mirror/aim-downloader:2", True),
        ("mirror/aim-downloader:2", False, "true", "mirror/aim-downloader:2", False),
        (
            "kserve/storage-initializer:v0.16.0",
            False,
            None,
            "kserve/storage-initializer:v0.16.0",
            False,
        ),
        (ENGINE_IMAGE, True, "false", ENGINE_IMAGE, True),
    ],
)
def test_which_image_and_whose(
    named: str | None, keep: bool, annotation: str | None, image: str, ours_: bool
) -> None:
    spec = {} if named is None else {"modelDownloadImage": named}
    marks = {} if annotation is None else {"foreign-image": annotation}
    made = order(spec, marks, options=replace(OPTIONS, keep_engine_image=keep))
    assert (made.image, made.ours) == (image, ours_)


@pytest.mark.parametrize(
    ("size", "bytes_"), [(None, None), (0, None), ("0", None), ("5Gi", 5 * 2**30), (42, 42)]
)
def test_a_size_of_nothing_is_none(size: object, bytes_: int | None) -> None:
    assert order({} if size is None else {"size": size}).size == bytes_


@pytest.mark.parametrize(
    ("spec", "annotations", "shards"),
    [
        ({}, {}, 1),
        ({"shards": 3}, {}, 3),
        ({}, {"shards": "4"}, 4),
        ({"shards": 3}, {"shards": "4"}, 3),
    ],
)
def test_a_field_goes_before_the_annotation_of_its_name(
    spec: Object, annotations: dict[str, str], shards: int
) -> None:
    made = order(spec, annotations)
    assert made.shards == shards
    assert not made.problems


@pytest.mark.parametrize(
    ("spec", "annotations", "same"),
    [
        ({}, {}, True),
        ({"storageClassName": "fast"}, {}, True),
        ({"env": [{"name": "A", "value": "b"}]}, {}, False),
        ({"modelDownloadImage": "other"}, {}, False),
        ({"size": "1Gi"}, {}, False),
        ({}, {"retry": "1"}, False),
        ({}, {"resources": '{"limits": {"memory": "2Gi"}}'}, False),
        ({"imagePullSecrets": [{"name": "x"}]}, {}, False),
        ({}, {"foreign-image": "true"}, False),
    ],
)
def test_what_a_job_depends_on(spec: Object, annotations: dict[str, str], same: bool) -> None:
    assert (order(spec, annotations).inputs == order().inputs) is same


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (['{"url": "hf://a/b", "sizeBytes": 42}'], 42),
        (["a warning", '{"url": "hf://a/b", "sizeBytes": 42}', ""], 42),
        (['{"url": "hf://a/b", "sizeBytes": 1125899906842624}'], 2**50),
        (['{"url": "hf://a/b", "sizeBytes": 1125899906842625}'], None),
        (['{"url": "hf://a/b", "sizeBytes": 0}'], None),
        (['{"url": "hf://a/b", "sizeBytes": -1}'], None),
        (['{"url": "hf://a/b", "sizeBytes": true}'], None),
        (['{"url": "hf://a/b", "sizeBytes": 4.2}'], None),
        (['{"url": "hf://a/b", "sizeBytes": "42"}'], None),
        (['{"sizeBytes": 42}'], None),
        (['{"url": "hf://a/b", "sizeBytes": 42}', "a line of standard error"], 42),
        (['{"url": "hf://a/b", "sizeBytes": 1}', '{"url": "hf://a/b", "sizeBytes": 42}'], 42),
        (["[42]"], None),
        (["[" * 100_000], None),
        ([], None),
    ],
)
def test_what_the_size_job_answers(lines: list[str], answer: int | None) -> None:
    said = answered_size(lines)
    if answer is None:
        assert isinstance(said, Outcome)
        assert said.reason == "InvalidSizeOutput"
    else:
        assert said == answer


# -- claims --------------------------------------------------------------------------------------


def test_of_several_events_of_a_claim_the_newest_decides() -> None:
    claim = {"metadata": {"name": "c"}, "status": {"phase": "Pending"}}
    old = {"reason": "ProvisioningFailed", "message": "old", "lastTimestamp": "2026-01-01"}
    new = {"reason": "ProvisioningFailed", "message": "new", "lastTimestamp": "2026-01-02"}
    waits = {"reason": "WaitForFirstConsumer", "message": "", "lastTimestamp": "2026-01-03"}
    trouble = trouble_of(claim, [old, new, waits])
    assert trouble is not None
    assert trouble.message == "new"
    series = {**old, "message": "", "note": "series", "lastTimestamp": None}
    for newer in ({"eventTime": "2026-02"}, {"series": {"lastObservedTime": "2026-02"}}):
        trouble = trouble_of(claim, [new, {**series, **newer}])
        assert trouble is not None
        assert trouble.message == "series"
    trouble = trouble_of(claim, [{"reason": "ProvisioningFailed"}])
    assert trouble is not None
    assert trouble.message == "no volume can be made"
    assert trouble_of(claim, [waits]) is None
    assert trouble_of({**claim, "status": {"phase": "Bound"}}, [new]) is None


def test_a_claim_that_names_its_volume_needs_no_class() -> None:
    absent = Storage(known=True, named="gone", found=None)
    claim = {"metadata": {"name": "c"}, "spec": {"storageClassName": "gone"}}
    trouble = trouble_of(claim, [], absent)
    assert trouble is not None
    assert trouble.reason == "StorageClassNotFound"
    by_hand = {**claim, "spec": {**claim["spec"], "volumeName": "pv-7"}}
    assert trouble_of(by_hand, [], absent) is None


# -- Jobs ----------------------------------------------------------------------------------------


def job(uid: str = "job-1", conditions: list[Object] | None = None, **metadata: Any) -> Object:
    made = {
        "uid": uid,
        "name": "j",
        "creationTimestamp": timestamp(START),
        "ownerReferences": [{"uid": UID, "controller": True}],
        **metadata,
    }
    return {"kind": "Job", "metadata": made, "status": {"conditions": conditions or []}}


def pod(status: Object, uid: str = "pod-1", of: str = "job-1", made: int = 0) -> Object:
    metadata = {
        "uid": uid,
        "name": uid,
        "creationTimestamp": timestamp(START + timedelta(seconds=made)),
        "ownerReferences": [{"uid": of, "controller": True}],
    }
    return {"kind": "Pod", "metadata": metadata, "status": status}


COMPLETE = [{"type": "Complete", "status": "True"}]
FAILED = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]


@pytest.mark.parametrize(
    ("of", "state"),
    [
        (None, JobState.ABSENT),
        (job(), JobState.RUNNING),
        (job(conditions=COMPLETE), JobState.COMPLETE),
        (job(conditions=FAILED), JobState.FAILED),
        (job(conditions=[{"type": "Complete", "status": "False"}]), JobState.RUNNING),
        (job(conditions=COMPLETE, deletionTimestamp="2026-01-31T10:00:00Z"), JobState.GOING),
    ],
)
def test_how_far_a_job_is(of: Object | None, state: JobState) -> None:
    assert work_of(of, [], {}, {}).state is state


def test_pods_of_an_earlier_job_of_the_same_name_do_not_count() -> None:
    work = work_of(job(), [pod(ended(1), "old", of="job-0"), pod({"phase": "Running"})], {}, {})
    assert [each["metadata"]["name"] for each in work.pods] == ["pod-1"]
    assert work.failed is None


def test_the_hardest_of_several_failures_decides() -> None:
    pods = [
        pod(ours(75, "away")),
        pod(ours(66, "none"), "b", made=1),
        pod(ours(75, "c"), "c", made=2),
    ]
    failed = work_of(job(), pods, {}, {}).failed
    assert failed is not None
    assert failed.message == "none"


def test_a_final_exit_code_without_words_is_final_by_the_jobs_own() -> None:
    said = (
        "Container check-size for pod x failed with exit code 66 matching FailJob rule at index 1"
    )
    policy = [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": said}]
    failed = work_of(
        job(conditions=policy), [pod(ended(66))], {"pod-1": ["error: gone"]}, {}
    ).failed
    assert failed is not None
    assert failed.failure is Failure.PERMANENT
    assert failed.message.endswith("error: gone")


@pytest.mark.parametrize(
    ("annotation", "claim_made", "expected"),
    [("claim-1", 0, True), ("claim-0", 0, False), (None, -60, True), (None, 60, False)],
)
def test_which_claim_a_job_fills(annotation: str | None, claim_made: int, expected: bool) -> None:
    made = timestamp(START + timedelta(seconds=claim_made))
    claim = {"metadata": {"uid": "claim-1", "creationTimestamp": made}}
    marks = {"aim.eai.amd.com/claim-uid": annotation} if annotation else {}
    assert fills(job(annotations=marks), claim) is expected


# -- all together --------------------------------------------------------------------------------


def claim(phase: str = "Bound", made: int = 0, **metadata: Any) -> Object:
    stamp = timestamp(START + timedelta(seconds=made))
    about = {"uid": "claim-1", "name": "c", "creationTimestamp": stamp, **metadata}
    return {"kind": "PersistentVolumeClaim", "metadata": about, "status": {"phase": phase}}


def ready(since: int) -> Object:
    stamp = timestamp(START + timedelta(seconds=since))
    told = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
    return {"status": "Ready", "conditions": [told]}


SIZED = {"size": "1Gi"}
THEIR_JOB = job(conditions=COMPLETE, ownerReferences=[])
LEAVING: dict[str, Any] = {"deletionTimestamp": "2026-01-31T10:00:00Z"}


@pytest.mark.parametrize(
    ("found", "stage"),
    [
        (Found(artifact()), Stage.SIZING),
        (Found(artifact(status={"discoveredSizeBytes": 42})), Stage.CLAIMING),
        (Found(artifact(SIZED)), Stage.CLAIMING),
        (Found(artifact(SIZED), claim(**LEAVING)), Stage.CLAIMING),
        (Found(artifact(SIZED), claim("Pending")), Stage.DOWNLOADING),
        (Found(artifact(SIZED), claim(), download_job=job()), Stage.DOWNLOADING),
        (Found(artifact(SIZED), claim(), download_job=job(conditions=COMPLETE)), Stage.READY),
        (Found(artifact(SIZED), claim(), download_job=THEIR_JOB), Stage.DOWNLOADING),
        # A volume that nothing was written to cannot hold the model.
        (
            Found(artifact(SIZED), claim(made=60), download_job=job(conditions=COMPLETE)),
            Stage.DOWNLOADING,
        ),
        (
            Found(artifact(SIZED), claim("Pending"), download_job=job(conditions=COMPLETE)),
            Stage.DOWNLOADING,
        ),
        (Found(artifact(SIZED, status=ready(60)), claim()), Stage.READY),
        (Found(artifact(SIZED, status=ready(60)), claim(made=120)), Stage.DOWNLOADING),
        (Found(artifact(SIZED, status=ready(60)), claim(**LEAVING)), Stage.CLAIMING),
        (Found(artifact(SIZED, status=ready(60))), Stage.CLAIMING),
        (Found(artifact({"runtimeConfigName": "none"})), Stage.BLOCKED),
        (Found(artifact({"runtimeConfigName": "none"}, status=ready(60)), claim()), Stage.READY),
        (Found(artifact({"size": "much"})), Stage.BLOCKED),
    ],
)
def test_the_stage_of_an_artifact(found: Found, stage: Stage) -> None:
    assert observe(found, OPTIONS, START).stage is stage


@pytest.mark.parametrize(("phase", "size"), [("Pending", 2**30), ("Running", 2**31)])
def test_what_an_earlier_pod_has_told_is_not_the_size(phase: str, size: int) -> None:
    told = artifact(SIZED, status={"progress": {"totalBytes": 2**31}})
    found = Found(told, claim(), download_job=job(), pods=(pod({"phase": phase}),))
    assert observe(found, OPTIONS, START).size == size
