"""What a status tells, of whatever kind: conditions, and notes for people when it changes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from operator_shim.objects import Object, condition_of, generation_of, timestamp

_LONGEST, _LONGEST_REASON = 4000, 128
_NOT_IN_A_REASON = re.compile(r"^[^A-Za-z]+|[^A-Za-z0-9_]+")


@dataclass(frozen=True)
class Condition:
    """One line of what is the case."""

    type: str
    true: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """How it is with an object as a whole: what ``kubectl get`` shows, and why."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class EventNote:
    """One line under Events in ``kubectl describe``; kind is Normal or Warning."""

    kind: str
    reason: str
    message: str


def written(told: Condition, about: Object, now: datetime) -> Object:
    """The condition as it is stored; its time moves when its status or reason does."""
    status = "True" if told.true else "False"
    # Nodes call reasons what they like, and the API server would not take any of the status.
    reason = _NOT_IN_A_REASON.sub("", told.reason)[:_LONGEST_REASON] or "Unknown"
    before = condition_of(about, told.type)
    since = timestamp(now)
    if before and (before["status"], before["reason"]) == (status, reason):
        since = before["lastTransitionTime"]
    return {
        "type": told.type,
        "status": status,
        "reason": reason,
        "message": _readable(told.message)[:_LONGEST],
        "lastTransitionTime": since,
        "observedGeneration": generation_of(about),
    }


def _readable(message: str) -> str:
    """The words of pods and servers, without what turns a terminal over, or cannot be stored."""
    return "".join(each if each.isprintable() else " " for each in message)


def differs(status: Object, before: Object) -> bool:
    """Whether any of the status is not yet as it should be; what others have told is left out."""
    return any(_differs(value, before.get(field)) for field, value in status.items())


def _differs(value: object, before: object) -> bool:
    if isinstance(value, dict):
        return not isinstance(before, dict) or differs(value, before)
    if isinstance(value, list):
        there = before if isinstance(before, list) else []
        return any(each not in there for each in value)
    return value != before
