"""When what failed is tried again: a state in one annotation, and what each class waits for.

``{"class":"transient","attempts":3,"next":"2026-01-31T10:04:12Z","inputs":"9f0c…","job":"<uid>",
"of":"DownloadJob","volume":"<uid>/11Gi","told":{"reason":"PodFailed","message":"…"}}``
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from operator_shim.objects import moment, timestamp

_MINUTE = timedelta(minutes=1)
# With what is added to it an hour at the most.
_LONGEST = timedelta(minutes=50)
_ADDED = 0.2
_DOUBLINGS = 6
_DIGITS = 16
_TOLD = 1000
_MOST_ATTEMPTS = 9999
# What says that it is later was written by a clock that was ahead, or by hand.
_FURTHEST = timedelta(hours=2)


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
    of: str = ""
    """Which of the artifact's Jobs that was: one counts nothing for the other."""
    volume: str = ""
    """The volume that it wrote to, and how large that was."""
    told: Mapping[str, str] = field(default_factory=dict)
    """What was told of it, for when it is gone."""

    def dump(self) -> str:
        """The value of the annotation."""
        facts = {
            "class": self.failure.value,
            "attempts": self.attempts,
            "next": timestamp(self.next) if self.next else None,
            "inputs": self.inputs,
            "job": self.job,
            "of": self.of,
            "volume": self.volume,
            "told": dict(self.told),
        }
        return json.dumps(facts, separators=(",", ":"))


def load(annotation: str | None) -> RetryState | None:
    """The state of an annotation; None without one, or if it cannot be read."""
    try:
        facts = json.loads(annotation or "")
        return RetryState(
            Failure(facts["class"]),
            min(max(0, int(facts["attempts"])), _MOST_ATTEMPTS),
            moment(facts["next"]) if facts["next"] else None,
            str(facts["inputs"]),
            str(facts["job"]),
            str(facts["of"]),
            str(facts["volume"]),
            _brief(facts["told"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def _brief(told: Mapping[str, str]) -> dict[str, str]:
    return {str(name): str(words)[:_TOLD] for name, words in told.items()}


def inputs_hash(*inputs: object) -> str:
    """One hash of all that a Job depends on: what stands in the spec, the config, ``retry``."""
    written = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:_DIGITS]


def after_failure(  # noqa: PLR0913  # all that the state keeps
    state: RetryState | None,
    failure: Failure,
    inputs: str,
    now: datetime,
    *,
    name: str,
    job: str,
    of: str = "",
    volume: str = "",
    told: Mapping[str, str] | None = None,
) -> RetryState:
    """The state after this Job (its UID) of the artifact ``name`` failed with these inputs.

    The same Job counts once: asked again, the state is what it was.
    """
    if state is not None and state.job == job:
        return state
    goes_on = state is not None and (state.inputs, state.of) == (inputs, of)
    before = state.attempts if state is not None and goes_on else 0
    counted = before if failure is Failure.INFRASTRUCTURE else before + 1
    attempts = min(counted, _MOST_ATTEMPTS)
    wait = _wait(failure, attempts, name)
    # To the second, as it is written.
    again = None if wait is None else (now + wait).replace(microsecond=0) + timedelta(seconds=1)
    return RetryState(failure, attempts, again, inputs, job, of, volume, _brief(told or {}))


def due(state: RetryState | None, inputs: str, now: datetime, volume: str = "") -> bool | datetime:
    """Whether a Job may run now (True), later (when), or not before an input changes (False).

    What failed for want of room may run at once on another volume, or on one that has grown.
    """
    if state is None or state.inputs != inputs:
        return True
    if state.failure is Failure.STORAGE and state.volume != volume:
        return True
    return False if state.next is None else due_at(state.next, now)


def due_at(next_: datetime, now: datetime) -> bool | datetime:
    """Whether that time has come; else when."""
    return next_ if now < next_ <= now + _FURTHEST else True


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
