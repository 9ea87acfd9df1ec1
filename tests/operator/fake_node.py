"""A node that is made up: volumes for claims, and pods that run and end; and who drives both.

Jobs are looked after by Kubernetes' own controllers; only pods' statuses are made up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from operator_shim.access import Access
from operator_shim.artifact import reconcile
from operator_shim.cluster import Cluster as Door
from operator_shim.config import Options
from operator_shim.keys import Key
from operator_shim.objects import LABEL_COMPONENT, Object, at, labels_of, name_of, uid_of
from tests.cluster.client import Namespace
from tests.operator.fakes import Killed, reasons
from tests.operator.line import Line

MODEL_BYTES = 9_094_593_249
OPTIONS = Options(default_download_image="registry.test/aim-downloader:1")
PATIENCE_S = 150.0
POLL_S = 0.1
ANSWER = json.dumps({"url": "hf://org/model", "sizeBytes": MODEL_BYTES})


class OperatorsDoor(Door):
    """The operator's way to the API server; logs are those of the fake node.

    It counts what is written, and the operator dies before the write after ``writes_left``.
    """

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self.writes: Counter[str] = Counter()
        self.writes_left: int | None = None
        self.printed = [ANSWER]

    async def logs(self, pod: str, namespace: str, container: str, lines: int = 50) -> list[str]:
        return self.printed

    async def apply(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        self._count(f"apply {object_['kind']}")
        return await super().apply(object_, manager, force=force)

    async def apply_status(self, object_: Object, manager: str, *, force: bool = True) -> Object:
        self._count("apply status")
        return await super().apply_status(object_, manager, force=force)

    async def delete(
        self, kind: str, name: str, namespace: str = "", uid: str = "", version: str = ""
    ) -> bool:
        self._count(f"delete {kind}")
        return await super().delete(kind, name, namespace, uid, version)

    def _count(self, what: str) -> None:
        if self.writes_left is not None:
            if not self.writes_left:
                raise Killed
            self.writes_left -= 1
        self.writes[what] += 1


class FakeNode:
    """Of one namespace. Volumes outlive it, so it is asked to clear them away."""

    def __init__(self, space: Namespace, on: str = "nowhere") -> None:
        """Its pods are on a node of this name, be there one or not."""
        self._space = space
        self._on = on
        self._line = Line(space.cluster)
        self._volumes: set[str] = set()

    def bind(self) -> None:
        """Gives each claim that waits a volume; Kubernetes binds them."""
        claims = self._line.listed("PersistentVolumeClaim", self._space.name)
        waiting = [each for each in claims if at(each, "status.phase") == "Pending"]
        for volume in map(volume_for, waiting):
            self._volumes.add(name_of(volume))
            self._line.ask("POST", "/api/v1/persistentvolumes", volume)

    def pods(self, component: str) -> list[Object]:
        """The pods of all Jobs for this, that have not ended."""
        return [
            pod
            for pod in self._line.listed("Pod", self._space.name)
            if labels_of(pod).get(LABEL_COMPONENT) == component
            and at(pod, "status.phase") in ("Pending", "Running")
        ]

    def tell(self, component: str, status: Object) -> int:
        """All those pods come into this state; how many there were."""
        pods = self.pods(component)
        for pod in pods:
            self._tell(pod, status)
        return len(pods)

    def work(self) -> None:
        """One step of all that it has to do."""
        self.bind()
        self.tell("check-size", {"phase": "Succeeded"})
        for pod in self.pods("download"):
            is_running = at(pod, "status.phase") == "Running"
            self._tell(pod, {"phase": "Succeeded" if is_running else "Running"})

    def run(self, name: str) -> None:
        """A pod of this name, which no Job of ours has made, comes to run."""
        self._tell(self._space.get("pod", name), {"phase": "Running"})

    def _tell(self, pod: Object, status: Object) -> None:
        if not at(pod, "spec.nodeName"):
            # Else the scheduler says again and again that there is no node.
            where = f"/api/v1/namespaces/{self._space.name}/pods/{name_of(pod)}/binding"
            target = {"apiVersion": "v1", "kind": "Node", "name": self._on}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name_of(pod)}}
            answer, said = self._line.ask("POST", where, {**binding, "target": target})
            assert answer == 201, said
        self.patch(pod, status)

    def patch(self, pod: Object, status: Object) -> None:
        """The status of a pod says so, whether or not that has a node."""
        self._line.tell("Pod", pod, status)

    def clear(self) -> None:
        self._line.close()
        if self._volumes:
            self._space.cluster.kubectl(
                "delete", "pv", "--wait=false", "--ignore-not-found", *self._volumes
            )


class Operator:
    """The operator for one artifact: pass after pass, as its queue would have it."""

    def __init__(self, door: OperatorsDoor, space: Namespace, name: str = "demo") -> None:
        self.door = door
        self.space = space
        self.key = Key("AIMArtifact", space.name, name)

    async def look(self) -> Object:
        """One pass; the status after it."""
        await reconcile(self.door, self.key, OPTIONS)
        kind, namespace, name = self.key
        status: Object = at(await self.door.get(kind, name, namespace) or {}, "status", {})
        return status

    @property
    def artifact(self) -> Object:
        return self.space.get("aimartifact", self.key.name)

    @property
    def status(self) -> Object:
        found: Object = self.artifact.get("status", {})
        return found

    async def until(
        self, done: Callable[[Object], Any], meanwhile: Callable[[], Any] = lambda: None
    ) -> Object:
        """Passes, until the status is as it should be."""
        deadline = time.monotonic() + PATIENCE_S
        while not done(status := await self.look()):
            assert time.monotonic() < deadline, status
            await asyncio.to_thread(meanwhile)
            await asyncio.sleep(POLL_S)
        return status


def is_ready(status: Object) -> bool:
    return bool(status["status"] == "Ready")


def says(kind: str, what: str) -> Callable[[Object], bool]:
    """Whether a condition says so."""
    return lambda status: reasons(status).get(kind) == what


def volume_for(claim: Object) -> dict[str, Any]:
    """A volume that Kubernetes binds to this claim."""
    spec = claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"fake-{uid_of(claim)}"},
        "spec": {
            "capacity": spec["resources"]["requests"],
            "accessModes": spec["accessModes"],
            "storageClassName": spec.get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"],
                "name": name_of(claim),
                "uid": uid_of(claim),
            },
        },
    }
