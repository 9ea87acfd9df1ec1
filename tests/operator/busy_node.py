"""A node that is made up, for many pods at once: it hears of them by watches, and has their logs.

Kubernetes' own controllers look after claims and Jobs. The node gives each claim a volume, runs
each pod for a while, and lets it tell its progress in its artifact's status, as ours do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

from operator_shim.access import Access
from operator_shim.objects import (
    API_VERSION,
    LABEL_ARTIFACT,
    LABEL_COMPONENT,
    Object,
    at,
    labels_of,
    name_of,
    uid_of,
)
from tests.cluster.addresses import NODE
from tests.cluster.client import Namespace

GIB = 2**30
_LABEL = "aim-tests/busy-node"
_JSON, _MERGE = "application/json", "application/merge-patch+json"
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_AT_ONCE = 16


class BusyNode:
    """`async with BusyNode(namespace) as node:` looks after the pods of one namespace."""

    def __init__(
        self, space: Namespace, seconds: float = 1.0, steps: int = 2, slots: int = 10_000
    ) -> None:
        """A download takes so many seconds on the average, and tells its progress so many times.

        There is room for so many pods; who has no token for a model named ``gated-…`` fails.
        """
        self._space = space
        self._seconds = seconds
        self._steps = steps
        self.name = f"busy-{space.name}"
        self.began: dict[str, float] = {}
        """When each artifact's download Job was seen first; monotonic, as below."""
        self.ready: dict[str, float] = {}
        """When each artifact was seen to be Ready first."""
        self.made: list[str] = []
        """UIDs of all claims and Jobs."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: set[str] = set()
        self._slots = asyncio.Semaphore(slots)
        self._door = asyncio.Semaphore(_AT_ONCE)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        access = await Access.load(str(self._space.cluster.kubeconfig))
        self._server = access.server
        self._session = await self._stack.enter_async_context(access.session())
        port = await self._stack.enter_async_context(self._answering_for_logs())
        await self._register(port)
        for plural, group, hear in (
            ("persistentvolumeclaims", "api/v1", self._claim),
            ("pods", "api/v1", self._pod),
            ("jobs", "apis/batch/v1", self._job),
            ("aimartifacts", f"apis/{API_VERSION}", self._artifact),
        ):
            self._start(self._watch(f"/{group}/namespaces/{self._space.name}/{plural}", hear))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ask("DELETE", f"/api/v1/nodes/{self.name}")
        await self._ask("DELETE", f"{_CLASSES}/{self.name}")
        volumes = f"/api/v1/persistentvolumes?labelSelector={_LABEL}%3D{self._space.name}"
        await self._ask("DELETE", volumes)
        await self._stack.aclose()

    async def create(self, names: Iterable[str]) -> None:
        """Makes artifacts, as many at once as one client does."""
        spec = {"sourceUri": "hf://org/model", "storageClassName": self.name}
        path = f"/apis/{API_VERSION}/namespaces/{self._space.name}/aimartifacts"
        await asyncio.gather(*(self._ask("POST", path, _artifact(name, spec)) for name in names))

    async def until(self, done: Callable[[], bool], patience: float) -> None:
        """Waits until that is so.

        Raises:
            TimeoutError: it takes too long.
        """
        async with asyncio.timeout(patience):
            while not done():  # noqa: ASYNC110  # many things may bring it about
                await asyncio.sleep(0.05)

    # -- what it hears of ----------------------------------------------------------------------

    async def _claim(self, claim: Object) -> None:
        if self._is_new(claim):
            self.made.append(uid_of(claim))
            await self._ask("POST", "/api/v1/persistentvolumes", self._volume(claim))

    async def _job(self, job: Object) -> None:
        if self._is_new(job):
            self.made.append(uid_of(job))
        if labels_of(job).get(LABEL_COMPONENT) == "download":
            self.began.setdefault(labels_of(job)[LABEL_ARTIFACT], time.monotonic())

    async def _artifact(self, artifact: Object) -> None:
        if at(artifact, "status.status") == "Ready":
            self.ready.setdefault(name_of(artifact), time.monotonic())

    async def _pod(self, pod: Object) -> None:
        if not self._is_new(pod):
            return
        path = f"/api/v1/namespaces/{self._space.name}/pods/{name_of(pod)}"
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name_of(pod)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.name},
        }
        artifact, is_download = _work_of(pod)
        async with self._slots:
            await self._ask("POST", f"{path}/binding", binding)
            if is_download:
                await self._patch(f"{path}/status", {"phase": "Running"})
                if artifact.startswith("gated-"):
                    await self._patch(f"{path}/status", _refused(pod))
                    return
                await self._download(artifact)
            await self._patch(f"{path}/status", {"phase": "Succeeded"})

    async def _download(self, artifact: str) -> None:
        dice = random.Random(artifact)  # the same for the same name
        seconds, size = self._seconds * dice.uniform(0.3, 1.7), size_of(artifact)
        path = f"/apis/{API_VERSION}/namespaces/{self._space.name}/aimartifacts/{artifact}/status"
        for step in range(1, self._steps + 1):
            await asyncio.sleep(seconds / self._steps)
            percentage = 100 * step // self._steps
            progress = {
                "percentage": percentage,
                "displayPercentage": f"{percentage} %",
                "downloadedBytes": size * step // self._steps,
                "totalBytes": size,
                "bytesPerSecond": int(size / seconds),
            }
            await self._patch(path, {"progress": progress})

    # -- the node ------------------------------------------------------------------------------

    async def _register(self, port: int) -> None:
        kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass"}
        provisioner = {"provisioner": "kubernetes.io/no-provisioner"}
        await self._ask("POST", _CLASSES, {**kind, "metadata": {"name": self.name}, **provisioner})
        # No other pods come to it; and those on a node that there is not are taken away.
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name},
            "spec": {"unschedulable": True},
        }
        await self._ask("POST", "/api/v1/nodes", node)
        status = {
            "addresses": [{"type": "InternalIP", "address": NODE}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await self._patch(f"/api/v1/nodes/{self.name}/status", status)

    def _volume(self, claim: Object) -> Object:
        spec = claim["spec"]
        metadata = {"name": f"busy-{uid_of(claim)}", "labels": {_LABEL: self._space.name}}
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": uid_of(claim)}
        reference |= {"namespace": self._space.name, "name": name_of(claim)}
        volume = {
            "capacity": spec["resources"]["requests"],
            "accessModes": spec["accessModes"],
            "storageClassName": self.name,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
            "claimRef": reference,
        }
        kind = {"apiVersion": "v1", "kind": "PersistentVolume"}
        return {**kind, "metadata": metadata, "spec": volume}

    @contextlib.asynccontextmanager
    async def _answering_for_logs(self) -> AsyncIterator[int]:
        """The node's own server, in the cluster's network; its port."""

        async def logs(request: web.Request) -> web.Response:
            artifact = request.match_info["pod"].partition("-check-size-")[0]
            answer = {"url": "hf://org/model", "sizeBytes": size_of(artifact)}
            return web.Response(text=json.dumps(answer) + "\n")

        application = web.Application()
        application.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", logs)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        with self._space.cluster.network():
            door = socket.create_server((NODE, 0))
        try:
            await web.SockSite(runner, door, ssl_context=_certificate()).start()
            yield int(door.getsockname()[1])
        finally:
            await runner.cleanup()

    # -- requests ------------------------------------------------------------------------------

    def _is_new(self, object_: Object) -> bool:
        is_new = uid_of(object_) not in self._known
        self._known.add(uid_of(object_))
        return is_new

    def _start(self, work: Awaitable[None]) -> None:
        async def to_its_end() -> None:
            # What is deleted meanwhile needs nothing any more.
            with contextlib.suppress(aiohttp.ClientResponseError):
                await work

        task = asyncio.create_task(to_its_end())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, path: str, hear: Callable[[Object], Awaitable[None]]) -> None:
        while True:
            query, patience = {"watch": "1"}, aiohttp.ClientTimeout(total=None)
            url = self._server + path
            async with self._session.get(url, params=query, timeout=patience) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._start(hear(event["object"]))

    async def _patch(self, path: str, status: Object) -> None:
        await self._ask("PATCH", path, {"status": status}, _MERGE)

    async def _ask(self, method: str, path: str, body: Any = None, kind: str = _JSON) -> None:
        async with (
            self._door,
            self._session.request(
                method, self._server + path, json=body, headers={"Content-Type": kind}
            ) as answer,
        ):
            await answer.read()
            if answer.status != 404:  # it is deleted meanwhile
                answer.raise_for_status()


def size_of(artifact: str) -> int:
    """How large the model of this artifact is."""
    return random.Random(f"{artifact} size").randint(1, 40) * GIB


def _work_of(pod: Object) -> tuple[str, bool]:
    """For which artifact it is, and whether it downloads."""
    labels = labels_of(pod)
    return labels[LABEL_ARTIFACT], labels.get(LABEL_COMPONENT) == "download"


def _refused(pod: Object) -> Object:
    """The status of a pod of ours that was denied access."""
    said = {"outcome": "failed", "exitCode": 77, "error": "AccessDeniedError"}
    said |= {"message": "the repository is gated"}
    container = {
        "name": at(pod, "spec.containers")[0]["name"],
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": 77, "reason": "Error", "message": json.dumps(said)}},
    }
    return {"phase": "Failed", "containerStatuses": [container]}


def _artifact(name: str, spec: Object) -> Object:
    kind = {"apiVersion": API_VERSION, "kind": "AIMArtifact"}
    return {**kind, "metadata": {"name": name}, "spec": spec}


def _certificate() -> ssl.SSLContext:
    """Nobody proves it: the API server is not told whom to trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "certificate")
        files = ("-keyout", key, "-out", certificate)
        words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=node")
        subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
        context.load_cert_chain(certificate, key)
    return context
