"""`Cluster`: what tests see of a running cluster, from outside and, where it is ours, inside."""

import fcntl
import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster.network import inside
from tests.cluster.node import import_image
from tests.cluster.programs import program
from tests.cluster.volumes import FOLDERS, SMALL

KUBECTL_S = 180.0
WAIT_S = 120.0
POLL_S = 0.25

Object = Mapping[str, Any]
T = TypeVar("T")


class KubectlError(Exception):
    """What kubectl said when it failed."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster. ``pid`` is a process inside it, None for a cluster that is not ours."""

    kubeconfig: Path
    pid: int | None = None
    node: bool = False

    # -- kubectl -------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, input: str = "") -> str:  # noqa: A002
        """What kubectl prints.

        Raises:
            KubectlError: It failed.
        """
        done = subprocess.run(
            [program("kubectl"), *arguments],
            env={"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)},
            input=input,
            capture_output=True,
            check=False,
            text=True,
            timeout=KUBECTL_S,
        )
        if done.returncode:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def apply(self, *objects: Object | str, namespace: str = "default") -> None:
        """Applies objects, or YAML texts."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in objects]
        self.kubectl("apply", "-n", namespace, "-f", "-", input="\n---\n".join(texts))

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object.

        Raises:
            KubectlError: There is none of that name.
        """
        found: dict[str, Any] = json.loads(
            self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    def listed(self, kind: str, namespace: str = "default", selector: str = "") -> list[Any]:
        """All objects of a kind, or those with these labels."""
        found = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        items: list[Any] = json.loads(found)["items"]
        return items

    # -- what takes time -----------------------------------------------------------------------

    def wait_for(self, look: Callable[[], T], timeout: float = WAIT_S, what: str = "") -> T:
        """Looks again and again until it sees something, and gives that.

        An object that is not there yet is waited for, too.

        Raises:
            TimeoutError: Nothing was seen in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                seen, said = look(), ""
            except KubectlError as error:
                seen, said = None, str(error)
            if seen:
                return seen
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {timeout} s still not: {what or look} {said}")
            time.sleep(POLL_S)

    @contextmanager
    def namespace(self, security: str = "restricted") -> Iterator["Namespace"]:
        """A namespace of a random name, in which pods must keep to a level of pod security."""
        name = f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": security}
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        # What pods are given in any case; they are refused, or wait long, without it.
        self.wait_for(lambda: self.get("serviceaccount", "default", name))
        self.wait_for(lambda: self.get("configmap", "kube-root-ca.crt", name))
        try:
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    # -- only where it is ours -----------------------------------------------------------------

    def network(self) -> AbstractContextManager[None]:
        """In this block the thread, and what it starts, is in the cluster's network.

        So servers that are started there serve pods, at the addresses of `tests.cluster.addresses`.
        """
        return inside(self._inside())

    def files(self, path: str | Path) -> Path:
        """Where a file of the node can be read from here: small volumes are mounted only there."""
        return Path(f"/proc/{self._inside()}/root", *Path(path).parts[1:])

    def import_image(self, archive: Path) -> None:
        """Gives the node the image of a docker-archive; its pods say `imagePullPolicy: Never`.

        All users of a cluster meet here, and the first one does it.
        """
        known = f"{archive} {archive.stat().st_mtime_ns}\n"
        with self.kubeconfig.with_name("images").open("a+", encoding="utf-8") as images:
            fcntl.flock(images, fcntl.LOCK_EX)
            images.seek(0)
            if known not in images.readlines():
                import_image(self._inside(), archive)
                images.write(known)

    def _inside(self) -> int:
        if self.pid is None:
            raise RuntimeError("this cluster is not one of the tests': its inside is out of reach")
        return self.pid


@dataclass(frozen=True)
class Namespace:
    """A namespace of a test, which is deleted with all that is in it."""

    cluster: Cluster
    name: str

    def apply(self, *objects: Object | str) -> None:
        self.cluster.apply(*objects, namespace=self.name)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return self.cluster.get(kind, name, self.name)

    def listed(self, kind: str, selector: str = "") -> list[Any]:
        return self.cluster.listed(kind, self.name, selector)

    def kubectl(self, *arguments: str, input: str = "") -> str:  # noqa: A002
        return self.cluster.kubectl("-n", self.name, *arguments, input=input)

    def claim(
        self,
        name: str,
        size: str = "1Gi",
        *,
        small: bool = False,
        storage: str = "",
        mode: str = "ReadWriteMany",
    ) -> None:
        """Claims a volume: a folder, (small) a file system of just this size, or of a class."""
        spec = {
            "storageClassName": storage or (SMALL if small else FOLDERS),
            "accessModes": [mode],
            "resources": {"requests": {"storage": size}},
        }
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        self.apply({**kind, "metadata": {"name": name}, "spec": spec})

    def volume(self, claim: str) -> Path:
        """Where the files of a claim can be read and changed from here, as soon as it is bound."""
        name = self.cluster.wait_for(
            lambda: self._bound(claim), what=f"the claim {claim} has a volume"
        )
        path: str = self.cluster.get("persistentvolume", name)["spec"]["hostPath"]["path"]
        return self.cluster.files(path)

    def _bound(self, claim: str) -> str:
        found = self.get("persistentvolumeclaim", claim)
        name: str = found["spec"].get("volumeName", "")
        return name if found["status"]["phase"] == "Bound" else ""

    # -- pods ----------------------------------------------------------------------------------

    def logs(self, pod: str, container: str | None = None, *, previous: bool = False) -> str:
        """What a container has printed so far."""
        chosen = ["-c", container] if container else []
        return self.kubectl("logs", pod, *chosen, *(["--previous"] if previous else []))

    def pods_of(self, job: str) -> list[Any]:
        """The pods of a Job, the oldest first."""
        pods = self.listed("pods", f"batch.kubernetes.io/job-name={job}")
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def wait_for_end(self, pod: str, timeout: float = WAIT_S) -> dict[str, Any]:
        """How the first container of a pod ended: exitCode, reason, message."""
        return self.cluster.wait_for(
            lambda: ending(self.get("pod", pod)), timeout, f"the pod {pod} has ended"
        )

    def wait_for_job(self, job: str, timeout: float = WAIT_S) -> str:
        """Complete or Failed."""
        return self.cluster.wait_for(
            lambda: verdict(self.get("job", job)), timeout, f"the Job {job} has ended"
        )


def ending(pod: Object) -> dict[str, Any]:
    """How the first container of a pod ended; empty while it runs."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    found: dict[str, Any] = statuses[0]["state"].get("terminated", {}) if statuses else {}
    return found


def verdict(job: Object) -> str:
    """Complete or Failed; empty while a Job is under way."""
    conditions = job.get("status", {}).get("conditions", [])
    true = {each["type"] for each in conditions if each["status"] == "True"}
    return next((each for each in ("Complete", "Failed") if each in true), "")


def cluster_of(kubeconfig: Path) -> Cluster | None:
    """The cluster of ours that a kubeconfig leads to; None when it is another's, or has ended."""
    try:
        state = json.loads(kubeconfig.with_name("state.json").read_text("utf-8"))
        os.kill(state["pid"], 0)
    except (OSError, ValueError):
        return None
    return Cluster(kubeconfig, state["pid"], state["node"])
