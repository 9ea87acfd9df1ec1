"""A service from nothing to Running: which cache it has, what serves it, what its status says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from operator_shim.names import derived_name
from operator_shim.objects import Object, at, labels_of, name_of
from operator_shim.service import SOON_S, STARTING_S
from operator_shim.service_cache import cache_name, find_cache
from tests.operator.cache_land import HERE, ONE
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
        ("Degraded", "CacheCreating", "Starting"),
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


async def test_a_server_is_not_exchanged_when_kserve_comes() -> None:
    land = await serving()
    land.kserve = True
    await land.serve()
    assert not land.of_kind("InferenceService")
    assert land.says()["status"] == "Running"


async def test_a_recreated_cache_is_mounted_once_its_models_are_there() -> None:
    land = await serving()
    before = pod_of(land.server())
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


async def test_a_service_that_kserve_makes_by_the_name_is_kserves() -> None:
    land = await serving(kserve=True)
    theirs = {"name": SERVER, "namespace": HERE}
    land.put({"apiVersion": "v1", "kind": "Service", "metadata": theirs, "spec": {}})
    await land.serve()
    assert land.says()["status"] == "Running"


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


async def test_older_words_are_told_once() -> None:
    spec = {"model": {"image": IMAGE}, "caching": {"mode": "Always"}, "cacheModel": True}
    land = service_land(model(), template(), chat(spec=spec))
    await land.serve()
    land.service()["metadata"]["generation"] = 2
    await land.serve()
    notes = [message for _, reason, message in land.told if reason == "DeprecatedField"]
    assert len(notes) == 1
    assert "write Shared" in notes[0]
    assert "spec.cacheModel true" in notes[0]


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


async def test_a_namespace_that_ends_is_not_held_up() -> None:
    land = service_land()
    await land.serve()
    [namespace] = land.of_kind("Namespace")
    namespace["metadata"]["deletionTimestamp"] = "2026-01-31T10:00:00Z"
    land.ask_service_to_go()
    await land.serve()
    assert not land.of_kind("AIMService")
    assert land.caches()
