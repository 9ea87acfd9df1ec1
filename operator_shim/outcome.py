"""Why a pod or a Job failed, or does not start, in words that a person can act on. Pure.

Our image says it itself, by exit code and termination message; for others the contract's phrases
in the last lines of the log count; else what the kubelet and the scheduler say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from operator_shim.failures import Outcome, TerminationMessage, outcome_of_code, outcome_of_message
from operator_shim.objects import Object, at, condition_of
from operator_shim.phrases import LOG_LINES, classify, telling_line
from operator_shim.retrying import Failure
from operator_shim.starting import held_up, needs_events

__all__ = [
    "DEADLINE",
    "LOG_LINES",
    "Outcome",
    "TerminationMessage",
    "needs_events",
    "needs_log",
    "outcome_of_job",
    "outcome_of_pod",
    "termination_message",
    "worst",
]

DEADLINE = "JobDeadlineExceeded"
"""The reason of a Job that has taken longer than it may."""
# Of several the one that is hardest to cure decides.
_HARDEST_FIRST = (
    *(Failure.PERMANENT, Failure.ACCESS, Failure.STORAGE, Failure.TRANSIENT),
    Failure.INFRASTRUCTURE,
)
_OF_JOB = {
    "BackoffLimitExceeded": "JobBackoffLimitExceeded",
    "DeadlineExceeded": DEADLINE,
}
# What the classes of the contract come to. A phrase is a guess, so none is permanent.
_OF_CLASS = {
    "not found": replace(outcome_of_code(66), failure=Failure.ACCESS, exit_code=None),
    "auth": replace(outcome_of_code(77), exit_code=None),
    "storage full": replace(outcome_of_code(73), exit_code=None),
}
# Why a pod was taken from its node: the words of the condition DisruptionTarget.
_DISRUPTED = {
    "PreemptionByScheduler": (
        "a pod of higher priority took its place",
        "add a node, or give the namespace's pods a higher priority",
    ),
    "DeletionByTaintManager": (
        "its node does not answer, or has got a taint that the pod does not tolerate",
        "look at the node, and delete it where it does not come back",
    ),
    "EvictionByEvictionAPI": (
        "it was evicted through the API, as for a drained node",
        "nothing is to be done",
    ),
    "DeletionByPodGC": ("its node is gone", "look at the nodes"),
    "TerminationByKubelet": (
        "the node ended it: it ran low on memory or disk, or is shut down",
        "look at the node",
    ),
}
_OF_POD = {
    "Evicted": ("the node evicted it", "see what the node ran low on"),
    "Preempting": _DISRUPTED["PreemptionByScheduler"],
    "NodeLost": ("its node does not answer", "look at the node"),
    "NodeShutdown": ("its node is shut down", "nothing is to be done"),
    "Shutdown": ("its node is shut down", "nothing is to be done"),
    "Terminated": ("its node is shut down", "nothing is to be done"),
    "NodeAffinity": ("its node does not fit any longer", "look at the node's labels"),
    "UnexpectedAdmissionError": ("its node did not admit it", "look at the node"),
}
_BRIEF = 300
_ITS_OWN_FAULT = re.compile(r"ephemeral.*limit|emptydir", re.IGNORECASE)


def termination_message(pod: Object) -> TerminationMessage | None:
    """What our downloader said in this pod; None while it runs, and from other images."""
    said = (TerminationMessage.parse(end.get("message") or "") for end in _ends(pod))
    return next((message for message in said if message), None)


def outcome_of_pod(
    pod: Object, lines: Sequence[str] = (), events: Sequence[Object] = ()
) -> Outcome | None:
    """Why the pod failed, or what it waits for in vain; None if it does well.

    Args:
        pod: as the server has it.
        lines: the last of its log, where ``needs_log``.
        events: those about it, where ``needs_events``.
    """
    match at(pod, "status.phase", "Pending"):
        case "Succeeded":
            return None
        case "Failed":
            taken = _taken_away(pod)
            return _said_by_us(pod, told_to_stop=taken is not None) or taken or _ended(pod, lines)
        case "Unknown":
            return _disrupted(*_OF_POD["NodeLost"], at(pod, "status.message", ""))
        case _:
            return _unheard(pod) or _taken_away(pod) or held_up(pod, events)


def outcome_of_job(job: Object) -> Outcome | None:
    """Why the Job failed, by its own word, for when its pods are gone; None unless it has."""
    condition = condition_of(job, "Failed")
    if condition is None or condition.get("status") != "True":
        return None
    reason, message = condition.get("reason") or "", condition.get("message") or ""
    stopped_by = re.search(r"exit code (\d{1,3})\b", message)
    # Only Jobs of our image have such a policy.
    if reason == "PodFailurePolicy" and stopped_by:
        return outcome_of_code(int(stopped_by[1]))
    known = _OF_JOB.get(reason, "JobFailed")
    hint = "its pods are gone: look at the log of the next one"
    if known == DEADLINE:
        hint = "see who sets its activeDeadlineSeconds; the next one goes on where it stopped"
    message = message or "the Job failed, and Kubernetes does not say why"
    return Outcome(known, message, hint)


def worst(outcomes: Iterable[Outcome | None]) -> Outcome | None:
    """The one that decides: the hardest to cure, and of those the last."""
    found = [outcome for outcome in outcomes if outcome is not None]
    return min(reversed(found), key=lambda one: _HARDEST_FIRST.index(one.failure), default=None)


def needs_log(pod: Object) -> bool:
    """Whether only the pod's log can say why it failed."""
    if at(pod, "status.phase") != "Failed" or termination_message(pod) or _taken_away(pod):
        return False
    end = _failed_end(pod)
    return end is not None and end.get("reason") != "OOMKilled"


