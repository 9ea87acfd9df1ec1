"""What a template cache makes, uses and says, in memory."""

from __future__ import annotations

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from operator_shim.cluster import ApiError
from operator_shim.keys import TEMPLATE_CACHE
from operator_shim.names import claim_name
from operator_shim.objects import Object, at, labels_of, name_of, uid_of
from operator_shim.serving import mounts_of_cache
from tests.operator.cache_land import (
    HERE,
    ONE,
    TWO,
    CacheLand,
    artifact,
    cache,
    land,
    made_by_users,
    model_cache,
    service_template,
    status,
)
from tests.operator.fakes import Killed, reasons

TINY = {"modelId": "sshleifer/tiny-gpt2", "sourceUri": "hf://sshleifer/tiny-gpt2"}
LLAMA_NAME = "amd/Llama-3.1-8B-Instruct-FP8-KV"
LLAMA = {"modelId": LLAMA_NAME, "sourceUri": f"hf://{LLAMA_NAME}"}
TOKEN = {"name": "HF_TOKEN", "value": "my-token"}
PAUSED = {"aim.eai.amd.com/reconciliation-paused": "true"}
MIRROR = {"name": "HF_ENDPOINT", "value": "https://mirror.test"}


# -- what is made ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "spec", "name"),
    [
        (TINY, {}, "hf---sshleifer-tiny-gpt2-fc6a9647bb"),
        (TINY, {"env": [TOKEN]}, "hf---sshleifer-tiny-gpt2-8b6a4bfd16"),
        (TINY | {"env": [TOKEN]}, {}, "hf---sshleifer-tiny-gpt2-8b6a4bfd16"),
        (
            LLAMA,
            {"storageClassName": "longhorn"},
            "hf---amd-llama-3-1-8b-instruct-fp8-kv-08115ccc5f",
        ),
        (
            LLAMA,
            {"storageClassName": "longhorn", "mode": "Dedicated"},
            "hf---amd-llama-3-1-8b-instruct-fp8-kv-f3edb8e403",
        ),
    ],
)
async def test_an_artifact_has_the_name_that_aim_engine_gives(
    source: Object, spec: Object, name: str
) -> None:
    there = land(service_template(sources=[source]), cache("tc1", spec=spec))
    await there.look("tc1")
    assert [name_of(each) for each in there.of_kind("AIMArtifact")] == [name]


async def test_what_nobody_holds_is_made_with_all_that_cache_and_source_ask_for() -> None:
    source = ONE | {"env": [TOKEN], "size": "5Gi"}
    spec = {
        "env": [MIRROR, {"name": "HF_TOKEN", "value": "of the cache"}],
        "storageClassName": "fast",
        "runtimeConfigName": "mine",
        "downloadImage": "registry.test/mine:1",
        "imagePullSecrets": [{"name": "pull"}],
    }
    labels = {"aim.eai.amd.com/service.name": "chat", "team": "a"}
    config = made_by_users("AIMRuntimeConfig", "mine", {})
    there = land(service_template(sources=[TWO, source]), cache(spec=spec, labels=labels), config)
    await there.look()
    made = there.artifacts()["hf://org/one"]
    assert made["spec"] == {
        "sourceUri": "hf://org/one",
        "modelId": "org/one",
        "size": "5Gi",
        "env": [MIRROR, TOKEN],
        "storageClassName": "fast",
        "runtimeConfigName": "mine",
        "modelDownloadImage": "registry.test/mine:1",
        "imagePullSecrets": [{"name": "pull"}],
    }
    assert labels_of(made) == {
        "template-created": "true",
        "aim.eai.amd.com/template.name": "qwen",
        "aim.eai.amd.com/template.scope": "Namespace",
        "aim.eai.amd.com/template.index": "1",
        "aim.eai.amd.com/template-cache.name": "qwen",
        "aim.eai.amd.com/service.name": "chat",
        "app.kubernetes.io/managed-by": "aim-template-cache-controller",
    }
    assert "ownerReferences" not in made["metadata"]


