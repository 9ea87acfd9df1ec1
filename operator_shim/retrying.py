"""When what failed is tried again: a state in one annotation, and what each class waits for.

``{"class":"transient","attempts":3,"next":"2026-01-31T10:04:12Z","inputs":"9f0c…","job":"<uid>"}``
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from operator_shim.objects import moment, timestamp

_MINUTE = timedelta(minutes=1)
# With what is added to it an hour at the most.
_LONGEST = timedelta(minutes=50)
_ADDED = 0.2
_DOUBLINGS = 6
_DIGITS = 16


class Failure(StrEnum):
    """What may cure a failure; a changed input always may."""

    PERMANENT = "permanent"
    """Nothing but a changed input (the annotation ``retry`` is one of them)."""
    ACCESS = "access"
    """A right or a token that nobody tells us of: asked again each hour."""
    STORAGE = "storage"
    """Room on the volume: asked again each hour."""
    TRANSIENT = "transient"
    """Time: from one minute to one hour, twice as long each time."""
    INFRASTRUCTURE = "infrastructure"
    """The cluster, which goes on trying by itself: no attempt is counted."""


@dataclass(frozen=True)
class RetryState:
    """What failed, how often, and when it is tried again; ``next`` None: once an input changes."""

    failure: Failure
    attempts: int
    next: datetime | None
    inputs: str
    job: str = ""
    """UID of the Job whose failure was counted last."""

    def dump(self) -> str:
        """The value of the annotation."""
        facts = {
            "class": self.failure.value,
            "attempts": self.attempts,
            "next": timestamp(self.next) if self.next else None,
            "inputs": self.inputs,
            "job": self.job,
        }
        return json.dumps(facts, separators=(",", ":"))


def load(annotation: str | None) -> RetryState | None:
    """The state of an annotation; None without one, or if it cannot be read."""
    try:
        facts = json.loads(annotation or "")
        return RetryState(
            Failure(facts["class"]),
            max(0, int(facts["attempts"])),
            moment(facts["next"]) if facts["next"] else None,
            str(facts["inputs"]),
            str(facts["job"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def inputs_hash(*inputs: object) -> str:
    """One hash of all that a Job depends on: what stands in the spec, the config, ``retry``."""
    written = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:_DIGITS]


def after_failure(
    state: RetryState | None,
    failure: Failure,
    inputs: str,
    now: datetime,
    *,
    name: str,
    job: str,
) -> RetryState:
    """The state after this Job (its UID) of the artifact ``name`` failed with these inputs.

    The same Job counts once: asked again, the state is what it was.
    """
    if state is not None and state.job == job:
        return state
    before = state.attempts if state is not None and state.inputs == inputs else 0
    attempts = before if failure is Failure.INFRASTRUCTURE else before + 1
    wait = _wait(failure, attempts, name)
    # To the second, as it is written.
    again = None if wait is None else (now + wait).replace(microsecond=0) + timedelta(seconds=1)
    return RetryState(failure, attempts, again, inputs, job)


def due(state: RetryState | None, inputs: str, now: datetime) -> bool | datetime:
    """Whether a Job may run now (True), later (when), or not before an input changes (False)."""
    if state is None or state.inputs != inputs:
        return True
    if state.next is None:
        return False
    return state.next <= now or state.next


def _wait(failure: Failure, attempts: int, name: str) -> timedelta | None:
    if failure is Failure.PERMANENT:
        return None
    if failure is Failure.INFRASTRUCTURE:
        wait = _MINUTE
    elif failure is Failure.TRANSIENT:
        wait = min(_LONGEST, _MINUTE * 2 ** min(attempts - 1, _DOUBLINGS))
    else:
        wait = _LONGEST
    return wait * (1 + _ADDED * _share(f"{name}/{attempts}"))


def _share(text: str) -> float:
    """From 0 to 1: the same for the same text, so that not all come at the same time."""
    return hashlib.sha256(text.encode()).digest()[0] / 256
