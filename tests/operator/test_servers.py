"""What serves a model: its mounts, env, resources, scale and security; and how it is doing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operator_shim.objects import Object, at, name_of
from operator_shim.runtime_config import RuntimeConfig
from operator_shim.serving import (
    Serving,
    address_of,
    manifests,
    mounts_of_cache,
    mounts_of_server,
    server_name,
    server_of,
)
from tests.operator.fakes import UID
from tests.operator.service_land import chat, model, template


def entry(model: str, name: str = "artifact", claim: str = "claim", **more: str) -> Object:
    return {
        "name": name,
        "model": model,
        "status": "Ready",
        "persistentVolumeClaim": claim,
        **more,
    }


def paths(*entries: Object) -> list[str]:
    artifacts = {f"{number}": each for number, each in enumerate(entries)}
    return [each.path for each in mounts_of_cache({"status": {"artifacts": artifacts}})]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry("org/one")], ["org/one"]),
        ([entry("org/one"), entry("org/two", "b")], ["org/one", "org/two"]),
        (
            [entry("org/.."), entry("../../etc", "b", "2"), entry("org/x", "c", "3")],
            ["artifact", "b", "org/x"],
        ),
        ([entry("..", "b.c")], ["b-c"]),
        ([entry("a:b/c d")], ["a_b/c_d"]),
        ([entry("org/one"), entry("org/one", "b")], ["org/one"]),
        ([entry("org/one", status="Progressing")], []),
        ([entry("org/one", status="Available")], ["org/one"]),
        ([entry("org/one", claim="")], []),
    ],
)
def test_a_model_is_mounted_by_its_name_and_nowhere_else(
    entries: list[Object], expected: list[str]
) -> None:
    assert paths(*entries) == [f"/workspace/cache/{each}" for each in expected]


@pytest.mark.parametrize(
    "hostile",
    [
        *("../../etc", "/etc/passwd", "..\\..", "./.", "a/../../b", "a,readOnly=false", 'a"b'),
        *("a'b", "a\nb", "a\0b", "a:rw", "$(HOME)", "a" * 300 + "/..", "\u2044etc", "~/x", "-v"),
    ],
)
def test_the_name_of_a_model_leads_nowhere_else(hostile: str) -> None:
    [path] = paths(entry(hostile, mountPoint="/etc"))
    assert re.fullmatch(r"/workspace/cache(/[A-Za-z0-9._-]+)+", path)
    assert not {".", ".."}.intersection(path.split("/"))


def test_a_model_of_two_names_is_mounted_at_both_from_one_volume() -> None:
    entries = {"one": entry("org/one", "one"), "one-2": entry("org/alias", "one")}
    mounts = mounts_of_cache({"status": {"artifacts": entries}})
    assert [(each.volume, each.path) for each in mounts] == [
        ("one", "/workspace/cache/org/one"),
        ("one", "/workspace/cache/org/alias"),
    ]
    pod = pod_of(made(mounts=mounts))
    assert [each["name"] for each in pod["volumes"]] == ["dshm", "one"]
    assert len({each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}) == 3


def test_volumes_have_names_of_their_own() -> None:
    long = "a" * 80
    entries = {
        name: entry(f"org/{name}", name, f"claim-{name}")
        for name in ("x.y", "x-y", long, f"{long}b", "dshm")
    }
    names = [each.volume for each in mounts_of_cache({"status": {"artifacts": entries}})]
    assert len(set(names)) == len(entries)
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() for name in names)
    assert "dshm" not in names


@pytest.mark.parametrize(
    ("service", "namespace", "expected"),
    [
        ("qwen-chat", "ml-team", "qwen-chat-a04542d9"),
        # With `-predictor-` and the namespace it is a name of a host.
        ("s" * 60, "ml-team", f"{'s' * 36}-a04542d9"),
        # Of the longest namespace it leaves no room: something is left of it, and is its own.
        ("qwen-chat", "n" * 63, "q-a38f4d7c"),
    ],
)
def test_the_server_bears_the_name_that_aim_engine_gives_it(
    service: str, namespace: str, expected: str
) -> None:
    assert server_name({"metadata": {"name": service, "namespace": namespace}}) == expected


def made(form: str = "Deployment", spec: Object | None = None, **more: Any) -> Object:
    wanted = {"model": {"name": "qwen"}, **(spec or {})}
    return manifests(Serving(chat(spec=wanted), model(), form=form, **more))[0]


def pod_of(server: Object) -> Object:
    path = "spec.template.spec" if server["kind"] == "Deployment" else "spec.predictor"
    found: Object = at(server, path)
    return found


def env_of(server: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in pod_of(server)["containers"][0]["env"]}


def env(**values: str) -> list[Object]:
    return [{"name": name, "value": value} for name, value in values.items()]


def test_layers_of_env_go_before_one_another() -> None:
    names = "ABCD"
    its = template(env=env(B="template", C="template", AIM_METRIC="by hand"), metric="latency")
    its["spec"]["precision"] = "fp8"
    config = RuntimeConfig(
        env=tuple(env(**dict.fromkeys(names, "config"), VLLM_ENABLE_METRICS="no"))
    )
    server = made(spec={"env": env(C="service")}, template=its, config=config)
    assert env_of(server) == {
        "A": "config",
        "B": "template",
        "C": "service",
        "D": "config",
        "AIM_CACHE_PATH": "/workspace/cache",
        "VLLM_ENABLE_METRICS": "no",
        "AIM_METRIC": "by hand",
        "AIM_PRECISION": "fp8",
    }


def test_resources_of_the_service_go_before_those_of_the_template_and_its_profile() -> None:
    its = template(resources={"requests": {"cpu": "4"}, "limits": {"memory": "32Gi"}})
    its["status"]["profile"] = {"metadata": {"gpuCount": 2}}
    server = made(spec={"resources": {"limits": {"memory": "48Gi"}}}, template=its)
    assert pod_of(server)["containers"][0]["resources"] == {
        "requests": {"amd.com/gpu": "2", "cpu": "4"},
        "limits": {"amd.com/gpu": "2", "memory": "48Gi"},
    }


@pytest.mark.parametrize(
    ("spec", "replicas", "predictor", "autoscaler"),
    [
        ({}, 1, (1, 1), "none"),
        ({"replicas": 3}, 3, (3, 3), "none"),
        ({"replicas": 0}, 0, (0, 0), "none"),
        ({"replicas": "two", "resources": "x"}, 1, (1, 1), "none"),
        ({"minReplicas": 2, "maxReplicas": 5}, None, (2, 5), "keda"),
        # Nothing is left to an autoscaler there.
        ({"minReplicas": 2}, 2, (2, 2), "keda"),
        ({"minReplicas": 3, "maxReplicas": 2}, 3, (3, 2), "keda"),
        ({"minReplicas": 2, "autoScaling": {"metrics": []}}, None, (2, 2), "keda"),
        ({"autoScaling": {"metrics": []}}, None, (1, 1), "keda"),
    ],
)
def test_the_scale_is_the_services(
    spec: Object, replicas: int | None, predictor: tuple[int, int], autoscaler: str
) -> None:
    # What scales by itself is left to an autoscaler.
    assert made(spec=spec)["spec"].get("replicas") == replicas
    server = made("InferenceService", spec)
    told = server["spec"]["predictor"]
    assert (told["minReplicas"], told["maxReplicas"]) == predictor
    annotation = server["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"]
    assert annotation == autoscaler


@pytest.mark.parametrize("restricted", [False, True])
def test_a_pod_is_as_strict_as_model_images_and_the_namespace_want(restricted: bool) -> None:
    pod = pod_of(made(is_restricted=restricted))
    [container] = pod["containers"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["automountServiceAccountToken"] is False
    # Many model images run as root: only who forbids that has it forbidden.
    assert ("runAsNonRoot" in pod["securityContext"]) == restricted
    assert ("capabilities" in container["securityContext"]) == restricted


def test_accounts_and_secrets_are_the_services() -> None:
    spec = {"serviceAccountName": "models", "imagePullSecrets": [{"name": "registry"}]}
    pod = pod_of(made(spec=spec))
    assert pod["serviceAccountName"] == "models"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    # Who names an account may want its token.
    assert "automountServiceAccountToken" not in pod


@pytest.mark.parametrize("form", ["Deployment", "InferenceService"])
def test_what_is_mounted_is_read_back(form: str) -> None:
    mounts = mounts_of_cache(
        {"status": {"artifacts": {"a": entry("org/one"), "b": entry("o/t", "b")}}}
    )
    assert len(mounts) == 2
    assert mounts_of_server(made(form, mounts=mounts)) == mounts


def test_the_pods_of_downloads_are_not_taken_for_those_of_the_server() -> None:
    deployment, service = manifests(Serving(chat(), model()))
    selector = service["spec"]["selector"]
    assert selector == at(deployment, "spec.selector.matchLabels")
    assert selector.items() <= at(deployment, "spec.template.metadata.labels").items()
    assert "app.kubernetes.io/component" in selector
    assert name_of(service) == name_of(deployment)
    assert at(service, "metadata.ownerReferences")[0]["uid"] == UID


@pytest.mark.parametrize(
    ("kind", "status", "available", "trouble"),
    [
        ("Deployment", {}, False, ""),
        ("Deployment", {"Available": "True"}, True, ""),
        ("Deployment", {"Available": "False", "Progressing": "False"}, False, "Progressing!"),
        (
            "Deployment",
            {"ReplicaFailure": "True", "Progressing": "False"},
            False,
            "ReplicaFailure!",
        ),
        ("InferenceService", {}, False, ""),
        ("InferenceService", {"Ready": "True"}, True, ""),
        ("InferenceService", {"Ready": "False"}, False, "no such format"),
    ],
)
def test_how_a_server_is_doing(
    kind: str, status: dict[str, str], available: bool, trouble: str
) -> None:
    conditions = [
        {"type": each, "status": value, "message": f"{each}!"} for each, value in status.items()
    ]
    failure = {"lastFailureInfo": {"message": "no such format"}} if "Ready" in status else {}
    told = server_of({"kind": kind, "status": {"conditions": conditions, "modelStatus": failure}})
    assert (told.is_available, told.trouble) == (available, trouble)


@pytest.mark.parametrize(
    ("told", "current"),
    [
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, True),
        ({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 2}, False),
        ({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, False),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, False),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "seen": 1}, False),
    ],
)
def test_whether_all_of_a_server_is_as_it_was_last_asked_for(told: Object, current: bool) -> None:
    status = told | {"observedGeneration": told.get("seen", 2)}
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}
    assert server_of({"kind": "Deployment", **deployment}).is_current == current


@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("Deployment", {}, "http://chat.models.svc"),
        ("InferenceService", {}, ""),
        ("InferenceService", {"url": "http://outside"}, "http://outside"),
        (
            "InferenceService",
            {"url": "http://outside", "address": {"url": "http://inside"}},
            "http://inside",
        ),
    ],
)
def test_where_a_server_is_reached(kind: str, status: Object, expected: str) -> None:
    metadata = {"name": "chat", "namespace": "models"}
    assert address_of({"kind": kind, "metadata": metadata, "status": status}) == expected