async def test_what_a_dedicated_cache_makes_belongs_to_it_and_what_is_there_is_not_used() -> None:
    there = land(
        service_template(),
        cache(spec={"mode": "Dedicated"}),
        artifact("a", "hf://org/one", "Ready"),
    )
    await there.look()
    made = [each for each in there.of_kind("AIMArtifact") if name_of(each) != "a"]
    assert len(made) == 2
    for each in made:
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("AIMTemplateCache", uid_of(there.cache()))
        assert owner["controller"] is True


async def test_two_shared_caches_of_one_source_use_one_artifact() -> None:
    there = land(service_template(), cache(), cache("other"))
    await there.look()
    await there.look("other")
    assert len(there.of_kind("AIMArtifact")) == 2
    assert there.cache()["status"]["artifacts"] == there.cache("other")["status"]["artifacts"]


async def test_two_caches_made_at_the_same_moment_download_a_model_once() -> None:
    class Slow(CacheLand):
        async def listed(self, *words: str) -> list[Object]:
            found = await super().listed(*words)
            await asyncio.sleep(0)
            return found

    there = Slow()
    # With another token each, the artifacts that they would make have two names.
    caches = [cache(), cache("other", spec={"env": [TOKEN]})]
    for each in (service_template(), *caches):
        there.put(each)
    await asyncio.gather(there.look(), there.look("other"))
    assert len(there.of_kind("AIMArtifact")) == 2
    assert there.cache()["status"]["artifacts"] == there.cache("other")["status"]["artifacts"]


async def test_two_configs_that_name_two_endpoints_make_two_artifacts_of_one_uri() -> None:
    configs = [
        made_by_users(
            "AIMRuntimeConfig", name, {"env": [{"name": "HF_ENDPOINT", "value": f"http://{name}"}]}
        )
        for name in ("x", "y")
    ]
    caches = [cache(name, spec={"runtimeConfigName": name}) for name in ("x", "y")]
    there = land(service_template(sources=[ONE]), *configs, *caches)
    await there.look("x")
    await there.look("y")
    assert len({name_of(each) for each in there.of_kind("AIMArtifact")}) == 2


async def test_the_sources_of_the_cache_stand_in_place_of_the_templates() -> None:
    three = {"modelId": "org/three", "sourceUri": "hf://org/three"}
    there = land(service_template(), cache(spec={"modelSources": [three]}))
    await there.look()
    assert set(there.artifacts()) == {"hf://org/three"}


async def test_a_template_that_is_not_ready_and_names_its_models_is_downloaded_already() -> None:
    there = land(service_template(state="Progressing"), cache())
    await there.look()
    assert set(there.artifacts()) == {"hf://org/one", "hf://org/two"}
    assert there.state() == "Pending"


async def test_sources_that_change_are_made_and_those_no_longer_wanted_leave_the_status() -> None:
    there = land()
    await there.look()
    there.of_kind("AIMServiceTemplate")[0]["status"]["modelSources"] = [TWO, TINY]
    await there.look()
    listed = {each["model"] for each in there.cache()["status"]["artifacts"].values()}
    assert listed == {"org/two", "sshleifer/tiny-gpt2"}
    assert set(there.artifacts()) == {"hf://org/one", "hf://org/two", TINY["sourceUri"]}


async def test_a_cache_that_changes_its_env_tells_what_it_has_made_and_is_not_ready() -> None:
    there = land()
    await there.look()
    there.becomes("hf://org/one", "Failed", "AuthError")
    there.becomes("hf://org/two", "Ready")
    there.cache()["spec"]["env"] = [TOKEN]
    await there.look()
    assert at(there.artifacts()["hf://org/one"], "spec.env") == [TOKEN]
    assert at(there.artifacts()["hf://org/two"], "spec.env") is None
    assert len(there.of_kind("AIMArtifact")) == 2
    assert ("Normal", "ArtifactChanged") in {told[:2] for told in there.told}


@pytest.mark.parametrize("whose", ["another cache's", "a user's", "edited"])
async def test_what_others_have_made_or_changed_is_not_told_otherwise(whose: str) -> None:
    there = land()
    await there.look()
    made = there.artifacts()["hf://org/one"]
    if whose == "another cache's":
        made["metadata"]["labels"]["aim.eai.amd.com/template-cache.name"] = "other"
    if whose == "a user's":
        made["metadata"]["labels"] = {}
    if whose == "edited":
        edit = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {}}}
        made["metadata"]["managedFields"] = [edit]
    there.cache()["spec"]["env"] = [TOKEN]
    await there.look()
    assert at(made, "spec.env") is None


