"""Why a pod does not start: it may not be made, or lacks a node, image, Secret, volume. Pure.

The cluster goes on trying by itself, so none of it counts as an attempt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from operator_shim.failures import Outcome
from operator_shim.objects import (
    ANNOTATION_RESOURCES,
    Object,
    at,
    condition_of,
    has_condition,
    seen_at,
)
from operator_shim.retrying import Failure

# Every pod passes through these; only its events say what is wrong in them.
_STARTING = ("", "ContainerCreating", "PodInitializing")
# Only events say which Secrets for it are missing, and, in the latter, why it fails.
_PULL = ("ErrImagePull", "ImagePullBackOff")
_IMAGE = (
    *(*_PULL, "InvalidImageName", "ErrImageNeverPull"),
    *("RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed"),
)
_DENIED = re.compile(
    r"unauthorized|authentication|authorization|denied|forbidden|no basic auth|\b40[13]\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"not found|manifest unknown|name unknown|does not exist|\b404\b", re.IGNORECASE
)
_NO_SECRETS = re.compile(r"pull secrets \(([^)]+)\)")
_ONLY_WHAT = re.compile(r"Error: \w+")
_MISSING = re.compile(
    r"(?P<kind>secret|configmap)s? \"(?P<name>[^\"]+)\" not found"
    r"|(?:couldn't find|non-existent (?:secret|config)) key:? (?P<key>\S+)"
    r"(?: in (?P<of>Secret|ConfigMap) (?:[^\s/]+/)?(?P<its>\S+))?",
    re.IGNORECASE,
)
_ELSEWHERE = (
    "the volume can only be had on other nodes: see why those are not free; if they are gone for"
    " good, delete the claim (`kubectl delete pvc`), and the model comes anew on another volume"
)
_NO_VOLUME = (
    "no node can have a volume of its class: see what the class asks of nodes, and what is free"
)
_UNBOUND = (
    "see why the claim does not bind (`kubectl describe pvc`): its storage class, and whether that"
    " can do the access mode"
)
# What to do about the scheduler's words, the first of them that fits.
_NO_NODE = {
    "readwriteoncepod": "another pod has the volume: it is free once that has ended",
    "persistentvolumeclaim": _UNBOUND,
    "binding volumes": _UNBOUND,
    "volume node affinity": _ELSEWHERE,
    "persistentvolume's node affinity": _ELSEWHERE,
    "available volume zone": _ELSEWHERE,
    "available persistent volumes": _NO_VOLUME,
    "enough free storage": _NO_VOLUME,
    "insufficient": "free some room, add a node, or ask for less with spec.resources",
    "scheduling gate": "something holds it back, as a queue does until there is quota: look there",
    "taint": "add a node without one, or let the operator's option --pod tolerate it",
}
_ACCOUNT = "the operator makes it again, and the pods follow; see who takes it away"
_VOLUME = {
    "serviceaccount": _ACCOUNT,
    "multi-attach": "another node has the volume: wait for its pod, or use ReadWriteMany",
    "permission denied": "see whom the storage lets mount it",
}
_NO_ROOM = "exceeded quota"
# What to do about who does not let a Job have pods, the first words that fit.
_NOT_MADE = {
    _NO_ROOM: "free some of the namespace's quota (`kubectl describe quota`), or raise it",
    "violates podsecurity": "let the namespace have pods of the level `restricted`: they meet it",
    "admission webhook": "see what that webhook asks for",
    "validatingadmissionpolicy": "see what that policy asks for",
    "serviceaccount": _ACCOUNT,
}
_LIMITS = re.compile(
    r"(minimum|maximum|ratio) .*(usage|ratio|per)|must specify|must be less than or equal",
    re.IGNORECASE,
)
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
            return _without_secrets(_no_image(wait, _told_by("Failed", failed)), failed)
        if wait.reason not in _STARTING:
            return _no_container(wait)
    return _by_events(failed)


def not_made(events: Sequence[Object], since: str, prefix: str) -> Outcome | None:
    """Why a Job gets no pods, by the events about it; None if it may yet get one.

    Args:
        events: those about the Job.
        since: when the last of its pods was made.
        prefix: what the names of its pods begin with.
    """
    about = [each for each in events if each.get("reason") in ("FailedCreate", "SuccessfulCreate")]
    newest = max(about, key=seen_at, default=None)
    if newest is None or newest["reason"] != "FailedCreate" or seen_at(newest) < since:
        return None
    # Each try has another name.
    said = re.sub(rf"{re.escape(prefix)}-[a-z0-9-]*", f"{prefix}-…", newest.get("message") or "")
    hint = what_refuses(said)
    if not hint and _LIMITS.search(said):
        hint = f"ask for what the namespace allows, with the annotation {ANNOTATION_RESOURCES}"
    said, hint = f"its pods cannot be made: {said}", hint or "see what refuses the pods"
    if _NO_ROOM in said.lower():
        return _waiting("FailedCreate", said, hint)
    return _stuck("FailedCreate", said, hint, "InfrastructureError")


def what_refuses(said: str) -> str:
    """What to do about who does not let something be made; empty where that is not known."""
    return _fitting(_NOT_MADE, said)


def needs_events(pod: Object) -> bool:
    """Whether only the pod's events can say why it does not start."""
    return (
        at(pod, "status.phase", "Pending") == "Pending"
        and has_condition(pod, "PodScheduled")
        and all(wait.reason in (*_STARTING, *_PULL) for wait in _waits(pod))
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
    for event in sorted(events, key=seen_at, reverse=True):
        about = event.get("involvedObject") or event.get("regarding") or {}
        if event.get("type") == "Warning" and about.get("uid") in (None, at(pod, "metadata.uid")):
            yield event.get("reason") or "", event.get("message") or event.get("note") or ""


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


def _no_image(wait: _Wait, events: Sequence[str]) -> Outcome:
    said = wait.message or wait.reason
    if wait.reason == "ImagePullBackOff":
        said = _with_news(said, events)
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


def _without_secrets(outcome: Outcome, failed: Sequence[tuple[str, str]]) -> Outcome:
    """The outcome, with the Secrets for the registry that are not there: they may be why."""
    named = _NO_SECRETS.search(next(iter(_told_by("FailedToRetrieveImagePullSecret", failed)), ""))
    if named is None:
        return outcome
    said = f"there is no Secret {named[1]!r}, which spec.imagePullSecrets names"
    hint = f"create it in this namespace, or correct that; {outcome.hint}"
    return replace(outcome, message=f"{said}: {outcome.message}", hint=hint)


def _told_by(reason: str, failed: Sequence[tuple[str, str]]) -> list[str]:
    return [message for each, message in failed if each == reason]


def _with_news(said: str, events: Sequence[str]) -> str:
    """What is said, and by which event that says more: most say the same again, or only what."""
    known = said.lower()
    news = (each for each in events if each and not _is_told(each, known))
    return ": ".join(filter(None, (said, next(news, ""))))


def _is_told(event: str, known: str) -> bool:
    # `Failed to pull image "x": ` and the error, which may be known.
    error = event.partition('": ')[2] or event
    return _ONLY_WHAT.fullmatch(event) is not None or error.lower() in known


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
