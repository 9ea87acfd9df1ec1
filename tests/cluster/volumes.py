"""Volumes for claims: folders of this machine, or small file systems that really fill up.

What a volume is like is said by the parameters of its StorageClass, of which tests may make more.
Where a claim comes to ask for more than its volume has, that grows as soon as nobody uses it.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.enclosure import Enclosure

FOLDERS = "tests"
"""A folder of this machine, which is as large as the machine's disk."""
SMALL = "tests-small"
"""An ext4 of just the size that is asked for, which grows when more is asked for."""
FIXED = "tests-fixed"
"""The same, but it never grows."""
ONE_NODE = "tests-one-node"
"""A folder that one node may use; who wants it for many is refused, as block storage does it."""
WAITING = "tests-waiting"
"""As clouds have it: made for one node once a pod is to run there, for no other one; it grows."""

_CLASSES: Mapping[str, Mapping[str, str]] = {
    FOLDERS: {},
    SMALL: {"fileSystem": "ext4"},
    FIXED: {"fileSystem": "ext4"},
    ONE_NODE: {"accessModes": "ReadWriteOnce"},
    WAITING: {"fileSystem": "ext4", "accessModes": "ReadWriteOnce"},
}
_GROWING = (SMALL, WAITING)
_WAITING = (WAITING,)
_PROVISIONER = "aim.test/volumes"
_STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_HOST = "kubernetes.io/hostname"
_FIRST_POD = "WaitForFirstConsumer"
_SELECTED = "volume.kubernetes.io/selected-node"
_POLL_S = 0.3
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}

Object = Mapping[str, Any]


class Provisioner:
    """`with Provisioner(enclosure, control_plane):`; it looks again and again, in a thread."""

    def __init__(self, enclosure: Enclosure, control_plane: ControlPlane) -> None:
        self._enclosure = enclosure
        self._ask = control_plane.ask
        self._folder = enclosure.folder / "volumes"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._folder.mkdir()
        for name, parameters in _CLASSES.items():
            made = storage_class(name, parameters, grows=name in _GROWING, waits=name in _WAITING)
            self._ask(_STORAGE_CLASSES, made)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        log = self._enclosure.log("volumes")
        while not self._end.wait(_POLL_S):
            try:
                self._look()
            except (OSError, RuntimeError, ValueError) as error:
                with log.open("a", encoding="utf-8") as opened:
                    opened.write(f"{error}\n")

    def _look(self) -> None:
        claims = self._items("/api/v1/persistentvolumeclaims")
        volumes = self._items("/api/v1/persistentvolumes")
        classes = {each["metadata"]["name"]: each for each in self._items(_STORAGE_CLASSES)}
        there = {volume["metadata"]["name"]: volume for volume in volumes}
        for claim, storage in unserved(claims, classes):
            if volume_name(claim) not in there:
                self._serve(claim, storage.get("parameters") or {})
        for claim in outgrown(claims):
            if volume := there.get(volume_name(claim)):
                self._grow(claim, volume)
        for volume in volumes:
            if volume.get("status", {}).get("phase") == "Released":
                self._remove(volume["metadata"]["name"])

    def _serve(self, claim: Object, parameters: Mapping[str, str]) -> None:
        offered = parameters.get("accessModes", "")
        if offered and set(claim["spec"]["accessModes"]) - set(offered.split(",")):
            self._refuse(claim, f"this class offers {offered} alone")
        else:
            self._make(claim, real="fileSystem" in parameters)

    def _make(self, claim: Object, *, real: bool) -> None:
        name = volume_name(claim)
        path = self._folder / name
        path.mkdir(exist_ok=True)
        if real:
            image = path.with_suffix(".ext4")
            with image.open("wb") as opened:
                opened.truncate(size_of(claim))
            self._enclosure.run("mkfs.ext4", "-q", "-F", "-m", "0", image)
            self._enclosure.run("mount", "-o", "loop", image, path)
        # fsGroup means nothing to a hostPath: everybody may write.
        self._enclosure.run("chmod", "0777", path)
        self._ask("/api/v1/persistentvolumes", volume_for(name, claim, path))

    def _refuse(self, claim: Object, why: str) -> None:
        # Of this name there is one already when the claim is looked at again.
        events = f"/api/v1/namespaces/{claim['metadata']['namespace']}/events"
        self._ask(events, refusal_of(claim, why))

    def _grow(self, claim: Object, volume: Object) -> None:
        """As an external resizer: the file system first, what is said of it afterwards."""
        path = Path(volume["spec"]["hostPath"]["path"])
        image = path.with_suffix(".ext4")
        if image.exists():
            # Not in use: in many containers the kernel forbids that even to root.
            try:
                self._enclosure.run("umount", path)
            except RuntimeError:
                return  # a pod has it
            try:
                with image.open("ab") as opened:
                    opened.truncate(size_of(claim))
                self._enclosure.run("e2fsck", "-f", "-p", image)
                self._enclosure.run("resize2fs", image)
            finally:
                self._enclosure.run("mount", "-o", "loop", image, path)
        name, capacity = volume["metadata"]["name"], asked_of(claim)
        grown = {**volume, "spec": {**volume["spec"], "capacity": capacity}}
        if self._ask(f"/api/v1/persistentvolumes/{name}", grown, "PUT") is None:
            return  # somebody else has changed it meanwhile
        metadata = claim["metadata"]
        where = f"{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"
        told = {**claim, "status": {**claim["status"], "capacity": capacity}}
        self._ask(f"/api/v1/namespaces/{where}/status", told, "PUT")

    def _remove(self, name: str) -> None:
        self._ask(f"/api/v1/persistentvolumes/{name}", method="DELETE")
        path = self._folder / name
        image = path.with_suffix(".ext4")
        if image.exists():
            self._enclosure.run("umount", path)
            image.unlink()
        shutil.rmtree(path, ignore_errors=True)

    def _items(self, path: str) -> list[Object]:
        items: list[Object] = (self._ask(path) or {}).get("items", [])
        return items