# -- what is used ------------------------------------------------------------------------------


async def test_what_a_user_has_downloaded_is_used() -> None:
    there = land(
        service_template(),
        cache(),
        artifact("mine", "hf://org/one", "Ready"),
        artifact("yours", "hf://org/two", "Ready"),
    )
    await there.look()
    assert there.state() == "Ready"
    assert there.cache()["status"]["artifacts"]["mine"] == {
        "name": "mine",
        "uid": uid_of(there.artifacts()["hf://org/one"]),
        "model": "org/one",
        "status": "Ready",
        "persistentVolumeClaim": claim_name("mine", "uid-of-mine"),
    }
    assert len(there.of_kind("AIMArtifact")) == 2


async def test_an_older_model_cache_that_is_available_is_used() -> None:
    older = model_cache("old", "hf://org/one")
    there = land(service_template(sources=[ONE]), cache(), older)
    await there.look()
    assert there.state() == "Ready"
    entry = there.cache()["status"]["artifacts"]["old"]
    assert (entry["status"], entry["persistentVolumeClaim"]) == ("Ready", "old-cache")
    assert not there.of_kind("AIMArtifact")


@pytest.mark.parametrize(
    ("kind", "claim", "is_mounted"),
    [
        ("AIMArtifact", "a-cache-of-its-uid", True),
        ("AIMArtifact", "postgres-data", False),
        ("AIMArtifact", "a-cache", False),
        ("AIMArtifact", "b-cache-of-its-uid", False),
        ("AIMArtifact", "", False),
        ("AIMModelCache", "a-cache-of-its-uid", True),
        ("AIMModelCache", "a-cache", True),
        ("AIMModelCache", "postgres-data", False),
        ("AIMModelCache", "b-cache", False),
        ("AIMModelCache", "", False),
    ],
)
async def test_only_a_claim_that_can_be_its_own_is_listed_and_mounted(
    kind: str, claim: str, *, is_mounted: bool
) -> None:
    made = made_by_users(kind, "a", {"sourceUri": "hf://org/one"}, uid="u")
    word = "Ready" if kind == "AIMArtifact" else "Available"
    named = claim_name(claim[0], "u") if claim.endswith("-of-its-uid") else claim
    made["status"] = {**status(word), "persistentVolumeClaim": named}
    there = land(service_template(sources=[ONE]), cache(), made)
    await there.look()
    assert there.state() == ("Ready" if is_mounted else "Progressing")
    assert [each.claim for each in mounts_of_cache(there.cache())] == [named] * is_mounted
    if not is_mounted:
        assert "persistentVolumeClaim" not in there.cache()["status"]["artifacts"]["a"]
        assert f"{kind} a is Ready, and names no claim of its own" in there.said()


async def test_what_is_in_use_is_not_exchanged_for_another_that_is_as_good() -> None:
    older = model_cache("model", "hf://org/one")
    there = land(service_template(sources=[ONE]), cache(), older)
    await there.look()
    before = deepcopy(there.cache()["status"])
    there.put(artifact("a", "hf://org/one", "Ready"))
    await there.look()
    assert there.cache()["status"] == before
    there.remove("AIMModelCache", HERE, "model")
    await there.look()
    assert set(there.cache()["status"]["artifacts"]) == {"a"}


@pytest.mark.parametrize("is_known", [True, False])
async def test_where_the_default_class_may_not_be_known_it_counts_as_none(
    *, is_known: bool
) -> None:
    named = artifact("named", "hf://org/one", "Ready", {"storageClassName": "standard"})
    there = land(
        service_template(),
        cache(spec={"storageClassName": "standard"}),
        named,
        artifact("unnamed", "hf://org/two", "Ready"),
    )
    there.unlisted = set() if is_known else {"StorageClass"}
    await there.look()
    used = {"named", "unnamed"} if is_known else {"named"}
    assert used == {"named", "unnamed"} & set(there.cache()["status"]["artifacts"])