def _ends(pod: Object) -> list[Object]:
    """How its containers ended."""
    statuses = (
        *at(pod, "status.initContainerStatuses", []),
        *at(pod, "status.containerStatuses", []),
    )
    return [end for status in statuses if (end := at(status, "state.terminated")) is not None]


def _failed_end(pod: Object) -> Object | None:
    return next((end for end in _ends(pod) if end.get("exitCode")), None)


def _said_by_us(pod: Object, *, told_to_stop: bool) -> Outcome | None:
    """The outcome by our downloader's own words, unless all it knows is that it had to stop."""
    said = termination_message(pod)
    if said is None or said.outcome == "complete" or (said.outcome == "cancelled" and told_to_stop):
        return None
    return outcome_of_message(said)


def _taken_away(pod: Object) -> Outcome | None:
    """The outcome of a pod that its node, the scheduler or somebody else has ended."""
    said, reason = at(pod, "status.message", ""), at(pod, "status.reason", "")
    if reason in _OF_POD or reason.startswith("OutOf"):
        what, hint = _OF_POD.get(reason, ("its node has no room for it", "look at the node"))
        return _disrupted(what, hint, said)
    condition = condition_of(pod, "DisruptionTarget")
    if condition is None or condition.get("status") != "True":
        return None
    by = condition.get("reason") or ""
    what, hint = _DISRUPTED.get(by, (f"it was taken away ({by})", "look at its node"))
    return _disrupted(what, hint, said or condition.get("message") or "")


def _unheard(pod: Object) -> Outcome | None:
    """The outcome of a pod whose node does not answer: a kubelet says why a pod is not ready."""
    ready = condition_of(pod, "Ready") or {}
    if ready.get("status") != "False" or ready.get("reason"):
        return None
    node = at(pod, "spec.nodeName", "")
    return Outcome(
        "NodeNotReady",
        f"its node {node} does not answer",
        f"look at the node; where it does not come back, delete it (`kubectl delete node {node}`):"
        " a minute later another pod takes its place",
        failure=Failure.INFRASTRUCTURE,
        status="Degraded",
        overall="InfrastructureError",
    )


def _disrupted(what: str, hint: str, said: str) -> Outcome:
    message = f"{what}: {said}" if said else what
    if _ITS_OWN_FAULT.search(said):
        # The next one would meet the same end at once.
        return Outcome("PodEvicted", message, "give the pod more ephemeral storage")
    hint = f"{hint}; the next pod goes on where it stopped"
    return Outcome(
        "PodEvicted",
        message,
        hint,
        failure=Failure.INFRASTRUCTURE,
        status="Degraded",
        overall="InfrastructureError",
    )


def _ended(pod: Object, lines: Sequence[str]) -> Outcome:
    """The outcome of a pod that failed by itself, and does not say why as our downloader would."""
    end = _failed_end(pod) or {}
    code, reason, said = end.get("exitCode"), end.get("reason"), end.get("message") or ""
    if reason == "OOMKilled":
        hint = "raise its memory limit with spec.resources (512Mi are enough for our image)"
        return Outcome("PodOOMKilled", "the kernel killed it for its memory", hint, code)
    # A pod may be told to leave the end of its log as its message.
    lines = lines or said.splitlines()
    known = classify(lines)
    if known in _OF_CLASS:
        message = _brief(telling_line(lines, known))
        return replace(_OF_CLASS[known], message=message, exit_code=code)
    if "DeadlineExceeded" in (reason, at(pod, "status.reason")):
        hint = "give it more time; it goes on where it stopped"
        return Outcome("PodDeadlineExceeded", "it took longer than it may", hint, code)
    said = _brief(said or _last(lines) or at(pod, "status.message", ""))
    return _of_foreign_code(code, reason or at(pod, "status.reason", ""), said)


def _of_foreign_code(code: int | None, reason: str, said: str) -> Outcome:
    tail = f": {said}" if said else ""
    if reason in ("StartError", "ContainerCannotRun"):
        hint = "correct spec.modelDownloadImage: that image has not what the Job starts"
        return Outcome("PodFailed", f"its program cannot be started{tail}", hint, code)
    if code in (130, 143):
        return replace(outcome_of_code(code), message=f"it was ended from outside{tail}")
    if code == 137:
        hint = "see whether its node ran out of memory, or somebody ended it"
        return Outcome("PodFailed", f"it was killed{tail}", hint, code)
    if code is None:
        hint = "look at its events with `kubectl describe pod`"
        return Outcome("PodFailed", f"it failed ({reason or 'no reason is given'}){tail}", hint)
    hint = "look at its log"
    return Outcome("PodFailed", f"it ended with exit code {code}{tail}", hint, code)


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "")


def _brief(said: str) -> str:
    """One line of it: the end of a traceback says more than its beginning."""
    words = " ".join(said.split())
    return words if len(words) <= _BRIEF else f"…{words[-_BRIEF:]}"
