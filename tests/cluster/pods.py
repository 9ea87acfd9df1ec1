"""A Job with our image that brings a model onto a volume, and what can be seen of it."""

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.client import Namespace
from tests.cluster.manifests import container, job, pod_spec
from tests.hub import HubServer
from tests.images.build import NAME

IMAGE = NAME
MIB = 1024 * 1024
WEIGHTS = random.Random(6).randbytes(24 * MIB)
MODEL: Mapping[str, bytes | Path] = {
    "model.safetensors": WEIGHTS,
    "deep/other.bin": WEIGHTS[: 3 * MIB + 123],
    "config.json": b'{"model_type": "llama"}',
    "empty.txt": b"",
}
SIZE = sum(len(data) for data in MODEL.values() if isinstance(data, bytes))
URI = "hf://org/model"
JOB_S = 180.0

# To try again cannot help: settings, no such model, a full volume, no access.
FINAL = {
    "rules": [
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "main", "operator": "In", "values": [2, 66, 73, 77]},
        }
    ]
}


@dataclass(frozen=True)
class Bringing:
    """A Job that brings the model, and what can be seen of it."""

    namespace: Namespace
    name: str = "bring"
    claim: str = "model"
    more: Mapping[str, Any] = field(default_factory=dict)

    def begin(
        self, hub: HubServer | None, environment: Mapping[str, str] | None = None, **spec: object
    ) -> None:
        endpoint = {"HF_ENDPOINT": hub.endpoint} if hub else {}
        main = container(
            IMAGE,
            arguments=[URI],
            environment=endpoint | {"PROGRESS_INTERVAL": "0.2"} | dict(environment or {}),
            mounts={self.claim: "/cache"},
        )
        settings = {"backoffLimit": 2, "podFailurePolicy": FINAL} | dict(self.more)
        made = pod_spec(main, claims=[self.claim], **spec)
        self.namespace.apply(job(self.name, made, **settings))

    def verdict(self) -> str:
        found = self.namespace.wait_for_job(self.name, JOB_S)
        if found == "Failed":
            print(self.log())  # pytest shows it when the test fails
        return found

    def last_pod(self) -> str:
        pods = self.namespace.cluster.wait_for(lambda: self.namespace.pods_of(self.name))
        name: str = pods[-1]["metadata"]["name"]
        return name

    def ending(self) -> dict[str, Any]:
        return self.namespace.wait_for_end(self.last_pod())

    def message(self) -> dict[str, Any]:
        """The termination message of the last pod."""
        found: dict[str, Any] = json.loads(self.ending()["message"])
        return found

    def log(self) -> str:
        return self.namespace.logs(self.last_pod())

    def folder(self) -> Path:
        return self.namespace.volume(self.claim)


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each file of the model that is there."""
    return {
        path: hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in MODEL
        if (folder / path).exists()
    }


WANTED = {path: hashlib.sha256(bytes(data)).hexdigest() for path, data in MODEL.items()}


def assert_model_is_there(folder: Path) -> None:
    assert hashes(folder) == WANTED
    # A published folder bears a receipt for others, and nothing else of ours.
    assert [path.name for path in (folder / ".aim-downloader").iterdir()] == ["SHA256SUMS"]