async def test_a_cache_that_is_made_anew_takes_what_was_mounted_last() -> None:
    used = artifact("z", "hf://org/one", "Ready")
    used["status"]["lastUsed"] = "2026-01-31T09:00:00Z"
    there = land(service_template(sources=[ONE]), cache(), used)
    await there.look()
    there.put(artifact("a", "hf://org/one", "Ready"))
    there.remove(TEMPLATE_CACHE, HERE, "qwen")
    there.put(cache())
    await there.look()
    assert set(there.cache()["status"]["artifacts"]) == {"z"}


async def test_an_artifact_and_a_model_cache_of_one_name_are_both_mounted() -> None:
    there = land(
        service_template(),
        cache(),
        artifact("a", "hf://org/one", "Ready"),
        model_cache("a", "hf://org/two"),
    )
    await there.look()
    assert there.state() == "Ready"
    assert set(there.cache()["status"]["artifacts"]) == {"a", "a-aimmodelcache"}
    assert {each.path for each in mounts_of_cache(there.cache())} == {
        "/workspace/cache/org/one",
        "/workspace/cache/org/two",
    }


async def test_a_model_cache_is_not_in_the_way_of_an_artifact_of_its_name() -> None:
    there = land(service_template(sources=[ONE]), cache())
    await there.look()
    (made,) = there.of_kind("AIMArtifact")
    there.remove("AIMArtifact", HERE, name_of(made))
    there.put(model_cache(name_of(made), "hf://org/other"))
    await there.look()
    assert [name_of(each) for each in there.of_kind("AIMArtifact")] == [name_of(made)]


async def test_what_the_server_does_not_let_change_stays_as_it_was_made() -> None:
    there = land(service_template(sources=[ONE]), cache(spec={"storageClassName": "standard"}))
    await there.look()
    there.cache()["spec"] |= {"storageClassName": None, "env": [TOKEN]}
    slashed = {**ONE, "sourceUri": f"{ONE['sourceUri']}/"}
    there.of_kind("AIMServiceTemplate")[0]["status"]["modelSources"] = [slashed]
    await there.look()
    (made,) = there.of_kind("AIMArtifact")
    assert at(made, "spec.env") == [TOKEN]
    assert at(made, "spec.sourceUri") == ONE["sourceUri"]
    assert at(made, "spec.storageClassName") == "standard"


async def test_the_name_of_what_is_to_be_made_may_be_taken() -> None:
    there = land(service_template(sources=[ONE]), cache())
    await there.look()
    (made,) = there.of_kind("AIMArtifact")
    made["metadata"]["ownerReferences"] = [{"uid": "u", "kind": "Other", "controller": True}]
    await there.look()
    assert name_of(made) in there.said()
    assert "delete it" in there.said()
    assert there.cache()["status"]["artifacts"] == {}
    made["metadata"] |= {"ownerReferences": [], "deletionTimestamp": "2026-01-31T10:00:00Z"}
    await there.look()
    assert "is being deleted" in there.said()


# -- how it is told ----------------------------------------------------------------------------


async def test_from_nothing_to_ready() -> None:
    there = land()
    await there.look()
    assert there.state() == "Progressing"
    assert reasons(there.cache()["status"])["ArtifactsReady"] == "False CachesNotReady"
    there.becomes("hf://org/one", "Ready")
    there.becomes("hf://org/two", "Ready")
    await there.look()
    told = there.cache()["status"]
    assert told["status"] == "Ready"
    assert reasons(told) == {
        "Ready": "True AllComponentsReady",
        "RuntimeConfigReady": "True DefaultConfigNotFound",
        "ServiceTemplateReady": "True AllComponentsReady",
        "ArtifactsReady": "True AllCachesReady",
    }
    assert told["observedGeneration"] == 1
    assert told["resolvedTemplateKind"] == "AIMServiceTemplate"
    assert there.cache()["metadata"]["finalizers"] == ["aim.eai.amd.com/artifactcleanup"]
    events = [told[1] for told in there.told]
    assert events == ["ArtifactCreated", "ArtifactCreated", "Ready"]
    await there.look()
    assert len(there.told) == len(events)


async def test_finalizers_of_others_stay() -> None:
    there = land(service_template(), cache(finalizers=["others.test/theirs"]))
    await there.look()
    assert there.cache()["metadata"]["finalizers"] == [
        "others.test/theirs",
        "aim.eai.amd.com/artifactcleanup",
    ]


