"""A failure as the operator speaks of it, and what our downloader's own words come to. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

from operator_shim.retrying import Failure

FINAL_CODES = (2, 66, 73, 77)
"""Exit codes of our image after which another pod cannot do better."""


@dataclass(frozen=True)
class Outcome:
    """What became of a pod or a Job that did not, or does not, do its work."""

    reason: str
    """Of the condition of the pods (or of the Job)."""
    message: str
    hint: str = ""
    exit_code: int | None = None
    failure: Failure = Failure.TRANSIENT
    status: str = "Failed"
    """The artifact's status if the Job ends so, or waits so: Failed, Degraded or Pending."""
    overall: str = ""

    @property
    def ready_reason(self) -> str:
        """Of the condition Ready."""
        return self.overall or self.reason

    @property
    def permanent(self) -> bool:
        """Whether only a changed input can cure it."""
        return self.failure is Failure.PERMANENT


@dataclass(frozen=True)
class TerminationMessage:
    """What our downloader left when it ended; empty where it had nothing to say."""

    outcome: str
    """complete, failed or cancelled."""
    exit_code: int
    error: str
    message: str
    hint: str
    protocol: str
    bytes: int
    bytes_received: int
    total_bytes: int
    """Of the whole model, as far as it was known."""
    seconds: float
    revision: str
    uri: str

    @classmethod
    def parse(cls, text: str) -> TerminationMessage | None:
        """The message, if it is one of our downloader's."""
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(facts, dict) or facts.get("outcome") not in _OUTCOMES:
            return None
        if type(facts.get("exitCode")) is not int:
            return None
        return cls(
            exit_code=facts["exitCode"],
            bytes=_count(facts.get("bytes")),
            bytes_received=_count(facts.get("bytesReceived")),
            total_bytes=_count(facts.get("totalBytes")),
            seconds=_number(facts.get("seconds")),
            **{word: str(facts.get(word) or "") for word in _WORDS},
        )


def outcome_of_code(code: int) -> Outcome:
    """What an exit code of our downloader means; 1 stands for those that it does not have."""
    return replace(_OF_CODE.get(code, _OF_CODE[1]), exit_code=code)


def outcome_of_message(said: TerminationMessage) -> Outcome:
    """What our downloader failed of, in its own words."""
    known = outcome_of_code(said.exit_code)
    if known.reason == "StorageFull" and said.error not in ("", "InsufficientSpaceError"):
        # Nobody tells us that a right was given; and storage has its moods, which pass.
        hint = "see who may write to the volume"
        known = replace(known, reason="PodFailed", hint=hint, failure=Failure.TRANSIENT)
    return replace(known, message=said.message or known.message, hint=_both(said.hint, known.hint))


def _both(theirs: str, ours: str) -> str:
    """Two hints as one; ours tells where a variable is set, so theirs need not speak of it."""
    clauses = (each for each in _BETWEEN_CLAUSES.split(theirs) if not _alike(each, ours))
    return "; ".join(filter(None, (*clauses, ours)))


def _alike(clause: str, ours: str) -> bool:
    return any(name in ours for name in _VARIABLE.findall(clause))


_BETWEEN_CLAUSES = re.compile(r"; |, then ")
_VARIABLE = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")
_OUTCOMES = ("complete", "failed", "cancelled")
_WORDS = ("outcome", "error", "message", "hint", "protocol", "revision", "uri")
_CANCELLED = Outcome(
    "PodFailed",
    "the download was ended from outside",
    hint="the next pod goes on where it stopped",
    failure=Failure.INFRASTRUCTURE,
)
_OF_CODE = {
    1: Outcome(
        "PodFailed",
        "the downloader failed in a way that nobody foresaw",
        hint="report the traceback in the pod's log",
    ),
    2: Outcome(
        "PodFailed",
        "the downloader cannot use a variable or the URI",
        hint="correct spec.env, or make an artifact with another spec.sourceUri",
        failure=Failure.PERMANENT,
        overall="InvalidSpec",
    ),
    65: Outcome(
        "PodFailed",
        "a file on the volume is damaged or missing",
        hint="if that happens often, look at the storage",
    ),
    66: Outcome(
        "SourceNotFound",
        "the repository, revision or path does not exist",
        hint="unless it is made there, make an artifact with another spec.sourceUri",
        failure=Failure.PERMANENT,
        overall="InvalidSpec",
    ),
    69: Outcome(
        "PodFailed",
        "a file could not be had, or not undamaged",
        hint="the next pod goes on where it stopped",
    ),
    73: Outcome(
        "StorageFull",
        "the volume is full, or may not be written to",
        hint="free some space on it, or let it be larger",
        failure=Failure.STORAGE,
    ),
    75: Outcome(
        "PodFailed",
        "the source cannot be reached, or another pod is at work",
        hint="proxies and HF_ENDPOINT are set under spec.env",
    ),
    77: Outcome(
        "AuthError",
        "the source denies access",
        hint="under spec.env take HF_TOKEN from a Secret, with a token that may read the model",
        failure=Failure.ACCESS,
    ),
    130: _CANCELLED,
    143: _CANCELLED,
}


def _number(value: object) -> float:
    # Whoever wrote it: what cannot be a status does not come near one.
    return value if isinstance(value, int | float) and 0 <= value < 2**63 else 0


def _count(value: object) -> int:
    return int(_number(value))
