"""A namespace in memory with templates and caches; the test plays what becomes of artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from operator_shim import template, template_cache
from operator_shim.cluster import ApiError
from operator_shim.keys import ARTIFACT, MODEL_CACHE, TEMPLATE_CACHE, Key
from operator_shim.names import claim_name
from operator_shim.objects import Object, at, name_of, namespace_of, timestamp, uid_of
from tests.operator.fakes import OPTIONS, START, FakeCluster

HERE = "models"
ONE = {"modelId": "org/one", "sourceUri": "hf://org/one"}
TWO = {"modelId": "org/two", "sourceUri": "hf://org/two"}


class CacheLand(FakeCluster):
    """Objects that others make are put here; `look` is one pass of the operator."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden: set[str] = set()
        """Kinds that nobody lets us read or delete."""
        self.unlisted: set[str] = set()
        """Kinds that nobody lets us list."""

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        self._ask_for(kind)
        return await super().get(kind, name, namespace)

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        if kind in self.unlisted:
            raise ApiError(f"cannot list {kind}", 403, "Forbidden", "forbidden")
        return await super().listed(kind, namespace, selector, fields)

    async def post_event(self, about: Object, type: str, reason: str, message: str) -> None:  # noqa: A002
        await super().post_event(about, type, reason, message)
        self.about.setdefault(uid_of(about), []).append({"reason": reason, "message": message})

    async def delete(
        self, kind: str, name: str, namespace: str = "", uid: str = "", version: str = ""
    ) -> bool:
        self._ask_for(kind)
        return await super().delete(kind, name, namespace, uid, version)

    async def patch_finalizers(self, object_: Object, finalizers: Sequence[str]) -> Object:
        key = Key(object_["kind"], namespace_of(object_), name_of(object_))
        if key not in self.objects:
            raise ApiError("cannot patch", 404, "NotFound", "not found")
        self._count("patch")
        there = self._changed(key)
        there["metadata"]["finalizers"] = list(finalizers)
        if not finalizers and at(there, "metadata.deletionTimestamp"):
            self.remove(*key)
        return dict(there)

    async def look(self, name: str = "qwen", kind: str = TEMPLATE_CACHE) -> float | None:
        """Passes over an object until one has written nothing."""
        namespace = "" if kind.startswith("AIMCluster") else HERE
        is_cache = kind == TEMPLATE_CACHE
        reconcile = template_cache.reconcile if is_cache else template.reconcile
        for _ in range(5):
            before = self.writes.total()
            again = await reconcile(self, Key(kind, namespace, name), OPTIONS, lambda: self.now)
            if self.writes.total() == before:
                return again
        raise AssertionError("the operator writes and writes")

    def _ask_for(self, kind: str) -> None:
        if kind in self.forbidden:
            raise ApiError(f"cannot touch {kind}", 403, "Forbidden", "forbidden")

    def ask_to_go(self, name: str = "qwen") -> None:
        """Somebody deletes a cache."""
        self.cache(name)["metadata"]["deletionTimestamp"] = timestamp(self.now)

    def cache(self, name: str = "qwen") -> Object:
        return self.objects[Key(TEMPLATE_CACHE, HERE, name)]

    def state(self, name: str = "qwen") -> str:
        return str(at(self.cache(name), "status.status"))

    def said(self, kind: str = "Ready", name: str = "qwen") -> str:
        """What a condition of a cache says."""
        told = at(self.cache(name), "status.conditions", [])
        return str(next(each["message"] for each in told if each["type"] == kind))

    def artifacts(self) -> dict[str, Object]:
        """The artifacts by their sources."""
        return {at(each, "spec.sourceUri"): each for each in self.of_kind(ARTIFACT)}

    def becomes(self, uri: str, state: str, reason: str = "Progressing", message: str = "") -> None:
        """The artifact of this source gets to a state."""
        for artifact in self.of_kind(ARTIFACT):
            if at(artifact, "spec.sourceUri") == uri:
                artifact["status"] = status(state, reason, message)
                claim = claim_name(name_of(artifact), uid_of(artifact))
                artifact["status"]["persistentVolumeClaim"] = claim


def land(*objects: Object) -> CacheLand:
    """With the template `qwen`, of two models, and its cache, unless there are others."""
    made = CacheLand()
    made.put(namespace())
    for each in objects or (service_template(), cache()):
        made.put(each)
    return made


def namespace() -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HERE}}


def status(state: str, reason: str = "Progressing", message: str = "") -> Object:
    ready = {
        "type": "Ready",
        "status": "True" if state in ("Ready", "Available") else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": timestamp(START),
    }
    return {"status": state, "conditions": [ready]}


def made_by_users(kind: str, name: str, spec: Object, **metadata: Any) -> Object:
    """An object as the server has it."""
    place = {} if kind.startswith("AIMCluster") else {"namespace": HERE}
    return {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, **place, **metadata},
        "spec": spec,
    }


def cache(
    name: str = "qwen", template: str = "qwen", spec: Object | None = None, **more: Any
) -> Object:
    wanted = {"templateName": template, "templateScope": "Namespace", **(spec or {})}
    return made_by_users(TEMPLATE_CACHE, name, wanted, **more)


def service_template(
    name: str = "qwen",
    sources: Sequence[Object] = (ONE, TWO),
    state: str = "Ready",
    kind: str = "AIMServiceTemplate",
    **told: Any,
) -> Object:
    """A template of which its controller has found out which models it takes."""
    found = status(state, "AllComponentsReady" if state == "Ready" else "Progressing", **told)
    return made_by_users(kind, name, {"modelName": "qwen"}) | {
        "status": {**found, "modelSources": list(sources)}
    }


def artifact(
    name: str, uri: str, state: str = "", spec: Object | None = None, **more: Any
) -> Object:
    metadata = {"uid": f"uid-of-{name}", **more}
    made = made_by_users(ARTIFACT, name, {"sourceUri": uri, **(spec or {})}, **metadata)
    told = {**status(state), "persistentVolumeClaim": claim_name(name, uid_of(made))}
    return made | {"status": told} if state else made


def model_cache(name: str, uri: str, state: str = "Available") -> Object:
    """One of the older kind, with its claim under the older name."""
    made = made_by_users(MODEL_CACHE, name, {"sourceUri": uri})
    told = {**status(state, "Warm"), "persistentVolumeClaim": f"{name}-cache"}
    return made | {"status": told}
