"""The kinds: what they say of themselves, what they refuse, and what they keep."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from aim_downloader.reporters.artifact_status import ArtifactStatus, pruned
from tests.cluster import Cluster
from tests.cluster.client import KubectlError, Namespace
from tests.operator.kinds import NAMES, custom, definitions, taken

OF_AIM_ENGINE = Path(__file__).parents[1] / "cluster" / "crds" / "aimartifact.yaml"
URI = "hf://org/model"
SERVICE_TEMPLATES = ["AIMServiceTemplate", "AIMClusterServiceTemplate"]
MODELS = ["AIMModel", "AIMClusterModel"]

# The cluster may have to be started first, and others may be alone in it.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def namespace(kinds: Cluster) -> Iterator[Namespace]:
    with kinds.namespace() as namespace:
        yield namespace


def set_status(namespace: Namespace, kind: str, name: str, status: Any) -> dict[str, Any]:
    patch = ["--subresource=status", "--type=merge", "--patch", json.dumps({"status": status})]
    found: dict[str, Any] = json.loads(namespace.kubectl("patch", kind, name, *patch, "-o", "json"))
    return found


# -- what they say of themselves -------------------------------------------------------------------


def schema_of(definition: dict[str, Any]) -> dict[str, Any]:
    [version] = definition["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each field below a schema, with its path."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
        yield from fields(field, f"{path}.{name}")
    for below in ("items", "additionalProperties"):
        if isinstance(schema.get(below), dict):
            yield from fields(schema[below], f"{path}[]")


BY_KIND = {each["spec"]["names"]["kind"]: each for each in definitions()}


@pytest.mark.parametrize("kind", BY_KIND)
def test_every_field_has_a_description(kind: str) -> None:
    schema = schema_of(BY_KIND[kind])
    assert schema["description"]
    lacking = [path for path, field in fields(schema) if len(field.get("description", "")) < 15]
    assert lacking == []


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("aimartifact.spec", "hf://openai-community/gpt2"),
        ("aimartifact.spec.size", "as 15Gi"),
        ("aimartifact.status.status", "whole and verified"),
        ("aimruntimeconfig.spec.storage.pvcHeadroomPercent", "10"),
        ("aimsvc.spec.caching.mode", "Dedicated"),
    ],
)
def test_explain_is_a_help(kinds: Cluster, field: str, said: str) -> None:
    assert said in " ".join(kinds.kubectl("explain", field).split())


def test_the_artifact_has_every_field_of_aim_engine() -> None:
    theirs = {path for path, _ in fields(schema_of(yaml.safe_load(OF_AIM_ENGINE.read_text())))}
    ours = {path for path, _ in fields(schema_of(BY_KIND["AIMArtifact"]))}
    # These every object has.
    assert theirs - ours == {".apiVersion", ".kind", ".metadata"}


def test_the_kinds_are_accepted_whole(kinds: Cluster) -> None:
    for name in NAMES:
        found = kinds.get("crd", name)
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert (name, conditions) == (name, {"NamesAccepted": "True", "Established": "True"})


SHORT = "aimart,aimtc,aimmc,aimsvc,aimtpl,aimcltpl,aimrc,aimclrc,aimmdl,aimclmdl"


@pytest.mark.parametrize("category", ["aim", "all"])
def test_short_names_and_categories(namespace: Namespace, category: str) -> None:
    namespace.kubectl("get", SHORT)
    namespace.apply(custom("AIMArtifact", "any", {"sourceUri": URI}))
    assert "aimartifact.aim.eai.amd.com/any" in namespace.kubectl("get", category)


# -- what they refuse ------------------------------------------------------------------------------

SERVICE = {"model": {"name": "qwen"}}
SOURCE = {"modelId": "org/model", "sourceUri": URI}


@pytest.mark.parametrize(
    ("kind", "spec", "said"),
    [
        ("AIMArtifact", None, "spec: Required value"),
        ("AIMArtifact", {}, "spec.sourceUri: Required value"),
        ("AIMArtifact", {"sourceUri": ""}, "spec.sourceUri: Invalid value"),
        ("AIMArtifact", {"sourceUri": "https://host/m"}, "spec.sourceUri: Invalid value"),
        ("AIMArtifact", {"sourceUri": "hf://a b/c"}, "spec.sourceUri: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "modelId": "model"}, "spec.modelId: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "size": "large"}, "spec.size: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "size": "-1Gi"}, "spec.size: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "size": -1}, "spec.size: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "shards": 0}, "spec.shards: Invalid value"),
        ("AIMArtifact", {"sourceUri": URI, "accessMode": "RWX"}, "spec.accessMode: Unsupported"),
        (
            "AIMArtifact",
            {"sourceUri": URI, "shards": 2, "accessMode": "ReadWriteOnce"},
            "spec.shards: Invalid value",
        ),
        (
            "AIMArtifact",
            {"sourceUri": URI, "resources": {"limits": {"memory": "much"}}},
            "spec.resources.limits.memory: Invalid value",
        ),
        (
            "AIMArtifact",
            {"sourceUri": URI, "env": [{"name": "HF_TOKEN"}, {"name": "HF_TOKEN"}]},
            'spec.env[1]: Duplicate value: {"name":"HF_TOKEN"}',
        ),
        ("AIMArtifact", {"sourceUri": URI, "env": [{}]}, "spec.env[0].name: Required value"),
        ("AIMModelCache", {"sourceUri": "org/model"}, "spec.sourceUri: Invalid value"),
        ("AIMTemplateCache", {}, "spec.templateName: Invalid value"),
        ("AIMTemplateCache", {"templateName": ""}, "spec.templateName: Invalid value"),
        (
            "AIMTemplateCache",
            {"templateName": "a", "templateRef": "a"},
            "a template is named either by templateName or, in the older way, by templateRef",
        ),
        (
            "AIMTemplateCache",
            {"templateName": "a", "templateScope": "Everywhere"},
            "spec.templateScope: Unsupported",
        ),
        ("AIMTemplateCache", {"templateName": "a", "mode": "Always"}, "spec.mode: Unsupported"),
        (
            "AIMTemplateCache",
            {"templateName": "a", "modelSources": [{"modelId": "org/m"}]},
            "spec.modelSources[0].sourceUri: Required value",
        ),
        (
            "AIMRuntimeConfig",
            {"storage": {"pvcHeadroomPercent": -1}},
            "spec.storage.pvcHeadroomPercent: Invalid value",
        ),
        (
            "AIMClusterRuntimeConfig",
            {"pvcHeadroomPercent": "ten"},
            "spec.pvcHeadroomPercent: Invalid value",
        ),
        ("AIMService", None, "spec: Required value"),
        ("AIMService", {"model": {}}, "spec.model: Invalid value"),
        ("AIMService", {"model": {"name": "a", "image": "b"}}, "exactly one of name, image and"),
        ("AIMService", {"caching": {"mode": "Sometimes"}}, "spec.caching.mode: Unsupported"),
        ("AIMService", {"replicas": -1}, "spec.replicas: Invalid value"),
        ("AIMService", {"replicas": "many"}, "spec.replicas: Invalid value"),
        ("AIMService", {"minReplicas": -1}, "spec.minReplicas: Invalid value"),
        ("AIMService", {"maxReplicas": 0}, "spec.maxReplicas: Invalid value"),
        ("AIMService", {"resources": "2"}, "spec.resources: Invalid value"),
        ("AIMService", {"imagePullSecrets": ["a"]}, "spec.imagePullSecrets[0]: Invalid value"),
        ("AIMService", {"serviceAccountName": {}}, "spec.serviceAccountName: Invalid value"),
        ("AIMServiceTemplate", {"resources": "2"}, "spec.resources: Invalid value"),
        (
            "AIMService",
            {"model": {"custom": {"modelSources": [SOURCE, SOURCE]}}},
            "spec.model.custom.modelSources: Too many",
        ),
        ("AIMServiceTemplate", {"caching": {"enabled": "yes"}}, "spec.caching.enabled: Invalid"),
        (
            "AIMClusterServiceTemplate",
            {"modelSources": [{**SOURCE, "modelId": "m"}]},
            "spec.modelSources[0].modelId: Invalid value",
        ),
    ],
)
def test_what_cannot_be_is_refused(kinds: Cluster, kind: str, spec: Any, said: str) -> None:
    with pytest.raises(KubectlError) as refusal:
        taken(kinds, custom(kind, "any", spec))
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("AIMArtifact", {"sourceUri": "hf://org/model@v1.0"}),
        ("AIMArtifact", {"sourceUri": "s3://bucket/prefix", "size": 16_000_000_000}),
        ("AIMArtifact", {"sourceUri": URI, "size": "1.5Ti", "shards": 8}),
        ("AIMArtifact", {"sourceUri": URI, "shards": 1, "accessMode": "ReadWriteOncePod"}),
        ("AIMArtifact", {"sourceUri": URI, "resources": {"requests": {"cpu": 2}}}),
        ("AIMModelCache", {"sourceUri": URI, "size": "10Gi"}),
        ("AIMTemplateCache", {"templateRef": "qwen"}),
        ("AIMTemplateCache", {"templateName": "qwen", "modelSources": [SOURCE]}),
        ("AIMRuntimeConfig", {"storage": {"pvcHeadroomPercent": 0}}),
        ("AIMService", {"caching": {"mode": "Never"}, **SERVICE}),
        ("AIMService", {"cacheModel": True}),
        ("AIMServiceTemplate", {"modelName": "qwen", "caching": {"enabled": True}}),
        (
            "AIMService",
            {
                "replicas": 0,
                "minReplicas": 0,
                "maxReplicas": 3,
                "autoScaling": {"metrics": [{"type": "PodMetric"}]},
                "resources": {"limits": {"amd.com/gpu": "1", "memory": "64Gi"}},
                "overrides": {"metric": "latency"},
                "imagePullSecrets": [{"name": "registry"}],
                "serviceAccountName": "runner",
            },
        ),
    ],
)
def test_what_can_be_is_taken_as_it_is(kinds: Cluster, kind: str, spec: Any) -> None:
    found = taken(kinds, custom(kind, "any", spec))["spec"]
    assert found | spec == found


SHARED = {"mode": "Shared"}
CACHE = {"templateName": "qwen"}


@pytest.mark.parametrize(
    ("kind", "before", "after", "said"),
    [
        ("AIMArtifact", {"sourceUri": URI}, {"sourceUri": f"{URI}2"}, "sourceUri is immutable"),
        ("AIMArtifact", {"sourceUri": URI}, None, "spec: Required value"),
        ("AIMArtifact", {"sourceUri": URI}, {"sourceUri": URI, "size": "1Gi", "shards": 2}, None),
        ("AIMModelCache", {"sourceUri": URI}, {"sourceUri": f"{URI}2"}, "sourceUri is immutable"),
        ("AIMTemplateCache", CACHE, {"templateName": "b"}, "spec.templateName: Invalid value"),
        ("AIMTemplateCache", CACHE, {"templateRef": "b"}, "the template of a cache is immutable"),
        ("AIMTemplateCache", CACHE, {"templateRef": "qwen"}, None),
        ("AIMTemplateCache", CACHE, {**CACHE, "mode": "Dedicated"}, "mode is immutable"),
        ("AIMTemplateCache", CACHE, {**CACHE, **SHARED, "templateScope": "Namespace"}, None),
        (
            "AIMTemplateCache",
            {**CACHE, "mode": "Dedicated"},
            CACHE,  # which means Shared
            "mode is immutable",
        ),
        (
            "AIMService",
            {"caching": {"mode": "Shared"}},
            {"caching": {"mode": "Never"}},
            "spec.caching: Invalid value",
        ),
        ("AIMService", {}, {"caching": SHARED}, "caching is immutable; it can be neither added"),
        ("AIMService", {"caching": SHARED}, {}, "caching is immutable"),
        ("AIMService", {"cacheModel": True}, {"cacheModel": False}, "cacheModel is immutable"),
        ("AIMService", {}, {"cacheModel": True}, "cacheModel is immutable"),
        ("AIMService", SERVICE, {"model": {"name": "b"}}, "model is immutable"),
        ("AIMService", SERVICE, {}, "model is immutable"),
        ("AIMService", SERVICE, None, "spec: Required value"),
        ("AIMService", {}, {"template": {"name": "a"}}, "template is immutable"),
        ("AIMService", SERVICE, {**SERVICE, "replicas": 2, "storage": {}}, None),
    ],
)
def test_what_may_change(
    namespace: Namespace, kind: str, before: Any, after: Any, said: str | None
) -> None:
    namespace.apply(custom(kind, "any", before))
    there = namespace.get(kind, "any")
    there["spec"] = after
    change = json.dumps(there)
    if said is None:
        namespace.kubectl("replace", "-f", "-", input=change)
        return
    with pytest.raises(KubectlError) as refusal:
        namespace.kubectl("replace", "-f", "-", input=change)
    assert said in str(refusal.value)


# -- what they keep, and add -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "defaulted"),
    [
        ("AIMArtifact", {"sourceUri": URI}, {}),
        ("AIMTemplateCache", CACHE, {"mode": "Shared", "templateScope": "Unknown"}),
        ("AIMRuntimeConfig", {"storage": {"defaultStorageClassName": "a"}}, {}),
        ("AIMClusterRuntimeConfig", {"storage": {}, "labelPropagation": {"match": ["a"]}}, {}),
        ("AIMService", {**SERVICE, "caching": {}}, {"caching": SHARED}),
        ("AIMService", {**SERVICE, "storage": {}}, {}),
        ("AIMServiceTemplate", {"caching": {}}, {"caching": {"enabled": False}}),
    ],
)
def test_defaults(kinds: Cluster, kind: str, spec: Any, defaulted: Any) -> None:
    assert taken(kinds, custom(kind, "any", spec))["spec"] == {**spec, **defaulted}


@pytest.mark.parametrize("kind", ["AIMService", *SERVICE_TEMPLATES, *MODELS])
def test_fields_of_aim_engine_survive_in_reduced_kinds(
    kinds: Cluster, namespace: Namespace, kind: str
) -> None:
    unknown = {"overrides": {"metric": "latency", "gpus": [1, 2]}, "replicas": 3}
    created = taken(kinds, custom(kind, "any", unknown))
    assert created["spec"] == unknown
    namespace.apply(custom(kind, f"any-{namespace.name}", unknown))
    status = {"routing": {"path": "/x"}, "runtime": {"replicas": "3/3"}, "cache": {"more": 1}}
    kept = set_status(namespace, kind, f"any-{namespace.name}", status)["status"]
    # A default would be told by whoever writes any of it.
    assert kept == (status if kind in SERVICE_TEMPLATES else {**status, "status": "Pending"})
    namespace.kubectl("delete", kind, f"any-{namespace.name}")


@pytest.mark.parametrize("inner", ["caching", "model", "template", "storage"])
def test_fields_of_aim_engine_survive_inside_typed_ones(kinds: Cluster, inner: str) -> None:
    spec = {**SERVICE, inner: {**SERVICE.get(inner, {}), "other": {"deep": [1]}}}
    assert taken(kinds, custom("AIMService", "any", spec))["spec"][inner]["other"] == {"deep": [1]}


@pytest.mark.parametrize("kind", ["AIMArtifact", "AIMModelCache"])
def test_what_the_downloader_tells_is_kept(namespace: Namespace, kind: str) -> None:
    namespace.apply(custom(kind, "any", {"sourceUri": URI}))
    told = ArtifactStatus(
        ("XET", "HTTP"),
        revision="0123abcd",
        done=5,
        total=10,
        rate=2,
        remaining=3,
        protocol="XET",
        attempt=1,
        message="Downloading with XET",
    ).as_fields()
    assert pruned(told, set_status(namespace, kind, "any", told)["status"]) == set()


# -- what `kubectl get` shows ----------------------------------------------------------------------

ARTIFACT_STATUS = {
    "status": "Progressing",
    "mode": "Shared",
    "displaySize": "15.2 GiB",
    "persistentVolumeClaim": "any-cache-1",
    "progress": {"displayPercentage": "42 %"},
    "download": {"protocol": "XET", "attempt": 1},
}
SERVICE_STATUS = {
    "status": "Running",
    "resolvedModel": {"name": "qwen"},
    "resolvedTemplate": {"name": "qwen-fp8"},
    "runtime": {"replicas": "1"},
}
TEMPLATE_STATUS = {
    "status": "Ready",
    "hardwareSummary": "1 x MI300X",
    "profile": {"metadata": {"metric": "latency", "precision": "fp8"}},
}
MODEL_STATUS = {
    "status": "Ready",
    "sourceType": "Image",
    "imageMetadata": {"model": {"canonicalName": "qwen"}},
}


@pytest.mark.parametrize(
    ("kind", "spec", "status", "header", "row"),
    [
        (
            "AIMArtifact",
            {"sourceUri": URI},
            ARTIFACT_STATUS,
            "NAME STATUS MODE MODEL SIZE PROGRESS PROTOCOL ATTEMPT PVC AGE PAUSED REASON MESSAGE",
            "Progressing Shared 15.2 GiB 42 % XET 1 any-cache-1",
        ),
        (
            "AIMModelCache",
            {"sourceUri": URI, "size": "15Gi"},
            {**ARTIFACT_STATUS, "status": "Available"},
            "NAME STATUS MODEL SIZE PROGRESS PVC CACHE SIZE AGE PAUSED REASON MESSAGE",
            "Available 15.2 GiB 42 % any-cache-1 15Gi",
        ),
        (
            "AIMTemplateCache",
            CACHE,
            {"status": "Ready", "resolvedTemplateKind": "AIMServiceTemplate"},
            "NAME TEMPLATE MODE STATUS KIND AGE PAUSED REASON MESSAGE",
            "qwen Shared Ready AIMServiceTemplate",
        ),
        (
            "AIMTemplateCache",
            {"templateRef": "qwen"},
            {"status": "Ready", "resolvedTemplateKind": "AIMServiceTemplate"},
            "NAME TEMPLATE MODE STATUS KIND AGE PAUSED REASON MESSAGE",
            "qwen Shared Ready AIMServiceTemplate",
        ),
        (
            "AIMService",
            SERVICE,
            SERVICE_STATUS,
            "NAME STATUS MODEL TEMPLATE REPLICAS AGE PAUSED REASON MESSAGE",
            "Running qwen qwen-fp8 1",
        ),
        *(
            (
                kind,
                {"modelName": "qwen"},
                TEMPLATE_STATUS,
                "NAME MODEL STATUS HARDWARE METRIC PRECISION PAUSED REASON MESSAGE",
                "qwen Ready 1 x MI300X latency fp8",
            )
            for kind in SERVICE_TEMPLATES
        ),
        *(
            (
                kind,
                {"image": "org/qwen:1"},
                MODEL_STATUS,
                "NAME STATUS SOURCE IMAGE MODEL AGE PAUSED REASON MESSAGE",
                "Ready Image org/qwen:1 qwen",
            )
            for kind in MODELS
        ),
    ],
)
def test_columns(
    namespace: Namespace, kind: str, spec: Any, status: Any, header: str, row: str
) -> None:
    name = f"any-{namespace.name}"
    namespace.apply(custom(kind, name, spec))
    set_status(namespace, kind, name, status)
    shown = namespace.kubectl("get", kind, name, "-o", "wide").splitlines()
    namespace.kubectl("delete", kind, name)
    first, second = (" ".join(line.split()) for line in shown)
    assert first == header
    assert second.startswith(f"{name} {row}")


def test_it_is_seen_that_an_object_is_paused(namespace: Namespace) -> None:
    artifact = custom("AIMArtifact", "any", {"sourceUri": URI})
    artifact["metadata"]["annotations"] = {"aim.eai.amd.com/reconciliation-paused": "yes"}
    namespace.apply(artifact)
    assert " yes" in namespace.kubectl("get", "aimartifact", "any", "-o", "wide")


@pytest.mark.parametrize("kind", [kind for kind in BY_KIND if "RuntimeConfig" not in kind])
def test_why_it_is_not_ready_stands_in_one_line(namespace: Namespace, kind: str) -> None:
    name = f"any-{namespace.name}"
    downloads, cache = kind in {"AIMArtifact", "AIMModelCache"}, kind == "AIMTemplateCache"
    spec = {"sourceUri": URI} if downloads else CACHE if cache else {}
    namespace.apply(custom(kind, name, spec))
    message = "downloading hf://org/model: pod any-1 waits for a node"
    ready = {"type": "Ready", "status": "False", "reason": "Progressing", "message": message}
    other = {**ready, "type": "Other", "reason": "Other", "message": "of something else"}
    since = {"lastTransitionTime": "2026-01-31T10:00:00Z"}
    set_status(namespace, kind, name, {"conditions": [other | since, ready | since]})
    wide = namespace.kubectl("get", kind, name, "-o", "wide").splitlines()[1]
    usual = namespace.kubectl("get", kind, name)
    described = namespace.kubectl("describe", kind, name)
    namespace.kubectl("delete", kind, name)
    assert wide.endswith(f" Progressing   {message}")
    assert "waits for a node" not in usual
    assert message in described