async def test_a_model_of_two_names_is_brought_once_and_listed_by_both() -> None:
    there = land(service_template(sources=(ONE, {**ONE, "modelId": "org/alias"})), cache())
    await there.look()
    assert len(there.artifacts()) == 1
    there.becomes("hf://org/one", "Ready")
    await there.look()
    entries = there.cache()["status"]["artifacts"]
    (name,) = {each["name"] for each in entries.values()}
    assert [each["model"] for each in entries.values()] == ["org/one", "org/alias"]
    assert len({each["persistentVolumeClaim"] for each in entries.values()}) == 1
    assert set(entries) == {name, f"{name}/org/alias"}
    assert [each.path for each in mounts_of_cache(there.cache())] == [
        "/workspace/cache/org/one",
        "/workspace/cache/org/alias",
    ]


@pytest.mark.parametrize(
    ("one", "two", "state"),
    [
        ("Ready", "Progressing", "Progressing"),
        ("Progressing", "Pending", "Pending"),
        ("Pending", "Degraded", "Degraded"),
        ("Degraded", "NotAvailable", "NotAvailable"),
        ("NotAvailable", "Failed", "Failed"),
    ],
)
async def test_the_worst_artifact_decides(one: str, two: str, state: str) -> None:
    there = land()
    await there.look()
    there.becomes("hf://org/one", one)
    there.becomes("hf://org/two", two)
    await there.look()
    assert there.state() == state


async def test_a_model_that_failed_is_told_with_its_reason() -> None:
    there = land()
    await there.look()
    there.becomes("hf://org/one", "Ready")
    there.becomes("hf://org/two", "Failed", "AuthError", "the Hub says 401: give it a token")
    await there.look()
    told = reasons(there.cache()["status"])
    assert told["Ready"] == told["ArtifactsReady"] == "False AuthError"
    assert told["AuthValid"] == "False AuthError"
    assert there.said().startswith(
        "1 of 2 models are there; hf://org/two: AIMArtifact hf---org-two"
    )
    assert "the Hub says 401: give it a token" in there.said()
    assert there.told[-1][:2] == ("Warning", "AuthError")
    there.becomes("hf://org/two", "Ready")
    await there.look()
    assert reasons(there.cache()["status"])["AuthValid"] == "True AuthenticationValid"


@pytest.mark.parametrize("state", ["", "Progressing", "Failed"])
async def test_a_model_that_is_paused_is_told(state: str) -> None:
    mine = artifact("mine", "hf://org/one", state, annotations=PAUSED)
    there = land(service_template(sources=[ONE]), cache(), mine)
    await there.look()
    assert "AIMArtifact mine is paused: take its annotation" in there.said()
    there.of_kind("AIMArtifact")[0]["metadata"]["annotations"] = {}
    await there.look()
    assert "is paused" not in there.said()


@pytest.mark.parametrize(
    ("state", "reason", "whose", "is_told"),
    [
        ("Failed", "InvalidSpec", "a user's", True),
        ("Pending", "StorageClassNotFound", "a user's", True),
        ("Pending", "Progressing", "a user's", False),
        ("Progressing", "PodFailed", "a user's", False),
        ("Degraded", "InfrastructureError", "a user's", False),
        ("Failed", "InvalidSpec", "a cache's", False),
    ],
)
async def test_where_what_somebody_has_made_is_no_good_the_cache_says_how_to_get_its_own(
    state: str, reason: str, whose: str, *, is_told: bool
) -> None:
    mine = artifact("mine", "hf://org/one")
    if whose == "a cache's":
        mine["metadata"]["labels"] = {"template-created": "true"}
    there = land(service_template(sources=[ONE]), cache(), mine)
    there.becomes("hf://org/one", state, reason, "correct spec.env")
    await there.look()
    assert "AIMArtifact mine" in there.said()
    assert ("delete it, and one is made anew" in there.said()) is is_told
    there.remove("AIMArtifact", HERE, "mine")
    await there.look()
    assert there.state() == "Progressing"
    assert "mine" not in [name_of(each) for each in there.of_kind("AIMArtifact")]


