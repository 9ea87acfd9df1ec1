"""A service from nothing to Running: which cache it has, what serves it, what its status says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from operator_shim.children import owner_reference
from operator_shim.finalizers import SOON_S
from operator_shim.names import derived_name
from operator_shim.objects import Object, at, labels_of, name_of
from operator_shim.service import STARTING_S
from operator_shim.service_cache import cache_name, find_cache
from tests.operator.cache_land import HERE, ONE, TWO, made_by_users
from tests.operator.fakes import OPTIONS
from tests.operator.service_land import (
    FINALIZER,
    IMAGE,
    ServiceLand,
    chat,
    manifests_in,
    model,
    owners,
    service_land,
    template,
    undiscovered,
    used,
)

SHARED = derived_name(["qwen-template"], [HERE])
DEDICATED = "qwen-template-chat-9179ba0d"
THREE = {"modelId": "org/three", "sourceUri": "hf://org/three"}
SERVER = derived_name(["chat"], [HERE])


async def serving(*objects: Object, kserve: bool = False) -> ServiceLand:
    """A service that runs."""
    land = service_land(*objects, kserve=kserve)
    await land.serve()
    land.cached(land.the_cache())
    await land.serve()
    land.available("InferenceService" if kserve else "Deployment")
    await land.serve()
    assert land.says()["status"] == "Running"
    return land


async def test_the_example_of_the_documents_gets_to_running() -> None:
    land = service_land()
    assert await land.serve() is None
    assert land.says() == {
        "status": "Starting",
        "Ready": "False Progressing",
        "RuntimeConfigReady": "True DefaultConfigNotFound",
        "ModelReady": "True ModelResolved",
        "TemplateReady": "True Resolved",
        "CacheReady": "False CacheCreating",
        "DeploymentReady": "False ResourceNotReady",
    }
    cache = land.the_cache()
    assert name_of(cache) == SHARED
    assert cache["spec"] == {
        "templateName": "qwen-template",
        "templateScope": "Namespace",
        "mode": "Shared",
    }
    assert owners(cache) == [("AIMServiceTemplate", "qwen-template", False)]
    labels = labels_of(cache)
    assert (labels["aim.eai.amd.com/service"], labels["aim.eai.amd.com/service.name"]) == (
        "chat",
        "chat",
    )

    land.cached(cache, "Progressing")
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheNotReady"
    assert "so it is" in land.message()
    assert not land.of_kind("Deployment")

    land.cached(cache)
    assert await land.serve() == STARTING_S
    assert land.says()["CacheReady"] == "True CacheReady"
    assert land.says()["DeploymentReady"] == "False ServerStarting"
    used(land)
    land.available()
    assert await land.serve() is None
    assert land.says()["status"] == "Running"
    assert land.says()["Ready"] == "True AllComponentsReady"
    assert land.message() == f"Deployment {SERVER} serves qwen at http://{SERVER}.{HERE}.svc"
    status = land.service()["status"]
    assert status["resolvedModel"]["name"] == "qwen"
    assert status["resolvedTemplate"]["name"] == "qwen-template"
    assert status["runtime"]["replicas"] == "1"
    assert land.service()["metadata"]["finalizers"] == [FINALIZER]


@pytest.mark.parametrize(
    ("objects", "status", "reason", "said"),
    [
        ((chat(),), "Failed", "ReferenceNotFound", "has the image 'amdenterpriseai/aim-qwen"),
        ((model(), chat()), "Failed", "ReferenceNotFound", "is for model 'qwen': create one, as"),
        (
            (chat(spec={"model": {"name": "llama"}}),),
            "Failed",
            "ReferenceNotFound",
            "there is no AIMModel 'llama' in namespace models, and no AIMClusterModel 'llama'",
        ),
        (
            (model(), chat(spec={"model": {"name": "qwen"}, "template": {"name": "fast"}})),
            "Failed",
            "ReferenceNotFound",
            "there is no AIMServiceTemplate 'fast' in namespace models",
        ),
        (
            (model(), template(), chat(spec={"model": {"name": "qwen"}, "runtimeConfigName": "x"})),
            "Failed",
            "ReferenceNotFound",
            "there is no AIMRuntimeConfig 'x'",
        ),
        (
            (chat(spec={"model": {"custom": {"baseImage": "a/b:1", "modelSources": [ONE]}}}),),
            "Failed",
            "InvalidSpec",
            "spec.model.custom is not served: create",
        ),
        (
            (model(image=""), template(), chat(spec={"model": {"name": "qwen"}})),
            "Failed",
            "InvalidSpec",
            "names no image",
        ),
        (
            (model(state="Progressing"), template(), chat()),
            "Pending",
            "Progressing",
            "AIMModel qwen is Progressing: as it is",
        ),
        ((model(state="Failed"), template(), chat()), "Failed", "ModelNotReady", "qwen is Failed"),
        (
            (model(), template(state="Pending"), chat()),
            "Pending",
            "Progressing",
            "AIMServiceTemplate qwen-template is Pending",
        ),
        (
            (model(), undiscovered(), chat()),
            "Pending",
            "Progressing",
            "says nothing yet: nobody has found out yet which models it takes",
        ),
        (
            (model(), undiscovered(modelSources=[ONE]), chat()),
            "Pending",
            "Progressing",
            "AIMServiceTemplate qwen-template names its models itself, and is about to be Ready",
        ),
        (
            (model(), template(state="NotAvailable"), chat()),
            "Pending",
            "Progressing",
            "is NotAvailable",
        ),
        (
            (model(), template(state="Degraded"), chat()),
            "Degraded",
            "TemplateNotReady",
            "is Degraded",
        ),
    ],
)
async def test_what_is_missing_is_told_with_what_to_do(
    objects: tuple[Object, ...], status: str, reason: str, said: str
) -> None:
    land = service_land(*objects)
    await land.serve()
    assert land.says()["status"] == status
    assert land.says()["Ready"] == f"False {reason}"
    assert said in land.message()
    assert not land.of_kind("Deployment")


@pytest.mark.parametrize(
    ("objects", "kinds"),
    [
        ((chat(),), ["AIMModel"]),
        ((chat(spec={"model": {"name": "llama"}}),), ["AIMModel"]),
        ((chat(spec={"model": {"image": 'a/It\'s_"odd"\\:1'}}),), ["AIMModel"]),
        ((model(), chat()), ["AIMServiceTemplate"]),
        (
            (model(), chat(spec={"model": {"name": "qwen"}, "template": {"name": "fast"}})),
            ["AIMServiceTemplate"],
        ),
        (
            (chat(spec={"model": {"custom": {"baseImage": "a/b:1", "modelSources": [ONE]}}}),),
            ["AIMModel", "AIMServiceTemplate"],
        ),
        # Nobody can make what they name.
        ((chat(spec={"model": {"name": "Nope"}}),), []),
        ((model(), chat(spec={"model": {"name": "qwen"}, "template": {"name": "F_"}})), []),
    ],
)
async def test_who_makes_what_the_message_offers_is_a_step_further(
    objects: tuple[Object, ...], kinds: list[str]
) -> None:
    land = service_land(*objects)
    await land.serve()
    before = land.message()
    offered = manifests_in(before)
    assert [each["kind"] for each in offered] == kinds
    for each in offered:
        assert each["metadata"]["namespace"] == HERE
        land.put(each)
    await land.serve()
    if not offered:
        assert "no object can have this name" in before
    elif "custom" not in before:
        assert land.message() != before


async def test_a_template_of_another_model_is_refused_before_anything_is_downloaded() -> None:
    spec = {"model": {"name": "qwen"}, "template": {"name": "llama-fast"}}
    land = service_land(model(), template("llama-fast", modelName="llama"), chat(spec=spec))
    await land.serve()
    assert land.says()["status"] == "Failed"
    assert land.says()["TemplateReady"] == "False InvalidSpec"
    assert land.says()["ConfigValid"] == "False InvalidSpec"
    assert "is for model 'llama', and the service is of model 'qwen'" in land.message()
    assert not land.caches()


async def test_it_goes_on_once_what_was_missing_is_there() -> None:
    land = service_land(chat())
    await land.serve()
    assert land.says()["ConfigValid"] == "False ReferenceNotFound"
    land.put(model(kind="AIMClusterModel"))
    land.put(template(kind="AIMClusterServiceTemplate"))
    await land.serve()
    assert land.says()["status"] == "Starting"
    assert land.says()["ConfigValid"] == "True ConfigurationValid"
    cache = land.the_cache()
    assert cache["spec"]["templateScope"] == "Cluster"
    assert owners(cache) == [("AIMClusterServiceTemplate", "qwen-template", False)]


async def test_no_cache_is_made_of_a_template_without_sources() -> None:
    bare = template()
    bare["status"]["modelSources"] = []
    land = service_land(model(), bare, chat())
    await land.serve()
    assert not land.caches()
    assert land.says()["CacheReady"] == "False CacheCreating"
    assert land.says()["status"] == "Starting"
    assert "name them in its spec.modelSources" in land.message()


async def test_the_cache_that_a_template_has_made_when_it_gets_ready_is_used() -> None:
    class Slow(ServiceLand):
        async def listed(self, kind: str, *words: str) -> list[Object]:
            if kind == "AIMServiceTemplate" and not self.caches():
                await asyncio.sleep(0.01)
                # Its own pass ends just now.
                self.put(wanted_by_user("qwen-template"))
                self.put(template())
            return await super().listed(kind, *words)

    land = Slow()
    for each in (model(), template(state="Progressing"), chat()):
        land.put(each)
    await land.serve()
    assert [name_of(each) for each in land.caches()] == ["qwen-template"]


async def test_a_shared_cache_may_belong_to_nobody() -> None:
    land = service_land()
    await land.serve(options=replace(OPTIONS, shared_cache_owner="none"))
    assert owners(land.the_cache()) == []


# -- the cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [{"caching": {"mode": "Dedicated"}}, {"caching": {"mode": "Never"}}, {"cacheModel": False}],
)
async def test_a_dedicated_cache_is_the_services_own(spec: Object) -> None:
    land = service_land(model(), template(), chat(spec={"model": {"image": IMAGE}, **spec}))
    others = land.put(dict(wanted_by_user("theirs", "Dedicated")))
    land.cached(others)
    await land.serve()
    [cache] = [each for each in land.caches() if name_of(each) != "theirs"]
    assert name_of(cache) == DEDICATED
    assert cache["spec"]["mode"] == "Dedicated"
    assert owners(cache) == [("AIMService", "chat", True)]


def wanted_by_user(name: str, mode: str = "Shared", template: str = "qwen-template") -> Object:
    return {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMTemplateCache",
        "metadata": {"name": name, "namespace": HERE},
        "spec": {"templateName": template, "templateScope": "Namespace", "mode": mode},
    }


@pytest.mark.parametrize(
    ("mode", "name"),
    [("Shared", "qwen-template-a04542d9"), ("Dedicated", "qwen-template-qwen-chat-9179ba0d")],
)
def test_caches_bear_the_names_that_aim_engine_gives_them(mode: str, name: str) -> None:
    spec = {"model": {"name": "qwen"}, "caching": {"mode": mode}}
    service = chat(spec=spec)
    service["metadata"] |= {"name": "qwen-chat", "namespace": "ml-team"}
    assert cache_name(service, template()) == name


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ({"a": ("Shared", "Failed"), "b": ("Shared", "Ready"), "c": ("Shared", "Pending")}, "b"),
        ({"b": ("Shared", "Ready"), "a": ("Shared", "Ready")}, "a"),
        ({"a": ("Shared", "Failed"), "b": ("Shared", "Pending")}, "b"),
        ({"a": ("Dedicated", "Ready"), "b": ("Shared", "Pending")}, "b"),
    ],
)  # fmt: skip
async def test_a_cache_that_is_there_is_used(
    caches: dict[str, tuple[str, str]], expected: str
) -> None:
    land = service_land()
    for name, (mode, state) in caches.items():
        land.cached(land.put(wanted_by_user(name, mode)), state)
    await land.serve()
    assert {name_of(each) for each in land.caches()} == set(caches)
    assert f"AIMTemplateCache {expected} " in land.message("CacheReady")
    assert land.says()["CacheReady"].startswith("True") == (caches[expected][1] == "Ready")


@pytest.mark.parametrize("mode", ["Shared", "Dedicated"])
async def test_a_template_of_the_namespace_is_not_the_clusters_of_the_same_name(mode: str) -> None:
    named = {"model": {"name": "qwen"}, "template": {"name": "t"}, "caching": {"mode": mode}}
    of_cluster = template("t", kind="AIMClusterServiceTemplate")
    land = await serving(model(), of_cluster, chat(spec=named))
    (before,) = land.caches()
    land.put(template("t"))
    await land.serve()
    scopes = {name_of(each): each["spec"]["templateScope"] for each in land.caches()}
    (name,) = scopes.keys() - {name_of(before)}
    assert (scopes.pop(name_of(before)), scopes) == ("Cluster", {name: "Namespace"})
    # The server keeps the one model until it has the other, which it then stays with.
    land.cached(land.cache(name), claim="its")
    await land.serve()
    assert land.service()["status"]["cache"]["templateCacheRef"]["name"] == name
    if mode == "Dedicated":
        land.remove("AIMTemplateCache", HERE, name_of(before))
        await land.serve()
        assert [name_of(each) for each in land.caches()] == [name]
        return
    assert {each["spec"]["templateScope"] for each in land.caches()} == {"Namespace", "Cluster"}


@pytest.mark.parametrize(
    ("scope", "resolved", "of_namespace", "of_cluster"),
    [
        ("Namespace", "", True, False),
        ("Cluster", "", False, True),
        # The namespace is looked into first.
        ("Unknown", "", True, True),
        ("Unknown", "AIMServiceTemplate", True, False),
        ("Unknown", "AIMClusterServiceTemplate", True, True),
        (None, "", True, True),
    ],
)
def test_a_cache_is_of_the_template_of_its_scope(
    scope: str | None, resolved: str, *, of_namespace: bool, of_cluster: bool
) -> None:
    cache = wanted_by_user("a")
    cache["spec"] |= {"templateScope": scope}
    cache["status"] = {"resolvedTemplateKind": resolved}
    assert (find_cache(chat(), template(), [cache]) is not None) is of_namespace
    theirs = template(kind="AIMClusterServiceTemplate")
    assert (find_cache(chat(), theirs, [cache]) is not None) is of_cluster


@pytest.mark.parametrize(
    ("sources", "used"),
    [([], True), ([ONE, TWO], True), ([ONE, TWO, THREE], True), ([ONE], False), ([THREE], False)],
)
def test_a_cache_with_models_of_its_own_is_used_where_it_has_those_of_the_template(
    sources: list[Object], *, used: bool
) -> None:
    cache = wanted_by_user("mine")
    cache["spec"] |= {"modelSources": sources}
    assert (find_cache(chat(), template(), [cache]) is not None) is used


async def test_the_cache_in_use_is_kept_while_it_is_ready() -> None:
    land = await serving()
    land.cached(land.put(wanted_by_user("aaa")))
    await land.serve()
    assert land.service()["status"]["cache"]["templateCacheRef"]["name"] == SHARED
    land.cached(land.cache(SHARED), "Failed")
    await land.serve()
    assert land.service()["status"]["cache"]["templateCacheRef"]["name"] == "aaa"


async def test_a_cache_that_is_left_for_a_better_one_is_not_called_gone() -> None:
    land = await serving()
    land.cached(land.put(wanted_by_user("aaa")), "Progressing")
    land.cached(land.cache(SHARED), "Failed")
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheNotReady"
    assert land.says()["status"] == "Degraded"


async def test_of_two_services_that_want_a_cache_at_the_same_moment_one_makes_it() -> None:
    class Slow(ServiceLand):
        async def listed(self, kind: str, *words: str) -> list[Object]:
            found = await super().listed(kind, *words)
            await asyncio.sleep(0)
            return found

    land = Slow()
    for each in (model(), template(), chat(), chat("other")):
        land.put(each)
    await asyncio.gather(land.serve(), land.serve("other"))
    maker = labels_of(land.the_cache())["aim.eai.amd.com/service"]
    made = [each for each in land.told if each[1] == "CacheCreated"]
    assert len(made) == 1
    # Nor does the second write its own into what the first has made.
    assert maker == "chat"


async def test_what_a_cache_says_of_an_earlier_spec_does_not_count() -> None:
    land = service_land()
    await land.serve()
    cache = land.the_cache()
    land.cached(cache)
    cache["status"]["observedGeneration"] = 1
    cache["metadata"]["generation"] = 2
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheNotReady"


async def test_a_cache_that_goes_makes_room_for_another() -> None:
    land = service_land()
    old = land.put(wanted_by_user(SHARED))
    old["metadata"]["deletionTimestamp"] = "2026-01-31T10:00:00Z"
    assert await land.serve() == SOON_S
    assert "is being deleted, and is made anew" in land.message()
    land.remove("AIMTemplateCache", HERE, SHARED)
    await land.serve()
    assert name_of(land.the_cache()) == SHARED


async def test_what_bears_the_name_of_a_cache_is_not_taken_over() -> None:
    land = service_land()
    land.put(wanted_by_user(SHARED, template="another"))
    await land.serve()
    assert land.the_cache()["spec"]["templateName"] == "another"
    assert land.says()["CacheReady"] == "False CacheFailed"
    assert "delete it" in land.message()


@pytest.mark.parametrize(
    ("state", "reason", "status"),
    [
        ("Pending", "CacheCreating", "Starting"),
        ("Degraded", "CacheCreating", "Degraded"),
        ("NotAvailable", "CacheCreating", "Starting"),
        ("Progressing", "CacheNotReady", "Starting"),
        ("Failed", "CacheFailed", "Failed"),
    ],
)
async def test_each_state_of_a_cache_has_its_reason(state: str, reason: str, status: str) -> None:
    land = service_land()
    await land.serve()
    land.cached(land.the_cache(), state)
    await land.serve()
    assert (land.says()["CacheReady"], land.says()["status"]) == (f"False {reason}", status)


async def test_env_class_and_secrets_reach_the_cache() -> None:
    def env(**values: str) -> list[Object]:
        return [{"name": name, "value": value} for name, value in values.items()]

    its = template(env=env(A="template", B="template", C="template"))
    its["spec"]["caching"] = {"env": env(B="caching", C="caching")}
    spec = {
        "model": {"name": "qwen"},
        "env": env(C="service"),
        "storage": {"defaultStorageClassName": "fast"},
        "runtimeConfigName": "default",
        "imagePullSecrets": [{"name": "registry"}],
    }
    land = service_land(model(), its, chat(spec=spec))
    await land.serve()
    made = land.the_cache()["spec"]
    assert made["env"] == env(A="template", B="caching", C="service")
    assert made["storageClassName"] == "fast"
    assert made["runtimeConfigName"] == "default"
    assert made["imagePullSecrets"] == [{"name": "registry"}]


async def test_the_env_for_caches_of_a_clusters_template_is_not_its_own() -> None:
    # AIM Engine's kind of the cluster has no such field; older ones keep what is unknown.
    its = template(kind="AIMClusterServiceTemplate", caching={"env": [hugging("of-caching")]})
    land = service_land(model(), its, chat())
    await land.serve()
    assert "env" not in land.the_cache()["spec"]


def hugging(token: str) -> Object:
    return {"name": "HF_TOKEN", "value": token}


@pytest.mark.parametrize(
    ("state", "maker", "editor", "follows"),
    [
        ("Failed", "chat", "", True),
        ("Progressing", "chat", "", True),
        # It has been brought.
        ("Ready", "chat", "", False),
        ("Failed", "other", "", False),
        ("Failed", "chat", "kubectl-edit", False),
    ],
)
async def test_a_token_that_is_corrected_reaches_what_the_service_has_made(
    state: str, maker: str, editor: str, *, follows: bool
) -> None:
    spec = {"model": {"image": IMAGE}, "storage": {"defaultStorageClassName": "fast"}}
    land = service_land(model(), template(), chat(spec=spec | {"env": [hugging("wrong")]}))
    await land.serve()
    cache = land.the_cache()
    land.cached(cache, state)
    cache["metadata"]["labels"]["aim.eai.amd.com/service"] = maker
    if editor:
        cache["metadata"]["managedFields"] = [{"manager": editor, "fieldsV1": {"f:spec": {}}}]
    land.service()["spec"] = {"model": {"image": IMAGE}, "env": [hugging("right")]}
    await land.serve()
    assert land.the_cache()["spec"]["env"] == [hugging("right" if follows else "wrong")]
    # Claims keep their class.
    assert land.the_cache()["spec"]["storageClassName"] == "fast"
    assert bool([each for each in land.told if each[1] == "CacheChanged"]) == follows


async def test_what_a_service_asks_for_no_longer_goes_from_the_cache_that_it_made() -> None:
    asked = {
        "env": [hugging("wrong")],
        "imagePullSecrets": [{"name": "registry"}],
        "runtimeConfigName": "mine",
    }
    config = made_by_users("AIMRuntimeConfig", "mine", {})
    wanted = chat(spec={"model": {"image": IMAGE}, **asked})
    land = service_land(model(), template(), config, wanted)
    await land.serve()
    assert asked.items() <= land.the_cache()["spec"].items()
    land.service()["spec"] = {"model": {"image": IMAGE}}
    await land.serve()
    assert not [each for each in asked if land.the_cache()["spec"].get(each)]
    land.told.clear()
    await land.serve()
    assert not land.told


def mirror(url: str) -> Object:
    return {"name": "HF_ENDPOINT", "value": url}


@pytest.mark.parametrize(
    ("of_first", "of_second", "is_told"),
    [
        ([], [hugging("another")], False),
        ([], [mirror("https://a.example")], True),
        ([], [mirror("https://huggingface.co")], False),
        ([mirror("https://a.example")], [mirror("https://b.example")], True),
        ([mirror("https://a.example")], [mirror("https://a.example/")], False),
        # Who says nothing of it takes what there is.
        ([mirror("https://a.example")], [], False),
        ([], [{"name": "AIM_DOWNLOADER_FORMAT", "value": "gguf"}], True),
    ],
)
async def test_who_shares_a_model_that_is_not_the_one_it_asks_for_is_told_so(
    of_first: list[Object], of_second: list[Object], *, is_told: bool
) -> None:
    asked = {"model": {"image": IMAGE}}
    land = service_land(model(), template(), chat(spec={**asked, "env": of_first}))
    land.put(chat("second", spec={**asked, "env": of_second}))
    await land.serve()
    land.cached(land.the_cache())
    await land.serve("second")
    assert ("UnservedFields" in land.says("second")) == is_told
    if is_told:
        words = land.message("UnservedFields", "second")
        assert words.startswith(f"spec.env: AIMTemplateCache {SHARED} has its models from another")
    land.told.clear()
    await land.serve()
    assert "UnservedFields" not in land.says()
    # Nor while the first one corrects what it has made.
    land.cached(land.the_cache(), "Failed")
    land.service()["spec"] = {**asked, "env": [mirror("https://c.example")]}
    await land.serve()
    assert not [each for each in land.told if each[1] == "UnservedField"]


async def test_a_cache_of_another_name_is_not_taken_for_its_own() -> None:
    # Whoever copies a manifest copies its labels.
    theirs = wanted_by_user("theirs") | {"status": {"status": "Progressing"}}
    theirs["metadata"]["labels"] = {"aim.eai.amd.com/service": "chat"}
    spec = {"model": {"image": IMAGE}, "env": [hugging("right")]}
    land = service_land(model(), template(), theirs, chat(spec=spec))
    await land.serve()
    assert name_of(land.the_cache()) == "theirs"
    assert "env" not in land.the_cache()["spec"]


async def test_what_waits_for_something_paused_says_so() -> None:
    paused = {"aim.eai.amd.com/reconciliation-paused": "true"}
    land = service_land()
    await land.serve()
    land.the_cache()["metadata"]["annotations"] = paused
    land.service()["spec"] = {"model": {"image": IMAGE}, "env": [hugging("right")]}
    await land.serve()
    assert "env" not in land.the_cache()["spec"]
    said = "is paused: take its annotation aim.eai.amd.com/reconciliation-paused off"
    assert land.message() == f"AIMTemplateCache {SHARED} {said}"
    its = template(state="Pending")
    its["metadata"]["annotations"] = paused
    land.put(its)
    await land.serve()
    assert land.message() == f"AIMServiceTemplate qwen-template {said}"


async def test_a_service_that_is_scaled_to_nothing_says_that_nothing_serves() -> None:
    land = await serving(model(), template(), chat(spec={"model": {"image": IMAGE}, "replicas": 0}))
    assert land.message() == f"Deployment {SERVER} is scaled to 0: nothing serves"


async def test_what_kserve_scales_to_nothing_serves_when_it_is_asked() -> None:
    spec = {"model": {"image": IMAGE}, "minReplicas": 0, "maxReplicas": 3}
    land = await serving(model(), template(), chat(spec=spec), kserve=True)
    assert land.message() == f"InferenceService {SERVER} serves qwen"


async def test_a_template_that_is_made_anew_keeps_its_services() -> None:
    land = await serving(model(), template(), template("another"), chat())
    used = at(land.service(), "status.resolvedTemplate.name")
    land.remove("AIMServiceTemplate", HERE, used)
    await land.serve()
    assert land.says()["status"] == "Degraded"
    assert f"AIMServiceTemplate {used}, from which what serves was made, is gone" in land.message()
    land.put(template(used))
    await land.serve()
    land.cached(land.the_cache())
    await land.serve()
    assert land.says()["status"] == "Running"
    assert at(land.service(), "status.resolvedTemplate.name") == used


# -- what serves it --------------------------------------------------------------------------------


def pod_of(server: Object) -> Object:
    path = "spec.predictor" if server["kind"] == "InferenceService" else "spec.template.spec"
    found: Object = at(server, path)
    return found


@pytest.mark.parametrize("kserve", [False, True])
async def test_each_model_is_mounted_read_only_where_the_image_looks(kserve: bool) -> None:
    land = await serving(kserve=kserve)
    server = land.server("InferenceService" if kserve else "Deployment")
    assert name_of(server) == SERVER
    assert owners(server) == [("AIMService", "chat", True)]
    assert labels_of(server)["aim.eai.amd.com/service"] == "chat"
    pod = pod_of(server)
    shm, *claims = pod["volumes"]
    assert shm == {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert {each["name"]: each["persistentVolumeClaim"] for each in claims} == {
        "hf---org-one": {"claimName": "claim-one", "readOnly": True},
        "hf---org-two": {"claimName": "claim-two", "readOnly": True},
    }
    [container] = pod["containers"]
    assert (container["name"], container["image"]) == ("kserve-container", IMAGE)
    assert container["volumeMounts"] == [
        {"name": "dshm", "mountPath": "/dev/shm"},
        {"name": "hf---org-one", "mountPath": "/workspace/cache/org/one", "readOnly": True},
        {"name": "hf---org-two", "mountPath": "/workspace/cache/org/two", "readOnly": True},
    ]
    assert {"name": "AIM_CACHE_PATH", "value": "/workspace/cache"} in container["env"]
    assert len(land.of_kind("Service")) == (0 if kserve else 1)
    assert f"{'InferenceService' if kserve else 'Deployment'}Ready" in land.says()


async def test_no_cache_is_made_for_what_is_not_served() -> None:
    spec = {"model": {"custom": {"baseImage": "a/b:1"}}, "template": {"name": "qwen-template"}}
    land = service_land(model(), template(), chat(spec=spec))
    await land.serve()
    assert land.says()["status"] == "Failed"
    assert not land.caches()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resources", {"limits": {"cpu": "1"}}),
        ("imagePullSecrets", [{"name": "registry"}]),
        ("serviceAccountName", "its-own"),
    ],
)
async def test_what_a_service_asks_for_no_longer_goes_from_its_server(
    field: str, value: object
) -> None:
    land = await serving(model(), template(), chat(spec={"model": {"image": IMAGE}, field: value}))
    pod = pod_of(land.server())
    assert value in (pod.get(field), pod["containers"][0].get(field))
    del land.service()["spec"][field]
    await land.serve()
    pod = pod_of(land.server())
    assert field not in pod
    assert field not in pod["containers"][0]


@pytest.mark.parametrize("its_model", [model(state="Progressing"), model(image="")])
async def test_no_server_is_made_of_a_model_that_cannot_be_served(its_model: Object) -> None:
    land = service_land(model(), template(), chat(spec={"model": {"name": "qwen"}}))
    await land.serve()
    land.cached(land.the_cache())
    land.put(its_model)
    await land.serve()
    assert land.says()["CacheReady"] == "True CacheReady"
    assert not land.of_kind("Deployment")


async def test_of_what_is_settled_nothing_is_told() -> None:
    land = await serving()
    land.told.clear()
    await land.serve()
    assert not land.told


async def test_a_server_is_not_exchanged_when_kserve_comes() -> None:
    land = await serving()
    land.kserve = True
    await land.serve()
    assert not land.of_kind("InferenceService")
    assert land.says()["status"] == "Running"


async def test_a_recreated_cache_is_mounted_once_its_models_are_there() -> None:
    land = await serving()
    before = pod_of(land.server())
    land.the_cache()["metadata"]["deletionTimestamp"] = "2026-01-31T10:00:00Z"
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheLost"
    going = f"AIMTemplateCache {SHARED} is being deleted, and is made anew then"
    assert land.message("CacheReady") == going
    land.remove("AIMTemplateCache", HERE, SHARED)
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheLost"
    assert land.says()["status"] == "Degraded"
    assert land.message().startswith("the AIMTemplateCache that it has used is gone, and there is")
    assert "goes on with what it has" in land.message()
    assert pod_of(land.server())["volumes"] == before["volumes"]

    land.cached(land.the_cache(), "Progressing")
    await land.serve()
    assert land.says()["CacheReady"] == "False CacheLost"
    land.cached(land.the_cache(), claim="new")
    await land.serve()
    assert land.says()["status"] == "Running"
    claims = [
        at(each, "persistentVolumeClaim.claimName") for each in pod_of(land.server())["volumes"]
    ]
    assert claims == [None, "new-one", "new-two"]


async def test_a_dedicated_cache_that_is_gone_is_made_again() -> None:
    land = await serving(
        model(),
        template(),
        chat(spec={"model": {"name": "qwen"}, "caching": {"mode": "Dedicated"}}),
    )
    land.remove("AIMTemplateCache", HERE, DEDICATED)
    await land.serve()
    assert name_of(land.the_cache()) == DEDICATED
    assert land.says()["CacheReady"] == "False CacheCreating"
    assert land.says()["status"] == "Degraded"


@pytest.mark.parametrize("gone", [("AIMServiceTemplate", "qwen-template"), ("AIMModel", "qwen")])
async def test_a_server_outlives_what_it_was_made_from(gone: tuple[str, str]) -> None:
    land = await serving()
    kind, name = gone
    land.remove(kind, HERE, name)
    await land.serve()
    assert land.says()["status"] == "Degraded"
    assert land.says()["Ready"] == "False ReferenceNotFound"
    assert land.of_kind("Deployment")
    # What was used last is still to be read.
    assert land.service()["status"]["resolvedModel"]["name"] == "qwen"


async def test_changes_of_the_service_reach_the_server_while_its_cache_is_not_ready() -> None:
    land = await serving()
    land.cached(land.the_cache(), "Progressing")
    land.service()["spec"]["replicas"] = 3
    await land.serve()
    assert land.server()["spec"]["replicas"] == 3
    assert len(pod_of(land.server())["volumes"]) == 3


async def test_a_server_that_does_not_come_up_says_why() -> None:
    land = await serving()
    land.server()["status"] = {"conditions": [{"type": "Available", "status": "False"}]}
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}
    containers = [{"image": IMAGE, "state": {"waiting": waiting}}]
    labels = at(land.server(), "spec.template.metadata.labels")
    pod = {"name": "chat-1", "namespace": HERE, "labels": labels}
    status = {"phase": "Running", "containerStatuses": containers}
    land.put({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "status": status})
    assert await land.serve() == STARTING_S
    assert land.says()["status"] == "Degraded"
    assert land.says()["DeploymentReady"] == "False CrashLoopBackOff"
    assert "pod chat-1: back-off 10s restarting; see `kubectl logs`" in land.message()


NO_CLAIM = "persistentvolumeclaim not found"
KEY = 'secret "token" not found'


def waiting(reason: str, message: str) -> Object:
    told = {"image": IMAGE, "state": {"waiting": {"reason": reason, "message": message}}}
    return {"phase": "Pending", "containerStatuses": [told]}


def unscheduled(message: str) -> Object:
    told = {"type": "PodScheduled", "status": "False", "message": message}
    return {"phase": "Pending", "conditions": [told]}


@pytest.mark.parametrize(
    ("pod", "said"),
    [
        (unscheduled("Insufficient amd.com/gpu"), "; free some room, add a node, or ask for less"),
        (unscheduled("node(s) had untolerated taint {x: }"), "; free a node, or add one"),
        (unscheduled("volume node affinity conflict"), "the volume can only be had on other nodes"),
        (waiting("CreateContainerConfigError", KEY), "; create it in this namespace, or correct"),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image is root"),
            "; correct spec.env, or let the image run as a user of its own",
        ),
        (waiting("ImagePullBackOff", "not found"), "; correct the image of the model, or push it"),
        (waiting("CrashLoopBackOff", "back-off"), "; see `kubectl logs`"),
        (waiting("CreateContainerError", "odd"), "; look at the node with `kubectl describe pod`"),
    ],
)
async def test_of_pods_the_newest_are_told_of_with_what_helps(pod: Object, said: str) -> None:
    land = await serving()
    land.server()["status"] = {"conditions": [{"type": "Available", "status": "False"}]}
    labels = at(land.server(), "spec.template.metadata.labels")
    for name, made_from, second, status in (
        *(("a-old", "a", 1, unscheduled(NO_CLAIM)), ("b-new", "b", 2, pod)),
        ("c-old", "a", 1, unscheduled(NO_CLAIM)),
    ):
        metadata = {
            "name": name,
            "namespace": HERE,
            "uid": name,
            "labels": {**labels, "pod-template-hash": made_from},
            "creationTimestamp": f"2026-01-31T10:00:0{second}Z",
        }
        land.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})
    await land.serve()
    assert "pod b-new: " in land.message()
    assert said in land.message()


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
async def test_what_bears_the_name_of_a_server_is_not_taken_over(kind: str) -> None:
    land = service_land()
    theirs = {"name": SERVER, "namespace": HERE}
    land.put({"apiVersion": "v1", "kind": kind, "metadata": theirs, "spec": {"theirs": True}})
    await land.serve()
    land.cached(land.the_cache())
    await land.serve()
    assert land.server(kind)["spec"] == {"theirs": True}
    assert land.says()["status"] == "Failed"
    assert f"{kind} {SERVER} is there, and belongs to somebody else" in land.message()


@pytest.mark.parametrize("kind", ["Deployment", "Service"])
@pytest.mark.parametrize("is_asked_to_go", [False, True])
async def test_what_the_service_of_before_has_left_is_waited_for(
    kind: str, *, is_asked_to_go: bool
) -> None:
    land = service_land()
    await land.serve()
    land.cached(land.the_cache())
    before = chat() | {"metadata": chat()["metadata"] | {"uid": "before"}}
    theirs = {"name": SERVER, "namespace": HERE, "ownerReferences": [owner_reference(before)]}
    if is_asked_to_go:
        theirs |= {"deletionTimestamp": "2026-01-31T10:00:00Z", "ownerReferences": []}
    land.put({"apiVersion": "v1", "kind": kind, "metadata": theirs, "spec": {"theirs": True}})
    assert await land.serve() == SOON_S
    assert land.server(kind)["spec"] == {"theirs": True}
    assert land.says()["status"] == "Starting"
    assert land.says()["DeploymentReady"] == "False ResourceNotReady"
    assert f"{kind} {SERVER} of before is being deleted, and is made anew then" in land.message()
    assert not [each for each in land.told if each[0] == "Warning"]
    land.remove(kind, HERE, SERVER)
    await land.serve()
    assert owners(land.server(kind)) == [("AIMService", "chat", True)]


async def test_a_service_that_kserve_makes_by_the_name_is_kserves() -> None:
    land = await serving(kserve=True)
    theirs = {"name": SERVER, "namespace": HERE}
    land.put({"apiVersion": "v1", "kind": "Service", "metadata": theirs, "spec": {}})
    await land.serve()
    assert land.says()["status"] == "Running"


CRASHES = {
    "phase": "Running",
    "containerStatuses": [
        {
            "image": IMAGE,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        }
    ],
}
NO_ROOM = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "Insufficient amd.com/gpu"}
    ],
}


@pytest.mark.parametrize(
    ("pod", "late", "status", "reason", "said"),
    [
        ({"phase": "Pending"}, False, "Running", "True Ready", "; some of it is still on its way"),
        (
            NO_ROOM,
            False,
            "Running",
            "True Ready",
            "on its way: pod chat-2: Insufficient amd.com",
        ),
        (CRASHES, False, "Degraded", "False CrashLoopBackOff", "pod chat-2: back-off"),
        (NO_ROOM, True, "Degraded", "False FailedScheduling", "set spec.replicas to 0"),
        ({"phase": "Pending"}, True, "Degraded", "False ServerFailed", "has timed out"),
    ],
)
async def test_what_is_on_its_way_is_told_while_what_was_there_serves(
    pod: Object, late: bool, status: str, reason: str, said: str
) -> None:
    land = await serving()
    land.server()["status"] |= {"replicas": 2}
    if late:
        said_so = {"type": "Progressing", "status": "False", "message": "has timed out"}
        land.server()["status"]["conditions"] += [said_so]
    labels = at(land.server(), "spec.template.metadata.labels")
    metadata = {"name": "chat-2", "namespace": HERE, "labels": labels}
    land.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": pod})
    assert await land.serve() == STARTING_S
    assert land.says()["status"] == status
    assert land.says()["DeploymentReady"] == reason
    assert said in land.message()
    if status == "Degraded":
        assert land.message().endswith(f"; Deployment {SERVER} goes on with what it has")
    land.remove("Pod", HERE, "chat-2")
    land.available()
    assert await land.serve() is None
    assert land.message() == f"Deployment {SERVER} serves qwen at http://{SERVER}.{HERE}.svc"


async def test_a_pod_that_has_ended_says_nothing_of_the_one_in_its_place() -> None:
    land = await serving()
    land.server()["status"] = {"conditions": [{"type": "Available", "status": "False"}]}
    labels = at(land.server(), "spec.template.metadata.labels")
    pod = {"name": "chat-1", "namespace": HERE, "labels": labels}
    status = {"phase": "Failed", "reason": "Evicted"}
    land.put({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "status": status})
    await land.serve()
    assert land.says()["DeploymentReady"] == "False ServerStarting"


async def test_other_fields_of_a_service_are_left_alone() -> None:
    spec = {"model": {"image": IMAGE}, "routing": {"enabled": True}, "overrides": {"x": 1}}
    land = service_land(model(), template(), chat(spec=spec, finalizers=["others/one"]))
    await land.serve()
    assert land.service()["spec"] == spec
    assert land.service()["metadata"]["finalizers"] == ["others/one", FINALIZER]


@pytest.mark.parametrize(
    ("spec", "kserve", "said"),
    [
        ({}, False, ""),
        ({"routing": {"enabled": True}}, False, f"make an HTTPRoute to Service {SERVER}, port 80"),
        (
            {"routing": {"pathTemplate": "/x"}},
            True,
            f"make an HTTPRoute to Service {SERVER}-predictor, port 80",
        ),
        ({"routing": {"enabled": False, "pathTemplate": "/x"}}, False, ""),
        ({"routing": {}}, False, ""),
        (
            {"minReplicas": 2, "maxReplicas": 5},
            False,
            f"`kubectl autoscale deployment {SERVER} -n {HERE} --min=2 --max=5`",
        ),
        ({"autoScaling": {"metrics": [1]}}, False, f"Deployment {SERVER} has one pod until then"),
        # KServe does it, or there is nothing to do.
        ({"minReplicas": 2, "maxReplicas": 5}, True, ""),
        ({"minReplicas": 2}, False, ""),
        ({"storage": {"pvcHeadroomPercent": 30}}, False, "of AIMRuntimeConfig 'default'"),
        # As AIM Engine's kind has it where nobody says it, and as it is.
        ({"storage": {"pvcHeadroomPercent": 10}}, False, ""),
        ({"storage": {"pvcHeadroomPercent": 15}}, False, ""),
        ({"overrides": {"hardware": {"gpu": {"models": ["MI300X"]}}}}, False, "name a template"),
    ],
)
async def test_what_nothing_comes_of_is_told_once_with_what_to_do(
    spec: Object, kserve: bool, said: str
) -> None:
    config = made_by_users("AIMRuntimeConfig", "default", {"storage": {"pvcHeadroomPercent": 15}})
    wanted = chat(spec={"model": {"image": IMAGE}, **spec})
    land = await serving(config, model(), template(), wanted, kserve=kserve)
    notes = [message for _, reason, message in land.told if reason == "UnservedField"]
    assert len(notes) == bool(said)
    assert land.says().get("UnservedFields") == ("True UnservedField" if said else None)
    assert not said or (said in notes[0] and land.message("UnservedFields") == notes[0])


async def test_older_words_are_told_once() -> None:
    spec = {"model": {"image": IMAGE}, "caching": {"mode": "Always"}, "cacheModel": True}
    land = service_land(model(), template(), chat(spec=spec))
    await land.serve()
    land.service()["metadata"]["generation"] = 2
    await land.serve()
    notes = [message for _, reason, message in land.told if reason == "DeprecatedField"]
    assert len(notes) == 2
    assert "write Shared" in notes[0]
    assert "spec.cacheModel true" in notes[1]


async def test_a_paused_service_is_left_alone() -> None:
    paused = {"aim.eai.amd.com/reconciliation-paused": "true"}
    land = service_land(model(), template(), chat(annotations=paused))
    await land.serve()
    assert not land.caches()
    assert "status" not in land.service()


# -- its end ---------------------------------------------------------------------------------------


async def test_of_what_it_leaves_behind_only_what_is_ready_stays() -> None:
    for state, stays in (
        ("Ready", True),
        ("Progressing", False),
        ("Failed", False),
        ("Pending", False),
    ):
        land = service_land()
        await land.serve()
        land.cached(land.the_cache(), state)
        theirs = land.put(wanted_by_user("theirs", template="another"))
        land.cached(theirs, "Failed")
        land.ask_service_to_go()
        await land.serve()
        assert not land.of_kind("AIMService")
        assert (SHARED in {name_of(each) for each in land.caches()}) == stays, state
        assert theirs in land.caches()


async def test_a_cache_that_another_service_waits_for_stays() -> None:
    land = service_land(model(), template(), chat(), chat("other"))
    await land.serve()
    await land.serve("other")
    land.cached(land.the_cache(), "Progressing")
    land.ask_service_to_go()
    await land.serve()
    assert name_of(land.the_cache()) == SHARED
    # Who made it is gone: it goes with the last that waits for it.
    land.ask_service_to_go("other")
    await land.serve("other")
    assert not land.caches()


async def test_a_cache_that_a_living_service_made_stays() -> None:
    land = service_land(model(), template(), chat(), chat("other"))
    await land.serve()
    await land.serve("other")
    land.cached(land.the_cache(), "Progressing")
    # Who made it has gone over to another one, and may come back.
    land.service()["status"]["resolvedTemplate"]["name"] = "another"
    land.ask_service_to_go("other")
    await land.serve("other")
    assert name_of(land.the_cache()) == SHARED


async def test_a_namespace_that_ends_is_not_held_up() -> None:
    land = service_land()
    await land.serve()
    [namespace] = land.of_kind("Namespace")
    namespace["metadata"]["deletionTimestamp"] = "2026-01-31T10:00:00Z"
    land.ask_service_to_go()
    await land.serve()
    assert not land.of_kind("AIMService")
    assert land.caches()
