"""Tells an AIMArtifact how far its download is: patches of its status, from a thread of their own.

Nothing here may fail or delay a download: who cannot be told is named once, in one line.
"""

from __future__ import annotations

import re
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aim_downloader.config import Config
from aim_downloader.errors import DownloadCancelledError
from aim_downloader.events import Event, RunCancelled
from aim_downloader.http_client.cluster import SERVICE_ACCOUNT, ApiServer, ApiServerError
from aim_downloader.reporters.artifact_status import (
    ArtifactStatus,
    Fields,
    Place,
    merge_patch,
    pruned,
    without,
)

# Less than a run has from a signal to its end: one that is complete still ends as such.
_LAST_WORD = 1.3
_LAST_WORD_OF_CANCELLED = 0.5
_SOON = 0.2
# A role binding, or the artifact itself, may come after the pod.
_SECOND_LOOK = 60.0
_CONFLICTS = 3
# After other answers below 500, but those of a second look, nothing would be granted either.
_PASSING = {401, 408, 409, 425, 429}
_GRANTED_LATER = {403, 404}
_WHY = {403: "no permission to patch the status of", 404: "it knows no"}
_KINDS = {"aimartifacts": "AIMArtifact", "aimmodelcaches": "AIMModelCache"}
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
# Of an object only the whole name is limited, not what stands between two dots.
_PART = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_PART}(?:\.{_PART})*")


@dataclass(frozen=True, slots=True)
class Artifact:
    """The AIMArtifact that a download is for, or the AIMModelCache: what it was called before."""

    namespace: str
    name: str
    resource: str = "aimartifacts"

    @property
    def status_path(self) -> str:
        """Where the API server has its status."""
        place = f"/apis/aim.eai.amd.com/v1alpha1/namespaces/{self.namespace}/{self.resource}"
        return f"{place}/{self.name}/status"

    def __str__(self) -> str:
        return f"{_KINDS[self.resource]} {self.namespace}/{self.name}"


def kubernetes_reporter(
    environ: Mapping[str, str],
    config: Config,
    tell: Callable[[str], None],
    folder: Path = SERVICE_ACCOUNT,
    second_look: float = _SECOND_LOOK,
) -> KubernetesReporter | None:
    """The reporter for the AIMArtifact that the environment names; None where none can be told.

    Of several shards the first one tells, of the whole model. ``tell`` gets a line for people, also
    from another thread. ``folder`` has the pod's token. After so many seconds it is looked again
    whether what was refused is granted by now.
    """
    if config.shard is not None and config.shard.index:
        return None
    namespace, name = environ.get("ARTIFACT_NAMESPACE", ""), environ.get("ARTIFACT_NAME", "")
    if not name:
        return None
    server = ApiServer.of_pod(environ, folder)
    if not (namespace and server):
        tell(f"No progress is told to Kubernetes: {_lack(environ, folder)}")
        return None
    if not (_NAMESPACE.fullmatch(namespace) and _NAME.fullmatch(name)):
        shown = f"{namespace[:63]!r} and {name[:63]!r}"
        tell(f"No progress is told to Kubernetes: {shown} are no names of a namespace and object")
        return None
    resource = environ.get("ARTIFACT_RESOURCE") or "aimartifacts"
    if resource not in _KINDS:
        tell(
            f"No progress is told to Kubernetes: ARTIFACT_RESOURCE {resource[:63]!r} is none of"
            f" {', '.join(_KINDS)}"
        )
        return None
    status = ArtifactStatus(tuple(config.protocols))
    artifact = Artifact(namespace, name, resource)
    interval = config.progress_interval
    return KubernetesReporter(server, artifact, status, interval, tell, second_look)


def _lack(environ: Mapping[str, str], folder: Path) -> str:
    """What a container lacks that has the name of an artifact, but nobody to tell."""
    if not environ.get("ARTIFACT_NAMESPACE"):
        return "ARTIFACT_NAME is set, and ARTIFACT_NAMESPACE is not"
    if environ.get("KUBERNETES_SERVICE_HOST") and environ.get("KUBERNETES_SERVICE_PORT"):
        return (
            f"ARTIFACT_NAME is set, and there is no token in {folder}; "
            "does the pod say automountServiceAccountToken: false?"
        )
    return "ARTIFACT_NAME is set, and this is no pod: KUBERNETES_SERVICE_HOST or _PORT is not set"