@pytest.mark.parametrize(
    ("state", "reason", "wanted", "told"),
    [
        ("", "", "Pending", "False ResourceFound"),
        ("Pending", "Progressing", "Pending", "False Progressing"),
        ("Progressing", "DiscoveryRunning", "Pending", "False DiscoveryRunning"),
        ("Failed", "DiscoveryFailed", "Failed", "False DiscoveryFailed"),
        ("Degraded", "InfrastructureError", "Degraded", "False InfrastructureError"),
        ("NotAvailable", "GPUNotAvailable", "NotAvailable", "False GPUNotAvailable"),
    ],
)
async def test_a_template_that_is_not_ready_is_waited_for(
    state: str, reason: str, wanted: str, told: str
) -> None:
    template = made_by_users("AIMServiceTemplate", "qwen", {})
    if state:
        template["status"] = status(state, reason, "as its controller says")
    there = land(template, cache())
    await there.look()
    assert there.state() == wanted
    said = reasons(there.cache()["status"])
    assert said["ServiceTemplateReady"] == told
    assert said["Ready"] == ("False Progressing" if wanted == "Pending" else told)
    if state:
        assert "as its controller says" in there.said()
    else:
        assert "spec.modelSources" in there.said()


async def test_a_template_without_ready_condition_counts_by_its_status() -> None:
    template = service_template()
    template["status"]["conditions"] = []
    there = land(template, cache())
    await there.look()
    assert reasons(there.cache()["status"])["ServiceTemplateReady"] == "True ResourceFound"


async def test_a_ready_template_without_models_is_told() -> None:
    there = land(service_template(sources=[]), cache())
    await there.look()
    assert there.state() == "Progressing"
    assert reasons(there.cache()["status"])["ArtifactsReady"] == "False NoCaches"
    assert "name them in its spec.modelSources" in there.said()


@pytest.mark.parametrize(
    ("scope", "namespaced", "of_cluster", "kind"),
    [
        ("Namespace", True, True, "AIMServiceTemplate"),
        ("Namespace", False, True, None),
        ("Cluster", True, True, "AIMClusterServiceTemplate"),
        ("Cluster", True, False, None),
        ("Unknown", True, True, "AIMServiceTemplate"),
        ("Unknown", False, True, "AIMClusterServiceTemplate"),
        (None, False, True, "AIMClusterServiceTemplate"),
        (None, False, False, None),
    ],
)
async def test_the_template_is_looked_for_where_the_scope_says(
    scope: str | None, kind: str | None, *, namespaced: bool, of_cluster: bool
) -> None:
    kinds = {"AIMServiceTemplate": namespaced, "AIMClusterServiceTemplate": of_cluster}
    there = land(
        *(service_template(kind=each) for each, is_there in kinds.items() if is_there),
        cache(spec={"templateScope": scope}),
    )
    await there.look()
    told = there.cache()["status"]
    assert told.get("resolvedTemplateKind") == kind
    if kind is None:
        assert told["status"] == "Failed"
        assert reasons(told)["ServiceTemplateReady"] == "False ReferenceNotFound"
    else:
        scopes = {
            labels_of(each)["aim.eai.amd.com/template.scope"]
            for each in there.of_kind("AIMArtifact")
        }
        assert scopes == {"Cluster" if "Cluster" in kind else "Namespace"}


async def test_a_missing_template_is_told_and_healed_by_one_that_comes() -> None:
    there = land(cache())
    await there.look()
    told = reasons(there.cache()["status"])
    assert (there.state(), told["Ready"]) == ("Failed", "False ReferenceNotFound")
    assert told["ConfigValid"] == "False ReferenceNotFound"
    assert "there is no AIMServiceTemplate 'qwen' in this namespace: create one" in there.said()
    there.put(service_template())
    await there.look()
    told = reasons(there.cache()["status"])
    assert told["ConfigValid"] == "True ConfigurationValid"
    assert len(there.of_kind("AIMArtifact")) == 2


async def test_a_cache_whose_template_goes_still_names_its_artifacts() -> None:
    there = land()
    await there.look()
    named = there.cache()["status"]["artifacts"]
    there.remove("AIMServiceTemplate", HERE, "qwen")
    await there.look()
    assert there.state() == "Failed"
    assert there.cache()["status"]["artifacts"] == named
    assert len(named) == 2


