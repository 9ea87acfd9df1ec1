"""An AIMModelCache says what an AIMArtifact says, in older words: there, and back again. Pure.

``Available`` stands for Ready; Degraded is Progressing, or Failed where the volume is lost. Four
older conditions stand beside those of the parts, and Ready has reasons of its own while all goes
well; in trouble it keeps the reason, which the older words lack.
"""

from __future__ import annotations

from datetime import datetime

from operator_shim.keys import MODEL_CACHE
from operator_shim.objects import Object, at, condition_of, moment_told
from operator_shim.telling import Condition, written

_WORDS = {"Ready": "Available", "Degraded": "Progressing", "NotAvailable": "Failed"}
_UNDER_WAY = ("WaitingForPVC", "Downloading")
_DEGRADED = "InfrastructureError"
# What is said of the claim; any other trouble with it is PVCPending.
_STORAGE = {"Ready": "PVCBound", "PvcLost": "PVCLost", "ResourceNotReady": "PVCProvisioning"}


def read(object_: Object) -> Object:
    """The object with its status in the words of an AIMArtifact; another kind as it is."""
    if object_.get("kind") != MODEL_CACHE or not at(object_, "status", {}):
        return object_
    status = object_["status"]
    told: Object = {"conditions": [_read(each) for each in at(status, "conditions", [])]}
    if word := _read_word(object_):
        told["status"] = word
    return {**object_, "status": {**status, **told}}


def told(status: Object, stored: Object, now: datetime) -> Object:
    """The status of an AIMArtifact as its own kind says it: ``stored``, which the server has."""
    if stored.get("kind") != MODEL_CACHE:
        return status
    fresh = {"status": status}
    ready = condition_of(fresh, "Ready") or {}
    storage = _storage(condition_of(fresh, "CachePvcReady") or {})
    lost = storage.reason == "PVCLost" and status["status"] == "Degraded"
    said: str = status["status"]
    word = "Failed" if lost else _WORDS.get(said, said)
    reason = _reason(ready, storage, word)
    older = (
        Condition("Ready", word == "Available", reason, ready.get("message", "")),
        storage,
        _progressing(word, reason),
        _failure(word, ready, storage),
    )
    since = _since(ready, now)
    parts = [each for each in status["conditions"] if each["type"] != "Ready"]
    conditions = [written(each, stored, since) for each in older]
    return {**status, "status": word, "conditions": [*conditions, *parts]}


# -- back ------------------------------------------------------------------------------------------


def _read_word(object_: Object) -> str:
    word: str = at(object_, "status.status", "")
    ready = condition_of(object_, "Ready") or {}
    if word != "Available" and ready.get("reason") == _DEGRADED:
        return "Degraded"
    return "Ready" if word == "Available" else word


def _read(condition: Object) -> Object:
    if condition["type"] != "Ready":
        return condition
    if condition["status"] == "True":
        return {**condition, "reason": "AllComponentsReady"}
    return {**condition, "reason": "Progressing"} if _is_under_way(condition) else condition


def _is_under_way(ready: Object) -> bool:
    return ready["reason"] in _UNDER_WAY


# -- there -----------------------------------------------------------------------------------------


def _since(ready: Object, now: datetime) -> datetime:
    """Not before the time of Ready, which is never before the claim was made."""
    return max(now, moment_told(ready.get("lastTransitionTime")) or now)


def _storage(claim: Object) -> Condition:
    reason = _STORAGE.get(claim.get("reason", "ResourceNotReady"), "PVCPending")
    return Condition("StorageReady", reason == "PVCBound", reason, claim.get("message", ""))


def _reason(ready: Object, storage: Condition, word: str) -> str:
    if ready.get("status") == "True":
        return "Warm"
    reason: str = ready.get("reason", "Progressing")
    if reason != "Progressing" and word != "Pending":
        return reason
    return "Downloading" if storage.true else "WaitingForPVC"


def _progressing(word: str, reason: str) -> Condition:
    kind = "Progressing"
    if word == "Available":
        return Condition(kind, False, "Warm", "the model is there: nothing is left to do")
    if reason in _UNDER_WAY:
        return Condition(kind, True, reason, "the condition Ready says how far it is")
    said = "the condition Ready says what it waits for, and when it is tried again"
    return Condition(kind, word != "Failed", "RetryBackoff", said)


def _failure(word: str, ready: Object, storage: Condition) -> Condition:
    if word != "Failed":
        return Condition("Failure", False, "NoFailure", "nothing has failed for good")
    reason = "PVCLost" if storage.reason == "PVCLost" else "DownloadFailed"
    return Condition("Failure", True, reason, ready.get("message", ""))
