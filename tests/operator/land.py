"""A land for bad days: a fast node that is made up, users' wishes, and whether they are fulfilled.

A container's variable FATE says what becomes of its pods, one word for each: an exit code, or
``stays`` for one that runs on. An image with ``missing`` in its name cannot be pulled.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Self

from operator_shim.names import claim_name, download_job_name, size_job_name
from operator_shim.objects import Object, annotations_of, at, is_deleted, name_of, uid_of
from operator_shim.quantities import display_size, parse_quantity
from tests.cluster.client import Namespace
from tests.operator.fake_node import MODEL_BYTES, volume_for
from tests.operator.fakes import ours, reasons
from tests.operator.line import MERGE, PATHS, Line

STEP_S = 0.15
PATIENCE_S = 150.0
OURS = "aim.eai.amd.com/artifact.name"


class Node:
    """`with Node(space, random) as node:`; it works in a thread, for the pods of one namespace."""

    def __init__(self, space: Namespace, random: Random) -> None:
        self._space = space.name
        self._random = random
        self._line = Line(space.cluster)
        self._name = f"node-of-{space.name}"
        self._volumes: set[str] = set()
        self._ends: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.pause_s = 1.0
        """A pod runs up to so long."""

    def __enter__(self) -> Self:
        # It takes no pods of others; and who is bound to a node that is there, is left alone.
        node = {"metadata": {"name": self._name}, "spec": {"unschedulable": True}}
        assert self._line.ask("POST", "/api/v1/nodes", node)[0] == 201
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        for pod in self._line.listed("Pod", self._space):
            self._line.delete("Pod", pod, gracePeriodSeconds=0)
        for volume in self._volumes:
            self._line.ask("DELETE", f"/api/v1/persistentvolumes/{volume}")
        self._line.ask("DELETE", f"/api/v1/nodes/{self._name}")
        self._line.close()

    def _work(self) -> None:
        while not self._stop.wait(STEP_S):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._step()

    def _step(self) -> None:
        for claim in self._line.listed("PersistentVolumeClaim", self._space):
            self._bind(claim)
        failed: Counter[str] = Counter()
        pods = self._line.listed("Pod", self._space)
        for pod in sorted(pods, key=lambda pod: at(pod, "metadata.creationTimestamp", "")):
            owner = at(pod, "metadata.ownerReferences", [{}])[0].get("uid", "")
            self._look_after(pod, failed[owner])
            failed[owner] += at(pod, "status.phase") == "Failed"

    def _bind(self, claim: Object) -> None:
        volume = volume_for(claim)
        if at(claim, "status.phase") == "Pending" and name_of(volume) not in self._volumes:
            self._line.ask("POST", "/api/v1/persistentvolumes", volume)
            self._volumes.add(name_of(volume))

    def _look_after(self, pod: Object, failed_before: int) -> None:
        if is_deleted(pod):
            if at(pod, "status.phase") in ("Pending", "Running"):
                self._tell(pod, {"phase": "Failed"})
            self._line.delete("Pod", pod, gracePeriodSeconds=0)
            return
        if not at(pod, "spec.nodeName"):
            path = f"/api/v1/namespaces/{self._space}/pods/{name_of(pod)}/binding"
            target = {"apiVersion": "v1", "kind": "Node", "name": self._name}
            metadata = {"name": name_of(pod)}
            self._line.ask("POST", path, {"metadata": metadata, "target": target})
            return
        container = at(pod, "spec.containers")[0]
        phase = at(pod, "status.phase")
        if phase == "Pending" and "missing" in container["image"]:
            reason = {"reason": "ErrImagePull", "message": "manifest unknown: not found"}
            self._tell(pod, {"containerStatuses": [_state(container, waiting=reason)]})
        elif phase == "Pending":
            self._ends[uid_of(pod)] = time.monotonic() + self._random.uniform(0, self.pause_s)
            self._tell(pod, {"phase": "Running"})
        elif phase == "Running" and time.monotonic() > self._ends.get(uid_of(pod), 0.0):
            self._end(pod, container, failed_before)

    def _end(self, pod: Object, container: Object, failed_before: int) -> None:
        words = next((e["value"] for e in container.get("env", []) if e["name"] == "FATE"), "0")
        is_size = container["name"] == "check-size"
        word = "0" if is_size else words.split()[min(failed_before, len(words.split()) - 1)]
        if word == "0":
            self._tell(pod, {"phase": "Succeeded"})
        elif word != "stays":
            told = ours(int(word), f"fate {word}")
            end = told["containerStatuses"][0]["state"]
            self._tell(pod, {"phase": "Failed", "containerStatuses": [_state(container, **end)]})

    def _tell(self, pod: Object, status: Object) -> None:
        if any(at(pod, f"status.{field}") != value for field, value in status.items()):
            self._line.patch("Pod", pod, {"status": status}, "/status")


def _state(container: Object, **state: Object) -> Object:
    marks = {"imageID": "", "ready": False, "restartCount": 0}
    return {"name": container["name"], "image": container["image"], "state": state, **marks}


@dataclass
class Wish:
    """An artifact as its user wants it, and what should come of it."""

    size: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    image: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Object:
        spec: Object = {"sourceUri": "hf://org/model"}
        if self.size:
            spec["size"] = self.size
        if self.env:
            spec["env"] = [{"name": name, "value": value} for name, value in self.env.items()]
        if self.image:
            spec["modelDownloadImage"] = self.image
        return spec

    @property
    def end(self) -> tuple[str, str]:
        """Its status, and the reason of Ready."""
        fate = self.env.get("FATE", "0").split()[-1]
        ends = {"66": ("Failed", "InvalidSpec"), "77": ("Failed", "AuthError")}
        return ends.get(fate, ("Ready", "AllComponentsReady"))


class Land:
    """`with Land(space) as land:`; what users want in a namespace, and what has come of it."""

    def __init__(self, space: Namespace) -> None:
        self.space = space
        self.wishes: dict[str, Wish] = {}
        self._line = Line(space.cluster)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._line.close()

    # -- what users do -------------------------------------------------------------------------

    def make(self, name: str, wish: Wish) -> None:
        self.wishes[name] = wish
        metadata = {"name": name, "annotations": wish.annotations}
        artifact = {"apiVersion": "aim.eai.amd.com/v1alpha1", "kind": "AIMArtifact"}
        path = PATHS["AIMArtifact"].format(self.space.name)
        status, said = self._line.ask(
            "POST", path, {**artifact, "metadata": metadata, "spec": wish.spec}
        )
        assert status == 201, said

    def change(self, name: str) -> None:
        """The wish of this name has changed."""
        wish = self.wishes[name]
        path = f"{PATHS['AIMArtifact'].format(self.space.name)}/{name}"
        patch = {"metadata": {"annotations": wish.annotations}, "spec": wish.spec}
        status, said = self._line.ask("PATCH", path, patch, MERGE)
        assert status == 200, said

    def drop(self, name: str) -> None:
        del self.wishes[name]
        path = f"{PATHS['AIMArtifact'].format(self.space.name)}/{name}"
        status, said = self._line.ask("DELETE", path)
        assert status == 200, said

    def configure(self, **env: str) -> None:
        """The runtime config of all says this."""
        spec = {"env": [{"name": name, "value": value} for name, value in env.items()]}
        kind = {"apiVersion": "aim.eai.amd.com/v1alpha1", "kind": "AIMRuntimeConfig"}
        self.space.apply({**kind, "metadata": {"name": "default"}, "spec": spec})

    # -- what has come of it -------------------------------------------------------------------

    def all(self, kind: str) -> list[Object]:
        return self._line.listed(kind, self.space.name)

    def artifact(self, name: str) -> Object:
        path = f"{PATHS['AIMArtifact'].format(self.space.name)}/{name}"
        found: Object = self._line.ask("GET", path)[1]
        return {**found, "kind": "AIMArtifact"}

    def edit(self, kind: str, name: str, patch: Object, part: str = "") -> None:
        """Somebody changes an object by hand."""
        metadata = {"name": name, "namespace": self.space.name}
        status, said = self._line.patch(kind, {"metadata": metadata}, patch, part)
        assert status == 200, said

    def faults(self) -> list[str]:
        """What is not as it should be, once all is settled."""
        artifacts = {name_of(each): each for each in self.all("AIMArtifact")}
        found = []
        if artifacts.keys() != self.wishes.keys():
            found.append(f"artifacts: {sorted(artifacts.keys() ^ self.wishes.keys())}")
        for name in artifacts.keys() & self.wishes.keys():
            found += [f"{name}: {fault}" for fault in _faults(artifacts[name], self.wishes[name])]
        return found + self._faults_of_children(artifacts)

    def _faults_of_children(self, artifacts: dict[str, Object]) -> list[str]:
        uids = {uid_of(each): name for name, each in artifacts.items()}
        should = {
            (kind, made(name, uid)) for uid, name in uids.items() for kind, made in _ONCE.items()
        }
        may = {("Job", made(name, uid)) for uid, name in uids.items() for made in _JOBS}
        found = []
        for kind in ("PersistentVolumeClaim", "Job", "ServiceAccount", "Role", "RoleBinding"):
            there = [each for each in self.all(kind) if OURS in at(each, "metadata.labels", {})]
            for each in there:
                owners = [one["uid"] for one in at(each, "metadata.ownerReferences", [])]
                if len(owners) != 1 or owners[0] not in uids:
                    found.append(f"{kind} {name_of(each)} is left, of {owners}")
                elif kind in _ONCE and (kind, name_of(each)) not in should:
                    found.append(f"{kind} {name_of(each)} is one too many")
                elif kind == "Job" and (kind, name_of(each)) not in may:
                    found.append(f"Job {name_of(each)} is one too many")
            names = {(kind, name_of(each)) for each in there}
            found += [
                f"{want} is missing" for want in should if want[0] == kind and want not in names
            ]
        return found

    def wait_until_settled(self, patience: float = PATIENCE_S) -> float:
        """Until there is no fault; after how many seconds."""
        begun = time.monotonic()
        while faults := self.faults():
            assert time.monotonic() - begun < patience, "\n".join(faults)
            time.sleep(0.5)
        return time.monotonic() - begun


_ONCE = {"PersistentVolumeClaim": claim_name}
_JOBS = (download_job_name, size_job_name)


def _faults(artifact: Object, wish: Wish) -> list[str]:
    status = at(artifact, "status", {})
    found = []
    said = (at(status, "status", ""), _reason(status))
    if said != wish.end:
        found.append(f"is {said}, and not {wish.end}: {json.dumps(reasons_of(status))}")
    if at(status, "observedGeneration") != at(artifact, "metadata.generation"):
        found.append("its status is of an earlier spec")
    # What a Job has told goes before what the spec says.
    size = at(status, "discoveredSizeBytes") or parse_quantity(wish.size or str(MODEL_BYTES))
    if at(status, "displaySize") != display_size(size):
        found.append(f"its status has the size {at(status, 'displaySize')}, not {wish.size}")
    found += [
        f"{condition['type']} is of an earlier spec"
        for condition in at(status, "conditions", [])
        if condition["observedGeneration"] != at(artifact, "metadata.generation")
    ]
    if at(artifact, "metadata.finalizers"):
        found.append("it has finalizers")
    noted = "aim.eai.amd.com/retry-state" in annotations_of(artifact)
    if noted is (wish.end[0] == "Ready"):
        found.append(f"it has {'a' if noted else 'no'} note of retries")
    return found


def _reason(status: Object) -> str:
    conditions = at(status, "conditions", [])
    return next((each["reason"] for each in conditions if each["type"] == "Ready"), "")


def reasons_of(status: Object) -> dict[str, str]:
    """What each condition says; nothing where there are none."""
    return reasons({"conditions": at(status, "conditions", [])})
