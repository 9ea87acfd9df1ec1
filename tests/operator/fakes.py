"""A cluster in memory: as much of our own `Cluster` as one pass over an artifact uses."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from operator_shim.artifact import reconcile
from operator_shim.cluster import ApiError, Cluster
from operator_shim.config import Options
from operator_shim.desired import MANAGER
from operator_shim.keys import OURS, Key, key_of
from operator_shim.objects import Object, at, name_of, namespace_of, timestamp, uid_of

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
START = datetime(2026, 1, 31, 10, 0, tzinfo=UTC)
OPTIONS = Options(default_download_image="registry.test/aim-downloader:1")
KEY = Key("AIMArtifact", "models", "demo")
CLAIM, DOWNLOAD, SIZE = "demo-cache-9179ba0d", "demo-download-9179ba0d", "demo-check-size-9179ba0d"
MODEL_BYTES = 9_094_593_249
WRITES = ("apply", "apply status", "delete")


class Killed(BaseException):
    """The operator is dead."""


class FakeCluster(Cluster):
    """Objects by kind, namespace and name. The test plays the nodes and Kubernetes' controllers."""

    def __init__(self) -> None:  # of the real one nothing is used but its methods' names
        self.now = START
        self.objects: dict[Key, Object] = {}
        self.printed: dict[str, list[str]] = {}
        """What pods have printed, by name."""
        self.told: list[tuple[str, str, str]] = []
        """Events that were posted: type, reason, message."""
        self.about: dict[str, list[Object]] = {}
        """Events of the cluster, by UID of what they are about."""
        self.classes: dict[str, Object] | None = {"standard": storage_class("standard", True)}
        """Storage classes by name; None: the operator has no right to read them."""
        self.writes: Counter[str] = Counter()
        self.refuse: Callable[[Object], ApiError | None] = lambda _: None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.writes_left: int | None = None
        """The operator is killed before the write after so many."""
        self._applied: dict[tuple[Key, str, str], Object] = {}
        self._made = 0

    # -- what the operator uses ----------------------------------------------------------------

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        if kind == "StorageClass":
            return next((each for each in self._classes() if name_of(each) == name), None)
        return copy.deepcopy(self.objects.get(Key(kind, namespace, name)))

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        if kind == "StorageClass":
            return self._classes()
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        return [
            _with_version(found)
            for key, found in self.objects.items()
            if (key.kind, key.namespace) == (kind, namespace)
            and wanted.items() <= at(found, "metadata.labels", {}).items()
        ]

    async def keys(self, kind: str, namespace: str = "") -> list[Key]:
        there = (key_of(kind, each) for each in self.of_kind(kind))
        return [key for key in there if key.namespace == namespace or not namespace]

    async def served(self) -> frozenset[str]:
        return frozenset(OURS)

    async def events_of(self, uid: str, namespace: str) -> list[Object]:
        return self.about.get(uid, [])

    async def logs(self, pod: str, namespace: str, container: str, lines: int = 50) -> list[str]:
        return self.printed.get(pod, [])[-lines:]

    async def create(self, object_: Object, manager: str) -> Object | None:
        key = Key(object_["kind"], namespace_of(object_), name_of(object_))
        return None if key in self.objects else self._write("create", object_, manager)

    async def apply(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        return self._write("apply", object_, manager)

    async def apply_status(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        return self._write("apply status", object_, manager)

    async def patch_spec(self, object_: Object, spec: Object, manager: str) -> Object:
        key = Key(object_["kind"], namespace_of(object_), name_of(object_))
        self._count("patch")
        _merge(self._changed(key), {"spec": copy.deepcopy(spec)})
        return copy.deepcopy(self.objects[key])

    async def delete(
        self, kind: str, name: str, namespace: str = "", uid: str = "", version: str = ""
    ) -> bool:
        key = Key(kind, namespace, name)
        if key not in self.objects:
            return False
        if uid and uid_of(self.objects[key]) != uid:
            raise ApiError(f"cannot delete {key}", 409, "Conflict", "the UID differs")
        if version and at(_with_version(self.objects[key]), "metadata.resourceVersion") != version:
            raise ApiError(f"cannot delete {key}", 409, "Conflict", "the version differs")
        self._count("delete")
        self.remove(*key)
        return True

    async def post_event(self, about: Object, type: str, reason: str, message: str) -> None:  # noqa: A002
        if error := self.refuse({"kind": "Event"}):
            raise error
        self.told.append((type, reason, message))

    # -- what tests do -------------------------------------------------------------------------

    async def reconcile(self, key: Key = KEY, options: Options = OPTIONS) -> float | None:
        """One pass of the operator."""
        return await reconcile(self, key, options, lambda: self.now)

    async def settle(self, options: Options = OPTIONS) -> float | None:
        """Passes, as the queue makes them, until one has written nothing."""
        for _ in range(10):
            before = self.writes.total()
            again = await self.reconcile(options=options)
            if self.writes.total() == before:
                return again
        raise AssertionError("the operator writes and writes")

    def put(self, object_: Object) -> Object:
        """Somebody makes an object."""
        key = Key(object_["kind"], namespace_of(object_), name_of(object_))
        made = copy.deepcopy(object_)
        self._made += 1
        metadata = made["metadata"]
        metadata.setdefault("uid", f"uid-{self._made}")
        metadata.setdefault("creationTimestamp", timestamp(self.now))
        metadata.setdefault("generation", 1)
        self.objects[key] = made
        return made

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Somebody deletes an object; what it owns goes with it."""
        gone = self.objects.pop(Key(kind, namespace, name))
        for key, each in list(self.objects.items()):
            owners = at(each, "metadata.ownerReferences", [])
            if any(owner["uid"] == uid_of(gone) for owner in owners) and key in self.objects:
                self.remove(*key)
        for known in [known for known in self._applied if known[0] == Key(kind, namespace, name)]:
            del self._applied[known]

    def patch(self, object_: Object, status: Object) -> None:
        """A merge patch of somebody else's on a status: the managed fields become theirs."""
        key = Key(object_["kind"], namespace_of(object_), name_of(object_))
        _merge(self._changed(key).setdefault("status", {}), copy.deepcopy(status))
        owned = self._applied.get((key, MANAGER, "apply status"), {})
        _disown(owned.get("status", {}), status)

    def wait(self, **time: float) -> None:
        """Time passes."""
        self.now += timedelta(**time)

    def of_kind(self, kind: str) -> list[Object]:
        return [each for key, each in self.objects.items() if key.kind == kind]

    @property
    def artifact(self) -> Object:
        return self.objects[KEY]

    @property
    def status(self) -> Object:
        found: Object = self.artifact["status"]
        return found

    @property
    def claim(self) -> Object:
        return self.objects[Key("PersistentVolumeClaim", "models", CLAIM)]

    def job(self, name: str = DOWNLOAD) -> Object:
        return self.objects[Key("Job", "models", name)]

    def has_job(self, name: str = DOWNLOAD) -> bool:
        return Key("Job", "models", name) in self.objects

    # -- a node and Kubernetes' controllers ----------------------------------------------------

    def bind(self, phase: str = "Bound") -> None:
        """The claim gets its volume."""
        self.claim["status"] = {"phase": phase}

    def pod(self, job: str = DOWNLOAD, **status: Any) -> Object:
        """The Job gets another pod, whose status is this."""
        template = at(self.job(job), "spec.template")
        owner = {"kind": "Job", "name": job, "uid": uid_of(self.job(job)), "controller": True}
        metadata = {
            "name": f"{job}-{self._made}",
            "namespace": "models",
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner],
        }
        kind = {"apiVersion": "v1", "kind": "Pod"}
        return self.put({**kind, "metadata": metadata, "spec": template["spec"], "status": status})

    def succeed(self, job: str = DOWNLOAD) -> None:
        """The Job's pods have ended well."""
        pods = [each for each in self.of_kind("Pod") if each["metadata"]["name"].startswith(job)]
        for pod in pods or [self.pod(job)]:
            if at(pod, "status.phase") != "Failed":
                pod["status"] = {"phase": "Succeeded"}
        self.job(job)["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def tell_size(self, answer: str = "") -> None:
        """The size Job has ended, and its pod has printed an answer."""
        pod = self.pod(SIZE, phase="Succeeded")
        answer = answer or json.dumps({"url": "hf://org/model", "sizeBytes": MODEL_BYTES})
        self.printed[name_of(pod)] = [answer]
        self.succeed(SIZE)

    def fail(self, job: str = DOWNLOAD, reason: str = "BackoffLimitExceeded", **told: Any) -> None:
        """The Job has failed."""
        condition = {"type": "Failed", "status": "True", "reason": reason, "message": "", **told}
        self.job(job)["status"] = {"conditions": [condition]}

    # -- how the server writes -----------------------------------------------------------------

    def _classes(self) -> list[Object]:
        if self.classes is None:
            raise ApiError("cannot list StorageClass", 403, "Forbidden", "not allowed")
        return list(copy.deepcopy(self.classes).values())

    def _count(self, verb: str) -> None:
        if self.writes_left is not None:
            if not self.writes_left:
                raise Killed
            self.writes_left -= 1
        self.writes[verb] += 1

    def _changed(self, key: Key) -> Object:
        """The object, to be changed; who has looked at it before has what was there then."""
        self.objects[key] = copy.deepcopy(self.objects[key])
        return self.objects[key]

    def _write(self, verb: str, wanted: Object, manager: str) -> Object:
        key = Key(wanted["kind"], namespace_of(wanted), name_of(wanted))
        if error := self.refuse(wanted):
            raise error
        there, uid = self.objects.get(key), uid_of(wanted)
        if there is None and verb == "apply status":
            raise ApiError(f"cannot {verb} {key}", 404, "NotFound", "not found")
        if uid and uid != uid_of(there or {}):
            raise ApiError(f"cannot {verb} {key}", 409, "Conflict", "the UID differs")
        self._count(verb)
        if there is None:
            self.put({each: wanted[each] for each in ("apiVersion", "kind", "metadata")})
        there = self._changed(key)
        before = self._applied.get((key, manager, verb), {})
        _give_up(there, before, wanted)
        _merge(there, copy.deepcopy(wanted))
        self._applied[key, manager, verb] = copy.deepcopy(wanted)
        return copy.deepcopy(there)


def _with_version(found: Object) -> Object:
    """A copy of the object with a version that changes whenever it does."""
    version = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {**copy.deepcopy(found), "metadata": {**found["metadata"], "resourceVersion": version}}


def _merge(there: Object, wanted: Object) -> None:
    """What is wanted takes the place of what is there; conditions merge by type."""
    for field, value in wanted.items():
        if isinstance(value, dict) and isinstance(there.get(field), dict):
            _merge(there[field], value)
        elif field == "conditions":
            mine = {each["type"] for each in value}
            others = [each for each in there.get(field, []) if each["type"] not in mine]
            there[field] = [*others, *value]
        elif value is None:
            there.pop(field, None)
        else:
            there[field] = value


def _give_up(there: Object, before: Object, wanted: Object) -> None:
    """What was applied before, and is no more, goes."""
    for field, value in before.items():
        if isinstance(value, dict) and isinstance(there.get(field), dict):
            _give_up(there[field], value, wanted.get(field) or {})
            if not there[field] and field not in wanted:
                del there[field]
        elif field == "conditions":
            kept = {each["type"] for each in wanted.get(field, [])}
            gone = {each["type"] for each in value} - kept
            there[field] = [each for each in there.get(field, []) if each["type"] not in gone]
        elif field not in wanted:
            there.pop(field, None)


def _disown(owned: Object, patched: Object) -> None:
    for field, value in patched.items():
        if isinstance(value, dict):
            _disown(owned.get(field) or {}, value)
        else:
            owned.pop(field, None)


# -- objects ---------------------------------------------------------------------------------------


def artifact(
    spec: Object | None = None,
    annotations: dict[str, str] | None = None,
    status: Object | None = None,
    **metadata: Any,
) -> Object:
    """An artifact as the server has it."""
    made: Object = {
        "apiVersion": "aim.eai.amd.com/v1alpha1",
        "kind": "AIMArtifact",
        "metadata": {
            "name": "demo",
            "namespace": "models",
            "uid": UID,
            "generation": 1,
            "creationTimestamp": timestamp(START),
            "annotations": annotations or {},
            **metadata,
        },
        "spec": {"sourceUri": "hf://org/model", **(spec or {})},
    }
    return made if status is None else {**made, "status": status}


def storage_class(name: str, is_default: bool = False, *, grows: bool = False) -> Object:
    """A storage class, whose volumes grow or do not."""
    marks = {"storageclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    metadata = {"name": name, "annotations": marks}
    return {"kind": "StorageClass", "metadata": metadata, "allowVolumeExpansion": grows}


def cluster_with(*objects: Object) -> FakeCluster:
    cluster = FakeCluster()
    for each in objects or (artifact(),):
        cluster.put(each)
    return cluster


def ended(code: int, message: str = "", reason: str = "Error") -> Object:
    """The status of a pod whose container ended so."""
    end = {"exitCode": code, "reason": reason, "message": message}
    containers = [{"name": "model-download", "image": "x", "state": {"terminated": end}}]
    return {"phase": "Failed", "containerStatuses": containers}


def ours(code: int, message: str, hint: str = "", error: str = "") -> Object:
    """The status of a pod of our image that ended so."""
    said = {"outcome": "failed", "exitCode": code, "error": error, "message": message, "hint": hint}
    return ended(code, json.dumps(said))


def reasons(status: Object) -> dict[str, str]:
    """What each condition says, as `True Ready`."""
    told: Iterable[Object] = status["conditions"]
    return {each["type"]: f"{each['status']} {each['reason']}" for each in told}