class KubernetesReporter:
    """Patches the status of ``artifact``: at once, every ``interval`` seconds, and at the end.

    ``status`` is where it begins. ``tell`` gets a line for people, from another thread. What was
    refused is asked for again after ``second_look`` seconds.
    """

    def __init__(
        self,
        server: ApiServer,
        artifact: Artifact,
        status: ArtifactStatus,
        interval: float,
        tell: Callable[[str], None],
        second_look: float = _SECOND_LOOK,
    ) -> None:
        self._status = status
        self._interval = interval
        self._tell = tell
        self._sender = _Sender(server, artifact, self._say, second_look)
        self._patience = _LAST_WORD
        self._deadline = 0.0
        self._leaving = threading.Event()
        self._left = False
        # A daemon: the program does not wait for an API server that hangs.
        self._thread = threading.Thread(target=self._run, name="aim-kubernetes", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Let the last state be sent: soon, or not at all."""
        if any(isinstance(one, CancelledError | DownloadCancelledError) for one in error):
            self._patience = _LAST_WORD_OF_CANCELLED
        self._deadline = time.monotonic() + self._patience
        self._leaving.set()
        self._thread.join(self._patience)
        self._left = True

    def __call__(self, event: Event, /) -> None:
        """Take note of the event; the thread sends what has come of it."""
        self._status = self._status.after(event)
        self._patience = _LAST_WORD_OF_CANCELLED if isinstance(event, RunCancelled) else _LAST_WORD

    def _run(self) -> None:
        """Send until the last state is sent, nobody waits for it any more, or it is of no use."""
        due = allowed = 0.0
        while not self._left:
            last = self._leaving.wait(min(max(0.0, due - time.monotonic()), threading.TIMEOUT_MAX))
            if last:
                if allowed > self._deadline:
                    return
                time.sleep(max(0.0, allowed - time.monotonic()))
            rest = self._sender.send(self._status.as_fields())
            refused = self._sender.refused
            if rest is None or (last and (refused or not rest)):
                return
            now = time.monotonic()
            # The last word is a look, too: what was refused may have been granted meanwhile.
            allowed, due = now + (0.0 if refused else rest), now + max(self._interval, rest)

    def _say(self, line: str) -> None:
        # A program that ends must not find this thread inside of its standard error.
        if not self._left:
            self._tell(line)


class _Sender:
    """What the artifact is known to say, and whether it can be told more."""

    def __init__(
        self,
        server: ApiServer,
        artifact: Artifact,
        tell: Callable[[str], None],
        second_look: float,
    ) -> None:
        self._server = server
        self._artifact = artifact
        self._tell = tell
        self._second_look = second_look
        self._known: Fields | None = None
        self._pruned: set[Place] = set()
        self._in_trouble = False
        self.refused = False

    def send(self, wanted: Fields) -> float | None:
        """Make the artifact say what is wanted.

        Returns:
            Seconds until it may be tried again: 0 when it worked, None when it never will.
        """
        patch = merge_patch(self._known, without(wanted, self._pruned))
        try:
            if patch:
                self._take_note(patch, self._patched(patch))
        except ApiServerError as error:
            if error.status is None or error.status >= 500 or error.status in _PASSING:
                return self._later(error)
            self._refuse(error)
            return self._second_look if error.status in _GRANTED_LATER else None
        return 0.0

    def _patched(self, patch: Fields) -> Fields:
        """What the artifact is after the patch; somebody else may write at the same moment."""
        tries = 0
        while True:
            try:
                return self._server.merge_patch(self._artifact.status_path, {"status": patch})
            except ApiServerError as error:
                tries += 1
                if error.status != 409 or tries == _CONFLICTS:
                    raise

    def _take_note(self, patch: Fields, artifact: Fields) -> None:
        status = artifact.get("status")
        self._known = status if isinstance(status, dict) else None
        if self._known is not None:
            self._pruned |= pruned(patch, self._known)
        if self._in_trouble:
            self._tell("Kubernetes is told of the progress again")
        self._in_trouble = self.refused = False

    def _later(self, error: ApiServerError) -> float:
        if not self._in_trouble:
            self._tell(f"Kubernetes cannot be told of the progress for now: {error}")
        self._in_trouble = True
        return max(_SOON, error.retry_after or 0.0)

    def _refuse(self, error: ApiServerError) -> None:
        if not self.refused:
            why = _WHY.get(error.status or 0, "it wants no patch of")
            self._tell(f"Kubernetes is not told of the progress: {error}, {why} {self._artifact}")
        self._in_trouble = self.refused = True
        # The next one may be another of its name.
        self._known = None
