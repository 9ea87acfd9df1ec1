"""A namespace in memory with models, templates, caches and services; the test plays the rest."""

from __future__ import annotations

import json
from typing import Any

from operator_shim import service
from operator_shim.config import Options
from operator_shim.keys import SERVICE, TEMPLATE_CACHE, Key
from operator_shim.objects import Object, at, name_of, uid_of
from tests.operator.cache_land import (
    HERE,
    ONE,
    TWO,
    CacheLand,
    made_by_users,
    service_template,
    status,
)
from tests.operator.fakes import OPTIONS, UID, reasons

IMAGE = "amdenterpriseai/aim-qwen-qwen3-32b:0.8.5"
FINALIZER = "aim.eai.amd.com/template-cache-cleanup"


class ServiceLand(CacheLand):
    """Objects that others make are put here; `serve` is what the operator does of a service."""

    def __init__(self) -> None:
        super().__init__()
        self.kserve = False

    async def served(self) -> frozenset[str]:
        return await super().served() | ({"InferenceService"} if self.kserve else set())

    async def serve(self, name: str = "chat", options: Options = OPTIONS) -> float | None:
        """Passes over a service until one has written nothing."""
        for _ in range(6):
            before = self.writes.total()
            key = Key(SERVICE, HERE, name)
            again = await service.reconcile(self, key, options, lambda: self.now)
            if self.writes.total() == before:
                return again
        raise AssertionError("the operator writes and writes")

    # -- what there is -------------------------------------------------------------------------

    def service(self, name: str = "chat") -> Object:
        return self.objects[Key(SERVICE, HERE, name)]

    def says(self, name: str = "chat") -> dict[str, str]:
        """What the conditions say, as `True Ready`, and the status."""
        found = self.service(name)["status"]
        return {"status": found["status"], **reasons(found)}

    def message(self, kind: str = "Ready", name: str = "chat") -> str:
        conditions = self.service(name)["status"]["conditions"]
        return str(next(each["message"] for each in conditions if each["type"] == kind))

    def caches(self) -> list[Object]:
        return self.of_kind(TEMPLATE_CACHE)

    def the_cache(self) -> Object:
        [found] = self.caches()
        return found

    def server(self, kind: str = "Deployment") -> Object:
        [found] = self.of_kind(kind)
        return found

    # -- what becomes of it --------------------------------------------------------------------

    def cached(self, cache: Object, state: str = "Ready", claim: str = "claim") -> None:
        """A cache gets to a state, and its two models with it."""
        entries = {
            f"hf---org-{each}": {
                "name": f"hf---org-{each}",
                "uid": f"uid-of-{each}",
                "model": f"org/{each}",
                "status": state,
                "persistentVolumeClaim": f"{claim}-{each}",
            }
            for each in ("one", "two")
        }
        told = status(
            state, "AllComponentsReady" if state == "Ready" else "Progressing", "so it is"
        )
        cache["status"] = {**told, "artifacts": entries}

    def available(self, kind: str = "Deployment") -> None:
        """The server serves."""
        server = self.server(kind)
        replicas = at(server, "spec.replicas", 1)
        condition = "Available" if kind == "Deployment" else "Ready"
        server["status"] = {
            "observedGeneration": at(server, "metadata.generation"),
            **dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), replicas),
            "conditions": [{"type": condition, "status": "True"}],
        }

    def ask_service_to_go(self, name: str = "chat") -> None:
        self.service(name)["metadata"]["deletionTimestamp"] = "2026-01-31T10:00:00Z"


def service_land(*objects: Object, kserve: bool = False) -> ServiceLand:
    """With a model, its template of two models, and a service, unless there are others."""
    made = ServiceLand()
    made.kserve = kserve
    made.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HERE}})
    for each in objects or (model(), template(), chat()):
        made.put(each)
    return made


def chat(name: str = "chat", spec: Object | None = None, **metadata: Any) -> Object:
    """A service as a user makes it: the example of the documents, unless it says otherwise."""
    wanted = {"model": {"image": IMAGE}, "caching": {"mode": "Shared"}} if spec is None else spec
    uid = {"uid": UID} if name == "chat" else {}
    return made_by_users(SERVICE, name, wanted, **uid, **metadata)


def model(
    name: str = "qwen", state: str = "", kind: str = "AIMModel", image: str = IMAGE
) -> Object:
    """A model that its controller says this of; with us alone nobody says anything."""
    made = made_by_users(kind, name, {"image": image})
    return made | {"status": status(state, "Progressing", "as it is")} if state else made


def template(
    name: str = "qwen-template",
    state: str = "Ready",
    profile: str = "",
    kind: str = "AIMServiceTemplate",
    **spec: Any,
) -> Object:
    made = service_template(name, (ONE, TWO), state, kind)
    made["spec"] |= spec
    if profile:
        made["status"]["profile"] = {"metadata": {"type": profile}}
    return made


def undiscovered(**spec: Any) -> Object:
    """A template of which nobody has said anything; it names no models, unless it says so."""
    return made_by_users("AIMServiceTemplate", "qwen-template", {"modelName": "qwen", **spec})


def manifests_in(message: str) -> list[Object]:
    """What a message offers to apply: `kubectl` reads what begins with a brace as JSON."""
    return [json.loads(each) for each in message.split("`")[1::2]]


def owners(object_: Object) -> list[tuple[str, str, bool]]:
    """Kind and name of each owner, and whether it controls the object."""
    return [
        (each["kind"], each["name"], bool(each.get("controller")))
        for each in at(object_, "metadata.ownerReferences", [])
    ]


def used(land: ServiceLand, name: str = "chat") -> Object:
    """A service that has this cache, as it says itself."""
    found = land.service(name)
    cache = land.the_cache()
    assert at(found, "status.cache.templateCacheRef.uid") == uid_of(cache)
    assert at(found, "status.cache.templateCacheRef.name") == name_of(cache)
    return found