async def test_a_missing_config_stops_it_until_there_is_one() -> None:
    there = land(service_template(), cache(spec={"runtimeConfigName": "mine"}))
    await there.look()
    told = reasons(there.cache()["status"])
    assert (there.state(), told["RuntimeConfigReady"]) == ("Failed", "False ReferenceNotFound")
    assert not there.of_kind("AIMArtifact")
    there.put(made_by_users("AIMClusterRuntimeConfig", "mine", {}))
    await there.look()
    assert len(there.of_kind("AIMArtifact")) == 2
    assert reasons(there.cache()["status"])["RuntimeConfigReady"] == "True ConfigFound"


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ((), None),
        (
            ("AIMRuntimeConfig",),
            {"scope": "Namespace", "kind": "AIMRuntimeConfig", "namespace": HERE},
        ),
        (("AIMClusterRuntimeConfig",), {"scope": "Cluster", "kind": "AIMClusterRuntimeConfig"}),
        (
            ("AIMClusterRuntimeConfig", "AIMRuntimeConfig"),
            {"scope": "Merged", "kind": "AIMRuntimeConfig", "namespace": HERE},
        ),
    ],
)
async def test_the_config_that_counts_is_named(kinds: tuple[str, ...], wanted: Any) -> None:
    there = land(
        service_template(), cache(), *(made_by_users(kind, "default", {}) for kind in kinds)
    )
    await there.look()
    found = there.cache()["status"].get("resolvedRuntimeConfig")
    if wanted:
        assert found.pop("uid").startswith("uid-")
        assert found == {"name": "default", **wanted}
    else:
        assert found is None


async def test_a_cache_of_the_older_way_says_it_in_the_older_way_too() -> None:
    wanted = {"templateRef": "qwen", "templateName": None, "templateScope": None}
    there = land(service_template(), cache(spec=wanted))
    await there.look()
    told = there.cache()["status"]
    assert told["modelCaches"] == told["artifacts"]
    assert len(told["artifacts"]) == 2


async def test_a_paused_cache_is_left_alone() -> None:
    there = land(service_template(), cache(annotations=PAUSED))
    await there.look()
    assert not there.writes
    assert "status" not in there.cache()


async def test_what_the_server_refuses_is_told_and_tried_again() -> None:
    there = land()
    no = ApiError("cannot apply AIMArtifact", 403, "Forbidden", "exceeded quota: models")
    there.refuse = lambda wanted: no if wanted["kind"] == "AIMArtifact" else None
    with pytest.raises(ApiError):
        await there.look()
    assert there.state() == "Degraded"
    assert "exceeded quota: models" in there.said()
    there.refuse = lambda _: None
    await there.look()
    assert len(there.of_kind("AIMArtifact")) == 2


async def test_one_model_that_is_refused_does_not_keep_the_others() -> None:
    there = land()
    no = ApiError("cannot apply AIMArtifact", 422, "Invalid", "spec.modelId is invalid")
    there.refuse = lambda wanted: no if at(wanted, "spec.modelId") == "org/one" else None
    with pytest.raises(ApiError):
        await there.look()
    assert set(there.artifacts()) == {"hf://org/two"}
    assert "spec.modelId is invalid" in there.said()


async def test_a_ready_cache_whose_model_goes_makes_it_anew_and_says_so() -> None:
    there: CacheLand = land()
    await there.look()
    for uri in ("hf://org/one", "hf://org/two"):
        there.becomes(uri, "Ready")
    await there.look()
    gone = name_of(there.artifacts()["hf://org/one"])
    there.remove("AIMArtifact", HERE, gone)
    await there.look()
    assert name_of(there.artifacts()["hf://org/one"]) == gone
    assert there.state() == "Progressing"
    assert ("Warning", "ModelsMissing") in {told[:2] for told in there.told}


@pytest.mark.parametrize("writes", range(4))
async def test_killed_before_any_write_it_comes_to_the_same_end(writes: int) -> None:
    whole, there = land(), land()
    await whole.look()
    there.writes_left = writes
    with pytest.raises(Killed):
        await there.look()
    there.writes_left = None
    await there.look()
    assert set(there.artifacts()) == set(whole.artifacts())
    assert reasons(there.cache()["status"]) == reasons(whole.cache()["status"])
    assert there.cache()["metadata"]["finalizers"] == whole.cache()["metadata"]["finalizers"]