def unserved(
    claims: list[Object], classes: Mapping[str, Object]
) -> Iterator[tuple[Object, Object]]:
    """The claims that wait for a volume of ours, each with its class."""
    for claim in claims:
        storage = classes.get(claim["spec"].get("storageClassName", ""), {})
        of_ours = storage.get("provisioner") == _PROVISIONER
        too_early = storage.get("volumeBindingMode") == _FIRST_POD and not node_of(claim)
        if of_ours and not too_early and claim.get("status", {}).get("phase") == "Pending":
            yield claim, storage


def outgrown(claims: list[Object]) -> Iterator[Object]:
    """The claims that ask for more than they have; Kubernetes lets only those whose class grows."""
    for claim in claims:
        status = claim.get("status", {})
        if status.get("phase") == "Bound" and status.get("capacity") != asked_of(claim):
            yield claim


def node_of(claim: Object) -> str:
    """The node that the scheduler has chosen for the first pod; empty before, or without need."""
    chosen: str = claim["metadata"].get("annotations", {}).get(_SELECTED, "")
    return chosen


def volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def asked_of(claim: Object) -> Object:
    requests: Object = claim["spec"]["resources"]["requests"]
    return requests


def size_of(claim: Object) -> int:
    """The bytes that a claim asks for."""
    text: str = asked_of(claim)["storage"]
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def storage_class(
    name: str,
    parameters: Mapping[str, str] | None = None,
    *,
    grows: bool = False,
    waits: bool = False,
    only_on: str = "",
) -> Object:
    """A class of ours; one that waits makes a volume where the first pod is to run.

    Its volumes may be on one node alone, be there one of that name or not.
    """
    there = {"key": _HOST, "values": [only_on]}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": _PROVISIONER,
        "parameters": dict(parameters or {}),
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": grows,
        "volumeBindingMode": _FIRST_POD if waits else "Immediate",
        **({"allowedTopologies": [{"matchLabelExpressions": [there]}]} if only_on else {}),
    }


def refusal_of(claim: Object, why: str) -> Object:
    """The event by which a provisioner says no."""
    metadata, now = claim["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = claim["spec"]["storageClassName"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"refused-{metadata['uid']}"},
        "type": "Warning",
        "reason": "ProvisioningFailed",
        "message": f'failed to provision volume with StorageClass "{name}": {why}',
        "source": {"component": _PROVISIONER},
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }


def volume_for(name: str, claim: Object, path: Path) -> Object:
    """The volume that belongs to a claim and to no other."""
    metadata = claim["metadata"]
    node = node_of(claim)
    only = [{"key": _HOST, "operator": "In", "values": [node]}]
    where = {"required": {"nodeSelectorTerms": [{"matchExpressions": only}]}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
        },
        "spec": {
            "storageClassName": claim["spec"]["storageClassName"],
            "capacity": asked_of(claim),
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(path), "type": "Directory"},
            **({"nodeAffinity": where} if node else {}),
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }
