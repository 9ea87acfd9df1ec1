"""The manifests that an artifact comes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from operator_shim import desired
from operator_shim.config import Options
from operator_shim.objects import Object, at, labels_of
from operator_shim.observed import Found, Observation, observe
from tests.operator.fakes import CLAIM, DOWNLOAD, OPTIONS, SIZE, START, UID, artifact

THE_CLAIM = {
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": CLAIM, "uid": "claim-1", "creationTimestamp": "2026-01-31T10:00:00Z"},
    "status": {"phase": "Bound"},
}
FOREIGN = {"modelDownloadImage": "registry.test/theirs:1"}
IS_FOREIGN = {"aim.eai.amd.com/foreign-image": "true"}


def seen(
    spec: Object | None = None,
    annotations: dict[str, str] | None = None,
    config: Object | None = None,
    options: Options = OPTIONS,
    **metadata: Any,
) -> Observation:
    """What is seen of an artifact whose claim is there."""
    made = artifact({"size": "5Gi", **(spec or {})}, annotations, **metadata)
    namespaced = None if config is None else {"spec": config}
    found = Found(made, claim=THE_CLAIM, namespaced_config=namespaced)
    return observe(found, options, START)


def pod_of(job: Object) -> Object:
    pod: Object = job["spec"]["template"]["spec"]
    return pod


def env_of(job: Object) -> dict[str, Any]:
    entries = pod_of(job)["containers"][0]["env"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


@pytest.mark.parametrize(
    ("make", "kind", "name"),
    [
        (desired.claim, "PersistentVolumeClaim", CLAIM),
        (desired.download_job, "Job", DOWNLOAD),
        (desired.size_job, "Job", SIZE),
    ],
)
def test_names_are_those_of_aim_engine_and_all_goes_with_the_artifact(
    make: Any, kind: str, name: str
) -> None:
    made = make(seen())
    assert (made["kind"], made["metadata"]["name"]) == (kind, name)
    assert made["metadata"]["namespace"] == "models"
    (owner,) = made["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMArtifact",
        "name": "demo",
        "uid": UID,
        "controller": True,
    }


def test_the_same_observation_gives_the_same_manifests() -> None:
    for make in (desired.claim, desired.size_job, desired.download_job, desired.account):
        assert make(seen()) == make(seen())


# -- claim ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "annotations", "config", "size", "class_", "mode"),
    [
        ({}, {}, None, "6Gi", None, "ReadWriteMany"),
        ({"size": "10Gi"}, {}, None, "11Gi", None, "ReadWriteMany"),
        (
            {"size": "10Gi"},
            {},
            {"storage": {"pvcHeadroomPercent": 0, "defaultStorageClassName": "slow"}},
            "10Gi",
            "slow",
            "ReadWriteMany",
        ),
        (
            {"storageClassName": "fast"},
            {"aim.eai.amd.com/access-mode": "ReadWriteOnce"},
            {"storage": {"defaultStorageClassName": "slow"}},
            "6Gi",
            "fast",
            "ReadWriteOnce",
        ),
        (
            {"accessMode": "ReadWriteOnce"},
            {"aim.eai.amd.com/access-mode": "ReadWriteMany"},
            None,
            "6Gi",
            None,
            "ReadWriteOnce",
        ),
        ({"storageClassName": ""}, {}, None, "6Gi", None, "ReadWriteMany"),
    ],
)
def test_size_class_and_access_mode_of_the_claim(
    spec: Object,
    annotations: dict[str, str],
    config: Object | None,
    size: str,
    class_: str | None,
    mode: str,
) -> None:
    made = desired.claim(seen(spec, annotations, config))["spec"]
    assert made["resources"] == {"requests": {"storage": size}}
    assert made.get("storageClassName") == class_
    assert made["accessModes"] == [mode]


def test_labels_of_the_claim() -> None:
    made = desired.claim(seen(labels={"template-created": "true"}))
    assert labels_of(made) == {
        "aim.eai.amd.com/artifact.name": "demo",
        "aim.eai.amd.com/cache.name": "demo",
        "aim.eai.amd.com/cache.type": "template-cache",
        "aim.eai.amd.com/source-model": "org_model",
        "app.kubernetes.io/managed-by": "aim-artifact-controller",
    }
    assert "aim.eai.amd.com/cache.type" not in labels_of(desired.claim(seen()))


# -- Jobs ----------------------------------------------------------------------------------------


def test_labels_of_the_jobs_and_their_pods() -> None:
    labels = {
        "aim.eai.amd.com/service.name": "chat",
        "aim.eai.amd.com/cache.name": "another",
        "team/cost": "42",
        "team/other": "x",
    }
    config = {"labelPropagation": {"enabled": True, "match": ["team/c*"]}}
    for make, component in ((desired.size_job, "check-size"), (desired.download_job, "download")):
        job = make(seen(config=config, labels=labels))
        of_pods = {
            "aim.eai.amd.com/service.name": "chat",
            "aim.eai.amd.com/artifact.name": "demo",
            "aim.eai.amd.com/cache.name": "demo",
            "aim.eai.amd.com/cache.type": "artifact",
            "aim.eai.amd.com/component": component,
            "team/cost": "42",
        }
        assert at(job, "spec.template.metadata.labels") == of_pods
        managed = {"app.kubernetes.io/managed-by": "aim-artifact-controller"}
        assert labels_of(job) == of_pods | managed


@pytest.mark.parametrize("make", [desired.size_job, desired.download_job])
@pytest.mark.parametrize("annotations", [{}, IS_FOREIGN])
def test_pods_meet_the_restricted_level(make: Any, annotations: dict[str, str]) -> None:
    pod = pod_of(make(seen(annotations=annotations)))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["runAsUser"] == 1000
        assert security.get("readOnlyRootFilesystem", False) is (not annotations)
        assert container["resources"]


def test_the_size_job_runs_the_contracts_script() -> None:
    env = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}]
    spec = {"env": env, "imagePullSecrets": [{"name": "registry"}]}
    pod = pod_of(desired.size_job(seen(spec)))
    container = pod["containers"][0]
    assert container["command"] == ["/check-size.sh"]
    assert container["args"] == ["hf://org/model"]
    assert container["env"] == env
    assert pod["automountServiceAccountToken"] is False
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert "volumes" not in pod


def test_the_download_job_has_its_claim_account_and_arguments() -> None:
    job = desired.download_job(seen())
    pod, container = pod_of(job), pod_of(job)["containers"][0]
    assert "command" not in container
    assert container["args"] == ["hf://org/model"]
    assert container["image"] == OPTIONS.default_download_image
    assert container["resources"] == OPTIONS.resources
    assert container["volumeMounts"] == [{"name": "cache", "mountPath": "/cache"}]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": CLAIM}
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    account, *_ = desired.account(seen())
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is True
    assert (job["spec"]["backoffLimit"], job["spec"]["ttlSecondsAfterFinished"]) == (2, 600)
    assert job["metadata"]["annotations"]["aim.eai.amd.com/claim-uid"] == "claim-1"
    assert env_of(job) == {
        "AIM_DOWNLOADER_PROTOCOL": "XET,HF_TRANSFER",
        "TMPDIR": "/tmp",
        "HF_HOME": "/tmp/.hf",
        "EXPECTED_SIZE_BYTES": str(5 * 2**30),
        "MOUNT_PATH": "/cache",
        "ARTIFACT_NAME": "demo",
        "ARTIFACT_NAMESPACE": "models",
        "STALL_TIMEOUT": "120",
        "TARGET_DIR": "/cache",
    }


def test_the_artifacts_environment_goes_before_the_configs_and_that_before_the_defaults() -> None:
    config = {
        "env": [{"name": "STALL_TIMEOUT", "value": "60"}, {"name": "HF_ENDPOINT", "value": "a"}]
    }
    spec = {"env": [{"name": "HF_ENDPOINT", "value": "b"}]}
    env = env_of(desired.download_job(seen(spec, config=config)))
    assert (env["STALL_TIMEOUT"], env["HF_ENDPOINT"]) == ("60", "b")
    assert env_of(desired.size_job(seen(spec, config=config))) == {
        "STALL_TIMEOUT": "60",
        "HF_ENDPOINT": "b",
    }


@pytest.mark.parametrize("make", [desired.size_job, desired.download_job])
@pytest.mark.parametrize(
    ("annotations", "actions"), [({}, ["Ignore", "FailJob"]), (IS_FOREIGN, ["Ignore"])]
)
def test_only_our_images_exit_codes_are_final(
    make: Any, annotations: dict[str, str], actions: list[str]
) -> None:
    job = make(seen(annotations=annotations))
    rules = at(job, "spec.podFailurePolicy.rules")
    assert [rule["action"] for rule in rules] == actions
    for rule in rules[1:]:
        assert rule["onExitCodes"] == {
            "containerName": pod_of(job)["containers"][0]["name"],
            "operator": "In",
            "values": [2, 66, 73, 77],
        }


def test_a_foreign_image_gets_no_account_and_no_token() -> None:
    pod = pod_of(desired.download_job(seen(FOREIGN, IS_FOREIGN)))
    assert "serviceAccountName" not in pod
    assert pod["automountServiceAccountToken"] is False


def test_shards_are_an_indexed_job() -> None:
    job = desired.download_job(seen({"shards": 4}))
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 4, 4)
    assert spec["backoffLimitPerIndex"] == 2
    assert "backoffLimit" not in spec
    assert env_of(job)["AIM_DOWNLOADER_SHARDS"] == "4"


def test_resources_by_spec_by_annotation_and_by_option() -> None:
    mark = {"aim.eai.amd.com/resources": '{"limits": {"memory": "2Gi"}}'}
    container = pod_of(desired.download_job(seen(annotations=mark)))["containers"][0]
    assert container["resources"] == {"limits": {"memory": "2Gi"}}
    spec = {"resources": {"limits": {"memory": "3Gi"}}}
    container = pod_of(desired.download_job(seen(spec, mark)))["containers"][0]
    assert container["resources"] == {"limits": {"memory": "3Gi"}}


def test_where_pods_may_run_is_the_operators_option_and_no_artifacts() -> None:
    pod = {"tolerations": [{"key": "gpu", "operator": "Exists"}], "priorityClassName": "low"}
    options = replace(OPTIONS, pod=pod)
    mine = seen({"tolerations": []}, {"aim.eai.amd.com/pod": "{}"}, options=options)
    for job in (desired.size_job(mine), desired.download_job(mine)):
        assert pod.items() <= pod_of(job).items()
        assert pod_of(job)["restartPolicy"] == "Never"
    assert "tolerations" not in pod_of(desired.download_job(seen()))


# -- account -------------------------------------------------------------------------------------


def test_the_account_may_patch_the_status_of_its_one_artifact_and_nothing_else() -> None:
    account, role, binding = desired.account(seen())
    assert [each["kind"] for each in (account, role, binding)] == [
        *("ServiceAccount", "Role", "RoleBinding")
    ]
    assert account["automountServiceAccountToken"] is False
    assert role["rules"] == [
        {
            "apiGroups": ["aim.eai.amd.com"],
            "resources": ["aimartifacts/status"],
            "resourceNames": ["demo"],
            "verbs": ["patch"],
        }
    ]
    name = account["metadata"]["name"]
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "models"}
    assert binding["subjects"] == [subject]
    assert binding["roleRef"]["name"] == role["metadata"]["name"] == name
