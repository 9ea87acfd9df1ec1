"""Which of two states is the better one, and which states mean that a model can be used. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from operator_shim.objects import Object, at

READY = "Ready"
_BY_DESIRE = (
    *("Failed", "NotAvailable", "Degraded", "Pending"),
    *("Starting", "Progressing", "Ready", "Running"),
)
_USABLE = (READY, "Available")


def state_of(object_: Object) -> str:
    """Its ``status.status`` in the words of today; Progressing while it has none."""
    said = str(at(object_, "status.status", ""))
    if said in _USABLE:
        return READY
    return said if said in _BY_DESIRE else "Progressing"


def is_usable(object_: Object) -> bool:
    """Whether what it is about is there: Ready, or Available as older kinds say it."""
    return state_of(object_) == READY


def rank(state: str) -> int:
    """How desirable a state is."""
    return _BY_DESIRE.index(state)


def worst(states: Iterable[str]) -> str:
    """The least desirable of them; Ready where there is none."""
    return min(states, key=rank, default=READY)
