"""Volumes for claims: folders of this machine, or small file systems that really fill up.

StorageClass `tests` gives a folder; `tests-small` an ext4 of just the size that is asked for.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.enclosure import Enclosure

FOLDERS = "tests"
SMALL = "tests-small"
_PROVISIONER = "aim.test/volumes"
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
        for name in (FOLDERS, SMALL):
            self._ask("/apis/storage.k8s.io/v1/storageclasses", storage_class(name))
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
        names = {volume["metadata"]["name"] for volume in volumes}
        for claim in unserved(claims):
            name = f"pvc-{claim['metadata']['uid']}"
            if name not in names:
                self._make(name, claim)
        for volume in volumes:
            if volume.get("status", {}).get("phase") == "Released":
                self._remove(volume["metadata"]["name"])

    def _make(self, name: str, claim: Object) -> None:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        if claim["spec"]["storageClassName"] == SMALL:
            image = path.with_suffix(".ext4")
            with image.open("wb") as opened:
                opened.truncate(size_of(claim))
            self._enclosure.run("mkfs.ext4", "-q", "-F", "-m", "0", image)
            self._enclosure.run("mount", "-o", "loop", image, path)
        # fsGroup means nothing to a hostPath: everybody may write.
        self._enclosure.run("chmod", "0777", path)
        self._ask("/api/v1/persistentvolumes", volume_for(name, claim, path))

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


def unserved(claims: list[Object]) -> Iterator[Object]:
    """The claims that wait for a volume of ours."""
    for claim in claims:
        of_ours = claim["spec"].get("storageClassName") in {FOLDERS, SMALL}
        if of_ours and claim.get("status", {}).get("phase") == "Pending":
            yield claim


def size_of(claim: Object) -> int:
    """The bytes that a claim asks for."""
    text: str = claim["spec"]["resources"]["requests"]["storage"]
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def storage_class(name: str) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": _PROVISIONER,
        "reclaimPolicy": "Delete",
    }


def volume_for(name: str, claim: Object, path: Path) -> Object:
    """The volume that belongs to a claim and to no other."""
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
        },
        "spec": {
            "storageClassName": claim["spec"]["storageClassName"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }
