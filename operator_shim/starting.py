"""Why a pod does not start: no node, no image, no Secret, no volume. Pure.

The cluster goes on trying by itself, so none of it counts as an attempt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from operator_shim.failures import Outcome
from operator_shim.objects import Object, at, condition_of, has_condition
from operator_shim.retrying import Failure

# Every pod passes through these; only its events say what is wrong in them.
_STARTING = ("", "ContainerCreating", "PodInitializing")
_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"),
)
_DENIED = re.compile(
    r"unauthorized|authentication|authorization|denied|forbidden|no basic auth|\b40[13]\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|\b404\b", re.IGNORECASE
)
_MISSING = re.compile(
    r"(?P<kind>secret|configmap)s? \"(?P<name>[^\"]+)\" not found"
    r"|(?:couldn't find|non-existent (?:secret|config)) key:? (?P<key>\S+)"
    r"(?: in (?P<of>Secret|ConfigMap) (?:[^\s/]+/)?(?P<its>\S+))?",
    re.IGNORECASE,
)
# What to do about the scheduler's words, the first of them that fits.
_NO_NODE = {
    "persistentvolumeclaim": "see why the claim does not bind (`kubectl describe pvc`): its storage"
    " class, and whether that can do the access mode",
    "volume node affinity": "the volume can only be had on other nodes: see why those are not free",
    "insufficient": "free some room, add a node, or ask for less with the resources of the Job",
    "scheduling gate": "something holds it back, as a queue does until there is quota: look there",
    "taint": "the pods tolerate no taints: add a node without one",
}
_VOLUME = {
    "multi-attach": "another node has the volume: wait for its pod, or use ReadWriteMany",
    "permission denied": "see whom the storage lets mount it",
}
_OF_EVENT = {
    "FailedMount": "see that the storage can be reached from the node",
    "FailedAttachVolume": "see that the storage can be reached from the node",
    "FailedCreatePodSandBox": "look at the node: its network plugin and container runtime",
}


class _Wait(NamedTuple):
    reason: str
    message: str
    image: str


def held_up(pod: Object, events: Sequence[Object]) -> Outcome | None:
    """What a pod waits for in vain; None if it is on its way."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        return _unscheduled(scheduled.get("message") or "the pod has no node yet")
    failed = list(_failed(pod, events))
    for wait in _waits(pod):
        if wait.reason in _IMAGE:
            return _no_image(wait, " ".join(m for reason, m in failed if reason == "Failed"))
        if wait.reason not in _STARTING:
            return _no_container(wait)
    return _by_events(failed)


def needs_events(pod: Object) -> bool:
    """Whether only the pod's events can say why it does not start."""
    return (
        at(pod, "status.phase", "Pending") == "Pending"
        and has_condition(pod, "PodScheduled")
        and all(wait.reason in (*_STARTING, "ImagePullBackOff") for wait in _waits(pod))
    )


def _waits(pod: Object) -> Iterator[_Wait]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in at(pod, f"status.{kind}", []):
            waiting = at(container, "state.waiting")
            if waiting is not None:
                reason, message = waiting.get("reason") or "", waiting.get("message") or ""
                yield _Wait(reason, message, container.get("image") or "")


def _failed(pod: Object, events: Sequence[Object]) -> Iterator[tuple[str, str]]:
    """Reason and message of the warnings about the pod, the newest first."""
    for event in sorted(events, key=_time, reverse=True):
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") == "Warning" and about.get("uid") in (None, at(pod, "metadata.uid")):
            yield event.get("reason") or "", event.get("message") or event.get("note") or ""


def _time(event: Object) -> str:
    seen = (at(event, "series.lastObservedTime"), event.get("lastTimestamp"))
    return next(filter(None, (*seen, event.get("eventTime"))), "")


def _waiting(reason: str, message: str, hint: str) -> Outcome:
    return Outcome(
        reason,
        message,
        hint,
        failure=Failure.INFRASTRUCTURE,
        status="Pending",
        overall="Progressing",
    )


def _stuck(reason: str, message: str, hint: str, overall: str) -> Outcome:
    status = "Degraded" if overall == "InfrastructureError" else "Failed"
    failure = Failure.INFRASTRUCTURE
    return Outcome(reason, message, hint, failure=failure, status=status, overall=overall)


def _unscheduled(said: str) -> Outcome:
    hint = _fitting(_NO_NODE, said) or "see what the scheduler says of the nodes"
    return _waiting("FailedScheduling", said, hint)


def _no_image(wait: _Wait, events: str) -> Outcome:
    said = wait.message or wait.reason
    if events and wait.reason == "ImagePullBackOff":
        said = f"{said}: {events}"
    # An image may be called anything.
    words = said.replace(wait.image, "") if wait.image else said
    if wait.reason == "InvalidImageName":
        hint = "correct spec.modelDownloadImage"
        return _stuck("ImageNotFound", said, hint, "InvalidSpec")
    if _DENIED.search(words):
        hint = "name a Secret with the registry's password in spec.imagePullSecrets"
        return _stuck("ImagePullAuthFailure", said, hint, "AuthError")
    if _ABSENT.search(words) or wait.reason == "ErrImageNeverPull":
        hint = "correct spec.modelDownloadImage, or push that image"
        return _stuck("ImageNotFound", said, hint, "ReferenceNotFound")
    hint = "see that the node reaches the registry; it is pulled again by itself"
    return _stuck("ImagePullBackOff", said, hint, "InfrastructureError")


def _no_container(wait: _Wait) -> Outcome:
    said = wait.message or wait.reason
    missing = _missing(said)
    if missing:
        hint = "create it in this namespace, or correct spec.env; the pod starts by itself then"
        return _stuck(wait.reason, f"{missing}: {said}", hint, "ReferenceNotFound")
    if wait.reason == "CreateContainerConfigError":
        hint = "correct spec.env, or the image in spec.modelDownloadImage"
        return _stuck(wait.reason, said, hint, "InvalidSpec")
    hint = "look at the node with `kubectl describe pod`"
    return _stuck(wait.reason, said, hint, "InfrastructureError")


def _missing(said: str) -> str:
    """The Secret or ConfigMap, or the key of one, that the kubelet names as not there."""
    found = _MISSING.search(said)
    if found is None:
        return ""
    if found["kind"]:
        kind = {"secret": "Secret", "configmap": "ConfigMap"}[found["kind"].lower()]
        return f"{kind} {found['name']!r} does not exist"
    whose = f"{found['of']} {found['its']!r}" if found["of"] else "the Secret or ConfigMap"
    return f"{whose} has no key {found['key']!r}"


def _by_events(failed: Sequence[tuple[str, str]]) -> Outcome | None:
    for reason, message in failed:
        if reason in _OF_EVENT:
            missing = _missing(message)
            said = f"{missing}: {message}" if missing else message
            return _waiting(reason, said, _fitting(_VOLUME, message) or _OF_EVENT[reason])
    return None


def _fitting(hints: dict[str, str], said: str) -> str:
    return next((hint for word, hint in hints.items() if word in said.lower()), "")
